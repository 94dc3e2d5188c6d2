//! The databases: SQLite embedded, PostgreSQL by URL, one set of statements for both.
//!
//! - [`Database`] is one database; [`Tx`] a transaction that writes. sqlx's `Any` driver carries both kinds, so a
//!   statement is written once, in the SQL that both understand, and the same tests run on both.
//! - Rules that must hold under races are unique indexes, or conditional UPDATEs whose row count is looked at. Nothing
//!   reads and then writes on the strength of what it read.
//! - SQLite has one writing connection, which begins with `BEGIN IMMEDIATE` (a transaction that could not become a writer
//!   later fails at its start, where it can wait), and a few for reading (WAL).
//!
//! Absent: any meaning. The tables' rules live in the module of their noun.

mod migrate;

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyPool, Executor};

pub use migrate::Schema;
pub use sqlx::query;

/// A transaction that may write. Dropped without `commit`, it changes nothing.
pub type Tx = sqlx::Transaction<'static, Any>;

/// How long a statement waits for a connection or a lock.
const WAIT: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;

/// What a database could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database URL {0:?} is none: write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Url(String),
    #[error("could not open the database {url}; check that it runs, and that this user may use it")]
    Open { url: String, source: sqlx::Error },
    #[error("could not bring the database {url} to this version's schema")]
    Migrate { url: String, source: sqlx::migrate::MigrateError },
    #[error("the database could not carry out a statement")]
    Statement(#[from] sqlx::Error),
    #[error("the database holds {what} that can't be: {value:?}")]
    Corrupt { what: &'static str, value: String },
}

impl StoreError {
    /// Whether a unique index said no.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Statement(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// Where a database is: `sqlite:PATH` or `postgres://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl fmt::Debug for DatabaseUrl {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseUrl").field(&self.shown()).finish()
    }
}

impl DatabaseUrl {
    fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    /// The URL without a password, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        without_password(&self.0)
    }
}

/// What may be shown of a text that should be a database's URL: no password, whether it is one or not. That is between the first
/// colon of the user and the last `@`, or in the query.
fn without_password(text: &str) -> String {
    if text.starts_with("sqlite:") {
        return text.to_owned();
    }
    let text = text.split('?').next().unwrap_or_default();
    let (scheme, rest) =
        text.split_once("://").map_or(("", text), |(scheme, rest)| (&text[..scheme.len() + 3], rest));
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}{}@{host}", user.split(':').next().unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl FromStr for DatabaseUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let path = text.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"));
        let is_sqlite = path.is_some_and(|path| !path.is_empty() && !path.contains('?'));
        let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if is_sqlite || is_postgres {
            Ok(Self(text.to_owned()))
        } else {
            Err(StoreError::Url(without_password(text)))
        }
    }
}

/// One database, ready for use: its schema is this version's.
#[derive(Debug, Clone)]
pub struct Database {
    writer: AnyPool,
    reader: AnyPool,
    begin: &'static str,
}

impl Database {
    /// Opens the database, makes an SQLite file that is not there, and brings the schemas up to date.
    ///
    /// # Errors
    /// [`StoreError`] names the URL, without its password.
    pub async fn open(url: &DatabaseUrl, schemas: &[Schema]) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let failed = |source| StoreError::Open { url: url.shown(), source };
        let database = if url.is_sqlite() {
            let options = AnyConnectOptions::from_str(&format!("{}?mode=rwc", url.0)).map_err(failed)?;
            make_private(url.0.trim_start_matches("sqlite:").trim_start_matches("//"));
            let writer = sqlite_pool(1).connect_with(options.clone()).await.map_err(failed)?;
            let reader = sqlite_pool(SQLITE_READERS).connect_with(options).await.map_err(failed)?;
            Self { writer, reader, begin: "BEGIN IMMEDIATE" }
        } else {
            let options = AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(WAIT);
            let pool = options.connect(&url.0).await.map_err(failed)?;
            Self { writer: pool.clone(), reader: pool, begin: "BEGIN" }
        };
        for schema in schemas {
            let migrated = migrate::run(&database.writer, *schema).await;
            migrated.map_err(|source| StoreError::Migrate { url: url.shown(), source })?;
        }
        Ok(database)
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// [`StoreError::Statement`] if there is no connection in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.writer.begin_with(self.begin).await?)
    }

    /// Begins a transaction that only reads: it waits for no writer.
    ///
    /// # Errors
    /// [`StoreError::Statement`] if there is no connection in time.
    pub async fn begin_read(&self) -> Result<Tx, StoreError> {
        Ok(self.reader.begin().await?)
    }

    /// Where single statements that only read are carried out.
    #[must_use]
    pub fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// Closes all connections; SQLite then leaves one file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Makes a file that is not there yet, for nobody else: it will hold hashes of passwords and sealed keys. SQLite gives what it
/// makes beside it the same rights. What is wrong with the path SQLite says when it opens it.
fn make_private(path: &str) {
    let _ = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
}

fn sqlite_pool(connections: u32) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(WAIT);
    options.after_connect(|connection, _| {
        Box::pin(async move {
            // `synchronous = NORMAL` could lose the last transactions with the power; tokens and money are worth FULL.
            for pragma in [
                "PRAGMA busy_timeout = 10000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ] {
                connection.execute(pragma).await?;
            }
            Ok(())
        })
    })
}

/// A row's columns by name, as the types that the schema has.
pub trait Columns {
    /// # Errors
    /// If there is no such column, or it is NULL or no text.
    fn text(&self, column: &str) -> Result<String, StoreError>;
    /// # Errors
    /// If there is no such column, or it is no text.
    fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError>;
    /// # Errors
    /// If there is no such column, or it is NULL or no number.
    fn int(&self, column: &str) -> Result<i64, StoreError>;
    /// # Errors
    /// If there is no such column, or it is no number.
    fn int_or_null(&self, column: &str) -> Result<Option<i64>, StoreError>;

    /// # Errors
    /// If there is no such column, or it holds something else than a `T`.
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| StoreError::Corrupt { what: column, value: text })
    }
}

impl Columns for AnyRow {
    fn text(&self, column: &str) -> Result<String, StoreError> {
        Ok(sqlx::Row::try_get(self, column)?)
    }

    fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(sqlx::Row::try_get(self, column)?)
    }

    fn int(&self, column: &str) -> Result<i64, StoreError> {
        Ok(sqlx::Row::try_get(self, column)?)
    }

    fn int_or_null(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::Row::try_get(self, column)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let url: DatabaseUrl = "postgres://dash:secret@db.example/wiresocket".parse().unwrap();
        assert_eq!(url.shown(), "postgres://dash@db.example/wiresocket");
        assert!(!format!("{url:?}").contains("secret"));
        for text in [
            "postgres://dash:sec@ret@db.example/wiresocket",
            "postgres://db.example/wiresocket?user=dash&password=secret",
            "mysql://dash:secret@db.example",
            "dash:secret@db.example/wiresocket",
            "postgres//dash:secret@db.example/wiresocket",
        ] {
            let shown = text.parse::<DatabaseUrl>().map_or_else(|error| error.to_string(), |url| url.shown());
            assert!(shown.contains("db.example") && !shown.contains("ret"), "{shown}");
        }
        assert_eq!("sqlite:/var/lib/a.db".parse::<DatabaseUrl>().unwrap().shown(), "sqlite:/var/lib/a.db");
    }

    #[test]
    fn a_url_is_of_one_of_the_two_kinds() {
        for text in ["mysql://a/b", "sqlite:", "sqlite://", "/var/lib/a.db", "sqlite:a.db?mode=ro"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_new_file_is_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home.db");
        let url: DatabaseUrl = format!("sqlite:{}", path.display()).parse().unwrap();
        let database = Database::open(&url, &[]).await.unwrap();
        let mut tx = database.begin().await.unwrap();
        tx.execute("CREATE TABLE a (b TEXT)").await.unwrap();
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
        assert!(files.len() >= 2, "the log beside it: {files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }
}
