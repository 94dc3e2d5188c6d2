//! What the server has promised: every update that it said is stored is in its document for as long as the document's
//! session lives, whatever became of the node meanwhile.
//!
//! What is looked after here is what clients were told, and when somebody was in a document: nothing of it comes from
//! the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use yrs::block::ClientID;
use yrs::updates::decoder::Decode;
use yrs::{Doc, IdSet, ReadTxn, Transact, Update};

use super::world::{World, app};
use crate::engine::document::Document;
use crate::engine::keeping::Stand;
use crate::journal::{Command, Reply, Retention};
use crate::protocol::document::{AppId, DocumentId, DocumentName};

/// Of one document.
#[derive(Debug, Clone)]
struct Promised {
    /// Up to which clock everything of a client was stored.
    inserted: BTreeMap<ClientID, u32>,
    deleted: IdSet,
    /// When somebody was in it last.
    occupied_at: Duration,
}

/// Of all documents.
#[derive(Debug, Default)]
pub struct Promise {
    documents: BTreeMap<(AppId, String), Promised>,
    /// Updates.
    pub count: u64,
}

impl Promised {
    fn new(occupied_at: Duration) -> Self {
        Self { inserted: BTreeMap::new(), deleted: IdSet::default(), occupied_at }
    }

    fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.deleted.is_empty()
    }

    fn add(&mut self, update: &Update) {
        for (client, ranges) in update.insertions(true).iter() {
            let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
            let stored = self.inserted.entry(*client).or_default();
            *stored = end.max(*stored);
        }
        self.deleted.merge_with(update.delete_set().clone());
    }

    /// What is missing in there.
    fn missing_in(&self, doc: &Doc) -> Option<String> {
        let snapshot = doc.transact().snapshot();
        for (client, end) in &self.inserted {
            let has = snapshot.state_map.get(client);
            if has < *end {
                return Some(format!("of client {client} it has {has}, and {end} were stored"));
            }
        }
        let undone = self.deleted.diff(&snapshot.delete_set);
        (!undone.is_empty()).then(|| format!("what was deleted is back: {undone:?}"))
    }
}

impl World {
    /// A client has read what came.
    pub(super) fn note_stored(&mut self, socket: usize) {
        let keeps = self.engines[0].settings().retention.is_some();
        let Some(promise) = self.promise.as_mut().filter(|_| keeps) else { return };
        let socket = &mut self.sockets[socket];
        for replica in &mut socket.replicas {
            let id = (app(socket.app), name_of(&replica.key).to_owned());
            for update in replica.stored.drain(..) {
                let (Ok(update), Some(promised)) =
                    (Update::decode_v1(&update), promise.documents.get_mut(&id))
                else {
                    continue;
                };
                promised.add(&update);
                promise.count += 1;
            }
        }
    }

    /// Time is about to move to there: whoever is somewhere is there until then.
    pub(super) fn note_time(&mut self, at: Duration) {
        let Some(mut promise) = self.promise.take() else { return };
        for (id, promised) in &mut promise.documents {
            if self.room(id).is_some_and(|room| !room.sessions.is_empty()) {
                promised.occupied_at = at;
            }
        }
        self.promise = Some(promise);
    }

    /// Something has happened on a shard: no document may end before its time.
    pub(super) fn watch(&mut self, shard: usize) {
        let Some(mut promise) = self.promise.take() else { return };
        let now = self.now.monotonic;
        for (_, room) in self.engines[shard].rooms.iter() {
            let id = (room.id.app, room.id.name.as_str().to_owned());
            let promised = promise.documents.entry(id).or_insert_with(|| Promised::new(now));
            if !room.sessions.is_empty() {
                promised.occupied_at = now;
            }
        }
        let settings = self.engines[0].settings();
        let (grace, retention) = (settings.grace_period, settings.retention);
        let ids: Vec<(AppId, String)> = promise.documents.keys().cloned().collect();
        for id in ids {
            if self.shard_of(&id) != shard || self.room(&id).is_some() {
                continue;
            }
            let promised = &promise.documents[&id];
            let is_over = now >= promised.occupied_at + grace || self.faults.contains_key("failed read");
            assert!(is_over || promised.is_empty(), "{id:?} is forgotten while its session lives");
            if retention != Some(Retention::ForEver) {
                promise.documents.remove(&id);
                self.disclaim(&id);
            }
        }
        self.promise = Some(promise);
    }

    /// The document is gone, and what was said of it may be.
    fn disclaim(&mut self, id: &(AppId, String)) {
        for socket in &mut self.sockets {
            for replica in &mut socket.replicas {
                if (app(socket.app), name_of(&replica.key)) == (id.0, &id.1) {
                    // What is still to be said of these comes, and counts for nothing.
                    replica.pending.fill(vec![0, 0]);
                    replica.stored.clear();
                }
            }
        }
    }

    /// The node is back: every session that lived when it went down is.
    pub(super) fn check_recovered(&mut self) {
        let Some(mut promise) = self.promise.take() else { return };
        let settings = self.engines[0].settings();
        let (grace, retention) = (settings.grace_period, settings.retention);
        let now = self.now.monotonic;
        promise.documents = std::mem::take(&mut promise.documents)
            .into_iter()
            .filter_map(|(id, mut promised)| {
                let is_there = self.room(&id).is_some();
                let lived = now < promised.occupied_at + grace;
                if is_there {
                    promised.occupied_at = now;
                } else if retention == Some(Retention::ForEver) || (retention.is_some() && lived) {
                    // It rests, at most.
                    let missing = match self.resting(&id) {
                        Some(doc) => promised.missing_in(&doc),
                        None => (!promised.is_empty()).then(|| "all of it".to_owned()),
                    };
                    assert_eq!(missing, None, "{id:?} is not recovered");
                    promised.occupied_at = Duration::ZERO;
                }
                (is_there || retention == Some(Retention::ForEver)).then_some((id, promised))
            })
            .collect();
        self.promise = Some(promise);
        self.check_promises();
    }

    /// A document that the journal has and no shard, as who opens it gets it.
    fn resting(&self, (app, name): &(AppId, String)) -> Option<Doc> {
        let shards = self.engines.len() as u16;
        let disk = self.journal.as_ref()?.storage().after_kill();
        let (log, _) = Self::open_journal(shards, self.engines[0].settings(), self.level, disk);
        let mut log = log?;
        let document = DocumentId { app: *app, name: DocumentName::parse(name).ok()? };
        log.handle(Command::Load { shard: 0, document });
        let Some((_, Reply::Loaded { contents: Ok(Some(contents)), .. })) = log.poll_reply() else {
            return None;
        };
        let doc = super::client::document(u64::MAX >> 11);
        let update = Update::decode_v1(&Document::restored(contents).encode()).ok()?;
        doc.transact_mut().apply_update(update).ok()?;
        Some(doc)
    }

    /// What was said to be stored is in the documents.
    pub fn check_promises(&mut self) {
        let Some(promise) = self.promise.take() else { return };
        for (id, promised) in &promise.documents {
            if promised.is_empty() || self.room(id).is_none_or(|room| room.stand == Stand::Loading) {
                continue;
            }
            let doc = self.server_document(id.0, &id.1).expect("it is there");
            if let Some(missing) = promised.missing_in(&doc) {
                panic!("{id:?} has lost what was stored: {missing}");
            }
        }
        self.promise = Some(promise);
    }

    /// The documents in which something was stored.
    pub fn promised(&self) -> Vec<(AppId, String)> {
        let promise = self.promise.as_ref().into_iter();
        let documents = promise.flat_map(|promise| &promise.documents);
        documents.filter(|(_, promised)| !promised.is_empty()).map(|(id, _)| id.clone()).collect()
    }

    /// What a client lacks of what was stored in a document.
    pub fn missing_in(&self, id: &(AppId, String), doc: &Doc) -> Option<String> {
        self.promise.as_ref()?.documents.get(id)?.missing_in(doc)
    }

    fn shard_of(&self, (app, name): &(AppId, String)) -> usize {
        let id = DocumentId { app: *app, name: DocumentName::parse(name).unwrap() };
        usize::from(id.shard(self.engines.len() as u16))
    }

    fn room(&self, id: &(AppId, String)) -> Option<&crate::engine::room::Room> {
        let document = DocumentId { app: id.0, name: DocumentName::parse(&id.1).unwrap() };
        let rooms = &self.engines[self.shard_of(id)].rooms;
        rooms.get(rooms.find(&document)?)
    }
}

/// The document of a routing key.
pub fn name_of(key: &str) -> &str {
    key.split('\0').next().unwrap_or(key)
}
