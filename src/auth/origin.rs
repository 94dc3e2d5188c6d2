//! Which web pages may use a token: its allowed domains against the request's `Origin` (RFC 6454).
//!
//! Invariants: hosts are compared whole, never by suffix, and without case; a port counts only where the claim has one;
//! once a token names a domain, an Origin that can't be read lets nobody in. Deliberately absent: host names in Unicode
//! (browsers send them as `xn--…`), wildcards, and any view on the scheme beyond its default port: `https`,
//! `capacitor` and `tauri` pages are told apart by host alone, as the claim is.

use std::net::Ipv6Addr;

use crate::protocol::close::Refusal;

/// Why a request's Origin is refused. The text becomes the reason of close code 4003.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("Origin header is required")]
    Missing,
    #[error("Origin header is malformed")]
    Malformed,
    #[error("Origin is not among the allowed domains")]
    NotAllowed,
}

impl From<OriginError> for Refusal {
    fn from(error: OriginError) -> Self {
        Self::Forbidden(error.to_string().into())
    }
}

/// May a page of this origin use a token with these domains (lower-cased, as [`super::Grant`] holds them)?
///
/// # Errors
/// [`OriginError`], close code 4003. A header that is not UTF-8 should be handed in as `Some("")`.
pub fn check(
    allowed_domains: &[Box<str>],
    origin: Option<&str>,
    require_origin: bool,
) -> Result<(), OriginError> {
    let Some(origin) = origin else {
        return if require_origin { Err(OriginError::Missing) } else { Ok(()) };
    };
    if allowed_domains.is_empty() {
        return Ok(());
    }
    let page = Authority::of_origin(origin).ok_or(OriginError::Malformed)?;
    let allowed = allowed_domains.iter().filter_map(|domain| Authority::parse(domain));
    if allowed.into_iter().any(|claim| page.is_within(&claim)) {
        Ok(())
    } else {
        Err(OriginError::NotAllowed)
    }
}

#[derive(Debug, Clone, Copy)]
enum Host<'a> {
    /// A name or an IPv4 address, in ASCII.
    Name(&'a str),
    Ipv6(Ipv6Addr),
}

#[derive(Debug, Clone, Copy)]
struct Authority<'a> {
    host: Host<'a>,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `scheme://host[:port]`, the only form a browser sends besides `null`.
    fn of_origin(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let mut characters = scheme.bytes();
        let starts_well = characters.next()?.is_ascii_alphabetic();
        let follows = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !starts_well || !characters.all(follows) {
            return None;
        }
        let written = Self::parse(authority)?;
        // Browsers leave the scheme's own port out.
        let default = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => Some(443),
            "http" | "ws" => Some(80),
            _ => None,
        };
        Some(Self { port: written.port.or(default), ..written })
    }

    /// `host[:port]`, with nothing before or after.
    fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (address, rest) = bracketed.split_once(']')?;
                (Host::Ipv6(address.parse().ok()?), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                if name.is_empty() || !name.bytes().all(allowed) {
                    return None;
                }
                (Host::Name(name), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            // `parse` alone would also take a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }

    fn is_within(&self, claim: &Authority<'_>) -> bool {
        let same_host = match (self.host, claim.host) {
            (Host::Name(page), Host::Name(allowed)) => page.eq_ignore_ascii_case(allowed),
            (Host::Ipv6(page), Host::Ipv6(allowed)) => page == allowed,
            _ => false,
        };
        same_host && (claim.port.is_none() || claim.port == self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Result<(), OriginError> = Ok(());
    const MALFORMED: Result<(), OriginError> = Err(OriginError::Malformed);
    const NOT_ALLOWED: Result<(), OriginError> = Err(OriginError::NotAllowed);

    fn domains(list: &str) -> Vec<Box<str>> {
        list.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn an_origin_must_equal_an_allowed_domain() {
        let long_label = format!("https://{}.com", "a".repeat(5000));
        let rows: &[(&str, &str, Result<(), OriginError>)] = &[
            // the same host
            ("myapp.com", "https://myapp.com", OK),
            ("myapp.com", "http://myapp.com", OK),
            ("myapp.com", "https://MyApp.COM", OK),
            ("myapp.com", "HTTPS://myapp.com", OK),
            ("myapp.com", "https://myapp.com:8443", OK),
            ("a.com b.com myapp.com", "https://myapp.com", OK),
            ("localhost", "http://localhost:5173", OK),
            ("localhost", "capacitor://localhost", OK),
            ("127.0.0.1", "http://127.0.0.1:9", OK),
            ("my_app.internal", "http://my_app.internal", OK),
            ("xn--bcher-kva.example", "https://xn--bcher-kva.example", OK),
            // with its port where the claim has one
            ("localhost:3000", "http://localhost:3000", OK),
            ("localhost:3000", "http://localhost:3001", NOT_ALLOWED),
            ("localhost:3000", "http://localhost", NOT_ALLOWED),
            ("localhost:3000", "capacitor://localhost", NOT_ALLOWED),
            ("myapp.com:443", "https://myapp.com", OK),
            ("myapp.com:443", "https://myapp.com:443", OK),
            ("myapp.com:443", "http://myapp.com", NOT_ALLOWED),
            ("myapp.com:80", "http://myapp.com", OK),
            // IPv6 literals
            ("[::1]", "http://[::1]:3000", OK),
            ("[::1]:3000", "http://[::1]:3000", OK),
            ("[::1]:3000", "http://[::1]", NOT_ALLOWED),
            ("[0:0:0:0:0:0:0:1]", "http://[::1]", OK),
            ("[2001:db8::a]", "http://[2001:DB8::A]", OK),
            ("[2001:db8::a]", "http://[2001:db8::b]", NOT_ALLOWED),
            ("::1", "http://[::1]", NOT_ALLOWED),
            ("[::1]", "http://::1", MALFORMED),
            ("[::1]", "http://[::1", MALFORMED),
            ("[::1]", "http://[::1]x", MALFORMED),
            ("[::1]", "http://[]", MALFORMED),
            ("[fe80::1]", "http://[fe80::1%25eth0]", MALFORMED),
            // no suffix, prefix or wildcard matching
            ("myapp.com", "https://evil-myapp.com", NOT_ALLOWED),
            ("myapp.com", "https://www.myapp.com", NOT_ALLOWED),
            ("myapp.com", "https://myapp.com.evil.net", NOT_ALLOWED),
            ("myapp.com", "https://myapp.com.", NOT_ALLOWED),
            ("myapp.com", "https://myapp.co", NOT_ALLOWED),
            ("*.myapp.com", "https://www.myapp.com", NOT_ALLOWED),
            ("*", "https://myapp.com", NOT_ALLOWED),
            ("www.myapp.com", "https://myapp.com", NOT_ALLOWED),
            // claims that are no host open nothing
            ("https://myapp.com", "https://myapp.com", NOT_ALLOWED),
            ("myapp.com/", "https://myapp.com", NOT_ALLOWED),
            ("myapp.com:", "https://myapp.com", NOT_ALLOWED),
            ("null", "null", MALFORMED),
            // origins that are none
            ("myapp.com", "null", MALFORMED),
            ("myapp.com", "", MALFORMED),
            ("myapp.com", "myapp.com", MALFORMED),
            ("myapp.com", "//myapp.com", MALFORMED),
            ("myapp.com", "://myapp.com", MALFORMED),
            ("myapp.com", "https:myapp.com", MALFORMED),
            ("myapp.com", "https:/myapp.com", MALFORMED),
            ("myapp.com", "https:///myapp.com", MALFORMED),
            ("myapp.com", "https://", MALFORMED),
            ("myapp.com", "1https://myapp.com", MALFORMED),
            ("myapp.com", "ht tps://myapp.com", MALFORMED),
            ("myapp.com", "https://myapp.com/", MALFORMED),
            ("myapp.com", "https://myapp.com/path", MALFORMED),
            ("myapp.com", "https://myapp.com?query", MALFORMED),
            ("myapp.com", "https://myapp.com#fragment", MALFORMED),
            ("myapp.com", "https://evil.net\\@myapp.com", MALFORMED),
            ("myapp.com", "https://user@myapp.com", MALFORMED),
            ("myapp.com", "https://user:secret@myapp.com", MALFORMED),
            ("myapp.com", "https://myapp.com@evil.net", MALFORMED),
            ("myapp.com", "https://myapp.com:", MALFORMED),
            ("myapp.com", "https://myapp.com:+80", MALFORMED),
            ("myapp.com", "https://myapp.com:65536", MALFORMED),
            ("myapp.com", "https://myapp.com:80:80", MALFORMED),
            ("myapp.com", "https://myapp.com:x", MALFORMED),
            ("myapp.com", " https://myapp.com", MALFORMED),
            ("myapp.com", "https://myapp.com ", MALFORMED),
            ("myapp.com", "https://myapp.com https://evil.net", MALFORMED),
            ("myapp.com", "https://myapp.com, https://evil.net", MALFORMED),
            ("myapp.com", "https://myapp%2ecom", MALFORMED),
            ("myapp.com", "https://myapp.com\0", MALFORMED),
            ("bücher.example", "https://bücher.example", MALFORMED),
            ("myapp.com", "https://myаpp.com", MALFORMED), // a Cyrillic letter
            ("myapp.com", &long_label, NOT_ALLOWED),
        ];
        assert!(rows.len() > 40);
        for (claim, origin, expected) in rows {
            assert_eq!(check(&domains(claim), Some(origin), false), *expected, "{claim} / {origin}");
            assert_eq!(check(&domains(claim), Some(origin), true), *expected, "{claim} / {origin}");
        }
    }

    #[test]
    fn a_token_without_domains_takes_any_origin() {
        for origin in ["https://any.example", "null", "", "garbage"] {
            assert_eq!(check(&[], Some(origin), true), OK);
        }
    }

    #[test]
    fn a_request_without_origin_passes_unless_one_is_required() {
        for claim in ["", "myapp.com"] {
            assert_eq!(check(&domains(claim), None, false), OK);
            assert_eq!(check(&domains(claim), None, true), Err(OriginError::Missing));
        }
    }

    #[test]
    fn a_refused_origin_closes_with_4003() {
        let refusal = Refusal::from(OriginError::NotAllowed);
        assert_eq!(refusal.code(), 4003);
        assert_eq!(refusal.reason(), "Origin is not among the allowed domains");
    }
}
