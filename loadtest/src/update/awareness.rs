//! Awareness updates as y-protocols writes them: who is here, and where their cursors are.
//!
//! An update is a list of (client, clock, state as JSON); `null` says that someone is gone. A higher
//! clock replaces a lower one, so a server may leave out what is already out of date.

use super::ROOT;
use crate::lib0::{Malformed, Reader, write_var_bytes, write_varuint};

/// The state of someone who is gone.
pub const GONE: &[u8] = b"null";

/// Replaces `update` by one that gives one client this state.
pub fn write(update: &mut Vec<u8>, client: u64, clock: u32, state: &[u8]) {
    update.clear();
    update.push(1); // one client
    write_varuint(update, client);
    write_varuint(update, u64::from(clock));
    write_var_bytes(update, state);
}

/// Replaces `state` by that of a person with a selection, as editors share it. It differs with the clock.
pub fn write_state(state: &mut Vec<u8>, client: u64, clock: u32) {
    use std::io::Write;
    state.clear();
    let (color, at) = (client % 0x100_0000, clock % 10_000);
    let place = |assoc: i32| {
        format!(
            r#"{{"type":null,"tname":"{ROOT}","item":{{"client":{client},"clock":{at}}},"assoc":{assoc}}}"#
        )
    };
    // Writing to a Vec doesn't fail.
    let _ = write!(
        state,
        r##"{{"user":{{"name":"person {client}","color":"#{color:06x}"}},"cursor":{{"anchor":{},"head":{}}},"moves":{clock}}}"##,
        place(0),
        place(-1)
    );
}

/// Calls `found` with every (client, clock, state) of an update.
pub fn scan(update: &[u8], mut found: impl FnMut(u64, u32, &[u8])) -> Result<(), Malformed> {
    let mut reader = Reader::new(update);
    for _ in 0..reader.varuint()? {
        let client = reader.varuint()?;
        let clock = reader.clock()?;
        found(client, clock, reader.var_bytes()?);
    }
    if !reader.is_empty() {
        return Err(reader.malformed("bytes after the last client"));
    }
    Ok(())
}

/// Is a state that arrived the one that was sent? Servers may write the same JSON differently.
pub fn is_same_state(arrived: &[u8], sent: &[u8]) -> bool {
    let parse = |state| serde_json::from_slice::<serde_json::Value>(state).ok();
    arrived == sent || parse(arrived).is_some_and(|arrived| Some(arrived) == parse(sent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use yrs::sync::AwarenessUpdate;
    use yrs::updates::decoder::Decode;

    #[test]
    fn the_library_reads_what_is_written() {
        let (mut state, mut update) = (Vec::new(), Vec::new());
        write_state(&mut state, 0x4123_4567, 9);
        write(&mut update, 0x4123_4567, 9, &state);
        let read = AwarenessUpdate::decode_v1(&update).expect("legal");
        let entry = read.clients.values().next().expect("one client");
        assert_eq!((read.clients.len(), entry.clock), (1, 9));
        assert_eq!(entry.json.as_bytes(), state);
        assert!(serde_json::from_slice::<serde_json::Value>(&state).is_ok());
        let mut found = Vec::new();
        scan(&update, |client, clock, state| found.push((client, clock, state.to_vec()))).expect("legal");
        assert_eq!(found, [(0x4123_4567, 9, state)]);
    }

    #[test]
    fn states_are_the_same_however_their_json_is_written_and_differ_by_their_clock() {
        assert!(is_same_state(br#"{"b":1, "a":null}"#, br#"{"a":null,"b":1}"#));
        assert!(!is_same_state(br#"{"a":2}"#, br#"{"a":1}"#) && !is_same_state(b"nonsense", b"{}"));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_state(&mut first, 5, 1);
        write_state(&mut second, 5, 2);
        assert!(!is_same_state(&first, &second));
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let mut update = Vec::new();
        write(&mut update, 7, 3, b"{}");
        assert!((0..update.len()).all(|cut| scan(&update[..cut], |_, _, _| {}).is_err()));
        update.push(0);
        assert!(scan(&update, |_, _, _| {}).is_err());
    }
}
