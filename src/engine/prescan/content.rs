//! One struct of an update: its kind, what it refers to and how many clocks it takes. Values are walked, not built.

use super::{Id, ScanError, ScanLimits, counted, id};
use crate::protocol::lib0::{Lib0Error, Reader};

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_KEY: u8 = 0x20;
/// Yjs reads five bits as the kind, yrs four: only what is the same to both may pass.
const KIND: u8 = 0x1f;

const GC: u8 = 0;
pub(super) const TEXT: u8 = 4;
const SKIP: u8 = 10;

/// A struct as it stands in an update.
#[derive(Clone, Copy)]
pub(super) struct Struct<'a> {
    pub(super) id: Id,
    pub(super) len: u32,
    pub(super) kind: Kind<'a>,
    /// It is the first of its client's section.
    pub(super) first: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Item(Item<'a>),
    Gc,
    Skip,
}

/// The shared type that an item is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Parent<'a> {
    /// One of the document's own, by its name.
    Root(&'a str),
    /// The one that another item holds.
    Item(Id),
}

/// What an item refers to.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) origin: Option<Id>,
    pub(super) right_origin: Option<Id>,
    /// The shared type that this item is in, if it says so: one with a neighbour does not.
    pub(super) parent: Option<Parent<'a>>,
    /// Of a map entry that names its parent.
    pub(super) key: Option<&'a str>,
    /// Of content that yrs joins with its like: its kind, and about how many bytes yrs needs for it.
    pub(super) squashes: Option<(u8, u64)>,
    /// Whether it holds a shared type.
    pub(super) is_type: bool,
    /// Whether it is a sub-document.
    pub(super) is_document: bool,
    pub(super) is_deleted: bool,
}

impl Item<'_> {
    /// The item that holds the shared type that this one is in.
    pub(super) const fn parent_item(&self) -> Option<Id> {
        match self.parent {
            Some(Parent::Item(id)) => Some(id),
            _ => None,
        }
    }

    /// A map entry's parent and key, if it names them. Two places that meet in this are counted as one, which only an
    /// attacker would bring about, against himself.
    pub(super) fn place(&self) -> Option<u64> {
        let mut hasher = rustc_hash::FxHasher::default();
        std::hash::Hash::hash(&(self.parent?, self.key?), &mut hasher);
        Some(std::hash::Hasher::finish(&hasher))
    }
}

/// Length and kind of the next struct.
pub(super) fn read_struct<'a>(
    reader: &mut Reader<'a>,
    limits: &ScanLimits,
) -> Result<(u32, Kind<'a>), ScanError> {
    let info = reader.byte()?;
    match info {
        GC => Ok((reader.var_u32()?, Kind::Gc)),
        SKIP => Ok((reader.var_u32()?, Kind::Skip)),
        _ => read_item(reader, info, limits),
    }
}

fn read_item<'a>(
    reader: &mut Reader<'a>,
    info: u8,
    limits: &ScanLimits,
) -> Result<(u32, Kind<'a>), ScanError> {
    let mut reference = |flag: u8| (info & flag != 0).then(|| id(reader)).transpose();
    let origin = reference(HAS_ORIGIN)?;
    let right_origin = reference(HAS_RIGHT_ORIGIN)?;
    let mut parent = None;
    let mut key = None;
    // Whoever has a neighbour has its parent and key too: they are not written.
    if origin.is_none() && right_origin.is_none() {
        parent = Some(read_parent(reader)?);
        if info & HAS_PARENT_KEY != 0 {
            key = Some(reader.var_str()?);
        }
    }
    let kind = info & KIND;
    let before = reader.remaining().len();
    let len = read_content(reader, info, limits)?;
    let squashes = match kind {
        // What yrs holds for each: text with room to grow, and its values.
        TEXT => Some((kind, 2 * (before - reader.remaining().len()) as u64)),
        8 => Some((kind, 24 * u64::from(len))),
        _ => None,
    };
    let (is_type, is_document, is_deleted) = (kind == 7, kind == 9, kind == 1);
    let item = Item { origin, right_origin, parent, key, squashes, is_type, is_document, is_deleted };
    Ok((len, Kind::Item(item)))
}

fn read_parent<'a>(reader: &mut Reader<'a>) -> Result<Parent<'a>, ScanError> {
    match reader.var_u64()? {
        1 => Ok(Parent::Root(reader.var_str()?)),
        0 => id(reader).map(Parent::Item),
        // Yjs and yrs take any other number for 0, nobody writes one.
        _ => Err(Lib0Error::OutOfRange.into()),
    }
}

/// Walks over an item's content; yields how many clocks it takes.
fn read_content(reader: &mut Reader<'_>, info: u8, limits: &ScanLimits) -> Result<u32, ScanError> {
    match info & KIND {
        1 => return Ok(reader.var_u32()?),
        3 => {
            reader.var_bytes()?;
        }
        TEXT => return utf16_len(reader.var_str()?),
        5 => json(reader.var_str()?, limits)?,
        6 => {
            reader.var_str()?;
            json(reader.var_str()?, limits)?;
        }
        7 => read_type(reader)?,
        8 => {
            let count = counted(reader, 1)?;
            for _ in 0..count {
                any(reader, limits)?;
            }
            return u32::try_from(count).map_err(|_| ScanError::Clock);
        }
        9 => {
            reader.var_str()?;
            // Yjs takes the options apart as an object.
            if reader.remaining().first() != Some(&ANY_MAP) {
                return Err(ScanError::DocumentOptions);
            }
            any(reader, limits)?;
        }
        _ => return Err(ScanError::StructKind(info)),
    }
    Ok(1)
}

/// Clocks count UTF-16 units.
fn utf16_len(text: &str) -> Result<u32, ScanError> {
    // One for every byte that begins a character, one more for those of four bytes.
    let units = |byte: u8| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0);
    let len = if text.is_ascii() { text.len() } else { text.bytes().map(units).sum() };
    u32::try_from(len).map_err(|_| ScanError::Clock)
}

fn read_type(reader: &mut Reader<'_>) -> Result<(), ScanError> {
    match reader.byte()? {
        // Array, map, text, XML fragment, XML text.
        0 | 1 | 2 | 4 | 6 => Ok(()),
        // An XML element has a name.
        3 => {
            reader.var_str()?;
            Ok(())
        }
        kind => Err(ScanError::TypeKind(kind)),
    }
}

const ANY_MAP: u8 = 118;

/// Walks over one `Any`. Arrays and maps that are still open are counted, not descended into.
fn any(reader: &mut Reader<'_>, limits: &ScanLimits) -> Result<(), ScanError> {
    // For each open array or map: how many values it still has, and whether they have keys.
    let mut open = smallvec::SmallVec::<[(u64, bool); 16]>::new();
    let mut next_has_key = false;
    loop {
        if next_has_key {
            reader.var_str()?;
        }
        if let Some(entered) = any_value(reader)? {
            if open.len() as u32 >= limits.any_depth_max {
                return Err(ScanError::AnyDepth(limits.any_depth_max));
            }
            open.push(entered);
        }
        while open.last().is_some_and(|(left, _)| *left == 0) {
            open.pop();
        }
        let Some((left, has_keys)) = open.last_mut() else { return Ok(()) };
        *left -= 1;
        next_has_key = *has_keys;
    }
}

/// Reads one value, of an array or map only the beginning: how many values follow, and whether they have keys.
fn any_value(reader: &mut Reader<'_>) -> Result<Option<(u64, bool)>, ScanError> {
    match reader.byte()? {
        // undefined, null, false, true
        127 | 126 | 121 | 120 => {}
        125 => var_int(reader)?,
        // A 32-bit float, a 64-bit float, a 64-bit integer.
        124 => drop(reader.take(4)?),
        123 | 122 => drop(reader.take(8)?),
        119 => drop(reader.var_str()?),
        ANY_MAP => return Ok(Some((counted(reader, 2)?, true))),
        117 => return Ok(Some((counted(reader, 1)?, false))),
        116 => drop(reader.var_bytes()?),
        kind => return Err(ScanError::AnyKind(kind)),
    }
    Ok(None)
}

/// A signed integer: sign and six bits, then seven bits a byte. At most 53 bits, as JavaScript writes them; yrs
/// shifts out of range from 64 on.
fn var_int(reader: &mut Reader<'_>) -> Result<(), ScanError> {
    let mut byte = reader.byte()?;
    let mut bits = 6;
    while byte >= 0x80 {
        byte = reader.byte()?;
        let digits = byte & 0x7f;
        if bits >= 53 || (bits + 7 > 53 && digits >> (53 - bits) != 0) {
            return Err(Lib0Error::OutOfRange.into());
        }
        bits += 7;
    }
    Ok(())
}

/// Looks at how deep a JSON text nests; whether it is JSON at all is its parser's question.
fn json(text: &str, limits: &ScanLimits) -> Result<(), ScanError> {
    let mut depth = 0u32;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        if depth > limits.any_depth_max {
            return Err(ScanError::AnyDepth(limits.any_depth_max));
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}
