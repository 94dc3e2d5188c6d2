//! The dashboard: tenants, apps, plans, keys and the OAuth 2 tokens that nodes accept.
//!
//! Domain modules hold rules and SQL: an operation is a function that takes the [`Dashboard`], the [`access::Actor`] on
//! whose behalf it acts, and typed arguments. It checks the actor's right, changes rows and writes its audit entry in one
//! transaction, or does nothing. `oauth` and `http` are the shell: they parse requests and render answers.
//!
//! - The home database has what is global; an app's metadata is in its license region's database and nowhere else, and
//!   its `client_id` says which one (`region`).
//! - Time comes from [`Dashboard::clock`], randomness from `random`. What is slow on a core (RSA, argon2) runs on
//!   blocking threads, bounded.
//!
//! Absent: documents, sockets of editors, anything of `engine` or `shard`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod access;
pub mod accounts;
pub mod admin;
pub mod api_keys;
pub mod apps;
pub mod audit;
pub mod billing;
pub mod clock;
pub mod config;
pub mod demo;
mod domains;
mod encrypted;
mod feed;
mod http;
mod idempotency;
pub mod invitations;
pub mod keys;
pub mod mail;
pub mod master;
pub mod members;
pub mod nodes;
mod oauth;
mod passwords;
pub mod plans;
pub mod random;
pub mod region;
mod serve;
pub mod sessions;
pub mod sign_up;
mod signer;
pub mod store;
pub mod subscriptions;
pub mod tenants;
mod throttle;
pub mod tokens;
pub mod totp;
pub mod usage;
mod web;

use std::collections::BTreeMap;
use std::sync::Arc;

use billing::providers::{Providers, WebhookSecretError};
use clock::Clock;
use config::Config;
use feed::Feed;
use mail::{MailError, Mailer};
use master::{MasterKeyError, MasterKeys};
use passwords::Passwords;
use region::LicenseRegion;
use signer::Signer;
use store::{Database, Schema, StoreError};
use throttle::Throttle;

pub use domains::{AllowedDomain, DomainError};
pub use feed::look as look_for_key_changes;
pub use http::router;
pub use serve::{ServeError, run, serve_on};

/// Everything an operation needs: databases, clock, keys. One for the process, shared.
#[derive(Debug)]
pub struct Dashboard {
    pub config: Config,
    pub clock: Clock,
    pub home: Database,
    regions: BTreeMap<LicenseRegion, Database>,
    master: MasterKeys,
    passwords: Passwords,
    signer: Signer,
    throttle: Throttle,
    feed: Feed,
    payments: Providers,
    mailer: Mailer,
    known_apps: usage::KnownApps,
}

/// Why a dashboard could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    WebhookSecret(#[from] WebhookSecretError),
    #[error(transparent)]
    Mail(#[from] MailError),
}

impl Dashboard {
    /// Opens the databases, with the master keys that the configuration names.
    ///
    /// # Errors
    /// [`OpenError`] says which database or key, and what to do.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let master = MasterKeys::read(&config.master_keys)?;
        Self::open_with(config, Clock::system(), master).await
    }

    /// The same with a clock and master keys that are handed in.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_with(config: Config, clock: Clock, master: MasterKeys) -> Result<Arc<Self>, OpenError> {
        let in_home =
            |region: &config::RegionSettings| region.database.as_ref().is_none_or(|url| *url == config.home);
        let mut schemas = vec![Schema::Home];
        if config.regions.values().any(in_home) {
            schemas.push(Schema::Region);
        }
        let home = Database::open(&config.home, &schemas).await?;
        let mut regions: BTreeMap<LicenseRegion, Database> = BTreeMap::new();
        for (&region, settings) in &config.regions {
            let same = |other: &&LicenseRegion| config.regions[*other].database == settings.database;
            let database = match &settings.database {
                Some(url) if !in_home(settings) => match regions.keys().find(same) {
                    Some(other) => regions[other].clone(),
                    None => Database::open(url, &[Schema::Region]).await?,
                },
                _ => home.clone(),
            };
            regions.insert(region, database);
        }
        Ok(Arc::new(Self {
            signer: Signer::new(config.tokens.signing_threads, config.tokens.signing_queue_max),
            passwords: Passwords::new(),
            throttle: Throttle::new(),
            feed: Feed::new(),
            payments: Providers::read(&config.billing)?,
            mailer: Mailer::open(config.mail.as_ref())?,
            known_apps: usage::KnownApps::default(),
            config,
            clock,
            home,
            regions,
            master,
        }))
    }

    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.unix_s()
    }

    /// The database of a region, if apps can be there.
    #[must_use]
    pub fn region(&self, region: LicenseRegion) -> Option<&Database> {
        self.regions.get(&region)
    }

    /// Whether a region's rows are in the home database.
    fn is_at_home(&self, region: LicenseRegion) -> bool {
        let url = self.config.regions.get(&region).map(|settings| settings.database.as_ref());
        url.is_some_and(|url| url.is_none_or(|url| *url == self.config.home))
    }

    /// The regions' databases, each once.
    fn region_databases(&self) -> Vec<&Database> {
        let url = |region: &LicenseRegion| self.config.regions[region].database.as_ref();
        let mut seen = Vec::new();
        let mut databases = Vec::new();
        for (region, database) in &self.regions {
            let url = url(region).unwrap_or(&self.config.home);
            if !seen.contains(&url) {
                seen.push(url);
                databases.push(database);
            }
        }
        databases
    }

    /// Takes what regions have written for the audit log into its chain.
    ///
    /// # Errors
    /// [`StoreError`]; what was not delivered stays in the outbox.
    pub async fn deliver_audit(&self) -> Result<(), StoreError> {
        for database in self.region_databases() {
            audit::deliver(database, &self.home).await?;
        }
        Ok(())
    }

    /// Closes the databases.
    pub async fn close(&self) {
        for database in self.regions.values() {
            database.close().await;
        }
        self.home.close().await;
    }
}
