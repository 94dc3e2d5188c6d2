//! Records of the journal and their frames.
//!
//! ```text
//! frame    length of the body (u32 LE) · CRC32C (u32 LE) · body
//! body     kind (u8) · document · rest
//! document tenant (16) · app (16) · length of the name (u8) · name
//! ```
//!
//! | kind | rest |
//! | --- | --- |
//! | 1 update | the update, as its client sent it |
//! | 2 part of a state | covers (u64) · part, parts (u32, u32) · rests since (u64, 0: it doesn't) · bytes |
//! | 3 forgotten, 4 awake | nothing |
//! | 5 rests | since (u64) |
//! | 6 marker, without a document | the segment's mark (8) · sequence (u64) · durable (u64) · CRC32C of these (u32) |
//!
//! Integers are little-endian. The checksum covers length and body and begins with the segment's number, so a record
//! counts in its own segment only. Whoever writes a frame leaves the checksum zero; [`seal`] puts it in.

use uuid::Uuid;

use crate::protocol::document::{AppId, DocumentId, DocumentName};

/// What stands before a body.
pub const FRAME_BYTES: usize = 8;

const MARKER_BYTES: usize = 8 + 8 + 8 + 4;

const UPDATE: u8 = 1;
const STATE: u8 = 2;
const FORGOTTEN: u8 = 3;
const AWAKE: u8 = 4;
const RESTS: u8 = 5;
const MARKER: u8 = 6;

const STATE_HEAD_BYTES: usize = 8 + 4 + 4 + 8;

/// A part of a document's whole state. Records of the document before `covers` no longer count once its last part is
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    pub covers: u64,
    pub part: u32,
    pub parts: u32,
    /// Nobody is in the document, since this time (Unix seconds).
    pub rests: Option<u64>,
    pub bytes: &'a [u8],
}

/// What a record says about its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    Update(&'a [u8]),
    State(Part<'a>),
    /// The document is gone, with all that was said of it before.
    Forgotten,
    /// Somebody opened a document that rested.
    Awake,
    /// Nobody is in it since this time; its last state is all there is.
    Rests(u64),
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    Document { key: Key<'a>, said: Said<'a> },
    Marker(Marker),
}

/// Stands at the beginning of each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// By which it is found again behind a damaged record. Who sends updates must not know it, or could put markers into
    /// them.
    pub mark: u64,
    /// How many records came before this one since the log began.
    pub sequence: u64,
    /// When this was written, the records before this one were on disk.
    pub durable: u64,
}

/// A document's name in the journal, as it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<'a>(&'a [u8]);

impl Key<'_> {
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0
    }

    #[must_use]
    pub fn document(&self) -> Option<DocumentId> {
        document_of(self.0)
    }
}

/// The document that an encoded name stands for.
#[must_use]
pub fn document_of(key: &[u8]) -> Option<DocumentId> {
    let tenant = Uuid::from_slice(key.get(..16)?).ok()?;
    let app = Uuid::from_slice(key.get(16..32)?).ok()?;
    let name = DocumentName::parse(std::str::from_utf8(key.get(33..)?).ok()?).ok()?;
    Some(DocumentId { app: AppId { tenant, app }, name })
}

/// Appends a document's name.
pub fn write_key(out: &mut Vec<u8>, document: &DocumentId) {
    let name = document.name.as_str().as_bytes();
    out.extend_from_slice(document.app.tenant.as_bytes());
    out.extend_from_slice(document.app.app.as_bytes());
    // A name has at most 255 bytes.
    out.push(name.len() as u8);
    out.extend_from_slice(name);
}

/// A document's name as the journal encodes it.
#[must_use]
pub fn key_of(document: &DocumentId) -> Box<[u8]> {
    let mut key = Vec::with_capacity(33 + document.name.as_str().len());
    write_key(&mut key, document);
    key.into()
}

fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    out.push(kind);
    at
}

fn end(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len() - at - FRAME_BYTES).expect("a record has less than 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends an update of a document.
pub fn write_update(out: &mut Vec<u8>, document: &DocumentId, update: &[u8]) {
    let at = begin(out, UPDATE);
    write_key(out, document);
    out.extend_from_slice(update);
    end(out, at);
}

/// Appends that a document is gone.
pub fn write_forgotten(out: &mut Vec<u8>, document: &DocumentId) {
    let at = begin(out, FORGOTTEN);
    write_key(out, document);
    end(out, at);
}

/// Appends that somebody is in a document again.
pub fn write_awake(out: &mut Vec<u8>, document: &DocumentId) {
    let at = begin(out, AWAKE);
    write_key(out, document);
    end(out, at);
}

/// Appends that nobody is in a document since `since_unix_s`.
pub fn write_rests(out: &mut Vec<u8>, document: &DocumentId, since_unix_s: u64) {
    let at = begin(out, RESTS);
    write_key(out, document);
    out.extend_from_slice(&since_unix_s.to_le_bytes());
    end(out, at);
}

/// Appends a part of a document's state; `key` is its encoded name.
pub fn write_part(out: &mut Vec<u8>, key: &[u8], part: &Part<'_>) {
    let at = begin(out, STATE);
    out.extend_from_slice(key);
    out.extend_from_slice(&part.covers.to_le_bytes());
    out.extend_from_slice(&part.part.to_le_bytes());
    out.extend_from_slice(&part.parts.to_le_bytes());
    out.extend_from_slice(&part.rests.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(part.bytes);
    end(out, at);
}

/// Appends the marker that begins a group.
pub fn write_marker(out: &mut Vec<u8>, segment: u64, marker: &Marker) {
    let at = begin(out, MARKER);
    let body = out.len();
    out.extend_from_slice(&marker.mark.to_le_bytes());
    out.extend_from_slice(&marker.sequence.to_le_bytes());
    out.extend_from_slice(&marker.durable.to_le_bytes());
    let crc = crc32c::crc32c_append(segment as u32, &out[body..]);
    out.extend_from_slice(&crc.to_le_bytes());
    end(out, at);
}

/// The marker whose mark begins here, if it is whole.
#[must_use]
pub fn marker_at(bytes: &[u8], segment: u64) -> Option<Marker> {
    let bytes = bytes.get(..MARKER_BYTES)?;
    if crc32c::crc32c_append(segment as u32, &bytes[..24]) != u32_at(bytes, 24)? {
        return None;
    }
    Some(Marker { mark: u64_at(bytes, 0)?, sequence: u64_at(bytes, 8)?, durable: u64_at(bytes, 16)? })
}

/// The length of the first frame in `bytes`, header included, by what it says itself.
#[must_use]
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let length = FRAME_BYTES + usize::try_from(u32_at(bytes, 0)?).ok()?;
    (length > FRAME_BYTES && length <= bytes.len()).then_some(length)
}

/// Puts the checksum into a frame.
pub fn seal(frame: &mut [u8], segment: u64) {
    let crc = checksum(frame, segment);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(frame: &[u8], segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(segment as u32, &frame[..4]), &frame[FRAME_BYTES..])
}

/// The first record of `bytes`, with its frame's length; `None` if it is not whole.
#[must_use]
pub fn first(bytes: &[u8], segment: u64) -> Option<(usize, Record<'_>)> {
    let length = frame_len(bytes)?;
    let frame = &bytes[..length];
    if checksum(frame, segment) != u32_at(frame, 4)? {
        return None;
    }
    Some((length, parse(frame, segment)?))
}

/// What a frame says; its checksum is not looked at.
#[must_use]
pub fn parse(frame: &[u8], segment: u64) -> Option<Record<'_>> {
    let (&kind, body) = frame.get(FRAME_BYTES..)?.split_first()?;
    if kind == MARKER {
        return marker_at(body, segment).map(Record::Marker);
    }
    let key_len = 33 + usize::from(*body.get(32)?);
    let (key, rest) = body.split_at_checked(key_len)?;
    let said = match kind {
        UPDATE => Said::Update(rest),
        STATE => {
            let (head, bytes) = rest.split_at_checked(STATE_HEAD_BYTES)?;
            let rests = u64_at(head, 16)?;
            Said::State(Part {
                covers: u64_at(head, 0)?,
                part: u32_at(head, 8)?,
                parts: u32_at(head, 12)?,
                rests: (rests > 0).then_some(rests),
                bytes,
            })
        }
        FORGOTTEN => Said::Forgotten,
        AWAKE => Said::Awake,
        RESTS => Said::Rests(u64_at(rest, 0)?),
        _ => return None,
    };
    Some(Record::Document { key: Key(key), said })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> DocumentId {
        let app = AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(2) };
        DocumentId { app, name: DocumentName::parse("notes").unwrap() }
    }

    fn sealed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        seal(&mut out, 7);
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let key = key_of(&document());
        let part = Part { covers: 9, part: 1, parts: 3, rests: Some(5), bytes: b"state" };
        let said = |frame: &[u8]| match first(frame, 7) {
            Some((length, Record::Document { key: of, said })) => {
                assert_eq!((length, of.document()), (frame.len(), Some(document())));
                format!("{said:?}")
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            said(&sealed(|out| write_update(out, &document(), b"abc"))),
            format!("{:?}", Said::Update(b"abc"))
        );
        assert_eq!(said(&sealed(|out| write_part(out, &key, &part))), format!("{:?}", Said::State(part)));
        assert_eq!(said(&sealed(|out| write_forgotten(out, &document()))), "Forgotten");
        assert_eq!(said(&sealed(|out| write_awake(out, &document()))), "Awake");
        assert_eq!(said(&sealed(|out| write_rests(out, &document(), 8))), "Rests(8)");
        let marker = Marker { mark: 9, sequence: 3, durable: 2 };
        let frame = sealed(|out| write_marker(out, 7, &marker));
        assert_eq!(first(&frame, 7), Some((frame.len(), Record::Marker(marker))));
    }

    #[test]
    fn a_record_with_a_flipped_bit_or_of_another_segment_is_none() {
        let mut frame = sealed(|out| write_update(out, &document(), b"abc"));
        assert!(first(&frame, 8).is_none());
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(first(&frame, 7).is_none(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..frame.len() {
            assert!(first(&frame[..length], 7).is_none(), "{length} bytes");
        }
    }
}
