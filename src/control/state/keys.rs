//! The key sets: refreshes, polls, reloads, revocations, and the shards' copies.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Control, Waiter};
use crate::control::keys::source::{FetchError, Fetched, KeyDirError, file_of};
use crate::control::keys::{Changes, Jwks, Source};
use crate::control::messages::ToShard;
use crate::time::Now;

impl Control {
    /// Begins with what is known before anything is fetched.
    ///
    /// # Errors
    /// The first document that `auth` can't use; a preloaded one is named by its tenant.
    pub fn preload(
        &mut self,
        preloaded: Vec<(Uuid, Jwks)>,
        files: Vec<(Uuid, Jwks)>,
    ) -> Result<(), KeyDirError> {
        for (tenant, jwks) in preloaded {
            let (changes, outcome) = self.store.update(tenant, Source::Preloaded, jwks);
            self.publish(changes);
            outcome.map_err(|reason| KeyDirError::Keys {
                path: format!("{tenant} (preloaded)").into(),
                reason,
            })?;
        }
        let outcome = self.replace_files(files);
        // The shards start with no keys at all: they need a set even if it is an empty one.
        self.publish(Changes { sets: true, revoked: Vec::new() });
        outcome
    }

    /// The key directory as it is now. A tenant whose file is gone keeps the keys of its other sources.
    ///
    /// # Errors
    /// The first file whose keys `auth` can't use; every other file is taken all the same.
    pub fn replace_files(&mut self, files: Vec<(Uuid, Jwks)>) -> Result<(), KeyDirError> {
        let mut outcome = Ok(());
        let present: BTreeSet<_> = files.iter().map(|&(tenant, _)| tenant).collect();
        for tenant in self.store.tenants_with(Source::File) {
            if !present.contains(&tenant) {
                let changes = self.store.forget(tenant, Source::File);
                self.publish(changes);
            }
        }
        for (tenant, jwks) in files {
            let (changes, taken) = self.store.update(tenant, Source::File, jwks);
            self.publish(changes);
            if let (Err(reason), Ok(())) = (taken, &outcome) {
                let dir = self.key_dir.as_deref().unwrap_or("".as_ref());
                outcome = Err(KeyDirError::Keys { path: file_of(dir, tenant), reason });
            }
        }
        outcome
    }

    /// Ends every session signed with this key and never accepts it again while this process lives.
    pub fn revoke(&mut self, tenant: Uuid, key_id: &str) {
        let changes = self.store.revoke(tenant, key_id);
        self.publish(changes);
    }

    /// A token names a key that somebody's set lacks.
    pub(super) fn refresh(&mut self, now: Now, tenant: Uuid, key_id: &str, waiter: Waiter) {
        let may_fetch = self.has_url && (self.fetch_unlisted || self.polled.contains(&tenant));
        if !may_fetch || self.store.is_decided(tenant, key_id) {
            return self.refreshed(now, waiter);
        }
        if let Some(waiter) = self.refreshes.ask(now.monotonic, tenant, waiter) {
            self.refreshed(now, waiter);
        }
    }

    /// A fetch is over, whatever came of it.
    pub fn fetched(&mut self, now: Now, tenant: Uuid, outcome: Result<Fetched, FetchError>) {
        match outcome {
            Ok(Fetched::Same) => {}
            Ok(Fetched::New { jwks, entity_tag }) => self.take_document(tenant, jwks, entity_tag),
            Err(error) => {
                self.fetch_failures_total += 1;
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%tenant, %error, cause, "the tenant's keys stay as they are");
            }
        }
        for waiter in self.refreshes.finished(tenant) {
            self.refreshed(now, waiter);
        }
    }

    fn take_document(&mut self, tenant: Uuid, jwks: Jwks, entity_tag: Option<Box<str>>) {
        let has_keys = !jwks.keys.is_empty();
        // A made-up tenant for which the endpoint has no keys leaves no trace.
        if !has_keys && jwks.revoked.is_empty() && !self.polled.contains(&tenant) {
            return;
        }
        let (changes, outcome) = self.store.update(tenant, Source::Url, jwks);
        self.publish(changes);
        match (outcome, entity_tag) {
            (Err(reason), _) => {
                self.fetch_failures_total += 1;
                self.entity_tags.remove(&tenant);
                tracing::warn!(%tenant, reason, "the JWKS that was fetched can't be used; the tenant's keys stay as they are");
            }
            (Ok(()), Some(entity_tag)) => drop(self.entity_tags.insert(tenant, entity_tag)),
            (Ok(()), None) => drop(self.entity_tags.remove(&tenant)),
        }
        if has_keys {
            self.polled.insert(tenant);
        }
    }

    fn refreshed(&mut self, now: Now, waiter: Waiter) {
        match waiter {
            Waiter::Shard { shard, ticket } => {
                Self::answer(&mut self.shards, &self.bounds, shard, || ToShard::KeysRefreshed { ticket });
            }
            Waiter::Token { token, answer } => {
                let checked = (self.verify)(now.unix_s, &token).map_err(|refused| refused.refusal);
                // The client may have gone away meanwhile.
                let _ = answer.send(checked);
            }
        }
    }

    /// Hands changed sets to everybody who checks tokens, then names what is revoked.
    fn publish(&mut self, changes: Changes) {
        if changes.sets {
            let sets = self.store.sets();
            self.verify = (self.make_verifier)(sets.clone());
            self.broadcast(|| ToShard::Keys { sets: sets.clone() });
        }
        for (tenant, key_id) in changes.revoked {
            tracing::warn!(%tenant, %key_id, "key revoked");
            self.broadcast(|| ToShard::KeyRevoked { tenant, key_id: key_id.clone() });
        }
    }
}
