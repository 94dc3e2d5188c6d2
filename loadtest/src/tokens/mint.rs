//! Tokens of our own making: RS256 (RFC 7518) over claims that the user has written.
//!
//! `iat`, `exp` and `jti` are ours; every other claim is signed as written.

use super::Issued;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Map, Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum MintError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} holds no private key that can be used: give an unencrypted PEM file, PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY)",
        path.display()
    )]
    Pem { path: PathBuf },
    #[error("the key in {} can't sign tokens: {reason}; use an RSA key of 2048 to 4096 bits", path.display())]
    Key { path: PathBuf, reason: ring::error::KeyRejected },
    #[error("the claims in {} are not a table (TOML) or an object (JSON): {reason}", path.display())]
    Claims { path: PathBuf, reason: String },
    #[error("cannot sign a token")]
    Sign,
}

pub struct Mint {
    key: RsaKeyPair,
    header: String,
    claims: Map<String, Value>,
    life: Duration,
    random: SystemRandom,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mint").field("header", &self.header).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Mint {
    /// `key_id` defaults to the key's thumbprint (RFC 7638). Claims are TOML if the file says so, else JSON.
    pub fn open(
        key_file: &Path,
        key_id: Option<&str>,
        claims_file: &Path,
        life: Duration,
    ) -> Result<Self, MintError> {
        let key = read_key(key_file)?;
        let key_id = key_id.map_or_else(|| thumbprint(&key), str::to_owned);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id }).to_string();
        Ok(Self { key, header, claims: read_claims(claims_file)?, life, random: SystemRandom::new() })
    }

    pub fn issue(&self) -> Result<Issued, MintError> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut id = [0; 16];
        self.random.fill(&mut id).map_err(|_| MintError::Sign)?;
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), now_s.into());
        claims.insert("exp".to_owned(), (now_s + self.life.as_secs()).into());
        claims.insert("jti".to_owned(), URL_SAFE_NO_PAD.encode(id).into());
        let payload = Value::Object(claims).to_string();
        let mut token =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(&self.header), URL_SAFE_NO_PAD.encode(payload));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &self.random, token.as_bytes(), &mut signature)
            .map_err(|_| MintError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Issued { token: token.into(), life: self.life, refresh_token: None })
    }
}

fn read_key(path: &Path) -> Result<RsaKeyPair, MintError> {
    let text = read(path)?;
    let not_pem = || MintError::Pem { path: path.to_owned() };
    let begin = text.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN "));
    let base64 = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let der = STANDARD.decode(base64.collect::<String>()).map_err(|_| not_pem())?;
    match begin {
        Some("PRIVATE KEY-----") => RsaKeyPair::from_pkcs8(&der),
        Some("RSA PRIVATE KEY-----") => RsaKeyPair::from_der(&der),
        _ => return Err(not_pem()),
    }
    .map_err(|reason| MintError::Key { path: path.to_owned(), reason })
}

fn read_claims(path: &Path) -> Result<Map<String, Value>, MintError> {
    let wrong = |reason: String| MintError::Claims { path: path.to_owned(), reason };
    let text = read(path)?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    } else {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}

fn read(path: &Path) -> Result<String, MintError> {
    std::fs::read_to_string(path).map_err(|source| MintError::Read { path: path.to_owned(), source })
}

fn thumbprint(key: &RsaKeyPair) -> String {
    let components: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
    let [e, n] = [components.e, components.n].map(|number| URL_SAFE_NO_PAD.encode(number));
    let members = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
    use rsa::pkcs8::{EncodePrivateKey, LineEnding};
    use std::sync::OnceLock;

    /// A new key, as PKCS#8 PEM: made once, because that takes a while.
    fn key() -> &'static str {
        static KEY: OnceLock<String> = OnceLock::new();
        KEY.get_or_init(|| {
            let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key");
            key.to_pkcs8_pem(LineEnding::LF).expect("PEM").to_string()
        })
    }

    fn mint(folder: &Path) -> Result<Mint, MintError> {
        let (key, claims) = (folder.join("key.pem"), folder.join("claims.toml"));
        std::fs::write(&key, self::key()).expect("written");
        std::fs::write(&claims, "sub = \"me\"\njti = \"mine\"\n[limits]\nmaxConnections = 3\n")
            .expect("written");
        Mint::open(&key, None, &claims, Duration::from_secs(60))
    }

    fn part(token: &str, place: usize) -> Value {
        let part = token.split('.').nth(place).expect("three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    }

    #[test]
    fn tokens_verify_and_each_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let mint = mint(folder.path()).expect("a mint");
        let (one, other) = (mint.issue().expect("signed").token, mint.issue().expect("signed").token);
        let (signed, signature) = one.rsplit_once('.').expect("three parts");
        let public: RsaPublicKeyComponents<Vec<u8>> = mint.key.public().into();
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).expect("verifies");
        let claims = part(&one, 1);
        assert_eq!((&claims["sub"], &claims["limits"]["maxConnections"]), (&"me".into(), &3.into()));
        assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|issued_s| issued_s + 60));
        assert_ne!(claims["jti"], part(&other, 1)["jti"]);
        // RFC 7638: the SHA-256 of the required members, in base64url.
        assert_eq!(part(&one, 0)["kid"].as_str().map(str::len), Some(43));
    }

    #[test]
    fn what_is_no_key_and_what_are_no_claims_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        mint(folder.path()).expect("a mint");
        let (key, claims) = (folder.path().join("key.pem"), folder.path().join("claims.json"));
        std::fs::write(&claims, "[1]").expect("written");
        let open = || Mint::open(&key, None, &claims, Duration::from_secs(60)).expect_err("refused");
        assert!(matches!(open(), MintError::Claims { .. }));
        std::fs::write(&key, "no key").expect("written");
        assert!(matches!(open(), MintError::Pem { .. }));
        std::fs::write(&key, self::key().replace("PRIVATE", "ENCRYPTED PRIVATE")).expect("written");
        assert!(matches!(open(), MintError::Pem { .. }));
    }
}
