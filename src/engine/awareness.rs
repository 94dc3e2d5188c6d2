//! Who is in a document and what they show: cursors, names, selections.
//!
//! Invariants, beyond those of y-protocols' `awareness.js`:
//! - A client id belongs to the session that introduced it. Providers send back awareness that they got from others;
//!   such an echo is never newer than what is here, so it changes nothing and moves no ownership.
//! - Only a strictly newer clock is taken, with one exception: a session that owns no id yet may bring back one that
//!   left before the session began (one that it saw leave, it can only be echoing). Its clock is then lifted above the
//!   one it left with, since other clients ignore what they have seen.
//! - When a session ends, exactly the ids it owned go, at once.
//!
//! Not here: sending. What changed is appended to `changed` as encoded entries.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::slab::Key;
use crate::protocol::lib0::{self, Lib0Error, Reader};

/// The JSON that says "this client left".
const LEFT: &str = "null";

/// How long a client that left is remembered, so that an echo cannot bring it back.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many clients that left a document remembers; beyond, it forgets them all.
pub const REMEMBERED_MAX: usize = 4096;

/// How deep a state may nest. Clients compare states by recursion: a deep one would overflow the stack of all of them.
const JSON_DEPTH_MAX: usize = 64;

#[derive(Debug)]
struct State {
    clock: u32,
    /// `None` once the client left.
    json: Option<Box<str>>,
    owner: Option<Key>,
    renewed_at: Duration,
    /// Which of all changes was its last.
    change: u64,
}

/// The awareness of one document.
#[derive(Debug, Default)]
pub struct Awareness {
    states: FxHashMap<u64, State>,
    /// How many of the states are of clients that left.
    departed: usize,
    changes: u64,
}

/// Bounds on what one session may put in.
#[derive(Debug, Clone, Copy)]
pub struct AwarenessLimits {
    pub state_bytes_max: usize,
    pub clients_max: usize,
}

/// Why an awareness update is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AwarenessError {
    #[error("awareness is not lib0: {0}")]
    Encoding(#[from] Lib0Error),
    #[error("an awareness state is not JSON")]
    Json,
    #[error("an awareness state is nested deeper than {JSON_DEPTH_MAX}")]
    Depth,
    #[error("an awareness state has {bytes} bytes; at most {max} are allowed")]
    StateTooBig { bytes: usize, max: usize },
    #[error("one connection shows more than {max} awareness clients")]
    TooManyClients { max: usize },
}

/// Encoded entries and how many they are; [`Entries::finish`] puts the count in front.
#[derive(Debug, Default)]
pub struct Entries {
    count: u64,
    bytes: Vec<u8>,
}

impl Entries {
    fn push(&mut self, client: u64, clock: u32, json: &str) {
        self.count += 1;
        lib0::write_var_u64(&mut self.bytes, client);
        lib0::write_var_u64(&mut self.bytes, u64::from(clock));
        lib0::write_var_str(&mut self.bytes, json);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The awareness update, as y-protocols encodes it.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 4);
        lib0::write_var_u64(&mut out, self.count);
        out.extend_from_slice(&self.bytes);
        out
    }
}

impl Awareness {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// How often anything has changed.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes an awareness update of `session` and returns what is new in it. `owned` lists the ids the session
    /// introduced; it grows with new ones. `began` is [`Awareness::changes`] of when the session began. Nothing is changed when the update is refused.
    ///
    /// # Errors
    /// [`AwarenessError`] says what is wrong; the connection should end.
    pub fn apply(
        &mut self,
        now: Duration,
        session: Key,
        owned: &mut smallvec::SmallVec<[u64; 1]>,
        began: u64,
        update: &[u8],
        limits: AwarenessLimits,
    ) -> Result<Entries, AwarenessError> {
        check(update, limits)?;
        let mut changed = Entries::default();
        let mut reader = Reader::new(update);
        let owned_before = !owned.is_empty();
        for _ in 0..reader.var_u64()? {
            let client = reader.var_u64()?;
            let clock = reader.var_u32()?;
            let json = reader.var_str()?;
            let left = json == LEFT;
            let mut clock = clock;
            let mut introduces = true;
            let known = self.states.get(&client);
            if known.is_none() && left {
                // Nobody saw it come: there is nothing to tell, and nothing to remember.
                continue;
            }
            if let Some(known) = known {
                let returns = known.json.is_none() && !left && !owned_before && known.change <= began;
                let leaves =
                    clock == known.clock && left && known.json.is_some() && known.owner == Some(session);
                if clock <= known.clock && !leaves {
                    if !returns {
                        continue;
                    }
                    clock = known.clock.saturating_add(1);
                }
                introduces = known.owner != Some(session);
            }
            if introduces && !left && !owned.contains(&client) {
                if owned.len() >= limits.clients_max {
                    return Err(AwarenessError::TooManyClients { max: limits.clients_max });
                }
                owned.push(client);
            }
            if left {
                owned.retain(|id| *id != client);
            }
            let state = State {
                clock,
                json: (!left).then(|| json.into()),
                owner: (!left).then_some(session),
                renewed_at: now,
                change: self.changes + 1,
            };
            self.changes += 1;
            self.departed += usize::from(left);
            if self.states.insert(client, state).is_some_and(|before| before.json.is_none()) {
                self.departed -= 1;
            }
            changed.push(client, clock, json);
        }
        self.forget_departed();
        Ok(changed)
    }

    /// A session is gone: the ids it still owns leave.
    pub fn leave(&mut self, now: Duration, session: Key, owned: &[u64]) -> Entries {
        let mut changed = Entries::default();
        for &client in owned {
            if let Some(state) = self.states.get_mut(&client) {
                // Another session may have brought the id in since, with a newer clock: then it is not ours to remove.
                if state.owner == Some(session) {
                    self.changes += 1;
                    state.leave(now, self.changes);
                    self.departed += 1;
                    changed.push(client, state.clock, LEFT);
                }
            }
        }
        self.forget_departed();
        changed
    }

    /// Removes what nobody renewed for `timeout`, and forgets who left long ago.
    pub fn expire(&mut self, now: Duration, timeout: Duration) -> Entries {
        let mut changed = Entries::default();
        self.states.retain(|&client, state| {
            let age = now.saturating_sub(state.renewed_at);
            if state.json.is_some() && age >= timeout {
                self.changes += 1;
                state.leave(now, self.changes);
                self.departed += 1;
                changed.push(client, state.clock, LEFT);
                return true;
            }
            let stays = state.json.is_some() || age < REMEMBERED;
            self.departed -= usize::from(!stays);
            stays
        });
        self.forget_departed();
        changed
    }

    /// Whoever lets ids come and go without end must not fill the memory with them. An echo may bring one back then;
    /// its time-out ends it.
    fn forget_departed(&mut self) {
        if self.departed > REMEMBERED_MAX {
            self.states.retain(|_, state| state.json.is_some());
            self.departed = 0;
        }
    }

    /// Everybody who is here; with `departed`, also who left (for a session that missed their leaving).
    #[must_use]
    pub fn all(&self, departed: bool) -> Entries {
        let mut entries = Entries::default();
        for (&client, state) in &self.states {
            match &state.json {
                Some(json) => entries.push(client, state.clock, json),
                None if departed => entries.push(client, state.clock, LEFT),
                None => {}
            }
        }
        entries
    }
}

impl State {
    fn leave(&mut self, now: Duration, change: u64) {
        self.json = None;
        self.owner = None;
        self.renewed_at = now;
        self.change = change;
    }
}

/// Everything that can be wrong with an update, found before any of it is taken. JSON is checked because other
/// clients parse it: one bad state would throw in all of them.
fn check(update: &[u8], limits: AwarenessLimits) -> Result<(), AwarenessError> {
    let mut reader = Reader::new(update);
    let count = reader.var_u64()?;
    for _ in 0..count {
        reader.var_u64()?;
        reader.var_u32()?;
        let json = reader.var_str()?;
        if json.len() > limits.state_bytes_max {
            return Err(AwarenessError::StateTooBig { bytes: json.len(), max: limits.state_bytes_max });
        }
        // Neither this parser nor the next look recurses.
        serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|_| AwarenessError::Json)?;
        if depth(json) > JSON_DEPTH_MAX {
            return Err(AwarenessError::Depth);
        }
    }
    Ok(())
}

/// How deep valid JSON nests.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = json.bytes();
    let mut is_in_string = false;
    while let Some(byte) = bytes.next() {
        match (byte, is_in_string) {
            (b'"', _) => is_in_string = !is_in_string,
            (b'\\', true) => drop(bytes.next()),
            (b'[' | b'{', false) => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (b']' | b'}', false) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::super::slab::Slab;
    use super::*;

    const LIMITS: AwarenessLimits = AwarenessLimits { state_bytes_max: 100, clients_max: 2 };
    const NOW: Duration = Duration::from_secs(100);

    fn update(entries: &[(u64, u32, &str)]) -> Vec<u8> {
        let mut encoded = Entries::default();
        for &(client, clock, json) in entries {
            encoded.push(client, clock, json);
        }
        encoded.finish()
    }

    struct Room {
        awareness: Awareness,
        sessions: Vec<(Key, SmallVec<[u64; 1]>, u64)>,
    }

    impl Room {
        fn new(sessions: usize) -> Self {
            let mut slab = Slab::default();
            let sessions = (0..sessions).map(|_| (slab.insert(()), SmallVec::new(), 0)).collect();
            Self { awareness: Awareness::default(), sessions }
        }

        fn say(&mut self, session: usize, entries: &[(u64, u32, &str)]) -> Result<Vec<u8>, AwarenessError> {
            let (key, owned, began) = &mut self.sessions[session];
            self.awareness.apply(NOW, *key, owned, *began, &update(entries), LIMITS).map(|e| e.finish())
        }

        fn leave(&mut self, session: usize) -> Vec<u8> {
            let (key, owned, _) = &self.sessions[session];
            self.awareness.leave(NOW, *key, owned).finish()
        }
    }

    #[test]
    fn an_echo_of_others_moves_no_ownership() {
        let mut room = Room::new(2);
        assert_eq!(room.say(0, &[(1, 5, "{}")]).unwrap(), update(&[(1, 5, "{}")]));
        room.say(1, &[(2, 1, "{}")]).unwrap();
        assert_eq!(room.say(1, &[(1, 5, "{}")]).unwrap(), update(&[]));
        assert_eq!(room.leave(1), update(&[(2, 1, "null")]));
        assert_eq!(room.leave(0), update(&[(1, 5, "null")]));
    }

    #[test]
    fn an_echo_cannot_bring_back_who_left() {
        let mut room = Room::new(2);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        room.say(1, &[(2, 1, "{}")]).unwrap();
        room.leave(0);
        assert_eq!(room.say(1, &[(1, 5, "{}")]).unwrap(), update(&[]));
    }

    #[test]
    fn an_echo_of_a_session_that_shows_nothing_cannot_bring_back_who_left() {
        let mut room = Room::new(2);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        room.leave(0);
        assert_eq!(room.say(1, &[(1, 5, "{}")]).unwrap(), update(&[]));
    }

    #[test]
    fn who_comes_back_with_the_old_clock_is_seen_at_once() {
        let mut room = Room::new(2);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        room.leave(0);
        room.sessions[1].2 = room.awareness.changes();
        assert_eq!(room.say(1, &[(1, 5, "{}")]).unwrap(), update(&[(1, 6, "{}")]));
        assert_eq!(room.leave(1), update(&[(1, 6, "null")]));
    }

    #[test]
    fn a_newer_clock_from_a_new_socket_takes_the_id_over() {
        let mut room = Room::new(2);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        room.say(1, &[(1, 6, "{}")]).unwrap();
        assert_eq!(room.leave(0), update(&[]), "the half-open old socket must not remove it");
        assert_eq!(room.leave(1), update(&[(1, 6, "null")]));
    }

    #[test]
    fn a_client_may_leave_with_its_present_clock() {
        let mut room = Room::new(1);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        assert_eq!(room.say(0, &[(1, 5, "null")]).unwrap(), update(&[(1, 5, "null")]));
        assert_eq!(room.leave(0), update(&[]));
    }

    #[test]
    fn states_that_nobody_renews_go() {
        let mut room = Room::new(1);
        room.say(0, &[(1, 5, "{}")]).unwrap();
        let timeout = Duration::from_secs(30);
        assert!(room.awareness.expire(NOW + Duration::from_secs(29), timeout).is_empty());
        let gone = room.awareness.expire(NOW + Duration::from_secs(30), timeout);
        assert_eq!(gone.finish(), update(&[(1, 5, "null")]));
        room.awareness.expire(NOW + Duration::from_secs(91), timeout);
        assert!(room.awareness.is_empty());
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a[{\"[":[1,[2]],"b":{}}"#), 3);
        assert_eq!(depth(r#"["\\",[["[[[["]]]"#), 3);
        let mut room = Room::new(1);
        let limits = AwarenessLimits { state_bytes_max: 1000, ..LIMITS };
        let nested = |depth| update(&[(1, 1, &format!("{}{}", "[".repeat(depth), "]".repeat(depth)))]);
        let (key, owned, began) = &mut room.sessions[0];
        let deep = room.awareness.apply(NOW, *key, owned, *began, &nested(JSON_DEPTH_MAX + 1), limits);
        assert_eq!(deep.unwrap_err(), AwarenessError::Depth);
        room.awareness.apply(NOW, *key, owned, *began, &nested(JSON_DEPTH_MAX), limits).unwrap();
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let mut room = Room::new(1);
        assert_eq!(room.say(0, &[(1, 1, "{}"), (2, 1, "{oops")]), Err(AwarenessError::Json));
        assert_eq!(
            room.say(0, &[(1, 1, &"1".repeat(101))]).unwrap_err().to_string(),
            "an awareness state has 101 bytes; at most 100 are allowed"
        );
        assert!(room.awareness.is_empty());
        let deep = "[".repeat(90);
        assert_eq!(room.say(0, &[(1, 1, &deep)]), Err(AwarenessError::Json));
        assert!(matches!(
            room.say(0, &[(1, 1, "{}"), (2, 1, "{}"), (3, 1, "{}")]),
            Err(AwarenessError::TooManyClients { max: 2 })
        ));
    }
}
