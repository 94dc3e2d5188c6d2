//! Randomness: the operating system's, drawn in this one place. (RSA key generation, in `auth::sign`, draws its own.)

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

/// So many random bytes.
///
/// # Panics
/// If the operating system gives none: nothing can be done safely then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[must_use]
pub fn guid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// 256 random bits behind a prefix that tells a reader (and a scanner of leaked secrets) what it is.
#[must_use]
pub fn secret(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes::<32>()))
}

/// 20 lower-case letters and digits that can't be misread, about 96 bits: for names that people copy by hand.
#[must_use]
pub fn word() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz123456789";
    bytes::<20>().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// How a secret of [`secret`] is stored: SHA-256. argon2id is for passwords, which people choose and which can
/// therefore be guessed; 256 random bits can't, so slowness would add nothing but load on the token endpoint.
#[must_use]
pub fn fingerprint(secret: &str) -> String {
    fingerprint_of(secret.as_bytes())
}

/// SHA-256 of bytes, as text.
#[must_use]
pub fn fingerprint_of(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}

/// Compares in a time that depends on the lengths alone.
#[must_use]
pub fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let secrets: Vec<_> = (0..100).map(|_| secret("x_")).collect();
        assert!(secrets.iter().all(|secret| secret.len() == 45 && secret.starts_with("x_")));
        let distinct: std::collections::BTreeSet<_> = secrets.iter().collect();
        assert_eq!(distinct.len(), secrets.len());
        assert_eq!(word().len(), 20);
    }

    #[test]
    fn only_equal_texts_are_the_same() {
        assert!(is_same("abc", "abc") && !is_same("abc", "abd") && !is_same("abc", "ab") && is_same("", ""));
    }
}
