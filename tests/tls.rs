//! TLS on the data plane, and PROXY headers before it: the real binary against rustls's client.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use rcgen::date_time_ymd;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use support::http::{self, Response};
use support::tls::{Authority, Connector, Stream};
use support::wire::Wire;
use support::{DashboardServer, Incoming, Metrics, NodeSetup, Replica, Server, Tenant, server, wait_until};

/// Two shards that speak TLS, and plain HTTP on a second address.
fn node(tenant: &Tenant, authority: &Authority) -> NodeSetup {
    NodeSetup::new(tenant)
        .set("node.plaintext_listen", "127.0.0.1:0")
        .set("tls.certificate", authority.certificate().to_str().expect("UTF-8"))
        .set("tls.private_key", authority.key().to_str().expect("UTF-8"))
}

fn start(setup: NodeSetup, authority: &Authority) -> Server {
    authority.renew();
    setup.start()
}

fn plaintext(server: &Server) -> SocketAddr {
    let entry = server.wait_for_log("where it listens", |entry| entry["message"] == "listening");
    entry["plaintext_address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
}

/// Plain, so that it changes none of TLS's figures.
fn metrics(server: &Server) -> Metrics {
    Metrics::scrape(plaintext(server))
}

#[track_caller]
fn join(server: &Server, connector: &Connector, document: &str, token: &str) -> Replica {
    let upgrade = server.upgrade(&format!("/{document}")).token(token);
    let client = upgrade.open_over(connector.connect(server.address));
    let mut replica = Replica::new(client, Wire::YWebsocket);
    replica.sync();
    replica
}

#[track_caller]
fn get(stream: &mut (impl Read + Write), target: &str) -> Response {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .expect("the request is sent");
    Response::parse(&http::read_to_end(stream))
}

#[test]
fn editors_share_documents_of_both_shards_in_both_versions() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let token = tenant.token().build();
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let connector = authority.connector(&[version]);
        let stream = connector.connect(server.address);
        assert_eq!((stream.version(), stream.alpn()), (Some(number), Some(&b"http/1.1"[..])));
        for document in 0..12 {
            let document = format!("{number:?}-{document}");
            let mut first = join(&server, &connector, &document, &token);
            let mut second = join(&server, &connector, &document, &token);
            first.append("Hello");
            second.wait_for_text("Hello");
            second.append(" world");
            first.wait_for_text("Hello world");
        }
    }
    let metrics = metrics(&server);
    assert!(metrics.get("wiresocket_handovers_in_total") > 0.0, "some were accepted by the other shard");
    assert_eq!(metrics.get("wiresocket_handovers_in_total"), metrics.get("wiresocket_handovers_out_total"));
    assert_eq!(metrics.get("wiresocket_tls_failures_total"), 0.0);
}

#[test]
fn messages_of_many_records_pass_both_ways() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let token = tenant.token().build();
    let connector = authority.connector(&[&TLS12, &TLS13]);
    let mut first = join(&server, &connector, "large", &token);
    let mut second = join(&server, &connector, "large", &token);
    let text = "0123456789abcdef".repeat(100_000);
    first.append(&text);
    second.wait_for_text(&text);
    let mut late = join(&server, &connector, "large", &token);
    late.wait_for_text(&text);
}

#[test]
fn a_connection_may_change_its_shard_in_the_middle_of_a_record() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let token = tenant.token().build();
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector(&[version]);
        for document in 0..8 {
            let Stream::Tls(mut stream) = connector.connect(server.address) else {
                panic!("it is encrypted")
            };
            let mut sealed = |plain: &[u8]| {
                stream.conn.writer().write_all(plain).expect("there is room");
                let mut bytes = Vec::new();
                while stream.conn.wants_write() {
                    stream.conn.write_tls(&mut bytes).expect("there is memory");
                }
                bytes
            };
            let head = sealed(&server.upgrade(&format!("/{document}")).token(&token).head());
            let ping = sealed(&[0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']);
            let (first, rest) = ping.split_at(1 + 4 * document);
            stream.sock.write_all(&[&head, first].concat()).expect("sent");
            let support::Answer::Open(mut client) = support::Answer::read(Stream::Tls(stream)) else {
                panic!("the token is good")
            };
            client.stream().write_all(rest).expect("sent");
            while client.receive() != Incoming::Pong {}
        }
    }
    assert!(metrics(&server).get("wiresocket_handovers_in_total") > 0.0);
}

#[test]
fn plain_requests_are_answered_through_tls_and_beside_it() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    for versions in [&[&TLS12][..], &[&TLS13][..]] {
        let connector = authority.connector(versions);
        for _ in 0..4 {
            // Read to its end: rustls's client takes an end without a close_notify for an error.
            let response = get(&mut connector.connect(server.address), "/health");
            assert_eq!((response.status, &response.json()["status"]), (200, &"healthy".into()));
        }
        let page = get(&mut connector.connect(server.address), "/metrics");
        assert!(page.body.len() > 4096 && page.text().contains("wiresocket_tls_handshakes_total"));
    }
    assert_eq!(http::get(plaintext(&server), "/health").status, 200);
    let address = plaintext(&server);
    let token = tenant.token().build();
    let upgrade = support::Upgrade::new(address, "/notes").token(&token);
    let mut beside = Replica::new(upgrade.open(), Wire::YWebsocket);
    beside.sync();
    let mut inside = join(&server, &authority.connector(&[&TLS13]), "notes", &token);
    inside.append("x");
    beside.wait_for_text("x");
}

#[test]
fn each_port_says_what_it_is_for() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let answer = http::get(server.address, "/health");
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("text/plain")));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    let mut stream = http::connect(plaintext(&server));
    stream.write_all(&[0x16, 3, 1, 0, 5]).expect("sent");
    assert_eq!(Response::parse(&http::read_to_end(&mut stream)).status, 400);
    server.wait_for_log("the plain port's line", |entry| {
        entry["message"]
            .as_str()
            .is_some_and(|message| message.contains("speaks TLS, and this port plain HTTP"))
    });
    let mut stream = http::connect(server.address);
    stream.write_all(&[0, 1, 2]).expect("sent");
    assert_eq!(http::read_to_end(&mut stream), b"");
}

#[test]
fn sessions_are_resumed_with_tickets_on_any_shard() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    for (round, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let connector = authority.connector(&[version]);
        let mut first = connector.connect(server.address);
        assert_eq!(first.kind(), Some(HandshakeKind::Full));
        assert_eq!(get(&mut first, "/health").status, 200);
        for _ in 0..8 {
            let mut next = connector.connect(server.address);
            assert_eq!(next.kind(), Some(HandshakeKind::Resumed), "{version:?}");
            assert_eq!(get(&mut next, "/health").status, 200);
        }
        let (done, metrics) = ((round + 1) as f64, metrics(&server));
        assert_eq!(metrics.get("wiresocket_tls_handshakes_total"), done * 9.0);
        assert_eq!(metrics.get("wiresocket_tls_resumed_total"), done * 8.0);
    }
}

#[test]
fn a_new_certificate_is_taken_over_while_connections_live() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let token = tenant.token().build();
    // A new connector each time: a resumed session shows the certificate it began with.
    let shown = || authority.connector(&[&TLS13]).connect(server.address).certificate();
    let mut old = join(&server, &authority.connector(&[&TLS13]), "notes", &token);
    let first = shown();
    authority.renew();
    wait_until("the new certificate is found", || shown() != first);
    let second = shown();
    let (certificate, _) = authority.issue(|_| {});
    let (_, key) = authority.issue(|_| {});
    authority.put(&certificate, &key);
    let line = server.wait_for_log("that the files don't fit", |entry| {
        entry["level"] == "ERROR"
            && entry["message"].as_str().is_some_and(|message| message.contains("stays as it was"))
    });
    assert!(line["message"].as_str().is_some_and(|text| text.contains("does not belong")), "{line}");
    assert_eq!(shown(), second, "the last good one is in use");
    authority.renew();
    server.reload();
    let third = shown();
    assert!(third != first && third != second);
    old.append("still here");
    let mut new = join(&server, &authority.connector(&[&TLS12]), "notes", &token);
    new.wait_for_text("still here");
}

#[test]
fn files_that_cannot_be_used_end_the_start_with_what_is_wrong() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    let setup = node(&tenant, &authority).set("auth.key_dir", dir.path().to_str().expect("UTF-8"));
    std::fs::write(&file, setup.to_toml()).expect("the configuration is written");
    let start = || server::run(&["node", "--config", file.to_str().expect("UTF-8")]);
    let check = || server::run(&["check-config", file.to_str().expect("UTF-8")]);
    let (certificate, key) = authority.issue(|_| {});
    let (_, other) = authority.issue(|_| {});
    let cases = [
        ("", key.as_str(), "there is no certificate in"),
        (&certificate, "", "there is no private key in"),
        (&certificate, &other, "does not belong to the first certificate"),
        (&certificate, &key[..key.len() / 2], "a section has no end"),
    ];
    for (certificate, key, expected) in cases {
        authority.put(certificate, key);
        let (code, _, err) = start();
        assert_eq!(code, Some(78), "{err}");
        assert!(err.contains(expected) && err.contains("tls."), "{err}");
        assert!(key.is_empty() || !err.contains(&key[30..60]), "no part of a key is shown: {err}");
        assert_eq!(check(), (Some(78), String::new(), err), "the check says it too");
    }
    authority.put(&certificate, &key);
    let (code, printed, err) = check();
    assert_eq!((code, err.contains("TLS")), (Some(0), false), "{err}");
    assert!(printed.contains("[tls]"), "{printed}");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(authority.key(), open).expect("the key's rights are set");
    let (code, _, err) = start();
    assert!(code == Some(78) && err.contains("chmod 600"), "{err}");
    assert_eq!(check(), (Some(78), String::new(), err));
    let (old, key) = authority.issue(|params| params.not_after = date_time_ymd(2020, 1, 1));
    authority.put(&old, &key);
    let (code, _, err) = check();
    assert!(
        code == Some(0) && err.contains("warning: TLS: the certificate") && err.contains("it expired"),
        "{err}"
    );
    // The file may be meant for another host: only the start refuses.
    std::fs::remove_file(authority.key()).expect("the key is there");
    let (code, _, err) = check();
    assert!(
        code == Some(0) && err.contains("warning: TLS") && err.contains("cannot read the private key"),
        "{err}"
    );
    assert_eq!(start().0, Some(78));
}

#[test]
fn an_expired_certificate_is_warned_of() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let (certificate, key) = authority.issue(|params| params.not_after = date_time_ymd(2020, 1, 1));
    authority.put(&certificate, &key);
    let server = node(&tenant, &authority).start();
    server.wait_for_log("the warning", |entry| {
        entry["level"] == "WARN"
            && entry["message"].as_str().is_some_and(|message| message.contains("it expired"))
    });
    let expiry = || metrics(&server).get("wiresocket_tls_certificate_expiry_seconds");
    assert_eq!(expiry(), 1_577_836_800.0, "2020-01-01");
    let (certificate, key) = authority.issue(|params| params.not_after = date_time_ymd(2100, 1, 1));
    authority.put(&certificate, &key);
    wait_until("the new one is in use", || expiry() == 4_102_444_800.0);
}

#[test]
fn a_node_without_a_certificate_has_no_expiry_of_it() {
    let metrics = NodeSetup::new(&Tenant::new(1)).start().metrics();
    assert!(metrics.has("wiresocket_connections_active"));
    assert!(!metrics.has("wiresocket_tls_certificate_expiry_seconds"));
}

#[test]
fn a_handshake_that_does_not_come_to_its_end_is_ended() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority).set("limits.handshake_timeout_s", 0.5), &authority);
    let mut session = authority.connector(&[&TLS13]).session();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a ClientHello");
    let tokenless = [&[][..], &hello[..1], &hello[..hello.len() / 2]];
    for part in tokenless {
        let mut stream = http::connect(server.address);
        stream.write_all(part).expect("sent");
        assert_eq!(http::read_to_end(&mut stream), b"", "nothing is said to half a ClientHello");
    }
    let mut stream = http::connect(server.address);
    stream.write_all(&hello).expect("sent");
    assert!(!http::read_to_end(&mut stream).is_empty(), "the server has said its part, and closed");
    // A proxy that does not say all of it.
    let proxied = node(&tenant, &authority)
        .set("limits.handshake_timeout_s", 0.5)
        .set("node.proxy_protocol", "both")
        .set("http.trusted_proxies", vec!["127.0.0.0/8"])
        .start();
    for address in [proxied.address, plaintext(&proxied)] {
        for part in [&b""[..], b"PROXY TCP4 192.0.2.1 ", &proxy_header([192, 0, 2, 1])[..20]] {
            let mut stream = http::connect(address);
            stream.write_all(part).expect("sent");
            assert_eq!(http::read_to_end(&mut stream), b"");
        }
    }
    // Through with TLS's handshake, but no request.
    let mut stream = authority.connector(&[&TLS13]).connect(server.address);
    let mut nothing = [0; 1];
    assert!(!matches!(stream.read(&mut nothing), Ok(1..)));
    assert_eq!(metrics(&server).closes(408), 5.0);
    assert_eq!(metrics(&server).get("wiresocket_connections_total"), 0.0);
}

#[test]
fn a_client_hello_may_come_byte_by_byte_and_what_is_none_gets_an_alert() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let mut session = authority.connector(&[&TLS13]).session();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a ClientHello");
    let mut stream = http::connect(server.address);
    for byte in &hello {
        stream.write_all(&[*byte]).expect("sent");
    }
    let mut stream = rustls::StreamOwned::new(session, stream);
    assert_eq!(get(&mut stream, "/health").status, 200);
    let exchange = |garbage: &[u8]| {
        let mut stream = http::connect(server.address);
        stream.write_all(garbage).expect("sent");
        http::read_to_end(&mut stream)
    };
    // rustls says nothing to a message that claims to be huge.
    assert_eq!(exchange(&[0x16, 3, 1, 0, 4, 9, 9, 9, 9]), b"");
    for garbage in [&[0x16, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 0, 0][..], &[0x16, 3, 3, 0xff, 0xff]] {
        assert_eq!(exchange(garbage).first(), Some(&21), "an alert");
    }
    // Somebody who would speak HTTP/2 only.
    let mut connector = authority.connector(&[&TLS13]);
    std::sync::Arc::make_mut(&mut connector.0).alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = rustls::StreamOwned::new(connector.session(), http::connect(server.address));
    let error = stream.write_all(b"x").and_then(|()| stream.read(&mut [0])).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    wait_until("all are counted", || metrics(&server).get("wiresocket_tls_failures_total") == 4.0);
}

#[test]
fn both_sides_say_goodbye() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let server = start(node(&tenant, &authority), &authority);
    let token = tenant.token().build();
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector(&[version]);
        // A client that leaves TLS but not TCP has left.
        let mut client = join(&server, &connector, "notes", &token).client;
        client.connection().say_goodbye();
        wait_until("it has left", || metrics(&server).get("wiresocket_connections_active") == 0.0);
        // So has one that said so together with its request, whatever shard its document has.
        let began = metrics(&server).get("wiresocket_connections_total");
        let brief = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|document| {
            let mut stream = connector.connect(server.address);
            let head = server.upgrade(&format!("/{document}")).token(&token).head();
            stream.write_all(&head).expect("the upgrade is sent");
            stream.say_goodbye();
            stream
        });
        wait_until("they came and left", || {
            let metrics = metrics(&server);
            let came = metrics.get("wiresocket_connections_total") - began;
            came == brief.len() as f64 && metrics.get("wiresocket_connections_active") == 0.0
        });
        // A server that closes a WebSocket says so in TLS too: without that, rustls's client reads an error.
        let upgrade = server.upgrade("/notes").token("none").origin("https://app.example.com");
        let mut client = upgrade.open_over(connector.connect(server.address));
        assert!(matches!(client.receive(), Incoming::Close(4002 | 4003, _)));
        let end = client.connection().read(&mut [0]);
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
}

#[test]
fn a_receiver_that_takes_nothing_is_resynced_over_tls() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let setup = node(&tenant, &authority).set("limits.outbox_bytes_max", "16 KiB");
    let server = start(setup, &authority);
    let token = tenant.token().build();
    let connector = authority.connector(&[&TLS13]);
    let mut slow = join(&server, &connector, "notes", &token);
    let mut writer = join(&server, &connector, "notes", &token);
    // As much as the kernel would keep, until it is full.
    socket2::SockRef::from(slow.client.stream()).set_recv_buffer_size(16 << 10).expect("a small buffer");
    let chunk = "x".repeat(1 << 20);
    let mut chunks = 0;
    wait_until("the receiver's queue is full", || {
        writer.append(&chunk);
        writer.flush();
        chunks += 1;
        metrics(&server).get("wiresocket_stalled_connections") > 0.0
    });
    slow.wait_for("all of it", |replica| replica.text().len() == chunks << 20);
}

#[test]
fn the_dashboard_speaks_tls_and_takes_new_certificates() {
    let authority = Authority::new();
    authority.renew();
    let (certificate, key) = (authority.certificate(), authority.key());
    let tls = format!("[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let dashboard = DashboardServer::start(&tls);
    // Somebody who says nothing holds nobody up.
    let _silent = http::connect(dashboard.address);
    for version in [&TLS12, &TLS13] {
        let mut stream = authority.connector(&[version]).connect(dashboard.address);
        let response = get(&mut stream, "/health");
        assert_eq!((response.status, &response.json()["status"]), (200, &"healthy".into()));
    }
    let mut stream = http::connect(dashboard.address);
    assert_eq!(get(&mut stream, "/health").status, 400);
    let shown = || authority.connector(&[&TLS13]).connect(dashboard.address).certificate();
    let first = shown();
    authority.renew();
    wait_until("the new certificate is found", || shown() != first);
}

/// Version 2, TCP over IPv4, from this address.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb]);
    header
}

#[test]
fn a_trusted_proxy_says_whose_connection_it_is() {
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    let setup = node(&tenant, &authority)
        .set("node.proxy_protocol", "listen")
        .set("http.trusted_proxies", vec!["127.0.0.0/8"])
        .set("http.upgrades_per_minute", 1);
    let server = start(setup, &authority);
    let token = tenant.token().build();
    let connector = authority.connector(&[&TLS13]);
    let open = |client: [u8; 4]| {
        let mut tcp = http::connect(server.address);
        // In two parts, and the second one together with what follows.
        let header = proxy_header(client);
        tcp.write_all(&header[..7]).expect("sent");
        tcp.write_all(&header[7..]).expect("sent");
        let mut stream = connector.over(tcp);
        stream.write_all(&server.upgrade("/notes").token(&token).head()).expect("sent");
        support::Answer::read(stream)
    };
    for client in [[192, 0, 2, 1], [192, 0, 2, 2]] {
        assert!(matches!(open(client), support::Answer::Open(_)), "each address has its own bucket");
        match open(client) {
            support::Answer::Refused(response) => assert_eq!(response.status, 429),
            support::Answer::Open(_) => panic!("the bucket was empty"),
        }
        let address = std::net::Ipv4Addr::from(client).to_string();
        server.wait_for_log("who was refused", |entry| entry["peer"] == address && entry["status"] == 429);
    }
    // Who is named, by either header or by both at once.
    let named = |header: &[u8], forwarded_for: &str| {
        let mut tcp = http::connect(server.address);
        tcp.write_all(header).expect("sent");
        let mut stream = connector.over(tcp);
        let upgrade = server.upgrade("/notes").token(&token).header("X-Forwarded-For", forwarded_for);
        stream.write_all(&upgrade.head()).expect("sent");
        matches!(support::Answer::read(stream), support::Answer::Open(_))
    };
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 12345 443\r\n";
    assert!(!named(mapped, "203.0.113.1"), "the same address in its IPv6 form, which is no proxy");
    assert!(named(&proxy_header([127, 0, 0, 9]), "203.0.113.2"), "a proxy behind the proxy");
    assert!(!named(&proxy_header([127, 0, 0, 9]), "203.0.113.2"));
    assert!(!named(&proxy_header([203, 0, 113, 2]), "203.0.113.3"), "it is its bucket, however it is named");
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x03\x04\0\0";
    assert!(named(local, "203.0.113.4") && !named(local, "203.0.113.4"), "the proxy's own connection");
    // Without a header, and with a wrong one.
    for wrong in [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"] {
        let mut stream = http::connect(server.address);
        stream.write_all(wrong).expect("sent");
        assert_eq!(http::read_to_end(&mut stream), b"");
    }
    for what in ["doesn't begin with a PROXY header", "of version 3"] {
        server.wait_for_log(what, |entry| entry["message"].as_str().is_some_and(|m| m.contains(what)));
    }
    assert_eq!(http::get(plaintext(&server), "/health").status, 200, "the other port expects none");
}

#[test]
fn nobody_else_may_say_it() {
    let tenant = Tenant::new(1);
    let setup = NodeSetup::new(&tenant)
        .set("node.proxy_protocol", "both")
        .set("http.trusted_proxies", vec!["10.0.0.0/8"]);
    let dir = tempfile::tempdir().expect("a directory");
    let server = setup.start_in(dir);
    let mut stream = http::connect(server.address);
    let _ = stream.write_all(&proxy_header([192, 0, 2, 1]));
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    assert_eq!(http::read_to_end(&mut stream), b"");
    server.wait_for_log("why", |entry| {
        entry["message"].as_str().is_some_and(|message| message.contains("not in http.trusted_proxies"))
    });
}
