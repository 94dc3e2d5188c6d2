//! The list of apps, and the forms that make and change one.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use super::app_pages::CredentialsPage;
use super::failure::Failure;
use super::form::Fields;
use super::gauge::Gauge;
use super::page::{Done, Place, Shell, again, page, redirect};
use super::standing::{self, Standing};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::access::Action;
use crate::dashboard::apps::{self, App, AppError, NewApp};
use crate::dashboard::domains::{AllowedDomain, DomainError};
use crate::dashboard::region::LicenseRegion;
use crate::dashboard::{subscriptions, usage};

const DOMAIN_FIELDS: [&str; apps::DOMAINS_MAX] = ["domain_1", "domain_2", "domain_3"];

#[derive(Template)]
#[template(path = "apps.html")]
struct AppsPage {
    shell: Shell,
    place: Place,
    apps: Vec<Row>,
}

struct Row {
    app: App,
    standing: Option<Standing>,
    gauges: [Gauge; 3],
}

/// The form of a new app, or, with its version, of one that is there.
#[derive(Template)]
#[template(path = "app_form.html")]
struct AppForm<'a> {
    shell: Shell,
    place: &'a Place,
    app: Option<&'a App>,
    regions: Vec<LicenseRegion>,
    form: &'a Fields,
}

pub(super) async fn list(
    member: Member,
    Path(tenant): Path<String>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let open = standing::open_invoices(&member, &place).await?;
    let plans = subscriptions::list(dashboard, &actor, place.tenant.id).await?;
    let mut rows = Vec::new();
    for app in apps::list(dashboard, &actor, place.tenant.id).await? {
        let gauges = Gauge::all(&usage::live(dashboard, &actor, &app).await?);
        // An app that was made a moment ago may be in the one list and not yet in the other.
        let plan = plans.iter().find(|plan| plan.app == app.id).cloned();
        let standing = plan.and_then(|plan| Standing::new(&member, &place, plan, &open));
        rows.push(Row { app, standing, gauges });
    }
    let shell = member.shell("apps").within(&place).after(&done);
    Ok(page(&AppsPage { shell, place, apps: rows }))
}

fn app_form<'a>(member: &Member, place: &'a Place, app: Option<&'a App>, form: &'a Fields) -> AppForm<'a> {
    let regions = member.dashboard().config.regions.keys().copied().collect();
    AppForm { shell: member.shell("apps").within(place), place, app, regions, form }
}

pub(super) async fn new(member: Member, Path(tenant): Path<String>) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    if !place.is_active() {
        return Ok(Redirect::to(&place.at("apps")).into_response());
    }
    Ok(page(&app_form(&member, &place, None, &Fields::default())))
}

pub(super) async fn create(
    Path(tenant): Path<String>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let allowed_domains = domains(&mut form);
    let region = form.get("region").parse::<LicenseRegion>();
    if let Err(error) = &region {
        form.wrong("region", error);
    }
    if let (true, Ok(region)) = (form.is_good(), region) {
        let new = NewApp { name: form.get("name").to_owned(), region, allowed_domains };
        match apps::create(member.dashboard(), &member.actor(), place.tenant.id, new).await {
            Ok(credentials) => {
                let shell = member.shell("apps").within(&place);
                let app = place.at(&format!("apps/{}", credentials.app));
                return Ok(page(&CredentialsPage { shell, app, credentials, is_new: true }));
            }
            Err(error) => put(&mut form, error)?,
        }
    }
    Ok(again(&app_form(&member, &place, None, &form)))
}

pub(super) async fn edit(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let app = apps::read(member.dashboard(), &member.actor(), place.tenant.id, app).await?;
    let mut form = Fields::default();
    form.set("name", app.name.clone());
    form.set("version", app.version.to_string());
    for (field, domain) in DOMAIN_FIELDS.into_iter().zip(&app.allowed_domains) {
        form.set(field, domain.as_str());
    }
    Ok(page(&app_form(&member, &place, Some(&app), &form)))
}

pub(super) async fn update(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let mut app = apps::read(member.dashboard(), &member.actor(), place.tenant.id, app).await?;
    let allowed_domains = domains(&mut form);
    if form.is_good() {
        // What the form was filled in from: a change since then is not overwritten.
        app.version = form.get("version").parse().unwrap_or_default();
        let (dashboard, actor) = (member.dashboard(), member.actor());
        match apps::update(dashboard, &actor, &app, form.get("name"), &allowed_domains).await {
            Ok(()) => return Ok(redirect(&place.at(&format!("apps/{}", app.id)), "app-saved")),
            Err(error) => put(&mut form, error)?,
        }
    }
    Ok(again(&app_form(&member, &place, Some(&app), &form)))
}

/// The domains of the form; what is wrong with one stands beside its field.
fn domains(form: &mut Fields) -> Vec<AllowedDomain> {
    let mut domains = Vec::new();
    for field in DOMAIN_FIELDS {
        match form.get(field).parse() {
            Ok(domain) => domains.push(domain),
            Err(DomainError::Empty) => {}
            Err(error) => form.wrong(field, error),
        }
    }
    domains
}

/// What an operation refused, beside the field that it is about.
fn put(form: &mut Fields, error: AppError) -> Result<(), Failure> {
    match error {
        AppError::Name => form.wrong("name", error),
        AppError::Region(_) => form.wrong("region", error),
        AppError::TooManyDomains(_) => form.wrong("domain_1", error),
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

impl Place {
    pub(super) fn may_change_apps(&self) -> bool {
        self.may(&Action::ChangeApps)
    }
}
