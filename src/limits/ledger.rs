//! The ledger: who holds how many connections and documents, and whether one more fits.
//!
//! Invariants:
//! - What an app holds is never raised above the limits that came with the request that would raise it.
//! - A claim is taken as a whole or not at all.
//! - Limits belong to the request, not to the app: a token with other limits applies from its own handshake, and nobody
//!   who is inside is asked to leave when limits shrink.
//! - An app that holds nothing takes no memory.
//!
//! Ordered maps on purpose: they give memory back as they empty, and document hashes, which a client can choose, can't
//! degrade them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::auth::Limits;
use crate::protocol::document::AppId;

/// Room that one session takes in its app's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub app: AppId,
    /// Takes one of `maxConnections`: the first session of a socket in this app.
    pub connection: bool,
    /// Takes a place in a document (its stable hash): the first place in it takes one of `maxDocuments`.
    pub document: Option<u64>,
}

/// Which limit a claim would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("connection limit of {limit} is in use")]
    Connections { limit: u32 },
    #[error("document limit of {limit} is in use (active: {active})")]
    Documents { limit: u32, active: u32 },
}

/// What one app holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub connections: u32,
    /// Documents with at least one place taken.
    pub documents: u32,
    /// The limits of the app's latest request; none while the app holds nothing.
    pub limits: Option<Limits>,
}

/// What all apps hold, and what the ledger has decided since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub apps: u64,
    pub connections: u64,
    pub documents: u64,
    pub granted_total: u64,
    pub refused_connections_total: u64,
    pub refused_documents_total: u64,
    /// Releases that no reservation stood behind: each is a bug of whoever sent it.
    pub unmatched_releases_total: u64,
}

/// The reservations of every app of this node.
#[derive(Debug, Default)]
pub struct Ledger {
    apps: BTreeMap<AppId, Account>,
    totals: Totals,
}

#[derive(Debug)]
struct Account {
    connections: u32,
    /// Places taken, by document.
    documents: BTreeMap<u64, u32>,
    limits: Limits,
}

impl Account {
    fn documents_active(&self) -> u32 {
        u32::try_from(self.documents.len()).unwrap_or(u32::MAX)
    }

    fn is_empty(&self) -> bool {
        self.connections == 0 && self.documents.is_empty()
    }
}

impl Ledger {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the whole claim, or nothing of it.
    ///
    /// # Errors
    /// [`Exceeded`] names the first limit that has no room.
    pub fn reserve(&mut self, claim: Claim, limits: Limits) -> Result<(), Exceeded> {
        let account = self.apps.get(&claim.app);
        let connections = account.map_or(0, |a| a.connections);
        if claim.connection && connections >= limits.connections_max {
            self.totals.refused_connections_total += 1;
            self.note_limits(claim.app, limits);
            return Err(Exceeded::Connections { limit: limits.connections_max });
        }
        let is_open = |hash| account.is_some_and(|a| a.documents.contains_key(&hash));
        let opens = claim.document.is_some_and(|hash| !is_open(hash));
        let active = account.map_or(0, Account::documents_active);
        if opens && active >= limits.documents_max {
            self.totals.refused_documents_total += 1;
            self.note_limits(claim.app, limits);
            return Err(Exceeded::Documents { limit: limits.documents_max, active });
        }
        self.take(claim, limits, opens);
        Ok(())
    }

    fn take(&mut self, claim: Claim, limits: Limits, opens: bool) {
        self.totals.granted_total += 1;
        if !claim.connection && claim.document.is_none() {
            return; // an empty claim: nothing to hold, nothing to remember
        }
        let account = self.apps.entry(claim.app).or_insert_with(|| Account {
            connections: 0,
            documents: BTreeMap::new(),
            limits,
        });
        account.limits = limits;
        if claim.connection {
            account.connections += 1;
            self.totals.connections += 1;
        }
        if let Some(hash) = claim.document {
            *account.documents.entry(hash).or_insert(0) += 1;
            self.totals.documents += u64::from(opens);
        }
    }

    fn note_limits(&mut self, app: AppId, limits: Limits) {
        if let Some(account) = self.apps.get_mut(&app) {
            account.limits = limits;
        }
    }

    /// Gives back a claim that was granted.
    ///
    /// A part of it that nothing stands behind is a bug of the caller: it stops a debug build, and is counted and
    /// otherwise ignored in a release build, so that it can never make room that isn't there.
    pub fn release(&mut self, claim: Claim) {
        let matched = self.give_back(claim);
        if !matched {
            self.totals.unmatched_releases_total += 1;
        }
        debug_assert!(matched, "released without a reservation: {claim:?}");
    }

    fn give_back(&mut self, claim: Claim) -> bool {
        let Entry::Occupied(mut entry) = self.apps.entry(claim.app) else {
            return !claim.connection && claim.document.is_none();
        };
        let account = entry.get_mut();
        let mut matched = true;
        if claim.connection {
            match account.connections.checked_sub(1) {
                Some(left) => {
                    account.connections = left;
                    self.totals.connections -= 1;
                }
                None => matched = false,
            }
        }
        if let Some(hash) = claim.document {
            match account.documents.entry(hash) {
                Entry::Occupied(places) if *places.get() == 1 => {
                    places.remove();
                    self.totals.documents -= 1;
                }
                Entry::Occupied(mut places) => *places.get_mut() -= 1,
                Entry::Vacant(_) => matched = false,
            }
        }
        if account.is_empty() {
            entry.remove();
        }
        matched
    }

    /// What this app holds now.
    #[must_use]
    pub fn usage(&self, app: AppId) -> Usage {
        self.apps.get(&app).map_or_else(Usage::default, |account| Usage {
            connections: account.connections,
            documents: account.documents_active(),
            limits: Some(account.limits),
        })
    }

    /// What every app that holds something holds now.
    pub fn usages(&self) -> impl Iterator<Item = (AppId, Usage)> {
        self.apps.iter().map(|(&app, account)| {
            let (connections, documents) = (account.connections, account.documents_active());
            (app, Usage { connections, documents, limits: Some(account.limits) })
        })
    }

    /// Whether anybody has a place in this document.
    #[must_use]
    pub fn is_active(&self, app: AppId, document: u64) -> bool {
        self.apps.get(&app).is_some_and(|account| account.documents.contains_key(&document))
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals { apps: self.apps.len() as u64, ..self.totals }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use uuid::Uuid;

    use super::*;

    fn app(n: u128) -> AppId {
        AppId { tenant: Uuid::from_u128(n % 2), app: Uuid::from_u128(n) }
    }

    fn limits(connections_max: u32, documents_max: u32) -> Limits {
        Limits { connections_max, documents_max, users_per_document_max: 9, ops_per_minute: 9 }
    }

    fn claim(connection: bool, document: Option<u64>) -> Claim {
        Claim { app: app(1), connection, document }
    }

    #[test]
    fn a_connection_beyond_the_limit_is_refused_and_fits_again_after_a_release() {
        let mut ledger = Ledger::new();
        for _ in 0..3 {
            ledger.reserve(claim(true, None), limits(3, 1)).unwrap();
        }
        assert_eq!(ledger.reserve(claim(true, None), limits(3, 1)), Err(Exceeded::Connections { limit: 3 }));
        ledger.release(claim(true, None));
        assert_eq!(ledger.reserve(claim(true, None), limits(3, 1)), Ok(()));
    }

    #[test]
    fn only_the_first_place_in_a_document_takes_room_and_only_the_last_frees_it() {
        let mut ledger = Ledger::new();
        ledger.reserve(claim(true, Some(7)), limits(9, 1)).unwrap();
        ledger.reserve(claim(true, Some(7)), limits(9, 1)).unwrap();
        let other = claim(true, Some(8));
        let refused = Err(Exceeded::Documents { limit: 1, active: 1 });
        assert_eq!(ledger.reserve(other, limits(9, 1)), refused);
        ledger.release(claim(true, Some(7)));
        assert_eq!(ledger.reserve(other, limits(9, 1)), refused);
        ledger.release(claim(true, Some(7)));
        assert_eq!(ledger.reserve(other, limits(9, 1)), Ok(()));
    }

    #[test]
    fn a_claim_that_fails_on_its_document_takes_no_connection() {
        let mut ledger = Ledger::new();
        ledger.reserve(claim(true, Some(1)), limits(9, 1)).unwrap();
        ledger.reserve(claim(true, Some(2)), limits(9, 1)).unwrap_err();
        assert_eq!(ledger.usage(app(1)).connections, 1);
    }

    #[test]
    fn smaller_limits_drop_nobody_and_apply_to_the_next_request() {
        let mut ledger = Ledger::new();
        for _ in 0..5 {
            ledger.reserve(claim(true, None), limits(5, 1)).unwrap();
        }
        assert_eq!(ledger.reserve(claim(true, None), limits(2, 1)), Err(Exceeded::Connections { limit: 2 }));
        let usage = ledger.usage(app(1));
        assert_eq!((usage.connections, usage.limits), (5, Some(limits(2, 1))));
        assert_eq!(ledger.reserve(claim(true, None), limits(6, 1)), Ok(()));
    }

    #[test]
    fn giving_back_what_is_not_held_makes_no_room() {
        let mut ledger = Ledger::new();
        ledger.reserve(claim(true, Some(1)), limits(1, 1)).unwrap();
        assert!(!ledger.give_back(Claim { app: app(2), ..claim(true, None) }), "another app");
        assert!(!ledger.give_back(claim(false, Some(2))), "another document");
        assert_eq!(ledger.reserve(claim(true, None), limits(1, 1)), Err(Exceeded::Connections { limit: 1 }));
        assert!(ledger.give_back(claim(true, Some(1))));
        assert!(!ledger.give_back(claim(true, Some(1))), "twice");
        assert_eq!(ledger.totals().connections, 0);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "released without a reservation"))]
    fn a_release_without_a_reservation_is_counted_and_stops_a_debug_build() {
        let mut ledger = Ledger::new();
        ledger.release(claim(true, None));
        assert_eq!(ledger.totals().unmatched_releases_total, 1);
    }

    /// What the ledger means, said as simply as possible: a list of who is in.
    #[derive(Default)]
    struct Model {
        held: Vec<Claim>,
    }

    impl Model {
        fn connections(&self, app: AppId) -> u32 {
            self.held.iter().filter(|c| c.app == app && c.connection).count() as u32
        }

        fn documents(&self, app: AppId) -> u32 {
            let mut open: Vec<_> =
                self.held.iter().filter(|c| c.app == app).filter_map(|c| c.document).collect();
            open.sort_unstable();
            open.dedup();
            open.len() as u32
        }

        fn reserve(&mut self, claim: Claim, limits: Limits) -> Result<(), Exceeded> {
            if claim.connection && self.connections(claim.app) + 1 > limits.connections_max {
                return Err(Exceeded::Connections { limit: limits.connections_max });
            }
            let before = self.documents(claim.app);
            self.held.push(claim);
            if self.documents(claim.app) > before && before + 1 > limits.documents_max {
                self.held.pop();
                return Err(Exceeded::Documents { limit: limits.documents_max, active: before });
            }
            Ok(())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve {
            claim: Claim,
            limits: Limits,
        },
        /// Releases one of the held claims, whichever the number falls on.
        Release {
            nth: usize,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let reserve = (0u128..3, any::<bool>(), prop::option::of(0u64..6), 1u32..6, 1u32..4).prop_map(
            |(n, connection, document, connections_max, documents_max)| Step::Reserve {
                claim: Claim { app: app(n), connection, document },
                limits: limits(connections_max, documents_max),
            },
        );
        let release = any::<usize>().prop_map(|nth| Step::Release { nth });
        prop::collection::vec(prop_oneof![3 => reserve, 2 => release], 0..200)
    }

    fn agrees_with_the_model(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let (mut ledger, mut model) = (Ledger::new(), Model::default());
        for step in steps {
            match step {
                Step::Reserve { claim, limits } => {
                    prop_assert_eq!(ledger.reserve(claim, limits), model.reserve(claim, limits));
                }
                Step::Release { nth } if !model.held.is_empty() => {
                    let claim = model.held.swap_remove(nth % model.held.len());
                    ledger.release(claim);
                }
                Step::Release { .. } => {}
            }
            for n in 0..3 {
                let usage = ledger.usage(app(n));
                prop_assert_eq!(usage.connections, model.connections(app(n)));
                prop_assert_eq!(usage.documents, model.documents(app(n)));
                for document in 0..6 {
                    let held = model.held.iter().any(|c| c.app == app(n) && c.document == Some(document));
                    prop_assert_eq!(ledger.is_active(app(n), document), held);
                }
            }
            let totals = ledger.totals();
            prop_assert_eq!(
                totals.connections,
                (0..3).map(|n| u64::from(model.connections(app(n)))).sum::<u64>()
            );
            prop_assert_eq!(
                totals.documents,
                (0..3).map(|n| u64::from(model.documents(app(n)))).sum::<u64>()
            );
        }
        while let Some(claim) = model.held.pop() {
            ledger.release(claim);
        }
        prop_assert!(ledger.apps.is_empty(), "an app that holds nothing is still remembered");
        Ok(())
    }

    #[test]
    fn random_orders_of_reserving_and_releasing_agree_with_a_naive_model() {
        let seed: [u8; 32] =
            *[Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].as_flattened().as_array().unwrap();
        println!("ledger property seed: {seed:?}");
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
        TestRunner::new_with_rng(config, rng).run(&steps(), agrees_with_the_model).unwrap();
    }
}
