//! The head of an HTTP/1.1 request: is it a WebSocket upgrade, for which document, with which token; and the answers.
//!
//! Invariants: a head over its limits is refused before it is whole; what an intermediary might read differently
//! (a header twice that may stand once, a body on an upgrade, a bare line feed) is refused; no `Debug` shows a token.
//!
//! Not here: requests that are not upgrades. They are recognised and go, with all their bytes, to the control shard.
//! Not here either: whether the token is any good ([`crate::auth`]).

use std::fmt;

use serde::Serialize;

use super::close::Refusal;
use super::document::{DocumentName, NameError};
use super::websocket::accept_key;

/// The most headers that are parsed, whatever the configuration says.
pub const HEADERS_MAX: usize = 100;

/// What a request line holds besides its target: a method, two spaces, a version.
const LINE_EXTRA_BYTES_MAX: usize = 32;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, up to and with its empty line (431).
    pub head_bytes_max: usize,
    /// The target of the request line (414). A token in the query is part of it.
    pub target_bytes_max: usize,
    /// Header lines (431), at most [`HEADERS_MAX`].
    pub headers_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes_max: 16 << 10, target_bytes_max: 8 << 10, headers_max: HEADERS_MAX }
    }
}

/// A head, or the wish for more bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Status<T> {
    Complete(T),
    /// The same bytes and more are to be given.
    Incomplete,
}

/// A parsed request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head; what follows it is the client's first frames (or a body).
    pub head_len: usize,
    pub method: Box<str>,
    pub target: Target,
    /// All `X-Forwarded-For` values, joined in order. Whether to believe them is the caller's question.
    pub forwarded_for: Option<Box<str>>,
    /// Set if the request asks for a WebSocket.
    pub upgrade: Option<Upgrade>,
}

/// The target of a request line. `Debug` and `Display` leave the query out: it may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Box<str>);

/// What the upgrade asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `Sec-WebSocket-Key`, for [`accept_response`].
    pub key: Box<str>,
    /// The sub-protocol to answer with: the name beside a token, never the token.
    pub protocol: Option<&'static str>,
    pub origin: Option<Box<str>>,
    pub token: Option<Token>,
    pub route: Route,
    /// `?acknowledge=true`: a y-websocket client that wants to hear which of its updates are stored.
    pub acknowledges: bool,
}

/// A token as it was handed over, not looked into.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub value: Box<str>,
    pub source: TokenSource,
}

/// Where a token came from. If several carry one, the first of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenSource {
    Protocol,
    Authorization,
    Query,
}

/// Which document the target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Document(DocumentName),
    /// None: Hocuspocus names its documents in its messages.
    Root,
    InvalidName(NameError),
}

/// Why a request head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the request head is malformed: {0}")]
    Syntax(&'static str),
    #[error("the header {0} stands twice; send it once")]
    Duplicate(&'static str),
    #[error("the header {0} is missing or not valid")]
    Invalid(&'static str),
    #[error("an upgrade request must not have a body")]
    Body,
    #[error("the request target is longer than {limit} bytes")]
    TargetTooLong { limit: usize },
    #[error("the request head is larger than {limit} bytes")]
    HeadTooLarge { limit: usize },
    #[error("the request has more than {limit} headers")]
    TooManyHeaders { limit: usize },
    #[error("this server speaks version 13 of the WebSocket protocol")]
    Version,
}

impl HeadError {
    /// The HTTP status that answers it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Syntax(_) | Self::Duplicate(_) | Self::Invalid(_) | Self::Body => 400,
            Self::TargetTooLong { .. } => 414,
            Self::Version => 426,
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => 431,
        }
    }

    /// Appends the whole HTTP response.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let message = self.to_string();
        let body = RefusalBody { code: self.status(), error: "bad_request", message: &message };
        let headers: &[(&str, &str)] = match self {
            Self::Version => &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
            _ => &[],
        };
        refusal_response(out, self.status(), headers, &body);
    }
}

/// Parses the head at the front of `bytes`.
///
/// # Errors
/// [`HeadError`]; its response is the last thing to send.
pub fn parse(bytes: &[u8], limits: &HeadLimits) -> Result<Status<Head>, HeadError> {
    check_line(bytes, limits)?;
    let too_large = HeadError::HeadTooLarge { limit: limits.head_bytes_max };
    let count = limits.headers_max.min(HEADERS_MAX);
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers[..count]);
    let seen = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let head_len = match request.parse(seen) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.head_bytes_max => return Err(too_large),
        Ok(httparse::Status::Partial) => return Ok(Status::Incomplete),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders { limit: count }),
        Err(error) => return Err(HeadError::Syntax(syntax(error))),
    };
    // httparse takes a bare line feed for a line's end; another parser on the way may not.
    if bytes[..head_len].iter().zip(&bytes[1..head_len]).any(|(&a, &b)| b == b'\n' && a != b'\r') {
        return Err(HeadError::Syntax("a line does not end with CR LF"));
    }
    let fields = Fields::collect(request.headers)?;
    let target = Target(request.path.unwrap_or_default().into());
    let method: Box<str> = request.method.unwrap_or_default().into();
    let asks = &*method == "GET" && request.version == Some(1) && fields.asks_for_websocket();
    let upgrade = if asks { Some(fields.upgrade(&target)?) } else { None };
    let forwarded_for = fields.forwarded_for.map(Into::into);
    Ok(Status::Complete(Head { head_len, method, target, forwarded_for, upgrade }))
}

/// Refuses a request line that is too long, whole or not.
fn check_line(bytes: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    // Empty lines before the request line are allowed (RFC 9112 section 2.2); they count towards the head.
    let start = bytes.iter().position(|&byte| byte != b'\r' && byte != b'\n').unwrap_or(bytes.len());
    let line = &bytes[start..];
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    let mut words = line[..end].split(|&byte| byte == b' ');
    let target = words.nth(1).unwrap_or_default();
    let too_long = target.len() > limits.target_bytes_max
        || (end == line.len() && end > limits.target_bytes_max + LINE_EXTRA_BYTES_MAX);
    if too_long { Err(HeadError::TargetTooLong { limit: limits.target_bytes_max }) } else { Ok(()) }
}

const fn syntax(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header name has a character it must not have",
        httparse::Error::HeaderValue => "a header value has a character it must not have",
        httparse::Error::NewLine => "a line does not end with CR LF",
        httparse::Error::Version => "the version is not HTTP/1.0 or HTTP/1.1",
        _ => "the request line is not a method, a target and a version",
    }
}

/// The headers that matter here.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    origin: Option<&'a str>,
    authorization: Option<&'a str>,
    content_length: Option<&'a str>,
    transfer_encoding: Option<&'a str>,
    /// `Connection` has the option `upgrade`.
    connection_upgrade: bool,
    /// `Upgrade` has the protocol `websocket`.
    upgrade_websocket: bool,
    /// All values of `Sec-WebSocket-Protocol` in order; the header may stand more than once.
    protocols: Vec<&'a str>,
    forwarded_for: Option<String>,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, HeadError> {
        let mut fields = Self::default();
        for header in headers {
            fields.add(header)?;
        }
        Ok(fields)
    }

    fn add(&mut self, header: &httparse::Header<'a>) -> Result<(), HeadError> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let list = |name| text(header, name).map(|value| value.split(',').map(str::trim));
        if is("connection") {
            self.connection_upgrade |= list("Connection")?.any(|word| word.eq_ignore_ascii_case("upgrade"));
        } else if is("upgrade") {
            self.upgrade_websocket |= list("Upgrade")?.any(|word| word.eq_ignore_ascii_case("websocket"));
        } else if is("sec-websocket-protocol") {
            self.protocols.extend(list("Sec-WebSocket-Protocol")?.filter(|name| !name.is_empty()));
        } else if is("x-forwarded-for") {
            let value = text(header, "X-Forwarded-For")?;
            match &mut self.forwarded_for {
                Some(values) => *values = format!("{values}, {value}"),
                none => *none = Some(value.to_owned()),
            }
        } else if let Some((slot, name)) = self.single(header.name)
            && slot.replace(text(header, name)?).is_some()
        {
            return Err(HeadError::Duplicate(name));
        }
        Ok(())
    }

    /// The place of a header that may stand only once.
    fn single(&mut self, name: &str) -> Option<(&mut Option<&'a str>, &'static str)> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        Some(match () {
            () if is("host") => (&mut self.host, "Host"),
            () if is("origin") => (&mut self.origin, "Origin"),
            () if is("authorization") => (&mut self.authorization, "Authorization"),
            () if is("sec-websocket-key") => (&mut self.key, "Sec-WebSocket-Key"),
            () if is("sec-websocket-version") => (&mut self.version, "Sec-WebSocket-Version"),
            () if is("content-length") => (&mut self.content_length, "Content-Length"),
            () if is("transfer-encoding") => (&mut self.transfer_encoding, "Transfer-Encoding"),
            () => return None,
        })
    }

    const fn asks_for_websocket(&self) -> bool {
        self.connection_upgrade && self.upgrade_websocket
    }

    fn upgrade(&self, target: &Target) -> Result<Upgrade, HeadError> {
        if self.host.is_none() {
            return Err(HeadError::Invalid("Host"));
        }
        // What a body would hold would be read as frames.
        if self.transfer_encoding.is_some() || self.content_length.is_some_and(|length| length != "0") {
            return Err(HeadError::Body);
        }
        if self.version != Some("13") {
            return Err(HeadError::Version);
        }
        let key = self.key.filter(|key| is_key(key)).ok_or(HeadError::Invalid("Sec-WebSocket-Key"))?;
        let (protocol, offered) = self.protocol_token();
        let mut place = Place::of(target);
        let token = offered
            .map(|value| Token { value: value.into(), source: TokenSource::Protocol })
            .or_else(|| {
                let value = self.bearer()?.into();
                Some(Token { value, source: TokenSource::Authorization })
            })
            .or_else(|| place.token.take());
        let origin = self.origin.map(Into::into);
        let Place { route, acknowledges, .. } = place;
        Ok(Upgrade { key: key.into(), protocol, origin, token, route, acknowledges })
    }

    /// The name to answer with and the token that follows it: `access_token, <JWT>` or `Bearer, <JWT>`.
    fn protocol_token(&self) -> (Option<&'static str>, Option<&'a str>) {
        for (at, offered) in self.protocols.iter().enumerate() {
            let Some(&name) = TOKEN_PROTOCOLS.iter().find(|name| *name == offered) else { continue };
            return (Some(name), self.protocols.get(at + 1).copied());
        }
        (None, None)
    }

    fn bearer(&self) -> Option<&'a str> {
        let (scheme, token) = self.authorization?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }
}

/// Sub-protocol names that say "what follows is the token". A name is answered as it was offered.
const TOKEN_PROTOCOLS: [&str; 3] = ["access_token", "Bearer", "bearer"];

fn text<'a>(header: &httparse::Header<'a>, name: &'static str) -> Result<&'a str, HeadError> {
    std::str::from_utf8(header.value).map(str::trim).map_err(|_| HeadError::Invalid(name))
}

/// Sixteen bytes in base64 (RFC 6455 section 4.1).
fn is_key(key: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    key.len() == 24 && key.ends_with("==") && key.as_bytes()[..22].iter().all(is_digit)
}

impl Target {
    /// The path, always with its leading slash for a target in origin form.
    #[must_use]
    pub fn path(&self) -> &str {
        self.split().0
    }

    /// What follows the first `?`. It may hold a token: not for logs.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.split().1
    }

    fn split(&self) -> (&str, Option<&str>) {
        // Absolute form (RFC 9112 section 3.2.2): a proxy may send it.
        let origin_form = match self.0.find("://") {
            Some(at) if !self.0.starts_with('/') => {
                let rest = &self.0[at + 3..];
                &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
            }
            _ => &*self.0,
        };
        match origin_form.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin_form, None),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())?;
        if self.query().is_some() { f.write_str("?…") } else { Ok(()) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What a target says: the document, the token, and what the client wants.
struct Place {
    route: Route,
    token: Option<Token>,
    acknowledges: bool,
}

impl Place {
    fn of(target: &Target) -> Self {
        let (path, query) = target.split();
        let route = route(path);
        let query = query.unwrap_or_default();
        // y-websocket appends `/<room>`, and then its own `?<parameters>`, to a server URL that may end in a query:
        // `/?token=<JWT>/<room>?a=b`. A token has no slash, and an encoded value has none either.
        if let Some((before, tail)) = query.split_once('/') {
            let (room, after) = tail.split_once('?').unwrap_or((tail, ""));
            let tail_route = self::route(room);
            if route == Route::Root || tail_route == route {
                let token = query_token(before).or_else(|| query_token(after));
                let acknowledges = wants_acknowledgements(before) || wants_acknowledgements(after);
                return Self { route: tail_route, token, acknowledges };
            }
        }
        Self { route, token: query_token(query), acknowledges: wants_acknowledgements(query) }
    }
}

/// The document of a path: `/<doc>`, or `/<doc>/<doc>` when a provider appended it to a URL that had it already.
fn route(path: &str) -> Route {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Route::Root;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let name = match path.split_once('/') {
        None => DocumentName::from_url(path),
        Some((first, second)) => match (DocumentName::from_url(first), DocumentName::from_url(second)) {
            (Ok(first), Ok(second)) if first == second => Ok(first),
            (Ok(_), Ok(_)) => Err(NameError::Character),
            (Err(error), _) | (_, Err(error)) => Err(error),
        },
    };
    name.map_or_else(Route::InvalidName, Route::Document)
}

/// The first `token` or `access_token` that is not empty.
fn query_token(query: &str) -> Option<Token> {
    query.split('&').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let named = matches!(name, "token" | "access_token") && !value.is_empty();
        named.then(|| Token { value: percent_decoded(value), source: TokenSource::Query })
    })
}

fn wants_acknowledgements(query: &str) -> bool {
    query.split('&').any(|parameter| parameter == "acknowledge=true")
}

/// Undoes percent-encoding. `+` stays what it is; what isn't valid stays as it stands, and fails as a token.
fn percent_decoded(encoded: &str) -> Box<str> {
    if !encoded.contains('%') {
        return encoded.into();
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return encoded.into(),
        }
    }
    String::from_utf8(decoded).map_or_else(|_| encoded.into(), Into::into)
}

/// Appends the response that completes an upgrade.
pub fn accept_response(out: &mut Vec<u8>, key: &str, protocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    write_field(out, "Sec-WebSocket-Accept", &accept_key(key));
    if let Some(protocol) = protocol {
        write_field(out, "Sec-WebSocket-Protocol", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// The JSON body of a refusal.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RefusalBody<'a> {
    /// The close code, or the status where there is none.
    pub code: u16,
    /// The machine-readable name.
    pub error: &'a str,
    pub message: &'a str,
}

/// Appends the response to an upgrade that is refused for the reason a close frame would give.
pub fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    let message = refusal.reason();
    let body = RefusalBody { code: refusal.code(), error: refusal.name(), message: &message };
    let retry_after = match refusal {
        Refusal::Draining { retry_after_s } | Refusal::Overloaded { retry_after_s } => {
            retry_after_s.to_string()
        }
        _ => return refusal_response(out, refusal.status(), &[], &body),
    };
    refusal_response(out, refusal.status(), &[("Retry-After", &retry_after)], &body);
}

/// Appends a complete response after which the connection closes. Header values must be the server's own.
pub fn refusal_response(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)], body: &RefusalBody<'_>) {
    // A struct of a number and two strings has no way to fail to serialize.
    let body = serde_json::to_vec(body).unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", phrase(status)).as_bytes());
    write_field(out, "Content-Type", "application/json");
    write_field(out, "Content-Length", &body.len().to_string());
    // A 426 must say what to upgrade to, and Upgrade is a hop-by-hop header (RFC 9110 section 7.8).
    write_field(out, "Connection", if status == 426 { "close, Upgrade" } else { "close" });
    for (name, value) in headers {
        write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!value.contains(['\r', '\n']), "a header value of the server's own has no line break");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Refused",
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
