//! From when until when a certificate is valid: the one thing that is read of X.509 here, only to warn.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use crate::time::calendar::days_of;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// How long before its end a certificate is worth a warning.
const SOON_S: i64 = 7 * 86_400;

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: i64,
    pub until: i64,
}

impl Validity {
    /// RFC 5280 section 4.1; `None` if the certificate has another form.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut certificate = element(&mut certificate.as_ref(), SEQUENCE)?;
        let mut signed = element(&mut certificate, SEQUENCE)?;
        let mut without_version = signed;
        if element(&mut without_version, VERSION).is_some() {
            signed = without_version;
        }
        element(&mut signed, INTEGER)?; // serial number
        element(&mut signed, SEQUENCE)?; // signature algorithm
        element(&mut signed, SEQUENCE)?; // issuer
        let mut validity = element(&mut signed, SEQUENCE)?;
        Some(Self { from: time(&mut validity)?, until: time(&mut validity)? })
    }

    /// What an operator should hear of it.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
        let days = |seconds: i64| seconds / 86_400;
        if now >= self.until {
            return Some(format!("it expired {} days ago: clients refuse it", days(now - self.until)));
        }
        if now < self.from {
            return Some(format!("it is valid only in {} days: clients refuse it", days(self.from - now)));
        }
        (self.until - now < SOON_S).then(|| format!("it expires in {} days", days(self.until - now)))
    }
}

/// The contents of the DER element at the front, which is taken off, if it has this tag.
fn element<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, behind) = rest.split_first()?;
    let (&first, mut behind) = behind.split_first()?;
    if found != tag {
        return None;
    }
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, contents) = behind.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit));
        behind = contents;
    }
    let (contents, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(contents)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(rest: &mut &[u8]) -> Option<i64> {
    let (text, century) = match rest.first() {
        Some(&UTC_TIME) => (element(rest, UTC_TIME)?, None),
        _ => {
            let (century, text) = element(rest, GENERALIZED_TIME)?.split_at_checked(2)?;
            (text, Some(number(century)? * 100))
        }
    };
    if text.len() != 13 || text[12] != b'Z' {
        return None;
    }
    let mut pairs = text[..12].chunks(2).map(number);
    let mut next = || pairs.next().flatten();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    // RFC 5280 section 4.1.2.5.1: two digits from 50 on are of the last century.
    let year = year + century.unwrap_or(if year < 50 { 2000 } else { 1900 });
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let validity = Validity::of(&certificate((1999, 12, 31), (2024, 2, 29))).unwrap();
        assert_eq!(validity, Validity { from: 946_598_400, until: 1_709_164_800 });
        let validity = Validity::of(&certificate((2000, 3, 1), (4096, 1, 1))).unwrap();
        assert_eq!(validity, Validity { from: 951_868_800, until: 67_090_118_400 });
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        for length in 0..whole.len() {
            assert_eq!(Validity::of(&CertificateDer::from(&whole[..length])), None, "{length}");
        }
    }

    #[test]
    fn warnings_come_before_the_end_and_after_it() {
        let validity = Validity { from: 1_000 * 86_400, until: 1_100 * 86_400 };
        let at = |day: u64| validity.warning(UNIX_EPOCH + Duration::from_secs(day * 86_400));
        assert_eq!(at(1_050), None);
        assert!(at(990).unwrap().contains("valid only in 10 days"));
        assert!(at(1_095).unwrap().contains("expires in 5 days"));
        assert!(at(1_100).unwrap().contains("expired 0 days ago"));
    }
}
