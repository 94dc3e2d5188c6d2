//! From a token to a [`Grant`]: JWS (RFC 7515) and JWT (RFC 7519) as RFC 8725 recommends them to be checked.
//!
//! Invariants: RS256 and nothing else; the key is the one that the claimed tenant's set holds under `kid`; before the
//! signature holds, a refusal tells nothing of the claims but that a key is unknown; `exp` and `nbf` are compared on
//! every call, also for a token that is cached; the cache is emptied whenever keys or policy change. Deliberately absent:
//! the clock, the fetching of keys, and any memory of tokens that were refused.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::cache::Cache;
use super::claims::{self, Claims};
use super::grant::Grant;
use super::json::{Document, Parser};
use super::keys::{KEY_ID_BYTES_MAX, KeySets, Lookup};
use super::token_error::TokenError;

/// Header parameters that would let the token choose its own key or its own rules (RFC 8725 sections 3.9 and 3.10, RFC 7797).
const FORBIDDEN_PARAMETERS: [&str; 6] = ["crit", "b64", "jku", "x5u", "x5c", "jwk"];

/// The longest header, in bytes of base64url: a key id and a few parameters. Its members are sorted before anything is
/// known of the sender, so it is kept small.
const HEADER_BYTES_MAX: usize = 2048;

/// What the node's configuration says of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What `iss` must equal, byte for byte.
    pub issuer: String,
    /// How far clocks may differ, in seconds.
    pub leeway_s: u64,
    /// The longest token, in bytes.
    pub token_bytes_max: usize,
}

/// How often the cache spared a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Tokens found in the cache (some of them expired by then).
    pub hits: u64,
    /// Signatures checked, whatever came out.
    pub verifications: u64,
}

/// Verifies the tokens of one shard.
pub struct Verifier {
    policy: Policy,
    keys: Arc<KeySets>,
    cache: Cache,
    counters: Counters,
    parser: Parser,
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Verifier {
    /// `cache_capacity` is in tokens; `seed` should be hard to guess and differ between processes.
    #[must_use]
    pub fn new(policy: Policy, keys: Arc<KeySets>, cache_capacity: usize, seed: u64) -> Self {
        Self {
            policy,
            keys,
            cache: Cache::new(cache_capacity, seed),
            counters: Counters::default(),
            parser: Parser::new(),
            header: Vec::new(),
            payload: Vec::new(),
            signature: Vec::new(),
        }
    }

    /// What `token` allows at `unix_s` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// [`TokenError`] names the first check that failed. After [`TokenError::UnknownKey`] it is worth refreshing that
    /// tenant's keys and trying once more.
    pub fn verify(&mut self, unix_s: u64, token: &str) -> Result<Arc<Grant>, TokenError> {
        if token.len() > self.policy.token_bytes_max {
            return Err(TokenError::TooLong);
        }
        let hash = self.cache.hash(token);
        if let Some(entry) = self.cache.get(hash, token) {
            self.counters.hits += 1;
            let grant = Arc::clone(&entry.grant);
            let timely =
                check_time(unix_s, self.policy.leeway_s, grant.expires_unix_s, entry.not_before_unix_s);
            if timely == Err(TokenError::Expired) {
                self.cache.remove(hash);
            }
            return timely.map(|()| grant);
        }
        let (grant, not_before_unix_s) = self.verify_anew(token)?;
        check_time(unix_s, self.policy.leeway_s, grant.expires_unix_s, not_before_unix_s)?;
        let grant = Arc::new(grant);
        self.cache.insert(hash, token, Arc::clone(&grant), not_before_unix_s);
        Ok(grant)
    }

    /// Everything but the times: what the token grants, and its `nbf`.
    fn verify_anew(&mut self, token: &str) -> Result<(Grant, u64), TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        if header.len() > HEADER_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        decode(header, &mut self.header)?;
        decode(payload, &mut self.payload)?;
        decode(signature, &mut self.signature)?;

        let header = self.parser.object(&mut self.header).ok_or(TokenError::Header)?;
        let key_id = check_header(&header)?;
        let payload = self.parser.object(&mut self.payload).ok_or(TokenError::Claims)?;
        let tenant = claims::tenant(&payload)?;
        let key = match self.keys.lookup(tenant, key_id) {
            Lookup::Found(key) => key,
            Lookup::Revoked => return Err(TokenError::RevokedKey),
            Lookup::Unknown => {
                return Err(TokenError::UnknownKey { tenant, key_id: key_id.to_owned() });
            }
        };
        self.counters.verifications += 1;
        if !key.verifies(signed.as_bytes(), &self.signature) {
            return Err(TokenError::Signature);
        }

        let claims = Claims::parse(&payload)?;
        if claims.issuer != self.policy.issuer {
            return Err(TokenError::Issuer);
        }
        let not_before_unix_s = claims.not_before_unix_s;
        Ok((claims.into_grant(key_id), not_before_unix_s))
    }

    /// Takes the next key sets over. If they differ, every token is verified anew.
    pub fn replace_keys(&mut self, keys: Arc<KeySets>) {
        // Two sets of one epoch that differ have no common origin; equal ones are mostly one and the same.
        if *self.keys != *keys {
            self.cache.clear();
        }
        self.keys = keys;
    }

    /// Takes another configuration over. If it differs, every token is verified anew.
    pub fn set_policy(&mut self, policy: Policy) {
        if self.policy != policy {
            self.cache.clear();
        }
        self.policy = policy;
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    #[must_use]
    pub fn keys(&self) -> &Arc<KeySets> {
        &self.keys
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many tokens the cache holds.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }
}

impl fmt::Debug for Verifier {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("policy", &self.policy)
            .field("key_epoch", &self.keys.epoch())
            .field("cached", &self.cached())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// RFC 4648 section 5 without padding, and no spare bits: one value has one spelling.
fn decode(part: &str, into: &mut Vec<u8>) -> Result<(), TokenError> {
    into.clear();
    URL_SAFE_NO_PAD.decode_vec(part, into).map_err(|_| TokenError::Encoding)
}

/// The `kid` of a header that asks for nothing unusual.
fn check_header<'a>(header: &Document<'a>) -> Result<&'a str, TokenError> {
    if header.has_duplicate_key() {
        return Err(TokenError::DuplicateParameter);
    }
    if header.get("alg").and_then(|alg| alg.as_str()) != Some("RS256") {
        return Err(TokenError::Algorithm);
    }
    if let Some(name) = FORBIDDEN_PARAMETERS.into_iter().find(|name| header.get(name).is_some()) {
        return Err(TokenError::Parameter(name));
    }
    if let Some(value) = header.get("typ") {
        // A media type: case does not matter, and "application/" is usually left out (RFC 7515 section 4.1.9).
        let written = value.as_str().ok_or(TokenError::Type)?.to_ascii_lowercase();
        let kind = written.strip_prefix("application/").unwrap_or(&written);
        if !matches!(kind, "jwt" | "at+jwt") {
            return Err(TokenError::Type);
        }
    }
    let key_id = header.get("kid").and_then(|kid| kid.as_str()).ok_or(TokenError::KeyId)?;
    if (1..=KEY_ID_BYTES_MAX).contains(&key_id.len()) { Ok(key_id) } else { Err(TokenError::KeyId) }
}

/// A token is good while `nbf - leeway <= now < exp + leeway`.
fn check_time(unix_s: u64, leeway_s: u64, expires: u64, not_before: u64) -> Result<(), TokenError> {
    if unix_s >= expires.saturating_add(leeway_s) {
        Err(TokenError::Expired)
    } else if unix_s.saturating_add(leeway_s) < not_before {
        Err(TokenError::NotYetValid)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! The cache as the verifier uses it; what is refused is tested in `refusal_tests`.

    use serde_json::json;

    use super::*;
    use crate::auth::refusal_tests::{
        LEEWAY, NOW, OTHER_TENANT, STRANGER, TENANT, claims, keys, policy, signed, verifier, with,
    };

    #[test]
    fn a_cached_token_is_not_verified_again_but_its_times_are() {
        let mut verifier = verifier();
        let token = signed(&claims());
        let first = verifier.verify(NOW, &token).unwrap();
        let second = verifier.verify(NOW + 1, &token).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((verifier.counters().hits, verifier.counters().verifications), (1, 1));
        assert_eq!(
            verifier.verify(NOW - 3600, &token),
            Err(TokenError::NotYetValid),
            "the clock was set back"
        );
        assert_eq!(verifier.verify(NOW + 900 + LEEWAY, &token), Err(TokenError::Expired));
        assert_eq!((verifier.counters().hits, verifier.counters().verifications), (3, 1));
        assert_eq!(verifier.cached(), 0, "an expired token leaves the cache");
    }

    #[test]
    fn refused_tokens_are_not_cached_and_accepted_ones_up_to_the_capacity() {
        let mut verifier = verifier();
        assert_eq!(
            verifier.verify(NOW, &STRANGER.sign("k1", &claims()).unwrap()),
            Err(TokenError::Signature)
        );
        assert_eq!(verifier.verify(NOW, &signed(&with("exp", json!(1)))), Err(TokenError::Expired));
        assert_eq!(verifier.cached(), 0);
        for n in 0..40 {
            verifier.verify(NOW, &signed(&with("jti", json!(n.to_string())))).unwrap();
        }
        assert_eq!(verifier.cached(), 16);
    }

    #[test]
    fn a_change_of_keys_or_policy_empties_the_cache() {
        let mut verifier = verifier();
        let token = signed(&claims());
        let fill = |verifier: &mut Verifier| {
            verifier.verify(NOW, &token).unwrap();
            assert_eq!(verifier.cached(), 1);
        };
        fill(&mut verifier);
        verifier.replace_keys(Arc::new(keys()));
        assert_eq!(verifier.cached(), 1, "the same keys");
        verifier.replace_keys(Arc::new(keys().with_tenant(OTHER_TENANT, vec![])));
        assert_eq!(verifier.cached(), 0);

        // Key sets that were built apart may have one epoch and yet differ.
        fill(&mut verifier);
        let epoch = verifier.keys().epoch();
        let mut rebuilt = KeySets::default().with_tenant(TENANT, vec![STRANGER.public_key("k1").unwrap()]);
        while rebuilt.epoch() < epoch {
            rebuilt = rebuilt.without_key(OTHER_TENANT, &rebuilt.epoch().to_string());
        }
        assert_eq!(rebuilt.epoch(), epoch);
        verifier.replace_keys(Arc::new(rebuilt));
        assert_eq!(verifier.verify(NOW, &token), Err(TokenError::Signature));

        verifier.replace_keys(Arc::new(keys()));
        fill(&mut verifier);
        verifier.set_policy(policy());
        assert_eq!(verifier.cached(), 1, "the same policy");
        verifier.set_policy(Policy { issuer: "https://moved.example".to_owned(), ..policy() });
        assert_eq!(verifier.verify(NOW, &token), Err(TokenError::Issuer));
    }

    /// `cargo test --release --lib verification_cost -- --ignored --nocapture`
    #[test]
    #[ignore = "prints how long a verification and a hit take"]
    #[allow(clippy::disallowed_types)]
    fn verification_cost() {
        use std::time::Instant;
        let token = signed(&claims());
        let mut cold = Verifier::new(policy(), Arc::new(keys()), 0, 42);
        let mut warm = verifier();
        for (name, verifier, rounds) in [("verification", &mut cold, 2_000), ("hit", &mut warm, 500_000)] {
            let start = Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(verifier.verify(NOW, std::hint::black_box(&token))).unwrap();
            }
            println!("{name}: {:?} for a token of {} bytes", start.elapsed() / rounds, token.len());
        }
    }
}
