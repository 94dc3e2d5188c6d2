//! The dashboard's configuration: one TOML file, turned into validated types. `tuning/dashboard.toml` documents every key.
//!
//! Invariants: a [`Config`] that exists has passed every check, alone and across keys. Wrong values are all reported at
//! once, with their places; text that is not TOML, a value of a wrong type and an unknown key end the reading at the first.
//!
//! Absent: whether databases answer and key files can be read, which is found out at the start.

mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::{Issuer, LoadError, LogFormat, LogLevel, LogSettings};
use crate::limits::Network;
use crate::tls::TlsFiles;

use super::master::KeySource;
use super::region::LicenseRegion;
use super::store::DatabaseUrl;

pub use read::parse;

/// Everything a dashboard is configured with.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// `iss` of tokens, and where the dashboard is reached: without a path or a slash at its end.
    pub issuer: Issuer,
    /// Who gets the first operator account.
    pub operator_email: String,
    /// The home database.
    pub home: DatabaseUrl,
    /// The regions in which apps can be made.
    pub regions: BTreeMap<LicenseRegion, RegionSettings>,
    pub master_keys: BTreeMap<i64, KeySource>,
    pub keys: KeySettings,
    pub tokens: TokenSettings,
    pub http: HttpSettings,
    pub billing: BillingSettings,
    /// `None`: no mail is sent, and nobody can be invited.
    pub mail: Option<MailSettings>,
    /// `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    pub log: LogSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSettings {
    /// An address, or `Name <address>`.
    pub from: String,
    pub target: MailTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailTarget {
    Smtp {
        /// Where the relay's URL is, which holds a password.
        url: KeySource,
        /// Certificates that the relay's may be of, besides those of public authorities.
        ca_file: Option<PathBuf>,
    },
    /// Each letter a file: for development and tests.
    Directory(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSettings {
    pub db_code: String,
    /// `None`: the region's tables are in the home database.
    pub database: Option<DatabaseUrl>,
}

/// The life of signing keys, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySettings {
    /// How long verifiers may cache a JWKS document.
    pub jwks_max_age_s: i64,
    /// A new key is published this long before it signs; at least `jwks_max_age_s`.
    pub publish_before_s: i64,
    /// How long a key signs. 0: until rotated by hand.
    pub rotate_every_s: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    pub access_token_s: i64,
    pub refresh_token_s: i64,
    /// Tokens signed at the same time, each on a thread.
    pub signing_threads: usize,
    /// Tokens waiting for a thread; one more is told to come back.
    pub signing_queue_max: usize,
    /// `client_id`s of the trusted first-party apps that may use the password grant.
    pub password_clients: Vec<String>,
}

/// Rates are per address and ten minutes; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    pub jwks_per_10_minutes: u32,
    /// Requests of the management API, per address and per API key.
    pub api_per_10_minutes: u32,
    /// Failed log-ins and client authentications.
    pub failures_per_address: u32,
    /// The same of one client or account, from all addresses together.
    pub failures_per_account: u32,
    pub trusted_proxies: Vec<Network>,
    /// Addresses that no rate counts: the fleet's own nodes.
    pub exempt_networks: Vec<Network>,
}

/// When invoices are due, what comes after, and who collects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingSettings {
    /// One of `providers`; `None`: operators mark invoices as paid.
    pub provider: Option<String>,
    /// From an invoice's issue to the moment it is overdue.
    pub payment_term_s: i64,
    /// From then on until its app gets no more tokens.
    pub grace_s: i64,
    /// How to pay, where no provider has a checkout.
    pub instructions: String,
    pub providers: BTreeMap<String, ProviderSettings>,
}

/// A hosted checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// With placeholders: `billing::providers`.
    pub checkout_url: String,
    /// Any of them may sign.
    pub webhook_secrets: Vec<KeySource>,
}

impl Config {
    /// A configuration without a file, as tests and `dev` need it: everything in one database, default times.
    #[must_use]
    pub fn in_one_database(listen: SocketAddr, issuer: Issuer, home: DatabaseUrl) -> Self {
        let region = |region: LicenseRegion| {
            (region, RegionSettings { db_code: region.default_db_code(), database: None })
        };
        Self {
            listen,
            issuer,
            operator_email: "operator@localhost".to_owned(),
            home,
            regions: LicenseRegion::all().map(region).into(),
            master_keys: BTreeMap::new(),
            keys: KeySettings::default(),
            tokens: TokenSettings::default(),
            http: HttpSettings::default(),
            billing: BillingSettings::default(),
            mail: None,
            tls: None,
            log: LogSettings { format: LogFormat::Human, level: LogLevel::Info },
        }
    }

    /// For how long a retired key still verifies: no token signed with it may be alive after that, at a verifier whose
    /// clock differs, nor may one be in a cached answer.
    #[must_use]
    pub fn retired_key_s(&self) -> i64 {
        const CLOCKS_DIFFER_S: i64 = 300;
        self.tokens.access_token_s + self.keys.jwks_max_age_s + CLOCKS_DIFFER_S
    }
}

impl Default for KeySettings {
    fn default() -> Self {
        Self { jwks_max_age_s: 300, publish_before_s: 900, rotate_every_s: 90 * 86_400 }
    }
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            access_token_s: 900,
            refresh_token_s: 7 * 86_400,
            signing_threads: 2,
            signing_queue_max: 1000,
            password_clients: Vec::new(),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            jwks_per_10_minutes: 20,
            api_per_10_minutes: 6000,
            failures_per_address: 30,
            failures_per_account: 100,
            trusted_proxies: Vec::new(),
            exempt_networks: Vec::new(),
        }
    }
}

impl Default for BillingSettings {
    fn default() -> Self {
        Self {
            provider: None,
            payment_term_s: 7 * 86_400,
            grace_s: 7 * 86_400,
            instructions: "Ask the operator of this platform how to pay, and name the invoice's number."
                .to_owned(),
            providers: BTreeMap::new(),
        }
    }
}

/// Reads a configuration file.
///
/// # Errors
/// If it can't be read, or with what is wrong in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(parse(&text, &path.display().to_string())?)
}
