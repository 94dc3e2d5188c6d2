//! One person's stay: how far they are, what they typed, what of it the server must have.

use super::plan::Person;
use crate::schedule::Clocks;
use crate::update::pattern::Pattern;
use crate::update::typist::{Payload, Positions, Typist};
use std::ops::Range;
use std::rc::Rc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    NotYet,
    /// On the way (also back) since it was due.
    Joining {
        due_ns: u64,
        returns: bool,
    },
    Here,
    Offline,
    /// Said goodbye.
    Leaving,
    Gone,
}

#[derive(Debug)]
pub(super) struct Visit {
    pub presence: Presence,
    pub number: Option<u32>, // of the connection
    pub page: u32,
    pub place: u32, // on the page
    pub typist: Option<Typist>,
    pub clocks: Clocks,
    /// Connected, but the server hasn't yet asked for what it lacks.
    pub owes_state: bool,
    /// What the server had when it last asked.
    pub server_knew: u32,
    pub handed_over: Range<u32>,
    pub synced_ns: u64,
    /// When they left, having been there to the last.
    pub left_ns: Option<u64>,
    pub moves_ns: Vec<Option<u64>>, // by awareness clock, from 1 on: when the move was due
}

impl Visit {
    pub fn new(person: &Person, client_id: u64, place: u32) -> Self {
        let types = !person.edits.is_empty();
        let pattern = types.then(|| Rc::new(Pattern::of(person.edits.clone())));
        Self {
            presence: Presence::NotYet,
            number: None,
            page: person.document,
            place,
            clocks: pattern.as_ref().map_or(Clocks::One, |pattern| pattern.clocks()),
            typist: pattern
                .map(|pattern| Typist::new(client_id, Positions::Append, Payload::Pattern(pattern))),
            owes_state: true,
            server_knew: 0,
            handed_over: 0..0,
            synced_ns: 0,
            left_ns: None,
            moves_ns: Vec::new(),
        }
    }

    pub fn next_clock(&self) -> u32 {
        self.typist.as_ref().map_or(0, Typist::next_clock)
    }

    /// What the server must have got: who left before it asked took the rest along.
    pub fn sent(&self) -> u32 {
        if self.owes_state { self.server_knew } else { self.next_clock() }
    }
}

/// How many of a person's updates the server could have had before `limit_ns`.
pub(super) fn available_before(person: &Person, limit_ns: u64) -> u32 {
    if person.typed_ns.is_empty() {
        return person.edits.len() as u32; // an owner's: from before midnight
    }
    let typed = person.typed_ns.partition_point(|due_ns| *due_ns < limit_ns);
    let held_back = person
        .offline_ns
        .filter(|(_, to_ns)| *to_ns >= limit_ns)
        .map(|(from_ns, _)| person.typed_ns.partition_point(|due_ns| *due_ns < from_ns));
    held_back.map_or(typed, |online| typed.min(online)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::pattern::Edit;

    #[test]
    fn what_was_typed_offline_is_available_from_the_return_on() {
        let person = Person {
            document: 0,
            edits: vec![Edit::Insert(1); 6],
            typed_ns: vec![10, 20, 30, 40, 50, 60],
            offline_ns: Some((25, 45)),
            leaves_ns: None,
        };
        let available: Vec<u32> =
            [5, 15, 25, 41, 45, 46, 100].map(|limit| available_before(&person, limit)).into();
        assert_eq!(available, [0, 1, 2, 2, 2, 4, 6]);
        let owner = Person { typed_ns: Vec::new(), ..person };
        assert_eq!(available_before(&owner, 0), 6);
    }
}
