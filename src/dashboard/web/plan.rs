//! The plan of an app: the picker, choosing, cancelling. Whoever may see the tenant may look; book-keepers too, who see
//! nothing else of an app.
//!
//! Choosing leads to a confirmation (`plan_confirm`), whose quote comes back here. Only a first plan that costs nothing
//! is taken at once: there is nothing to confirm.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use super::failure::Failure;
use super::form::sentence;
use super::page::{Done, Place, Shell, again, page, redirect};
use super::plan_confirm;
use super::standing::{self, InvoiceLink, Standing};
use super::text::{grouped, money};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Action, Actor};
use crate::dashboard::apps::{self, App};
use crate::dashboard::billing::invoices::Invoice;
use crate::dashboard::plans::{self, Plan};
use crate::dashboard::subscriptions::{self, AppId, AppPlan, Picked, Quote, SubscriptionError};
use crate::dashboard::usage::{self, Live};

#[derive(Template)]
#[template(path = "plans.html")]
struct PlansPage {
    shell: Shell,
    scene: Scene,
    offers: Vec<Offer>,
    refusal: Option<Refusal>,
}

/// An app's plan, and what it is judged by.
pub(super) struct Scene {
    pub place: Place,
    pub app: AppPlan,
    /// `None`: no plan, or none any more.
    pub standing: Option<Standing>,
    /// What the app uses now, if its nodes have said so lately.
    pub used: Option<Live>,
    /// The other app of the tenant that is on the free plan.
    free_app: Option<AppPlan>,
    open: Vec<Invoice>,
    now: i64,
}

/// Why a plan can't be had, and where that can be mended.
struct Refusal {
    text: String,
    link: Option<(String, String)>,
}

/// A plan as the picker shows it.
struct Offer {
    plan: Plan,
    limits: [Limit; 4],
    way: Way,
}

/// How a plan can be had.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// The app has it.
    Current,
    /// The app has an older version of it.
    Newer,
    AtOnce,
    Confirmed,
    /// Another app has the one free plan: its name, and the address of its plan.
    Taken(String, String),
    /// An invoice is overdue: its number, and its address.
    AfterPaying(i64, String),
    NotByYou,
}

/// One of a plan's four limits, beside the present plan's.
pub(super) struct Limit {
    pub what: &'static str,
    pub number: String,
    /// The present plan's, if that is another.
    pub was: Option<String>,
    pub is_less: bool,
    /// What it means for what is in use now, if that is more.
    pub trouble: Option<String>,
}

impl Offer {
    fn price(&self) -> String {
        money(self.plan.price_cents, &self.plan.currency)
    }
}

/// A plan's limits, compared with the present plan's and with what is in use.
pub(super) fn compare(plan: &Plan, current: Option<&Plan>, used: Option<&Live>) -> [Limit; 4] {
    let limit = |what: &'static str, of: fn(&Plan) -> i64| {
        let (number, was) = (of(plan), current.map(of).filter(|was| *was != of(plan)));
        Limit {
            what,
            number: grouped(number),
            is_less: was.is_some_and(|was| number < was),
            was: was.map(grouped),
            trouble: None,
        }
    };
    let connections = used.map(|used| used.connections).filter(|used| *used > plan.max_connections);
    let documents = used.map(|used| used.documents).filter(|used| *used > plan.max_documents);
    [
        Limit {
            trouble: connections.map(|used| {
                let (used, most) = (grouped(used), grouped(plan.max_connections));
                format!("{used} are connected now. They stay, but nobody else gets in until fewer than {most} are.")
            }),
            ..limit("connections", |plan| plan.max_connections)
        },
        Limit {
            trouble: documents.map(|used| {
                let (used, most) = (grouped(used), grouped(plan.max_documents));
                format!("{used} are open now. They stay open, but no other opens until fewer than {most} are.")
            }),
            ..limit("documents open at once", |plan| plan.max_documents)
        },
        limit("people in one document", |plan| plan.max_users_per_doc),
        limit("changes a minute", |plan| plan.ops_per_minute),
    ]
}

impl Scene {
    async fn load(member: &Member, tenant: &str, app: Uuid) -> Result<Self, Failure> {
        let place = member.place(tenant).await?;
        let (dashboard, actor) = (member.dashboard(), member.actor());
        let apps = subscriptions::list(dashboard, &actor, place.tenant.id).await?;
        let app = standing::find(&apps, app)?.clone();
        let open = standing::open_invoices(member, &place).await?;
        let used = match apps::find(dashboard, place.tenant.id, app.app).await? {
            Some(found) => in_use(dashboard, &actor, &found).await,
            None => None,
        };
        let free_app = apps.into_iter().filter(|other| other.app != app.app).find(|other| {
            Standing::new(member, &place, other.clone(), &[])
                .is_some_and(|standing| standing.subscription.plan.is_free())
        });
        let standing = Standing::new(member, &place, app.clone(), &open);
        Ok(Self { standing, place, app, used, free_app, open, now: dashboard.now() })
    }

    pub fn id(&self) -> AppId {
        AppId { tenant: self.place.tenant.id, app: self.app.app }
    }

    /// The page of the app's plan, or one below it.
    pub fn at(&self, page: &str) -> String {
        self.place.at(&format!("apps/{}/plan{page}", self.app.app))
    }

    pub fn current(&self) -> Option<&Plan> {
        self.standing.as_ref().map(|standing| &standing.subscription.plan)
    }

    /// Where whoever has chosen goes: not everybody who pays may see apps.
    fn after(&self) -> String {
        if self.may_see_apps() { self.place.at(&format!("apps/{}", self.app.app)) } else { self.at("") }
    }

    fn may_see_apps(&self) -> bool {
        self.place.may(&Action::ReadApps)
    }

    fn may_see_billing(&self) -> bool {
        self.place.may(&Action::ReadBilling)
    }

    fn may_choose(&self) -> bool {
        self.place.may(&Action::ChangeSubscriptions)
    }

    /// How this plan can be had.
    fn way(&self, plan: &Plan) -> Way {
        let current = self.current().filter(|current| current.id == plan.id);
        if current.is_some_and(|current| current.version == plan.version) {
            return Way::Current;
        }
        if !self.may_choose() || !self.place.is_active() {
            return Way::NotByYou;
        }
        if let Some(invoice) = self.in_the_way_of(plan) {
            let link = InvoiceLink::new(&self.place, invoice);
            return Way::AfterPaying(link.number, link.to);
        }
        match &self.free_app {
            Some(other) if plan.is_free() => {
                Way::Taken(other.name.clone(), self.place.at(&format!("apps/{}/plan", other.app)))
            }
            _ if current.is_some() => Way::Newer,
            _ if self.standing.is_none() && plan.is_free() => Way::AtOnce,
            _ => Way::Confirmed,
        }
    }

    /// The invoice that must be paid before: one of this app's own, or, for a paid plan, any of the tenant's.
    fn in_the_way_of(&self, plan: &Plan) -> Option<&Invoice> {
        let own = self.standing.as_ref().map(|standing| standing.subscription.id);
        let mut overdue = self.open.iter().filter(|invoice| invoice.is_overdue(self.now));
        overdue.find(|invoice| !plan.is_free() || Some(invoice.subscription) == own)
    }

    /// What an operation said no to, in the picker's words; anything that isn't the chooser's to mend is an error.
    fn refusal(&self, error: SubscriptionError) -> Result<Refusal, Failure> {
        let link = match (&error, &self.free_app) {
            (SubscriptionError::FreeTaken, Some(other)) => {
                let (name, to) = (&other.name, self.place.at(&format!("apps/{}/plan", other.app)));
                let text = format!(
                    "A tenant has one app on the free plan, and {name} is it. Choose a paid plan here, or give {name} \
                     another plan first."
                );
                return Ok(Refusal { text, link: Some((to, format!("The plan of {name}"))) });
            }
            (SubscriptionError::PastDue(number) | SubscriptionError::Unpaid(number), _) => {
                let invoice = self.open.iter().find(|invoice| invoice.number == *number);
                invoice.map(|invoice| {
                    let link = InvoiceLink::new(&self.place, invoice);
                    (link.to, format!("Pay invoice {number}"))
                })
            }
            _ => None,
        };
        let failure = Failure::from(error);
        if failure.is_told() { Ok(Refusal { text: sentence(&failure.text), link }) } else { Err(failure) }
    }

    async fn page(
        self,
        member: &Member,
        done: &Done,
        refusal: Option<Refusal>,
    ) -> Result<PlansPage, Failure> {
        let offered = plans::list(member.dashboard()).await?.into_iter().filter(|plan| plan.is_offered);
        let offer = |plan: Plan| Offer {
            limits: compare(&plan, self.current(), self.used.as_ref()),
            way: self.way(&plan),
            plan,
        };
        let offers = offered.map(offer).collect();
        let shell = member.shell("apps").within(&self.place).after(done);
        Ok(PlansPage { shell, scene: self, offers, refusal })
    }
}

/// What the app uses now, if its nodes have said so lately. A plan can be chosen without knowing.
async fn in_use(dashboard: &Dashboard, actor: &Actor, app: &App) -> Option<Live> {
    match usage::live(dashboard, actor, app).await {
        Ok(live) => Some(live).filter(|live| !live.is_stale),
        Err(error) => {
            tracing::warn!(%error, app = %app.id, "what an app uses could not be read for its plan's page");
            None
        }
    }
}

impl PlansPage {
    /// The app's plan can't be chosen any more, so that it isn't among the offers.
    fn has_another(&self) -> bool {
        self.scene.standing.is_some() && !self.offers.iter().any(|offer| offer.way == Way::Current)
    }

    fn price(&self, plan: &Plan) -> String {
        money(plan.price_cents, &plan.currency)
    }

    /// What is in use, for whoever thinks about fewer.
    fn in_use(&self) -> Option<(String, String)> {
        let used = self.scene.used.as_ref()?;
        Some((grouped(used.connections), grouped(used.documents)))
    }
}

pub(super) async fn show(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let scene = Scene::load(&member, &tenant, app).await?;
    Ok(page(&scene.page(&member, &done, None).await?))
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Chosen {
    #[serde(default)]
    plan: String,
}

/// What choosing a plan would do.
pub(super) async fn confirm(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
    Query(chosen): Query<Chosen>,
) -> Result<Response, Failure> {
    let scene = Scene::load(&member, &tenant, app).await?;
    preview(&member, scene, &chosen.plan, None).await
}

/// The confirmation, or the picker with the reason why there is none. `stale` is a quote that no longer holds.
async fn preview(
    member: &Member,
    scene: Scene,
    plan: &str,
    stale: Option<Quote>,
) -> Result<Response, Failure> {
    match subscriptions::preview(member.dashboard(), &member.actor(), scene.id(), plan).await {
        Ok(preview) => Ok(plan_confirm::show(member, scene, preview, stale)),
        Err(error) => refused(member, scene, error).await,
    }
}

async fn refused(member: &Member, scene: Scene, error: SubscriptionError) -> Result<Response, Failure> {
    let refusal = scene.refusal(error)?;
    Ok(again(&scene.page(member, &Done::default(), Some(refusal)).await?))
}

pub(super) async fn choose(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, form): Posted<Member>,
) -> Result<Response, Failure> {
    let scene = Scene::load(&member, &tenant, app).await?;
    let (dashboard, actor, plan) = (member.dashboard(), member.actor(), form.get("plan"));
    let Ok(quote) = form.get("quote").parse::<Quote>() else {
        return choose_unseen(&member, scene, plan).await;
    };
    match subscriptions::pick(dashboard, &actor, scene.id(), plan, Some(quote)).await {
        Ok(Picked { invoice: Some(invoice), .. }) => {
            Ok(redirect(&scene.place.at(&format!("billing/invoices/{invoice}")), "plan-invoiced"))
        }
        Ok(_) => Ok(redirect(&scene.after(), "plan-changed")),
        Err(SubscriptionError::Stale) => preview(&member, scene, plan, Some(quote)).await,
        Err(error) => refused(&member, scene, error).await,
    }
}

/// Nobody has seen what it costs: only a first plan that costs nothing is taken like that.
async fn choose_unseen(member: &Member, scene: Scene, plan: &str) -> Result<Response, Failure> {
    let dashboard = member.dashboard();
    let Some(found) = plans::find(dashboard, plan).await? else {
        return refused(member, scene, SubscriptionError::Plan(plan.to_owned())).await;
    };
    if scene.standing.is_some() || !found.is_free() {
        return Ok(Redirect::to(&scene.at(&format!("/confirm?plan={}", found.id))).into_response());
    }
    match subscriptions::subscribe(dashboard, &member.actor(), scene.id(), &found.id).await {
        Ok(_) => Ok(redirect(&scene.after(), "plan-chosen")),
        Err(error) => refused(member, scene, error).await,
    }
}

pub(super) async fn cancel(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let scene = Scene::load(&member, &tenant, app).await?;
    subscriptions::cancel(member.dashboard(), &member.actor(), scene.id()).await?;
    Ok(redirect(&scene.at(""), "plan-cancelled"))
}

pub(super) async fn take_cancellation_back(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let scene = Scene::load(&member, &tenant, app).await?;
    subscriptions::uncancel(member.dashboard(), &member.actor(), scene.id()).await?;
    Ok(redirect(&scene.at(""), "plan-goes-on"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::billing::Cadence;

    fn plan(max_connections: i64, max_documents: i64) -> Plan {
        Plan {
            id: "team".to_owned(),
            version: 1,
            name: "Team".to_owned(),
            max_connections,
            max_documents,
            max_users_per_doc: 10,
            ops_per_minute: 6000,
            price_cents: 1000,
            currency: "USD".to_owned(),
            period: Cadence::Month,
            is_offered: true,
        }
    }

    fn used(connections: i64, documents: i64) -> Live {
        Live { connections, documents, ops_this_minute: 0, nodes: 1, plan: None, as_of: 0, is_stale: false }
    }

    #[test]
    fn limits_say_what_rises_what_falls_and_what_is_too_much_already() {
        let limits = compare(&plan(100, 2000), Some(&plan(1000, 1000)), Some(&used(312, 40)));
        let shown = limits.each_ref().map(|limit| (limit.was.as_deref(), limit.is_less));
        assert_eq!(shown, [(Some("1,000"), true), (Some("1,000"), false), (None, false), (None, false)]);
        let trouble = limits[0].trouble.as_deref().unwrap();
        assert!(trouble.contains("312 are connected now") && trouble.contains("fewer than 100"), "{trouble}");
        assert!(limits[1..].iter().all(|limit| limit.trouble.is_none()));
    }

    #[test]
    fn what_just_fits_is_no_trouble() {
        let limits = compare(&plan(312, 40), None, Some(&used(312, 40)));
        assert!(limits.iter().all(|limit| limit.trouble.is_none() && limit.was.is_none()));
        assert!(compare(&plan(1, 1), None, None).iter().all(|limit| limit.trouble.is_none()));
    }
}
