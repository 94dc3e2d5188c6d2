//! One app: its credentials, domains and plan (`plan` changes it), how to connect with it, and its end.

use askama::Template;
use axum::response::Response;
use uuid::Uuid;

use super::failure::Failure;
use super::gauge::Gauge;
use super::page::{Done, Place, Shell, page, redirect};
use super::standing::Standing;
use super::text::{Moment, money};
use super::visit::{Member, Path, Posted, Query};
use crate::auth::origin;
use crate::dashboard::access::Action;
use crate::dashboard::apps::{self, App, Credentials};
use crate::dashboard::plans::Plan;
use crate::dashboard::{nodes, usage};

/// What stands for a node's address until there is one.
const SOME_NODE: &str = "wss://YOUR-NODE";

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage {
    shell: Shell,
    place: Place,
    app: App,
    standing: Option<Standing>,
    gauges: [Gauge; 3],
    /// Whether pages of the dashboard may use the app's tokens, as its playground must.
    playground_allowed: bool,
    playground_host: String,
}

/// The one page that shows a secret, once.
#[derive(Template)]
#[template(path = "credentials.html")]
pub(super) struct CredentialsPage {
    pub shell: Shell,
    /// The app's page.
    pub app: String,
    pub credentials: Credentials,
    pub is_new: bool,
}

#[derive(Template)]
#[template(path = "quick_start.html")]
struct QuickStartPage {
    shell: Shell,
    place: Place,
    app: App,
    issuer: String,
    socket: String,
    has_node: bool,
    standing: Option<Standing>,
}

impl AppPage {
    fn may_regenerate(&self) -> bool {
        self.place.may(&Action::RegenerateSecrets)
    }

    fn may_delete(&self) -> bool {
        self.place.may(&Action::DeleteApps)
    }

    fn may_see_billing(&self) -> bool {
        self.place.may(&Action::ReadBilling)
    }

    fn may_choose_plans(&self) -> bool {
        self.place.may(&Action::ChangeSubscriptions)
    }

    fn has_tokens(&self) -> bool {
        self.standing.as_ref().is_some_and(Standing::has_tokens)
    }

    fn price(&self, plan: &Plan) -> String {
        format!("{} a {}", money(plan.price_cents, &plan.currency), plan.period)
    }

    fn created(&self) -> Moment {
        Moment(self.app.created_at)
    }
}

async fn place_and_app(member: &Member, tenant: &str, app: Uuid) -> Result<(Place, App), Failure> {
    let place = member.place(tenant).await?;
    let app = apps::read(member.dashboard(), &member.actor(), place.tenant.id, app).await?;
    Ok((place, app))
}

pub(super) async fn show(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    let dashboard = member.dashboard();
    let issuer = dashboard.config.issuer.as_str();
    let domains: Vec<Box<str>> = app.allowed_domains.iter().map(|domain| domain.as_str().into()).collect();
    Ok(page(&AppPage {
        shell: member.shell("apps").within(&place).after(&done),
        standing: Standing::of(&member, &place, app.id).await?,
        gauges: Gauge::all(&usage::live(dashboard, &member.actor(), &app).await?),
        playground_allowed: origin::check(&domains, Some(issuer), false).is_ok(),
        playground_host: issuer.split_once("://").map_or(issuer, |(_, host)| host).to_owned(),
        place,
        app,
    }))
}

pub(super) async fn regenerate(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    let credentials = apps::regenerate_secret(member.dashboard(), &member.actor(), &app).await?;
    let shell = member.shell("apps").within(&place);
    let app = place.at(&format!("apps/{}", app.id));
    Ok(page(&CredentialsPage { shell, app, credentials, is_new: false }))
}

pub(super) async fn delete(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    apps::delete(member.dashboard(), &member.actor(), &app).await?;
    Ok(redirect(&place.at("apps"), "app-deleted"))
}

pub(super) async fn quick_start(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    let dashboard = member.dashboard();
    let node = nodes::nearest(dashboard, app.region).await?;
    Ok(page(&QuickStartPage {
        shell: member.shell("apps").within(&place),
        issuer: dashboard.config.issuer.as_str().to_owned(),
        has_node: node.is_some(),
        socket: node.unwrap_or_else(|| SOME_NODE.to_owned()),
        standing: Standing::of(&member, &place, app.id).await?,
        place,
        app,
    }))
}
