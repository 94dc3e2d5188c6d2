//! The key sets: refreshes, polls, reloads, revocations, and the shards' copies.

use uuid::Uuid;

use super::{Control, Polled, Waiter};
use crate::control::keys::source::{FetchError, Fetched, KeyDirError, KeyFiles, file_of};
use crate::control::keys::{Changes, Jwks, Source};
use crate::control::messages::ToShard;
use crate::control::settings::KeySettings;
use crate::time::Now;

impl Control {
    /// Begins with what is known before anything is fetched.
    ///
    /// # Errors
    /// The first document that `auth` can't use; a preloaded one is named by its tenant.
    pub fn preload(&mut self, preloaded: Vec<(Uuid, Jwks)>, files: KeyFiles) -> Result<(), KeyDirError> {
        for (tenant, jwks) in preloaded {
            let (changes, outcome) = self.store.update(tenant, Source::Preloaded, jwks);
            self.publish(changes);
            outcome.map_err(|reason| KeyDirError::Keys {
                path: format!("{tenant} (preloaded)").into(),
                reason,
            })?;
        }
        let unusable = self.replace_files(files);
        // The shards start with no keys at all: they need a set even if it is an empty one.
        self.publish(Changes { sets: true, revoked: Vec::new() });
        unusable.into_iter().next().map_or(Ok(()), Err)
    }

    /// The key directory as it is now. A tenant whose file is gone keeps the keys of its other sources; one whose file
    /// can't be used keeps the keys it had. Gives back the files that can't be used.
    pub fn replace_files(&mut self, files: KeyFiles) -> Vec<KeyDirError> {
        for tenant in self.store.tenants_with(Source::File) {
            if files.lacks(tenant) {
                let changes = self.store.forget(tenant, Source::File);
                self.publish(changes);
            }
        }
        let mut unusable = files.unusable;
        for (tenant, jwks) in files.documents {
            let (changes, taken) = self.store.update(tenant, Source::File, jwks);
            self.publish(changes);
            if let Err(reason) = taken {
                let dir = self.keys.dir.as_deref().unwrap_or("".as_ref());
                unusable.push(KeyDirError::Keys { path: file_of(dir, tenant), reason });
            }
        }
        unusable
    }

    /// Ends every session signed with this key and never accepts it again while this process lives.
    pub fn revoke(&mut self, tenant: Uuid, key_id: &str) {
        let changes = self.store.revoke(tenant, key_id);
        self.publish(changes);
    }

    /// A token names a key that somebody's set lacks.
    pub(super) fn refresh(&mut self, now: Now, tenant: Uuid, key_id: &str, waiter: Waiter) {
        let is_polled = self.polled.contains_key(&tenant);
        let may_fetch = self.keys.jwks_url.is_some() && (self.keys.fetch_unlisted || is_polled);
        if !may_fetch || self.store.is_decided(tenant, key_id) {
            return self.refreshed(now, waiter);
        }
        if let Some(waiter) = self.refreshes.ask(now.monotonic, tenant, waiter) {
            self.refreshed(now, waiter);
        }
    }

    /// A fetch is over, whatever came of it.
    pub fn fetched(&mut self, now: Now, tenant: Uuid, outcome: Result<Fetched, FetchError>) {
        let is_overtaken = self.fetching.remove(&tenant).unwrap_or(false);
        match outcome {
            // What was fetched may be older than what the feed has brought meanwhile.
            Ok(_) if is_overtaken => {}
            Ok(Fetched::Same) => {
                if let Some(polled) = self.polled.get_mut(&tenant) {
                    polled.fresh_at = now.monotonic;
                }
            }
            Ok(Fetched::New { jwks, entity_tag }) => {
                let changes = self.take_document(now, tenant, jwks, entity_tag);
                self.publish(changes);
            }
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

    /// The changes are to be published.
    #[must_use]
    pub(super) fn take_document(
        &mut self,
        now: Now,
        tenant: Uuid,
        jwks: Jwks,
        entity_tag: Option<Box<str>>,
    ) -> Changes {
        // A made-up tenant for which the endpoint has no keys leaves no trace; nor does one that a reload has just ruled out.
        let is_welcome = self.keys.fetch_unlisted && !(jwks.keys.is_empty() && jwks.revoked.is_empty());
        if !is_welcome && !self.polled.contains_key(&tenant) {
            return Changes::default();
        }
        let (changes, outcome) = self.store.update(tenant, Source::Url, jwks);
        match outcome {
            Ok(()) => drop(self.polled.insert(tenant, Polled { entity_tag, fresh_at: now.monotonic })),
            Err(reason) => {
                self.fetch_failures_total += 1;
                tracing::warn!(%tenant, reason, "the JWKS that was fetched can't be used; the tenant's keys stay as they are");
            }
        }
        changes
    }

    /// Queues a fetch for every polled tenant, and stops trusting keys that could not be fetched for too long.
    pub(super) fn poll_keys(&mut self, now: Now) {
        self.poll_at = now.monotonic.saturating_add(self.keys.poll_interval);
        if self.keys.jwks_url.is_none() {
            return;
        }
        if self.feed.is_followed() {
            self.polled.values_mut().for_each(|polled| polled.fresh_at = now.monotonic);
            return;
        }
        let is_stale = |polled: &Polled| now.monotonic - polled.fresh_at >= self.keys.stale_after;
        let stale: Vec<_> =
            self.polled.iter().filter(|(_, polled)| is_stale(polled)).map(|(&id, _)| id).collect();
        for tenant in stale {
            if let Some(polled) = self.polled.get_mut(&tenant) {
                polled.entity_tag = None; // "not modified" would not bring the keys back
            }
            let changes = self.store.forget(tenant, Source::Url);
            if changes.sets {
                tracing::error!(%tenant, "the tenant's keys could not be fetched for too long and are no longer trusted");
            }
            self.publish(changes);
        }
        self.polled.keys().for_each(|&tenant| self.refreshes.poll(tenant));
    }

    /// Takes new sources and rates. Tenants that are no longer to be polled keep only what other sources give them.
    pub(super) fn reload_keys(&mut self, now: Now, keys: &KeySettings) {
        self.refreshes.reconfigure(keys.refresh_interval, keys.refreshes_per_minute);
        let is_other_url = self.keys.jwks_url != keys.jwks_url;
        self.keys = keys.clone();
        let (keeps, listed) = (keys.fetch_unlisted && keys.jwks_url.is_some(), &keys.tenants);
        self.polled.retain(|tenant, _| keeps || listed.contains(tenant));
        for &tenant in listed {
            self.polled.entry(tenant).or_insert(Polled { entity_tag: None, fresh_at: now.monotonic });
        }
        if is_other_url {
            self.polled.values_mut().for_each(|polled| polled.entity_tag = None);
        }
        for tenant in self.store.tenants_with(Source::Url) {
            if keys.jwks_url.is_none() || !self.polled.contains_key(&tenant) {
                let changes = self.store.forget(tenant, Source::Url);
                self.publish(changes);
            }
        }
        // Issuer and leeway may have changed, even if no key has.
        self.verify = (self.make_verifier)(&self.shard_settings, self.store.sets());
        self.poll_at = now.monotonic;
    }

    /// Whether a fetch is queued or under way.
    pub fn is_fetching(&self) -> bool {
        !self.refreshes.is_idle()
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
    pub(super) fn publish(&mut self, changes: Changes) {
        if changes.sets {
            let sets = self.store.sets();
            self.verify = (self.make_verifier)(&self.shard_settings, sets.clone());
            self.broadcast(|| ToShard::Keys { sets: sets.clone() });
        }
        for (tenant, key_id) in changes.revoked {
            tracing::warn!(%tenant, %key_id, "key revoked");
            self.broadcast(|| ToShard::KeyRevoked { tenant, key_id: key_id.clone() });
        }
    }
}
