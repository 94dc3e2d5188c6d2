//! What a dashboard inside `wiresocket dev` begins with: a tenant with its owner, an app on a plan, an operator.
//!
//! The app's plan costs nothing and is as wide as a load test needs. It is one of the demo's own, so that the catalogue
//! that people choose from stays what it is elsewhere; it counts as the tenant's free one.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Dashboard;
use super::access::Actor;
use super::accounts::{self, AccountError};
use super::apps::{self, AppError, NewApp};
use super::billing::Cadence;
use super::plans::{self, LIMIT_MAX, PlanError, PlanTerms};
use super::random;
use super::region::LicenseRegion;
use super::subscriptions::{self, SubscriptionError};
use super::tenants::{self, TenantError};

const PLAN: &str = "demo";
const OWNER: &str = "demo@localhost";

/// The demo, as it is kept beside a database that is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Demo {
    pub tenant_id: Uuid,
    pub app_id: Uuid,
    pub client_id: String,
    pub client_secret: String,
    pub owner: LogIn,
    pub operator: LogIn,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIn {
    pub email: String,
    pub password: String,
}

impl fmt::Debug for Demo {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Demo").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogIn {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIn").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Tenant(#[from] TenantError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Makes the demo in a database that has none. What takes long is the tenant's RSA key; the operator's password is
/// hashed meanwhile.
///
/// # Errors
/// [`DemoError`].
pub async fn make(dashboard: &Dashboard, region: LicenseRegion) -> Result<Demo, DemoError> {
    let actor = Actor::command_line();
    let log_in = |email: &str| LogIn { email: email.to_owned(), password: random::word() };
    let (owner, operator) = (log_in(OWNER), log_in(&dashboard.config.operator_email));
    let account = accounts::sign_up(dashboard, &actor, &owner.email, "Demo", &owner.password).await?;
    let tenant = tenants::create(dashboard, &actor, "Demo", account).await?;
    let (approved, with_operator) = tokio::join!(
        tenants::approve(dashboard, &actor, tenant),
        accounts::create_operator_with(dashboard, &actor, &operator.email, &operator.password),
    );
    approved?;
    with_operator?;
    let new = NewApp { name: "Demo".to_owned(), region, allowed_domains: Vec::new() };
    let credentials = apps::create(dashboard, &actor, tenant, new).await?;
    let app = apps::read(dashboard, &actor, tenant, credentials.app).await?;
    plans::create(dashboard, &actor, PLAN, terms()).await?;
    subscriptions::subscribe(dashboard, &actor, &app, PLAN).await?;
    // On offer for as long as the demo's app takes it.
    plans::retire(dashboard, &actor, PLAN).await?;
    Ok(Demo {
        tenant_id: tenant,
        app_id: credentials.app,
        client_id: credentials.client_id,
        client_secret: credentials.client_secret,
        owner,
        operator,
    })
}

fn terms() -> PlanTerms {
    PlanTerms {
        name: "Demo".to_owned(),
        max_connections: LIMIT_MAX,
        max_documents: LIMIT_MAX,
        max_users_per_doc: LIMIT_MAX,
        ops_per_minute: LIMIT_MAX,
        price_cents: 0,
        currency: "USD".to_owned(),
        period: Cadence::Month,
    }
}
