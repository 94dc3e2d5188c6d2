//! How much of every client's work a document (or a replica of it) has: for each client id the next clock it expects.
//!
//! A document keeps its own vector beside the CRDT, so that answering "what do you have?" needs no live CRDT.
//! Encoding: y-protocols' state vector v1 (a count, then client and clock as variable-length integers).

use smallvec::SmallVec;

use crate::protocol::lib0::{self, Lib0Error, Reader};

/// Sorted by client id; clients at clock 0 are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateVector {
    clocks: SmallVec<[(u64, u32); 1]>,
}

impl StateVector {
    /// The next clock expected from `client`; 0 if nothing of it is there.
    #[must_use]
    pub fn get(&self, client: u64) -> u32 {
        match self.clocks.binary_search_by_key(&client, |entry| entry.0) {
            Ok(at) => self.clocks[at].1,
            Err(_) => 0,
        }
    }

    /// Raises a client's clock; a lower one changes nothing.
    pub fn raise(&mut self, client: u64, clock: u32) {
        match self.clocks.binary_search_by_key(&client, |entry| entry.0) {
            Ok(at) => self.clocks[at].1 = self.clocks[at].1.max(clock),
            Err(at) if clock > 0 => self.clocks.insert(at, (client, clock)),
            Err(_) => {}
        }
    }

    /// Lowers every client's clock to what `other` has, if that is less.
    pub fn lower(&mut self, other: &Self) {
        self.clocks.retain(|(client, clock)| {
            *clock = (*clock).min(other.get(*client));
            *clock > 0
        });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clocks.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.clocks.iter().copied()
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        lib0::write_var_u64(out, self.clocks.len() as u64);
        for &(client, clock) in &self.clocks {
            lib0::write_var_u64(out, client);
            lib0::write_var_u64(out, u64::from(clock));
        }
    }

    /// Reads a client's vector.
    ///
    /// # Errors
    /// [`Lib0Error`]; a count is compared with the bytes that remain before anything is reserved for it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Lib0Error> {
        let mut reader = Reader::new(bytes);
        let count = reader.var_u64()?;
        // An entry takes two bytes at least.
        if count > reader.remaining().len() as u64 / 2 {
            return Err(Lib0Error::LengthPastEnd);
        }
        let mut clocks: SmallVec<[(u64, u32); 1]> = SmallVec::with_capacity(count as usize);
        for _ in 0..count {
            let client = reader.var_u64()?;
            let clock = reader.var_u32()?;
            if clock > 0 {
                clocks.push((client, clock));
            }
        }
        clocks.sort_unstable();
        // A client named twice: what it surely has is the lower clock.
        clocks.dedup_by_key(|entry| entry.0);
        Ok(Self { clocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_only_rise_and_survive_encoding() {
        let mut vector = StateVector::default();
        vector.raise(7, 3);
        vector.raise(2, 9);
        vector.raise(7, 1);
        vector.raise(5, 0);
        assert_eq!((vector.get(7), vector.get(2), vector.get(5)), (3, 9, 0));
        let mut bytes = Vec::new();
        vector.encode(&mut bytes);
        assert_eq!(StateVector::decode(&bytes), Ok(vector));
    }

    #[test]
    fn a_count_bomb_is_refused_before_anything_is_reserved() {
        assert_eq!(StateVector::decode(&[0xff, 0xff, 0xff, 0x7a]), Err(Lib0Error::LengthPastEnd));
    }

    #[test]
    fn a_client_named_twice_counts_with_its_lower_clock() {
        let vector = StateVector::decode(&[2, 7, 9, 7, 3]).unwrap();
        assert_eq!(vector.get(7), 3);
    }
}
