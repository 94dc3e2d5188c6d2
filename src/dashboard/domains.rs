//! The one parser of allowed domains: what people write into the form, as tokens carry it.
//!
//! `https://MyApp.com/` becomes `myapp.com`. What comes out is what `auth::origin` compares a page's host with, so
//! nothing that it could never equal is let in: no path, no wildcard, no user, no Unicode (write `xn--…`).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host with or without a port, lower-cased.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedDomain(String);

/// Why a text is no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("an allowed domain is empty; write one such as myapp.com, or leave it out")]
    Empty,
    #[error("{0:?} has a path; write just the host, such as myapp.com")]
    Path(String),
    #[error("{0:?} has a wildcard; each host must be named, because tokens are compared with whole hosts")]
    Wildcard(String),
    #[error("{0:?} is not in ASCII; write the xn-- form that browsers send")]
    Unicode(String),
    #[error("{0:?} has no port from 1 to 65535 after its colon")]
    Port(String),
    #[error("{0:?} is no host name; write one such as myapp.com or localhost:3000")]
    Host(String),
}

impl AllowedDomain {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AllowedDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AllowedDomain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let written = || text.chars().take(100).collect::<String>();
        let lower = text.trim().to_lowercase();
        let bare = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://")).unwrap_or(&lower);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if lower.is_empty() {
            return Err(DomainError::Empty);
        }
        if bare.contains(['/', '?', '#']) {
            return Err(DomainError::Path(written()));
        }
        if bare.contains('*') {
            return Err(DomainError::Wildcard(written()));
        }
        if !bare.is_ascii() {
            return Err(DomainError::Unicode(written()));
        }
        let (host, port) = match bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                address.parse::<Ipv6Addr>().map_err(|_| DomainError::Host(written()))?;
                match rest.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if rest.is_empty() => (None, None),
                    None => return Err(DomainError::Host(written())),
                }
            }
            None => match bare.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(bare), None),
            },
        };
        if let Some(port) = port
            && !(port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0))
        {
            return Err(DomainError::Port(written()));
        }
        if host.is_some_and(|host| !is_host(host)) {
            return Err(DomainError::Host(written()));
        }
        Ok(Self(bare.to_owned()))
    }
}

/// RFC 1123 labels; a single label only if it is `localhost`, because no page on the internet has such a host.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(inner)
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    host.len() <= 253 && host.split('.').all(is_label) && (host == "localhost" || host.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_slash_and_case_go() {
        for (written, kept) in [
            ("https://MyApp.com/", "myapp.com"),
            ("http://a.b-c.example", "a.b-c.example"),
            (" myapp.com:8443 ", "myapp.com:8443"),
            ("localhost", "localhost"),
            ("http://localhost:3000/", "localhost:3000"),
            ("127.0.0.1:5173", "127.0.0.1:5173"),
            ("[::1]:80", "[::1]:80"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
        ] {
            assert_eq!(
                written.parse::<AllowedDomain>().map(|domain| domain.0),
                Ok(kept.to_owned()),
                "{written}"
            );
        }
    }

    #[test]
    fn what_no_origin_can_equal_is_refused() {
        for text in [
            "",
            "https://",
            "myapp.com/app",
            "myapp.com?x",
            "*.myapp.com",
            "müller.example",
            "myapp",
            "my app.com",
            "a..b",
            "-a.com",
            "a-.com",
            "user@a.com",
            "a.com:",
            "a.com:0",
            "a.com:99999",
            "a.com:+1",
            "ftp://a.com",
            "[::1",
            "[::g]",
            "[::1]x",
            "null",
            "https://https://a.com",
        ] {
            assert!(text.parse::<AllowedDomain>().is_err(), "{text}");
        }
        assert!(format!("{}.com", "a".repeat(64)).parse::<AllowedDomain>().is_err());
    }
}
