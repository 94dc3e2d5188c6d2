//! `Idempotency-Key`: a request that creates something, sent again, is answered again and changes nothing.
//!
//! The request goes on if its client goes away: otherwise nobody would know whether it took effect. Anonymous requests
//! have nobody whose key it could be; they are refused twice by what they make.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;
use super::input::body_of;
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Actor, Principal};
use crate::dashboard::idempotency::{self, Claim, Kept, Key};
use crate::dashboard::random;

const NAME: &str = "idempotency-key";
const KEY_CHARS_MAX: usize = 255;
/// Of an answer that is kept.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Around every route.
pub(super) async fn once(
    State(dashboard): State<Arc<Dashboard>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let actor = request.extensions().get::<Actor>().filter(|actor| actor.principal != Principal::Anonymous);
    let Some(actor) = actor.filter(|_| request.method() == Method::POST) else {
        return Ok(next.run(request).await);
    };
    let Some(text) = key_of(request.headers())? else { return Ok(next.run(request).await) };
    let key = Key { actor: actor.name(), text };
    let (parts, body) = request.into_parts();
    let again = Request::from_parts(parts.clone(), body);
    let body = body_of(again, &dashboard).await?;
    // By hash: two requests are the same if nothing of them differs.
    let fingerprint = format!("{} {}\n{}", parts.method, parts.uri, random::fingerprint_of(&body));
    match idempotency::claim(&dashboard, &key, &fingerprint).await? {
        Claim::Again(kept) => Ok(render(kept)),
        Claim::Differs => Err(Problem::idempotency_key_reused()),
        Claim::Running => Err(Problem::idempotency_key_in_use()),
        Claim::Mine => {
            let request = Request::from_parts(parts, Body::from(body));
            let work = tokio::spawn(async move { carry_out(&dashboard, &key, next.run(request)).await });
            work.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
        }
    }
}

async fn carry_out(
    dashboard: &Dashboard,
    key: &Key,
    answer: impl Future<Output = Response>,
) -> Result<Response, Problem> {
    let (parts, body) = answer.await.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|error| Problem::internal(&error))?;
    if !parts.status.is_success() {
        // After a 500 nobody knows; that key is never carried out again.
        if parts.status != StatusCode::INTERNAL_SERVER_ERROR {
            idempotency::release(dashboard, key).await?;
        }
        return Ok(Response::from_parts(parts, Body::from(body)));
    }
    let names = [header::CONTENT_TYPE, header::CACHE_CONTROL, header::ETAG, header::LOCATION];
    let header = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let headers = names.iter().filter_map(header).collect();
    let kept = Kept { status: parts.status.as_u16(), headers, body: body.to_vec() };
    // What was asked for is done: if its answer can't be kept, the client is answered all the same.
    if let Err(error) = idempotency::keep(dashboard, key, &kept).await {
        tracing::error!(%error, "the answer of an Idempotency-Key could not be kept");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn render(kept: Kept) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let mut response = (status, kept.body).into_response();
    let headers = response.headers_mut();
    for (name, value) in kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if (1..=KEY_CHARS_MAX).contains(&text.len()) {
        Ok(Some(text.to_owned()))
    } else {
        let detail = format!("Idempotency-Key must be 1 to {KEY_CHARS_MAX} ASCII characters, such as a UUID");
        Err(Problem::bad_request(detail))
    }
}
