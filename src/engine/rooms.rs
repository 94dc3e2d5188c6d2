//! The rooms of a shard, by key and by document.
//!
//! Invariant: the index names exactly the rooms that are. It holds their keys and no second copy of their ids: an idle
//! document costs what its room costs.

use std::time::Duration;

use hashbrown::HashTable;

use super::room::Room;
use super::slab::{Key, Slab};
use crate::protocol::document::DocumentId;

#[derive(Debug, Default)]
pub struct Rooms {
    rooms: Slab<Room>,
    by_document: HashTable<Key>,
}

impl Rooms {
    /// The room of a document, which is made if it isn't there.
    pub fn open(&mut self, id: DocumentId, now: Duration) -> Key {
        if let Some(key) = self.find(&id) {
            return key;
        }
        let hash = spread(&id);
        let key = self.rooms.insert(Room::new(id, now));
        let rooms = &self.rooms;
        self.by_document.insert_unique(hash, key, |other| spread(&named(rooms, *other).id));
        key
    }

    #[must_use]
    pub fn find(&self, id: &DocumentId) -> Option<Key> {
        self.by_document.find(spread(id), |key| named(&self.rooms, *key).id == *id).copied()
    }

    pub fn remove(&mut self, key: Key) -> Option<Room> {
        let room = self.rooms.remove(key)?;
        if let Ok(entry) = self.by_document.find_entry(spread(&room.id), |other| *other == key) {
            entry.remove();
        }
        Some(room)
    }

    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Room> {
        self.rooms.get(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Room> {
        self.rooms.get_mut(key)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        debug_assert_eq!(self.rooms.len(), self.by_document.len());
        self.rooms.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Room)> {
        self.rooms.iter()
    }
}

fn named(rooms: &Slab<Room>, key: Key) -> &Room {
    rooms.get(key).expect("the index names only rooms that are")
}

/// The high bits of the stable hash chose the shard, so here they are all alike: the table gets them as its low ones.
fn spread(id: &DocumentId) -> u64 {
    id.stable_hash().rotate_left(32)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::document::{AppId, DocumentName};

    fn id(number: u32) -> DocumentId {
        let app = AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(2) };
        DocumentId { app, name: DocumentName::parse(&format!("document-{number}")).unwrap() }
    }

    #[test]
    fn a_room_is_found_by_its_document_until_it_is_removed() {
        let mut rooms = Rooms::default();
        let keys: Vec<Key> = (0..1000).map(|number| rooms.open(id(number), Duration::ZERO)).collect();
        assert_eq!(rooms.len(), 1000);
        assert_eq!(rooms.open(id(7), Duration::ZERO), keys[7]);
        for number in (0..1000).filter(|number| number % 3 == 0) {
            assert_eq!(rooms.remove(keys[number as usize]).map(|room| room.id), Some(id(number)));
            assert!(rooms.remove(keys[number as usize]).is_none());
        }
        for number in 0..1000 {
            let expected = (number % 3 != 0).then_some(keys[number as usize]);
            assert_eq!(rooms.find(&id(number)), expected);
        }
        // A document that comes back gets a room of its own, not the old one's key.
        assert_ne!(rooms.open(id(3), Duration::ZERO), keys[3]);
    }
}
