//! The preloaded key sets: which RSA keys may sign for which tenant.
//!
//! Invariants: a key is found only in the set of the tenant that a token claims, never by its id alone; every key here
//! is RSA of 2048 to 8192 bits and signs RS256; a revoked key stays revoked whatever set arrives later; a set never
//! changes once shared, each change makes a new one whose `epoch` is higher. Deliberately absent: where sets come from.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// The longest JWKS document, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// The most usable keys of one tenant: the active one and those retired lately.
pub const KEYS_PER_TENANT_MAX: usize = 64;
/// The longest key id, in bytes.
pub const KEY_ID_BYTES_MAX: usize = 256;

const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// One public RSA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: Box<str>,
    /// Big-endian, without leading zeros; so is the exponent.
    modulus: Box<[u8]>,
    exponent: Box<[u8]>,
}

/// Why a key cannot be used to verify tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key id {key_id:?} has {} bytes; use 1 to {KEY_ID_BYTES_MAX}", key_id.len())]
    KeyId { key_id: String },
    #[error("key {key_id:?} has an RSA modulus of {bits} bits; generate one of 2048 to 8192 bits")]
    Size { key_id: String, bits: usize },
    #[error("key {key_id:?} is broken: {why}; export it again from its private key")]
    Broken { key_id: String, why: &'static str },
}

/// Why a JWKS document was refused. Nothing of it is used then.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("the key set has {0} bytes; at most {JWKS_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("the key set is not a JWKS document (RFC 7517), {{\"keys\":[...]}}: {0}")]
    Json(#[source] serde_json::Error),
    #[error("the key set has more than {KEYS_PER_TENANT_MAX} usable keys; drop those retired long ago")]
    TooMany,
    #[error("RSA key number {number} of the key set has no kid; give each key one")]
    MissingKeyId { number: usize },
    #[error("the key set has two keys with kid {key_id:?}; keep one")]
    Duplicate { key_id: String },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Key {
    /// A key from its parts, big-endian.
    ///
    /// # Errors
    /// [`KeyError`] if the id, the size or a part is out of range.
    pub fn new(id: &str, modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        if id.is_empty() || id.len() > KEY_ID_BYTES_MAX {
            return Err(KeyError::KeyId { key_id: id.to_owned() });
        }
        let broken = |why| KeyError::Broken { key_id: id.to_owned(), why };
        let modulus = without_leading_zeros(modulus);
        let exponent = without_leading_zeros(exponent);
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !MODULUS_BITS.contains(&bits) {
            return Err(KeyError::Size { key_id: id.to_owned(), bits });
        }
        if modulus.last().is_some_and(|last| last % 2 == 0) {
            return Err(broken("its modulus is even"));
        }
        // An exponent of 1 would make every signature valid. ring takes 3 to 2^33 - 1.
        let exponent_value = match exponent.len() {
            1..=5 => exponent.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte)),
            _ => return Err(broken("its exponent is out of range")),
        };
        if !(3..1 << 33).contains(&exponent_value) || exponent_value % 2 == 0 {
            return Err(broken("its exponent is not an odd number from 3 to 2^33"));
        }
        Ok(Self { id: id.into(), modulus: modulus.into(), exponent: exponent.into() })
    }

    /// The `kid`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this key made `signature` over `message` (RS256: RSASSA-PKCS1-v1_5 with SHA-256, RFC 7518 section 3.3).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = RsaPublicKeyComponents { n: &*self.modulus, e: &*self.exponent };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
    }
}

/// Some libraries prefix a zero octet to the modulus, which RFC 7518 section 6.3.1.1 warns of.
fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    &bytes[zeros..]
}

/// The keys of a JWKS document (RFC 7517) that can sign access tokens; keys for other purposes are passed over.
///
/// # Errors
/// [`JwksError`] if it is no JWKS document, or if an RSA signing key in it is weak, broken, unnamed or named twice.
pub fn parse_jwks(bytes: &[u8]) -> Result<Vec<Key>, JwksError> {
    if bytes.len() > JWKS_BYTES_MAX {
        return Err(JwksError::TooLong(bytes.len()));
    }
    let set: JwkSet = serde_json::from_slice(bytes).map_err(JwksError::Json)?;
    let mut keys: Vec<Key> = Vec::new();
    for (position, jwk) in set.keys.iter().enumerate() {
        let Some(key) = signing_key(jwk, position + 1)? else { continue };
        if keys.iter().any(|other| other.id == key.id) {
            return Err(JwksError::Duplicate { key_id: key.id.into() });
        }
        if keys.len() == KEYS_PER_TENANT_MAX {
            return Err(JwksError::TooMany);
        }
        keys.push(key);
    }
    Ok(keys)
}

/// `None` for a key that is not meant for RS256 signatures.
fn signing_key(jwk: &Jwk, number: usize) -> Result<Option<Key>, JwksError> {
    let common = &jwk.common;
    let for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && matches!(common.key_algorithm, None | Some(KeyAlgorithm::RS256))
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let parts = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => Some((&rsa.n, &rsa.e)),
        // An RSA key whose `n` or `e` is missing or no string ends up here.
        AlgorithmParameters::Other(other) if other.fields.get("kty").is_some_and(|kty| kty == "RSA") => None,
        _ => return Ok(None),
    };
    if !for_signatures {
        return Ok(None);
    }
    let id = common.key_id.as_deref().ok_or(JwksError::MissingKeyId { number })?;
    let broken = |why| KeyError::Broken { key_id: id.to_owned(), why };
    let (modulus, exponent) = parts.ok_or_else(|| broken("n or e is missing"))?;
    let modulus = URL_SAFE_NO_PAD.decode(modulus).map_err(|_| broken("n is not base64url"))?;
    let exponent = URL_SAFE_NO_PAD.decode(exponent).map_err(|_| broken("e is not base64url"))?;
    Ok(Some(Key::new(id, &modulus, &exponent)?))
}

/// What a key id means in one tenant's set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<'a> {
    Found(&'a Key),
    Revoked,
    Unknown,
}

/// One tenant's keys and the ids that may never come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TenantKeys {
    keys: Vec<Key>,
    revoked: BTreeSet<Box<str>>,
}

/// Every tenant's verification keys, at one moment. Sets of one node descend from one another: each `with…` and
/// `without…` leaves its receiver as it is and returns the next set, sharing what did not change. That costs a look at every
/// tenant; who changes many at once changes a set of his own with [`KeySets::set_tenant`] and [`KeySets::revoke`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySets {
    epoch: u64,
    tenants: FxHashMap<Uuid, Arc<TenantKeys>>,
}

impl KeySets {
    /// Rises with each change.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The key `key_id` of this tenant, and of no other.
    #[must_use]
    pub fn lookup(&self, tenant: Uuid, key_id: &str) -> Lookup<'_> {
        let Some(set) = self.tenants.get(&tenant) else { return Lookup::Unknown };
        match set.keys.iter().find(|key| *key.id == *key_id) {
            Some(key) => Lookup::Found(key),
            None if set.revoked.contains(key_id) => Lookup::Revoked,
            None => Lookup::Unknown,
        }
    }

    /// The tenants that have at least one key, in no particular order.
    pub fn tenants(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.tenants.iter().filter(|(_, set)| !set.keys.is_empty()).map(|(tenant, _)| *tenant)
    }

    /// The keys of one tenant.
    #[must_use]
    pub fn keys(&self, tenant: Uuid) -> &[Key] {
        self.tenants.get(&tenant).map_or(&[], |set| &set.keys)
    }

    /// Every revocation that is remembered.
    pub fn revoked(&self) -> impl Iterator<Item = (Uuid, &str)> + '_ {
        self.tenants.iter().flat_map(|(tenant, set)| set.revoked.iter().map(move |id| (*tenant, &**id)))
    }

    /// With `keys` in place of all this tenant had; revoked ones among them are left out. If that changes nothing, the
    /// epoch stays.
    #[must_use]
    pub fn with_tenant(&self, tenant: Uuid, keys: Vec<Key>) -> Self {
        let mut next = self.clone();
        next.set_tenant(tenant, keys);
        next
    }

    /// [`KeySets::with_tenant`], in place.
    pub fn set_tenant(&mut self, tenant: Uuid, keys: Vec<Key>) {
        self.change(tenant, |set| set.keys = keys);
    }

    /// Without this tenant's keys; what was revoked is still remembered.
    #[must_use]
    pub fn without_tenant(&self, tenant: Uuid) -> Self {
        self.with_tenant(tenant, Vec::new())
    }

    /// Revokes a key, whether it is in the set or not: it can't come back with a stale JWKS document.
    #[must_use]
    pub fn without_key(&self, tenant: Uuid, key_id: &str) -> Self {
        let mut next = self.clone();
        next.revoke(tenant, key_id);
        next
    }

    /// [`KeySets::without_key`], in place.
    pub fn revoke(&mut self, tenant: Uuid, key_id: &str) {
        self.change(tenant, |set| {
            set.revoked.insert(key_id.into());
        });
    }

    /// With exactly these tenants and keys, as after a reload of the configuration. Revocations stay.
    #[must_use]
    pub fn with_only(&self, tenants: impl IntoIterator<Item = (Uuid, Vec<Key>)>) -> Self {
        let wanted: FxHashMap<Uuid, Vec<Key>> = tenants.into_iter().collect();
        let mut next = self.clone();
        for gone in self.tenants().filter(|tenant| !wanted.contains_key(tenant)) {
            next.change(gone, |set| set.keys.clear());
        }
        for (tenant, keys) in wanted {
            next.change(tenant, |set| set.keys = keys);
        }
        next
    }

    fn change(&mut self, tenant: Uuid, change: impl FnOnce(&mut TenantKeys)) {
        let before = self.tenants.get(&tenant).map_or_else(TenantKeys::default, |set| TenantKeys::clone(set));
        let mut after = before.clone();
        change(&mut after);
        let TenantKeys { keys, revoked } = &mut after;
        keys.retain(|key| !revoked.contains(&key.id));
        if before != after {
            self.tenants.insert(tenant, Arc::new(after));
            self.epoch += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::refusal_tests::{SIGNER, STRANGER};

    const T1: Uuid = Uuid::from_u128(1);
    const T2: Uuid = Uuid::from_u128(2);

    fn key(id: &str) -> Key {
        SIGNER.public_key(id).unwrap()
    }

    fn parse(keys: &[Value]) -> Result<Vec<String>, String> {
        parse_jwks(json!({ "keys": keys }).to_string().as_bytes())
            .map(|keys| keys.iter().map(|key| key.id().to_owned()).collect())
            .map_err(|error| error.to_string())
    }

    /// The signer's JWK with some members replaced (or, by null, removed).
    fn jwk(changes: Value) -> Value {
        let mut jwk = SIGNER.public_jwk("k");
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
                value => jwk[name] = value.clone(),
            }
        }
        jwk
    }

    #[test]
    fn a_jwks_yields_its_rs256_signing_keys_and_passes_over_the_others() {
        let keys = [
            SIGNER.public_jwk("a"),
            jwk(json!({ "kid": "plain", "use": null, "alg": null })),
            jwk(json!({ "kid": "ops", "key_ops": ["verify"] })),
            jwk(json!({ "kid": "for encryption", "use": "enc" })),
            jwk(json!({ "kid": "for wrapping", "key_ops": ["wrapKey"] })),
            jwk(json!({ "kid": "rs512", "alg": "RS512" })),
            jwk(json!({ "kid": "unheard of", "alg": "XY1" })),
            json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "kid": "ec" }),
            json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "hmac" }),
            json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "post-quantum" }),
        ];
        assert_eq!(parse(&keys).unwrap(), ["a", "plain", "ops"]);
        assert_eq!(parse(&[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_parsed_key_verifies_what_its_private_half_signed() {
        let keys = parse_jwks(SIGNER.jwks("a").to_string().as_bytes()).unwrap();
        let padding = &ring::signature::RSA_PKCS1_SHA256;
        assert!(keys[0].verifies(b"message", &SIGNER.signature(padding, b"message").unwrap()));
        assert!(!keys[0].verifies(b"massage", &SIGNER.signature(padding, b"message").unwrap()));
        assert!(!keys[0].verifies(b"message", &STRANGER.signature(padding, b"message").unwrap()));
    }

    #[test]
    fn a_leading_zero_octet_of_the_modulus_is_forgiven() {
        let n = SIGNER.public_jwk("k")["n"].as_str().unwrap().to_owned();
        let mut bytes = URL_SAFE_NO_PAD.decode(n).unwrap();
        bytes.insert(0, 0);
        let padded = jwk(json!({ "n": URL_SAFE_NO_PAD.encode(bytes) }));
        assert_eq!(parse_jwks(json!({ "keys": [padded] }).to_string().as_bytes()).unwrap(), [key("k")]);
    }

    #[test]
    fn weak_and_broken_keys_refuse_the_whole_set_by_name() {
        let n = |bytes: usize, first: u8, last: u8| {
            let mut modulus = vec![0xff; bytes];
            modulus[0] = first;
            modulus[bytes - 1] = last;
            URL_SAFE_NO_PAD.encode(modulus)
        };
        let rows = [
            (json!({ "n": n(128, 0xff, 1) }), "key \"k\" has an RSA modulus of 1024 bits"),
            (json!({ "n": n(256, 0x7f, 1) }), "key \"k\" has an RSA modulus of 2047 bits"),
            (json!({ "n": n(1025, 0x01, 1) }), "key \"k\" has an RSA modulus of 8193 bits"),
            (json!({ "n": "" }), "key \"k\" has an RSA modulus of 0 bits"),
            (json!({ "n": n(256, 0xff, 2) }), "key \"k\" is broken: its modulus is even"),
            (json!({ "n": "not base64!" }), "key \"k\" is broken: n is not base64url"),
            (json!({ "e": "AQAB=" }), "key \"k\" is broken: e is not base64url"),
            (json!({ "e": "AQ" }), "key \"k\" is broken: its exponent is not an odd number"),
            (json!({ "e": "BA" }), "key \"k\" is broken: its exponent is not an odd number"),
            (json!({ "e": "AgAAAAE" }), "key \"k\" is broken: its exponent is not an odd number"),
            (json!({ "e": "AQAAAAAB" }), "key \"k\" is broken: its exponent is out of range"),
            (json!({ "e": "" }), "key \"k\" is broken: its exponent is out of range"),
            (json!({ "e": null }), "key \"k\" is broken: n or e is missing"),
            (json!({ "n": 5 }), "key \"k\" is broken: n or e is missing"),
            (json!({ "kid": null }), "RSA key number 2 of the key set has no kid"),
            (json!({ "kid": "" }), "key id \"\" has 0 bytes"),
            (json!({ "kid": "good" }), "the key set has two keys with kid \"good\""),
        ];
        for (changes, expected) in rows {
            let error = parse(&[SIGNER.public_jwk("good"), jwk(changes.clone())]).unwrap_err();
            assert!(error.starts_with(expected), "{changes}: {error}");
        }
    }

    #[test]
    fn what_is_no_jwks_or_too_much_of_one_is_refused() {
        for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[1]}", "{\"keys\":[]} x"] {
            assert!(matches!(parse_jwks(text.as_bytes()), Err(JwksError::Json(_))), "{text}");
        }
        let many: Vec<_> = (0..=KEYS_PER_TENANT_MAX).map(|n| jwk(json!({ "kid": n.to_string() }))).collect();
        assert!(parse(&many).unwrap_err().contains("more than 64 usable keys"));
        assert_eq!(parse(&many[1..]).unwrap().len(), KEYS_PER_TENANT_MAX);
        let long = vec![b' '; JWKS_BYTES_MAX + 1];
        assert!(matches!(parse_jwks(&long), Err(JwksError::TooLong(_))));
    }

    #[test]
    fn a_key_id_means_something_only_within_its_tenant() {
        let sets =
            KeySets::default().with_tenant(T1, vec![key("a"), key("b")]).with_tenant(T2, vec![key("c")]);
        assert_eq!(sets.lookup(T1, "a"), Lookup::Found(&key("a")));
        assert_eq!(sets.lookup(T2, "a"), Lookup::Unknown);
        assert_eq!(sets.lookup(T1, "c"), Lookup::Unknown);
        assert_eq!(sets.lookup(Uuid::from_u128(3), "a"), Lookup::Unknown);
    }

    #[test]
    fn the_epoch_rises_with_changes_only_and_old_sets_stay_as_they_were() {
        let first = KeySets::default().with_tenant(T1, vec![key("a")]);
        assert_eq!(first.epoch(), 1);
        assert_eq!(first.with_tenant(T1, vec![key("a")]).epoch(), 1);
        assert_eq!(first.without_tenant(T2), first);
        let second = first.with_tenant(T1, vec![key("a"), key("b")]);
        assert_eq!(second.epoch(), 2);
        let third = second.without_key(T1, "a");
        assert_eq!(third.epoch(), 3);
        assert_eq!(third.without_key(T1, "a").epoch(), 3);
        assert_eq!((first.keys(T1).len(), second.keys(T1).len(), third.keys(T1).len()), (1, 2, 1));
    }

    #[test]
    fn a_stale_jwks_does_not_bring_a_revoked_key_back() {
        let revoked = KeySets::default().with_tenant(T1, vec![key("a"), key("b")]).without_key(T1, "a");
        assert_eq!(revoked.lookup(T1, "a"), Lookup::Revoked);
        for sets in [
            revoked.with_tenant(T1, vec![key("a"), key("b")]),
            revoked.without_tenant(T1).with_tenant(T1, vec![key("a"), key("b")]),
            revoked.with_only([(T1, vec![key("a"), key("b")])]),
            revoked.with_only([]).with_only([(T1, vec![key("a"), key("b")])]),
        ] {
            assert_eq!(sets.lookup(T1, "a"), Lookup::Revoked);
            assert_eq!(sets.lookup(T1, "b"), Lookup::Found(&key("b")));
            assert_eq!(sets.revoked().collect::<Vec<_>>(), [(T1, "a")]);
        }
        // A revocation may also come before the key, and concerns no other tenant.
        let early = KeySets::default().without_key(T1, "a");
        let sets = early.with_tenant(T1, vec![key("a")]).with_tenant(T2, vec![key("a")]);
        assert_eq!(sets.lookup(T1, "a"), Lookup::Revoked);
        assert_eq!(sets.lookup(T2, "a"), Lookup::Found(&key("a")));
    }

    #[test]
    fn a_reload_leaves_exactly_the_tenants_it_names() {
        let sets = KeySets::default().with_tenant(T1, vec![key("a")]).with_tenant(T2, vec![key("b")]);
        let reloaded = sets.with_only([(T2, vec![key("b")]), (Uuid::from_u128(3), vec![key("c")])]);
        let mut tenants: Vec<_> = reloaded.tenants().collect();
        tenants.sort();
        assert_eq!(tenants, [T2, Uuid::from_u128(3)]);
        assert!(reloaded.epoch() > sets.epoch());
        assert_eq!(sets.with_only([(T1, vec![key("a")]), (T2, vec![key("b")])]), sets);
    }
}
