//! Tokens that were verified already, with what they grant.
//!
//! All clients of an app share one token for its lifetime, so most handshakes find it here. Invariants: at most
//! `capacity` entries; a hit means that the whole token is equal, not just its hash; finding, adding and removing take a
//! bounded number of steps whatever the tokens are. Deliberately absent: any check of an entry (the verifier compares
//! times on every hit) and any clock.
//!
//! Eviction is CLOCK: a hand goes round the slots and passes over an entry once if it was used since the last round. The
//! hand moves at most [`SWEEP_MAX`] slots per insertion, so a flood of distinct tokens costs each of them the same.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::grant::Grant;

/// How many recently used entries an insertion passes over before it takes one all the same.
const SWEEP_MAX: usize = 8;

/// One verified token.
pub(super) struct Entry {
    token: Box<str>,
    hash: u64,
    used: bool,
    pub(super) grant: Arc<Grant>,
    pub(super) not_before_unix_s: u64,
}

pub(super) struct Cache {
    slots: Vec<Option<Entry>>,
    /// From a token's hash to its slot. Two tokens of one hash displace one another, which only costs a verification.
    index: FxHashMap<u64, usize>,
    hand: usize,
    capacity: usize,
    seed: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self { slots: Vec::new(), index: FxHashMap::default(), hand: 0, capacity, seed }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The seed keeps strangers from choosing tokens that displace one another.
    pub(super) fn hash(&self, token: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(token.as_bytes());
        hasher.finish()
    }

    pub(super) fn get(&mut self, hash: u64, token: &str) -> Option<&Entry> {
        let slot = *self.index.get(&hash)?;
        let entry = self.slots[slot].as_mut().filter(|entry| *entry.token == *token)?;
        entry.used = true;
        Some(entry)
    }

    pub(super) fn insert(&mut self, hash: u64, token: &str, grant: Arc<Grant>, not_before_unix_s: u64) {
        if self.capacity == 0 {
            return;
        }
        let slot = self.index.get(&hash).copied().unwrap_or_else(|| self.vacate());
        self.slots[slot] = Some(Entry { token: token.into(), hash, used: false, grant, not_before_unix_s });
        self.index.insert(hash, slot);
    }

    pub(super) fn remove(&mut self, hash: u64) {
        if let Some(slot) = self.index.remove(&hash) {
            self.slots[slot] = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.index.clear();
        self.hand = 0;
    }

    /// A slot without an entry.
    fn vacate(&mut self) -> usize {
        if self.slots.len() < self.capacity {
            self.slots.push(None);
            return self.slots.len() - 1;
        }
        for _ in 0..SWEEP_MAX {
            match &mut self.slots[self.hand] {
                Some(entry) if entry.used => entry.used = false,
                _ => break,
            }
            self.hand = (self.hand + 1) % self.capacity;
        }
        let slot = self.hand;
        self.hand = (self.hand + 1) % self.capacity;
        if let Some(evicted) = self.slots[slot].take() {
            self.index.remove(&evicted.hash);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Limits;
    use crate::protocol::document::AppId;

    fn grant() -> Arc<Grant> {
        Arc::new(Grant {
            app: AppId { tenant: uuid::Uuid::nil(), app: uuid::Uuid::nil() },
            client_id: "c".into(),
            key_id: "k".into(),
            limits: Limits {
                connections_max: 1,
                documents_max: 1,
                users_per_document_max: 1,
                ops_per_minute: 1,
            },
            permissions: crate::auth::Permissions::default(),
            region: "r".into(),
            db_code: "d".into(),
            allowed_domains: smallvec::SmallVec::new(),
            issued_unix_s: 0,
            expires_unix_s: 1,
            token_id: None,
        })
    }

    fn insert(cache: &mut Cache, token: &str) {
        let hash = cache.hash(token);
        cache.insert(hash, token, grant(), 0);
    }

    fn holds(cache: &mut Cache, token: &str) -> bool {
        let hash = cache.hash(token);
        cache.get(hash, token).is_some()
    }

    #[test]
    fn a_flood_leaves_it_bounded_and_what_is_in_use_in_place() {
        let mut cache = Cache::new(64, 7);
        insert(&mut cache, "shared by an app");
        for n in 0..10_000 {
            insert(&mut cache, &format!("once-{n}"));
            assert!(cache.len() <= 64 && cache.slots.len() <= 64 && cache.index.len() == cache.len());
            assert!(holds(&mut cache, "shared by an app"), "evicted after {n}");
        }
    }

    #[test]
    fn tokens_of_one_hash_are_told_apart() {
        let mut cache = Cache::new(4, 7);
        cache.insert(1, "a", grant(), 0);
        assert!(cache.get(1, "b").is_none());
        cache.insert(1, "b", grant(), 0);
        assert!(cache.get(1, "a").is_none() && cache.get(1, "b").is_some());
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_removed_entry_leaves_its_slot_to_another() {
        let mut cache = Cache::new(2, 7);
        insert(&mut cache, "a");
        insert(&mut cache, "b");
        let hash = cache.hash("a");
        cache.remove(hash);
        assert!(!holds(&mut cache, "a") && cache.len() == 1);
        insert(&mut cache, "c");
        assert!(holds(&mut cache, "b") && holds(&mut cache, "c") && cache.len() == 2);
    }

    #[test]
    fn the_seed_changes_the_hash_and_no_capacity_means_no_cache() {
        let mut none = Cache::new(0, 7);
        insert(&mut none, "a");
        assert!(!holds(&mut none, "a"));
        assert_ne!(none.hash("a"), Cache::new(0, 8).hash("a"));
    }
}
