//! What the micro-benchmarks measure ([`paths`]) and its inputs: genuine updates, masked frames, tokens, rooms.

pub mod paths;
pub mod room;

use std::sync::{Arc, OnceLock};

use serde_json::json;
use uuid::Uuid;
use wiresocket::auth::{KeySets, Limits, Policy, SigningKey, Verifier};
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Text, Transact};

pub const UNIX_S: u64 = 1_900_000_000;
pub const TENANT: Uuid = Uuid::from_u128(1);

/// What the tokens allow.
pub const LIMITS: Limits = Limits {
    connections_max: 100_000,
    documents_max: 100_000,
    users_per_document_max: 10_000,
    ops_per_minute: 1_000_000_000,
};

/// What an author who types `characters` characters sends: one update for each.
#[must_use]
pub fn typing(characters: u32) -> Vec<Vec<u8>> {
    typing_by(7, characters)
}

/// The same by a client of your choice.
///
/// # Panics
/// Never: a document of its own takes every edit.
#[must_use]
pub fn typing_by(client: u64, characters: u32) -> Vec<Vec<u8>> {
    let doc = Doc::with_client_id(client);
    let text = doc.get_or_insert_text("content");
    (0..characters)
        .map(|at| {
            let before = doc.transact().state_vector();
            text.insert(&mut doc.transact_mut(), at, "x");
            doc.transact().encode_diff_v1(&before)
        })
        .collect()
}

/// One update: a text of `characters` characters.
///
/// # Panics
/// Never, as above.
#[must_use]
pub fn paste(characters: usize) -> Vec<u8> {
    let doc = Doc::with_client_id(8);
    let text = doc.get_or_insert_text("content");
    text.insert(&mut doc.transact_mut(), 0, &"x".repeat(characters));
    doc.transact().encode_diff_v1(&StateVector::default())
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

/// A y-websocket update message.
///
/// # Panics
/// If the update is longer than a single character's.
#[must_use]
pub fn sync_message(update: &[u8]) -> Vec<u8> {
    let length = u8::try_from(update.len()).ok().filter(|length| *length < 128);
    [0, 2, length.expect("a short update")].into_iter().chain(update.iter().copied()).collect()
}

/// An awareness message of one client: a cursor, a name and a colour.
#[must_use]
pub fn awareness_message(client: u8, clock: u8) -> Vec<u8> {
    let state = br##"{"user":{"name":"Ada","color":"#30bced"},"cursor":{"anchor":17,"head":17}}"##;
    let mut message = vec![1, state.len() as u8 + 4, 1, client & 127, clock & 127, state.len() as u8];
    message.extend_from_slice(state);
    message
}

/// A message as a client sends it: masked, in one binary frame.
///
/// # Panics
/// If it is longer than a single character's update.
#[must_use]
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let length = u8::try_from(payload.len()).expect("a short message");
    [0x82, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
}

static KEY: OnceLock<SigningKey> = OnceLock::new();

/// The key of all issuers: made when it is first needed.
///
/// # Panics
/// If the system has no randomness.
pub fn key() -> &'static SigningKey {
    KEY.get_or_init(|| SigningKey::generate().expect("a key"))
}

/// Takes this key instead of making one, which under callgrind would take minutes.
///
/// # Panics
/// If it is no key, or there is one already.
pub fn use_key(pem: &str) {
    KEY.set(SigningKey::from_pem(pem).expect("a private RSA key")).expect("no key was used before");
}

/// Someone who signs tokens, and the keys that verify them.
#[derive(Debug)]
pub struct Issuer {
    keys: Arc<KeySets>,
}

impl Default for Issuer {
    /// # Panics
    /// Never: the key is a good one.
    fn default() -> Self {
        let public = key().public_key("k").expect("its public half");
        Self { keys: Arc::new(KeySets::default().with_tenant(TENANT, vec![public])) }
    }
}

impl Issuer {
    /// A verifier that remembers so many tokens.
    #[must_use]
    pub fn verifier(&self, remembered: usize) -> Verifier {
        let policy = Policy { issuer: "https://issuer".into(), leeway_s: 30, token_bytes_max: 16 << 10 };
        Verifier::new(policy, Arc::clone(&self.keys), remembered, 1)
    }

    /// Token `number`: each is different.
    ///
    /// # Panics
    /// Never: the claims are fit to be signed.
    #[must_use]
    pub fn token(&self, number: usize) -> String {
        let claims = json!({
            "iss": "https://issuer", "sub": "client", "aud": "WireSocket.API", "scope": "WireSocket.API",
            "tenantid": TENANT, "appId": Uuid::from_u128(2),
            "licenseRegionCode": "aws-us-east-1", "dbCode": "shard-01-us-east-1",
            "limits": {
                "maxConnections": LIMITS.connections_max, "maxDocuments": LIMITS.documents_max,
                "maxUsersPerDoc": LIMITS.users_per_document_max, "opsPerMinute": LIMITS.ops_per_minute
            },
            "exp": UNIX_S + 100_000_000, "jti": number.to_string(),
        });
        key().sign("k", &claims).expect("signed")
    }
}
