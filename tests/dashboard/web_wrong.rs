//! What nobody means to send, through the pages and past them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;
use tokio::task::JoinSet;
use wiresocket::dashboard::access::Role;

use super::stage::{PASSWORD, Stage};
use super::web::{Browser, EMAIL, owner};

pub async fn what_cannot_be_read_gets_a_page_that_says_so(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let at = format!("/tenants/{tenant}");
    for path in ["apps/none", "apps/none/usage", "billing/invoices/1", "audit?before=soon"] {
        let page = ada.get(&stage, &format!("{at}/{path}")).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        page.says("<h1>Nothing here</h1>");
    }
    // As a browser asks when somebody loads a form's answer again by its address.
    let rotate = format!("{at}/keys/rotate");
    let page =
        ada.send(&stage, Request::get(&rotate).header(header::ACCEPT, "text/html"), Body::empty()).await;
    assert_eq!((page.status, page.header(header::ALLOW)), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    page.says("Go back to the page of the form");
    let problem = ada.get(&stage, &rotate).await;
    assert_eq!(problem.header(header::CONTENT_TYPE), "application/problem+json");

    ada.get(&stage, &format!("{at}/inspector")).await;
    let page = ada.post(&stage, &format!("{at}/inspector"), &[("token", &"e".repeat(70_000))]).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    page.says("more than a form takes");
}

pub async fn many_wrong_passwords_at_once_are_no_more_tries_than_one_by_one(stage: Stage) {
    stage.account(EMAIL).await;
    let mut browser = Browser::default();
    browser.get(&stage, "/login").await;
    let (stage, mut attempts) = (Arc::new(stage), JoinSet::new());
    for n in 0..20 {
        let (stage, mut window) = (Arc::clone(&stage), browser.again());
        let guess = format!("guess number {n}");
        attempts.spawn(async move {
            window.post(&stage, "/login", &[("email", EMAIL), ("password", &guess)]).await.status
        });
    }
    let answers = attempts.join_all().await;
    let tried = answers.iter().filter(|status| **status == StatusCode::UNPROCESSABLE_ENTITY).count();
    assert_eq!(tried, 5, "as many as `failures_per_address`: {answers:?}");
    assert!(answers.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count() == 15);
    let late = browser.again().post(&stage, "/login", &[("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(late.status, StatusCode::TOO_MANY_REQUESTS);

    stage.clock.advance(601);
    for _ in 0..10 {
        // Who is right is never counted.
        Browser::default().log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
    }
}

/// PostgreSQL's texts can't hold one.
pub async fn a_zero_byte_is_an_answer_like_any_other_nonsense(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let at = format!("/tenants/{tenant}");
    let pages = ["audit?action=%00", "audit?who=%00", "audit/export?action=a%00", "apps?done=%00"];
    for path in pages {
        let page = ada.get(&stage, &format!("{at}/{path}")).await;
        assert!(!page.status.is_server_error(), "{path}: {} {}", page.status, page.html);
    }
    ada.get(&stage, &format!("{at}/members")).await;
    for (path, fields) in [
        ("members/invite", [("email", "a\0@example.com"), ("role", "admin")]),
        ("members/role", [("account", "\0"), ("role", "admin")]),
        ("keys/revoke", [("kid", "\0"), ("x", "")]),
        ("api-keys/revoke", [("key", "\0"), ("x", "")]),
        ("api-keys", [("name", "\0"), ("role", "admin")]),
    ] {
        let page = ada.post(&stage, &format!("{at}/{path}"), &fields).await;
        assert!(page.status.is_client_error(), "{path}: {} {}", page.status, page.html);
    }
    let refused = Browser::default().log_in(&stage, "ada\0@example.com", PASSWORD).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.html);
    let mut newcomer = Browser::default();
    newcomer.get(&stage, "/signup").await;
    let fields = [("tenant", "A\0"), ("name", "A\0"), ("email", "b\0@example.com"), ("password", PASSWORD)];
    assert_eq!(newcomer.post(&stage, "/signup", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    let key = stage.api_key(&stage.operator, None, Role::Operator).await;
    for path in [
        "/plans/%00".to_owned(),
        "/audit?action=%00".to_owned(),
        "/audit?actor=%00".to_owned(),
        "/nodes/%00".to_owned(),
        format!("{at}/keys/%00"),
        "/tenants?state=%00".to_owned(),
        "/tenants?after=%00".to_owned(),
    ] {
        let answer = stage.call("GET", &path).by(&key).send().await;
        assert!(!answer.status.is_server_error(), "{path}: {} {}", answer.status, answer.json);
    }
    for (path, body) in [
        (
            "/plans".to_owned(),
            json!({ "id": "a\0", "name": "b\0", "priceCents": 1, "currency": "USD", "period": "month",
            "limits": { "maxConnections": 1, "maxDocuments": 1, "maxUsersPerDoc": 1, "opsPerMinute": 1 } }),
        ),
        (format!("{at}/apps"), json!({ "name": "a\0", "region": "aws-us-east-1" })),
        (format!("{at}/invitations"), json!({ "email": "a\0@b.example", "role": "admin" })),
        ("/invitations/look".to_owned(), json!({ "token": "wsi_\0" })),
    ] {
        let answer = stage.call("POST", &path).by(&key).json(body).await;
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.json);
    }
    let named = stage.call("POST", &format!("{at}/apps")).by(&key).with("idempotency-key", "a");
    assert_eq!(
        named.json(json!({ "name": "Notes", "region": "aws-us-east-1" })).await.status,
        StatusCode::CREATED
    );
    for fields in [
        [
            ("grant_type", "client_credentials"),
            ("client_id", "use1-\0"),
            ("client_secret", "\0"),
            ("scope", "\0"),
        ],
        [
            ("grant_type", "refresh_token"),
            ("client_id", "use1-\0"),
            ("refresh_token", "use1-\0"),
            ("scope", ""),
        ],
    ] {
        let answer = stage.post("/connect/token", &fields).await;
        assert!(answer.status.is_client_error(), "{} {}", answer.status, answer.json);
    }
}
