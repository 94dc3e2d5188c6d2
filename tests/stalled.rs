//! Readers that stop reading while others write: nobody else notices, and the server's memory stays bounded.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use support::wire::{self, Wire};
use support::{Client, Incoming, NodeSetup, Replica, Server, Tenant, wait_until};
use yrs::Text;

const OUTBOX_BYTES: u64 = 256 << 10;
const MIB: u64 = 1 << 20;

/// What each update carries, so that few of them fill the queues.
const CHUNK: usize = 4 << 10;
const UPDATES: usize = 2_000;

fn node(tenant: &Tenant, stall_timeout_s: f64) -> Server {
    NodeSetup::new(tenant)
        .set("limits.outbox_bytes_max", format!("{} KiB", OUTBOX_BYTES >> 10))
        .set("limits.stall_timeout_s", stall_timeout_s)
        .start()
}

fn stalled(server: &Server) -> f64 {
    server.metrics().get("wiresocket_stalled_connections")
}

/// Lets the kernel take little for a client, so that the server's own queue soon fills.
fn take_little(replica: &Replica) {
    take(replica, 16 << 10);
}

/// How much the kernel takes for a client at a time.
fn take(replica: &Replica, bytes: usize) {
    let socket = socket2::SockRef::from(replica.client.stream());
    socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
}

/// Writes in small steps, at the pace of those who read.
fn write_much(writer: &mut Replica, readers: &mut [Replica], updates: usize) {
    let before = readers[0].updates_received;
    for n in 0..updates {
        let update = writer.edit(|text, transaction| {
            let end = text.len(transaction);
            text.insert(transaction, end, &format!("{n:08}").repeat(CHUNK / 8));
        });
        writer.send(&wire::update(&update));
        if n % 50 == 49 {
            // Whoever reads keeps up: the only one who falls behind is the one who doesn't.
            let count = before + n + 1;
            for reader in readers.iter_mut() {
                reader.wait_for("the writer's updates", |reader| reader.updates_received >= count);
            }
        }
    }
}

#[test]
fn a_reader_that_stops_reading_costs_others_nothing_and_converges_once_it_reads_again() {
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant, 600.0), tenant.token().build());
    let mut writer = Replica::join(&server, "busy", &token);
    let mut readers =
        vec![Replica::join(&server, "busy", &token), Replica::join_hocuspocus(&server, "busy", &token)];
    let mut idle =
        vec![Replica::join(&server, "busy", &token), Replica::join_hocuspocus(&server, "busy", &token)];
    idle.iter().for_each(take_little);
    let before = server.rss_bytes();
    let mut high = before;
    for _ in 0..UPDATES / 200 {
        write_much(&mut writer, &mut readers, 200);
        high = high.max(server.rss_bytes());
    }
    let through = (UPDATES * CHUNK) as u64;
    wait_until("both that do not read are stalled", || stalled(&server) == 2.0);
    for reader in &readers {
        assert_eq!(reader.updates_received, UPDATES, "one by one, none merged, none missing");
        assert_eq!(reader.text(), writer.text());
    }
    // Two outboxes; the document as encoded state, as updates since, and alive, once more while it is encoded.
    let bound = before + 2 * (OUTBOX_BYTES + 64 * 1024) + 6 * through;
    assert!(high < bound, "{} MiB resident, {} before", high / MIB, before / MIB);
    let text = writer.text();
    for reader in &mut idle {
        take(reader, MIB as usize); // see below: through the small window it would trickle
        reader.wait_for_text(&text);
        assert!(reader.updates_received < UPDATES, "it got the difference, not the stream");
    }
    assert!(server.metrics().get("wiresocket_resyncs_total") >= 2.0);
    writer.append("and on");
    let text = writer.text();
    for reader in readers.iter_mut().chain(&mut idle) {
        reader.wait_for_text(&text);
    }
    wait_until("nobody is stalled any more", || stalled(&server) == 0.0);
}

#[test]
fn a_reader_that_never_reads_again_is_closed_and_let_go() {
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant, 1.0), tenant.token().build());
    let mut writer = Replica::join(&server, "busy", &token);
    let mut readers = vec![Replica::join(&server, "busy", &token)];
    let mut idle = Replica::join(&server, "busy", &token);
    take_little(&idle);
    server.wait_for_metric("wiresocket_connections_total", 3.0);
    write_much(&mut writer, &mut readers, 2_000);
    wait_until("the stalled one is closed", || server.metrics().closes(1013) == 1.0);
    // What the kernel took in the server's stead, megabytes of it, would trickle through a small window for half a minute.
    take(&idle, MIB as usize);
    let (code, reason) = idle.wait_for_end();
    // Its queue was full: the close frame is behind what it did not read, or was lost with the socket.
    assert!(code == 1013 || code == 1006, "{code} {reason}");
    readers[0].flush();
    assert_eq!(readers[0].text(), writer.text());
    assert!(writer.ended.is_none() && readers[0].ended.is_none());
}

#[test]
fn a_client_that_asks_without_reading_is_not_answered_without_bound() {
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant, 2.0), tenant.token().build());
    let mut writer = Replica::join(&server, "large", &token);
    writer.append(&"0123456789abcdef".repeat(MIB as usize / 16));
    writer.flush();
    let other = Replica::join(&server, "large", &token);
    let before = server.rss_bytes();
    let mut flood = Client::join(&server, "large", &token);
    // Ten thousand times a megabyte, asked for in 60 KB.
    let question = flood_frame(&wire::step_one(&[0]));
    flood.send_raw(&question.repeat(10_000)).expect("it is sent at once");
    wait_until("it is stalled", || stalled(&server) == 1.0 || server.metrics().closes(1013) == 1.0);
    let high = server.rss_bytes();
    assert!(high < before + 64 * MIB, "{} MiB resident, {} before", high / MIB, before / MIB);
    wait_until("it is closed", || server.metrics().closes(1013) == 1.0);
    assert!(server.rss_bytes() < before + 64 * MIB);
    let mut late = Replica::join(&server, "large", &token);
    assert_eq!(late.text(), other.text());
    late.append("!");
    late.flush();
    writer.wait_for("the newcomer's edit", |writer| writer.text().ends_with('!'));
}

#[test]
fn a_flood_of_questions_that_is_read_is_answered() {
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant, 20.0), tenant.token().build());
    let mut writer = Replica::join(&server, "large", &token);
    writer.append(&"0123456789abcdef".repeat(MIB as usize / 16));
    writer.flush();
    let mut asks = Client::join(&server, "large", &token);
    asks.send_raw(&flood_frame(&wire::step_one(&[0])).repeat(200)).expect("it is sent at once");
    let mut answers = 0;
    while answers == 0 {
        if let Incoming::Binary(frame) = asks.receive() {
            let message = Wire::YWebsocket.parse(&frame);
            let whole = |update: &Vec<u8>| update.len() as u64 >= MIB;
            answers += usize::from(matches!(message, Some(wire::Message::StepTwo(update)) if whole(&update)));
        }
    }
    // It is as good a client as any afterwards.
    writer.append("?");
    loop {
        let Incoming::Binary(frame) = asks.receive() else { continue };
        match Wire::YWebsocket.parse(&frame) {
            Some(wire::Message::Update(_)) => break,
            // The edit may be in an answer that had to wait.
            Some(wire::Message::StepTwo(update)) if update.ends_with(b"?\0") => break,
            _ => {}
        }
    }
}

/// A client's frame, masked with zeros.
fn flood_frame(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}
