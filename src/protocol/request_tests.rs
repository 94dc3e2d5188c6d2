use proptest::prelude::*;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_x";
const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 1024, headers_max: 100 };

fn head(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

fn parsed(bytes: &str) -> Result<Head, HeadError> {
    match parse(bytes.as_bytes(), &LIMITS)? {
        Status::Complete(head) => Ok(head),
        Status::Incomplete => panic!("incomplete: {bytes}"),
    }
}

fn upgrade(target: &str, headers: &str) -> Upgrade {
    parsed(&head(target, headers)).unwrap().upgrade.unwrap()
}

fn document(name: &str) -> Route {
    Route::Document(DocumentName::parse(name).unwrap())
}

fn token(upgrade: &Upgrade) -> Option<(&str, TokenSource)> {
    upgrade.token.as_ref().map(|token| (&*token.value, token.source))
}

#[test]
fn targets_name_documents() {
    let invalid = Route::InvalidName;
    let table = [
        ("/notes", document("notes")),
        ("/notes/", document("notes")),
        ("/notes/notes", document("notes")),
        ("/notes/notes/", document("notes")),
        ("/n%6ftes/notes", document("notes")),
        ("/notes?token=x", document("notes")),
        ("ws://host.example/notes?a=b", document("notes")),
        ("/", Route::Root),
        ("/?token=x", Route::Root),
        ("ws://host.example", Route::Root),
        ("/notes/other", invalid(NameError::Character)),
        ("/a/a/a", invalid(NameError::Character)),
        ("/a%20b", invalid(NameError::Character)),
        ("/caf%C3%A9", invalid(NameError::Character)),
        ("/a%2", invalid(NameError::Encoding)),
        ("//", invalid(NameError::Empty)),
        ("//a", invalid(NameError::Empty)),
        ("/../etc", invalid(NameError::Character)),
    ];
    for (target, route) in table {
        assert_eq!(upgrade(target, "").route, route, "{target}");
    }
    assert_eq!(upgrade(&format!("/{}", "n".repeat(256)), "").route, invalid(NameError::TooLong(256)));
}

#[test]
fn a_room_may_ride_at_the_end_of_the_query() {
    let table = [
        (format!("/?token={JWT}/notes"), document("notes")),
        (format!("/?access_token={JWT}/notes"), document("notes")),
        (format!("/?token={JWT}/notes?a=b"), document("notes")),
        (format!("/?token={JWT}/notes?a=b&c=d/e"), document("notes")),
        (format!("/?token={JWT}/notes/notes"), document("notes")),
        (format!("/?x=1&token={JWT}/notes"), document("notes")),
        (format!("/?token={JWT}&x=1/notes"), document("notes")),
        (format!("/?x=1/notes?token={JWT}"), document("notes")),
        (format!("?token={JWT}/notes"), document("notes")),
        (format!("/notes?token={JWT}/notes"), document("notes")),
        (format!("/?token={JWT}/"), Route::Root),
        (format!("/?token={JWT}"), Route::Root),
        (format!("/?token={JWT}/a%20b"), Route::InvalidName(NameError::Character)),
        (format!("/notes?next=/a&token={JWT}"), document("notes")),
    ];
    for (target, route) in table {
        let upgrade = upgrade(&target, "");
        assert_eq!(upgrade.route, route, "{target}");
        assert_eq!(token(&upgrade), Some((JWT, TokenSource::Query)), "{target}");
        assert_eq!(upgrade.protocol, None);
    }
}

#[test]
fn tokens_are_found_wherever_they_may_be() {
    use TokenSource::{Authorization, Protocol, Query};
    let table = [
        ("/d", "Sec-WebSocket-Protocol: access_token, T\r\n", Some("access_token"), Some(("T", Protocol))),
        ("/d", "Sec-WebSocket-Protocol: Bearer,T\r\n", Some("Bearer"), Some(("T", Protocol))),
        ("/d", "Sec-WebSocket-Protocol: bearer ,  T \r\n", Some("bearer"), Some(("T", Protocol))),
        (
            "/d",
            "Sec-WebSocket-Protocol: yjs, access_token, T\r\n",
            Some("access_token"),
            Some(("T", Protocol)),
        ),
        (
            "/d",
            "Sec-WebSocket-Protocol: access_token\r\nSec-WebSocket-Protocol: T\r\n",
            Some("access_token"),
            Some(("T", Protocol)),
        ),
        ("/d", "Sec-WebSocket-Protocol: access_token\r\n", Some("access_token"), None),
        ("/d", "Sec-WebSocket-Protocol: yjs, graphql\r\n", None, None),
        ("/d", "Authorization: Bearer T\r\n", None, Some(("T", Authorization))),
        ("/d", "authorization: bearer  T \r\n", None, Some(("T", Authorization))),
        ("/d", "Authorization: Basic T\r\n", None, None),
        ("/d", "Authorization: Bearer\r\n", None, None),
        ("/d?token=T", "", None, Some(("T", Query))),
        ("/d?access_token=T", "", None, Some(("T", Query))),
        ("/d?x=y&access_token=T&token=U", "", None, Some(("T", Query))),
        ("/d?token=&access_token=T", "", None, Some(("T", Query))),
        ("/d?token=a%2Bb+c%2e", "", None, Some(("a+b+c.", Query))),
        ("/d?token=a%2", "", None, Some(("a%2", Query))),
        ("/d?token=%ff", "", None, Some(("%ff", Query))),
        ("/d?mytoken=T", "", None, None),
        ("/d", "", None, None),
        ("/d?token=Q", "Authorization: Bearer H\r\n", None, Some(("H", Authorization))),
        (
            "/d?token=Q",
            "Authorization: Bearer H\r\nSec-WebSocket-Protocol: Bearer, P\r\n",
            Some("Bearer"),
            Some(("P", Protocol)),
        ),
        ("/d?token=Q", "Sec-WebSocket-Protocol: access_token\r\n", Some("access_token"), Some(("Q", Query))),
    ];
    for (target, headers, protocol, expected) in table {
        let upgrade = upgrade(target, headers);
        assert_eq!(upgrade.protocol, protocol, "{target} {headers}");
        assert_eq!(token(&upgrade), expected, "{target} {headers}");
    }
}

#[test]
fn an_upgrade_is_told_from_other_requests() {
    let is_upgrade = |bytes: &str| parsed(bytes).unwrap().upgrade.is_some();
    let whole = head("/notes", "");
    assert!(is_upgrade(&whole));
    assert!(is_upgrade(&whole.replace("Upgrade: websocket", "upgrade: h2c, WebSocket")));
    assert!(!is_upgrade(&whole.replace("GET", "POST")));
    assert!(!is_upgrade(&whole.replace("HTTP/1.1", "HTTP/1.0")));
    assert!(!is_upgrade(&whole.replace("keep-alive, Upgrade", "keep-alive")));
    assert!(!is_upgrade(&whole.replace("Upgrade: websocket", "Upgrade: h2c")));
    let plain = parsed("POST /usage?token=T HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    assert_eq!((&*plain.method, plain.target.path(), plain.upgrade), ("POST", "/usage", None));
    assert_eq!(plain.target.query(), Some("token=T"));
}

#[test]
fn the_head_ends_where_the_first_frame_begins() {
    let whole = head(
        "/notes",
        "X-Forwarded-For: 1.2.3.4\r\nOrigin: https://a.example\r\nX-Forwarded-For: 5.6.7.8\r\n",
    );
    let parsed = parsed(&format!("{whole}\u{2}\u{3}")).unwrap();
    assert_eq!(parsed.head_len, whole.len());
    assert_eq!(parsed.forwarded_for.as_deref(), Some("1.2.3.4, 5.6.7.8"));
    let upgrade = parsed.upgrade.unwrap();
    assert_eq!((&*upgrade.key, upgrade.origin.as_deref()), (KEY, Some("https://a.example")));
}

#[test]
fn what_two_parsers_may_read_differently_is_refused() {
    let refused = |headers: &str, error: HeadError| {
        assert_eq!(parsed(&head("/notes", headers)), Err(error), "{headers}");
        assert_eq!(error.status(), 400);
    };
    refused("Host: other\r\n", HeadError::Duplicate("Host"));
    refused("Origin: a\r\nOrigin: a\r\n", HeadError::Duplicate("Origin"));
    refused("Authorization: Bearer a\r\nauthorization: Bearer b\r\n", HeadError::Duplicate("Authorization"));
    refused("sec-websocket-key: x\r\n", HeadError::Duplicate("Sec-WebSocket-Key"));
    refused("Sec-WebSocket-Version: 13\r\n", HeadError::Duplicate("Sec-WebSocket-Version"));
    refused("Content-Length: 5\r\n", HeadError::Body);
    refused("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", HeadError::Body);
    refused("Origin: \u{7f}\r\n", HeadError::Syntax(syntax(httparse::Error::HeaderValue)));
    refused("Bad Name: x\r\n", HeadError::Syntax(syntax(httparse::Error::HeaderName)));
    refused("X: a\nY: b\r\n", HeadError::Syntax("a line does not end with CR LF"));
    let whole = head("/notes", "");
    assert_eq!(parsed(&whole.replace("Host: localhost\r\n", "")), Err(HeadError::Invalid("Host")));
    assert_eq!(parsed(&whole.replace(KEY, "short")), Err(HeadError::Invalid("Sec-WebSocket-Key")));
    assert_eq!(parsed(&whole.replace(KEY, &"!".repeat(24))), Err(HeadError::Invalid("Sec-WebSocket-Key")));
    assert!(parsed(&whole.replace("HTTP/1.1", "HTTP/2.0")).is_err());
    let mut bytes = head("/notes", "Origin: x\r\n").into_bytes();
    let at = bytes.iter().position(|&byte| byte == b'x').unwrap();
    bytes[at] = 0xff;
    assert_eq!(parse(&bytes, &LIMITS), Err(HeadError::Invalid("Origin")));
}

#[test]
fn another_version_is_answered_with_the_one_spoken() {
    for version in ["8", "", "13, 8"] {
        let bytes = head("/notes", "").replace("Version: 13", &format!("Version: {version}"));
        assert_eq!(parsed(&bytes), Err(HeadError::Version), "{version}");
    }
    let mut out = Vec::new();
    HeadError::Version.write_response(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 426 Upgrade Required\r\n")
            && text.contains("Sec-WebSocket-Version: 13\r\n")
    );
}

#[test]
fn limits_are_exact_and_hold_before_the_head_is_whole() {
    let fill = |bytes: usize| {
        let rest = head("/notes", "X-Fill: \r\n").len();
        head("/notes", &format!("X-Fill: {}\r\n", "f".repeat(bytes - rest)))
    };
    assert!(parsed(&fill(LIMITS.head_bytes_max)).is_ok());
    let too_large = HeadError::HeadTooLarge { limit: 4096 };
    assert_eq!(parse(fill(4097).as_bytes(), &LIMITS), Err(too_large));
    assert_eq!(parse(&fill(5000).as_bytes()[..4095], &LIMITS), Ok(Status::Incomplete));
    assert_eq!(parse(&fill(5000).as_bytes()[..4096], &LIMITS), Err(too_large));
    assert_eq!(parse(&[b'\r', b'\n'].repeat(2048), &LIMITS), Err(too_large));

    let target = |bytes: usize| format!("/{}", "t".repeat(bytes - 1));
    let too_long = HeadError::TargetTooLong { limit: 1024 };
    assert!(parsed(&head(&target(1024), "")).is_ok());
    assert_eq!(parsed(&head(&target(1025), "")), Err(too_long));
    assert_eq!(parse(format!("GET {}", target(1025)).as_bytes(), &LIMITS), Err(too_long));
    assert_eq!(parse(&[b'G'; 1024 + 33], &LIMITS), Err(too_long));

    let many = |count: usize| head("/notes", &"X: y\r\n".repeat(count - 5));
    assert!(parsed(&many(100)).is_ok());
    assert_eq!(parsed(&many(101)), Err(HeadError::TooManyHeaders { limit: 100 }));
    assert_eq!((too_large.status(), too_long.status()), (431, 414));
}

#[test]
fn nothing_that_is_printed_holds_a_token() {
    let bytes = head("/notes?token=SECRET", "Authorization: Bearer SECRET\r\n");
    let printed = format!("{:?}", parsed(&bytes).unwrap());
    assert!(!printed.contains("SECRET") && printed.contains("/notes?…"), "{printed}");
}

#[test]
fn the_answer_to_an_upgrade_names_the_protocol_that_was_chosen() {
    let mut out = Vec::new();
    accept_response(&mut out, KEY, Some("access_token"));
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    assert_eq!(response.parse(&out), Ok(httparse::Status::Complete(out.len())));
    assert_eq!(response.code, Some(101));
    let field = |name: &str| {
        let header = response.headers.iter().find(|header| header.name == name);
        header.map(|header| std::str::from_utf8(header.value).unwrap())
    };
    assert_eq!(field("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field("Sec-WebSocket-Protocol"), Some("access_token"));
    assert_eq!(field("Connection"), Some("Upgrade"));
}

#[test]
fn a_refusal_is_a_whole_response_with_json() {
    let whole = |out: &[u8]| {
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(start)) = response.parse(out) else { panic!() };
        let field = |name: &str| {
            let header = response.headers.iter().find(|header| header.name == name);
            header.map(|header| String::from_utf8(header.value.to_vec()).unwrap())
        };
        assert_eq!(field("Content-Length").unwrap(), (out.len() - start).to_string());
        assert!(field("Connection").unwrap().starts_with("close"));
        let body: serde_json::Value = serde_json::from_slice(&out[start..]).unwrap();
        (response.code.unwrap(), field("Retry-After"), body)
    };
    let mut out = Vec::new();
    write_refusal(&mut out, &Refusal::InvalidToken("the \"aud\" claim\r\n is wrong".into()));
    let (status, retry_after, body) = whole(&out);
    assert_eq!((status, retry_after), (401, None));
    let message = "the \"aud\" claim\r\n is wrong";
    assert_eq!(body, serde_json::json!({ "code": 4002, "error": "invalid_token", "message": message }));
    out.clear();
    write_refusal(&mut out, &Refusal::Overloaded { retry_after_s: 7 });
    assert_eq!(whole(&out).1.as_deref(), Some("7"));
    for status in [400, 401, 403, 414, 426, 429, 431, 503] {
        out.clear();
        let body = RefusalBody { code: status, error: "e", message: "m" };
        refusal_response(&mut out, status, &[("Retry-After", "60")], &body);
        assert_eq!(whole(&out).0, status);
        assert_ne!(phrase(status), "Refused");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &LIMITS);
        let mut with_line = b"GET / HTTP/1.1\r\n".to_vec();
        with_line.extend(bytes);
        let _ = parse(&with_line, &LIMITS);
    }

    #[test]
    fn any_target_is_routed(target in "/[ -~&&[^ ]]{0,60}") {
        let _ = upgrade(&target, "");
    }

    #[test]
    fn every_prefix_of_a_head_asks_for_more(
        target in "/[a-z0-9?=&/%]{0,40}",
        values in proptest::collection::vec("[!-~]{0,30}", 0..6),
    ) {
        let headers = values.iter().map(|value| format!("X-Any: {value}\r\n")).collect::<String>();
        let whole = head(&target, &headers);
        for end in 0..whole.len() {
            prop_assert_eq!(parse(&whole.as_bytes()[..end], &LIMITS), Ok(Status::Incomplete), "{}", end);
        }
        prop_assert!(parsed(&whole).is_ok());
    }
}
