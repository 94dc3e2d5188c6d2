//! Signing keys: rotation, revocation, the key set, the master key.

use std::collections::BTreeMap;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;
use wiresocket::dashboard::access::Actor;
use wiresocket::dashboard::keys::{self, KeysError, Upkeep};
use wiresocket::dashboard::master::{self, KeySource, MasterKeys};
use wiresocket::dashboard::store::{Columns, query};
use wiresocket::dashboard::totp;

use crate::stage::{API, Stage, kid};

const DAY_S: i64 = 86_400;

pub async fn a_new_key_is_published_before_it_signs_and_the_old_one_verifies_after(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let signer = async || kid(&stage.token(&credentials, API).await.text("access_token"));
    let old = signer().await;
    let rotation = keys::rotate(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(stage.published(tenant).await.len(), 2, "the new key is published at once");
    let again = keys::rotate(&stage.dashboard, &stage.operator, tenant).await;
    assert!(matches!(again, Err(KeysError::Rotating)), "{again:?}");

    // 900 seconds, three times what verifiers may cache.
    stage.clock.advance(899);
    keys::upkeep(&stage.dashboard).await.unwrap();
    assert_eq!(signer().await, old);
    stage.clock.advance(1);
    let done = keys::upkeep(&stage.dashboard).await.unwrap();
    assert_eq!(done, Upkeep { taken_over: 1, ..Upkeep::default() });
    assert_eq!(signer().await, rotation.kid);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap(), Upkeep::default());

    let sealed = "SELECT COUNT(*) AS found FROM signing_keys WHERE sealed_private IS NOT NULL";
    let sealed = query(sealed).fetch_one(stage.dashboard.home.reader()).await.unwrap();
    assert_eq!(sealed.int("found").unwrap(), 1, "a key that no longer signs keeps no private half");

    // Until the last token that it signed has expired everywhere: 900 + 300 + 300.
    stage.clock.advance(1499);
    assert_eq!(stage.published(tenant).await.len(), 2);
    stage.clock.advance(1);
    assert_eq!(stage.published(tenant).await, [rotation.kid]);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap().gone, 1);
}

pub async fn keys_rotate_on_schedule(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let before = stage.published(tenant).await;
    stage.clock.advance(90 * DAY_S - 901);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap(), Upkeep::default());
    stage.clock.advance(1);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap().begun, 1);
    stage.clock.advance(900);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap().taken_over, 1);
    let token = stage.token(&credentials, API).await.text("access_token");
    assert_ne!(vec![kid(&token)], before);
}

pub async fn of_many_rotations_at_once_one_begins(stage: Stage) {
    let (tenant, _) = stage.ready().await;
    let rotate = || keys::rotate(&stage.dashboard, &stage.operator, tenant);
    let (a, b, c) = tokio::join!(rotate(), rotate(), rotate());
    let begun = [&a, &b, &c].iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(begun, 1, "{a:?} {b:?} {c:?}");
    stage.clock.advance(900);
    let upkeep = || keys::upkeep(&stage.dashboard);
    let (a, b, c) = tokio::join!(upkeep(), upkeep(), upkeep());
    let taken_over: u32 = [a, b, c].into_iter().map(|done| done.unwrap().taken_over).sum();
    assert_eq!(taken_over, 1);
}

pub async fn a_revoked_key_is_named_and_replaced_at_once(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let stolen = kid(&stage.token(&credentials, API).await.text("access_token"));
    keys::revoke(&stage.dashboard, &stage.operator, tenant, &stolen).await.unwrap();
    let document = stage.jwks(tenant).await.json;
    assert_eq!(document["revoked"], json!([stolen]));
    let token = stage.token(&credentials, API).await.text("access_token");
    assert_eq!(stage.published(tenant).await, [kid(&token)]);
    assert_ne!(kid(&token), stolen);
    let again = keys::revoke(&stage.dashboard, &stage.operator, tenant, &stolen).await;
    assert!(matches!(again, Err(KeysError::Missing(_))), "{again:?}");

    // With a next key published, that one takes over: verifiers know it already.
    let rotation = keys::rotate(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    keys::revoke(&stage.dashboard, &stage.operator, tenant, &kid(&token)).await.unwrap();
    let token = stage.token(&credentials, API).await.text("access_token");
    assert_eq!(kid(&token), rotation.kid);
    assert_eq!(keys::list(&stage.dashboard, &stage.operator, tenant).await.unwrap().len(), 3);
}

pub async fn a_key_set_is_cacheable_and_limited(stage: Stage) {
    let (tenant, _) = stage.ready().await;
    let path = format!("/{tenant}/.well-known/jwks");
    let first = stage.get(&path).await;
    assert_eq!(first.header(header::CACHE_CONTROL), "public, max-age=300");
    assert_eq!(first.header(header::CONTENT_TYPE), "application/jwk-set+json");
    assert_eq!(first.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    let etag = first.header(header::ETAG).to_owned();
    assert!(etag.starts_with('"'), "a strong one: {etag}");
    let conditional = async |tag: &str| {
        let request = Request::get(&path).header(header::IF_NONE_MATCH, tag);
        stage.send(request, Body::empty()).await
    };
    let same = conditional(&format!("\"other\", {etag}")).await;
    assert_eq!((same.status, same.header(header::ETAG)), (StatusCode::NOT_MODIFIED, etag.as_str()));
    keys::rotate(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    let changed = conditional(&etag).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.header(header::ETAG), etag);

    for _ in 0..17 {
        assert_eq!(stage.get(&path).await.status, StatusCode::OK);
    }
    let limited = stage.get(&path).await;
    assert_eq!((limited.status, limited.header(header::RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "600"));
    assert_eq!(limited.header(header::CONTENT_TYPE), "application/problem+json");
    let other = stage.send_from("192.0.2.2", Request::get(&path), Body::empty()).await;
    assert_eq!(other.status, StatusCode::OK);
    stage.clock.advance(600);
    assert_eq!(stage.get(&path).await.status, StatusCode::OK);
    assert_eq!(stage.get("/not-a-guid/.well-known/jwks").await.status, StatusCode::NOT_FOUND);
}

/// Master keys of these versions, which are made where they aren't there.
fn master_keys(dir: &Path, versions: &[i64]) -> MasterKeys {
    let source = |&version: &i64| {
        let path = dir.join(version.to_string());
        if !path.exists() {
            master::generate(&path).unwrap();
        }
        (version, KeySource::File(path))
    };
    let sources: BTreeMap<_, _> = versions.iter().map(source).collect();
    MasterKeys::read(&sources).unwrap()
}

pub async fn private_keys_move_to_a_new_master_key(stage: Stage) {
    let dir = tempfile::tempdir().unwrap();
    let read = |versions: &[i64]| master_keys(dir.path(), versions);
    let config = stage.dashboard.config.clone();
    let old = stage.restarted(config.clone(), read(&[1])).await;
    let (tenant, credentials) = old.ready().await;
    keys::rotate(&old.dashboard, &old.operator, tenant).await.unwrap();

    let both = stage.restarted(config.clone(), read(&[1, 2])).await;
    assert_eq!(both.token(&credentials, API).await.status, StatusCode::OK, "before it is resealed");
    assert_eq!(keys::reseal(&both.dashboard, &both.operator).await.unwrap(), 2);
    assert_eq!(keys::reseal(&both.dashboard, &both.operator).await.unwrap(), 0);

    let new = stage.restarted(config, read(&[2])).await;
    assert_eq!(new.token(&credentials, API).await.status, StatusCode::OK, "the old master key is not needed");
    new.clock.advance(900);
    assert_eq!(keys::upkeep(&new.dashboard).await.unwrap().taken_over, 1);
    assert_eq!(new.token(&credentials, API).await.status, StatusCode::OK);
}

pub async fn second_factors_move_to_a_new_master_key(stage: Stage) {
    let dir = tempfile::tempdir().unwrap();
    let read = |versions: &[i64]| master_keys(dir.path(), versions);
    let config = stage.dashboard.config.clone();
    let old = stage.restarted(config.clone(), read(&[1])).await;
    let accounts = [old.account("ada@example.com").await, old.account("eve@example.com").await];
    let mut secrets = Vec::new();
    for account in accounts {
        let actor = Actor::account(account, None);
        totp::begin(&old.dashboard, &actor, account).await.unwrap();
        secrets.push(totp::begun(&old.dashboard, &actor, account, "a@example.com").await.unwrap().secret);
    }
    let (ada, eve) = (accounts[0], accounts[1]);
    let actor = Actor::account(ada, None);
    let code = |secret: &str| crate::web::code(secret, old.clock.unix_s());
    totp::confirm(&old.dashboard, &actor, ada, &code(&secrets[0])).await.unwrap();

    let both = stage.restarted(config.clone(), read(&[1, 2])).await;
    old.clock.advance(60);
    assert!(
        totp::take(&both.dashboard, &actor, ada, &code(&secrets[0])).await.unwrap(),
        "before it is resealed"
    );
    assert_eq!(
        keys::reseal(&both.dashboard, &both.operator).await.unwrap(),
        2,
        "one that is being set up as well"
    );
    assert_eq!(keys::reseal(&both.dashboard, &both.operator).await.unwrap(), 0);
    let entries = wiresocket::dashboard::audit::entries(&both.dashboard.home, 0, 1000, None).await.unwrap();
    let resealed: Vec<_> = entries
        .iter()
        .filter(|entry| entry.event.action == "master_key.reseal")
        .map(|entry| &entry.event.detail)
        .collect();
    assert_eq!(resealed, [&serde_json::json!({ "keys": 2 })], "once, and nothing for nothing");

    let new = stage.restarted(config.clone(), read(&[2])).await;
    assert!(
        !totp::take(&new.dashboard, &actor, ada, &code(&secrets[0])).await.unwrap(),
        "a code is good once"
    );
    old.clock.advance(60);
    assert!(
        totp::take(&new.dashboard, &actor, ada, &code(&secrets[0])).await.unwrap(),
        "without the old key"
    );
    let eves = Actor::account(eve, None);
    let shown = totp::begun(&new.dashboard, &eves, eve, "a@example.com").await.unwrap().secret;
    assert_eq!(shown, secrets[1], "and the one that is being set up is the same");
    totp::confirm(&new.dashboard, &eves, eve, &code(&secrets[1])).await.unwrap();

    let without = stage.restarted(config, read(&[1])).await;
    let lost = totp::take(&without.dashboard, &actor, ada, &code(&secrets[0])).await;
    assert!(lost.is_err(), "the old key opens nothing any more: {lost:?}");
}
