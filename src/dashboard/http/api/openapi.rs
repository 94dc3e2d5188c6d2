//! The OpenAPI 3.1 document. Routes describe themselves; what holds for all of them is added here, once: path
//! parameters, conditional and idempotent requests, refusals.

use std::sync::Arc;

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::nodes;
use super::identity::FORM_TOKEN;
use crate::config::Issuer;
use crate::dashboard::{Dashboard, oauth, web};

/// The document as it is served.
#[derive(Clone)]
pub(super) struct Document(Arc<str>);

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(endpoint))
}

/// This document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "me", operation_id = "readOpenApi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn endpoint(Extension(Document(text)): Extension<Document>) -> Response {
    let head = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (head, text.to_string()).into_response()
}

/// What the document begins with.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new().title("WireSocket management API").version(env!("CARGO_PKG_VERSION"));
    OpenApiBuilder::new().info(info.description(Some(DESCRIPTION)).build()).build()
}

const DESCRIPTION: &str = "\
Tenants, apps, plans, invoices, keys, members and nodes of a WireSocket dashboard, as JSON. Times are Unix seconds, ids GUIDs.

**Authentication.** `Authorization: Bearer wsk_…`, an API key of a tenant or of an operator. A key may what its role may, \
and never more than whoever made it may now. What a key may not know of is answered 404. Without a key the session of the \
dashboard's own pages counts, for requests from pages of the same origin alone (403 for others); a change also needs \
`X-Form-Token`, with what the page's forms hold as `form_token`.

**Changes.** What can be edited has an `ETag`; `PATCH`, `PUT` and `DELETE` of it need `If-Match` (428 without, 412 when \
somebody was faster). `GET` answers 304 to `If-None-Match`.

**Repeating.** A `POST` with an `Idempotency-Key` (a UUID of your own) takes effect once: sent again within 24 hours it is \
answered the same, a secret that is shown once included (it is kept sealed), with `Idempotency-Replayed: true`. The same \
key with another request is 422; while the first is under way, 409. A request that was refused frees its key.

**Lists** come in pages: `limit`, then `cursor` with what `next` said, or follow the `Link` header.

**Errors** are problem details (RFC 9457); `errors` points to the wrong members of a body. 429 says in `Retry-After` how \
many seconds to wait.";

const TAGS: &[(&str, &str)] = &[
    ("me", "Who the caller is, and this document"),
    ("tenants", "Customers of the platform"),
    ("members", "Who works for a tenant"),
    ("invitations", "Who is asked to"),
    ("apps", "What gets tokens"),
    ("plans", "What an app may use, and its price"),
    ("subscriptions", "Which app is on which plan"),
    ("invoices", "What that costs, and whether it is paid"),
    ("usage", "What an app uses and used"),
    ("keys", "What signs tokens"),
    ("nodes", "The fleet, for operators"),
    ("api keys", "What automation authenticates with"),
    ("audit", "Who changed what"),
    (oauth::TAG, "OAuth 2 and the keys that verify: not part of the API, nothing of the above holds there"),
    (
        nodes::TAG,
        "What nodes say and hear, with credentials of their own: nothing of the above holds there either",
    ),
];

/// The ids that paths have.
const PATH_PARAMETERS: &[(&str, &str, &str)] = &[
    ("tenant", "uuid", "The tenant's id"),
    ("account", "uuid", "The member's account id"),
    ("invitation", "uuid", "The invitation's id"),
    ("app", "uuid", "The app's id"),
    ("plan", "", "The plan's id"),
    ("invoice", "uuid", "The invoice's id"),
    ("kid", "", "The signing key's id"),
    ("node", "uuid", "The node's id"),
    ("apiKey", "uuid", "The API key's id"),
];

/// Name, status and meaning of every refusal.
const REFUSALS: &[(&str, u16, &str)] = &[
    ("BadRequest", 400, "The request can't be read: no JSON, an unknown parameter, another list's cursor"),
    ("Unauthorized", 401, "No credential, or one that is not good (any more)"),
    (
        "Forbidden",
        403,
        "The caller's role may not do this, or the session's request does not come from our own pages",
    ),
    ("NotFound", 404, "There is no such thing, or the caller may not know of it"),
    ("MethodNotAllowed", 405, "The address answers other methods, which Allow names"),
    ("Conflict", 409, "What is there, or its state, is in the way; or the Idempotency-Key is in use"),
    ("PreconditionFailed", 412, "It was changed by somebody else in the meantime"),
    ("ContentTooLarge", 413, "The body is too large"),
    ("UnsupportedMediaType", 415, "The body is not called JSON"),
    (
        "UnprocessableContent",
        422,
        "Members of the body are wrong, which `errors` names; or the Idempotency-Key is another's",
    ),
    ("PreconditionRequired", 428, "If-Match is missing"),
    ("TooManyRequests", 429, "Too many requests from this address or with this key"),
    ("InternalError", 500, "The dashboard failed"),
    ("BadGateway", 502, "The mail relay did not take the mail"),
    ("Unavailable", 503, "What is needed is overloaded or not configured"),
];

/// What routes that are not the API's answer with problem details, by their operation.
const REFUSALS_OF_OTHERS: &[(&str, &[u16])] = &[
    ("enrolNode", &[400, 401, 413, 429]),
    ("beatNode", &[400, 401, 413]),
    ("reportUsage", &[400, 401, 413]),
    ("followFeed", &[401, 503]),
    ("readKeySet", &[404, 429]),
];

/// Adds what holds for every route.
pub(super) fn finish(document: OpenApi, issuer: &Issuer) -> Document {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["servers"] = json!([{ "url": issuer.as_str() }]);
    let tag = |(name, description): &(&str, &str)| json!({ "name": name, "description": description });
    document["tags"] = TAGS.iter().map(tag).collect();
    document["security"] = json!([{ "apiKey": [] }, { "session": [] }]);
    document["components"]["securitySchemes"] = json!({
        "apiKey": { "type": "http", "scheme": "bearer", "bearerFormat": "wsk_…", "description": "An API key" },
        "session": { "type": "apiKey", "in": "cookie", "name": web::cookie::name(issuer),
            "description": "The cookie of somebody who is logged in to the dashboard's pages" },
        "formToken": { "type": "apiKey", "in": "header", "name": FORM_TOKEN,
            "description": "What the page's forms hold as form_token: with the cookie, for every change" },
        "client": { "type": "http", "scheme": "basic", "description": "An app's client_id and client_secret" },
        "operator": { "type": "http", "scheme": "basic", "description": "An operator's e-mail address and password" },
        "enrolmentSecret": { "type": "http", "scheme": "bearer", "description": "What an operator has made for nodes" },
        "nodeCredential": { "type": "http", "scheme": "bearer", "description": "What a node got when it enrolled" },
    });
    document["components"]["schemas"]["Problem"] = problem_schema();
    let refusal = |&(name, status, meaning): &(&str, u16, &str)| (name.to_owned(), refusal(status, meaning));
    document["components"]["responses"] = Value::Object(REFUSALS.iter().map(refusal).collect());
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(path, method, operation);
        }
    }
    Document(document.to_string().into())
}

/// Adds to an operation what its path and method bring along.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let is_public =
        operation["security"].as_array().is_some_and(|schemes| schemes.iter().any(|one| one == &json!({})));
    let is_others = [oauth::TAG, nodes::TAG].iter().any(|tag| operation["tags"][0] == *tag);
    if !is_others && !is_public && method != "get" {
        operation["security"] = json!([{ "apiKey": [] }, { "session": [], "formToken": [] }]);
    }
    let mut parameters = Vec::new();
    let ids = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    for id in ids {
        let known = PATH_PARAMETERS.iter().find(|(name, ..)| *name == id);
        let (_, format, description) = known.unwrap_or(&("", "", ""));
        let mut schema = json!({ "type": "string" });
        if !format.is_empty() {
            schema["format"] = json!(format);
        }
        let parameter = json!({ "name": id, "in": "path", "required": true, "schema": schema, "description": description });
        parameters.push(parameter);
    }
    if is_others {
        let of_it = |(id, ..): &&(&str, &[u16])| operation["operationId"] == *id;
        let statuses = REFUSALS_OF_OTHERS.iter().find(of_it).map_or(&[][..], |(_, statuses)| statuses);
        for (name, status, _) in REFUSALS.iter().filter(|(_, status, _)| statuses.contains(status)) {
            operation["responses"][status.to_string()] =
                json!({ "$ref": format!("#/components/responses/{name}") });
        }
        parameters.extend(operation["parameters"].as_array().cloned().unwrap_or_default());
        operation["parameters"] = parameters.into();
        return;
    }
    let needs_if_match = is_conditional(path, method);
    let mut header = |name: &str, required: bool, description: &str| {
        let parameter = json!({ "name": name, "in": "header", "required": required,
            "schema": { "type": "string" }, "description": description });
        parameters.push(parameter);
    };
    if needs_if_match {
        header("If-Match", true, "The ETag that was read");
    }
    if method == "post" && !is_public {
        header("Idempotency-Key", false, "Makes the request take effect once, however often it is sent");
    }
    let own = operation["parameters"].as_array().cloned().unwrap_or_default();
    parameters.extend(own);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let has_body = !operation["requestBody"].is_null();
    let has_query =
        operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "query"));
    let is_list =
        operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "cursor"));
    let is_invitation = operation["operationId"] == "createInvitation";
    let responses = operation["responses"].as_object_mut();
    let Some(responses) = responses else { return };
    for (name, status, _) in REFUSALS {
        let applies = match status {
            400 => has_body || has_query || (method == "post" && !is_public),
            401 => true, // a public route refuses a wrong credential too
            403 => !is_public,
            404 => path.contains('{'),
            409 => method != "get",
            412 | 428 => needs_if_match,
            413 | 415 => has_body,
            422 => has_body || (method == "post" && !is_public),
            502 => is_invitation,
            503 => is_invitation || path.contains("/keys/") || path.ends_with("/approve"),
            _ => true,
        };
        if applies {
            responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
        }
    }
    let is_uncached = path.ends_with("/export") || path.contains("/usage");
    let is_thing = method == "get" && path != "/api/v1/openapi.json" && !is_uncached;
    if let Some(answer) = responses.get_mut("200").filter(|_| is_thing) {
        answer["headers"] = match is_list {
            true => headers_of("Link", "The next page, as rel=\"next\""),
            false => headers_of("ETag", "What If-Match and If-None-Match name"),
        };
    }
}

/// What can be edited, and by two at once.
fn is_conditional(path: &str, method: &str) -> bool {
    match method {
        "patch" | "put" => true,
        "delete" => path.ends_with("/{app}") || path.ends_with("/{account}"),
        _ => false,
    }
}

fn headers_of(name: &str, description: &str) -> Value {
    let mut headers = Map::new();
    headers.insert(name.to_owned(), json!({ "schema": { "type": "string" }, "description": description }));
    Value::Object(headers)
}

fn refusal(status: u16, meaning: &str) -> Value {
    let name = match status {
        401 => "WWW-Authenticate",
        405 => "Allow",
        429 => "Retry-After",
        _ => "Cache-Control",
    };
    json!({
        "description": meaning,
        "headers": headers_of(name, "RFC 9110"),
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "example": { "type": "about:blank", "title": "…", "status": status, "detail": meaning },
        } },
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong, and what to do (RFC 9457)",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "about:blank, or urn:wiresocket:problem: and a name" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "errors": { "type": "array", "description": "The wrong members of the body", "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": { "type": "string", "description": "RFC 6901", "examples": ["/allowedDomains/0"] },
                    "detail": { "type": "string" },
                },
            } },
        },
        "examples": [{
            "type": "urn:wiresocket:problem:invalid-body",
            "title": "Unprocessable content",
            "status": 422,
            "detail": "an app needs a name of 1 to 100 characters",
            "errors": [{ "pointer": "/name", "detail": "an app needs a name of 1 to 100 characters" }],
        }],
    })
}
