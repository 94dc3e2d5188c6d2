//! The key feed's text, line by line: server-sent events as the HTML standard describes them, as far as the feed uses them.
//!
//! Pure: lines in, events out. Fields and kinds of event that are not known are passed over, so that a newer dashboard can
//! say more.

use serde::Deserialize;
use uuid::Uuid;

use crate::control::keys::Jwks;

/// Something the feed said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// A tenant's whole key set.
    pub keys: Option<(Uuid, Jwks)>,
    /// All up to here was sent.
    pub id: Option<Box<str>>,
}

/// Why an event can't be used: the stream is not (any more) what it should be.
#[derive(Debug, thiserror::Error)]
#[error("an event of the key feed is not what it should be")]
pub(super) struct EventError(#[from] serde_json::Error);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    tenant_id: Uuid,
    jwks: Jwks,
}

/// An event that is being read.
#[derive(Debug, Default)]
pub(super) struct Parser {
    kind: String,
    data: String,
    id: Option<Box<str>>,
}

impl Parser {
    /// One line, without its end. An empty one completes an event, if there was anything to it.
    ///
    /// # Errors
    /// [`EventError`] if a `keys` event holds no key set.
    pub fn line(&mut self, line: &str) -> Result<Option<Event>, EventError> {
        if line.is_empty() {
            return std::mem::take(self).complete();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "id" => self.id = Some(value.into()),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {} // comments have an empty field name
        }
        Ok(None)
    }

    fn complete(self) -> Result<Option<Event>, EventError> {
        let keys = if self.kind == "keys" {
            let Keys { tenant_id, jwks } = serde_json::from_str(&self.data)?;
            Some((tenant_id, jwks))
        } else {
            None
        };
        let event = Event { keys, id: self.id };
        Ok((event != Event::default()).then_some(event))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const T: Uuid = Uuid::from_u128(7);

    fn parse(text: &str) -> Result<Vec<Event>, EventError> {
        let mut parser = Parser::default();
        text.lines().filter_map(|line| parser.line(line).transpose()).collect()
    }

    #[test]
    fn a_key_set_and_the_place_it_brings_one_to() {
        let text = format!(
            ": hello\n\nevent: keys\ndata: {{\"tenantId\":\"{T}\",\"jwks\":{{\"keys\":[{{\"kid\":\"a\"}}],\"revoked\":[\"b\"]}}}}\n\nid: 12\n\n"
        );
        let jwks = Jwks { keys: vec![json!({ "kid": "a" })], revoked: vec!["b".into()] };
        let expected =
            [Event { keys: Some((T, jwks)), id: None }, Event { keys: None, id: Some("12".into()) }];
        assert_eq!(parse(&text).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        assert_eq!(parse("event: plans\ndata: {}\nretry: 5\nwhatever\n\n\n:\n\n").unwrap(), []);
    }

    #[test]
    fn an_event_that_is_cut_off_is_none() {
        assert_eq!(parse("event: keys\ndata: {\"tenantId\"").unwrap(), []);
    }

    #[test]
    fn a_keys_event_without_a_key_set_is_an_error() {
        assert!(parse("event: keys\ndata: {}\n\n").is_err());
        assert!(parse("event: keys\n\n").is_err());
    }
}
