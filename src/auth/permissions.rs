//! What a token allows beyond getting in: which documents it opens, and whether it may write to them.

use std::fmt;
use std::str::FromStr;

use crate::protocol::close::Refusal;
use crate::protocol::document::{DocumentName, NameError};

/// The most entries that a token's `documents` may have: each opening looks through them.
pub const DOCUMENTS_MAX: usize = 256;

/// Stands behind a prefix. No document name can contain it.
const WILDCARD: char = '*';

/// All of it, unless a token says less.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    /// The scope has the word `WireSocket.ReadOnly`: the holder sees everything and changes nothing.
    pub read_only: bool,
    /// The claim `documents`; `None` is every document of the app.
    pub documents: Option<Box<[DocumentPattern]>>,
}

impl Permissions {
    /// Whether a document of the app may be opened.
    ///
    /// # Errors
    /// [`NotAllowed`] if it is not in `documents`.
    pub fn check(&self, name: &DocumentName) -> Result<(), NotAllowed> {
        let allowed = |patterns: &[DocumentPattern]| patterns.iter().any(|pattern| pattern.matches(name));
        if self.documents.as_deref().is_none_or(allowed) { Ok(()) } else { Err(NotAllowed) }
    }
}

/// The token is good, but not for this document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The token does not allow this document")]
pub struct NotAllowed;

impl From<NotAllowed> for Refusal {
    fn from(error: NotAllowed) -> Self {
        Self::Forbidden(error.to_string().into())
    }
}

/// Names of documents: one (`minutes-2026`), or all that begin alike (`minutes-*`; a lone `*` is every name).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentPattern {
    text: Box<str>,
    is_prefix: bool,
}

impl DocumentPattern {
    #[must_use]
    pub fn matches(&self, name: &DocumentName) -> bool {
        let name = name.as_str();
        if self.is_prefix { name.starts_with(&*self.text) } else { name == &*self.text }
    }
}

impl FromStr for DocumentPattern {
    type Err = NameError;

    /// # Errors
    /// [`NameError`] if no document can have such a name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (text, is_prefix) = match text.strip_suffix(WILDCARD) {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if !(is_prefix && text.is_empty()) {
            DocumentName::parse(text)?;
        }
        Ok(Self { text: text.into(), is_prefix })
    }
}

impl fmt::Display for DocumentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.is_prefix { write!(f, "{WILDCARD}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(patterns: &[&str], name: &str) -> bool {
        let documents = Some(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
        Permissions { read_only: false, documents }.check(&DocumentName::parse(name).unwrap()).is_ok()
    }

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        for (patterns, name, expected) in [
            (&["minutes"][..], "minutes", true),
            (&["minutes"], "minutes-2", false),
            (&["minutes"], "Minutes", false),
            (&["minutes-*"], "minutes-2", true),
            (&["minutes-*"], "minutes-", true),
            (&["minutes-*"], "minutes", false),
            (&["a", "b*"], "bc", true),
            (&["*"], "anything", true),
            (&[], "anything", false),
        ] {
            assert_eq!(allows(patterns, name), expected, "{patterns:?} {name}");
        }
        assert_eq!(Permissions::default().check(&DocumentName::parse("anything").unwrap()), Ok(()));
    }

    #[test]
    fn what_no_document_can_be_called_is_no_pattern() {
        for bad in ["", "a b", "*a", "a**", "a*b", "é", &"n".repeat(256)] {
            assert!(bad.parse::<DocumentPattern>().is_err(), "{bad:?}");
        }
        for good in ["a", "a*", "*", "A-z_9*"] {
            assert_eq!(good.parse::<DocumentPattern>().unwrap().to_string(), good);
        }
    }
}
