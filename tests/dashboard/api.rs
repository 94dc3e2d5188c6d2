//! What holds for every route of the management API: keys, ETags, pages, idempotency, limits, refusals.

use std::collections::BTreeSet;

use axum::http::{StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::api_keys::{self, ApiKeyError, NewApiKey};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::{apps, audit, members};

use crate::stage::{Answer, START, Stage};

const DAY_S: i64 = 86_400;

/// A tenant, its owner and a key of the owner's.
async fn owned(stage: &Stage) -> (Uuid, Actor, String) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let key = stage.api_key(&owner, Some(tenant), Role::Owner).await;
    (tenant, owner, key)
}

async fn status_of(stage: &Stage, key: &str, path: &str) -> StatusCode {
    stage.call("GET", path).by(key).send().await.status
}

fn problem(answer: &Answer) -> (u16, String, String) {
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json", "{}", answer.json);
    assert_eq!(answer.json["status"], answer.status.as_u16());
    let pointer = answer.json["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), pointer, answer.text("detail"))
}

pub async fn a_key_has_its_makers_rights_of_now_and_no_more(stage: Stage) {
    let (tenant, owner, _) = owned(&stage).await;
    let account = stage.account("admin@example.com").await;
    members::add(&stage.dashboard, &owner, tenant, account, Role::Admin).await.unwrap();
    let admin = Actor::account(account, None);
    for role in [Role::Owner, Role::Billing] {
        let new = NewApiKey { name: "x".to_owned(), role, expires_at: None };
        let refused = api_keys::create(&stage.dashboard, &admin, Some(tenant), new).await;
        assert!(matches!(refused, Err(ApiKeyError::TooMuch(_))), "{role:?}: {refused:?}");
    }
    let key = stage.api_key(&admin, Some(tenant), Role::Admin).await;
    let (apps, audit) = (format!("/tenants/{tenant}/apps"), format!("/tenants/{tenant}/audit"));
    assert_eq!(status_of(&stage, &key, &audit).await, StatusCode::OK);

    members::change(&stage.dashboard, &owner, tenant, account, Some(Role::Developer)).await.unwrap();
    assert_eq!(status_of(&stage, &key, &apps).await, StatusCode::OK);
    assert_eq!(status_of(&stage, &key, &audit).await, StatusCode::FORBIDDEN, "demoted with its maker");
    members::change(&stage.dashboard, &owner, tenant, account, None).await.unwrap();
    assert_eq!(status_of(&stage, &key, &apps).await, StatusCode::UNAUTHORIZED, "gone with its maker");
}

pub async fn a_key_ends_with_its_time_with_its_maker_key_and_when_it_is_revoked(stage: Stage) {
    let (tenant, _, key) = owned(&stage).await;
    let path = format!("/tenants/{tenant}/api-keys");
    let make = async |by: &str, body: Value| stage.call("POST", &path).by(by).json(body).await;
    let made = make(&key, json!({ "name": "a", "role": "admin", "expiresAt": START + 2 * DAY_S })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    let (child, id) = (made.text("secret"), made.text("id"));
    assert!(child.starts_with("wsk_") && child.starts_with(&made.text("prefix")));
    let read = stage.call("GET", made.header(header::LOCATION)).by(&key).send().await;
    assert!(read.json.get("secret").is_none(), "shown once: {}", read.json);

    let longer = make(&child, json!({ "name": "b", "role": "admin" })).await;
    assert_eq!(problem(&longer).1, "/expiresAt", "no key outlives the one that made it");
    let late = make(&key, json!({ "name": "b", "role": "admin", "expiresAt": START })).await;
    assert_eq!(problem(&late).1, "/expiresAt");
    let grandchild = make(&child, json!({ "name": "b", "role": "developer", "expiresAt": START + DAY_S }))
        .await
        .text("secret");
    let me = stage.call("GET", "/me").by(&grandchild).send().await;
    assert_eq!(
        (me.json["tenants"][0]["role"].as_str(), &me.json["isOperator"]),
        (Some("developer"), &json!(false))
    );

    stage.clock.advance(DAY_S);
    assert_eq!(status_of(&stage, &grandchild, "/me").await, StatusCode::UNAUTHORIZED, "expired");
    let other = make(&child, json!({ "name": "c", "role": "developer", "expiresAt": START + 2 * DAY_S }))
        .await
        .text("secret");
    assert_eq!(status_of(&stage, &other, "/me").await, StatusCode::OK);
    let revoked = stage.call("DELETE", &format!("{path}/{id}")).by(&key).send().await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    for dead in [&child, &other] {
        assert_eq!(status_of(&stage, dead, "/me").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(status_of(&stage, &key, "/me").await, StatusCode::OK);
    let again = stage.call("DELETE", &format!("{path}/{id}")).by(&key).send().await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    let stored = audit::entries(&stage.dashboard.home, 0, 1000, None).await.unwrap();
    assert!(!format!("{stored:?}").contains(&child), "no secret in the audit log");
}

pub async fn an_edit_needs_the_etag_that_was_read(stage: Stage) {
    let (tenant, _, key) = owned(&stage).await;
    let app = stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await.app;
    let path = format!("/tenants/{tenant}/apps/{app}");
    let read = stage.call("GET", &path).by(&key).send().await;
    let tag = read.header(header::ETAG).to_owned();
    let unchanged = stage.call("GET", &path).by(&key).with("if-none-match", &tag).send().await;
    assert_eq!((unchanged.status, unchanged.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(unchanged.header(header::ETAG), tag);

    let edit = async |tag: Option<&str>, name: &str| {
        let call = stage.call("PATCH", &path).by(&key);
        let call = if let Some(tag) = tag { call.with("if-match", tag) } else { call };
        call.json(json!({ "name": name })).await
    };
    assert_eq!(problem(&edit(None, "A").await).0, 428);
    assert_eq!(problem(&edit(Some("\"other\""), "A").await).0, 412);
    assert_eq!(problem(&edit(Some(&format!("W/{tag}")), "A").await).0, 412, "a weak tag is not enough");
    let edited = edit(Some(&tag), "A").await;
    assert_eq!((edited.status, edited.text("name").as_str()), (StatusCode::OK, "A"));
    assert_ne!(edited.header(header::ETAG), tag);
    assert_eq!(problem(&edit(Some(&tag), "B").await).0, 412, "the old tag");
    let fresh = stage.call("GET", &path).by(&key).with("if-none-match", &tag).send().await;
    assert_eq!(fresh.status, StatusCode::OK);
    let deleted = stage.call("DELETE", &path).by(&key).with("if-match", &tag).send().await;
    assert_eq!(deleted.status, StatusCode::PRECONDITION_FAILED);
}

pub async fn of_two_edits_at_once_one_succeeds(stage: Stage) {
    let (tenant, owner, key) = owned(&stage).await;
    let account = stage.account("a@example.com").await;
    members::add(&stage.dashboard, &owner, tenant, account, Role::Developer).await.unwrap();
    for (path, one, other) in [
        (format!("/tenants/{tenant}"), json!({ "name": "A" }), json!({ "name": "B" })),
        (
            format!("/tenants/{tenant}/members/{account}"),
            json!({ "role": "admin" }),
            json!({ "role": "billing" }),
        ),
    ] {
        let tag = stage.call("GET", &path).by(&key).send().await.header(header::ETAG).to_owned();
        let edit = |body| stage.call("PATCH", &path).by(&key).with("if-match", &tag).json(body);
        let (one, other) = tokio::join!(edit(one), edit(other));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{path}");
    }
}

pub async fn a_wrong_request_is_told_what_is_wrong(stage: Stage) {
    let (tenant, _, key) = owned(&stage).await;
    let path = format!("/tenants/{tenant}/apps");
    let post = |body: &'static str| {
        stage.call("POST", &path).by(&key).with("content-type", "application/json").text(body)
    };
    for (body, status, pointer, said) in [
        ("", 400, "", "no JSON"),
        ("{", 400, "", "no JSON"),
        ("[]", 422, "", "a JSON object"),
        (r#"{"region":"aws-eu-west-1"}"#, 422, "/name", "missing field"),
        (r#"{"name":"A","region":"aws-eu-west-1","plan":"free"}"#, 422, "/plan", "unknown field \"plan\""),
        (r#"{"name":7,"region":"aws-eu-west-1"}"#, 422, "/name", "string"),
        (r#"{"name":"","region":"aws-eu-west-1"}"#, 422, "/name", "1 to 100"),
        (r#"{"name":"A","region":"mars"}"#, 422, "/region", "no license region"),
        (
            r#"{"name":"A","region":"aws-eu-west-1","allowedDomains":["a.com","*.b.com"]}"#,
            422,
            "/allowedDomains/1",
            "wildcard",
        ),
        (
            r#"{"name":"A","region":"aws-eu-west-1","allowedDomains":["a.io","b.io","c.io","d.io"]}"#,
            422,
            "/allowedDomains",
            "at most 3",
        ),
    ] {
        let answer = post(body).await;
        let (is, at, detail) = problem(&answer);
        assert_eq!((is, at.as_str()), (status, pointer), "{body}: {detail}");
        assert!(detail.contains(said), "{body}: {detail}");
    }
    let form = stage.call("POST", &path).by(&key).with("content-type", "text/plain").text("{}").await;
    assert_eq!(problem(&form).0, 415);
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(70_000));
    let large =
        stage.call("POST", &path).by(&key).with("content-type", "application/json").text(&large).await;
    assert_eq!(problem(&large).0, 413);
    let method = stage.call("PUT", &path).by(&key).send().await;
    assert_eq!(problem(&method).0, 405);
    assert_eq!(method.header(header::ALLOW), "GET,HEAD,POST");

    for (query, said) in
        [("?limit=0", "limit"), ("?limit=x", "limit"), ("?cursor=x", "cursor"), ("?colour=red", "colour")]
    {
        let (status, _, detail) =
            problem(&stage.call("GET", &format!("{path}{query}")).by(&key).send().await);
        assert!(status == 400 && detail.contains(said), "{query}: {status} {detail}");
    }
    for missing in ["/tenants/x/apps", "/nothing", "/tenants/6c4a2f5e-5b1f-4a7c-9c39-0d2d5a6a7b11"] {
        assert_eq!(problem(&stage.call("GET", missing).by(&key).send().await).0, 404, "{missing}");
    }
    for credential in ["Bearer wsk_guess", "Bearer eyJhbGciOi", "Basic b3BzOng="] {
        let refused = stage.call("GET", "/me").with("authorization", credential).send().await;
        assert_eq!(problem(&refused).0, 401, "{credential}");
        assert_eq!(refused.header(header::WWW_AUTHENTICATE), "Bearer");
    }
}

pub async fn a_list_comes_in_pages(stage: Stage) {
    let (tenant, _, key) = owned(&stage).await;
    let operator = stage.api_key(&stage.operator, None, Role::Operator).await;
    for region in
        [LicenseRegion::EuWest1, LicenseRegion::UsEast1, LicenseRegion::EuWest1, LicenseRegion::UsEast1]
    {
        stage.clock.advance(1);
        stage.app_in(tenant, region, &[]).await;
    }
    for name in ["b", "c"] {
        stage.tenant(&format!("{name}@example.com")).await;
    }
    let apps = format!("/api/v1/tenants/{tenant}/apps");
    for (path, key, count) in [
        (format!("{apps}?limit=2"), &key, 4),
        (format!("{apps}?limit=1&region=aws-eu-west-1"), &key, 2),
        (format!("/api/v1/tenants/{tenant}/audit?limit=3"), &key, 9),
        ("/api/v1/tenants?limit=1&state=active".to_owned(), &operator, 3),
        ("/api/v1/plans?limit=3".to_owned(), &key, 4),
    ] {
        let (mut next, mut seen, mut places) = (Some(path.clone()), 0, BTreeSet::new());
        while let Some(page) = next {
            let answer = stage.call("GET", &page).by(key).send().await;
            assert_eq!(answer.status, StatusCode::OK, "{page}: {}", answer.json);
            for item in answer.json["items"].as_array().unwrap() {
                seen += 1;
                let place = item.get("id").or(item.get("seq")).unwrap().to_string();
                assert!(places.insert(place), "{page}: twice {item}");
            }
            let link = answer.header(header::LINK);
            let link = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
            assert_eq!(link.is_some(), answer.json["next"].is_string(), "{page}");
            next = link.map(ToOwned::to_owned);
        }
        assert_eq!(seen, count, "{path}");
    }
    let first = stage.call("GET", &format!("{apps}?limit=2")).by(&key).send().await.text("next");
    let other = stage.call("GET", &format!("/plans?cursor={first}")).by(&key).send().await;
    assert_eq!(problem(&other).0, 400, "another list's cursor");
}

pub async fn a_request_with_a_key_takes_effect_once(stage: Stage) {
    let (tenant, owner, key) = owned(&stage).await;
    let path = format!("/tenants/{tenant}/apps");
    let make = async |by: &str, idempotency_key: &str, name: &str| {
        let call = stage.call("POST", &path).by(by).with("idempotency-key", idempotency_key);
        call.json(json!({ "name": name, "region": "aws-eu-west-1" })).await
    };
    let first = make(&key, "a", "Notes").await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.json);
    let again = make(&key, "a", "Notes").await;
    assert_eq!((again.status, &again.json), (StatusCode::CREATED, &first.json), "with its secret");
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header(header::LOCATION), first.header(header::LOCATION));
    assert_eq!(again.header(header::CACHE_CONTROL), "no-store");
    let count = async || apps::list(&stage.dashboard, &owner, tenant).await.unwrap().len();
    assert_eq!(count().await, 1);

    let other = make(&key, "a", "Other").await;
    assert_eq!(problem(&other).0, 422);
    assert_eq!(other.json["type"], "urn:wiresocket:problem:idempotency-key-reused");
    let somebody = stage.api_key(&owner, Some(tenant), Role::Owner).await;
    assert_eq!(make(&somebody, "a", "Other").await.status, StatusCode::CREATED, "keys are each actor's own");
    assert_eq!(make(&key, "b", "").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(make(&key, "b", "Fixed").await.status, StatusCode::CREATED, "a refused request frees its key");
    assert_eq!(make(&key, "", "X").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(count().await, 3);

    stage.clock.advance(DAY_S);
    let new = make(&key, "a", "Notes").await;
    assert!(new.status == StatusCode::CREATED && new.json != first.json, "kept for 24 hours");
    let mut tx = stage.dashboard.home.begin_read().await.unwrap();
    let rows = wiresocket::dashboard::store::query("SELECT sealed_body FROM idempotency_keys");
    for row in rows.fetch_all(&mut *tx).await.unwrap() {
        let sealed = wiresocket::dashboard::store::Columns::text(&row, "sealed_body").unwrap();
        assert!(!sealed.contains("clientSecret"), "kept sealed");
    }
}

pub async fn of_many_requests_with_one_key_at_once_one_takes_effect(stage: Stage) {
    let (tenant, owner, key) = owned(&stage).await;
    let path = format!("/tenants/{tenant}/apps");
    let make = || {
        let call = stage.call("POST", &path).by(&key).with("idempotency-key", "same");
        call.json(json!({ "name": "Notes", "region": "aws-us-east-1" }))
    };
    let (a, b, c, d) = tokio::join!(make(), make(), make(), make());
    let answers = [a, b, c, d];
    let made = |answer: &&Answer| answer.status == StatusCode::CREATED;
    assert!(answers.iter().any(|answer| made(&answer) && answer.header("idempotency-replayed").is_empty()));
    for answer in &answers {
        assert!(made(&answer) || problem(answer).0 == 409, "{}", answer.json);
    }
    let secrets: BTreeSet<_> =
        answers.iter().filter(made).map(|answer| answer.text("clientSecret")).collect();
    assert_eq!(secrets.len(), 1);
    assert_eq!(apps::list(&stage.dashboard, &owner, tenant).await.unwrap().len(), 1);
}

pub async fn requests_are_counted_by_address_and_by_key(stage: Stage) {
    let mut config = stage.dashboard.config.clone();
    config.http.api_per_10_minutes = 5;
    let (tenant, owner, key) = owned(&stage).await;
    let other = stage.api_key(&owner, Some(tenant), Role::Owner).await;
    let stage = stage.restarted(config, wiresocket::dashboard::master::MasterKeys::ephemeral(&[1])).await;
    let ask = async |ip: &str, key: &str| stage.call("GET", "/me").from(ip).by(key).send().await;
    for n in 0..5 {
        assert_eq!(ask(&format!("192.0.2.{n}"), &key).await.status, StatusCode::OK);
    }
    let late = ask("192.0.2.9", &key).await;
    assert_eq!(problem(&late).0, 429);
    assert_eq!(late.header(header::RETRY_AFTER), "600");
    for _ in 0..5 {
        stage.call("GET", "/openapi.json").from("198.51.100.1").send().await;
    }
    assert_eq!(ask("198.51.100.1", &other).await.status, StatusCode::TOO_MANY_REQUESTS, "its address");
    assert_eq!(ask("198.51.100.2", &other).await.status, StatusCode::OK);
    stage.clock.advance(600);
    assert_eq!(ask("192.0.2.9", &key).await.status, StatusCode::OK);
}

pub async fn the_audit_log_can_be_searched_and_exported(stage: Stage) {
    let (tenant, _, key) = owned(&stage).await;
    for _ in 0..3 {
        stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    }
    stage.clock.advance(100);
    let app = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await.app;
    let path = format!("/tenants/{tenant}/audit");
    for (query, count) in [
        ("action=app".to_owned(), 4),
        ("action=app.create".to_owned(), 4),
        ("action=ap".to_owned(), 0),
        (format!("target={app}"), 1),
        ("actor=command-line&action=key".to_owned(), 1),
        (format!("since={}", START + 100), 1),
        (format!("action=app&until={}", START + 100), 3),
    ] {
        let found = stage.call("GET", &format!("{path}?{query}")).by(&key).send().await;
        assert_eq!(found.json["items"].as_array().map(Vec::len), Some(count), "{query}: {}", found.json);
    }
    let export = async |format: &str| {
        let answer = stage.call("GET", &format!("{path}/export?format={format}")).by(&key).send().await;
        assert_eq!(answer.status, StatusCode::OK);
        (answer.header(header::CONTENT_TYPE).to_owned(), String::from_utf8(answer.bytes).unwrap())
    };
    let (kind, lines) = export("ndjson").await;
    assert_eq!(kind, "application/x-ndjson");
    let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(entries.iter().all(|entry| entry["tenantId"] == tenant.to_string()));
    assert_eq!(entries.len(), 9);
    assert!(entries.is_sorted_by(|a, b| a["seq"].as_i64() > b["seq"].as_i64()), "newest first");
    let (kind, csv) = export("csv").await;
    assert!(kind.starts_with("text/csv"), "{kind}");
    assert_eq!(csv.lines().count(), entries.len() + 1);
    assert!(csv.starts_with("seq,at,actor,") && csv.contains(&app.to_string()));
}

pub async fn the_document_holds_together(stage: Stage) {
    let answer = stage.call("GET", "/openapi.json").send().await;
    let document = &answer.json;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{what}: twice {id}");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{what}");
            let declared: BTreeSet<_> = operation["parameters"]
                .as_array()
                .map(|all| {
                    all.iter().filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap())
                })
                .into_iter()
                .flatten()
                .collect();
            let used: BTreeSet<_> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(declared, used, "{what}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
            let is_others = ["tokens", "node side"].iter().any(|tag| operation["tags"][0] == *tag);
            if is_others {
                continue;
            }
            if method != "get" && operation["security"] != json!([{}]) {
                let by_session = json!({ "session": [], "formToken": [] });
                assert!(operation["security"].as_array().unwrap().contains(&by_session), "{what}");
            }
            assert!(responses.contains_key("401") && responses.contains_key("429"), "{what}");
        }
    }
    let mut references = Vec::new();
    collect_references(document, &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} is nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema.get("type").is_some() || schema.get("allOf").is_some(), "{name}: {schema}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str().filter(|_| name == "$ref") {
                    Some(reference) => found.push(reference.to_owned()),
                    None => collect_references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}
