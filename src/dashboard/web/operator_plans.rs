//! The plan catalogue, for operators: plans, their versions and who is on which, and whether they are on offer.

use askama::Template;
use axum::response::Response;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Shell, again, page, redirect};
use super::text::{Moment, amount, cents, grouped, money};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::billing::Cadence;
use crate::dashboard::plans::{self, PlanError, PlanTerms, PlanVersion};

const LIST: &str = "/operator/plans";

/// The form's fields of limits, with what the plan's rules call them.
const LIMITS: [(&str, &str, &str); 4] = [
    ("max_connections", "maxConnections", "Connections"),
    ("max_documents", "maxDocuments", "Documents open at once"),
    ("max_users_per_doc", "maxUsersPerDoc", "People in one document"),
    ("ops_per_minute", "opsPerMinute", "Changes a minute"),
];

#[derive(Template)]
#[template(path = "operator_plans.html")]
struct PlansPage {
    shell: Shell,
    plans: Vec<PlanRow>,
}

struct PlanRow {
    newest: PlanVersion,
    /// Apps on its newest version, and on older ones.
    apps: i64,
    apps_on_older: i64,
}

#[derive(Template)]
#[template(path = "operator_plan.html")]
struct PlanPage<'a> {
    shell: Shell,
    /// Newest first; empty for a plan that is being made.
    versions: Vec<PlanVersion>,
    form: &'a Fields,
}

impl PlanVersion {
    pub(super) fn price(&self) -> String {
        format!("{} a {}", money(self.plan.price_cents, &self.plan.currency), self.plan.period)
    }

    pub(super) fn limits(&self) -> String {
        let plan = &self.plan;
        let limits = [plan.max_connections, plan.max_documents, plan.max_users_per_doc, plan.ops_per_minute];
        limits.map(grouped).join(" / ")
    }

    pub(super) fn since(&self) -> Option<Moment> {
        (self.created_at > 0).then_some(Moment(self.created_at))
    }
}

impl PlanPage<'_> {
    fn newest(&self) -> Option<&PlanVersion> {
        self.versions.first()
    }

    fn limit_fields(&self) -> Vec<String> {
        LIMITS.iter().map(|(field, _, label)| self.form.number(field, label).to_string()).collect()
    }

    fn apps_on_older(&self) -> i64 {
        self.versions.iter().skip(1).map(|version| version.subscriptions).sum()
    }
}

/// The plans of all versions, each newest first.
fn rows(versions: Vec<PlanVersion>) -> Vec<PlanRow> {
    let mut rows: Vec<PlanRow> = Vec::new();
    for version in versions {
        match rows.last_mut() {
            Some(row) if row.newest.plan.id == version.plan.id => row.apps_on_older += version.subscriptions,
            _ => rows.push(PlanRow { apps: version.subscriptions, newest: version, apps_on_older: 0 }),
        }
    }
    rows
}

pub(super) async fn list(member: Member, Query(done): Query<Done>) -> Result<Response, Failure> {
    let versions = plans::versions(member.dashboard(), &member.actor(), None).await?;
    let shell = member.shell("operator-plans").after(&done);
    Ok(page(&PlansPage { shell, plans: rows(versions) }))
}

pub(super) async fn new(member: Member) -> Result<Response, Failure> {
    // Whether the member may is asked, though there is nothing to look for.
    plans::versions(member.dashboard(), &member.actor(), Some("-")).await?;
    let mut form = Fields::default();
    form.set("currency", "USD");
    form.set("period", Cadence::Month.as_str());
    Ok(page(&PlanPage { shell: member.shell("operator-plans"), versions: Vec::new(), form: &form }))
}

pub(super) async fn create(Posted(member, mut form): Posted<Member>) -> Result<Response, Failure> {
    if let Some(terms) = terms(&mut form) {
        let id = form.get("id").trim().to_owned();
        match plans::create(member.dashboard(), &member.actor(), &id, terms).await {
            Ok(plan) => return Ok(redirect(&format!("{LIST}/{}", plan.id), "plan-made")),
            Err(error) => put(&mut form, error)?,
        }
    }
    Ok(again(&PlanPage { shell: member.shell("operator-plans"), versions: Vec::new(), form: &form }))
}

async fn versions(member: &Member, plan: &str) -> Result<Vec<PlanVersion>, Failure> {
    let versions = plans::versions(member.dashboard(), &member.actor(), Some(plan)).await?;
    if versions.is_empty() { Err(Failure::missing("There is no such plan.")) } else { Ok(versions) }
}

pub(super) async fn show(
    member: Member,
    Path(plan): Path<String>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let versions = versions(&member, &plan).await?;
    let plan = &versions[0].plan;
    let mut form = Fields::default();
    let limits = [plan.max_connections, plan.max_documents, plan.max_users_per_doc, plan.ops_per_minute];
    for ((field, ..), limit) in LIMITS.iter().zip(limits) {
        form.set(field, limit.to_string());
    }
    form.set("version", plan.version.to_string());
    form.set("name", plan.name.clone());
    form.set("price", amount_typed(plan.price_cents));
    form.set("currency", plan.currency.clone());
    form.set("period", plan.period.as_str());
    let shell = member.shell("operator-plans").after(&done);
    Ok(page(&PlanPage { shell, versions, form: &form }))
}

/// A new version.
pub(super) async fn change(
    Path(plan): Path<String>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let version = form.get("version").parse().unwrap_or_default();
    if let Some(terms) = terms(&mut form) {
        match plans::change(member.dashboard(), &member.actor(), &plan, version, terms).await {
            Ok(plan) => return Ok(redirect(&format!("{LIST}/{}", plan.id), "plan-version-made")),
            Err(error) => put(&mut form, error)?,
        }
    }
    let versions = versions(&member, &plan).await?;
    Ok(again(&PlanPage { shell: member.shell("operator-plans"), versions, form: &form }))
}

pub(super) async fn offer(
    Path(plan): Path<String>,
    Posted(member, form): Posted<Member>,
) -> Result<Response, Failure> {
    let is_offered = form.get("offered") == "yes";
    plans::offer(member.dashboard(), &member.actor(), &plan, is_offered).await?;
    let done = if is_offered { "plan-offered" } else { "plan-retired" };
    Ok(redirect(&format!("{LIST}/{plan}"), done))
}

/// As the field takes it back: without a currency and without grouping.
fn amount_typed(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// What was typed, if it is terms at all; what can't be understood stands beside its field.
fn terms(form: &mut Fields) -> Option<PlanTerms> {
    let mut limit = |field: &'static str| {
        let typed = form.get(field).trim().parse::<i64>();
        if typed.is_err() {
            form.wrong(field, "write a whole number, such as 1000");
        }
        typed.unwrap_or_default()
    };
    let [max_connections, max_documents, max_users_per_doc, ops_per_minute] =
        LIMITS.map(|(field, ..)| limit(field));
    let price = cents(form.get("price").trim());
    if price.is_none() {
        form.wrong("price", "write an amount such as 29 or 29.50; 0 makes a free plan");
    }
    let period = form.get("period").parse::<Cadence>();
    if let Err(error) = &period {
        form.wrong("period", error);
    }
    let (Some(price_cents), Ok(period), true) = (price, period, form.is_good()) else { return None };
    Some(PlanTerms {
        name: form.get("name").to_owned(),
        max_connections,
        max_documents,
        max_users_per_doc,
        ops_per_minute,
        price_cents,
        currency: form.get("currency").trim().to_owned(),
        period,
    })
}

/// What an operation refused, beside the field that it is about.
fn put(form: &mut Fields, error: PlanError) -> Result<(), Failure> {
    match error {
        PlanError::Id(_) | PlanError::Exists(_) => form.wrong("id", error),
        PlanError::Name => form.wrong("name", error),
        PlanError::Price => {
            let most = amount(plans::PRICE_CENTS_MAX, "");
            form.wrong("price", format!("a price is from 0 to {}", most.trim()));
        }
        PlanError::Currency(_) => form.wrong("currency", error),
        PlanError::Limit(what) => match LIMITS.iter().find(|(_, name, _)| *name == what) {
            Some((field, ..)) => {
                form.wrong(field, format!("write a whole number from 1 to {}", grouped(plans::LIMIT_MAX)));
            }
            None => form.wrong_whole(error),
        },
        other => {
            let failure = Failure::from(other);
            if !failure.is_told() {
                return Err(failure);
            }
            form.wrong_whole(&failure.text);
        }
    }
    Ok(())
}
