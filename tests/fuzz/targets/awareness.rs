//! Awareness: `engine::awareness`, three sessions in one document.

use std::time::Duration;

use smallvec::SmallVec;
use wiresocket::engine::awareness::{Awareness, AwarenessLimits, REMEMBERED_MAX};
use wiresocket::engine::slab::Slab;
use wiresocket::protocol::lib0::Reader;

use super::steps::Steps;

const LIMITS: AwarenessLimits = AwarenessLimits { state_bytes_max: 1000, clients_max: 3 };

pub fn run(data: &[u8]) {
    let mut slab = Slab::default();
    let keys = [slab.insert(()), slab.insert(()), slab.insert(())];
    let mut owned: [SmallVec<[u64; 1]>; 3] = Default::default();
    let mut began = [0; 3];
    let mut awareness = Awareness::default();
    let mut now = Duration::from_secs(1000);
    for (operation, payload) in Steps(data) {
        let session = usize::from(operation) % 3;
        match operation / 3 % 8 {
            0 => {
                awareness.leave(now, keys[session], &std::mem::take(&mut owned[session]));
                began[session] = awareness.changes();
            }
            1 => {
                now += Duration::from_secs(payload.len() as u64);
                awareness.expire(now, Duration::from_secs(30));
            }
            _ => {
                let before = awareness.changes();
                let applied =
                    awareness.apply(now, keys[session], &mut owned[session], began[session], payload, LIMITS);
                match applied {
                    Ok(changed) => {
                        assert_eq!(changed.is_empty(), before == awareness.changes());
                        check(&changed.finish());
                    }
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
                assert!(owned[session].len() <= LIMITS.clients_max);
            }
        }
        check(&awareness.all(true).finish());
    }
    let here = entries(&awareness.all(false).finish());
    assert!(here <= 3 * LIMITS.clients_max, "{here} clients, and three sessions with three each");
    assert!(entries(&awareness.all(true).finish()) <= here + REMEMBERED_MAX);
}

/// What others are sent is an awareness update that they can read.
fn check(update: &[u8]) {
    let mut reader = Reader::new(update);
    for _ in 0..reader.var_u64().expect("a count") {
        reader.var_u64().expect("a client");
        reader.var_u32().expect("a clock");
        let json = reader.var_str().expect("a state");
        serde_json::from_str::<serde::de::IgnoredAny>(json).expect("JSON");
    }
    assert!(reader.is_empty());
}

fn entries(update: &[u8]) -> usize {
    Reader::new(update).var_u64().expect("a count") as usize
}
