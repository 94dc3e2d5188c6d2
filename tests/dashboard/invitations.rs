//! Invitations to a tenant.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::invitations::{self, InvitationError, InvitationState, Newcomer};
use wiresocket::dashboard::{accounts, members};

use crate::stage::{Answer, PASSWORD, Stage};

async fn invite(stage: &Stage, by: &Actor, tenant: Uuid, email: &str, role: Role) -> (Uuid, String) {
    let made = invitations::create(&stage.dashboard, by, tenant, email, role).await.unwrap();
    (made.id, stage.invitation_token(&email.trim().to_lowercase()))
}

async fn accept(stage: &Stage, body: Value) -> Answer {
    stage.call("POST", "/invitations/accept").json(body).await
}

fn newcomer(token: &str) -> Value {
    json!({ "token": token, "name": "Grace", "password": PASSWORD })
}

async fn roles(stage: &Stage, tenant: Uuid) -> Vec<(String, Role)> {
    let found = members::list(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    found.into_iter().map(|member| (member.email, member.role)).collect()
}

pub async fn who_has_an_account_joins_with_it(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let account = stage.account("ada@example.com").await;
    let (_, token) = invite(&stage, &owner, tenant, " Ada@Example.com", Role::Admin).await;
    let look = stage.call("POST", "/invitations/look").json(json!({ "token": token })).await;
    assert_eq!(look.status, StatusCode::OK, "{}", look.json);
    assert_eq!(look.text("tenantName"), "Acme");
    assert_eq!((look.text("email"), &look.json["hasAccount"]), ("ada@example.com".to_owned(), &json!(true)));

    let refused = accept(&stage, newcomer(&token)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "nobody's password is replaced by a link");
    let accepted = accept(&stage, json!({ "token": token })).await;
    assert_eq!(accepted.status, StatusCode::OK, "{}", accepted.json);
    assert_eq!(accepted.text("accountId"), account.to_string());
    assert!(roles(&stage, tenant).await.contains(&("ada@example.com".to_owned(), Role::Admin)));
    let again = invitations::create(&stage.dashboard, &owner, tenant, "ada@example.com", Role::Admin).await;
    assert!(matches!(again, Err(InvitationError::Member(_))), "{again:?}");
}

pub async fn who_has_none_makes_one(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let (_, token) = invite(&stage, &owner, tenant, "grace@example.com", Role::Developer).await;
    for (body, pointer) in [
        (json!({ "token": token }), "/password"),
        (json!({ "token": token, "name": "Grace" }), "/password"),
        (json!({ "token": token, "password": PASSWORD }), "/name"),
        (json!({ "token": token, "name": "Grace", "password": "short" }), "/password"),
        (json!({ "token": token, "name": " ", "password": PASSWORD }), "/name"),
    ] {
        let refused = accept(&stage, body.clone()).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(refused.json["errors"][0]["pointer"], pointer, "{body}: {}", refused.json);
    }
    let accepted = accept(&stage, newcomer(&token)).await;
    assert_eq!((accepted.status, &accepted.json["isNewAccount"]), (StatusCode::OK, &json!(true)));
    let account = accounts::authenticate(&stage.dashboard, "grace@example.com", PASSWORD).await.unwrap();
    assert_eq!(account.unwrap().id.to_string(), accepted.text("accountId"));
    assert!(roles(&stage, tenant).await.contains(&("grace@example.com".to_owned(), Role::Developer)));
}

pub async fn a_link_is_good_once_and_for_seven_days(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let (_, used) = invite(&stage, &owner, tenant, "a@example.com", Role::Billing).await;
    let newcomer_of = Newcomer { name: "A", password: PASSWORD };
    let join = |token: String| {
        let (dashboard, who) = (&stage.dashboard, newcomer_of.clone());
        async move { invitations::accept(dashboard, &Actor::anonymous(None), &token, Some(who)).await }
    };
    let (first, second) = tokio::join!(join(used.clone()), join(used.clone()));
    assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1, "{first:?} {second:?}");
    assert!(matches!(join(used).await, Err(InvitationError::Token)));

    let (id, withdrawn) = invite(&stage, &owner, tenant, "b@example.com", Role::Billing).await;
    let twice = invitations::create(&stage.dashboard, &owner, tenant, "b@example.com", Role::Admin).await;
    assert!(matches!(twice, Err(InvitationError::Exists(_))), "{twice:?}");
    invitations::withdraw(&stage.dashboard, &owner, tenant, id).await.unwrap();
    assert!(matches!(join(withdrawn).await, Err(InvitationError::Token)));
    let again = invitations::withdraw(&stage.dashboard, &owner, tenant, id).await;
    assert!(matches!(again, Err(InvitationError::Closed)), "{again:?}");

    let (id, late) = invite(&stage, &owner, tenant, "b@example.com", Role::Billing).await;
    stage.clock.advance(invitations::LIFE_S);
    assert!(matches!(join(late).await, Err(InvitationError::Token)));
    let read = invitations::read(&stage.dashboard, &owner, tenant, id).await.unwrap();
    assert_eq!(read.state, InvitationState::Expired);
    invite(&stage, &owner, tenant, "b@example.com", Role::Billing).await;

    for _ in 0..5 {
        assert_eq!(accept(&stage, newcomer("wsi_guess")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(accept(&stage, newcomer("wsi_guess")).await.status, StatusCode::TOO_MANY_REQUESTS);
}

pub async fn an_invitation_is_as_good_as_its_inviter(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let account = stage.account("admin@example.com").await;
    members::add(&stage.dashboard, &owner, tenant, account, Role::Admin).await.unwrap();
    let admin = Actor::account(account, None);
    let own = invitations::create(&stage.dashboard, &admin, tenant, "x@example.com", Role::Owner).await;
    assert!(matches!(own, Err(InvitationError::Denied(_))), "an admin makes no owners");
    let (_, token) = invite(&stage, &admin, tenant, "x@example.com", Role::Admin).await;
    members::change(&stage.dashboard, &owner, tenant, account, None).await.unwrap();
    let refused = accept(&stage, newcomer(&token)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.json);
    assert!(
        accounts::by_email(&stage.dashboard, "x@example.com").await.unwrap().is_none(),
        "nothing half-made"
    );
}

pub async fn if_the_mail_fails_nobody_is_invited(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let key = stage.api_key(&owner, Some(tenant), Role::Owner).await;
    let path = format!("/tenants/{tenant}/invitations");
    let body = json!({ "email": "a@example.com", "role": "admin" });
    // A file where the directory should be.
    let directory = stage.mail_directory();
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::write(&directory, "").unwrap();
    let failed = stage.call("POST", &path).by(&key).json(body.clone()).await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY, "{}", failed.json);
    let listed = stage.call("GET", &path).by(&key).send().await;
    assert_eq!(listed.json["items"], json!([]));
    std::fs::remove_file(&directory).unwrap();
    let sent = stage.call("POST", &path).by(&key).json(body).await;
    assert_eq!(sent.status, StatusCode::CREATED, "{}", sent.json);
    assert_eq!(stage.letters_to("a@example.com").len(), 1);
}
