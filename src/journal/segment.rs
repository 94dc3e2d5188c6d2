//! A segment of the log: its header, and what of it can be trusted when it is read again.
//!
//! ```text
//! header   magic (8) · version (u32) · number (u64) · sequence of its first record (u64) · CRC32C (u32)
//! groups   marker, records (see the record module)
//! ```
//!
//! When a record is not whole, what was written last may have been torn by a crash: then everything up to there is what
//! the log has, for nothing behind it was ever promised. But if a marker further on says that this place was on disk
//! when it was written, then somebody was promised it: that is damage.

use super::record::{self, Record, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"WSjournl";
const VERSION: u32 = 1;

/// What stands before the records.
pub const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 4;

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a whole record; the sequence of the next.
    Whole { sequence: u64 },
    /// With something that is no whole record, from `offset` on.
    Torn { sequence: u64, offset: u64 },
    /// It was never begun.
    Unbegun,
}

/// A place in a segment that cannot be what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub offset: u64,
    pub what: &'static str,
}

/// The header of a segment.
#[must_use]
pub fn header(number: u64, sequence: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// The sequence of a segment's first record, if its header is whole and its own.
#[must_use]
pub fn sequence(bytes: &[u8], number: u64) -> Option<u64> {
    let header = bytes.get(..HEADER_BYTES)?;
    let whole = header[..8] == MAGIC
        && crc32c::crc32c(&header[..HEADER_BYTES - 4]) == u32_at(header, HEADER_BYTES - 4)?
        && u32_at(header, 8)? == VERSION
        && u64_at(header, 12)? == number;
    if whole { u64_at(header, 20) } else { None }
}

/// Reads a segment: `visit` gets each record with its offset and sequence. `expected` is the sequence that its first
/// record must have, if that is known.
///
/// # Errors
/// [`Damage`] names the first place that is not as it was written.
pub fn read<'a>(
    bytes: &'a [u8],
    number: u64,
    expected: Option<u64>,
    mut visit: impl FnMut(u64, u64, usize, Record<'a>),
) -> Result<End, Damage> {
    let Some(mut sequence) = sequence(bytes, number) else {
        // A header is on disk before anything is written behind it.
        return match markers(bytes, number).next() {
            None => Ok(End::Unbegun),
            Some(_) => Err(Damage { offset: 0, what: "the header is not whole" }),
        };
    };
    if expected.is_some_and(|expected| expected != sequence) {
        return Err(Damage { offset: 0, what: "records are missing before this segment" });
    }
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let offset = at as u64;
        match record::first(&bytes[at..], number) {
            Some((_, Record::Marker(marker))) if marker.sequence != sequence => {
                return Err(Damage { offset, what: "records are missing before this group" });
            }
            Some((length, record)) => {
                visit(offset, sequence, length, record);
                sequence += 1;
                at += length;
            }
            None if markers(&bytes[at..], number).any(|marker| marker.durable > sequence) => {
                return Err(Damage { offset, what: "a record is not whole, and it was stored once" });
            }
            None => return Ok(End::Torn { sequence, offset }),
        }
    }
    Ok(End::Whole { sequence })
}

/// Every whole marker in there, at whatever place.
fn markers(bytes: &[u8], number: u64) -> impl Iterator<Item = record::Marker> {
    let magic = record::MARKER_MAGIC;
    (0..bytes.len())
        .filter(move |&at| bytes[at] == magic[0] && bytes[at..].starts_with(&magic))
        .filter_map(move |at| record::marker_at(&bytes[at..], number))
}
