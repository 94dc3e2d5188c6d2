//! The signing keys of a tenant: rotation by hand, and revocation.

use askama::Template;
use axum::response::Response;

use super::failure::Failure;
use super::page::{Done, Place, Shell, page, redirect};
use super::text::{Moment, span};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::access::Action;
use crate::dashboard::keys::{self, KeyStatus};

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    shell: Shell,
    place: Place,
    keys: Vec<Row>,
    is_rotating: bool,
    has_active: bool,
    publish_before: String,
    rotate_every: Option<String>,
    jwks: String,
}

struct Row {
    key: KeyStatus,
    /// When its state ends or began, in words.
    when: &'static str,
    at: Moment,
}

impl Row {
    fn new(key: KeyStatus) -> Self {
        let (when, at) = match key.state.as_str() {
            "next" => ("signs from", key.signs_at),
            "retired" => ("verifies until", key.gone_at.unwrap_or(key.created_at)),
            "gone" => ("gone since", key.gone_at.unwrap_or(key.created_at)),
            "revoked" => ("revoked", key.revoked_at.unwrap_or(key.created_at)),
            _ => ("signs since", key.signs_at),
        };
        Self { at: Moment(at), when, key }
    }

    fn can_be_revoked(&self) -> bool {
        matches!(self.key.state.as_str(), "next" | "active" | "retired")
    }
}

impl KeysPage {
    fn may_rotate(&self) -> bool {
        self.place.may(&Action::RotateKeys)
    }

    fn may_revoke(&self) -> bool {
        self.place.may(&Action::RevokeKeys)
    }
}

pub(super) async fn list(
    member: Member,
    Path(tenant): Path<String>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let dashboard = member.dashboard();
    let keys = keys::list(dashboard, &member.actor(), place.tenant.id).await?;
    let settings = dashboard.config.keys;
    Ok(page(&KeysPage {
        shell: member.shell("keys").within(&place).after(&done),
        is_rotating: keys.iter().any(|key| key.state == "next"),
        has_active: keys.iter().any(|key| key.state == "active"),
        publish_before: span(settings.publish_before_s),
        rotate_every: (settings.rotate_every_s > 0).then(|| span(settings.rotate_every_s)),
        jwks: format!("{}/{}/.well-known/jwks", dashboard.config.issuer.as_str(), place.tenant.id),
        keys: keys.into_iter().map(Row::new).collect(),
        place,
    }))
}

pub(super) async fn rotate(
    Path(tenant): Path<String>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    keys::rotate(member.dashboard(), &member.actor(), place.tenant.id).await?;
    Ok(redirect(&place.at("keys"), "key-rotating"))
}

pub(super) async fn revoke(
    Path(tenant): Path<String>,
    Posted(member, form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    keys::revoke(member.dashboard(), &member.actor(), place.tenant.id, form.get("kid")).await?;
    Ok(redirect(&place.at("keys"), "key-revoked"))
}
