//! The URLs of the configuration. They are checked for what this program needs of them, and otherwise kept as written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use uuid::Uuid;

/// Stands for the tenant in [`JwksUrl`].
const TENANT_PLACEHOLDER: &str = "{tenantId}";

/// Why a text is not the URL that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it does not start with {0}")]
    Scheme(&'static str),
    #[error("it names no host")]
    Host,
    #[error("it holds a blank or a control character")]
    Blank,
    #[error("it carries user information, which belongs in no URL that is handed out or logged")]
    UserInformation,
    #[error("it has a query or a fragment")]
    Query,
    #[error("it does not hold {TENANT_PLACEHOLDER}, which stands for the tenant")]
    NoTenant,
}

/// Where clients reach a node: `ws://` or `wss://`, without a slash at its end, so that `/<document>` follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketUrl(String);

/// Who signs tokens, compared with their `iss` byte by byte and therefore kept exactly as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(String);

/// Where the dashboard is reached, without a slash at its end, so that a path follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardUrl(String);

/// Where a tenant's keys are, with `{tenantId}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl(String);

impl WebSocketUrl {
    /// The address as a client on this host reaches it.
    pub(super) fn of(address: SocketAddr, encrypted: bool) -> Self {
        Self(format!("{}://{}", if encrypted { "wss" } else { "ws" }, reachable(address)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Issuer {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self(format!("http://{}", reachable(address)))
    }

    /// Before a file has named one. Equals no issuer that can be parsed.
    pub(super) fn unset() -> Self {
        Self(String::new())
    }

    pub(super) fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DashboardUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl JwksUrl {
    #[must_use]
    pub fn for_tenant(&self, tenant: Uuid) -> String {
        self.0.replace(TENANT_PLACEHOLDER, &tenant.to_string())
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// Loopback in place of an unspecified address, which nobody can connect to.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What all URLs here have in common: one of two schemes, a host, no blanks, no user.
fn check(text: &str, schemes: [&'static str; 2], named: &'static str) -> Result<(), UrlError> {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or(UrlError::Scheme(named))?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(UrlError::Blank);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlError::UserInformation);
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(UrlError::Host);
    }
    Ok(())
}

impl FromStr for WebSocketUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        check(text, ["wss://", "ws://"], "wss:// or ws://")?;
        if text.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for Issuer {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        check(text, ["https://", "http://"], "https:// or http://")?;
        // RFC 8414 section 2: an issuer has neither
        if text.contains(['?', '#']) { Err(UrlError::Query) } else { Ok(Self(text.to_owned())) }
    }
}

impl FromStr for DashboardUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        check(text, ["https://", "http://"], "https:// or http://")?;
        if text.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for JwksUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        check(text, ["https://", "http://"], "https:// or http://")?;
        if text.contains(TENANT_PLACEHOLDER) { Ok(Self(text.to_owned())) } else { Err(UrlError::NoTenant) }
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DashboardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_one_that_a_document_can_follow() {
        assert_eq!("wss://a.example/".parse::<WebSocketUrl>().unwrap().as_str(), "wss://a.example");
        assert_eq!("https://a.example".parse::<WebSocketUrl>(), Err(UrlError::Scheme("wss:// or ws://")));
        assert_eq!("wss://a.example?x=1".parse::<WebSocketUrl>(), Err(UrlError::Query));
        assert_eq!("wss:///path".parse::<WebSocketUrl>(), Err(UrlError::Host));
        assert_eq!("wss://user@a.example".parse::<WebSocketUrl>(), Err(UrlError::UserInformation));
    }

    #[test]
    fn an_issuer_is_kept_to_the_byte() {
        assert_eq!("https://Auth.example/".parse::<Issuer>().unwrap().as_str(), "https://Auth.example/");
        assert_eq!("https://auth example".parse::<Issuer>(), Err(UrlError::Blank));
        assert!("auth.example".parse::<Issuer>().is_err());
    }

    #[test]
    fn the_tenant_goes_where_the_template_says() {
        let url: JwksUrl = "https://a.example/{tenantId}/.well-known/jwks".parse().unwrap();
        let tenant = Uuid::nil();
        assert_eq!(url.for_tenant(tenant), format!("https://a.example/{tenant}/.well-known/jwks"));
        assert_eq!("https://a.example/jwks".parse::<JwksUrl>(), Err(UrlError::NoTenant));
    }
}
