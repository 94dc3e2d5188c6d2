//! Storage with keys that never come to mean something else: an index and the generation of its slot.
//!
//! Invariant: a key of a removed value finds nothing, even when the slot is in use again.

/// Names one value of a [`Slab`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The key as one integer, for kernels that hand back 64 bits with an event.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under generational keys. Slots are reused, last freed first.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Key { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 values are alive");
        self.slots.push(Slot { generation: 1, value: Some(value) });
        Key { index, generation: 1 }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        // A slot that went through all its generations is not used again, so no key ever comes back.
        slot.generation = slot.generation.wrapping_add(1);
        if slot.generation != 0 {
            self.free.push(key.index);
        }
        Some(value)
    }

    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.iter().map(|(key, _)| key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| {
            let key = Key { index, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }
}

/// Values beside those of a [`Slab`] that somebody else owns, under that slab's keys.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// Puts a value under a key; whatever an older generation left there is dropped.
    pub fn insert(&mut self, key: Key, value: T) {
        let index = key.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index].replace((key.generation, value)).is_none() {
            self.len += 1;
        }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.as_ref()?.0 != key.generation {
            return None;
        }
        self.len -= 1;
        slot.take().map(|(_, value)| value)
    }

    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slots.get(key.index as usize)?.as_ref()?;
        (*generation == key.generation).then_some(value)
    }

    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(key.index as usize)?.as_mut()?;
        (*generation == key.generation).then_some(value)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.as_ref().map(|(generation, _)| Key { index, generation: *generation })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_stays_dead_when_its_slot_lives_again() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!((slab.len(), Key::from_bits(second.to_bits())), (1, second));
    }

    #[test]
    fn a_table_follows_the_generations_of_its_slab() {
        let mut slab = Slab::default();
        let mut table = Table::default();
        let first = slab.insert(());
        table.insert(first, 1);
        slab.remove(first);
        let second = slab.insert(());
        assert_eq!(table.get(second), None);
        table.insert(second, 2);
        assert_eq!(table.remove(first), None);
        assert_eq!((table.get(first), table.len()), (None, 1));
        assert_eq!(table.remove(second), Some(2));
        assert!(table.is_empty());
    }
}
