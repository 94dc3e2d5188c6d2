//! A look inside: what the engines, the ledger and the journal hold.

use super::client;
use super::world::World;
use crate::engine::Engine;
use crate::engine::connection::Channel;
use crate::protocol::document::{AppId, DocumentId, DocumentName};

impl World {
    /// The server's own copy of a document, if there is one.
    pub fn server_document(&mut self, app: AppId, name: &str) -> Option<yrs::Doc> {
        use yrs::updates::decoder::Decode;
        let id = DocumentId { app, name: DocumentName::parse(name).unwrap() };
        let shard = usize::from(id.shard(u16::try_from(self.engines.len()).unwrap()));
        let engine = &mut self.engines[shard];
        let key = engine.rooms.find(&id)?;
        let encoded = engine.rooms.get_mut(key).unwrap().document.encode();
        let doc = client::document(u64::MAX >> 11);
        let update = yrs::Update::decode_v1(&encoded).unwrap();
        yrs::Transact::transact_mut(&doc).apply_update(update).unwrap();
        Some(doc)
    }

    /// Whether the server has this client in, too. One that left a document of another shard, came back at once and was
    /// refused may hear behind that that it is in: the answer to its first coming was still on its way.
    pub fn is_in(&self, socket: usize, key: &str) -> bool {
        let Some((shard, connection)) = self.sockets[socket].place else { return false };
        let connection = self.engines[usize::from(shard)].connections.get(connection);
        let is_it = |channel: &Channel| channel.is_open() && [key, ""].contains(&&*channel.key);
        connection.is_some_and(|connection| connection.channels.iter().any(is_it))
    }

    pub fn counters(&self) -> crate::engine::Counters {
        let mut sum = self.counted_before;
        for counters in self.engines.iter().map(Engine::counters) {
            sum.updates_in += counters.updates_in;
            sum.updates_parked += counters.updates_parked;
            sum.updates_refused += counters.updates_refused;
            sum.resyncs += counters.resyncs;
            sum.crdt_panics += counters.crdt_panics;
            sum.sessions += counters.sessions;
            sum.acknowledged += counters.acknowledged;
            sum.journal_refusals += counters.journal_refusals;
        }
        sum
    }

    /// Nothing of anybody is left anywhere.
    pub fn assert_empty(&self) {
        for engine in &self.engines {
            let shard = engine.shard;
            assert_eq!(engine.connections.len(), 0, "connections of shard {shard}");
            assert_eq!(engine.sessions.len(), 0, "sessions of shard {shard}");
            assert_eq!(engine.links.len(), 0, "links of shard {shard}");
            assert_eq!(engine.remote_links.len(), 0, "remote links of shard {shard}");
            assert_eq!(engine.rooms.len(), 0, "rooms of shard {shard}");
            assert_eq!(engine.questions.len(), 0, "questions of shard {shard}");
            assert_eq!(engine.meters.len(), 0, "meters of shard {shard}");
            assert_eq!(engine.dirty.len(), 0, "dirty links of shard {shard}");
            assert_eq!(engine.turn_rooms.len(), 0, "turns of shard {shard}");
        }
        if let Some(journal) = &self.journal {
            assert_eq!(journal.index().awake_documents(), 0, "documents in the journal that don't rest");
            assert_eq!(journal.index().wanted(), 0, "states that nobody will send");
            assert!(
                self.engines[0].may_be_kept() || journal.figures().documents == 0,
                "documents in the journal"
            );
        }
        assert_eq!(self.ledger.totals().connections, 0, "connections in the ledger");
        assert_eq!(self.ledger.totals().documents, 0, "documents in the ledger");
        assert_eq!(self.ledger.totals().apps, 0, "apps in the ledger");
        assert_eq!(self.ledger.totals().unmatched_releases_total, 0);
    }
}

impl Engine {
    pub fn question_count(&self) -> usize {
        self.questions.len()
    }

    /// Documents that are being put to rest.
    pub fn resting_count(&self) -> usize {
        self.keeping.resting_count()
    }

    pub fn timer_count(&self) -> usize {
        self.timers.len()
    }

    /// Awareness states of all documents, those of clients that left included.
    pub fn awareness_entries(&self) -> usize {
        self.rooms.iter().map(|(_, room)| room.awareness.len()).sum()
    }

    /// What all connections keep of routing keys.
    pub fn key_bytes(&self) -> usize {
        self.channels().map(|channel| channel.key.len()).sum()
    }

    /// Messages that wait for a claim or a lease.
    pub fn held_bytes(&self) -> usize {
        let of_channels: usize =
            self.channels().flat_map(|channel| &channel.held).map(|body| body.len()).sum();
        let of_sessions = self.sessions.iter().flat_map(|(_, session)| &session.held);
        of_channels + of_sessions.map(|body| body.len()).sum::<usize>()
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        let connections = self.connections.keys().filter_map(|key| self.connections.get(key));
        connections.flat_map(|connection| connection.channels.iter())
    }
}
