//! Fragments and request heads without end: what they make the server hold, and what the others notice.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use socket2::{Domain, Socket, Type};

use crate::support::tls::Authority;
use crate::support::wire::{self, Message, Wire};
use crate::support::{Answer, Client, Metrics, NodeSetup, Replica, Server, Tenant, http, wait_until};
use crate::{MIB, figure, grown_mib, p99_and_max, peak_bytes};

/// A client's frame of one byte, masked with zeros.
const fn one_byte(first: u8) -> [u8; 7] {
    [first, 0x81, 0, 0, 0, 0, 0]
}

const BEGINS: [u8; 7] = one_byte(2);
const GOES_ON: [u8; 7] = one_byte(0);
const ENDS: [u8; 7] = one_byte(0x80);

const MILLION: usize = 1_000_000;

#[test]
fn a_million_fragments_of_one_byte() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut other = Replica::join(&server, "shared", &token);
    let before = peak_bytes(&server);
    let mut client = Client::join(&server, "shared", &token);
    client.send_raw(&BEGINS).expect("it is sent");
    // The server reads no further than its bound: what follows may meet a closed socket.
    let _ = client.send_raw(&GOES_ON.repeat(MILLION));
    assert!(matches!(client.closed().0, 1009 | 1006));
    server.wait_for_metric("wiresocket_closes_total{code=\"1009\"}", 1.0);
    let refused = grown_mib(&server, before);
    assert!(refused < 16.0, "{refused} MiB");
    other.append("unharmed");
    other.flush();

    let server = NodeSetup::new(&tenant).set("limits.fragments_max", MILLION as i64).start();
    let mut client = Client::join(&server, "shared", &token);
    let before = peak_bytes(&server);
    client.send_raw(&BEGINS).expect("it is sent");
    client.send_raw(&GOES_ON.repeat(MILLION - 2)).expect("it is read");
    client.send_raw(&ENDS).expect("it is read");
    // A million zeros: a sync message that says step 1 of nothing, with bytes behind it.
    client.ping(b"done");
    wait_until("the message was taken", || {
        matches!(client.receive(), crate::support::Incoming::Pong | crate::support::Incoming::Close(..))
    });
    let taken = grown_mib(&server, before);
    assert!(taken < 16.0, "{taken} MiB for a message of 1 MB");
    figure(
        "10^6 one-byte fragments",
        format_args!(
            "refused (1009) at the 1,025th, {refused:.1} MiB more at the peak; with fragments_max raised: one message, {taken:.1} MiB"
        ),
    );
}

#[test]
fn messages_that_never_end() {
    const CLIENTS: usize = 500;
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::join(&server, "shared", &token)).collect();
    clients.iter_mut().for_each(|client| {
        client.ping(b"in");
        while client.receive() != crate::support::Incoming::Pong {}
    });
    let before = server.rss_bytes();
    for client in &mut clients {
        client.send_raw(&BEGINS).expect("it is sent");
        client.send_raw(&GOES_ON.repeat(1000)).expect("it is sent");
        // Control frames may come in between: this one says that all before it was read.
        client.ping(b"in");
        while client.receive() != crate::support::Incoming::Pong {}
    }
    let each = server.rss_bytes().saturating_sub(before) / CLIENTS as u64;
    assert!(each < 16 << 10, "{each} bytes for a message of 1,001");
    figure(
        "endless fragments",
        format_args!("{each} B resident for each of {CLIENTS} open messages of 1,001 B in as many fragments"),
    );
}

/// Two editors who type, one character a time, each waiting for the other's.
struct Pair([Replica; 2]);

impl Pair {
    fn join(server: &Server, token: &str) -> Self {
        Self([Replica::join(server, "pair", token), Replica::join(server, "pair", token)])
    }

    /// How long a character takes from the one to the other.
    fn exchange(&mut self) -> Duration {
        let began = Instant::now();
        self.0[0].append("x");
        let text = self.0[0].text();
        self.0[1].wait_for_text(&text);
        self.0.reverse();
        began.elapsed()
    }
}

#[test]
fn heads_of_a_megabyte_and_of_five_thousand_headers() {
    const CLIENTS: usize = 200;
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut pair = Pair::join(&server, &token);
    let before = peak_bytes(&server);
    let long = server.upgrade("/shared").header("X-Long", &"x".repeat(MIB as usize)).head();
    let mut many = server.upgrade("/shared");
    for n in 0..5000 {
        many = many.header(&format!("X-{n}"), "1");
    }
    let many = many.head();
    let mut times = Vec::new();
    let mut answered = 0;
    for _ in 0..CLIENTS / 2 {
        for head in [&long, &many] {
            let mut stream = http::connect(server.address);
            // The server stops reading at its bound, and its reset may overtake the answer.
            let _ = stream.write_all(head);
            let mut answer = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
            answered += usize::from(answer.starts_with(b"HTTP/1.1 431"));
        }
        times.push(pair.exchange());
    }
    server.wait_for_metric("wiresocket_connections_active", 2.0);
    let grown = grown_mib(&server, before);
    assert!(answered > 0, "nobody was told");
    assert!(grown < 32.0, "{grown} MiB");
    let (p99, max) = p99_and_max(times);
    figure(
        "header floods",
        format_args!(
            "{CLIENTS} heads of 1 MB or 5,000 headers, 0 let in, {answered} read their 431; {grown:.1} MiB more at the peak; others' relay p99 {p99:.1?}, max {max:.1?}"
        ),
    );
}

#[test]
fn slow_writers() {
    const CLIENTS: usize = 2000;
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).set("limits.handshake_timeout_s", 5).start();
    let mut pair = Pair::join(&server, &token);
    let before = server.rss_bytes();
    let mut quiet = Vec::new();
    for _ in 0..200 {
        quiet.push(pair.exchange());
    }
    let head = server.upgrade("/pair").token(&token).header("X-Slow", &"x".repeat(2000)).head();
    let mut slow: Vec<TcpStream> = (0..CLIENTS).map(|_| http::connect(server.address)).collect();
    for stream in &mut slow {
        stream.write_all(&head[..1000]).expect("the first part is sent");
    }
    // One byte each, round after round, until the server has dropped every one of them.
    let (mut at, mut times, mut high) = (1000, Vec::new(), 0);
    let dropped = || server.metrics().get("wiresocket_closes_total{code=\"408\"}") as usize;
    while dropped() < CLIENTS {
        assert!(at < head.len() - 4, "a slow head was let finish");
        for (n, stream) in slow.iter_mut().enumerate() {
            let _ = stream.write_all(&head[at..=at]);
            if n % 200 == 0 {
                times.push(pair.exchange());
            }
        }
        at += 1;
        high = high.max(server.rss_bytes());
    }
    let each = high.saturating_sub(before) / CLIENTS as u64;
    assert!(each < 16 << 10, "{each} bytes for each slow head");
    let Answer::Open(_) = server.upgrade("/pair").token(&token).send() else { panic!("no room is left") };
    let ((calm, _), (p99, max)) = (p99_and_max(quiet), p99_and_max(times));
    figure(
        "slowloris",
        format_args!(
            "{CLIENTS} heads a byte at a time: all dropped by the deadline, {each} B resident each; others' relay p99 {p99:.1?}, max {max:.1?} (before: p99 {calm:.1?})"
        ),
    );
}

/// Connects from another of the loopback's addresses.
fn connect_from(source: [u8; 4], server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the loopback");
    socket.connect(&server.address.into()).expect("the server's queue takes it");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a read timeout");
    stream
}

#[test]
fn connections_that_say_nothing_from_one_address() {
    const PLACES: usize = 64;
    const OF_ONE: usize = 8;
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let setup = NodeSetup::new(&tenant)
        .set("node.shards", 1)
        .set("http.upgrades_per_minute", 1000)
        .set("limits.pending_handshakes_max", PLACES as i64)
        .set("limits.handshake_timeout_s", 600)
        .set("sessions.idle_timeout_s", 600)
        .set("http.exempt_networks", vec!["127.0.0.3"]);
    let server = setup.start();
    // More than all places there are.
    let silent: Vec<TcpStream> = (0..PLACES * 2).map(|_| connect_from([127, 0, 0, 2], &server)).collect();
    let began = Instant::now();
    Replica::join(&server, "shared", &token);
    let entered = began.elapsed();
    let refused = (PLACES * 2 - OF_ONE) as f64;
    server.wait_for_metric("wiresocket_closes_total{code=\"429\"}", refused);
    let mut gone = 0;
    for mut stream in &silent {
        stream.set_nonblocking(true).expect("it is a socket");
        let read = std::io::Read::read(&mut stream, &mut [0]);
        let is_open = matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        gone += usize::from(!is_open);
    }
    assert_eq!(gone, PLACES * 2 - OF_ONE);
    // Those that have gone make room; and an exempt network may have more.
    drop(silent);
    let request = |source: [u8; 4]| {
        let mut stream = connect_from(source, &server);
        // It may be closed before it has said a word.
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        http::read_to_end(&mut stream).starts_with(b"HTTP/1.1 200")
    };
    wait_until("there is room again", || request([127, 0, 0, 2]));
    let many: Vec<TcpStream> = (0..OF_ONE * 3).map(|_| connect_from([127, 0, 0, 3], &server)).collect();
    assert!(request([127, 0, 0, 3]));
    assert_eq!(server.metrics().closes(429), refused);
    drop(many);
    figure(
        "silent connections of one address",
        format_args!("twice as many as there are places: another address's editor is in after {entered:.1?}"),
    );
}

#[test]
fn silent_connections_are_those_of_whom_a_proxy_names() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("node.shards", 1)
        .set("node.proxy_protocol", "listen")
        .set("http.trusted_proxies", vec!["127.0.0.1"])
        .set("http.upgrades_per_minute", 1000)
        .set("limits.pending_handshakes_max", 64)
        .set("limits.handshake_timeout_s", 600)
        .set("sessions.idle_timeout_s", 600)
        .start();
    let connect = |client: &str| {
        let mut stream = http::connect(server.address);
        stream.write_all(format!("PROXY TCP4 {client} 127.0.0.1 1 1\r\n").as_bytes()).expect("sent");
        stream
    };
    let silent: Vec<TcpStream> = (0..60).map(|_| connect("192.0.2.1")).collect();
    let mut other = connect("192.0.2.2");
    other.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let page = http::Response::parse(&http::read_to_end(&mut other));
    // Eight of one address, whatever address its proxy has.
    assert_eq!(Metrics::parse(page.text()).closes(429), 52.0);
    drop(silent);
}

#[test]
fn tls_handshakes_that_stay_half_open() {
    const CLIENTS: usize = 1000;
    let (tenant, authority) = (Tenant::new(1), Authority::new());
    authority.renew();
    let server = NodeSetup::new(&tenant)
        .set("tls.certificate", authority.certificate().to_str().expect("UTF-8"))
        .set("tls.private_key", authority.key().to_str().expect("UTF-8"))
        .set("limits.handshake_timeout_s", 60)
        .start();
    let token = tenant.token().build();
    let connector = authority.connector(&[&TLS12, &TLS13]);
    let enter = || {
        let began = Instant::now();
        drop(server.upgrade("/pair").token(&token).open_over(connector.connect(server.address)));
        began.elapsed()
    };
    enter();
    let before = server.rss_bytes();
    let mut times = Vec::new();
    let half_open: Vec<TcpStream> = (0..CLIENTS)
        .map(|n| {
            let mut hello = Vec::new();
            connector.session().write_tls(&mut hello).expect("a ClientHello");
            let mut stream = http::connect(server.address);
            stream.write_all(&hello).expect("it is sent");
            // The server has done its part, which is what costs, and waits.
            std::io::Read::read_exact(&mut stream, &mut [0; 64]).expect("the server's flight");
            if n % 20 == 0 {
                times.push(enter());
            }
            stream
        })
        .collect();
    let each = server.rss_bytes().saturating_sub(before) / CLIENTS as u64;
    assert!(each < 32 << 10, "{each} bytes for each half-open handshake");
    drop(half_open);
    let (p99, max) = p99_and_max(times);
    figure(
        "half-open TLS handshakes",
        format_args!(
            "{CLIENTS}: {each} B resident each; others got in meanwhile, p99 {p99:.1?}, max {max:.1?}"
        ),
    );
}

#[test]
fn count_and_depth_bombs_through_the_socket() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut pair = Pair::join(&server, &token);
    let before = peak_bytes(&server);
    let nested = |depth: usize| {
        let head = [1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1];
        [&head[..], &[117, 1].repeat(depth), &[126, 0]].concat()
    };
    let bomb = vec![0xff, 0xff, 0xff, 0x7a];
    let messages = [
        wire::step_one(&bomb),
        wire::update(&bomb),
        wire::step_two(&bomb),
        wire::update(&nested(5000)),
        wire::update(&nested(1_000_000)),
        wire::update(&[&[1, 1, 9, 0, 4, 1, 1, b't'][..], &[0xff, 0xff, 0xff, 0x7f], b"x"].concat()),
        vec![wire::AWARENESS, 4, 0xff, 0xff, 0xff, 0x7a],
    ];
    let (mut times, mut sent) = (Vec::new(), 0);
    for _ in 0..20 {
        for message in &messages {
            for is_keyed in [false, true] {
                let mut client = Client::join(&server, "pair", &token);
                let mut message = message.clone();
                if is_keyed {
                    let wire = Wire::Hocuspocus("pair".to_owned());
                    client = Client::hocuspocus(&server);
                    client.send(&wire.frame(&wire::auth(&token, None)));
                    while !matches!(wire.parse(&client.receive_binary()), Some(Message::Authenticated(_))) {}
                    message = wire.frame(&message);
                }
                let began = Instant::now();
                client.send(&message);
                assert_eq!(client.closed().0, 1007);
                times.push(began.elapsed());
                sent += 1;
            }
        }
        pair.exchange();
    }
    let grown = grown_mib(&server, before);
    assert!(grown < 64.0, "{grown} MiB");
    let (p99, max) = p99_and_max(times);
    figure(
        "count and depth bombs",
        format_args!(
            "{sent} through the socket: each closed with 1007 (p99 {p99:.1?}, max {max:.1?}, the message's way included), 0 aborts; {grown:.1} MiB more at the peak"
        ),
    );
}
