//! The journal's core on a disk that fails, tears and forgets: what was acknowledged is there, and nothing else than what
//! was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::log::{Log, LogSettings, OpenError};
use super::memory::{Faults, Memory};
use super::record::Marker;
use super::recovery::Recovered;
use super::{Command, Contents, Reply, Retention, record};
use crate::engine::simulation::world::Random;
use crate::protocol::document::{AppId, DocumentId, DocumentName};
use crate::protocol::lib0::{self, Reader};

const SETTINGS: LogSettings =
    LogSettings { syncs: true, segment_bytes: 4096, retention: Retention::Session, shards: 1, seed: 1 };

fn document(number: u64) -> DocumentId {
    let app = AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(2) };
    DocumentId { app, name: DocumentName::parse(&format!("document-{number}")).unwrap() }
}

fn open(storage: Memory) -> (Log<Memory>, Recovered) {
    open_with(storage, SETTINGS).unwrap()
}

fn open_with(storage: Memory, settings: LogSettings) -> Result<(Log<Memory>, Recovered), OpenError> {
    Log::open(storage, settings)
}

/// What a test writes into documents: numbers, each an update of its own.
type Tokens = BTreeSet<u64>;

fn tokens_of(contents: &Contents) -> Tokens {
    let mut tokens = Tokens::new();
    for bytes in [&contents.snapshot[..], &contents.tail[..]] {
        let mut reader = Reader::new(bytes);
        while let Ok(token) = reader.var_bytes() {
            tokens.insert(u64::from_le_bytes(token.try_into().expect("a token")));
        }
        assert!(reader.is_empty());
    }
    tokens
}

fn contents_of(tokens: &Tokens) -> Contents {
    let mut snapshot = Vec::new();
    tokens.iter().for_each(|token| lib0::write_var_bytes(&mut snapshot, &token.to_le_bytes()));
    Contents { snapshot: Bytes::from(snapshot), tail: Vec::new() }
}

fn all_of(recovered: &Recovered) -> BTreeMap<DocumentId, Tokens> {
    recovered.documents.iter().map(|document| (document.id.clone(), tokens_of(&document.contents))).collect()
}

/// One shard's batches.
#[derive(Debug, Default)]
struct Batches(u64);

impl Batches {
    fn append(&mut self, log: &mut Log<Memory>, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        self.0 += 1;
        let mut records = Vec::new();
        write(&mut records);
        log.handle(Command::Append { shard: 0, number: self.0, records, awaited: false });
        self.0
    }

    fn update(&mut self, log: &mut Log<Memory>, document: &DocumentId, token: u64) -> u64 {
        self.append(log, |out| record::write_update(out, document, &token.to_le_bytes()))
    }
}

fn stored(log: &mut Log<Memory>) -> Option<u64> {
    let mut newest = None;
    while let Some((_, reply)) = log.poll_reply() {
        if let Reply::Stored { through, .. } = reply {
            newest = Some(through);
        }
    }
    newest
}

/// A log of several groups in two segments, and what is in it after each record.
fn several_groups() -> (Memory, Vec<BTreeMap<DocumentId, Tokens>>) {
    let (mut log, _) = open_with(Memory::default(), LogSettings { segment_bytes: 700, ..SETTINGS }).unwrap();
    let mut batches = Batches::default();
    let (mut now, mut after) = (BTreeMap::<DocumentId, Tokens>::new(), vec![BTreeMap::new()]);
    for token in 0..12 {
        let id = document(token % 3);
        batches.update(&mut log, &id, token);
        now.entry(id).or_default().insert(token);
        if token == 7 {
            // Half a group may be there: it was not acknowledged.
            after.push(now.clone());
            batches.append(&mut log, |out| record::write_forgotten(out, &document(0)));
            now.remove(&document(0));
        }
        log.commit();
        log.maintain(0);
        after.push(now.clone());
    }
    let numbers = log.storage().numbers();
    assert!(numbers.len() >= 2, "{numbers:?}");
    (log.storage().clone(), after)
}

#[test]
fn what_was_stored_is_there_after_a_kill() {
    let (storage, after) = several_groups();
    let (_, recovered) = open(storage.after_kill());
    assert_eq!(all_of(&recovered), after[13]);
    assert_eq!(recovered.torn, None);
}

#[test]
fn a_flipped_byte_anywhere_is_refused_or_ends_the_log_before_it() {
    let (storage, after) = several_groups();
    let (mut refused, mut cut) = (0, 0);
    for number in storage.numbers() {
        let is_newest = storage.numbers().last() == Some(&number);
        for at in 0..storage.clone().bytes_mut(number).len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut storage = storage.after_kill();
                storage.bytes_mut(number)[at] ^= flip;
                match open_with(storage, SETTINGS) {
                    Err(OpenError::Damaged { file, offset, .. }) => {
                        assert_eq!(file, format!("segment {number}"));
                        assert!(offset <= at as u64, "{offset} {at}");
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                    Ok((_, recovered)) => {
                        // Nothing behind it says that it was on disk once: it can't be told from a torn write.
                        assert!(is_newest, "segment {number}, byte {at}");
                        assert!(recovered.torn.is_some());
                        assert!(after.contains(&all_of(&recovered)), "segment {number}, byte {at}");
                        assert_ne!(all_of(&recovered), after[13]);
                        cut += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && cut > 100, "{refused} {cut}");
}

#[test]
fn a_log_that_ends_anywhere_has_what_came_before() {
    let (storage, after) = several_groups();
    let numbers = storage.numbers();
    for &number in &numbers {
        for length in 0..storage.clone().bytes_mut(number).len() {
            let mut storage = storage.after_kill();
            storage.bytes_mut(number).truncate(length);
            match open_with(storage, SETTINGS) {
                Err(OpenError::Damaged { .. }) => assert_ne!(number, numbers[numbers.len() - 1]),
                Err(other) => panic!("{other}"),
                Ok((_, recovered)) => {
                    assert_eq!(number, numbers[numbers.len() - 1], "a hole in the middle");
                    assert!(after.contains(&all_of(&recovered)), "{length}");
                }
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let (storage, _) = several_groups();
    let numbers = storage.numbers();
    let mut hole = open(storage.after_kill()).0.storage().after_kill();
    super::storage::Storage::remove(&mut hole, numbers[1]).unwrap();
    let error = open_with(hole, SETTINGS).unwrap_err();
    assert!(error.to_string().contains(&format!("segment {}", numbers[1])), "{error}");
}

#[test]
fn a_torn_write_is_cut_off_and_the_log_goes_on_behind_it() {
    let (storage, after) = several_groups();
    let (mut log, _) = open(storage.after_kill());
    let mut batches = Batches::default();
    batches.update(&mut log, &document(9), 900);
    log.commit();
    batches.update(&mut log, &document(9), 901);
    let torn_at = log.storage().total_bytes();
    log.commit();
    let torn = log.storage().after_kill();
    let newest = *torn.numbers().last().unwrap();
    let whole = torn.total_bytes() - torn_at;
    for missing in 1..=whole {
        let mut torn = torn.clone();
        let length = torn.bytes_mut(newest).len();
        torn.bytes_mut(newest).truncate(length - missing);
        let (mut log, recovered) = open(torn);
        let mut expected = after[13].clone();
        expected.insert(document(9), Tokens::from([900]));
        assert_eq!(all_of(&recovered), expected, "{missing}");
        Batches::default().update(&mut log, &document(9), 902);
        log.commit();
        let (_, recovered) = open(log.storage().after_kill());
        expected.insert(document(9), Tokens::from([900, 902]));
        assert_eq!((all_of(&recovered), recovered.torn), (expected, None), "{missing}");
    }
}

/// Writes until something fails or it is done; gives back the tokens that were acknowledged.
fn write_until_failure(log: &mut Log<Memory>) -> (Tokens, bool) {
    let (mut batches, mut acknowledged) = (Batches::default(), Tokens::new());
    let mut failed = false;
    for token in 0..40 {
        let number = batches.update(log, &document(token % 2), token);
        assert_eq!(number, token + 1);
        log.commit();
        while let Some((_, reply)) = log.poll_reply() {
            match reply {
                Reply::Stored { through, .. } => {
                    assert!(!failed, "an acknowledgement after a failure");
                    acknowledged.extend(0..through);
                }
                Reply::Failed => failed = true,
                Reply::Wanted { document } => {
                    let all = (0..=token).filter(|token| document == self::document(token % 2)).collect();
                    log.handle(Command::Keep {
                        shard: 0,
                        document,
                        contents: contents_of(&all),
                        rests: false,
                    });
                }
                Reply::Rested { .. } | Reply::Loaded { .. } => {}
            }
        }
        log.maintain(0);
    }
    while let Some((_, reply)) = log.poll_reply() {
        failed |= matches!(reply, Reply::Failed);
    }
    assert_eq!(failed, log.failure().is_some());
    (acknowledged, failed)
}

/// A disk with one fault, and whether that came to pass.
fn false_acknowledgements(faults: Faults, settings: LogSettings, cut: bool) -> Option<usize> {
    let (mut log, _) = open_with(Memory::with(faults), settings).ok()?;
    let (acknowledged, failed) = write_until_failure(&mut log);
    let after = if cut { log.storage().after_power_cut(|_| 0) } else { log.storage().after_kill() };
    let (_, recovered) = open_with(after, settings).unwrap();
    let there: Tokens = all_of(&recovered).into_values().flatten().collect();
    let lost = acknowledged.difference(&there).count();
    (failed || faults.lies).then_some(lost)
}

#[test]
fn a_full_disk_or_a_failed_sync_is_never_acknowledged() {
    let settings = LogSettings { segment_bytes: 300, ..SETTINGS };
    let mut failures = 0;
    for at in 0..120 {
        let written = [0, 1, 17, 60, usize::MAX];
        let appends = written.map(|bytes| Faults { append: Some((at, bytes)), ..Faults::default() });
        let others = [
            Faults { sync: Some(at), ..Faults::default() },
            Faults { create: Some(at), ..Faults::default() },
            Faults { remove: Some(at), ..Faults::default() },
        ];
        for faults in appends.into_iter().chain(others) {
            for (syncs, cut) in [(true, true), (true, false), (false, false)] {
                let lost = false_acknowledgements(faults, LogSettings { syncs, ..settings }, cut);
                assert!(lost.is_none_or(|lost| lost == 0), "{faults:?} {syncs} {cut}: {lost:?}");
                failures += usize::from(lost.is_some());
            }
        }
    }
    assert!(failures > 500, "the faults came to pass: {failures}");
}

/// The negative control of the test above, and of the levels: what is only written does not survive the power.
#[test]
fn a_disk_that_lies_and_a_level_that_does_not_sync_lose_in_a_power_cut() {
    let settings = LogSettings { segment_bytes: 1 << 20, ..SETTINGS };
    let lies = Faults { lies: true, ..Faults::default() };
    assert!(false_acknowledgements(lies, settings, true).is_some_and(|lost| lost == 40));
    let (mut log, _) = open_with(Memory::default(), LogSettings { syncs: false, ..settings }).unwrap();
    let (acknowledged, _) = write_until_failure(&mut log);
    assert_eq!(acknowledged.len(), 40);
    let (_, after_kill) = open(log.storage().after_kill());
    let (_, after_cut) = open(log.storage().after_power_cut(|_| 0));
    let count = |recovered: &Recovered| all_of(recovered).into_values().flatten().count();
    assert_eq!((count(&after_kill), count(&after_cut)), (40, 0));
}

#[test]
fn a_state_stands_for_what_came_before_and_old_segments_go() {
    let (mut log, _) = open(Memory::default());
    let (mut batches, mut tokens) = (Batches::default(), BTreeMap::<DocumentId, Tokens>::new());
    for token in 0..5000 {
        let id = document(token % 7);
        batches.update(&mut log, &id, token);
        tokens.entry(id).or_default().insert(token);
        log.commit();
        log.maintain(0);
        while let Some((_, reply)) = log.poll_reply() {
            if let Reply::Wanted { document } = reply {
                let contents = contents_of(&tokens[&document]);
                log.handle(Command::Keep { shard: 0, document, contents, rests: false });
            }
        }
        let figures = log.figures();
        let bound = 6 * SETTINGS.segment_bytes + 3 * figures.state_bytes;
        assert!(figures.bytes < bound, "{figures:?}");
        assert_eq!(figures.bytes, log.storage().total_bytes() as u64);
    }
    assert!(log.figures().segments_removed_total > 20, "{:?}", log.figures());
    let (_, recovered) = open(log.storage().after_kill());
    assert_eq!(all_of(&recovered), tokens);
}

#[test]
fn a_document_that_is_forgotten_leaves_the_disk() {
    let (mut log, _) = open(Memory::default());
    let mut batches = Batches::default();
    for token in 0..2000 {
        batches.update(&mut log, &document(token % 5), token);
        log.commit();
        log.maintain(0);
    }
    assert!(log.storage().total_bytes() > 100_000);
    for number in 0..5 {
        batches.append(&mut log, |out| record::write_forgotten(out, &document(number)));
    }
    log.commit();
    log.maintain(0);
    assert!(log.storage().total_bytes() < 2 * SETTINGS.segment_bytes as usize);
    let (_, recovered) = open(log.storage().after_kill());
    assert!(recovered.documents.is_empty());
}

#[test]
fn a_big_state_is_written_in_pieces_between_which_updates_go() {
    let settings = LogSettings { segment_bytes: 4 << 20, ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), settings).unwrap();
    let mut batches = Batches::default();
    batches.update(&mut log, &document(1), 1);
    log.commit();
    let big = Contents { snapshot: Bytes::from(vec![7; 10 << 20]), tail: Vec::new() };
    log.handle(Command::Keep { shard: 0, document: document(1), contents: big.clone(), rests: false });
    let mut acknowledged = 0;
    while log.has_work() {
        let number = batches.update(&mut log, &document(1), 100 + batches.0);
        log.commit();
        assert_eq!(stored(&mut log), Some(number), "an update does not wait for the state");
        acknowledged += 1;
        let (_, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
        let contents = &recovered.documents[0].contents;
        if contents.snapshot.is_empty() {
            assert_eq!(tokens_of(contents).len(), 1 + acknowledged);
        } else {
            assert_eq!(contents.snapshot, big.snapshot);
            let tail = Contents { snapshot: Bytes::new(), tail: contents.tail.clone() };
            assert_eq!(tokens_of(&tail).len(), acknowledged, "what came while it was written is kept");
        }
        log.maintain(0);
    }
    assert!(acknowledged >= 10, "{acknowledged}");
}

fn settle(log: &mut Log<Memory>) -> Vec<Reply> {
    let mut replies = Vec::new();
    loop {
        log.commit();
        log.maintain(0);
        while let Some((_, reply)) = log.poll_reply() {
            replies.push(reply);
        }
        if !log.has_work() {
            return replies;
        }
    }
}

#[test]
fn a_document_rests_on_disk_until_it_is_loaded_or_its_time_is_over() {
    let settings = LogSettings { retention: Retention::For(Duration::from_secs(100)), ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), settings).unwrap();
    let mut batches = Batches::default();
    for number in [1, 2] {
        batches.update(&mut log, &document(number), number);
        let contents = contents_of(&Tokens::from([number]));
        log.handle(Command::Keep { shard: 0, document: document(number), contents, rests: true });
    }
    let rested = settle(&mut log).iter().filter(|reply| matches!(reply, Reply::Rested { .. })).count();
    assert_eq!(rested, 2);
    // Its shard may have it open again by now: until that says that it rests, it doesn't.
    log.maintain(9999);
    let (_, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!((log.figures().documents, recovered.documents.len(), recovered.resting), (2, 2, 0));
    for number in [1, 2] {
        batches.append(&mut log, |out| record::write_rests(out, &document(number), 1000));
    }
    settle(&mut log);
    let (mut log, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!((recovered.documents.len(), recovered.resting), (0, 2));
    log.handle(Command::Load { shard: 0, document: document(1) });
    log.handle(Command::Load { shard: 0, document: document(3) });
    match &settle(&mut log)[..] {
        [Reply::Loaded { contents: Ok(Some(contents)), .. }, Reply::Loaded { contents: Ok(None), .. }] => {
            assert_eq!(tokens_of(contents), Tokens::from([1]));
        }
        other => panic!("{other:?}"),
    }
    // The one that is open stays, whatever the time; the other one's is over.
    log.maintain(1099);
    assert_eq!(log.figures().documents, 2);
    log.maintain(1100);
    assert_eq!(log.figures().documents, 1);
    log.commit();
    let (mut log, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!(all_of(&recovered), BTreeMap::from([(document(1), Tokens::from([1]))]));
    // Nobody wrote to it: its state stands, and it rests again.
    Batches::default().append(&mut log, |out| record::write_rests(out, &document(1), 2000));
    settle(&mut log);
    let (mut log, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!((recovered.documents.len(), recovered.resting), (0, 1));
    log.maintain(2100);
    log.commit();
    let (_, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!((recovered.documents.len(), recovered.resting), (0, 0));
}

#[test]
fn a_journal_that_is_to_keep_sessions_only_drops_what_rests() {
    let for_ever = LogSettings { retention: Retention::ForEver, ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), for_ever).unwrap();
    let contents = contents_of(&Tokens::from([1]));
    log.handle(Command::Keep { shard: 0, document: document(1), contents, rests: true });
    settle(&mut log);
    Batches::default().append(&mut log, |out| record::write_rests(out, &document(1), 1000));
    settle(&mut log);
    let (mut log, recovered) = open(log.storage().after_kill());
    assert_eq!(recovered.resting, 1);
    settle(&mut log);
    assert_eq!(log.figures().documents, 0);
}

/// What a shard has, and what it was promised.
#[derive(Debug, Default, Clone)]
struct Model {
    /// In memory.
    open: BTreeMap<DocumentId, Tokens>,
    /// Acknowledged or safe otherwise.
    safe: BTreeMap<DocumentId, Tokens>,
    /// Everything ever written.
    written: BTreeMap<DocumentId, Tokens>,
    /// By batch: what is safe once it is stored. A document without tokens is forgotten.
    promised: Vec<(u64, DocumentId, Option<u64>)>,
    resting: BTreeSet<DocumentId>,
}

impl Model {
    fn hear(&mut self, log: &mut Log<Memory>, batches: &mut Batches, reply: Reply) {
        match reply {
            Reply::Stored { through, .. } => {
                let stored: Vec<_> =
                    self.promised.extract_if(.., |(number, ..)| *number <= through).collect();
                for (_, id, token) in stored {
                    match token {
                        Some(token) => _ = self.safe.entry(id).or_default().insert(token),
                        None => _ = self.safe.remove(&id),
                    }
                }
            }
            Reply::Wanted { document } => {
                if let Some(tokens) = self.open.get(&document) {
                    let contents = contents_of(tokens);
                    log.handle(Command::Keep { shard: 0, document, contents, rests: false });
                }
            }
            Reply::Rested { document } => {
                self.open.remove(&document);
                batches.append(log, |out| record::write_rests(out, &document, 7));
                self.resting.insert(document);
            }
            Reply::Loaded { document, contents } => {
                let tokens = tokens_of(&contents.unwrap().expect("it rested"));
                self.resting.remove(&document);
                self.open.insert(document, tokens);
            }
            Reply::Failed => panic!("{:?}", log.failure()),
        }
    }
}

/// One life of a process: random work, then its end.
fn live(
    random: &mut Random,
    mut log: Log<Memory>,
    model: &mut Model,
    batches: &mut Batches,
    next: &mut u64,
) -> Memory {
    for _ in 0..random.below(300) {
        let id = document(random.below(8));
        match random.below(12) {
            0..=6 if !model.resting.contains(&id) => {
                let token = *next;
                *next += 1;
                model.open.entry(id.clone()).or_default().insert(token);
                model.written.entry(id.clone()).or_default().insert(token);
                let number = batches.update(&mut log, &id, token);
                model.promised.push((number, id, Some(token)));
            }
            7 if model.open.contains_key(&id) && random.one_in(3) => {
                model.open.remove(&id);
                let number = batches.append(&mut log, |out| record::write_forgotten(out, &id));
                model.promised.push((number, id.clone(), None));
                model.written.entry(id).or_default();
            }
            8 if model.open.contains_key(&id) && random.one_in(2) => {
                let contents = contents_of(&model.open[&id]);
                log.handle(Command::Keep { shard: 0, document: id, contents, rests: true });
                // Nobody writes to it before it rests.
                while log.has_work() {
                    log.commit();
                    while let Some((_, reply)) = log.poll_reply() {
                        model.hear(&mut log, batches, reply);
                    }
                    log.maintain(0);
                }
            }
            9 if model.resting.contains(&id) => {
                log.handle(Command::Load { shard: 0, document: id });
                log.commit();
                while let Some((_, reply)) = log.poll_reply() {
                    model.hear(&mut log, batches, reply);
                }
            }
            _ => {
                log.commit();
                while let Some((_, reply)) = log.poll_reply() {
                    model.hear(&mut log, batches, reply);
                }
                log.maintain(0);
                while let Some((_, reply)) = log.poll_reply() {
                    model.hear(&mut log, batches, reply);
                }
            }
        }
    }
    if random.one_in(2) {
        log.storage().after_kill()
    } else {
        log.storage().after_power_cut(|most| random.below(most as u64 + 1) as usize)
    }
}

#[test]
fn random_lives_and_deaths_lose_nothing_that_was_acknowledged() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let settings = LogSettings {
            segment_bytes: 200 + random.below(3000),
            retention: Retention::ForEver,
            ..SETTINGS
        };
        let (mut storage, mut model, mut next) = (Memory::default(), Model::default(), 0);
        for life in 0..5 {
            let (log, recovered) =
                open_with(storage, settings).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
            let there = all_of(&recovered);
            for (id, tokens) in &there {
                let written = model.written.get(id).cloned().unwrap_or_default();
                assert!(tokens.is_subset(&written), "seed {seed}, life {life}: {id}");
            }
            let unstored: BTreeSet<_> = model
                .promised
                .iter()
                .filter(|(.., token)| token.is_none())
                .map(|(_, id, _)| id.clone())
                .collect();
            for (id, safe) in model.safe.iter().filter(|(id, _)| !unstored.contains(*id)) {
                match there.get(id) {
                    Some(tokens) => assert!(
                        safe.is_subset(tokens),
                        "seed {seed}, life {life}: {id} lost {safe:?} {tokens:?}"
                    ),
                    None => {
                        assert!(model.resting.contains(id), "seed {seed}, life {life}: {id} lost {safe:?}")
                    }
                }
            }
            model.resting.retain(|id| !there.contains_key(id));
            assert_eq!(recovered.resting, model.resting.len(), "seed {seed}, life {life}");
            model.promised.clear();
            model.safe.retain(|id, _| there.contains_key(id) || model.resting.contains(id));
            for (id, tokens) in &there {
                // What is there now is promised: it is given to whoever comes.
                model.safe.insert(id.clone(), tokens.clone());
            }
            model.open = there;
            storage = live(&mut random, log, &mut model, &mut Batches::default(), &mut next);
        }
    }
}

/// Who was asked for a state may have nobody in the document by then, and what it says crosses the question.
#[test]
fn a_state_that_nobody_can_send_does_not_hold_up_the_cleaning() {
    let settings = LogSettings { retention: Retention::ForEver, ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), settings).unwrap();
    let mut batches = Batches::default();
    let visited: Vec<DocumentId> = (100..140).map(document).collect();
    for id in &visited {
        let contents = contents_of(&Tokens::from([1]));
        log.handle(Command::Keep { shard: 0, document: id.clone(), contents, rests: true });
    }
    settle(&mut log);
    for id in &visited {
        batches.append(&mut log, |out| record::write_rests(out, id, 7));
        log.handle(Command::Load { shard: 0, document: id.clone() });
    }
    settle(&mut log);
    let mut left = 0;
    for token in 0..6000 {
        batches.update(&mut log, &document(1), token);
        for reply in settle(&mut log) {
            let Reply::Wanted { document: id } = reply else { continue };
            if visited.contains(&id) {
                left += 1;
                batches.append(&mut log, |out| record::write_rests(out, &id, 8));
            } else {
                let contents = contents_of(&Tokens::from([token]));
                log.handle(Command::Keep { shard: 0, document: id, contents, rests: false });
            }
        }
    }
    let figures = log.figures();
    assert!(left >= visited.len(), "{left} were asked for");
    assert!(figures.bytes < 6 * SETTINGS.segment_bytes + 3 * figures.state_bytes, "{figures:?}");
    let (mut log, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!(recovered.resting, visited.len());
    log.handle(Command::Load { shard: 0, document: visited[7].clone() });
    match &settle(&mut log)[..] {
        [Reply::Loaded { contents: Ok(Some(contents)), .. }] => {
            assert_eq!(tokens_of(contents), Tokens::from([1]))
        }
        other => panic!("{other:?}"),
    }
}

/// An update that is on its way with the state it is in already, in the turn in which everybody left.
#[test]
fn an_update_that_crosses_its_documents_last_state_does_not_keep_it_awake() {
    let settings = LogSettings { retention: Retention::For(Duration::from_secs(100)), ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), settings).unwrap();
    let mut batches = Batches::default();
    let contents = contents_of(&Tokens::from([1, 2]));
    log.handle(Command::Keep { shard: 0, document: document(1), contents, rests: true });
    batches.update(&mut log, &document(1), 2);
    settle(&mut log);
    batches.append(&mut log, |out| record::write_rests(out, &document(1), 1000));
    settle(&mut log);
    let (mut after, recovered) = open_with(log.storage().after_kill(), settings).unwrap();
    assert_eq!((recovered.documents.len(), recovered.resting), (0, 1));
    for log in [&mut log, &mut after] {
        log.handle(Command::Load { shard: 0, document: document(1) });
        match &settle(log)[..] {
            [Reply::Loaded { contents: Ok(Some(contents)), .. }] => {
                assert_eq!(tokens_of(contents), Tokens::from([1, 2]));
            }
            other => panic!("{other:?}"),
        }
        batches.append(log, |out| record::write_rests(out, &document(1), 2000));
        settle(log);
        log.maintain(2100);
        assert_eq!(log.figures().documents, 0);
    }
}

#[test]
fn of_states_that_another_one_stands_for_nothing_is_read_back() {
    let (mut log, _) = open(Memory::default());
    let mut tail = Vec::new();
    lib0::write_var_bytes(&mut tail, &7u64.to_le_bytes());
    for _ in 0..5 {
        let contents = Contents { snapshot: Bytes::new(), tail: tail.clone() };
        log.handle(Command::Keep { shard: 0, document: document(1), contents, rests: false });
        settle(&mut log);
    }
    Batches::default().update(&mut log, &document(1), 8);
    settle(&mut log);
    let (_, recovered) = open(log.storage().after_kill());
    assert_eq!(recovered.documents[0].contents.tail.len(), 2 * tail.len());
    assert_eq!(all_of(&recovered)[&document(1)], Tokens::from([7, 8]));
}

/// A client can't know what the journal's markers look like, and so can't make a torn write look like damage.
#[test]
fn what_a_client_sends_is_no_marker() {
    let (mut log, _) = open(Memory::default());
    let mut batches = Batches::default();
    batches.update(&mut log, &document(1), 1);
    log.commit();
    let before = log.storage().total_bytes();
    let mut forged = Vec::new();
    for mark in [0, 1, u64::MAX, u64::from_le_bytes(*b"\xf7WSgroup")] {
        record::write_marker(&mut forged, 1, &Marker { mark, sequence: 3, durable: u64::MAX });
    }
    batches.append(&mut log, |out| record::write_update(out, &document(1), &forged));
    log.commit();
    for missing in 1..log.storage().total_bytes() - before {
        let mut torn = log.storage().after_kill();
        let length = torn.bytes_mut(1).len();
        torn.bytes_mut(1).truncate(length - missing);
        let (_, recovered) = open(torn);
        assert_eq!(all_of(&recovered), BTreeMap::from([(document(1), Tokens::from([1]))]), "{missing}");
    }
}

#[test]
fn a_start_without_work_leaves_no_segment_behind() {
    let (mut log, _) = open(Memory::default());
    Batches::default().update(&mut log, &document(1), 1);
    log.commit();
    for _ in 0..5 {
        (log, _) = open(log.storage().after_kill());
        assert_eq!(log.storage().numbers(), [1, 2]);
    }
    Batches::default().update(&mut log, &document(1), 2);
    log.commit();
    let (log, recovered) = open(log.storage().after_power_cut(|_| 0));
    assert_eq!(
        (all_of(&recovered)[&document(1)].clone(), log.storage().numbers()),
        (Tokens::from([1, 2]), vec![1, 2, 3])
    );
}

#[test]
fn a_segment_of_another_version_is_left_alone() {
    let (log, _) = open(Memory::default());
    let mut other = log.storage().after_kill();
    other.bytes_mut(1)[8] = 1;
    other.bytes_mut(1).truncate(32);
    let error = open_with(other, SETTINGS).unwrap_err();
    assert!(error.to_string().contains("another version of WireSocket"), "{error}");
}

#[test]
fn what_only_the_kernel_had_at_the_restart_is_on_disk_before_more_is_written() {
    let settings = LogSettings { syncs: false, ..SETTINGS };
    let (mut log, _) = open_with(Memory::default(), settings).unwrap();
    Batches::default().update(&mut log, &document(1), 1);
    log.commit();
    let (log, _) = open_with(log.storage().after_kill(), settings).unwrap();
    let (_, recovered) = open_with(log.storage().after_power_cut(|_| 0), settings).unwrap();
    assert_eq!(all_of(&recovered), BTreeMap::from([(document(1), Tokens::from([1]))]));
}
