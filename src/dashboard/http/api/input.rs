//! What a request says: ids of its path, its query, its body. Strict, and each refusal says what is wrong.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::{BODY_BYTES_MAX, Problem};
use crate::dashboard::Dashboard;

/// The ids of a path. What is no id is nothing's id: 404.
pub(super) struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Dashboard>> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Problem> {
        let missing = |_| Problem::not_found("there is nothing at this address");
        let Path(ids) = Path::from_request_parts(parts, dashboard).await.map_err(missing)?;
        Ok(Self(ids))
    }
}

/// The query, of which every parameter is known.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Dashboard>> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Dashboard>) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// A JSON body, of which every member is known.
pub(super) struct Payload<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Dashboard>> for Payload<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, dashboard: &Arc<Dashboard>) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(is_json) {
            return Err(Problem::wrong_media_type());
        }
        parse(&body_of(request, dashboard).await?).map(Self)
    }
}

/// The whole body, unless it is too large.
pub(super) async fn body_of(request: Request, dashboard: &Arc<Dashboard>) -> Result<Bytes, Problem> {
    Bytes::from_request(request, dashboard).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(BODY_BYTES_MAX),
        _ => Problem::bad_request("the body did not arrive as a whole"),
    })
}

/// `application/json` and what is JSON in another name, such as `application/merge-patch+json`.
fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take an array for a struct's members in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("", "the body must be a JSON object"));
    }
    if has_zero_byte(body) {
        return Err(Problem::invalid("", "a text holds a zero byte (\\u0000); write it without"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = pointer(error.path());
        refused(&place, error.inner())
    })?;
    json.end().map_err(|error| refused("", &error))?;
    Ok(parsed)
}

/// Whether some text holds U+0000, which JSON can only write as an escape and PostgreSQL can't keep.
fn has_zero_byte(body: &[u8]) -> bool {
    let backslashes = |before: usize| body[..before].iter().rev().take_while(|byte| **byte == b'\\').count();
    let mut found = body.windows(6).enumerate().filter(|(_, bytes)| *bytes == br"\u0000");
    // An even number before it: this backslash is itself no escaped one.
    found.any(|(at, _)| backslashes(at) % 2 == 0)
}

fn refused(place: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::bad_request(format!("the body is no JSON: {error}"));
    }
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    // serde points to the object of a member that is missing or unknown, and names the member in the text.
    let member = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| said.strip_prefix(start)?.split_once('`'))
        .map(|(member, _)| member)
        .filter(|member| !place.ends_with(&format!("/{}", escaped(member))));
    let place = member.map_or_else(|| place.to_owned(), |member| format!("{place}/{}", escaped(member)));
    Problem::invalid(place, said.replace('`', "\""))
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escaped(key)),
        Segment::Enum { variant } => format!("/{}", escaped(variant)),
        Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Body {
        #[serde(rename = "name")]
        _name: String,
        #[serde(default, rename = "allowedDomains")]
        _allowed_domains: Vec<String>,
    }

    fn wrong(body: &str) -> (u16, String, String) {
        let problem = parse::<Body>(body.as_bytes()).unwrap_err();
        let error = problem.errors.first();
        (
            problem.status.as_u16(),
            error.map(|error| error.pointer.clone()).unwrap_or_default(),
            problem.detail,
        )
    }

    #[test]
    fn a_wrong_member_is_pointed_at() {
        for (body, pointer) in [
            ("{}", "/name"),
            (r#"{"name":1}"#, "/name"),
            (r#"{"name":"a","nmae":"b"}"#, "/nmae"),
            (r#"{"name":"a","a/b":1}"#, "/a~1b"),
            (r#"{"name":"a","name":"b"}"#, "/name"),
            (r#"{"name":"a","allowedDomains":["a",2]}"#, "/allowedDomains/1"),
            ("[]", ""),
        ] {
            let (status, place, detail) = wrong(body);
            assert_eq!((status, place.as_str()), (422, pointer), "{body}: {detail}");
        }
        assert!(wrong(r#"{"name":"a","nmae":"b"}"#).2.contains("\"nmae\""), "the field is named");
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        for body in ["", "{", "{}x", r#"{"name":"a"}}"#, "name=a"] {
            assert_eq!(wrong(body).0, if body == "{}x" { 422 } else { 400 }, "{body}");
        }
    }

    #[test]
    fn a_zero_byte_is_refused_and_what_only_looks_like_one_is_not() {
        assert_eq!(wrong(r#"{"name":"a\u0000"}"#).0, 422);
        assert_eq!(wrong(r#"{"name":"\\\u0000"}"#).0, 422);
        assert!(parse::<Body>(br#"{"name":"\\u0000"}"#).is_ok());
    }

    #[test]
    fn json_has_more_than_one_name() {
        assert!(is_json("application/json") && is_json("Application/JSON; charset=utf-8"));
        assert!(is_json("application/merge-patch+json"));
        assert!(!is_json("text/json") && !is_json("application/x-www-form-urlencoded") && !is_json(""));
    }
}
