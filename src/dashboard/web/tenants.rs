//! The tenants of an account, and making one more.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Place, Shell, again, page};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::tenants;

#[derive(Template)]
#[template(path = "tenants.html")]
struct TenantsPage {
    shell: Shell,
    places: Vec<Place>,
}

#[derive(Template)]
#[template(path = "tenant_new.html")]
struct NewTenantPage<'a> {
    shell: Shell,
    form: &'a Fields,
}

pub(super) async fn list(member: Member, Query(done): Query<Done>) -> Result<Response, Failure> {
    let of_account = tenants::of_account(member.dashboard(), member.account().id).await?;
    let places = of_account.into_iter().map(|(tenant, role)| Place { tenant, role }).collect();
    Ok(page(&TenantsPage { shell: member.shell("tenants").after(&done), places }))
}

pub(super) async fn show(member: Member, Path(tenant): Path<String>) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    Ok(Redirect::to(&place.first_page()).into_response())
}

pub(super) async fn new(member: Member) -> Response {
    page(&NewTenantPage { shell: member.shell("tenants"), form: &Fields::default() })
}

pub(super) async fn create(Posted(member, mut form): Posted<Member>) -> Result<Response, Failure> {
    let owner = member.account().id;
    let created = tenants::create(member.dashboard(), &member.actor(), form.get("name"), owner).await;
    match created.map_err(Failure::from) {
        Ok(tenant) => {
            Ok(Redirect::to(&format!("/tenants/{tenant}/apps?done=tenant-created")).into_response())
        }
        Err(failure) if failure.is_told() => {
            form.wrong("name", &failure.text);
            Ok(again(&NewTenantPage { shell: member.shell("tenants"), form: &form }))
        }
        Err(failure) => Err(failure),
    }
}
