//! Hocuspocus messages, through the engine: one socket with several documents, beside one who is honest in one of them.

use wiresocket::engine::event::Incoming;
use wiresocket::protocol::lib0;

use super::stage::{self, Stage};
use super::steps::Steps;

const KEYS: [&str; 3] = [stage::SHARED, "other", "other\0session"];

fn keyed(key: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    lib0::write_var_str(&mut message, key);
    message.extend_from_slice(body);
    message
}

pub fn run(data: &[u8]) {
    let mut stage = Stage::new();
    // Nothing else opens a document.
    let opening = KEYS.map(|key| keyed(key, &stage::sync(0, &[0])));
    for (operation, payload) in Steps(data) {
        let hostile = stage.hostile(None, &[&opening[0], &opening[1]]);
        let keyed = |body: &[u8]| keyed(KEYS[usize::from(operation >> 3) % 3], body);
        match operation % 8 {
            0 => stage.receive(hostile, Incoming::Binary(payload)),
            1..=3 => stage.receive(hostile, Incoming::Binary(&keyed(payload))),
            4 | 5 => stage.receive(hostile, Incoming::Binary(&keyed(&stage::sync(2, payload)))),
            6 => stage.pass(payload.len() as u64 % 70),
            _ => stage.queue(hostile, payload.len()),
        }
    }
    stage.check();
}
