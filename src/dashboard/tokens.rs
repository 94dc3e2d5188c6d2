//! Access tokens: who gets one, and what it says (the contract, section 1).

use serde_json::{Value, json};

use super::Dashboard;
use super::apps::App;
use super::keys::{self, KeysError};
use super::plans::Plan;
use super::random;
use super::signer::SignerError;
use super::store::StoreError;
use super::subscriptions;
use super::tenants::{self, TenantState};

/// The audience, and the scope that must be asked for.
pub const API: &str = "WireSocket.API";

/// The scope of a token that changes nothing.
pub const READ_ONLY: &str = "WireSocket.ReadOnly";

/// What a token is to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Words of the scope, [`API`] among them.
    pub scope: String,
    /// Names and prefixes (`auth::DocumentPattern`) with spaces between; `None` is every document of the app.
    pub documents: Option<String>,
}

impl Access {
    /// Reading and writing every document.
    #[must_use]
    pub fn full() -> Self {
        Self { scope: API.to_owned(), documents: None }
    }
}

/// A signed token.
#[derive(Debug, Clone)]
pub struct AccessToken {
    pub token: String,
    pub expires_in_s: i64,
}

/// Why an app gets no token although its credentials are right.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the app's tenant is {0}; it gets tokens when an operator has made it active")]
    TenantState(TenantState),
    #[error("the app has no active plan; choose one in the dashboard (the free one will do), then ask again")]
    NoPlan,
    #[error(
        "the app's plan is switched off, because an invoice is overdue; pay it in the dashboard, then ask again"
    )]
    Unpaid,
    #[error(transparent)]
    Key(#[from] KeysError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The plan whose limits an app's tokens carry, if the app may have tokens at all.
///
/// # Errors
/// [`TokenError::TenantState`], [`TokenError::NoPlan`] or [`TokenError::Unpaid`].
pub(super) async fn entitlement(dashboard: &Dashboard, app: &App) -> Result<Plan, TokenError> {
    match tenants::find(dashboard, app.tenant).await? {
        Some(tenant) if tenant.state == TenantState::Active => {}
        Some(tenant) => return Err(TokenError::TenantState(tenant.state)),
        None => return Err(TokenError::TenantState(TenantState::Pending)),
    }
    match subscriptions::find(dashboard, app.id).await? {
        Some(subscription) if subscription.entitles(dashboard.now()) => Ok(subscription.plan),
        Some(subscription) if subscription.disabled_at.is_some() => Err(TokenError::Unpaid),
        Some(_) | None => Err(TokenError::NoPlan),
    }
}

/// A token for an app with these limits.
///
/// # Errors
/// [`TokenError`].
pub(super) async fn issue(
    dashboard: &Dashboard,
    app: &App,
    plan: &Plan,
    access: &Access,
) -> Result<AccessToken, TokenError> {
    let (kid, sealed) = keys::active(dashboard, app.tenant).await?;
    let key = match dashboard.signer.opened(&kid) {
        Some(key) => key,
        None => dashboard.signer.keep(&kid, keys::unseal(dashboard, app.tenant, &kid, &sealed).await?),
    };
    let claims = claims(dashboard, app, plan, access);
    let token = dashboard.signer.sign(&kid, key, claims).await?;
    Ok(AccessToken { token, expires_in_s: dashboard.config.tokens.access_token_s })
}

fn claims(dashboard: &Dashboard, app: &App, plan: &Plan, access: &Access) -> Value {
    let now = dashboard.now();
    let mut claims = json!({
        "iss": dashboard.config.issuer.as_str(),
        "sub": app.client_id,
        "aud": API,
        "scope": access.scope,
        "tenantid": app.tenant,
        "appId": app.id,
        "licenseRegionCode": app.region.code(),
        "dbCode": app.db_code,
        "limits": plan.limits(),
        "iat": now,
        "exp": now + dashboard.config.tokens.access_token_s,
        "jti": random::guid(),
    });
    if let Some(documents) = &access.documents {
        claims["documents"] = documents.split(' ').collect();
    }
    let names = ["allowed_domain_1", "allowed_domain_2", "allowed_domain_3"];
    for (name, domain) in names.into_iter().zip(&app.allowed_domains) {
        claims[name] = domain.as_str().into();
    }
    claims
}
