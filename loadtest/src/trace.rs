//! A document with a long history: what one author typed and deleted, edit by edit.
//!
//! Traces are data that comes from elsewhere (`{startContent, endContent, txns: [{patches}]}`, gzipped
//! JSON), in a folder that the user names. The trace `made-up` is in none: it has the statistics of
//! `automerge-paper`, the same share of deletions, the same run lengths, the same size. It also stands for
//! `automerge-paper` where no folder is named at all. No other name is ever made up for.

use crate::update::ROOT;
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use thiserror::Error;
use yrs::updates::decoder::Decode;
use yrs::{
    ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, Transact, Update, WriteTxn,
};

/// Made up whatever folder there is.
const MADE_UP: &str = "made-up";
/// Made up if there is no folder, because a built-in scenario asks for it.
const MODEL: &str = "automerge-paper";
const SUFFIX: &str = ".json.gz";

const EDITS: usize = 259_778;
const INSERTS: usize = 182_315;

const EDITS_PER_TRANSACTION: usize = 128;

#[derive(Debug, Error)]
pub enum TraceError {
    #[error(
        "there is no trace {name:?} in {} (there: {there}): put {name}{SUFFIX} there (github.com/josephg/editing-traces has it), or take {MADE_UP:?}",
        folder.display()
    )]
    NotFound { name: String, folder: PathBuf, there: String },
    #[error(
        "the trace {name:?} is in no folder: name one with --traces or WIRESOCKET_TRACES (its files: github.com/josephg/editing-traces), or take {MADE_UP:?}"
    )]
    NoFolder { name: String },
    #[error("cannot look for traces in {}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("cannot read the trace {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the trace {path} isn't a sequential editing trace: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error(
        "the trace {path} reaches past its text's end: patch {patch} of transaction {transaction} (both from 0) is at position \
         {position} and deletes {deleted}, where there are {characters} characters"
    )]
    OutOfRange {
        path: PathBuf,
        transaction: usize,
        patch: usize,
        position: u32,
        deleted: u32,
        characters: usize,
    },
    #[error("the trace {path} inserts nothing: there is nothing to type")]
    Empty { path: PathBuf },
    #[error("the trace {path} does not end in its own endContent: position {at}")]
    WrongEnd { path: PathBuf, at: usize },
}

/// At `position` (in characters), `deleted` characters give way to `inserted`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Patch(u32, u32, String);

#[derive(Debug, Deserialize)]
struct Transaction {
    patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceFile {
    start_content: String,
    end_content: String,
    txns: Vec<Transaction>,
}

/// The edits of one author.
#[derive(Debug)]
pub struct Trace {
    pub source: String,
    edits: Vec<Patch>,
}

/// A document as an update, and what must be in it.
#[derive(Debug, Clone)]
pub struct History {
    pub update: Vec<u8>,
    pub text: String,
    pub clocks: u64,
    pub deleted: u64,
}

/// Where a trace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    File(PathBuf),
    MadeUp,
}

impl Found {
    /// Looks for a trace without reading it.
    pub fn find(name: &str, folder: Option<&Path>) -> Result<Self, TraceError> {
        if name == MADE_UP || (name == MODEL && folder.is_none()) {
            return Ok(Self::MadeUp);
        }
        let Some(folder) = folder else {
            return Err(TraceError::NoFolder { name: name.to_owned() });
        };
        let path = folder.join(format!("{name}{SUFFIX}"));
        if path.is_file() {
            return Ok(Self::File(path));
        }
        let there =
            traces_in(folder).map_err(|source| TraceError::Folder { folder: folder.to_owned(), source })?;
        Err(TraceError::NotFound { name: name.to_owned(), folder: folder.to_owned(), there })
    }
}

/// The names of the traces in a folder, for people.
fn traces_in(folder: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(SUFFIX).map(str::to_owned));
    }
    names.sort();
    Ok(if names.is_empty() { "none".to_owned() } else { names.join(", ") })
}

impl Trace {
    /// The trace of that name.
    pub fn load(name: &str, folder: Option<&Path>) -> Result<Self, TraceError> {
        match Found::find(name, folder)? {
            Found::File(path) => Self::read(&path),
            Found::MadeUp => Ok(Self::generate(EDITS, INSERTS)),
        }
    }

    fn read(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Read { path: path.to_owned(), source })?;
        let file: TraceFile = serde_json::from_reader(BufReader::new(GzDecoder::new(file)))
            .map_err(|source| TraceError::Parse { path: path.to_owned(), source })?;
        check(path, &file)?;
        let start = (!file.start_content.is_empty()).then_some(Patch(0, 0, file.start_content));
        let typed = file.txns.into_iter().flat_map(|txn| txn.patches);
        let edits = start.into_iter().chain(typed).collect();
        let trace = Self { source: path.display().to_string(), edits };
        let text = trace.text();
        if text != file.end_content {
            let at = text.bytes().zip(file.end_content.bytes()).take_while(|(a, b)| a == b).count();
            return Err(TraceError::WrongEnd { path: path.to_owned(), at });
        }
        Ok(trace)
    }

    /// `edits` single-character edits, `inserts` of them insertions: typing forward in runs, runs of
    /// backspaces, now and then a jump elsewhere. The same every time.
    pub(crate) fn generate(edits: usize, inserts: usize) -> Self {
        let mut random = 0x5eed_u64;
        let mut dice = |sides: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        let (mut inserts_left, mut deletes_left) = (inserts as u64, (edits - inserts) as u64);
        let (mut len, mut cursor) = (0u64, 0u64);
        let mut made = Vec::with_capacity(edits);
        while inserts_left + deletes_left > 0 {
            if dice(4) == 0 {
                cursor = dice(len + 1);
            }
            let deletes = len > 0 && cursor > 0 && dice(inserts_left + deletes_left) < deletes_left;
            let run = 1 + dice(if deletes { 10 } else { 24 });
            for _ in 0..run {
                if deletes && deletes_left > 0 && cursor > 0 {
                    cursor -= 1;
                    len -= 1;
                    deletes_left -= 1;
                    made.push(Patch(cursor as u32, 1, String::new()));
                } else if !deletes && inserts_left > 0 {
                    let letter = char::from(b'a' + dice(26) as u8);
                    made.push(Patch(cursor as u32, 0, letter.to_string()));
                    cursor += 1;
                    len += 1;
                    inserts_left -= 1;
                }
            }
            if inserts_left == 0 && cursor == 0 {
                cursor = len; // only deletions are left, and nothing to the left of the cursor
            }
        }
        Self { source: "made up, with the statistics of automerge-paper".to_owned(), edits: made }
    }

    pub fn edits(&self) -> usize {
        self.edits.len()
    }

    /// Each edit: its position (in characters), how many characters it deletes, what it inserts.
    pub fn patches(&self) -> impl Iterator<Item = (u32, u32, &str)> {
        self.edits.iter().map(|Patch(position, deleted, inserted)| (*position, *deleted, inserted.as_str()))
    }

    #[cfg(test)]
    pub(crate) fn of(patches: Vec<(u32, u32, String)>) -> Self {
        let edits = patches.into_iter().map(|(at, deleted, inserted)| Patch(at, deleted, inserted)).collect();
        Self { source: "a test".to_owned(), edits }
    }

    fn text(&self) -> String {
        self.text_after(self.edits.len())
    }

    /// What the first `edits` edits come to.
    pub fn text_after(&self, edits: usize) -> String {
        let mut page = Page::default();
        for Patch(position, deleted, inserted) in &self.edits[..edits] {
            page.go_to(*position as usize);
            page.delete(*deleted as usize);
            page.insert(inserted);
        }
        page.text()
    }

    /// The document of `client` who typed all this into the root text. That takes a while: `go_on` is asked now and
    /// then, and its error ends it.
    pub fn history<E>(&self, client: u64, mut go_on: impl FnMut() -> Result<(), E>) -> Result<History, E> {
        let mut options = Options::with_client_id(ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        // The library searches positions block by block, and joins adjacent blocks only when a
        // transaction ends: one for all edits would search through every character ever typed.
        let mut page = Page::default();
        for edits in self.edits.chunks(EDITS_PER_TRANSACTION) {
            go_on()?;
            let mut txn = doc.transact_mut();
            let text = txn.get_or_insert_text(ROOT);
            for Patch(position, deleted, inserted) in edits {
                // Traces count characters, the document UTF-16 units.
                page.go_to(*position as usize);
                let at = page.units_before;
                let deleted = page.delete(*deleted as usize);
                if deleted > 0 {
                    text.remove_range(&mut txn, at, deleted);
                }
                if !inserted.is_empty() {
                    text.insert(&mut txn, at, inserted);
                }
                page.insert(inserted);
            }
        }
        let update = doc.transact().encode_state_as_update_v1(&StateVector::default());
        let (mut clocks, mut deleted) = (0, 0);
        if let Ok(in_delete_set) = crate::update::scan::scan(&update, |range| clocks += u64::from(range.len))
        {
            deleted = in_delete_set;
        }
        Ok(History { update, text: page.text(), clocks, deleted })
    }
}

/// The text while it is typed: a gap buffer, because edits are mostly next to one another, so that moving the gap is
/// cheap where moving the whole rest of the text would take minutes.
#[derive(Debug, Default)]
struct Page {
    before: Vec<char>,
    after: Vec<char>,  // reversed
    units_before: u32, // UTF-16
}

impl Page {
    /// Puts the gap behind so many characters.
    fn go_to(&mut self, position: usize) {
        while self.before.len() > position {
            let Some(last) = self.before.pop() else { break };
            self.units_before -= last.len_utf16() as u32;
            self.after.push(last);
        }
        while self.before.len() < position {
            let Some(next) = self.after.pop() else { break };
            self.units_before += next.len_utf16() as u32;
            self.before.push(next);
        }
    }

    /// Deletes so many characters behind the gap; how many UTF-16 units that were.
    fn delete(&mut self, count: usize) -> u32 {
        let left = self.after.len().saturating_sub(count);
        self.after.drain(left..).map(|character| character.len_utf16() as u32).sum()
    }

    fn insert(&mut self, text: &str) {
        self.before.extend(text.chars());
        self.units_before += text.chars().map(|character| character.len_utf16() as u32).sum::<u32>();
    }

    fn text(self) -> String {
        self.before.into_iter().chain(self.after.into_iter().rev()).collect()
    }
}

/// Is every edit inside the text as it is then, and does any insert something?
fn check(path: &Path, file: &TraceFile) -> Result<(), TraceError> {
    let mut characters = file.start_content.chars().count();
    let mut inserts = characters > 0;
    for (transaction, txn) in file.txns.iter().enumerate() {
        for (patch, Patch(position, deleted, inserted)) in txn.patches.iter().enumerate() {
            let (position, deleted) = (*position, *deleted);
            if position as usize + deleted as usize > characters {
                return Err(TraceError::OutOfRange {
                    path: path.to_owned(),
                    transaction,
                    patch,
                    position,
                    deleted,
                    characters,
                });
            }
            characters = characters - deleted as usize + inserted.chars().count();
            inserts |= !inserted.is_empty();
        }
    }
    if inserts { Ok(()) } else { Err(TraceError::Empty { path: path.to_owned() }) }
}

/// The root text of a state, by the real library; `None` if it can't read it.
pub fn text_of(state: &[u8]) -> Option<String> {
    let doc = Doc::new();
    let mut txn = doc.transact_mut();
    txn.apply_update(Update::decode_v1(state).ok()?).ok()?;
    let text = txn.get_or_insert_text(ROOT);
    Some(text.get_string(&txn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::script::Script;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::convert::Infallible;
    use std::io::Write;

    fn history(trace: &Trace, client: u64) -> History {
        let Ok(history) = trace.history(client, || Ok::<_, Infallible>(()));
        history
    }

    fn write(folder: &Path, json: &str) -> PathBuf {
        let path = folder.join("trace");
        let mut gzip = GzEncoder::new(File::create(&path).expect("created"), Compression::fast());
        gzip.write_all(json.as_bytes()).expect("written");
        gzip.finish().expect("finished");
        path
    }

    proptest! {
        #[test]
        fn positions_are_characters_whatever_units_they_take(
            edits in prop::collection::vec((any::<u32>(), 0u32..4, "[aß€😀🦀]{0,3}"), 1..300),
        ) {
            let mut len = 0;
            let legal = edits.iter().map(|(at, deleted, inserted)| {
                let at = at % (len + 1);
                let deleted = (*deleted).min(len - at);
                len = len - deleted + inserted.chars().count() as u32;
                (at, deleted, inserted.clone())
            });
            let legal: Vec<_> = legal.collect();
            prop_assume!(legal.iter().any(|(_, _, inserted)| !inserted.is_empty()));
            let mut expected: Vec<char> = Vec::new();
            for (at, deleted, inserted) in &legal {
                let (at, deleted) = (*at as usize, *deleted as usize);
                expected.splice(at..at + deleted, inserted.chars());
            }
            let expected: String = expected.into_iter().collect();
            let history = history(&Trace::of(legal.clone()), 3);
            prop_assert_eq!(&history.text, &expected);
            prop_assert_eq!(text_of(&history.update), Some(expected.clone()));
            let script = Script::new(Trace::of(legal));
            let mut typed = Vec::new();
            script.missing(3, 0, script.len(), &mut typed);
            prop_assert_eq!(text_of(&typed), Some(expected));
        }
    }

    #[test]
    fn a_history_ends_when_it_is_told_to() {
        let mut asked = 0;
        let ended = Trace::generate(1_000, 700).history(4, || {
            asked += 1;
            if asked < 3 { Ok(()) } else { Err("halted") }
        });
        assert_eq!((ended.err(), asked), (Some("halted"), 3));
    }

    #[test]
    fn edits_outside_the_text_are_refused_with_their_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = |txns: &str| {
            let json = format!(r#"{{"startContent":"","endContent":"","txns":[{txns}]}}"#);
            Trace::read(&write(folder.path(), &json)).expect_err("refused")
        };
        let place = |error| match error {
            TraceError::OutOfRange { transaction, patch, position, deleted, characters, .. } => {
                (transaction, patch, position, deleted, characters)
            }
            other => panic!("{other}"),
        };
        let typed = r#"{"patches":[[0,0,"😀"]]}"#;
        assert_eq!(place(read(&format!(r#"{typed},{{"patches":[[1,3,""]]}}"#))), (1, 0, 1, 3, 1));
        assert_eq!(place(read(&format!(r#"{typed},{{"patches":[[1,0,"b"],[3,0,"c"]]}}"#))), (1, 1, 3, 0, 2));
        assert_eq!(place(read(r#"{"patches":[[4294967295,4294967295,""]]}"#)), (0, 0, u32::MAX, u32::MAX, 0));
        for nothing in ["", r#"{"patches":[]}"#, r#"{"patches":[[0,0,""]]}"#] {
            assert!(matches!(read(nothing), TraceError::Empty { .. }), "{nothing}");
        }
    }

    #[test]
    fn a_made_up_trace_has_the_statistics_asked_for_and_becomes_a_document() {
        let trace = Trace::generate(2_600, 1_820);
        assert_eq!(trace.edits(), 2_600);
        let history = history(&trace, 4);
        assert_eq!(history.text.len(), 1_820 - 780);
        assert_eq!((history.clocks, history.deleted), (1_820, 780));
        assert_eq!(text_of(&history.update).as_deref(), Some(history.text.as_str()));
    }

    #[test]
    fn a_trace_that_is_not_there_is_never_made_up_for() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("friendsforever.json.gz"), "").expect("written");
        let find = |name, folder| Found::find(name, folder);
        let here = Some(folder.path());
        assert_eq!(find("made-up", here).expect("made up"), Found::MadeUp);
        assert_eq!(find("made-up", None).expect("made up"), Found::MadeUp);
        assert_eq!(find("automerge-paper", None).expect("made up"), Found::MadeUp);
        assert!(matches!(find("friendsforever", here), Ok(Found::File(_))));
        let error = find("automerge-papre", here).expect_err("misspelt").to_string();
        assert!(error.contains("friendsforever") && error.contains(&folder.path().display().to_string()));
        assert!(matches!(find("automerge-paper", here), Err(TraceError::NotFound { .. })));
        assert!(matches!(find("friendsforever", None), Err(TraceError::NoFolder { .. })));
        let nowhere = folder.path().join("nowhere");
        assert!(matches!(find("friendsforever", Some(&nowhere)), Err(TraceError::Folder { .. })));
    }

    #[test]
    fn a_trace_is_read_from_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |_: &str, json: &str| write(folder.path(), json);
        let good = write(
            "good",
            r#"{"startContent":"ß","endContent":"ßbc","txns":[{"time":"x","patches":[[1,0,"ab"],[1,1,""]]},{"patches":[[2,0,"c"]]}]}"#,
        );
        let trace = Trace::read(&good).expect("read");
        assert_eq!(history(&trace, 1).text, "ßbc");
        let wrong =
            write("wrong", r#"{"startContent":"","endContent":"ab","txns":[{"patches":[[0,0,"ac"]]}]}"#);
        assert!(matches!(Trace::read(&wrong), Err(TraceError::WrongEnd { at: 1, .. })));
    }
}
