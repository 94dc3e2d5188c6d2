//! The management API as the pages' own session sees it: the cookie counts for requests of our own pages alone.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::Actor;
use wiresocket::dashboard::{accounts, apps, sessions};

use crate::stage::{Answer, Call, ISSUER, Stage};

/// Somebody logged in: what his browser sends, and what his pages hold.
struct Person {
    account: Uuid,
    cookie: String,
    form_token: String,
}

async fn logged_in(stage: &Stage, account: Uuid) -> Person {
    let actor = Actor::account(account, None);
    let id = sessions::begin(&stage.dashboard, &actor, account, false, "test").await.unwrap();
    let cookie = format!("__Host-wiresocket={id}");
    let page = axum::http::Request::get("/account").header(header::COOKIE, &cookie);
    let page = stage.send(page, axum::body::Body::empty()).await;
    let html = String::from_utf8(page.bytes).unwrap();
    let form_token = html.split_once("name=\"form_token\" value=\"").unwrap().1.split('"').next().unwrap();
    Person { account, cookie, form_token: form_token.to_owned() }
}

async fn owner(stage: &Stage) -> (Uuid, Person) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let wiresocket::dashboard::access::Principal::Account(account) = owner.principal else { unreachable!() };
    (tenant, logged_in(stage, account).await)
}

/// As a page of ours asks.
fn ask<'a>(stage: &'a Stage, person: &Person, method: &str, path: &str) -> Call<'a> {
    stage.call(method, path).with("cookie", &person.cookie).with("sec-fetch-site", "same-origin")
}

fn new_app() -> Value {
    json!({ "name": "Notes", "region": "aws-us-east-1" })
}

fn refusal(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json", "{}", answer.json);
    (answer.status.as_u16(), answer.text("detail"))
}

pub async fn a_page_of_ours_may_what_its_reader_may(stage: Stage) {
    let (tenant, ada) = owner(&stage).await;
    let me = ask(&stage, &ada, "GET", "/me").send().await;
    assert_eq!(me.json["account"]["id"], json!(ada.account), "{}", me.json);
    assert_eq!(me.json["tenants"][0]["role"], "owner");
    let path = format!("/tenants/{tenant}/apps");
    let make = || {
        let call = ask(&stage, &ada, "POST", &path).with("origin", ISSUER);
        call.with("x-form-token", &ada.form_token).with("idempotency-key", "a").json(new_app())
    };
    let (made, again) = (make().await, make().await);
    assert_eq!(
        (made.status, again.header("idempotency-replayed")),
        (StatusCode::CREATED, "true"),
        "{}",
        made.json
    );
    let stored = wiresocket::dashboard::audit::entries(&stage.dashboard.home, 0, 100, None).await.unwrap();
    let entry = stored.iter().find(|entry| entry.event.action == "app.create").unwrap();
    assert_eq!(entry.event.actor, format!("account:{}", ada.account));
    let tag =
        ask(&stage, &ada, "GET", made.header(header::LOCATION)).send().await.header(header::ETAG).to_owned();
    let rename = ask(&stage, &ada, "PATCH", made.header(header::LOCATION)).with("origin", ISSUER);
    let rename = rename.with("if-match", &tag).with("x-form-token", &ada.form_token);
    assert_eq!(rename.json(json!({ "name": "Other" })).await.status, StatusCode::OK);

    // Another tenant is as unknown as to a key.
    let (other, _) = stage.tenant("other@example.com").await;
    let foreign = ask(&stage, &ada, "GET", &format!("/tenants/{other}")).send().await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
}

pub async fn a_change_needs_our_origin_and_the_forms_token(stage: Stage) {
    let (tenant, ada) = owner(&stage).await;
    let path = format!("/tenants/{tenant}/apps");
    let bare = || stage.call("POST", &path).with("cookie", &ada.cookie);
    let token = &ada.form_token;
    let stolen = logged_in(&stage, stage.account("eve@example.com").await).await.form_token;
    let evil = "https://evil.example";
    for (what, call) in [
        ("no token", bare().with("sec-fetch-site", "same-origin").with("origin", ISSUER)),
        ("another session's token", bare().with("origin", ISSUER).with("x-form-token", &stolen)),
        ("another origin", bare().with("origin", evil).with("x-form-token", token)),
        ("no origin at all", bare().with("x-form-token", token)),
        ("an opaque origin", bare().with("origin", "null").with("x-form-token", token)),
        (
            "another site",
            bare().with("origin", ISSUER).with("sec-fetch-site", "cross-site").with("x-form-token", token),
        ),
        (
            "a sibling of our host",
            bare().with("origin", ISSUER).with("sec-fetch-site", "same-site").with("x-form-token", token),
        ),
        ("an address typed in", bare().with("sec-fetch-site", "none").with("x-form-token", token)),
    ] {
        let answer = call.json(new_app()).await;
        let (status, detail) = refusal(&answer);
        assert_eq!(status, 403, "{what}: {detail}");
        assert!(detail.contains("own pages") || detail.contains("X-Form-Token"), "{what}: {detail}");
    }
    for method in ["PUT", "PATCH", "DELETE"] {
        let call = stage.call(method, &format!("/tenants/{tenant}")).with("cookie", &ada.cookie);
        let answer = call.with("origin", ISSUER).with("if-match", "*").json(json!({ "name": "Eve" })).await;
        assert!(matches!(answer.status.as_u16(), 403 | 405), "{method}: {}", answer.status);
    }
    assert_eq!(apps::list(&stage.dashboard, &stage.operator, tenant).await.unwrap(), [], "nothing was made");
    let right = bare().with("origin", ISSUER).with("x-form-token", token).json(new_app()).await;
    assert_eq!(right.status, StatusCode::CREATED, "an older browser, which sends no Sec-Fetch-Site");

    // A key is no cookie: no page can make a browser send it, so nothing else is asked of it.
    let key = stage.api_key(&stage.operator, None, wiresocket::dashboard::access::Role::Operator).await;
    let by_key = stage.call("POST", &path).by(&key).with("cookie", &ada.cookie).with("origin", evil);
    assert_eq!(by_key.json(new_app()).await.status, StatusCode::CREATED);
    let wrong_key = ask(&stage, &ada, "GET", "/me").by("wsk_guess").send().await;
    assert_eq!(wrong_key.status, StatusCode::UNAUTHORIZED, "a wrong key is not passed over for the cookie");
}

pub async fn reading_needs_no_token_and_is_for_our_pages_alone(stage: Stage) {
    let (tenant, ada) = owner(&stage).await;
    let path = format!("/tenants/{tenant}");
    let read = || stage.call("GET", &path).with("cookie", &ada.cookie);
    assert_eq!(read().send().await.status, StatusCode::OK);
    assert_eq!(read().with("sec-fetch-site", "none").send().await.status, StatusCode::OK, "typed in");
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = read().with(name, value).send().await;
        assert_eq!(refusal(&answer).0, 403, "{name}: {value}");
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "", "no other origin reads it either");
    }
    // What anybody may, whoever comes from elsewhere may too, as nobody.
    let look = stage.call("POST", "/invitations/look").with("cookie", &ada.cookie);
    let look = look.with("origin", "https://evil.example").json(json!({ "token": "x" })).await;
    assert_eq!(look.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", look.json);
}

pub async fn a_session_that_is_not_whole_is_nobodys(stage: Stage) {
    let (_, ada) = owner(&stage).await;
    let status = async |cookie: &str| {
        let call = stage.call("GET", "/me").with("cookie", cookie).with("sec-fetch-site", "same-origin");
        call.send().await.status
    };
    let actor = Actor::account(ada.account, None);
    let half = sessions::begin(&stage.dashboard, &actor, ada.account, true, "test").await.unwrap();
    assert_eq!(
        status(&format!("__Host-wiresocket={half}")).await,
        StatusCode::UNAUTHORIZED,
        "no second factor yet"
    );
    assert_eq!(status("__Host-wiresocket=x").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&ada.cookie.replace("__Host-", "")).await, StatusCode::UNAUTHORIZED, "not over https");
    assert_eq!(status(&ada.cookie).await, StatusCode::OK);
    sessions::end_all(&stage.dashboard, &actor, ada.account, None).await.unwrap();
    assert_eq!(status(&ada.cookie).await, StatusCode::UNAUTHORIZED, "logged out");

    let (operator, _) =
        accounts::create_operator(&stage.dashboard, &stage.operator, "ops@example.com", "Op").await.unwrap();
    let actor = Actor::account(operator, None);
    let id = sessions::begin(&stage.dashboard, &actor, operator, false, "test").await.unwrap();
    let answer =
        stage.call("GET", "/tenants").with("cookie", &format!("__Host-wiresocket={id}")).send().await;
    let (status, detail) = refusal(&answer);
    assert!(status == 403 && detail.contains("one-time password"), "{status} {detail}");
}
