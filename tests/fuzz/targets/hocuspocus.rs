//! Hocuspocus messages, through the engine: one socket with several documents, beside one who is honest in one of them.

use wiresocket::engine::event::{Event, Incoming};
use wiresocket::protocol::lib0;

use super::stage::{self, Stage};
use super::steps::Steps;

pub fn run(data: &[u8]) {
    let mut stage = Stage::new();
    for (operation, payload) in Steps(data) {
        let hostile = stage.hostile(None);
        let keyed = |body: &[u8]| {
            let mut message = Vec::new();
            let key = [stage::SHARED, "other", "other\0session"][usize::from(operation >> 3) % 3];
            lib0::write_var_str(&mut message, key);
            message.extend_from_slice(body);
            message
        };
        match operation % 8 {
            0 => stage.receive(hostile, Incoming::Binary(payload)),
            1..=3 => stage.receive(hostile, Incoming::Binary(&keyed(payload))),
            4 | 5 => stage.receive(hostile, Incoming::Binary(&keyed(&stage::sync(2, payload)))),
            6 => stage.pass(payload.len() as u64 % 70),
            _ => stage.hear(match payload.len() % 3 {
                0 => Event::Stalled { connection: hostile },
                1 => Event::Progressed { connection: hostile },
                _ => Event::Resumed { connection: hostile },
            }),
        }
    }
    stage.check();
}
