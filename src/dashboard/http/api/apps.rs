//! Apps, their secrets and their allowed domains.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, IfMatch, uncached};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::page::{Page, Paging};
use super::{Here, Problem};
use crate::dashboard::access::Actor;
use crate::dashboard::apps::{self, NewApp};
use crate::dashboard::region::LicenseRegion;
use crate::dashboard::{AllowedDomain, Dashboard};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, delete))
        .routes(routes!(regenerate))
        .routes(routes!(read_domains, replace_domains))
}

/// What gets tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "9a8d2f64-1f3b-4b5e-8f11-6f6a8c1d2e3f", "name": "Notes",
    "clientId": "euw1-7k2m9qpxw4c8v3n5t6h1", "region": "aws-eu-west-1", "dbCode": "shard-01-eu-west-1",
    "allowedDomains": ["notes.example.com", "localhost:3000"], "createdAt": 1_800_000_000 }))]
struct App {
    id: Uuid,
    name: String,
    /// For the token endpoint.
    client_id: String,
    /// The license region, set once.
    region: String,
    /// Where in the region the app's metadata is.
    db_code: String,
    /// Hosts whose pages may use the app; none: any.
    allowed_domains: Vec<String>,
    /// Unix seconds.
    created_at: i64,
}

/// An app with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AppWithSecret {
    #[serde(flatten)]
    app: App,
    /// Keep it: only its hash is stored.
    #[schema(example = "wss_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1")]
    client_secret: String,
}

impl From<&apps::App> for App {
    fn from(app: &apps::App) -> Self {
        Self {
            id: app.id,
            name: app.name.clone(),
            client_id: app.client_id.clone(),
            region: app.region.code().to_owned(),
            db_code: app.db_code.clone(),
            allowed_domains: app.allowed_domains.iter().map(ToString::to_string).collect(),
            created_at: app.created_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AppsQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only apps of this license region.
    region: Option<String>,
}

/// List a tenant's apps
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps", tag = "apps", operation_id = "listApps",
    params(AppsQuery), responses((status = 200, description = "A page of apps, oldest first", body = Page<App>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<AppsQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("apps", &uri, query.limit, query.cursor.as_deref())?;
    super::tenants::known(&dashboard, &actor, tenant).await?;
    let found = apps::list(&dashboard, &actor, tenant).await?;
    let is_wanted =
        |app: &&apps::App| query.region.as_ref().is_none_or(|region| *region == app.region.code());
    let found = found.iter().filter(is_wanted).map(App::from).collect();
    Ok(paging.render_part(found, |app| format!("{:020} {}", app.created_at, app.id)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewApp, example = json!({ "name": "Notes", "region": "aws-eu-west-1", "allowedDomains": ["notes.example.com"] }))]
struct NewAppBody {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Where the app's metadata will be; it can't be changed later.
    region: String,
    /// Up to three hosts, such as `myapp.com` or `localhost:3000`. None: any page may use the app.
    #[serde(default)]
    #[schema(max_items = 3)]
    allowed_domains: Vec<String>,
}

/// Make an app
///
/// The answer has the client secret, this once. The app gets tokens when it has a plan.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps", tag = "apps", operation_id = "createApp",
    request_body = NewAppBody, responses((status = 201, description = "Made", body = AppWithSecret)))]
async fn create(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Payload(body): Payload<NewAppBody>,
) -> Result<Response, Problem> {
    let region = body.region.parse::<LicenseRegion>();
    let region = region.map_err(|error| Problem::invalid("/region", error.to_string()))?;
    let allowed_domains = domains_of(&body.allowed_domains)?;
    let new = NewApp { name: body.name, region, allowed_domains };
    let credentials = apps::create(&dashboard, &actor, tenant, new).await?;
    let app = apps::read(&dashboard, &actor, tenant, credentials.app).await?;
    let location = format!("/api/v1/tenants/{tenant}/apps/{}", app.id);
    let body = AppWithSecret { app: App::from(&app), client_secret: credentials.client_secret };
    Ok(([(header::LOCATION, location)], uncached(StatusCode::CREATED, &body)).into_response())
}

/// Read an app
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "readApp",
    responses((status = 200, description = "The app", body = App)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    show(&dashboard, &actor, tenant, app).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Notes 2" }))]
struct AppChange {
    /// 1 to 100 characters. Left out: as it is.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Replaces them all. Left out: as they are.
    #[schema(max_items = 3)]
    allowed_domains: Option<Vec<String>>,
}

/// Change an app's name or allowed domains
#[utoipa::path(patch, path = "/api/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "updateApp",
    request_body = AppChange, responses((status = 200, description = "Changed", body = App)))]
async fn update(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
    if_match: IfMatch,
    Payload(change): Payload<AppChange>,
) -> Result<Response, Problem> {
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    if_match.check(&App::from(&app))?;
    let domains = match &change.allowed_domains {
        Some(domains) => domains_of(domains)?,
        None => app.allowed_domains.clone(),
    };
    let name = change.name.as_deref().unwrap_or(&app.name);
    apps::update(&dashboard, &actor, &app, name, &domains).await?;
    show(&dashboard, &actor, tenant, id).await
}

/// Delete an app
///
/// No new tokens, its refresh tokens are dead and its plan ends. Live sessions run until their tokens expire.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "deleteApp",
    responses((status = 204, description = "Deleted")))]
async fn delete(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    if_match.check(&App::from(&app))?;
    apps::delete(&dashboard, &actor, &app).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give an app a new secret
///
/// The answer has it, this once. The old one and every refresh token that came of it are dead at once.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/regenerate-secret", tag = "apps",
    operation_id = "regenerateSecret", responses((status = 200, description = "Regenerated", body = AppWithSecret)))]
async fn regenerate(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    let credentials = apps::regenerate_secret(&dashboard, &actor, &app).await?;
    let body = AppWithSecret { app: App::from(&app), client_secret: credentials.client_secret };
    Ok(uncached(StatusCode::OK, &body))
}

/// Hosts whose pages may use an app.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "allowedDomains": ["notes.example.com", "localhost:3000"] }))]
struct AllowedDomains {
    /// None: any.
    #[schema(max_items = 3)]
    allowed_domains: Vec<String>,
}

impl From<&apps::App> for AllowedDomains {
    fn from(app: &apps::App) -> Self {
        Self { allowed_domains: app.allowed_domains.iter().map(ToString::to_string).collect() }
    }
}

/// Read an app's allowed domains
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps/{app}/allowed-domains", tag = "apps",
    operation_id = "readAllowedDomains",
    responses((status = 200, description = "The domains", body = AllowedDomains)))]
async fn read_domains(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    Ok(Entity(AllowedDomains::from(&app)).into_response())
}

/// Replace an app's allowed domains
///
/// Scheme and trailing slash go, letters become small. New tokens have the new domains.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/apps/{app}/allowed-domains", tag = "apps",
    operation_id = "replaceAllowedDomains", request_body = AllowedDomains,
    responses((status = 200, description = "Replaced", body = AllowedDomains)))]
async fn replace_domains(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
    if_match: IfMatch,
    Payload(body): Payload<AllowedDomains>,
) -> Result<Response, Problem> {
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    if_match.check(&AllowedDomains::from(&app))?;
    apps::update(&dashboard, &actor, &app, &app.name, &domains_of(&body.allowed_domains)?).await?;
    let app = apps::read(&dashboard, &actor, tenant, id).await?;
    Ok(Entity(AllowedDomains::from(&app)).into_response())
}

async fn show(dashboard: &Dashboard, actor: &Actor, tenant: Uuid, app: Uuid) -> Result<Response, Problem> {
    let app = apps::read(dashboard, actor, tenant, app).await?;
    Ok(Entity(App::from(&app)).into_response())
}

fn domains_of(written: &[String]) -> Result<Vec<AllowedDomain>, Problem> {
    let each = |(index, text): (usize, &String)| {
        text.parse::<AllowedDomain>()
            .map_err(|error| Problem::invalid(format!("/allowedDomains/{index}"), error.to_string()))
    };
    written.iter().enumerate().map(each).collect()
}
