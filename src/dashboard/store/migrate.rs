//! The schemas, and how a database gets them. A migration that was released is never edited: a later one corrects it.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyPool, SqlSafeStr};

/// A set of tables. One database may hold both, as it does in a single-region installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Accounts, tenants, members, signing keys, plans, subscriptions, invoices, nodes, audit, API keys, invitations.
    Home,
    /// Apps, their refresh tokens and what they use.
    Region,
}

impl Schema {
    fn migrations(self) -> &'static [(i64, &'static str, &'static str)] {
        match self {
            Self::Home => &[
                (1, "foundation", include_str!("migrations/home_1.sql")),
                (2, "nodes", include_str!("migrations/home_2.sql")),
                (3, "usage", include_str!("migrations/home_3.sql")),
                (4, "billing", include_str!("migrations/home_4.sql")),
                (5, "automation", include_str!("migrations/home_5.sql")),
                (6, "web sessions", include_str!("migrations/home_6.sql")),
            ],
            Self::Region => &[
                (1, "foundation", include_str!("migrations/region_1.sql")),
                (2, "usage", include_str!("migrations/region_2.sql")),
                (3, "documents of refresh families", include_str!("migrations/region_3.sql")),
            ],
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Home => "home_migrations",
            Self::Region => "region_migrations",
        }
    }
}

pub(super) async fn run(pool: &AnyPool, schema: Schema) -> Result<(), MigrateError> {
    let migrations = schema.migrations().iter().map(|&(version, name, sql)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(schema.table());
    migrator.run(pool).await
}
