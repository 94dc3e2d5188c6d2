//! What a writer's updates are, in an order that repeats: characters, pastes and formatting, evenly mixed.
//!
//! Because the pattern is fixed, the update that a clock belongs to is found in the table of one period.

use crate::schedule::{Clocks, Period};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Formatting embraces text: at least one character in it, and one behind it, must be new.
const CHARACTERS_BETWEEN_FORMATS: u32 = 2;

/// `[typing.mix]`: how often each kind of update comes, against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Updates of one character.
    pub characters: u32,
    /// Updates that insert a longer text.
    #[serde(default)]
    pub pastes: u32,
    /// Characters of a paste.
    #[serde(default = "paste_length")]
    pub paste_length: u32,
    /// Updates that make bold what was typed since the last one of them, but for the last character.
    #[serde(default)]
    pub formatting: u32,
}

fn paste_length() -> u32 {
    200
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// So many characters in one insertion.
    Insert(u32),
    /// The start and the end of a format: two items.
    Format,
}

impl Edit {
    pub fn clocks(self) -> u32 {
        match self {
            Self::Insert(len) => len,
            Self::Format => 2,
        }
    }
}

#[derive(Debug)]
pub struct Pattern {
    edits: Vec<Edit>,
}

impl Pattern {
    /// `None` if the text between two formats would be too short: more characters or fewer formats.
    pub fn new(mix: &Mix) -> Option<Self> {
        let kinds = [
            (Edit::Format, mix.formatting),
            (Edit::Insert(mix.paste_length), mix.pastes),
            (Edit::Insert(1), mix.characters),
        ];
        let total: u32 = kinds.iter().map(|(_, weight)| weight).sum();
        // Who has waited longest, by weight, comes next.
        let mut waited = [0i64; 3];
        let mut edits = Vec::with_capacity(total as usize);
        for _ in 0..total {
            for (waited, (_, weight)) in waited.iter_mut().zip(&kinds) {
                *waited += i64::from(*weight);
            }
            let next = (0..kinds.len()).max_by_key(|kind| waited[*kind])?;
            waited[next] -= i64::from(total);
            edits.push(kinds[next].0);
        }
        // The text before the first format is as long as that between any others.
        if let Some(first) = edits.iter().position(|edit| *edit == Edit::Format) {
            edits.rotate_left(first + 1);
        }
        let pattern = Self { edits };
        pattern.is_formattable().then_some(pattern)
    }

    /// Exactly these edits; somebody must insert something.
    pub fn of(edits: Vec<Edit>) -> Self {
        Self { edits }
    }

    fn is_formattable(&self) -> bool {
        let mut new = 0;
        self.edits.iter().all(|edit| match edit {
            Edit::Insert(len) => {
                new += len;
                true
            }
            Edit::Format => std::mem::take(&mut new) >= CHARACTERS_BETWEEN_FORMATS,
        })
    }

    /// What update `nth` of a writer is.
    #[inline]
    pub fn edit(&self, nth: u32) -> Edit {
        self.edits[nth as usize % self.edits.len()]
    }

    pub fn clocks(&self) -> Clocks {
        Clocks::Periodic(Rc::new(Period::new(self.edits.iter().map(|edit| edit.clocks()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_as_often_as_its_weight_says_and_evenly() {
        let mix = Mix { characters: 90, pastes: 4, paste_length: 30, formatting: 6 };
        let pattern = Pattern::new(&mix).expect("enough text between formats");
        let count = |edit| pattern.edits.iter().filter(|other| **other == edit).count();
        assert_eq!((count(Edit::Insert(1)), count(Edit::Insert(30)), count(Edit::Format)), (90, 4, 6));
        let formats: Vec<usize> = (0..200).filter(|nth| pattern.edit(*nth as u32) == Edit::Format).collect();
        assert!(formats.windows(2).all(|pair| (12..=20).contains(&(pair[1] - pair[0]))), "{formats:?}");
        assert_eq!(pattern.clocks().before(100), 90 + 4 * 30 + 6 * 2);
    }

    #[test]
    fn formats_without_text_between_them_are_refused() {
        assert!(Pattern::new(&Mix { characters: 1, pastes: 0, paste_length: 1, formatting: 1 }).is_none());
        assert!(Pattern::new(&Mix { characters: 2, pastes: 0, paste_length: 1, formatting: 1 }).is_some());
        assert!(Pattern::new(&Mix { characters: 0, pastes: 1, paste_length: 9, formatting: 1 }).is_some());
    }
}
