//! Who writes while the server crashes: editors over both wires, each with a few updates under way at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use yrs::{Map, Text, Transact, WriteTxn};

use super::recorder::Recorder;
use super::schedule::Schedule;
use super::support::wire::{self, Wire};
use super::support::{Answer, Client, Replica, Server};

/// Opens a document; `None` if the server is gone, or goes meanwhile.
pub fn open(address: SocketAddr, document: &str, token: &str, wire: &Wire) -> Option<Replica> {
    let upgrade = |target: &str| super::support::Upgrade::new(address, target);
    let upgrade = match wire {
        Wire::YWebsocket => upgrade(&format!("/{document}?acknowledge=true")).token(token),
        Wire::Hocuspocus(_) => upgrade("/"),
    };
    let client: Client = match upgrade.try_send() {
        Ok(Answer::Open(client)) => client,
        Ok(Answer::Refused(_)) | Err(_) => return None,
    };
    let mut replica = Replica::new(client, wire.clone());
    replica.doc.get_or_insert_map("filler");
    if matches!(wire, Wire::Hocuspocus(_)) {
        send(&mut replica, &wire::auth(token, None))?;
    }
    send(&mut replica, &wire::step_one(&[0]))?;
    replica
        .wait_for("sync", |replica| replica.synced && replica.acknowledged == 1 || replica.ended.is_some());
    replica.ended.is_none().then_some(replica)
}

fn send(replica: &mut Replica, body: &[u8]) -> Option<()> {
    let frame = replica.wire.frame(body);
    replica.client.try_send(&frame).ok()
}

/// A writer's part, as the schedule has it.
#[derive(Debug, Clone)]
pub struct Part {
    pub document: String,
    /// Marks begin with this.
    pub name: String,
    pub speaks_hocuspocus: bool,
    /// How many updates it sends before it waits for the first one's acknowledgement.
    pub under_way: u64,
    /// It leaves after so many, and comes back.
    pub stays: u64,
    pub filler_bytes: u64,
}

impl Part {
    pub fn new(schedule: &mut Schedule, document: String, name: String) -> Self {
        Self {
            document,
            name,
            speaks_hocuspocus: schedule.below(2) == 0,
            under_way: schedule.pick(&[1, 2, 8, 32]),
            stays: schedule.pick(&[20, 100, u64::MAX]),
            filler_bytes: schedule.pick(&[10, 1000, 6000]),
        }
    }
}

/// Writes until the server is gone, or `is_over`.
pub fn start(
    server: &Server,
    token: &str,
    part: Part,
    recorder: &Recorder,
    is_over: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (address, token) = (server.address, token.to_owned());
    let (recorder, is_over) = (recorder.clone(), Arc::clone(is_over));
    std::thread::spawn(move || {
        let mut written = 0;
        while !is_over.load(Ordering::Relaxed)
            && visit(address, &token, &part, &mut written, &recorder, &is_over).is_some()
        {}
    })
}

/// One stay in the document; `None` if the server is gone.
fn visit(
    address: SocketAddr,
    token: &str,
    part: &Part,
    written: &mut u64,
    recorder: &Recorder,
    is_over: &AtomicBool,
) -> Option<()> {
    let wire = match part.speaks_hocuspocus {
        true => Wire::Hocuspocus(part.document.clone()),
        false => Wire::YWebsocket,
    };
    let mut replica = open(address, &part.document, token, &wire)?;
    let first = *written;
    let mut noted = 0;
    while !is_over.load(Ordering::Relaxed) && *written - first < part.stays {
        let mark = format!("{}.{written}", part.name);
        let update = edit(&mut replica, &mark, part.filler_bytes, *written);
        let sent = send(&mut replica, &wire::update(&update));
        *written += u64::from(sent.is_some());
        let wanted = (*written - first).saturating_sub(part.under_way - 1);
        // Whatever the server said before it went counts.
        let wanted = if sent.is_some() { wanted } else { *written - first };
        note(&mut replica, part, first, wanted, &mut noted, recorder);
        if replica.ended.is_some() || sent.is_none() {
            note(&mut replica, part, first, u64::MAX, &mut noted, recorder);
            return None;
        }
    }
    note(&mut replica, part, first, *written - first, &mut noted, recorder);
    replica.ended.is_none().then_some(())
}

/// Waits until so many of this stay's updates are acknowledged, or the server is gone, and notes those that are.
fn note(replica: &mut Replica, part: &Part, first: u64, wanted: u64, noted: &mut u64, recorder: &Recorder) {
    // The first acknowledgement is of step 2.
    let done = |replica: &Replica| replica.acknowledged as u64 - 1;
    if replica.ended.is_none() {
        replica.wait_for("an acknowledgement or the end", |replica| {
            done(replica) >= wanted || replica.ended.is_some()
        });
    }
    assert_eq!(replica.refused, 0, "nobody may refuse {}'s updates", part.name);
    let acknowledged = done(replica);
    recorder
        .acknowledged(&part.document, (*noted..acknowledged).map(|n| format!("{}.{}", part.name, first + n)));
    *noted = acknowledged;
}

/// A mark somewhere in the text, and something big that takes the place of what it was before: garbage for the journal.
fn edit(replica: &mut Replica, mark: &str, filler_bytes: u64, n: u64) -> Vec<u8> {
    let mut transaction = replica.doc.transact_mut();
    let text = transaction.get_or_insert_text("content");
    let filler = transaction.get_or_insert_map("filler");
    let end = yrs::Text::len(&text, &transaction);
    text.insert(&mut transaction, end, &format!("{mark} "));
    let letter = char::from(b'a' + (n % 26) as u8);
    filler.insert(&mut transaction, "filler", String::from_iter((0..filler_bytes).map(|_| letter)));
    transaction.encode_update_v1()
}
