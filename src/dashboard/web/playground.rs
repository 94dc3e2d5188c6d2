//! The playground on a tenant's own app: the page of `crate::playground`, and the token that it connects with.
//!
//! Which app it is, the session remembers: neither the app's token nor a way to ask for another's is in a URL.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use uuid::Uuid;

use super::failure::Failure;
use super::visit::{Guest, Member, Path, Posted};
use crate::dashboard::access::{Action, Actor, require};
use crate::dashboard::http::Problem;
use crate::dashboard::tokens::{self, Access};
use crate::dashboard::{Dashboard, apps, nodes, sessions};
use crate::playground;

pub(super) fn router() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/playground", get(show))
        .route("/playground/", get(show))
        .route("/playground/config.json", get(config))
        .route("/playground/{*path}", get(|Path(path): Path<String>| async move { file(&path) }))
}

pub(super) async fn open(
    Path((tenant, app)): Path<(String, Uuid)>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let app = apps::read(member.dashboard(), &member.actor(), place.tenant.id, app).await?;
    sessions::choose_playground(member.dashboard(), &member.session, place.tenant.id, app.id).await?;
    Ok(Redirect::to("/playground").into_response())
}

async fn show(member: Member) -> Response {
    // Without an app there is nothing to connect to.
    if member.session.playground.is_none() { Redirect::to("/").into_response() } else { file("") }
}

fn file(path: &str) -> Response {
    match playground::asset(path) {
        Some(asset) => {
            ([(header::REFERRER_POLICY, "same-origin")], asset.headers(), asset.bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A node's address and a fresh token of the session's app: the token that its own client would get. Whoever may make the
/// app a new secret could get one anyway.
async fn config(guest: Guest) -> Result<Response, Problem> {
    let dashboard = &guest.dashboard;
    let session = guest.session.as_ref().filter(|session| !session.is_half);
    let session = session.ok_or_else(|| Problem::unauthorized("log in to the dashboard again"))?;
    let none = || Problem::not_found("open the playground from the page of one of your apps");
    let (tenant, app) = session.playground.ok_or_else(none)?;
    let actor = Actor::account(session.account.id, guest.address);
    let mut tx = dashboard.home.begin_read().await?;
    let allowed = require(&mut tx, &actor, Action::RegenerateSecrets, Some(tenant)).await;
    allowed.map_err(|error| Problem::forbidden(error.to_string()))?;
    drop(tx);
    let app = apps::find(dashboard, tenant, app).await?.ok_or_else(none)?;
    let node = nodes::nearest(dashboard, app.region).await?;
    let node =
        node.ok_or_else(|| Problem::unavailable("no node is up that the playground could connect to"))?;
    let refused = |error: tokens::TokenError| Problem::forbidden(error.to_string());
    let plan = tokens::entitlement(dashboard, &app).await.map_err(refused)?;
    let token = tokens::issue(dashboard, &app, &plan, &Access::full()).await.map_err(refused)?;
    let body =
        json!({ "ws": node, "direct": true, "token": token.token, "version": env!("CARGO_PKG_VERSION") });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
