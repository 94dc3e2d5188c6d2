//! Names: which app a document belongs to and what it is called inside it.

use std::fmt;

use uuid::Uuid;

/// The longest document name, in bytes after percent-decoding.
pub const NAME_BYTES_MAX: usize = 255;

/// One app of one tenant: the space in which document names and limits live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId {
    pub tenant: Uuid,
    pub app: Uuid,
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.tenant, self.app)
    }
}

/// A document's name within its app: 1 to 255 of `A-Z a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentName(Box<str>);

/// Why a string is not a document name (close code 4007).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the document name is empty; use 1 to 255 of A-Z a-z 0-9 - _")]
    Empty,
    #[error("the document name has {0} bytes; at most 255 are allowed")]
    TooLong(usize),
    #[error("the document name has a character other than A-Z a-z 0-9 - _")]
    Character,
    #[error("the document name is not valid percent-encoding")]
    Encoding,
}

impl DocumentName {
    /// Checks a name that is already decoded (a Hocuspocus frame carries it so).
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        match name.len() {
            0 => return Err(NameError::Empty),
            length if length > NAME_BYTES_MAX => return Err(NameError::TooLong(length)),
            _ => {}
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.bytes().all(allowed) { Ok(Self(name.into())) } else { Err(NameError::Character) }
    }

    /// Checks a name as it stands in a URL (RFC 3986 percent-encoding).
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn from_url(encoded: &str) -> Result<Self, NameError> {
        if !encoded.contains('%') {
            return Self::parse(encoded);
        }
        // Whatever decodes to more than one byte per character is outside the alphabet anyway.
        let mut decoded = String::with_capacity(encoded.len());
        let mut bytes = encoded.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                decoded.push(char::from(byte));
                continue;
            }
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(NameError::Encoding);
            };
            let byte = u8::try_from(high * 16 + low).map_err(|_| NameError::Encoding)?;
            if !byte.is_ascii() {
                return Err(NameError::Character);
            }
            decoded.push(char::from(byte));
        }
        Self::parse(&decoded)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document of the fleet, written `tenantid::appId::name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId {
    pub app: AppId,
    pub name: DocumentName,
}

impl DocumentId {
    /// A hash that is the same in every process and version: it places the document on a shard and names it in the ledger.
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        let mut hash = Fnv1a::new();
        hash.write(self.app.tenant.as_bytes());
        hash.write(self.app.app.as_bytes());
        hash.write(self.name.0.as_bytes());
        hash.finish()
    }

    /// The shard that owns this document among `shards`.
    #[must_use]
    pub fn shard(&self, shards: u16) -> u16 {
        debug_assert!(shards > 0, "a node has at least one shard");
        // Multiply-shift: uses the high bits, so it is even for any shard count.
        let wide = u128::from(self.stable_hash()) * u128::from(shards);
        (wide >> 64) as u16
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.app, self.name)
    }
}

/// FNV-1a (64 bit) with a final mix, because FNV's high bits alone are weak.
struct Fnv1a(u64);

impl Fnv1a {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    const fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ (mixed >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_alphabet_after_percent_decoding() {
        assert_eq!(DocumentName::from_url("My-Doc_1").unwrap().as_str(), "My-Doc_1");
        assert_eq!(DocumentName::from_url("a%2Db%5f").unwrap().as_str(), "a-b_");
        assert_eq!(DocumentName::from_url("a%2Fb"), Err(NameError::Character));
        assert_eq!(DocumentName::from_url("a%C3%A9"), Err(NameError::Character));
        assert_eq!(DocumentName::from_url("a%2"), Err(NameError::Encoding));
        assert_eq!(DocumentName::from_url("a%zz"), Err(NameError::Encoding));
        assert_eq!(DocumentName::parse("a b"), Err(NameError::Character));
        assert_eq!(DocumentName::parse(""), Err(NameError::Empty));
        assert!(DocumentName::parse(&"x".repeat(255)).is_ok());
        assert_eq!(DocumentName::parse(&"x".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn the_same_name_in_two_apps_is_two_documents() {
        let document = |app: u128| DocumentId {
            app: AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(app) },
            name: DocumentName::parse("notes").unwrap(),
        };
        assert_ne!(document(1), document(2));
        assert_ne!(document(1).stable_hash(), document(2).stable_hash());
    }

    #[test]
    fn documents_spread_evenly_over_any_number_of_shards() {
        for shards in [1u16, 2, 3, 7, 64] {
            let mut counts = vec![0u32; usize::from(shards)];
            for n in 0..20_000 {
                let id = DocumentId {
                    app: AppId { tenant: Uuid::nil(), app: Uuid::nil() },
                    name: DocumentName::parse(&format!("doc-{n}")).unwrap(),
                };
                counts[usize::from(id.shard(shards))] += 1;
            }
            let fair = 20_000 / u32::from(shards);
            assert!(counts.iter().all(|&c| c > fair * 7 / 10 && c < fair * 13 / 10), "{counts:?}");
        }
    }
}
