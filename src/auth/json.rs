//! JSON of a token's header and claims, read from simd-json's tape.
//!
//! The tape keeps every member of an object in order, duplicates included, with keys already unescaped: `"exp"` and
//! `"\u0065xp"` are the same key here. Nothing recurses; nesting is bounded by the parser ([`DEPTH_MAX`]), size by
//! whoever hands the bytes in. Deliberately absent: any meaning of a key.

use simd_json::{Buffers, Node, StaticNode, Tape};
use smallvec::SmallVec;

/// How deep objects and arrays may nest. Claims need two levels; foreign claims may have a few more.
const DEPTH_MAX: usize = 16;

/// Reused between tokens, so that parsing allocates little.
pub(super) struct Parser {
    buffers: Buffers,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self { buffers: Buffers::with_max_depth(2048, DEPTH_MAX) }
    }

    /// Parses one JSON object; `None` for anything else. Unescapes strings in place, hence `&mut`.
    pub(super) fn object<'i>(&mut self, bytes: &'i mut [u8]) -> Option<Document<'i>> {
        if bytes.is_empty() {
            return None;
        }
        let tape = simd_json::to_tape_with_buffers(bytes, &mut self.buffers).ok()?;
        matches!(tape.0.first(), Some(Node::Object { .. })).then_some(Document(tape))
    }
}

/// A parsed document whose top is an object.
pub(super) struct Document<'i>(Tape<'i>);

impl<'i> Document<'i> {
    pub(super) fn members(&self) -> Members<'_, 'i> {
        Members(&self.0.0[1..])
    }

    /// The first member of this name; what a second one means is for [`Self::has_duplicate_key`] to say.
    pub(super) fn get(&self, key: &str) -> Option<Value<'_, 'i>> {
        self.members().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Whether any object, at any level, has two members of one name.
    pub(super) fn has_duplicate_key(&self) -> bool {
        let nodes = &self.0.0;
        (0..nodes.len()).any(|at| {
            Value::at(&nodes[at..]).members().is_some_and(|members| {
                let mut keys: SmallVec<[&str; 32]> = members.map(|(key, _)| key).collect();
                keys.sort_unstable();
                keys.windows(2).any(|pair| pair[0] == pair[1])
            })
        })
    }
}

/// One value: its own node and, for an object or array, all nodes inside it.
#[derive(Clone, Copy)]
pub(super) struct Value<'t, 'i>(&'t [Node<'i>]);

impl<'t, 'i> Value<'t, 'i> {
    /// The value that begins at the first of `nodes`, which may go on after it.
    fn at(nodes: &'t [Node<'i>]) -> Self {
        let inside = match nodes[0] {
            Node::Object { count, .. } | Node::Array { count, .. } => count,
            Node::String(_) | Node::Static(_) => 0,
        };
        Self(&nodes[..=inside])
    }

    pub(super) fn as_str(self) -> Option<&'i str> {
        match self.0[0] {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self.0[0], Node::Static(StaticNode::Null))
    }

    /// An integer of at least 0 that was written as one (`5`, not `5.0` or `"5"`).
    pub(super) fn as_u64(self) -> Option<u64> {
        match self.0[0] {
            Node::Static(StaticNode::U64(number)) => Some(number),
            Node::Static(StaticNode::I64(number)) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    pub(super) fn as_f64(self) -> Option<f64> {
        match self.0[0] {
            Node::Static(StaticNode::F64(number)) => Some(number),
            _ => None,
        }
    }

    pub(super) fn members(self) -> Option<Members<'t, 'i>> {
        matches!(self.0[0], Node::Object { .. }).then(|| Members(&self.0[1..]))
    }

    pub(super) fn elements(self) -> Option<Elements<'t, 'i>> {
        matches!(self.0[0], Node::Array { .. }).then(|| Elements(&self.0[1..]))
    }
}

/// The members of an object, in the order they were written.
pub(super) struct Members<'t, 'i>(&'t [Node<'i>]);

impl<'t, 'i> Iterator for Members<'t, 'i> {
    type Item = (&'i str, Value<'t, 'i>);

    fn next(&mut self) -> Option<Self::Item> {
        let (Node::String(key), rest) = self.0.split_first()? else {
            return None; // The tape has a string before every value of an object.
        };
        let value = Value::at(rest);
        self.0 = &rest[value.0.len()..];
        Some((key, value))
    }
}

/// The elements of an array.
pub(super) struct Elements<'t, 'i>(&'t [Node<'i>]);

impl<'t, 'i> Iterator for Elements<'t, 'i> {
    type Item = Value<'t, 'i>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = (!self.0.is_empty()).then(|| Value::at(self.0))?;
        self.0 = &self.0[value.0.len()..];
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn duplicates(text: &str) -> Option<bool> {
        let mut bytes = text.as_bytes().to_vec();
        Parser::new().object(&mut bytes).map(|document| document.has_duplicate_key())
    }

    #[test]
    fn duplicate_keys_are_seen_at_every_level_and_however_they_are_written() {
        assert_eq!(duplicates(r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]}"#), Some(false));
        assert_eq!(duplicates(r#"{"a":1,"b":2,"a":1}"#), Some(true));
        assert_eq!(duplicates(r#"{"a":1,"\u0061":1}"#), Some(true));
        assert_eq!(duplicates(r#"{"l":{"x":1,"y":[1,{"q":{}}],"\u0078":2}}"#), Some(true));
        assert_eq!(duplicates(r#"{"c":[[{"k":{},"k":[]}]]}"#), Some(true));
        assert_eq!(duplicates(r#"{"":1,"":2}"#), Some(true));
        assert_eq!(duplicates(r#"{"a":1,"A":2}"#), Some(false), "keys are case-sensitive");
    }

    #[test]
    fn only_one_object_of_bounded_depth_is_a_document() {
        for text in ["", " ", "[]", "1", "null", "\"{}\"", "{} {}", "{}x", "{\"a\":}", "{\"a\":1,}", "{a:1}"]
        {
            assert_eq!(duplicates(text), None, "{text}");
        }
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(duplicates(&nested(DEPTH_MAX - 1)), Some(false));
        assert_eq!(duplicates(&nested(DEPTH_MAX + 1)), None);
        assert_eq!(duplicates(&nested(100_000)), None);
        let mut not_utf8 = b"{\"a\":\"\xff\"}".to_vec();
        assert!(Parser::new().object(&mut not_utf8).is_none());
    }

    #[test]
    fn values_keep_their_extent_beside_one_another() {
        let mut bytes = br#"{"a":{"b":[1,[2,{"c":3}],"x"],"d":-4},"e":5.5,"f":null,"g":"z"}"#.to_vec();
        let mut parser = Parser::new();
        let document = parser.object(&mut bytes).unwrap();
        let names: Vec<_> = document.members().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "e", "f", "g"]);
        let inner: Vec<_> = document.get("a").unwrap().members().unwrap().collect();
        assert_eq!(inner[0].1.elements().unwrap().count(), 3);
        assert_eq!((inner[1].0, inner[1].1.as_u64()), ("d", None));
        assert_eq!(document.get("e").unwrap().as_f64(), Some(5.5));
        assert!(document.get("f").unwrap().is_null());
        assert_eq!(document.get("g").unwrap().as_str(), Some("z"));
    }

    proptest! {
        /// The parser runs on bytes of strangers: whatever it takes for JSON, a second parser takes for JSON too, and
        /// both read the same (the second drops duplicates, so those are left to the first).
        #[test]
        fn what_it_accepts_is_json(
            edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(TELLING)), 1..4),
        ) {
            let mut text = SAMPLE.to_vec();
            for (at, byte) in edits {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let strict = serde_json::from_slice::<serde_json::Value>(&text);
            let mut bytes = text.clone();
            let mut parser = Parser::new();
            if let Some(document) = parser.object(&mut bytes) {
                prop_assert!(strict.is_ok(), "{:?}", String::from_utf8_lossy(&text));
                let strict = strict.unwrap();
                let same = document.has_duplicate_key() || document.members().all(|(key, value)| {
                    strict[key].as_u64() == value.as_u64() && strict[key].as_str() == value.as_str()
                });
                prop_assert!(same, "{:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    const SAMPLE: &[u8] =
        br#"{"iss":"a\u00e9\n","exp":1700000000,"nbf":1.5e3,"limits":{"m":[1,-2,true,null]},"s":"\ud83d\ude00"}"#;
    /// Bytes that mean something in JSON, and a few that must not occur in it.
    const TELLING: &[u8] = b"{}[],:\"\\/0123456789.eE+-tfnuabd \n\t\x00\x1f\x7f\x80\xc3\xed\xff";
}
