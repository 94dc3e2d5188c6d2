//! The feed's text, line by line: server-sent events as the HTML standard describes them, as far as the feed uses them.
//!
//! Pure: lines in, events out. Fields and kinds of event that are not known are passed over, so that a newer dashboard can
//! say more.

use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use crate::auth::Limits;
use crate::control::fleet::Fleet;
use crate::control::keys::Jwks;
use crate::protocol::document::AppId;

/// Something the feed said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// A tenant's whole key set.
    pub keys: Option<(Uuid, Jwks)>,
    /// All nodes, as they are now.
    pub fleet: Option<Fleet>,
    pub limits: Option<NewLimits>,
    /// All up to here was sent.
    pub id: Option<Box<str>>,
}

/// Limits that an app has now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewLimits {
    pub app: AppId,
    pub limits: Limits,
    /// Tokens issued up to then may bear others.
    pub issued_until_unix_s: u64,
    /// For how long such tokens live.
    pub hold: Duration,
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppLimits {
    tenant_id: Uuid,
    app_id: Uuid,
    limits: LimitsClaim,
    /// An older dashboard does not say: then no token is newer.
    #[serde(default = "never")]
    issued_until: u64,
    hold_s: u64,
}

fn never() -> u64 {
    u64::MAX
}

/// As in tokens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LimitsClaim {
    max_connections: u32,
    max_documents: u32,
    max_users_per_doc: u32,
    ops_per_minute: u32,
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
    /// [`EventError`] if a `keys` event holds no key set, a `fleet` event no fleet, a `limits` event no limits.
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
        let mut event = Event { id: self.id, ..Event::default() };
        match self.kind.as_str() {
            "keys" => {
                let Keys { tenant_id, jwks } = serde_json::from_str(&self.data)?;
                event.keys = Some((tenant_id, jwks));
            }
            "limits" => {
                let AppLimits { tenant_id: tenant, app_id: app, limits, issued_until, hold_s } =
                    serde_json::from_str(&self.data)?;
                let limits = Limits {
                    connections_max: limits.max_connections,
                    documents_max: limits.max_documents,
                    users_per_document_max: limits.max_users_per_doc,
                    ops_per_minute: limits.ops_per_minute,
                };
                event.limits = Some(NewLimits {
                    app: AppId { tenant, app },
                    limits,
                    issued_until_unix_s: issued_until,
                    hold: Duration::from_secs(hold_s),
                });
            }
            "fleet" => event.fleet = Some(serde_json::from_str(&self.data)?),
            _ => {}
        }
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
        let expected = [
            Event { keys: Some((T, jwks)), ..Event::default() },
            Event { id: Some("12".into()), ..Event::default() },
        ];
        assert_eq!(parse(&text).unwrap(), expected);
    }

    #[test]
    fn the_fleet_comes_as_a_whole() {
        let text = format!("event: fleet\ndata: {{\"self\":\"{T}\",\"nodes\":[]}}\n\n");
        let fleet = serde_json::from_value(json!({ "self": T, "nodes": [] })).unwrap();
        assert_eq!(parse(&text).unwrap(), [Event { fleet: Some(fleet), ..Event::default() }]);
    }

    #[test]
    fn an_apps_new_limits_come_with_how_long_older_tokens_live() {
        let limits = r#"{"maxConnections":1,"maxDocuments":2,"maxUsersPerDoc":3,"opsPerMinute":4}"#;
        let text = format!(
            "event: limits\ndata: {{\"tenantId\":\"{T}\",\"appId\":\"{T}\",\"limits\":{limits},\"issuedUntil\":7,\"holdS\":60}}\n\n"
        );
        let limits =
            Limits { connections_max: 1, documents_max: 2, users_per_document_max: 3, ops_per_minute: 4 };
        let expected = |issued_until_unix_s| {
            let (app, hold) = (AppId { tenant: T, app: T }, Duration::from_secs(60));
            let limits = NewLimits { app, limits, issued_until_unix_s, hold };
            [Event { limits: Some(limits), ..Event::default() }]
        };
        assert_eq!(parse(&text).unwrap(), expected(7));
        let of_old = text.replace("\"issuedUntil\":7,", "");
        assert_eq!(parse(&of_old).unwrap(), expected(u64::MAX), "then no token is newer");
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
