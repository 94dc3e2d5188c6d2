//! Tenants, accounts, members and roles.

use axum::http::StatusCode;
use wiresocket::dashboard::access::{Actor, Denied, Principal, Role};
use wiresocket::dashboard::apps::{self, AppError, NewApp};
use wiresocket::dashboard::members::{self, MemberError};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::tenants::{self, TenantError, TenantState};
use wiresocket::dashboard::{accounts, keys};

use crate::stage::{API, Stage};

pub async fn a_tenant_gets_its_key_pair_when_it_is_approved(stage: Stage) {
    let account = stage.account("owner@example.com").await;
    let owner = Actor::account(account, None);
    let tenant = tenants::create(&stage.dashboard, &owner, "Acme", account).await.unwrap();
    assert_eq!(stage.jwks(tenant).await.status, StatusCode::NOT_FOUND);
    let found = tenants::read(&stage.dashboard, &owner, tenant).await.unwrap();
    assert_eq!(found.state, TenantState::Pending);

    let refused = tenants::approve(&stage.dashboard, &owner, tenant).await;
    assert!(matches!(refused, Err(TenantError::Denied(Denied::Role { .. }))), "an owner approved himself");
    tenants::approve(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(stage.published(tenant).await.len(), 1);

    let again = tenants::approve(&stage.dashboard, &stage.operator, tenant).await;
    assert!(matches!(again, Err(TenantError::State { is: TenantState::Active, .. })), "{again:?}");
    assert_eq!(stage.published(tenant).await.len(), 1);
}

pub async fn a_suspended_tenant_gets_no_tokens_and_keeps_its_keys(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    tenants::suspend(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    let refused = stage.token(&credentials, API).await;
    assert_eq!((refused.status, refused.error()), (StatusCode::BAD_REQUEST, "unauthorized_client"));
    assert!(refused.text("error_description").contains("suspended"));
    assert_eq!(stage.published(tenant).await.len(), 1);
    tenants::resume(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(stage.token(&credentials, API).await.status, StatusCode::OK);
}

pub async fn a_tenant_never_loses_its_last_owner(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let Principal::Account(first) = owner.principal else { unreachable!() };
    let second = stage.account("second@example.com").await;
    let left = members::change(&stage.dashboard, &owner, tenant, first, None).await;
    assert!(matches!(left, Err(MemberError::LastOwner)), "{left:?}");
    members::add(&stage.dashboard, &owner, tenant, second, Role::Owner).await.unwrap();
    let again = members::add(&stage.dashboard, &owner, tenant, second, Role::Admin).await;
    assert!(matches!(again, Err(MemberError::Exists)), "{again:?}");

    // Two owners who remove each other at once: one stays.
    let other = Actor::account(second, None);
    let (one, two) = tokio::join!(
        members::change(&stage.dashboard, &owner, tenant, second, None),
        members::change(&stage.dashboard, &other, tenant, first, None),
    );
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let left = members::list(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(left.iter().filter(|member| member.role == Role::Owner).count(), 1);
}

pub async fn a_role_may_do_what_the_table_says_and_nothing_in_another_tenant(stage: Stage) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let (other_tenant, stranger) = stage.tenant("stranger@example.com").await;
    let account = stage.account("dev@example.com").await;
    let developer = Actor::account(account, None);
    let new =
        || NewApp { name: "Notes".to_owned(), region: LicenseRegion::UsEast1, allowed_domains: Vec::new() };
    let create = async |actor: &Actor| apps::create(&stage.dashboard, actor, tenant, new()).await;

    for nobody in [&developer, &stranger] {
        let refused = create(nobody).await;
        assert!(matches!(refused, Err(AppError::Denied(Denied::NoSuchTenant))), "{refused:?}");
    }
    let refused = create(&Actor::anonymous(None)).await;
    assert!(matches!(refused, Err(AppError::Denied(Denied::NotLoggedIn))), "{refused:?}");

    members::add(&stage.dashboard, &owner, tenant, account, Role::Billing).await.unwrap();
    let refused = create(&developer).await.unwrap_err().to_string();
    assert_eq!(refused, "this needs one of the roles operator, owner, admin, developer; yours is billing");
    members::change(&stage.dashboard, &owner, tenant, account, Some(Role::Developer)).await.unwrap();
    let credentials = create(&developer).await.unwrap();
    let refused = keys::rotate(&stage.dashboard, &developer, tenant).await;
    assert!(refused.is_err(), "a developer rotated keys");

    // Another tenant's app is not there, even for its own owner.
    let stolen = apps::read(&stage.dashboard, &stranger, other_tenant, credentials.app).await;
    assert!(matches!(stolen, Err(AppError::Missing)), "{stolen:?}");
}

pub async fn the_first_operator_is_made_once(stage: Stage) {
    let (one, two) =
        tokio::join!(accounts::first_operator(&stage.dashboard), accounts::first_operator(&stage.dashboard));
    let passwords: Vec<String> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
    assert_eq!(passwords.len(), 1);
    assert_eq!(accounts::first_operator(&stage.dashboard).await.unwrap(), None);

    let email = stage.dashboard.config.operator_email.clone();
    let account = accounts::authenticate(&stage.dashboard, &email, &passwords[0]).await.unwrap().unwrap();
    assert!(account.is_operator && account.must_change_password);
    let actor = Actor::account(account.id, None);
    let own = "a password of my own";
    accounts::change_password(&stage.dashboard, &actor, account.id, own).await.unwrap();
    assert_eq!(accounts::authenticate(&stage.dashboard, &email, &passwords[0]).await.unwrap(), None);
    let account = accounts::authenticate(&stage.dashboard, &email, own).await.unwrap().unwrap();
    assert!(!account.must_change_password);
}
