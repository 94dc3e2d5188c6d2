//! Apps and their place.

use axum::http::StatusCode;
use wiresocket::dashboard::access::Role;
use wiresocket::dashboard::apps::{self, AppError};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::{Columns, query};
use wiresocket::dashboard::subscriptions;

use crate::stage::{API, Stage, decoded};

pub async fn domains_are_kept_as_tokens_carry_them(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let domains = ["https://MyApp.com/", "localhost:3000", "myapp.com"];
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &domains).await;
    stage.subscribe(tenant, &credentials, "free").await;
    let claims = decoded(&stage.token(&credentials, API).await.text("access_token"), 1);
    assert_eq!(claims["allowed_domain_1"], "myapp.com");
    assert_eq!(claims["allowed_domain_2"], "localhost:3000");
    assert!(claims.get("allowed_domain_3").is_none(), "the same domain twice is one: {claims}");

    let app = stage.read(tenant, &credentials).await;
    let four: Vec<_> = ["a.com", "b.com", "c.com", "d.com"].iter().map(|d| d.parse().unwrap()).collect();
    let refused = apps::update(&stage.dashboard, &stage.operator, &app, "Notes", &four).await;
    assert!(matches!(refused, Err(AppError::TooManyDomains(4))), "{refused:?}");
}

pub async fn an_older_version_overwrites_nothing(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    let seen = stage.read(tenant, &credentials).await;
    apps::update(&stage.dashboard, &stage.operator, &seen, "First", &[]).await.unwrap();
    let late = apps::update(&stage.dashboard, &stage.operator, &seen, "Second", &[]).await;
    assert!(matches!(late, Err(AppError::Changed)), "{late:?}");
    assert_eq!(stage.read(tenant, &credentials).await.name, "First");
}

pub async fn metadata_is_in_the_regions_database_and_nowhere_else(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let eu = stage.app_in(tenant, LicenseRegion::EuWest1, &["myapp.com"]).await;
    let us = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    assert!(eu.client_id.starts_with("euw1-") && us.client_id.starts_with("use1-"));
    stage.subscribe(tenant, &eu, "starter").await;
    let answer = stage.token(&eu, "WireSocket.API offline_access").await;
    let claims = decoded(&answer.text("access_token"), 1);
    assert_eq!(
        (&claims["licenseRegionCode"], &claims["dbCode"]),
        (&"aws-eu-west-1".into(), &"shard-01-eu-west-1".into())
    );

    let count = async |sql: &'static str, region: LicenseRegion| {
        let database = stage.dashboard.region(region).unwrap();
        query(sql).fetch_one(database.reader()).await.unwrap().int("found").unwrap()
    };
    let apps = "SELECT COUNT(*) AS found FROM apps";
    assert_eq!(count(apps, LicenseRegion::EuWest1).await, 1);
    assert_eq!(
        count(apps, LicenseRegion::UsEast1).await,
        1,
        "the home database holds the app of us-east-1 only"
    );
    let tokens = "SELECT COUNT(*) AS found FROM refresh_tokens";
    assert_eq!(
        (count(tokens, LicenseRegion::EuWest1).await, count(tokens, LicenseRegion::UsEast1).await),
        (1, 0)
    );
    let named =
        query("SELECT COUNT(*) AS found FROM audit_log WHERE detail LIKE '%myapp%' OR detail LIKE '%Notes%'");
    let named = named.fetch_one(stage.dashboard.home.reader()).await.unwrap().int("found").unwrap();
    assert_eq!(named, 0, "the audit log in the home database tells of an app's metadata");
    let all = apps::list(&stage.dashboard, &stage.operator, tenant).await.unwrap();
    assert_eq!(all.len(), 2, "a list asks every region once");
}

pub async fn a_deleted_app_gets_no_tokens_and_frees_the_free_plan(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let first = stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    stage.subscribe(tenant, &first, "free").await;
    let app = stage.read(tenant, &first).await;
    apps::delete(&stage.dashboard, &stage.operator, &app).await.unwrap();
    let refused = stage.token(&first, API).await;
    assert_eq!((refused.status, refused.error()), (StatusCode::UNAUTHORIZED, "invalid_client"));
    let again = apps::delete(&stage.dashboard, &stage.operator, &app).await;
    assert!(matches!(again, Err(AppError::Missing)), "{again:?}");
    let second = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    stage.subscribe(tenant, &second, "free").await;
}

/// In the home database and in a region's own: of a change and a deletion at once one succeeds, and whoever loses has
/// done nothing.
pub async fn an_app_that_was_changed_meanwhile_is_not_deleted(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    for region in [LicenseRegion::EuWest1, LicenseRegion::UsEast1] {
        let credentials = stage.app_in(tenant, region, &[]).await;
        stage.subscribe(tenant, &credentials, "starter").await;
        let seen = stage.read(tenant, &credentials).await;
        apps::update(&stage.dashboard, &stage.operator, &seen, "Other", &[]).await.unwrap();
        let refused = apps::delete(&stage.dashboard, &stage.operator, &seen).await;
        assert!(matches!(refused, Err(AppError::Changed)), "{refused:?}");
        assert_eq!(stage.token(&credentials, API).await.status, StatusCode::OK, "it has its plan still");

        let key = stage.api_key(&stage.operator, None, Role::Operator).await;
        let path = format!("/tenants/{tenant}/apps/{}", credentials.app);
        let mut deleted = false;
        for turn in 0..20 {
            let tag = stage.call("GET", &path).by(&key).send().await.header("etag").to_owned();
            let rename = stage.call("PATCH", &path).by(&key).with("if-match", &tag);
            let rename = rename.json(serde_json::json!({ "name": format!("Name {turn}") }));
            let delete = stage.call("DELETE", &path).by(&key).with("if-match", &tag).send();
            let (renamed, gone) = tokio::join!(rename, delete);
            let statuses = (renamed.status.as_u16(), gone.status.as_u16());
            let token = stage.token(&credentials, API).await.status;
            match statuses {
                (200, 412) => assert_eq!(token, StatusCode::OK, "turn {turn}"),
                (412 | 404, 204) => {
                    assert_eq!(token, StatusCode::UNAUTHORIZED, "turn {turn}");
                    deleted = true;
                    break;
                }
                _ => panic!("turn {turn}: {statuses:?} {} {}", renamed.json, gone.json),
            }
        }
        if !deleted {
            let seen = stage.read(tenant, &credentials).await;
            apps::delete(&stage.dashboard, &stage.operator, &seen).await.unwrap();
        }
        let found = subscriptions::current(&stage.dashboard, credentials.app).await.unwrap();
        assert_eq!(found, None, "its plan went with it");
    }
}

/// In the home database and in a region's own: a plan that is picked while its app is deleted never outlives it.
pub async fn a_deleted_app_keeps_no_plan_that_was_picked_meanwhile(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    for region in [LicenseRegion::EuWest1, LicenseRegion::UsEast1] {
        for turn in 0..8 {
            let credentials = stage.app_in(tenant, region, &[]).await;
            let app = stage.read(tenant, &credentials).await;
            let pick = subscriptions::pick(&stage.dashboard, &stage.operator, &app, "starter", None);
            let delete = apps::delete(&stage.dashboard, &stage.operator, &app);
            let (_, deleted) = tokio::join!(pick, delete);
            deleted.unwrap();
            let found = subscriptions::current(&stage.dashboard, credentials.app).await.unwrap();
            assert_eq!(found, None, "turn {turn}");
        }
    }
}
