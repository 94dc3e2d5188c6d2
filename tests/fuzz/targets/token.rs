//! Access tokens: `auth::Verifier`, from the text of a token to what it grants.
//!
//! The first byte says what the rest is: a token; a header, a line feed and claims; claims; or changes to a good token.
//! The signature of the middle two is genuine, since no fuzzer finds one.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::auth::{Grant, KeySets, Policy, SigningKey, TokenError, Verifier};
use wiresocket::protocol::close::{REASON_BYTES_MAX, Refusal};

pub const TENANT: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);
pub const NOW: u64 = 1_800_000_000;
pub const ISSUER: &str = "https://issuer.example";
pub const HEADER: &str = r#"{"alg":"RS256","kid":"k1"}"#;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("a key"));
static KEYS: LazyLock<Arc<KeySets>> = LazyLock::new(|| {
    let key = KEY.public_key("k1").expect("a key id");
    Arc::new(KeySets::default().with_tenant(TENANT, vec![key]))
});
static GOOD: LazyLock<String> = LazyLock::new(|| signed(HEADER.as_bytes(), claims().to_string().as_bytes()));

pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "c", "aud": "WireSocket.API", "scope": "WireSocket.API", "tenantid": TENANT,
        "appId": TENANT, "licenseRegionCode": "r", "dbCode": "d", "allowed_domain_1": "a.com", "exp": NOW + 900,
        "limits": { "maxConnections": 1, "maxDocuments": 1, "maxUsersPerDoc": 1, "opsPerMinute": 1 },
    })
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    KEY.sign_raw(header, claims).expect("it signs anything")
}

pub fn run(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let token = String::from_utf8_lossy(rest);
            assert!(verify(&token).is_err(), "a token that nobody signed: {token}");
        }
        1 => {
            let at = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            let (header, claims) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
            if let Ok(grant) = verify(&signed(header, claims)) {
                let header: Value = serde_json::from_slice(header).expect("a header is JSON");
                assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!("k1")));
                check(&grant, claims);
            }
        }
        2 => {
            if let Ok(grant) = verify(&signed(HEADER.as_bytes(), rest)) {
                check(&grant, rest);
            }
        }
        _ => {
            let mut token = GOOD.clone().into_bytes();
            for change in rest.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % token.len();
                token[at] = change[2];
            }
            let token = String::from_utf8_lossy(&token);
            assert!(verify(&token).is_err() || token == *GOOD, "a changed token is taken: {token}");
        }
    }
}

fn verify(token: &str) -> Result<Arc<Grant>, TokenError> {
    let policy = Policy { issuer: ISSUER.to_owned(), leeway_s: 30, token_bytes_max: 8192 };
    let mut verifier = Verifier::new(policy, Arc::clone(&KEYS), 4, 1);
    let result = verifier.verify(NOW, token);
    // The cache must not change the answer.
    assert_eq!(verifier.verify(NOW, token), result);
    if let Err(error) = &result {
        let refusal = Refusal::from(error.clone());
        assert!((4001..=4003).contains(&refusal.code()) && refusal.reason().len() <= REASON_BYTES_MAX);
    }
    result
}

/// What was granted is what a second reader of JSON finds in the claims.
fn check(grant: &Grant, claims: &[u8]) {
    let claims: Value = serde_json::from_slice(claims).expect("claims are JSON");
    assert_eq!(claims["iss"], ISSUER);
    assert!(claims["aud"] == "WireSocket.API" || claims["aud"] == json!(["WireSocket.API"]));
    let granted = |name: &str, scope: &str| match &claims[name] {
        Value::String(words) => words.split(' ').any(|word| word == scope),
        Value::Array(words) => words.iter().any(|word| word == scope),
        _ => false,
    };
    assert!(granted("scope", "WireSocket.API") || granted("scp", "WireSocket.API"));
    let read_only = granted("scope", "WireSocket.ReadOnly") || granted("scp", "WireSocket.ReadOnly");
    assert_eq!(grant.permissions.read_only, read_only);
    let documents = grant.permissions.documents.as_deref();
    let documents = documents.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(claims["documents"], json!(documents));
    assert_eq!(grant.app.tenant, TENANT);
    assert_eq!(claims["tenantid"].as_str().and_then(|text| text.parse().ok()), Some(TENANT));
    assert_eq!(claims["appId"].as_str().and_then(|text| text.parse().ok()), Some(grant.app.app));
    assert_eq!(claims["sub"], *grant.client_id);
    assert!(grant.expires_unix_s + 30 > NOW);
    assert!(claims["exp"].as_f64().expect("a number") >= grant.expires_unix_s as f64);
    assert_eq!(claims["limits"]["opsPerMinute"], grant.limits.ops_per_minute);
    assert_eq!(claims["limits"]["maxConnections"], grant.limits.connections_max);
}
