//! The signing side: private keys and the tokens they make, for tests, the dev server and `wiresocket token`.
//!
//! This file is the one of `auth` that is not pure: [`SigningKey::generate`] draws from the operating system's
//! randomness. No verifying code uses it, and no data shard may: a signature takes about a millisecond. Deliberately
//! absent: any opinion on claims (`crate::mint` has some), files, and the sealing of private keys.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaEncoding, RsaKeyPair};
use ring::{digest, error};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use serde_json::{Value, json};

use super::keys::{Key, KeyError};

/// The size of new keys.
const GENERATED_BITS: usize = 2048;

/// A private RSA key that signs RS256.
pub struct SigningKey {
    private: RsaPrivateKey,
    pair: RsaKeyPair,
}

/// What went wrong with a private key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("could not generate an RSA key: {0}")]
    Generate(#[source] rsa::Error),
    #[error("the private key is encrypted; decrypt it first, e.g. with `openssl pkey -in KEY -out PLAIN`")]
    Encrypted,
    #[error(
        "this is no private key in PEM; use a PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY) file"
    )]
    NotPem,
    #[error("could not read the PKCS#8 private key: {0}")]
    Pkcs8(#[from] rsa::pkcs8::Error),
    #[error("could not read the PKCS#1 private key: {0}")]
    Pkcs1(#[from] rsa::pkcs1::Error),
    #[error("the private key can't sign tokens ({0}); use an RSA key of 2048 to 4096 bits")]
    Unusable(error::KeyRejected),
    #[error("could not sign the token")]
    Sign,
}

impl SigningKey {
    /// A new RSA-2048 key. Takes from a tenth of a second to seconds.
    ///
    /// # Errors
    /// [`SigningKeyError::Generate`] if the generator fails.
    pub fn generate() -> Result<Self, SigningKeyError> {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, GENERATED_BITS);
        Self::new(private.map_err(SigningKeyError::Generate)?)
    }

    /// Reads PKCS#8 or PKCS#1 PEM, not encrypted.
    ///
    /// # Errors
    /// [`SigningKeyError`] says what the text is instead, or why the key can't sign.
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let pem = pem.trim();
        if pem.contains("ENCRYPTED") {
            return Err(SigningKeyError::Encrypted);
        }
        if pem.starts_with("-----BEGIN PRIVATE KEY-----") {
            Self::new(RsaPrivateKey::from_pkcs8_pem(pem)?)
        } else if pem.starts_with("-----BEGIN RSA PRIVATE KEY-----") {
            Self::new(RsaPrivateKey::from_pkcs1_pem(pem)?)
        } else {
            Err(SigningKeyError::NotPem)
        }
    }

    fn new(private: RsaPrivateKey) -> Result<Self, SigningKeyError> {
        let der = private.to_pkcs8_der()?;
        let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).map_err(SigningKeyError::Unusable)?;
        Ok(Self { private, pair })
    }

    /// The private key as PKCS#8 PEM. Whoever has it can make tokens.
    ///
    /// # Errors
    /// [`SigningKeyError::Pkcs8`] if it can't be encoded.
    pub fn to_pkcs8_pem(&self) -> Result<String, SigningKeyError> {
        Ok(self.private.to_pkcs8_pem(LineEnding::LF)?.to_string())
    }

    /// The private key as PKCS#1 PEM. Whoever has it can make tokens.
    ///
    /// # Errors
    /// [`SigningKeyError::Pkcs1`] if it can't be encoded.
    pub fn to_pkcs1_pem(&self) -> Result<String, SigningKeyError> {
        Ok(self.private.to_pkcs1_pem(LineEnding::LF)?.to_string())
    }

    /// The default `kid`: the public key's thumbprint (RFC 7638, SHA-256).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let (n, e) = self.public_parts();
        thumbprint(&n, &e)
    }

    /// `n` and `e`, base64url.
    fn public_parts(&self) -> (String, String) {
        let (n, e) = self.public_bytes();
        (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e))
    }

    fn public_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(self.pair.public());
        (public.n, public.e)
    }

    /// The public half, ready for a [`super::KeySets`].
    ///
    /// # Errors
    /// [`KeyError::KeyId`] if `key_id` is empty or too long.
    pub fn public_key(&self, key_id: &str) -> Result<Key, KeyError> {
        let (n, e) = self.public_bytes();
        Key::new(key_id, &n, &e)
    }

    /// The public half as a JWK (RFC 7517).
    #[must_use]
    pub fn public_jwk(&self, key_id: &str) -> Value {
        let (n, e) = self.public_parts();
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id, "n": n, "e": e })
    }

    /// A JWKS document with just this key.
    #[must_use]
    pub fn jwks(&self, key_id: &str) -> Value {
        json!({ "keys": [self.public_jwk(key_id)] })
    }

    /// A token with these claims, as they are.
    ///
    /// # Errors
    /// [`SigningKeyError::Sign`] if the signature can't be made.
    pub fn sign(&self, key_id: &str, claims: &Value) -> Result<String, SigningKeyError> {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id });
        self.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// A token of any header and payload, well-formed or not, signed RS256 whatever the header says.
    ///
    /// # Errors
    /// [`SigningKeyError::Sign`] if the signature can't be made.
    pub fn sign_raw(&self, header: &[u8], payload: &[u8]) -> Result<String, SigningKeyError> {
        let mut token = String::new();
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.signature(&RSA_PKCS1_SHA256, token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub(super) fn signature(
        &self,
        padding: &'static dyn RsaEncoding,
        message: &[u8],
    ) -> Result<Vec<u8>, SigningKeyError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let signed = self.pair.sign(padding, &SystemRandom::new(), message, &mut signature);
        signed.map_err(|error::Unspecified| SigningKeyError::Sign)?;
        Ok(signature)
    }
}

impl fmt::Debug for SigningKey {
    /// Only what is public.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("thumbprint", &self.thumbprint()).finish_non_exhaustive()
    }
}

/// RFC 7638 of a public RSA key, `n` and `e` in base64url.
fn thumbprint(n: &str, e: &str) -> String {
    // Members in lexicographic order, no spaces: section 3.2. Base64url needs no escapes.
    let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::parse_jwks;
    use crate::auth::refusal_tests::SIGNER;

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        // RFC 7638 section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXj\
                 BZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJ\
                 ZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniI\
                 qbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        assert_eq!(thumbprint(n, "AQAB"), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_survives_both_kinds_of_pem() {
        for pem in [SIGNER.to_pkcs8_pem().unwrap(), SIGNER.to_pkcs1_pem().unwrap()] {
            let key = SigningKey::from_pem(&format!("\n{pem}\n")).unwrap();
            assert_eq!(key.thumbprint(), SIGNER.thumbprint());
            let token = key.sign("k", &json!({})).unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let public = &parse_jwks(SIGNER.jwks("k").to_string().as_bytes()).unwrap()[0];
            assert!(public.verifies(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
        }
    }

    #[test]
    fn what_can_not_sign_is_refused() {
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----";
        assert!(matches!(SigningKey::from_pem(encrypted), Err(SigningKeyError::Encrypted)));
        for text in ["", "{}", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"] {
            assert!(matches!(SigningKey::from_pem(text), Err(SigningKeyError::NotPem)), "{text}");
        }
        let pem = SIGNER.to_pkcs8_pem().unwrap();
        assert!(matches!(SigningKey::from_pem(&pem[..400]), Err(SigningKeyError::Pkcs8(_))));
        let weak = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
        let weak = weak.to_pkcs8_pem(LineEnding::LF).unwrap();
        assert!(matches!(SigningKey::from_pem(&weak), Err(SigningKeyError::Unusable(_))));
    }

    #[test]
    fn what_is_shown_of_a_key_is_public() {
        let shown = format!("{:?}", *SIGNER);
        assert_eq!(shown, format!("SigningKey {{ thumbprint: {:?}, .. }}", SIGNER.thumbprint()));
        let jwk = SIGNER.public_jwk("k");
        let members: Vec<_> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    }
}
