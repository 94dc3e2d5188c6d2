//! Plans and subscriptions.

use axum::http::StatusCode;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::subscriptions::{self, SubscriptionError};

use crate::stage::{API, Stage};

/// From START on: 2027-01-15.
const MONTH_S: i64 = 31 * 86_400;

pub async fn an_app_without_a_plan_gets_no_token_and_is_told_why(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    let refused = stage.token(&credentials, API).await;
    assert_eq!((refused.status, refused.error()), (StatusCode::BAD_REQUEST, "unauthorized_client"));
    assert!(refused.text("error_description").contains("no active plan"));
    let app = stage.read(tenant, &credentials).await;
    let unknown = subscriptions::subscribe(&stage.dashboard, &stage.operator, &app, "gold").await;
    assert!(matches!(unknown, Err(SubscriptionError::Plan(_))), "{unknown:?}");
    stage.subscribe(tenant, &credentials, "free").await;
    assert_eq!(stage.token(&credentials, API).await.status, StatusCode::OK);
    let twice = subscriptions::subscribe(&stage.dashboard, &stage.operator, &app, "starter").await;
    assert!(matches!(twice, Err(SubscriptionError::Exists)), "{twice:?}");
}

pub async fn of_many_free_subscriptions_at_once_one_succeeds(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let region = if n % 2 == 0 { LicenseRegion::UsEast1 } else { LicenseRegion::EuWest1 };
        let credentials = stage.app_in(tenant, region, &[]).await;
        let app = stage.read(tenant, &credentials).await;
        let (dashboard, actor) = (stage.dashboard.clone(), stage.operator.clone());
        tasks.spawn(async move { subscriptions::subscribe(&dashboard, &actor, &app, "free").await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(SubscriptionError::FreeTaken)));
    assert_eq!(refused.count(), 7, "{outcomes:?}");
}

pub async fn a_cancelled_plan_runs_to_the_end_of_its_period(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    stage.subscribe(tenant, &credentials, "free").await;
    let app = stage.read(tenant, &credentials).await;
    subscriptions::cancel(&stage.dashboard, &stage.operator, &app).await.unwrap();
    let again = subscriptions::cancel(&stage.dashboard, &stage.operator, &app).await;
    assert!(matches!(again, Err(SubscriptionError::Missing)), "{again:?}");
    stage.clock.advance(MONTH_S - 1);
    assert_eq!(stage.token(&credentials, API).await.status, StatusCode::OK);
    stage.clock.advance(1);
    assert_eq!(stage.token(&credentials, API).await.error(), "unauthorized_client");
    stage.subscribe(tenant, &credentials, "free").await;
    assert_eq!(stage.token(&credentials, API).await.status, StatusCode::OK);
}
