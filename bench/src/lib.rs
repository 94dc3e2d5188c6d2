//! Inputs for the micro-benchmarks: genuine single-character updates, masked frames, tokens.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;
use wiresocket::auth::{KeySets, Policy, SigningKey, Verifier};
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Text, Transact};

/// What one author who types `characters` characters sends: one update for each.
///
/// # Panics
/// Never: a document of its own takes every edit.
#[must_use]
pub fn typing(characters: u32) -> Vec<Vec<u8>> {
    let doc = Doc::with_client_id(7);
    let text = doc.get_or_insert_text("content");
    (0..characters)
        .map(|at| {
            let before = doc.transact().state_vector();
            text.insert(&mut doc.transact_mut(), at, "x");
            doc.transact().encode_diff_v1(&before)
        })
        .collect()
}

/// The state that `updates` make.
///
/// # Panics
/// If an update is not one.
#[must_use]
pub fn state(updates: &[Vec<u8>]) -> Vec<u8> {
    let doc = Doc::new();
    for update in updates {
        let update = yrs::Update::decode_v1(update).expect("a genuine update");
        doc.transact_mut().apply_update(update).expect("it applies");
    }
    doc.transact().encode_diff_v1(&StateVector::default())
}

/// A y-websocket update message as a client sends it: masked, in one binary frame.
#[must_use]
pub fn client_frame(update: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let length = u8::try_from(update.len()).expect("a single character's update is short");
    let payload: Vec<u8> = [0, 2, length].into_iter().chain(update.iter().copied()).collect();
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let length = u8::try_from(payload.len()).expect("so is its frame");
    [0x82, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
}

/// A verifier that knows one key, and `count` different tokens signed with it.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn tokens(count: usize) -> (Verifier, Vec<String>) {
    let key = SigningKey::generate().expect("a key");
    let tenant = Uuid::from_u128(1);
    let keys = KeySets::default().with_tenant(tenant, vec![key.public_key("k").expect("its public half")]);
    let policy = Policy { issuer: "https://issuer".into(), leeway_s: 30, token_bytes_max: 16 << 10 };
    let tokens = (0..count).map(|number| {
        let claims = json!({
            "iss": "https://issuer", "sub": "client", "aud": "WireSocket.API", "scope": "WireSocket.API",
            "tenantid": tenant, "appId": Uuid::from_u128(2),
            "licenseRegionCode": "aws-us-east-1", "dbCode": "shard-01-us-east-1",
            "limits": {"maxConnections": 1, "maxDocuments": 1, "maxUsersPerDoc": 1, "opsPerMinute": 1},
            "exp": 2_000_000_000u64, "jti": number.to_string(),
        });
        key.sign("k", &claims).expect("signed")
    });
    let tokens = tokens.collect();
    (Verifier::new(policy, Arc::new(keys), 4096, 1), tokens)
}
