//! Which verification keys each tenant has: the sources put together, less what is revoked.
//!
//! Invariants:
//! - A key that leaves its source is retired: no new session, the living ones stay.
//! - A revoked key never comes back while this process lives, whatever a source says. Revocation is explicit: a
//!   `"revoked": ["kid", …]` member beside `"keys"` in a JWKS document, or [`KeyStore::revoke`].
//! - A document that can't be used changes no key (its revocations count all the same).

pub(super) mod feed;
pub(super) mod refresh;
pub(super) mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::settings::KeyFunctions;
use crate::auth::keys::KeySets;

/// A JWKS document as far as this module looks into it; what a key must look like is for `auth` to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Jwks {
    pub keys: Vec<Value>,
    #[serde(default)]
    pub revoked: Vec<Box<str>>,
}

impl Jwks {
    /// # Errors
    /// What serde says about it: where it stops being a JWKS document.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// Where a document came from. A tenant has at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Preloaded,
    File,
    Url,
}

/// What an update has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The sets differ: shards must be given the new ones.
    pub sets: bool,
    /// Keys revoked by this update and not before.
    pub revoked: Vec<(Uuid, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Tenant {
    sources: BTreeMap<Source, Vec<Value>>,
    revoked: BTreeSet<Arc<str>>,
    /// What `auth` was last given.
    in_use: Vec<Value>,
}

impl Tenant {
    /// Every source's keys, less the revoked and those that an earlier source names too. A key id that comes twice in
    /// one document is left in: `auth` refuses such a document.
    fn valid_keys(&self) -> Vec<Value> {
        let mut earlier = BTreeSet::new();
        let mut valid = Vec::new();
        for keys in self.sources.values() {
            let is_valid = |key: &&Value| {
                key_id(key).is_none_or(|id| !self.revoked.contains(id) && !earlier.contains(id))
            };
            valid.extend(keys.iter().filter(is_valid).cloned());
            earlier.extend(keys.iter().filter_map(key_id));
        }
        valid
    }
}

fn key_id(key: &Value) -> Option<&str> {
    key.get("kid")?.as_str()
}

/// Every tenant's keys.
pub(super) struct KeyStore {
    tenants: BTreeMap<Uuid, Tenant>,
    /// Copied by the first change after it was handed out, changed in place by those that follow: a batch of many tenants
    /// costs one copy.
    sets: Arc<KeySets>,
    functions: KeyFunctions,
}

impl KeyStore {
    pub fn new(functions: KeyFunctions) -> Self {
        Self { tenants: BTreeMap::new(), sets: Arc::new(KeySets::default()), functions }
    }

    pub fn sets(&self) -> Arc<KeySets> {
        Arc::clone(&self.sets)
    }

    pub fn tenants_with(&self, source: Source) -> Vec<Uuid> {
        self.tenants.iter().filter(|(_, t)| t.sources.contains_key(&source)).map(|(&id, _)| id).collect()
    }

    pub fn tenant_count(&self) -> usize {
        self.tenants.values().filter(|tenant| !tenant.in_use.is_empty()).count()
    }

    pub fn key_count(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.in_use.len()).sum()
    }

    pub fn revoked_count(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.revoked.len()).sum()
    }

    /// Whether a fetch could not change the answer for this key: it is in the set, or revoked for good.
    pub fn is_decided(&self, tenant: Uuid, id: &str) -> bool {
        self.tenants.get(&tenant).is_some_and(|tenant| {
            tenant.revoked.contains(id) || tenant.in_use.iter().any(|key| key_id(key) == Some(id))
        })
    }

    /// Takes a source's newest document for a tenant.
    ///
    /// # Errors
    /// What `auth` finds wrong with its keys; the tenant keeps those it had. The changes stand all the same.
    pub fn update(&mut self, id: Uuid, source: Source, jwks: Jwks) -> (Changes, Result<(), String>) {
        let revoked: Vec<_> =
            jwks.revoked.into_iter().filter_map(|key| self.mark_revoked(id, key.into())).collect();
        let before = self.tenants.entry(id).or_default().sources.insert(source, jwks.keys);
        let mut changed = self.rebuild(id);
        let outcome = changed.clone().map(|_| ());
        if changed.is_err() {
            self.restore(id, source, before);
            changed = self.rebuild(id);
        }
        (Changes { sets: changed.unwrap_or(false) || !revoked.is_empty(), revoked }, outcome)
    }

    fn restore(&mut self, id: Uuid, source: Source, keys: Option<Vec<Value>>) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            match keys {
                Some(keys) => tenant.sources.insert(source, keys),
                None => tenant.sources.remove(&source),
            };
        }
    }

    /// The source no longer knows this tenant: its keys there are retired.
    pub fn forget(&mut self, id: Uuid, source: Source) -> Changes {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.sources.remove(&source);
        }
        Changes { sets: self.rebuild(id).unwrap_or(false), revoked: Vec::new() }
    }

    /// Takes a key away for good.
    pub fn revoke(&mut self, id: Uuid, key: &str) -> Changes {
        let Some(revoked) = self.mark_revoked(id, key.into()) else {
            return Changes::default();
        };
        // Fewer of the keys that `auth` has taken already: it can take them again; and the mark alone changes the sets.
        let _ = self.rebuild(id);
        Changes { sets: true, revoked: vec![revoked] }
    }

    /// None if it was revoked before.
    fn mark_revoked(&mut self, id: Uuid, key: Arc<str>) -> Option<(Uuid, Arc<str>)> {
        if !self.tenants.entry(id).or_default().revoked.insert(Arc::clone(&key)) {
            return None;
        }
        (self.functions.revoke)(Arc::make_mut(&mut self.sets), id, &key);
        Some((id, key))
    }

    /// Hands `auth` the tenant's valid keys if they differ from those it has; says whether they do.
    fn rebuild(&mut self, id: Uuid) -> Result<bool, String> {
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return Ok(false);
        };
        let keys = tenant.valid_keys();
        if keys != tenant.in_use {
            let document = serde_json::json!({ "keys": keys }).to_string();
            (self.functions.set_tenant)(Arc::make_mut(&mut self.sets), id, document.as_bytes())?;
            tenant.in_use = keys;
            return Ok(true);
        }
        if tenant.sources.is_empty() && tenant.revoked.is_empty() {
            self.tenants.remove(&id);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::control::settings::{RevokeKey, SetTenant};

    /// Every document that was handed to `auth`, by its key ids. A key named "bad" is refused.
    type Built = Arc<Mutex<Vec<Vec<String>>>>;
    /// Every key that `auth` was told is revoked.
    type Revoked = Arc<Mutex<Vec<String>>>;

    fn store() -> (KeyStore, Built, Revoked) {
        let (built, revoked) = (Built::default(), Revoked::default());
        let seen = Arc::clone(&built);
        let set_tenant: SetTenant = Box::new(move |_sets, _tenant, json| {
            let ids: Vec<_> =
                Jwks::parse(json).unwrap().keys.iter().map(|k| key_id(k).unwrap().to_owned()).collect();
            if ids.iter().any(|id| id == "bad") {
                return Err("the key `bad` has no modulus".into());
            }
            seen.lock().unwrap().push(ids);
            Ok(())
        });
        let marked = Arc::clone(&revoked);
        let revoke: RevokeKey =
            Box::new(move |_sets, _tenant, key| marked.lock().unwrap().push(key.to_owned()));
        (KeyStore::new(KeyFunctions { set_tenant, revoke }), built, revoked)
    }

    fn jwks(keys: &[&str], revoked: &[&str]) -> Jwks {
        Jwks {
            keys: keys.iter().map(|id| json!({ "kid": id })).collect(),
            revoked: revoked.iter().map(|&id| id.into()).collect(),
        }
    }

    const T: Uuid = Uuid::from_u128(1);

    #[test]
    fn the_sources_of_a_tenant_add_up_and_the_same_document_changes_nothing() {
        let (mut store, built, _) = store();
        assert!(store.update(T, Source::File, jwks(&["a", "b"], &[])).0.sets);
        assert!(store.update(T, Source::Url, jwks(&["b", "c"], &[])).0.sets);
        assert!(!store.update(T, Source::Url, jwks(&["b", "c"], &[])).0.sets);
        assert_eq!(built.lock().unwrap().last().unwrap(), &["a", "b", "c"]);
        assert_eq!(built.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_key_that_leaves_its_source_is_retired_not_revoked() {
        let (mut store, built, _) = store();
        store.update(T, Source::File, jwks(&["a", "b"], &[])).1.unwrap();
        let (changes, _) = store.update(T, Source::File, jwks(&["b"], &[]));
        assert_eq!(changes, Changes { sets: true, revoked: vec![] });
        assert_eq!(built.lock().unwrap().last().unwrap(), &["b"]);
        assert_eq!(store.forget(T, Source::File), Changes { sets: true, revoked: vec![] });
        assert_eq!(built.lock().unwrap().last().unwrap().len(), 0);
    }

    #[test]
    fn a_revoked_key_is_reported_once_and_never_accepted_again() {
        let (mut store, built, marked) = store();
        store.update(T, Source::Url, jwks(&["a", "b"], &[])).1.unwrap();
        let (changes, _) = store.update(T, Source::Url, jwks(&["a", "b"], &["a"]));
        assert_eq!(changes, Changes { sets: true, revoked: vec![(T, "a".into())] });
        assert_eq!(built.lock().unwrap().last().unwrap(), &["b"]);
        let (changes, _) = store.update(T, Source::File, jwks(&["a"], &["a"]));
        assert_eq!(changes, Changes::default());
        assert!(store.is_decided(T, "a") && store.is_decided(T, "b") && !store.is_decided(T, "c"));
        assert_eq!(store.revoke(T, "b"), Changes { sets: true, revoked: vec![(T, "b".into())] });
        assert_eq!(store.revoke(T, "b"), Changes::default());
        assert_eq!(*marked.lock().unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_revocation_holds_even_for_a_key_that_is_not_known_yet() {
        let (mut store, built, _) = store();
        assert_eq!(store.revoke(T, "a").revoked.len(), 1);
        store.update(T, Source::File, jwks(&["a"], &[])).1.unwrap();
        assert!(built.lock().unwrap().is_empty(), "a set with the revoked key was built");
    }

    #[test]
    fn a_document_that_cannot_be_used_changes_no_key_but_its_revocations_hold() {
        let (mut store, built, _) = store();
        store.update(T, Source::File, jwks(&["a", "b"], &[])).1.unwrap();
        let (changes, outcome) = store.update(T, Source::File, jwks(&["c", "bad"], &["a"]));
        assert_eq!(outcome, Err("the key `bad` has no modulus".into()));
        assert_eq!(changes, Changes { sets: true, revoked: vec![(T, "a".into())] });
        assert_eq!(built.lock().unwrap().last().unwrap(), &["b"]);
    }

    #[test]
    fn what_was_handed_out_stays_as_it_was() {
        let key = |id: &str| crate::auth::SigningKey::generate().unwrap().public_jwk(id);
        let functions = KeyFunctions {
            set_tenant: Box::new(|sets, tenant, json| {
                sets.set_tenant(
                    tenant,
                    crate::auth::keys::parse_jwks(json).map_err(|error| error.to_string())?,
                );
                Ok(())
            }),
            revoke: Box::new(KeySets::revoke),
        };
        let mut store = KeyStore::new(functions);
        let document = Jwks { keys: vec![key("a")], revoked: vec![] };
        store.update(T, Source::Url, document.clone()).1.unwrap();
        let handed_out = store.sets();
        store.update(Uuid::from_u128(2), Source::Url, document).1.unwrap();
        store.revoke(T, "a");
        assert_eq!((handed_out.tenants().count(), store.sets().tenants().count()), (1, 1));
        assert_eq!((handed_out.keys(T).len(), store.sets().keys(T).len()), (1, 0));
    }
}
