//! What the dashboard is told of each app: what it holds now, and the ops since the last time.
//!
//! Invariants:
//! - An op is in exactly one report. A report that was not confirmed is sent again as it was, under its number, before
//!   there is another; whoever takes a number once counts every op once.
//! - An app is reported when its figures differ from those that were last confirmed, when it has ops, and in any case once
//!   in each minute in which it holds something: so that a minute's history is there even if nothing changes.
//! - An app that holds nothing and has nothing to tell takes no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Ledger;
use crate::protocol::document::AppId;

/// Apps in one report; more make more reports.
pub const APPS_MAX: usize = 1000;

/// One app in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppReport {
    pub app: AppId,
    pub connections: u32,
    pub documents: u32,
    /// Since the report before in which this app was.
    pub ops: u64,
}

/// What is told at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of this process: numbers begin anew with it.
    pub boot: i64,
    /// From 1 on.
    pub sequence: i64,
    pub apps: Vec<AppReport>,
}

/// Gathers what is to be reported.
#[derive(Debug)]
pub struct Meter {
    boot: i64,
    sequence: i64,
    ops: BTreeMap<AppId, u64>,
    /// Connections and documents as they were last reported; none that holds nothing.
    told: BTreeMap<AppId, (u32, u32)>,
    /// The minute in which every app was last listed.
    listed_in: u64,
    /// Apps that wait for the next report.
    due: BTreeSet<AppId>,
    /// Sent, and not confirmed.
    sent: Option<Arc<Report>>,
}

impl Meter {
    /// `boot` tells this process's reports from those of the one before.
    #[must_use]
    pub fn new(boot: i64) -> Self {
        Self {
            boot,
            sequence: 0,
            ops: BTreeMap::new(),
            told: BTreeMap::new(),
            listed_in: 0,
            due: BTreeSet::new(),
            sent: None,
        }
    }

    #[must_use]
    pub const fn boot(&self) -> i64 {
        self.boot
    }

    /// So many ops of this app have changed documents.
    pub fn count(&mut self, app: AppId, ops: u64) {
        *self.ops.entry(app).or_insert(0) += ops;
    }

    /// What is to be sent now: the report that was not confirmed, or a new one. `None` if there is nothing to tell.
    pub fn report(&mut self, unix_s: u64, ledger: &Ledger) -> Option<Arc<Report>> {
        if let Some(sent) = &self.sent {
            return Some(Arc::clone(sent));
        }
        self.list(unix_s, ledger);
        let mut apps = Vec::new();
        while apps.len() < APPS_MAX
            && let Some(app) = self.due.pop_first()
        {
            let usage = ledger.usage(app);
            let held = (usage.connections, usage.documents);
            if held == (0, 0) {
                self.told.remove(&app)
            } else {
                self.told.insert(app, held)
            };
            let ops = self.ops.remove(&app).unwrap_or(0);
            apps.push(AppReport { app, connections: held.0, documents: held.1, ops });
        }
        if apps.is_empty() {
            return None;
        }
        self.sequence += 1;
        let report = Arc::new(Report { boot: self.boot, sequence: self.sequence, apps });
        self.sent = Some(Arc::clone(&report));
        Some(report)
    }

    /// Adds to `due` whatever has something to tell.
    fn list(&mut self, unix_s: u64, ledger: &Ledger) {
        let is_new_minute = unix_s / 60 != self.listed_in;
        self.listed_in = unix_s / 60;
        for (app, usage) in ledger.usages() {
            if is_new_minute || self.told.get(&app) != Some(&(usage.connections, usage.documents)) {
                self.due.insert(app);
            }
        }
        let gone = self.told.keys().filter(|&&app| ledger.usage(app).limits.is_none());
        self.due.extend(gone);
        self.due.extend(self.ops.keys());
    }

    /// The report that was sent has been taken. Says whether there is more to send at once.
    pub fn confirmed(&mut self) -> bool {
        self.sent = None;
        !self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::auth::Limits;
    use crate::limits::Claim;

    const LIMITS: Limits =
        Limits { connections_max: 9999, documents_max: 9999, users_per_document_max: 9, ops_per_minute: 9 };

    fn app(n: u128) -> AppId {
        AppId { tenant: Uuid::nil(), app: Uuid::from_u128(n) }
    }

    fn claim(n: u128) -> Claim {
        Claim { app: app(n), connection: true, document: Some(7) }
    }

    fn told(report: Option<Arc<Report>>) -> Vec<(u128, u32, u32, u64)> {
        let each = |a: &AppReport| (a.app.app.as_u128(), a.connections, a.documents, a.ops);
        report.map(|report| report.apps.iter().map(each).collect()).unwrap_or_default()
    }

    #[test]
    fn only_what_has_changed_is_told_and_everything_once_a_minute() {
        let (mut meter, mut ledger) = (Meter::new(5), Ledger::new());
        assert_eq!(meter.report(600, &ledger), None);
        ledger.reserve(claim(1), LIMITS).unwrap();
        ledger.reserve(claim(2), LIMITS).unwrap();
        let first = meter.report(601, &ledger).unwrap();
        assert_eq!((first.boot, first.sequence), (5, 1));
        assert_eq!(told(Some(first)), [(1, 1, 1, 0), (2, 1, 1, 0)]);
        assert!(!meter.confirmed());
        assert_eq!(meter.report(610, &ledger), None);
        ledger.reserve(claim(2), LIMITS).unwrap();
        assert_eq!(told(meter.report(620, &ledger)), [(2, 2, 1, 0)]);
        meter.confirmed();
        assert_eq!(told(meter.report(661, &ledger)), [(1, 1, 1, 0), (2, 2, 1, 0)]);
    }

    #[test]
    fn an_app_that_has_left_is_told_once_and_then_forgotten() {
        let (mut meter, mut ledger) = (Meter::new(5), Ledger::new());
        ledger.reserve(claim(1), LIMITS).unwrap();
        meter.report(1, &ledger);
        meter.confirmed();
        meter.count(app(1), 3);
        ledger.release(claim(1));
        assert_eq!(told(meter.report(2, &ledger)), [(1, 0, 0, 3)]);
        meter.confirmed();
        assert_eq!(meter.report(200, &ledger), None);
        assert!(meter.told.is_empty() && meter.ops.is_empty());
    }

    #[test]
    fn a_report_that_was_not_confirmed_is_sent_again_as_it_was_and_later_ops_are_in_the_next() {
        let (mut meter, ledger) = (Meter::new(5), Ledger::new());
        meter.count(app(1), 3);
        let first = meter.report(1, &ledger).unwrap();
        meter.count(app(1), 4);
        assert_eq!(meter.report(2, &ledger).unwrap(), first);
        assert!(!meter.confirmed());
        let second = meter.report(3, &ledger).unwrap();
        assert_eq!((second.sequence, told(Some(second))), (2, vec![(1, 0, 0, 4)]));
        meter.confirmed();
        assert_eq!(meter.report(4, &ledger), None);
    }

    #[test]
    fn more_apps_than_fit_are_told_in_reports_that_follow_at_once() {
        let (mut meter, mut ledger) = (Meter::new(5), Ledger::new());
        for n in 0..2500 {
            ledger.reserve(claim(n), LIMITS).unwrap();
        }
        let mut apps = BTreeSet::new();
        for expected in [1000, 1000, 500] {
            let report = meter.report(60, &ledger).unwrap();
            assert_eq!(report.apps.len(), expected);
            apps.extend(report.apps.iter().map(|a| a.app));
            assert_eq!(meter.confirmed(), expected == 1000);
        }
        assert_eq!(apps.len(), 2500);
        assert_eq!(meter.report(60, &ledger), None);
    }
}
