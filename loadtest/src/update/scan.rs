//! Finds which items an update carries, without decoding them.
//!
//! A server may merge, split or re-encode what it relays, so a message says nothing about how many
//! edits it holds: only clock ranges do. The scanner walks the structs of an update, steps over every
//! kind of content, and reports each range `(client, clock, length)`. Garbage-collected and deleted
//! ranges count as present (a later deletion doesn't mean that the item got lost); skips do not.
//!
//! It follows Yjs 13.6, the definition, where that and `yrs` differ (the number of strings in legacy
//! JSON content, the name of an XML hook). Weak links, an extension, are refused.

use super::{
    CONTENT, CONTENT_ANY, CONTENT_BINARY, CONTENT_DELETED, CONTENT_DOC, CONTENT_EMBED, CONTENT_FORMAT,
    CONTENT_JSON, CONTENT_STRING, CONTENT_TYPE, GC, HAS_ORIGIN, HAS_PARENT_SUB, HAS_RIGHT_ORIGIN, SKIP,
};
use crate::lib0::{Malformed, Reader};

/// How deep `Any` values may nest before the scanner gives up.
const ANY_DEPTH_MAX: u32 = 64;

/// Clocks `clock .. clock + len` of one Yjs client; `len` is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockRange {
    pub client: u64,
    pub clock: u32,
    pub len: u32,
}

/// Calls `found` for each range of items in `update`, in the order they are written, and returns how
/// many clocks its delete set covers.
#[inline]
pub fn scan(update: &[u8], mut found: impl FnMut(ClockRange)) -> Result<u64, Malformed> {
    let mut reader = Reader::new(update);
    let clients = reader.varuint()?;
    for _ in 0..clients {
        let structs = reader.varuint()?;
        let client = reader.varuint()?;
        let mut clock = reader.clock()?;
        for _ in 0..structs {
            let (len, present) = skip_struct(&mut reader)?;
            if present && len > 0 {
                found(ClockRange { client, clock, len });
            }
            clock = clock.checked_add(len).ok_or_else(|| reader.malformed("clock of more than 32 bits"))?;
        }
    }
    let deleted = skip_delete_set(&mut reader)?;
    if !reader.is_empty() {
        return Err(reader.malformed("bytes after the delete set"));
    }
    Ok(deleted)
}

/// The entries of an encoded state vector: each client, and the first clock its holder lacks.
pub fn scan_state_vector(state_vector: &[u8], mut found: impl FnMut(u64, u32)) -> Result<(), Malformed> {
    let mut reader = Reader::new(state_vector);
    for _ in 0..reader.varuint()? {
        let client = reader.varuint()?;
        found(client, reader.clock()?);
    }
    Ok(())
}

/// Steps over one struct; its length in clocks, and whether it is something (not a skip).
#[inline]
fn skip_struct(reader: &mut Reader<'_>) -> Result<(u32, bool), Malformed> {
    let info = reader.byte()?;
    match info & CONTENT {
        GC => return Ok((reader.clock()?, true)),
        SKIP => return Ok((reader.clock()?, false)),
        _ => {}
    }
    if info & HAS_ORIGIN != 0 {
        skip_id(reader)?;
    }
    if info & HAS_RIGHT_ORIGIN != 0 {
        skip_id(reader)?;
    }
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
        let parent_is_named = reader.varuint()? == 1;
        if parent_is_named {
            reader.var_bytes()?;
        } else {
            skip_id(reader)?;
        }
        if info & HAS_PARENT_SUB != 0 {
            reader.var_bytes()?;
        }
    }
    Ok((skip_content(reader, info & CONTENT)?, true))
}

#[inline]
fn skip_id(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.varuint()?;
    reader.varuint()?;
    Ok(())
}

/// Steps over an item's content; its length in clocks.
#[inline]
fn skip_content(reader: &mut Reader<'_>, kind: u8) -> Result<u32, Malformed> {
    match kind {
        CONTENT_STRING => Ok(utf16_len(reader.var_bytes()?)),
        CONTENT_DELETED => reader.clock(),
        CONTENT_JSON => {
            let len = reader.clock()?;
            for _ in 0..len {
                reader.var_bytes()?;
            }
            Ok(len)
        }
        CONTENT_BINARY | CONTENT_EMBED => reader.var_bytes().map(|_| 1),
        CONTENT_FORMAT => {
            reader.var_bytes()?; // key
            reader.var_bytes()?; // JSON
            Ok(1)
        }
        CONTENT_TYPE => skip_type(reader).map(|()| 1),
        CONTENT_ANY => {
            let len = reader.clock()?;
            for _ in 0..len {
                skip_any(reader, ANY_DEPTH_MAX)?;
            }
            Ok(len)
        }
        CONTENT_DOC => {
            reader.var_bytes()?; // guid
            skip_any(reader, ANY_DEPTH_MAX)?; // options
            Ok(1)
        }
        _ => Err(reader.malformed("unknown kind of content")),
    }
}

fn skip_type(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.varuint()? {
        0 | 1 | 2 | 4 | 6 | 15 => Ok(()), // array, map, text, XML fragment, XML text, not yet known
        3 | 5 => reader.var_bytes().map(|_| ()), // XML element, XML hook: their name
        _ => Err(reader.malformed("unknown shared type")),
    }
}

fn skip_any(reader: &mut Reader<'_>, depth_left: u32) -> Result<(), Malformed> {
    if depth_left == 0 {
        return Err(reader.malformed("values nested too deep"));
    }
    match reader.byte()? {
        120 | 121 | 126 | 127 => {}             // true, false, null, undefined
        125 => while reader.byte()? >= 0x80 {}, // integer
        124 => reader.take(4).map(|_| ())?,
        123 | 122 => reader.take(8).map(|_| ())?, // float64, bigint
        119 | 116 => reader.var_bytes().map(|_| ())?, // string, bytes
        118 => {
            for _ in 0..reader.varuint()? {
                reader.var_bytes()?;
                skip_any(reader, depth_left - 1)?;
            }
        }
        117 => {
            for _ in 0..reader.varuint()? {
                skip_any(reader, depth_left - 1)?;
            }
        }
        _ => return Err(reader.malformed("unknown kind of value")),
    }
    Ok(())
}

#[inline]
fn skip_delete_set(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut deleted = 0;
    for _ in 0..reader.varuint()? {
        reader.varuint()?; // client
        for _ in 0..reader.varuint()? {
            reader.varuint()?; // clock
            deleted += u64::from(reader.clock()?);
        }
    }
    Ok(deleted)
}

/// Yjs counts strings in UTF-16 code units: one for every character, two for those beyond the BMP.
#[inline]
fn utf16_len(utf8: &[u8]) -> u32 {
    if utf8.len() == 1 {
        return 1;
    }
    let units: usize =
        utf8.iter().map(|&byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0)).sum();
    units as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use yrs::updates::decoder::Decode;
    use yrs::updates::encoder::Encode;
    use yrs::{
        Any, Array, ArrayPrelim, ClientID, Doc, Map, MapPrelim, Options, ReadTxn, StateVector, Text,
        TextPrelim, Transact, Update, WriteTxn, XmlElementPrelim, XmlFragment, XmlTextPrelim,
    };

    /// What one person did to a document; indices are taken modulo what is there.
    #[derive(Debug, Clone)]
    enum Edit {
        Type(u32, String),
        Delete(u32, u32),
        Format(u32, u32),
        Embed(u32),
        Emoji(String),
        MapValue(u8, i64),
        MapNested(u8),
        Push(Vec<f64>),
        Bytes(Vec<u8>),
        Xml(String),
        Subdocument,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => (any::<u32>(), "[a-zß€]{1,8}").prop_map(|(at, text)| Edit::Type(at, text)),
            2 => (any::<u32>(), 1u32..5).prop_map(|(at, len)| Edit::Delete(at, len)),
            1 => (any::<u32>(), 1u32..5).prop_map(|(at, len)| Edit::Format(at, len)),
            1 => any::<u32>().prop_map(Edit::Embed),
            1 => "[a😀]{1,4}".prop_map(Edit::Emoji),
            1 => (0u8..4, any::<i64>()).prop_map(|(key, value)| Edit::MapValue(key, value)),
            1 => (0u8..4).prop_map(Edit::MapNested),
            1 => prop::collection::vec(any::<f64>(), 1..5).prop_map(Edit::Push),
            1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Edit::Bytes),
            1 => "[a-z]{1,6}".prop_map(Edit::Xml),
            1 => Just(Edit::Subdocument),
        ]
    }

    fn apply(doc: &Doc, edit: &Edit) {
        let mut txn = doc.transact_mut();
        let text = txn.get_or_insert_text("text");
        let map = txn.get_or_insert_map("map");
        let array = txn.get_or_insert_array("array");
        let xml = txn.get_or_insert_xml_fragment("xml");
        let len = text.len(&txn);
        match edit {
            Edit::Type(at, string) => text.insert(&mut txn, at % (len + 1), string),
            Edit::Delete(at, count) if len > 0 => {
                let at = at % len;
                text.remove_range(&mut txn, at, (*count).min(len - at));
            }
            Edit::Format(at, count) if len > 0 => {
                let at = at % len;
                let bold = [("bold".into(), Any::from(true))].into();
                text.format(&mut txn, at, (*count).min(len - at), bold);
            }
            Edit::Delete(..) | Edit::Format(..) => {}
            Edit::Embed(at) => {
                text.insert_embed(&mut txn, at % (len + 1), Any::from("an image"));
            }
            // Apart from the rest: nothing may be inserted between the halves of a surrogate pair.
            Edit::Emoji(string) => {
                let emoji = txn.get_or_insert_text("emoji");
                emoji.push(&mut txn, string);
            }
            Edit::MapValue(key, value) => {
                map.insert(&mut txn, format!("k{key}"), *value);
            }
            Edit::MapNested(key) => {
                let inner = Any::from(vec![Any::Null, Any::Bool(false)]);
                map.insert(&mut txn, format!("k{key}"), MapPrelim::from([("inner", inner)]));
            }
            Edit::Push(values) => {
                for value in values {
                    array.push_back(&mut txn, *value);
                }
                array.push_back(&mut txn, ArrayPrelim::from([1, 2]));
                array.push_back(&mut txn, TextPrelim::new("nested"));
                array.remove(&mut txn, 0);
            }
            Edit::Bytes(bytes) => {
                array.push_back(&mut txn, Any::from(bytes.clone()));
            }
            Edit::Xml(name) => {
                let element = xml.push_back(&mut txn, XmlElementPrelim::empty(name.as_str()));
                element.push_back(&mut txn, XmlTextPrelim::new("words"));
            }
            Edit::Subdocument => {
                map.insert(&mut txn, "sub", Doc::new());
            }
        }
    }

    fn person(client: u64) -> Doc {
        let mut options = Options::with_client_id(ClientID::new(client));
        options.offset_kind = yrs::OffsetKind::Utf16;
        Doc::with_options(options)
    }

    /// Every clock from 0 exactly once, as the judge's own state vector says.
    fn assert_covers(update: &[u8], expected: &StateVector) {
        let mut next: BTreeMap<u64, u32> = BTreeMap::new();
        scan(update, |range| {
            let clock = next.entry(range.client).or_default();
            assert_eq!(*clock, range.clock, "a hole or an overlap");
            *clock += range.len;
        })
        .expect("a genuine update scans");
        let expected: BTreeMap<u64, u32> =
            expected.iter().map(|(client, clock)| (client.get(), *clock)).collect();
        assert_eq!(next, expected);
    }

    proptest! {
        #[test]
        fn finds_every_clock_of_genuine_documents(
            edits in prop::collection::vec((0usize..3, edit()), 1..40),
        ) {
            let people = [person(7), person(0xffff_fff0), person(70_000)];
            for (who, edit) in &edits {
                apply(&people[*who], edit);
            }
            // Each alone, then everything merged into one update, then integrated into one document.
            let updates: Vec<Vec<u8>> = people
                .iter()
                .map(|doc| doc.transact().encode_state_as_update_v1(&StateVector::default()))
                .collect();
            for (doc, update) in people.iter().zip(&updates) {
                assert_covers(update, &doc.transact().state_vector());
            }
            let all = person(1);
            for update in &updates {
                let update = Update::decode_v1(update).expect("yrs reads its own");
                all.transact_mut().apply_update(update).expect("yrs applies its own");
            }
            let state_vector = all.transact().state_vector();
            assert_covers(&all.transact().encode_state_as_update_v1(&StateVector::default()), &state_vector);
            let merged = yrs::merge_updates_v1(&updates).expect("yrs merges its own");
            assert_covers(&merged, &state_vector);

            let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
            scan_state_vector(&state_vector.encode_v1(), |client, clock| { seen.insert(client, clock); })
                .expect("a state vector scans");
            prop_assert_eq!(seen.len(), state_vector.len());
        }

        #[test]
        fn differences_start_where_they_should(first in "[a-z]{1,30}", second in "[a-z😀]{1,30}") {
            let doc = person(9);
            apply(&doc, &Edit::Type(0, first.clone()));
            let before = doc.transact().state_vector();
            apply(&doc, &Edit::Emoji(second.clone()));
            let difference = doc.transact().encode_diff_v1(&before);
            let mut ranges = Vec::new();
            scan(&difference, |range| ranges.push(range)).expect("a difference scans");
            prop_assert_eq!(ranges, vec![ClockRange {
                client: 9,
                clock: first.len() as u32,
                len: second.encode_utf16().count() as u32,
            }]);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_scan_but_never_a_panic(bytes: Vec<u8>) {
            let _ = scan(&bytes, |_| {});
        }
    }

    #[test]
    fn a_skip_moves_the_clock_and_is_not_present() {
        // Client 5: a skip of 3, then garbage of 2.
        let mut ranges = Vec::new();
        scan(&[1, 2, 5, 0, 10, 3, 0, 2, 0], |range| ranges.push(range)).expect("legal");
        assert_eq!(ranges, [ClockRange { client: 5, clock: 3, len: 2 }]);
    }

    #[test]
    fn every_kind_of_content_of_yjs_is_stepped_over() {
        let mut update = vec![1, 7, 5, 0];
        let contents: [&[u8]; 7] = [
            &[0x80 | 2, 5, 0, 2, 1, b'1', 1, b'2'], // JSON: two strings
            &[0x80 | 3, 5, 0, 3, 1, 2, 3],          // binary
            &[0x80 | 5, 5, 0, 2, b'{', b'}'],       // embed
            &[0x40 | 6, 5, 0, 1, b'b', 4, b't', b'r', b'u', b'e'], // format
            &[0xc0 | 7, 5, 0, 5, 0, 5, 1, b'h'],    // XML hook with its name
            &[
                0x20 | 8,
                1,
                1,
                b'm',
                1,
                b'k',
                2,
                125,
                0xc1,
                1,
                118,
                1,
                1,
                b'a',
                117,
                1,
                123,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ],
            &[9, 0, 5, 1, 1, b'g', 118, 0], // document under a nested parent
        ];
        contents.iter().for_each(|content| update.extend_from_slice(content));
        update.extend_from_slice(&[1, 5, 1, 0, 4]);
        let mut clocks = 0;
        let deleted = scan(&update, |range| clocks += range.len).expect("legal");
        assert_eq!((clocks, deleted), (2 + 1 + 1 + 1 + 1 + 2 + 1, 4));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(scan(&[0, 0, 0], |_| {}).is_err());
    }

    #[test]
    fn nesting_bombs_are_refused() {
        let mut update = vec![1, 1, 5, 0, 0x80 | 8, 5, 0, 1];
        for _ in 0..10_000 {
            update.extend_from_slice(&[117, 1]);
        }
        assert!(scan(&update, |_| {}).is_err());
    }
}
