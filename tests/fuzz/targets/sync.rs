//! y-websocket messages, through the engine: one who sends anything, beside one who is honest.

use wiresocket::engine::event::Incoming;

use super::stage::{self, Stage};
use super::steps::Steps;

pub fn run(data: &[u8]) {
    let mut stage = Stage::new();
    for (operation, payload) in Steps(data) {
        let hostile = stage.hostile(Some(stage::SHARED), &[]);
        match operation % 8 {
            0..=2 => stage.receive(hostile, Incoming::Binary(payload)),
            3 | 4 => {
                let message = stage::sync(2, payload);
                stage.receive(hostile, Incoming::Binary(&message));
            }
            5 if payload.len() % 2 == 0 => stage.receive(hostile, Incoming::Ping(payload)),
            5 => stage.receive(hostile, Incoming::Text),
            6 => stage.pass(payload.len() as u64 % 70),
            _ => stage.queue(hostile, payload.len()),
        }
    }
    stage.check();
}
