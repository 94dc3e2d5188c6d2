//! A segment of the log: its header, and what of it can be trusted when it is read again.
//!
//! ```text
//! header   magic (8) · version (u32) · number (u64) · sequence of its first record (u64) · mark (u64) · CRC32C (u32)
//! groups   marker, records (see the record module)
//! ```
//!
//! When a record is not whole, what was written last may have been torn by a crash: then everything up to there is what
//! the log has, for nothing behind it was ever promised. But if a marker further on says that this place was on disk
//! when it was written, then somebody was promised it: that is damage. Markers are told by the segment's mark, which is
//! random: what clients send may look like one, and must not make a torn write look like damage.

use super::record::{self, Record, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"WSjournl";
const VERSION: u32 = 2;

/// What stands before the records.
pub const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 4;

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

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub number: u64,
    /// Of its first record.
    pub sequence: u64,
    /// What its markers begin with.
    pub mark: u64,
}

/// The header of a segment, as it is written.
#[must_use]
pub fn header(Header { number, sequence, mark }: Header) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    header.extend_from_slice(&mark.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// A segment's header, if it is whole and its own.
#[must_use]
pub fn header_of(bytes: &[u8], number: u64) -> Option<Header> {
    let header = bytes.get(..HEADER_BYTES)?;
    let whole = header[..8] == MAGIC
        && crc32c::crc32c(&header[..HEADER_BYTES - 4]) == u32_at(header, HEADER_BYTES - 4)?
        && u32_at(header, 8)? == VERSION
        && u64_at(header, 12)? == number;
    whole.then_some(())?;
    Some(Header { number, sequence: u64_at(header, 20)?, mark: u64_at(header, 28)? })
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
    let Some(Header { mut sequence, mark, .. }) = header_of(bytes, number) else {
        // Zero is what a crash leaves of a header that was not written to its end.
        if bytes.starts_with(&MAGIC)
            && u32_at(bytes, 8).is_some_and(|version| ![0, VERSION].contains(&version))
        {
            return Err(Damage { offset: 8, what: "another version of WireSocket wrote this" });
        }
        // A header is on disk before anything is written behind it.
        return match bytes.len() > HEADER_BYTES {
            false => Ok(End::Unbegun),
            true => Err(Damage { offset: 0, what: "the header is not whole" }),
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
            None if markers(&bytes[at..], number, mark).any(|marker| marker.durable > sequence) => {
                return Err(Damage { offset, what: "a record is not whole, and it was stored once" });
            }
            None => return Ok(End::Torn { sequence, offset }),
        }
    }
    Ok(End::Whole { sequence })
}

/// Every whole marker in there, at whatever place.
fn markers(bytes: &[u8], number: u64, mark: u64) -> impl Iterator<Item = record::Marker> {
    let mark = mark.to_le_bytes();
    (0..bytes.len())
        .filter(move |&at| bytes[at] == mark[0] && bytes[at..].starts_with(&mark))
        .filter_map(move |at| record::marker_at(&bytes[at..], number))
}
