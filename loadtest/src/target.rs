//! What is driven: the server's address, the protocol, and how the token is handed over.

use crate::redaction::redacted;
use crate::tokens::Tokens;
use crate::wire::Protocol;
use crate::wire::websocket::KEY;
use serde::Deserialize;
use std::fmt;
use std::io::{self, BufRead};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// How a client hands its token over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenForm {
    /// `?token=T`
    Query,
    /// `Sec-WebSocket-Protocol: access_token, T`
    Protocol,
    /// `Authorization: Bearer T`
    Header,
    /// Hocuspocus' Auth message.
    InBand,
}

#[derive(Debug, Error)]
pub enum TargetError {
    #[error(
        "{url:?} is no ws:// address: give ws://HOST:PORT, with a path if the server wants one, and without a user name"
    )]
    Url { url: String },
    #[error("{url:?} wants TLS, which the load tester doesn't speak: put it behind the proxy, on ws://")]
    Tls { url: String },
    #[error("{port:?} in {host:?} is no port: it must be a number from 1 to 65535")]
    Port { host: String, port: String },
    #[error(
        "--url is at {url}, but the token of --dev-json is for the server at {dev}: leave one of them out, or give the \
         other server's token with --token-file instead"
    )]
    OtherServer { url: SocketAddr, dev: SocketAddr },
    #[error("cannot resolve {host:?}")]
    Resolve { host: String, source: io::Error },
    #[error("{host:?} resolves to no address")]
    NoAddress { host: String },
    #[error("--token-form in-band needs the Hocuspocus protocol: add --wire hocuspocus")]
    InBandElsewhere,
    #[error("the path {path:?} must contain {{document}}: every document needs an address of its own")]
    PathWithoutDocument { path: String },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: the first line isn't the JSON that `wiresocket dev --json` prints: {source}")]
    DevJson { path: PathBuf, source: serde_json::Error },
}

/// The line a development server prints when it is ready.
#[derive(Debug, Deserialize)]
pub struct DevServer {
    pub ws: String,
    pub token: String,
    /// Where more tokens come from, if it says so.
    #[serde(flatten)]
    pub client: Option<DevClient>,
}

/// The demo app's way to tokens (RFC 6749 client credentials).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevClient {
    pub issuer: String,
    pub client_id: String,
    pub client_secret: String,
}

impl fmt::Debug for DevClient {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevClient").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl DevServer {
    /// Reads the first line of `path`; `-` is standard input.
    pub fn read(path: &Path) -> Result<Self, TargetError> {
        let read = |source| TargetError::Read { path: path.to_owned(), source };
        let mut line = String::new();
        if path == Path::new("-") {
            io::stdin().lock().read_line(&mut line).map_err(read)?;
        } else {
            line = std::fs::read_to_string(path).map_err(read)?;
        }
        let first = line.lines().next().unwrap_or_default();
        serde_json::from_str(first).map_err(|source| TargetError::DevJson { path: path.to_owned(), source })
    }

    /// Is `url` this server's? Its token is nobody else's business.
    pub fn check_is_at(&self, url: &str) -> Result<(), TargetError> {
        let (url, dev) = (resolve(split(url)?.0)?, resolve(split(&self.ws)?.0)?);
        if url == dev { Ok(()) } else { Err(TargetError::OtherServer { url, dev }) }
    }
}

#[derive(Debug, Clone)]
pub struct Target {
    /// As it may be shown: without the secrets in it.
    pub shown_url: String,
    pub address: SocketAddr,
    pub protocol: Protocol,
    host: String,
    /// Request target with `{document}` in it, and `{token}` where it carries one.
    path: String,
    /// Whole header lines, `{token}` as in the path.
    headers: String,
    pub tokens: Tokens,
    /// Are renewed tokens handed over on connections that live?
    pub renews_in_band: bool,
    /// Loopback addresses that other processes of the load tester leave from.
    pub first_source: u32,
}

impl Target {
    /// `path` defaults to the protocol's; the form of the token to in-band where that exists, else to
    /// the sub-protocol.
    pub fn new(
        url: &str,
        protocol: Protocol,
        path: Option<&str>,
        token: Option<&str>,
        form: Option<TokenForm>,
    ) -> Result<Self, TargetError> {
        Self::with_tokens(url, protocol, path, Tokens::fixed(token), form)
    }

    /// The same for tokens that differ or are renewed.
    pub fn with_tokens(
        url: &str,
        protocol: Protocol,
        path: Option<&str>,
        tokens: Tokens,
        form: Option<TokenForm>,
    ) -> Result<Self, TargetError> {
        let (host, base) = split(url)?;
        let (base, query) = base.split_once('?').unwrap_or((base, ""));
        let template = path.unwrap_or(protocol.default_path());
        let mut path = format!("{}{template}", base.trim_end_matches('/'));
        if protocol != Protocol::Hocuspocus && !path.contains("{document}") {
            return Err(TargetError::PathWithoutDocument { path: redacted(&path).into_owned() });
        }
        if !query.is_empty() {
            add_query(&mut path, query);
        }
        let mut headers = String::new();
        let form = form.unwrap_or(match protocol {
            Protocol::Hocuspocus => TokenForm::InBand,
            Protocol::YWebsocket | Protocol::Relay => TokenForm::Protocol,
        });
        if form == TokenForm::InBand && protocol != Protocol::Hocuspocus {
            return Err(TargetError::InBandElsewhere);
        }
        match form {
            _ if tokens.of(0).is_none() => {}
            TokenForm::InBand => {}
            TokenForm::Query => add_query(&mut path, "token={token}"),
            TokenForm::Protocol => {
                headers = "Sec-WebSocket-Protocol: access_token, {token}\r\n".to_owned();
            }
            TokenForm::Header => headers = "Authorization: Bearer {token}\r\n".to_owned(),
        }
        Ok(Self {
            shown_url: redacted(url).into_owned(),
            address: resolve(host)?,
            protocol,
            host: host.to_owned(),
            path,
            headers,
            tokens,
            renews_in_band: protocol == Protocol::Hocuspocus,
            first_source: 0,
        })
    }

    /// The upgrade request for one document.
    pub fn write_request(&self, out: &mut Vec<u8>, document: &str, token: &str) {
        let path = self.path.replace("{document}", document).replace("{token}", token);
        let headers = self.headers.replace("{token}", token);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{}\r\n",
            self.host, headers
        );
        out.extend_from_slice(request.as_bytes());
    }

    /// Hocuspocus wants an Auth message even from those who have nothing to say in it.
    pub fn token(&self, connection: u32) -> Arc<str> {
        self.tokens.of(connection).unwrap_or_else(|| "loadtest".into())
    }
}

fn add_query(path: &mut String, query: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(query);
}

/// The host (and port) of an address, and what comes behind it.
fn split(url: &str) -> Result<(&str, &str), TargetError> {
    if url.starts_with("wss://") {
        return Err(TargetError::Tls { url: redacted(url).into_owned() });
    }
    let rest = url
        .strip_prefix("ws://")
        .filter(|rest| !rest.is_empty() && !rest.split(['/', '?']).next().unwrap_or_default().contains('@'))
        .ok_or_else(|| TargetError::Url { url: redacted(url).into_owned() })?;
    Ok(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

fn resolve(host: &str) -> Result<SocketAddr, TargetError> {
    // The colons in the brackets of an IPv6 address are its own.
    let with_port = match host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => host.to_owned(),
        Some((_, port)) => {
            return Err(TargetError::Port { host: host.to_owned(), port: port.to_owned() });
        }
        None => format!("{host}:80"),
    };
    let addresses: Vec<SocketAddr> = with_port
        .to_socket_addrs()
        .map_err(|source| TargetError::Resolve { host: host.to_owned(), source })?
        .collect();
    // Servers on "localhost" often listen on IPv4 only.
    let preferred = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    preferred.copied().ok_or_else(|| TargetError::NoAddress { host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        url: &str,
        protocol: Protocol,
        path: Option<&str>,
        token: Option<&str>,
        form: Option<TokenForm>,
    ) -> String {
        let target = Target::new(url, protocol, path, token, form).expect("a good target");
        let mut out = Vec::new();
        target.write_request(&mut out, "doc-1", &target.token(0));
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn each_form_of_the_token_ends_up_in_its_place() {
        use Protocol::YWebsocket;
        let url = "ws://127.0.0.1:1234";
        let query = request(url, YWebsocket, None, Some("T"), Some(TokenForm::Query));
        assert!(query.starts_with("GET /doc-1?token=T HTTP/1.1\r\nHost: 127.0.0.1:1234\r\n"));
        let protocol = request(url, YWebsocket, None, Some("T"), None);
        assert!(protocol.contains("\r\nSec-WebSocket-Protocol: access_token, T\r\n\r\n"));
        let header = request(url, YWebsocket, None, Some("T"), Some(TokenForm::Header));
        assert!(header.contains("\r\nAuthorization: Bearer T\r\n\r\n"));
        let in_band = request(url, Protocol::Hocuspocus, None, Some("SECRET"), None);
        assert!(in_band.starts_with("GET / HTTP/1.1\r\n") && !in_band.contains("SECRET"));
    }

    #[test]
    fn paths_and_queries_of_the_address_are_kept() {
        let provider = request(
            "ws://127.0.0.1:1/base/?a=1",
            Protocol::YWebsocket,
            None,
            Some("T"),
            Some(TokenForm::Query),
        );
        assert!(provider.starts_with("GET /base/doc-1?a=1&token=T HTTP/1.1"));
        let y_sweet = request(
            "ws://127.0.0.1:1",
            Protocol::YWebsocket,
            Some("/d/{document}/ws/{document}"),
            None,
            None,
        );
        assert!(y_sweet.starts_with("GET /d/doc-1/ws/doc-1 HTTP/1.1"));
    }

    #[test]
    fn a_token_in_the_address_is_sent_and_never_shown() {
        let url = "ws://127.0.0.1:1/base?token=SECRET";
        assert!(request(url, Protocol::YWebsocket, None, None, None).contains("?token=SECRET "));
        let target = Target::new(url, Protocol::YWebsocket, None, None, None).expect("a target");
        assert_eq!(target.shown_url, "ws://127.0.0.1:1/base?token=REDACTED");
        for (url, path) in
            [("wss://h?token=SECRET", None), ("ws://me:SECRET@h", None), ("ws://h", Some("/?token=SECRET"))]
        {
            let error = Target::new(url, Protocol::YWebsocket, path, None, None).expect_err("refused");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let refused =
            |url: &str, path, form| Target::new(url, Protocol::YWebsocket, path, Some("T"), form).is_err();
        assert!(refused("http://127.0.0.1:1", None, None));
        assert!(refused("wss://127.0.0.1:1", None, None));
        assert!(refused("ws://127.0.0.1:1", Some("/fixed"), None));
        assert!(refused("ws://127.0.0.1:1", None, Some(TokenForm::InBand)));
    }

    #[test]
    fn a_development_server_says_where_it_is() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        io::Write::write_all(
            &mut file,
            b"{\"ws\":\"ws://127.0.0.1:9\",\"http\":\"x\",\"token\":\"T\"}\nlog\n",
        )
        .expect("written");
        let server = DevServer::read(file.path()).expect("read");
        assert_eq!((server.ws.as_str(), server.token.as_str()), ("ws://127.0.0.1:9", "T"));
        assert!(server.client.is_none());
        for same in ["ws://127.0.0.1:9", "ws://127.0.0.1:9/base?a=1"] {
            server.check_is_at(same).expect("the same server");
        }
        for other in ["ws://127.0.0.1:10", "ws://127.0.0.2:9", "ws://127.0.0.1"] {
            assert!(matches!(server.check_is_at(other), Err(TargetError::OtherServer { .. })), "{other}");
        }

        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let line =
            r#"{"ws":"w","token":"T","issuer":"http://i","clientId":"c","clientSecret":"SECRET","owner":{}}"#;
        io::Write::write_all(&mut file, line.as_bytes()).expect("written");
        let server = DevServer::read(file.path()).expect("read");
        assert!(!format!("{server:?}").contains("SECRET"), "{server:?}");
        let client = server.client.expect("a client");
        assert_eq!((client.issuer.as_str(), client.client_id.as_str()), ("http://i", "c"));
    }

    #[test]
    fn a_port_that_is_none_is_named() {
        for (url, wrong) in [
            ("ws://127.0.0.1:99999", "99999"),
            ("ws://127.0.0.1:0", "0"),
            ("ws://127.0.0.1:", ""),
            ("ws://[::1]:x/y", "x"),
        ] {
            match Target::new(url, Protocol::YWebsocket, None, None, None) {
                Err(TargetError::Port { port, .. }) => assert_eq!(port, wrong),
                other => panic!("{url}: {other:?}"),
            }
        }
        let address = |url| Target::new(url, Protocol::YWebsocket, None, None, None).expect("good").address;
        assert_eq!(address("ws://[::1]").to_string(), "[::1]:80");
        assert_eq!(address("ws://[::1]:9").to_string(), "[::1]:9");
    }
}
