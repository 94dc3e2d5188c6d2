//! Origins, through the handshake and in band: who is let in is who is named.

use crate::figure;
use crate::support::wire::{self, Message, Wire};
use crate::support::{Client, NodeSetup, Server, Tenant};

/// What the token allows besides `myapp.com`.
const PORT: &str = "localhost:3000";
const IDN: &str = "xn--bcher-kva.example";

/// An Origin, and whether a page of it is let in.
const TABLE: &[(&str, bool)] = &[
    ("https://myapp.com", true),
    ("http://myapp.com", true),
    ("https://MYAPP.com", true),
    ("HTTPS://MyApp.COM", true),
    ("https://myapp.com:443", true),
    ("https://myapp.com:8443", true),
    ("http://localhost:3000", true),
    ("https://LOCALHOST:3000", true),
    ("https://xn--bcher-kva.example", true),
    ("https://XN--BCHER-KVA.example", true),
    // suffixes, prefixes, neighbours
    ("https://evilmyapp.com", false),
    ("https://evil-myapp.com", false),
    ("https://www.myapp.com", false),
    ("https://myapp.com.evil.net", false),
    ("https://myapp.com.", false),
    ("https://myapp.co", false),
    ("https://myapp.comm", false),
    ("https://myapp", false),
    ("https://com", false),
    ("https://yapp.com", false),
    ("https://xn--bcher-kva.example.evil.net", false),
    // ports
    ("http://localhost", false),
    ("http://localhost:3001", false),
    ("http://localhost:30000", false),
    ("http://localhost:300", false),
    ("http://localhost:03000", true), // the same number
    ("http://localhost:3000:3000", false),
    ("http://localhost:", false),
    ("http://localhost:+3000", false),
    ("http://localhost:65536", false),
    ("http://127.0.0.1:3000", false),
    ("http://[::1]:3000", false),
    // user-info
    ("https://myapp.com@evil.net", false),
    ("https://myapp.com:pass@evil.net", false),
    ("https://user@myapp.com", false),
    ("https://evil.net\\@myapp.com", false),
    ("https://evil.net#@myapp.com", false),
    ("https://evil.net?@myapp.com", false),
    // what is no origin
    ("null", false),
    ("NULL", false),
    ("", false),
    ("myapp.com", false),
    ("//myapp.com", false),
    ("://myapp.com", false),
    ("https:myapp.com", false),
    ("https:/myapp.com", false),
    ("https:///myapp.com", false),
    ("https://", false),
    ("https://myapp.com/", false),
    ("https://myapp.com/path", false),
    ("https://evil.net/myapp.com", false),
    ("https://myapp.com https://evil.net", false),
    ("https://evil.net, https://myapp.com", false),
    ("https://myapp%2ecom", false),
    ("https://%6dyapp.com", false),
    ("https://*.com", false),
    ("*", false),
    ("javascript:myapp.com", false),
    ("file://", false),
    // letters that look alike, and names that browsers never send so
    ("https://my\u{430}pp.com", false),
    ("https://myapp\u{3002}com", false),
    ("https://b\u{fc}cher.example", false),
    ("https://xn--bcher-kvb.example", false),
    ("https://\u{212a}yapp.com", false),
];

#[test]
fn an_origin_is_let_in_exactly_if_it_is_named() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let token = tenant
        .token()
        .claim("allowed_domain_1", "myapp.com")
        .claim("allowed_domain_2", PORT)
        .claim("allowed_domain_3", IDN)
        .build();
    let (mut asked, mut wrong) = (0, Vec::new());
    for &(origin, allowed) in TABLE {
        for (how, let_in) in [
            ("by y-websocket", by_upgrade(&server, origin, &token)),
            ("by Hocuspocus", in_band(&server, origin, &token)),
        ] {
            asked += 1;
            if let_in != allowed {
                wrong.push(format!("{origin:?} {how}: {let_in}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    figure("Origin", format_args!("0 wrong of {asked} ({} Origins, both wires)", TABLE.len()));
}

fn by_upgrade(server: &Server, origin: &str, token: &str) -> bool {
    let mut client = server.upgrade("/notes").token(token).origin(origin).open();
    client.send(&wire::step_one(&[0]));
    match client.receive() {
        crate::support::Incoming::Close(code, reason) => {
            assert_eq!(code, 4003, "{origin}: {reason}");
            false
        }
        _ => true,
    }
}

fn in_band(server: &Server, origin: &str, token: &str) -> bool {
    let mut client: Client = server.upgrade("/").origin(origin).open();
    let wire = Wire::Hocuspocus("notes".to_owned());
    client.send(&wire.frame(&wire::auth(token, None)));
    loop {
        match wire.parse(&client.receive_binary()) {
            Some(Message::Authenticated(_)) => return true,
            Some(Message::Denied(reason)) => {
                assert!(reason.starts_with("4003 "), "{origin}: {reason}");
                return false;
            }
            _ => {}
        }
    }
}
