//! The audit log.

use wiresocket::dashboard::access::Actor;
use wiresocket::dashboard::audit::{self, Event};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::query;
use wiresocket::dashboard::{apps, keys};

use crate::stage::{START, Stage};

async fn actions(stage: &Stage) -> Vec<String> {
    let entries = audit::entries(&stage.dashboard.home, 0, 1000, None).await.unwrap();
    entries.into_iter().map(|entry| entry.event.action).collect()
}

pub async fn every_change_is_in_the_chain(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let app = stage.read(tenant, &credentials).await;
    apps::regenerate_secret(&stage.dashboard, &stage.operator, &app).await.unwrap();
    keys::rotate(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(
        actions(&stage).await,
        [
            "account.create",
            "tenant.create",
            "member.add",
            "tenant.approve",
            "key.create",
            "app.create",
            "subscription.create",
            "invoice.issue",
            "app.regenerate_secret",
            "key.rotate",
        ]
    );
    let entries = audit::entries(&stage.dashboard.home, 0, 1000, Some(tenant)).await.unwrap();
    assert_eq!(entries.len(), 9, "all but the account are the tenant's");
    assert_eq!(entries[2].event.actor, "command-line");
    assert_eq!(entries[2].event.at, START);
    let (length, hash) = audit::verify(&stage.dashboard.home).await.unwrap();
    assert_eq!((length, hash), (10, entries[8].hash.clone()));
}

pub async fn a_changed_entry_breaks_the_chain(stage: Stage) {
    stage.ready().await;
    audit::verify(&stage.dashboard.home).await.unwrap();
    let change = async |sql: &'static str| {
        let mut tx = stage.dashboard.home.begin().await.unwrap();
        query(sql).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        audit::verify(&stage.dashboard.home).await.map_err(|error| error.to_string())
    };
    let changed = change("UPDATE audit_log SET actor = 'somebody' WHERE seq = 3").await;
    assert_eq!(
        changed.unwrap_err(),
        "entry 3 of the audit log was changed: its hash is not that of its content"
    );
    let cut_short = change("DELETE FROM audit_log WHERE seq >= 3").await;
    assert_eq!(cut_short.unwrap_err(), "entry 3 of the audit log is missing: the log is shorter than it was");
    let left_out = change("DELETE FROM audit_log WHERE seq = 1").await;
    assert!(left_out.unwrap_err().starts_with("entry 1 of the audit log does not follow"));
}

pub async fn an_event_of_a_region_arrives_once(stage: Stage) {
    let region = stage.dashboard.region(LicenseRegion::EuWest1).unwrap();
    let event = Event::new(START, &Actor::system(), "test.event", "x");
    let enqueue = async || {
        let mut tx = region.begin().await.unwrap();
        audit::enqueue(&mut tx, &event).await.unwrap();
        tx.commit().await.unwrap();
    };
    enqueue().await;
    let deliver = || stage.dashboard.deliver_audit();
    let (one, two, three) = tokio::join!(deliver(), deliver(), deliver());
    [one, two, three].into_iter().for_each(|done| done.unwrap());
    // As after a crash between the two databases: delivered, but still in the outbox.
    enqueue().await;
    deliver().await.unwrap();
    assert_eq!(actions(&stage).await, ["test.event"]);
    audit::verify(&stage.dashboard.home).await.unwrap();
}
