//! Tenants are apart: nobody's key signs for another, and names mean nothing across apps.

use crate::figure;
use crate::support::{Answer, NodeSetup, Replica, Tenant};

const TENANTS: u32 = 12;

#[test]
fn a_key_signs_for_its_own_tenant_only() {
    let tenants: Vec<Tenant> = (1..=TENANTS).map(Tenant::new).collect();
    let server = tenants.iter().fold(NodeSetup::without_keys(), NodeSetup::keys_of).start();
    let (mut own, mut foreign) = (0, 0);
    for signer in &tenants {
        for claimed in &tenants {
            // With the signer's own key id, and with the one that the claimed tenant has.
            for key_id in [&signer.key_id, &claimed.key_id] {
                let token =
                    claimed.token().signed_by(signer.key.clone()).header("kid", key_id.as_str()).build();
                match server.upgrade("/notes").token(&token).send() {
                    Answer::Open(_) => {
                        assert_eq!(signer.id, claimed.id, "the key of {} for {}", signer.id, claimed.id);
                        own += 1;
                    }
                    Answer::Refused(response) => {
                        assert_ne!(signer.id, claimed.id, "{}", response.text());
                        assert_eq!(response.json()["code"], 4002);
                        foreign += 1;
                    }
                }
            }
        }
    }
    let t = TENANTS as usize;
    assert_eq!((own, foreign), (2 * t, 2 * t * (t - 1)));
    figure(
        "cross-tenant keys",
        format_args!(
            "0 of {foreign} foreign signatures accepted ({TENANTS} tenants, each pair under both key ids)"
        ),
    );
}

#[test]
fn one_name_in_many_apps_is_as_many_documents() {
    let tenants: Vec<Tenant> = (1..=TENANTS).map(Tenant::new).collect();
    let server = tenants.iter().fold(NodeSetup::without_keys(), NodeSetup::keys_of).start();
    let apps: Vec<Tenant> = tenants.iter().flat_map(|tenant| [tenant.clone(), tenant.with_app(7)]).collect();
    let tokens: Vec<String> = apps.iter().map(|app| app.token().build()).collect();
    let join = |at: usize, token: &String| match at % 2 {
        0 => Replica::join(&server, "notes", token),
        _ => Replica::join_hocuspocus(&server, "notes", token),
    };
    let mut writers: Vec<Replica> = tokens.iter().enumerate().map(|(at, token)| join(at, token)).collect();
    for (at, writer) in writers.iter_mut().enumerate() {
        writer.append(&format!("of app {at}"));
    }
    let mut readers: Vec<Replica> =
        tokens.iter().enumerate().map(|(at, token)| join(at + 1, token)).collect();
    for (at, (writer, reader)) in writers.iter_mut().zip(&mut readers).enumerate() {
        writer.flush();
        reader.flush();
        assert_eq!((writer.text(), reader.text()), (format!("of app {at}"), format!("of app {at}")));
        assert_eq!(writer.updates_received, 0, "relayed from another app");
    }
    let pairs = apps.len() * (apps.len() - 1);
    figure(
        "one document name in many apps",
        format_args!("0 of {pairs} pairs of apps met ({} apps of {TENANTS} tenants, both wires)", apps.len()),
    );
}
