//! The web UI: pages made on the server, which work without JavaScript.
//!
//! - A page calls the same operations as everything else, on behalf of the account of its session; what a role may not do
//!   is not shown, and refused all the same.
//! - Whatever changes something is a POST whose `Origin` is ours and whose form holds the session's token (`visit`).
//! - Every answer carries a policy that lets nothing in but our own files (`headers`), and is not stored anywhere. A
//!   secret is in the body of one answer, never in a URL.
//! - Answers to a good POST redirect, so that loading again repeats nothing; the one exception is an answer that shows a
//!   secret once.
//!
//! Absent: rules and SQL, which are the domain modules'.

mod account;
mod api_keys;
mod app_pages;
mod apps;
mod assets;
mod audit;
mod bill;
mod billing;
pub(super) mod cookie;
mod entry;
mod failure;
mod form;
mod gauge;
mod headers;
mod inspector;
mod invitations;
mod invoice;
mod keys;
mod login;
mod members;
mod nodes;
mod operator;
mod operator_invoices;
mod operator_plans;
mod page;
mod plan;
mod plan_confirm;
mod playground;
mod qr;
mod standing;
mod tenants;
mod text;
mod usage;
mod visit;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, http::header};

use super::Dashboard;
use super::http::Problem;
use failure::Failure;
pub(super) use visit::is_ours;

/// Forms hold a few short fields and at most one token.
const FORM_BYTES_MAX: usize = 64 << 10;

pub(super) fn router() -> Router<Arc<Dashboard>> {
    let pages = Router::new()
        .merge(at_the_door())
        .merge(of_a_tenant())
        .merge(of_an_app())
        .merge(of_money())
        .merge(of_the_platform())
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn(headers::for_pages));
    pages.merge(playground::router()).route("/assets/{name}", get(assets::asset))
}

fn at_the_door() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/", get(login::home))
        .route("/login", get(login::form).post(login::log_in))
        .route("/login/code", get(login::code_form).post(login::check_code))
        .route("/logout", post(login::log_out))
        .route("/signup", get(entry::form).post(entry::sign_up))
        .route("/account", get(account::show))
        .route("/account/password", get(account::password_form).post(account::change_password))
        .route("/account/second-factor", get(account::second_factor).post(account::begin_second_factor))
        .route("/account/second-factor/confirm", post(account::confirm_second_factor))
        .route("/account/second-factor/off", post(account::turn_second_factor_off))
        .route("/account/second-factor/codes", post(account::new_recovery_codes))
        .route("/invitation", get(invitations::code_form).post(invitations::look))
        .route("/invitation/accept", post(invitations::accept))
        .route("/account/sessions/end", post(account::end_session))
        .route("/account/sessions/end-all", post(account::end_all_sessions))
}

fn of_a_tenant() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/tenants", get(tenants::list))
        .route("/tenants/new", get(tenants::new).post(tenants::create))
        .route("/tenants/{tenant}", get(tenants::show))
        .route("/tenants/{tenant}/members", get(members::list))
        .route("/tenants/{tenant}/members/role", post(members::change_role))
        .route("/tenants/{tenant}/members/remove", post(members::remove))
        .route("/tenants/{tenant}/members/invite", post(members::invite))
        .route("/tenants/{tenant}/members/withdraw", post(members::withdraw))
        .route("/tenants/{tenant}/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/tenants/{tenant}/api-keys/revoke", post(api_keys::revoke))
        .route("/tenants/{tenant}/keys", get(keys::list))
        .route("/tenants/{tenant}/keys/rotate", post(keys::rotate))
        .route("/tenants/{tenant}/keys/revoke", post(keys::revoke))
        .route("/tenants/{tenant}/audit", get(audit::of_tenant))
        .route("/tenants/{tenant}/audit/export", get(audit::export_of_tenant))
        .route("/tenants/{tenant}/inspector", get(inspector::form).post(inspector::inspect))
}

fn of_an_app() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/tenants/{tenant}/apps", get(apps::list))
        .route("/tenants/{tenant}/apps/new", get(apps::new).post(apps::create))
        .route("/tenants/{tenant}/apps/{app}", get(app_pages::show))
        .route("/tenants/{tenant}/apps/{app}/edit", get(apps::edit).post(apps::update))
        .route("/tenants/{tenant}/apps/{app}/secret", post(app_pages::regenerate))
        .route("/tenants/{tenant}/apps/{app}/plan", get(plan::show).post(plan::choose))
        .route("/tenants/{tenant}/apps/{app}/plan/confirm", get(plan::confirm))
        .route("/tenants/{tenant}/apps/{app}/plan/cancel", post(plan::cancel))
        .route("/tenants/{tenant}/apps/{app}/plan/keep", post(plan::take_cancellation_back))
        .route("/tenants/{tenant}/apps/{app}/quick-start", get(app_pages::quick_start))
        .route("/tenants/{tenant}/apps/{app}/playground", post(playground::open))
        .route("/tenants/{tenant}/apps/{app}/delete", post(app_pages::delete))
        .route("/tenants/{tenant}/apps/{app}/usage", get(usage::show))
        .route("/tenants/{tenant}/apps/{app}/usage/points", get(usage::points))
}

fn of_money() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/tenants/{tenant}/billing", get(billing::show))
        .route("/tenants/{tenant}/billing/invoices/{invoice}", get(invoice::show))
        .route("/tenants/{tenant}/billing/invoices/{invoice}/paid", post(invoice::mark_paid))
        .route("/tenants/{tenant}/billing/invoices/{invoice}/write-off", post(invoice::write_off))
        .route("/operator/plans", get(operator_plans::list))
        .route("/operator/plans/new", get(operator_plans::new).post(operator_plans::create))
        .route("/operator/plans/{plan}", get(operator_plans::show).post(operator_plans::change))
        .route("/operator/plans/{plan}/offer", post(operator_plans::offer))
        .route("/operator/invoices", get(operator_invoices::list))
}

fn of_the_platform() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/operator/tenants", get(operator::tenants))
        .route("/operator/tenants/{tenant}/approve", post(operator::approve))
        .route("/operator/tenants/{tenant}/suspend", post(operator::suspend))
        .route("/operator/tenants/{tenant}/resume", post(operator::resume))
        .route("/operator/nodes", get(nodes::list))
        .route("/operator/nodes/enrolment", post(nodes::create_enrolment))
        .route("/operator/nodes/drain", post(nodes::drain))
        .route("/operator/nodes/undrain", post(nodes::undrain))
        .route("/operator/nodes/remove", post(nodes::remove))
        .route("/operator/audit", get(audit::of_platform))
        .route("/operator/audit/export", get(audit::export_of_platform))
}

/// What is at no address: a page for people, problem details for programs.
pub(super) async fn not_found(headers: HeaderMap) -> Response {
    match reads_pages(&headers) {
        true => headers::protect(Failure::nothing_here().into_response()),
        false => Problem::not_found("there is nothing at this address").into_response(),
    }
}

/// The same for an address that is there, but not for this method.
pub(super) async fn wrong_method(headers: HeaderMap) -> Response {
    match reads_pages(&headers) {
        true => headers::protect(Failure::not_a_page().into_response()),
        false => Problem::method_not_allowed().into_response(),
    }
}

fn reads_pages(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}
