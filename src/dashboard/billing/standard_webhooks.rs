//! Signatures of webhooks as the Standard Webhooks specification has them: HMAC-SHA256 over `id.timestamp.body`.
//!
//! - Several secrets may be good at once, and a delivery may carry several signatures: that is how a secret is rotated.
//! - A timestamp that is more than [`TOLERANCE_S`] off refuses the delivery. Together with ids that count once, an
//!   overheard delivery is worth nothing.
//! - ring compares in constant time.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// How far a delivery's clock may be from ours, either way.
pub const TOLERANCE_S: i64 = 300;
const ID_BYTES_MAX: usize = 256;
/// Signatures of one delivery that are looked at.
const SIGNATURES_MAX: usize = 16;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What a provider and we share.
#[derive(Clone)]
pub struct Secret(hmac::Key);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and then 24 to 64 bytes in base64")]
pub struct SecretError;

/// A delivery's headers and its body, as they came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`
    pub signature: &'a str,
    pub body: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the webhook-id header must be 1 to {ID_BYTES_MAX} characters")]
    Id,
    #[error("the webhook-timestamp header must be seconds since 1970")]
    Timestamp,
    #[error("the webhook's timestamp is more than {TOLERANCE_S} seconds from this clock's time")]
    TooFar,
    #[error(
        "no signature in the webhook-signature header is v1 and made with a secret that is configured here"
    )]
    Signature,
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| SecretError)?;
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
        } else {
            Err(SecretError)
        }
    }
}

impl Secret {
    /// The signature of a delivery at this time: what goes into `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, unix_s: i64, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, &signed(id, &unix_s.to_string(), body));
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// Whether a delivery comes from whoever has one of the secrets, just now.
///
/// # Errors
/// [`SignatureError`] names the check that failed.
pub fn verify(secrets: &[Secret], delivery: &Delivery<'_>, now: i64) -> Result<(), SignatureError> {
    if !(1..=ID_BYTES_MAX).contains(&delivery.id.len()) {
        return Err(SignatureError::Id);
    }
    let is_number =
        !delivery.timestamp.is_empty() && delivery.timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let sent: i64 = delivery.timestamp.parse().ok().filter(|_| is_number).ok_or(SignatureError::Timestamp)?;
    if sent.abs_diff(now) > TOLERANCE_S.unsigned_abs() {
        return Err(SignatureError::TooFar);
    }
    let text = signed(delivery.id, delivery.timestamp, delivery.body);
    let given = delivery.signature.split(' ').take(SIGNATURES_MAX);
    let given = given.filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok());
    for tag in given {
        if secrets.iter().any(|secret| hmac::verify(&secret.0, &text, &tag).is_ok()) {
            return Ok(());
        }
    }
    Err(SignatureError::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const OTHER: &str = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";

    fn check(
        secrets: &[&str],
        id: &str,
        timestamp: &str,
        signature: &str,
        now: i64,
    ) -> Result<(), SignatureError> {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| secret.parse().unwrap()).collect();
        verify(&secrets, &Delivery { id, timestamp, signature, body: BODY }, now)
    }

    fn signed_with(signature: &str) -> Result<(), SignatureError> {
        check(&[SECRET], ID, "1614265330", signature, AT)
    }

    #[test]
    fn the_specifications_vector_verifies() {
        assert_eq!(SECRET.parse::<Secret>().unwrap().sign(ID, AT, BODY), SIGNATURE);
        assert_eq!(signed_with(SIGNATURE), Ok(()));
        let unbranded = SECRET.trim_start_matches("whsec_");
        assert_eq!(check(&[unbranded], ID, "1614265330", SIGNATURE, AT), Ok(()));
    }

    #[test]
    fn one_good_signature_of_several_is_enough() {
        let v2 = OTHER.replace("v1,", "v2,");
        assert_eq!(signed_with(&format!("{OTHER} {v2} {SIGNATURE} {OTHER}")), Ok(()));
        assert_eq!(signed_with(&format!("{OTHER} {v2}")), Err(SignatureError::Signature));
    }

    #[test]
    fn an_old_and_a_new_secret_are_good_at_once() {
        let new = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(check(&[new, SECRET], ID, "1614265330", SIGNATURE, AT), Ok(()));
        assert_eq!(check(&[new], ID, "1614265330", SIGNATURE, AT), Err(SignatureError::Signature));
    }

    #[test]
    fn a_part_of_a_signature_is_none() {
        for bad in [
            "",
            "v1,",
            &SIGNATURE[..8],
            "v1,dawfeoifkpqwoekfpqoekf",
            &SIGNATURE[3..],
            &SIGNATURE.replace("v1", "v1a"),
        ] {
            assert_eq!(signed_with(bad), Err(SignatureError::Signature), "{bad:?}");
        }
    }

    #[test]
    fn everything_that_is_signed_counts() {
        let refused = Err(SignatureError::Signature);
        assert_eq!(check(&[SECRET], "msg_other", "1614265330", SIGNATURE, AT), refused);
        assert_eq!(check(&[SECRET], ID, "1614265331", SIGNATURE, AT), refused);
        let secrets = [SECRET.parse().unwrap()];
        let delivery = Delivery { id: ID, timestamp: "1614265330", signature: SIGNATURE, body: b"{}" };
        assert_eq!(verify(&secrets, &delivery, AT), refused);
    }

    #[test]
    fn five_minutes_either_way_are_tolerated() {
        for (now, expected) in [
            (AT - 301, Err(SignatureError::TooFar)),
            (AT - 300, Ok(())),
            (AT + 300, Ok(())),
            (AT + 301, Err(SignatureError::TooFar)),
        ] {
            assert_eq!(check(&[SECRET], ID, "1614265330", SIGNATURE, now), expected, "{now}");
        }
    }

    #[test]
    fn headers_that_are_missing_or_no_numbers_are_named() {
        assert_eq!(check(&[SECRET], "", "1614265330", SIGNATURE, AT), Err(SignatureError::Id));
        for timestamp in ["", "hello", "-1", "+1614265330", "99999999999999999999"] {
            assert_eq!(check(&[SECRET], ID, timestamp, SIGNATURE, AT), Err(SignatureError::Timestamp));
        }
    }

    #[test]
    fn a_secret_is_neither_short_nor_shown() {
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "not base64!"] {
            assert_eq!(bad.parse::<Secret>().unwrap_err(), SecretError, "{bad:?}");
        }
        assert_eq!(format!("{:?}", SECRET.parse::<Secret>().unwrap()), "Secret");
    }
}
