//! Tenants, their keys and tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::auth::SigningKey;

/// What [`super::NodeSetup`] configures as the trusted issuer.
pub const ISSUER: &str = "https://auth.example.com";

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// Key number `n`, the same in every test. Making one takes up to seconds, so the target directory keeps them.
pub fn test_key(n: u32) -> Arc<SigningKey> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("test-key-{n}.pem"));
    if let Ok(pem) = std::fs::read_to_string(&path) {
        return Arc::new(SigningKey::from_pem(&pem).expect("the kept key is PEM"));
    }
    let key = SigningKey::generate().expect("a key");
    let pem = key.to_pkcs8_pem().expect("PEM");
    std::fs::create_dir_all(&dir).expect("the target directory can be written");
    let mut file = tempfile::NamedTempFile::new_in(&dir).expect("a temporary file");
    std::io::Write::write_all(&mut file, pem.as_bytes()).expect("the key is written");
    // Two tests may make it at once: the first one wins, and both go on with what is there.
    if file.persist_noclobber(&path).is_ok() {
        return Arc::new(key);
    }
    let pem = std::fs::read_to_string(&path).expect("the other test's key");
    Arc::new(SigningKey::from_pem(&pem).expect("the other test's key is PEM"))
}

/// A tenant with one key, `k<n>`, and one app.
#[derive(Clone)]
pub struct Tenant {
    pub id: Uuid,
    pub app: Uuid,
    pub key_id: String,
    pub key: Arc<SigningKey>,
}

impl Tenant {
    /// Tenant number `n`: its ids and its key are the same in every test.
    pub fn new(n: u32) -> Self {
        Self {
            id: Uuid::from_u128(0x7e4a_0000_0000_4000_8000_0000_0000_0000 + u128::from(n)),
            app: Uuid::from_u128(0xa440_0000_0000_4000_8000_0000_0000_0000 + u128::from(n)),
            key_id: format!("k{n}"),
            key: test_key(n),
        }
    }

    /// The same tenant with a second app.
    pub fn with_app(&self, n: u32) -> Self {
        let app = Uuid::from_u128(0xa441_0000_0000_4000_8000_0000_0000_0000 + u128::from(n));
        Self { app, ..self.clone() }
    }

    /// The same tenant, signing with key number `n`.
    pub fn with_key(&self, n: u32) -> Self {
        Self { key_id: format!("k{n}"), key: test_key(n), ..self.clone() }
    }

    /// A JWKS document with just this key.
    pub fn jwks(&self) -> Value {
        self.key.jwks(&self.key_id)
    }

    /// A valid token, good for an hour, with wide limits: change what the test is about.
    pub fn token(&self) -> Token {
        let now = unix_s();
        let claims = json!({
            "iss": ISSUER,
            "sub": "test-client",
            "aud": "WireSocket.API",
            "scope": "WireSocket.API",
            "tenantid": self.id,
            "appId": self.app,
            "licenseRegionCode": "aws-us-east-1",
            "dbCode": "shard-01-us-east-1",
            "limits": {
                "maxConnections": 1_000_000,
                "maxDocuments": 1_000_000,
                "maxUsersPerDoc": 1_000_000,
                "opsPerMinute": 1_000_000_000,
            },
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": Uuid::new_v4(),
        });
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        Token { key: Arc::clone(&self.key), header, claims }
    }
}

/// A JWKS document with the keys of all these (the tenant is what they have in common).
pub fn jwks_of<'a>(keys: impl IntoIterator<Item = &'a Tenant>) -> Value {
    let keys: Vec<Value> = keys.into_iter().map(|key| key.key.public_jwk(&key.key_id)).collect();
    json!({ "keys": keys })
}

/// A token in the making.
#[derive(Clone)]
pub struct Token {
    pub key: Arc<SigningKey>,
    pub header: Value,
    pub claims: Value,
}

impl Token {
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().expect("claims are an object").remove(name);
        self
    }

    pub fn limit(mut self, name: &str, value: u32) -> Self {
        self.claims["limits"][name] = value.into();
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    /// Expires so many seconds from now; before now if negative.
    pub fn expires_in(self, seconds: i64) -> Self {
        let at = unix_s().saturating_add_signed(seconds);
        self.claim("exp", at)
    }

    pub fn signed_by(mut self, key: Arc<SigningKey>) -> Self {
        self.key = key;
        self
    }

    pub fn build(&self) -> String {
        self.build_raw(&self.header.to_string(), &self.claims.to_string())
    }

    /// Signed whatever it says.
    pub fn build_raw(&self, header: &str, claims: &str) -> String {
        self.key.sign_raw(header.as_bytes(), claims.as_bytes()).expect("the token is signed")
    }
}
