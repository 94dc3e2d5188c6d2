//! One app: its credentials, domains and plan, how to connect with it, and its end.

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use uuid::Uuid;

use super::form::Fields;
use super::gauge::Gauge;
use super::page::{Done, Failure, Place, Shell, again, page, redirect};
use super::text::{Moment, grouped, money};
use super::visit::{Member, Posted};
use crate::auth::origin;
use crate::dashboard::access::Action;
use crate::dashboard::apps::{self, App, Credentials};
use crate::dashboard::plans::{self, Plan};
use crate::dashboard::subscriptions::{self, Subscription, SubscriptionState};
use crate::dashboard::{nodes, usage};

/// What stands for a node's address until there is one.
const SOME_NODE: &str = "wss://YOUR-NODE";

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage {
    shell: Shell,
    place: Place,
    app: App,
    subscription: Option<Subscription>,
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
#[template(path = "plans.html")]
struct PlansPage {
    shell: Shell,
    place: Place,
    app: App,
    plans: Vec<Offer>,
    current: Option<Subscription>,
    form: Fields,
}

/// A plan as the picker shows it.
struct Offer {
    plan: Plan,
    is_current: bool,
    can_be_chosen: bool,
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
    has_plan: bool,
}

impl Offer {
    fn price(&self) -> String {
        money(self.plan.price_cents, &self.plan.currency)
    }

    fn limits(&self) -> [(&'static str, String); 4] {
        [
            ("connections", grouped(self.plan.max_connections)),
            ("documents open at once", grouped(self.plan.max_documents)),
            ("people in one document", grouped(self.plan.max_users_per_doc)),
            ("changes a minute", grouped(self.plan.ops_per_minute)),
        ]
    }
}

impl Subscription {
    /// What its state means for the one who pays.
    fn in_words(&self) -> String {
        let end = Moment(self.period_end).shown();
        match self.state {
            SubscriptionState::Active => format!("renews {end}"),
            SubscriptionState::PastDue => "payment is late; pay to keep the app's tokens".to_owned(),
            SubscriptionState::Cancelled => format!("cancelled, runs until {end}"),
            SubscriptionState::Ended => "ended".to_owned(),
        }
    }
}

impl PlansPage {
    fn may_cancel(&self) -> bool {
        self.place.may(&Action::ChangeSubscriptions)
    }
}

impl AppPage {
    fn may_regenerate(&self) -> bool {
        self.place.may(&Action::RegenerateSecrets)
    }

    fn may_delete(&self) -> bool {
        self.place.may(&Action::DeleteApps)
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
        subscription: subscriptions::current(dashboard, app.id).await?,
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

async fn plans_page(member: &Member, place: Place, app: App, form: Fields) -> Result<PlansPage, Failure> {
    let current = subscriptions::current(member.dashboard(), app.id).await?;
    let may_choose = place.may(&Action::ChangeSubscriptions);
    let offer = |plan: Plan| Offer {
        is_current: current.as_ref().is_some_and(|current| current.plan.id == plan.id),
        can_be_chosen: may_choose && current.is_none() && plan.is_free(),
        plan,
    };
    let offered = plans::list(member.dashboard()).await?.into_iter().filter(|plan| plan.is_offered);
    let plans = offered.map(offer).collect();
    Ok(PlansPage { shell: member.shell("apps").within(&place), place, app, plans, current, form })
}

pub(super) async fn plans(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    Ok(page(&plans_page(&member, place, app, Fields::default()).await?))
}

pub(super) async fn choose_plan(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    let dashboard = member.dashboard();
    // A paid plan begins with a payment, which is not this form's to take.
    let chosen = plans::find(dashboard, form.get("plan")).await?.filter(Plan::is_free);
    let Some(plan) = chosen else { return Err(Failure::told("choose one of the plans that have a button")) };
    let subscribed = subscriptions::subscribe(dashboard, &member.actor(), &app, &plan.id).await;
    match subscribed.map_err(Failure::from) {
        Ok(_) => Ok(redirect(&place.at(&format!("apps/{}", app.id)), "plan-chosen")),
        Err(failure) if failure.is_told() => {
            form.wrong_whole(&failure.text);
            Ok(again(&plans_page(&member, place, app, form).await?))
        }
        Err(failure) => Err(failure),
    }
}

pub(super) async fn cancel_plan(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    subscriptions::cancel(member.dashboard(), &member.actor(), &app).await?;
    Ok(redirect(&place.at(&format!("apps/{}", app.id)), "plan-cancelled"))
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
        has_plan: subscriptions::current(dashboard, app.id).await?.is_some(),
        place,
        app,
    }))
}
