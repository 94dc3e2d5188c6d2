//! What is around every page.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::assets;
use crate::dashboard::access::{Action, Role, may};
use crate::dashboard::accounts::Account;
use crate::dashboard::tenants::{Tenant, TenantState};

/// What happened before a redirect, by the word in its query: texts are ours alone, nobody can put words into a page.
const NOTICES: &[(&str, &str)] = &[
    (
        "signed-up",
        "Your tenant waits for approval. You will see it here as active once an operator has looked at it.",
    ),
    ("tenant-created", "The tenant waits for approval."),
    ("app-saved", "Saved. New tokens carry the change; those out there run on until they expire."),
    ("app-deleted", "The app is deleted. Its tokens run on until they expire, and there are no new ones."),
    ("plan-chosen", "The app has its plan. It can get tokens now."),
    ("plan-cancelled", "The plan is cancelled. It runs to the end of its period."),
    ("plan-goes-on", "The cancellation is taken back. The plan goes on."),
    ("plan-changed", "The plan is changed. New tokens carry its limits, and nodes know them in a moment."),
    ("plan-invoiced", "The plan is changed. This is its invoice."),
    (
        "payment-under-way",
        "This invoice is marked as paid once the payment provider has told us. Load this page again to see.",
    ),
    ("invoice-paid", "The invoice is paid."),
    ("invoice-part-paid", "The payment is written down. The rest is still due."),
    ("invoice-written-off", "The invoice is written off. Nothing is due any more."),
    ("plan-made", "The plan is on offer."),
    ("plan-version-made", "The new version is what can be chosen now. Who has an older one keeps it."),
    ("plan-offered", "The plan is back on offer."),
    ("plan-retired", "The plan is retired. Who has it keeps it."),
    ("role-changed", "The role is changed. It counts from now on."),
    ("invited", "The mail is out. They are a member once they accept."),
    ("invitation-withdrawn", "The invitation is withdrawn. Its link is dead."),
    ("member-added", "They are a member now."),
    ("joined", "Welcome. You are a member now."),
    ("joined-log-in", "You are a member now. Log in to go on."),
    ("api-key-revoked", "The key is revoked, and every key that was made with it."),
    ("member-removed", "They are no member any more."),
    (
        "key-rotating",
        "A new key is published. It takes over when every verifier has it; nobody is disconnected.",
    ),
    ("key-revoked", "The key is revoked. Sessions with tokens that it signed end now."),
    ("approved", "Approved. The tenant has its key pair and can make apps."),
    ("suspended", "Suspended. The tenant gets no new tokens."),
    ("resumed", "The tenant is active again."),
    ("draining", "The node is told to drain with its next heartbeat."),
    ("undraining", "The node is told to take connections again with its next heartbeat."),
    ("node-removed", "The node is out of the registry."),
    ("password-changed", "Your password is changed. Other browsers are logged out."),
    ("second-factor-off", "The second factor is off."),
    ("session-ended", "That browser is logged out."),
    ("logged-out", "You are logged out."),
    ("logged-out-everywhere", "You are logged out everywhere."),
];

/// A tenant, and what the one who looks may do in it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub tenant: Tenant,
    pub role: Role,
}

impl Place {
    pub fn may(&self, action: &Action) -> bool {
        may(self.role, *action)
    }

    pub fn is_active(&self) -> bool {
        self.tenant.state == TenantState::Active
    }

    /// The page within this tenant.
    pub fn at(&self, page: &str) -> String {
        format!("/tenants/{}/{page}", self.tenant.id)
    }

    /// Where whoever comes to the tenant goes first: not everybody may see apps.
    pub fn first_page(&self) -> String {
        let pages = [("apps", Action::ReadApps), ("billing", Action::ReadBilling)];
        let first = pages.into_iter().find(|(_, action)| may(self.role, *action));
        self.at(first.map_or("members", |(page, _)| page))
    }
}

/// A link of the navigation.
#[derive(Debug)]
pub(super) struct Link {
    pub to: String,
    pub label: &'static str,
    pub is_here: bool,
}

/// What is around a page: who looks, where he is, what has just happened.
#[derive(Debug)]
pub(super) struct Shell {
    pub form_token: String,
    pub section: &'static str,
    pub email: Option<String>,
    pub is_operator: bool,
    pub place: Option<Place>,
    pub notice: Option<&'static str>,
    pub style: &'static str,
    pub script: &'static str,
    pub icon: &'static str,
}

impl Shell {
    pub fn new(form_token: String, section: &'static str) -> Self {
        Self {
            form_token,
            section,
            email: None,
            is_operator: false,
            place: None,
            notice: None,
            style: assets::address("style.css"),
            script: assets::address("app.js"),
            icon: assets::address("icon.svg"),
        }
    }

    pub fn of(self, account: &Account) -> Self {
        Self { email: Some(account.email.clone()), is_operator: account.is_operator, ..self }
    }

    pub fn within(self, place: &Place) -> Self {
        Self { place: Some(place.clone()), ..self }
    }

    /// What the query's `done` stands for.
    pub fn after(self, done: &Done) -> Self {
        let known = NOTICES.iter().find(|(word, _)| Some(*word) == done.done.as_deref());
        Self { notice: known.map(|(_, text)| *text), ..self }
    }

    /// The pages of the tenant that this role may see.
    pub fn tenant_links(&self) -> Vec<Link> {
        let pages: &[(&str, &str, Action)] = &[
            ("apps", "Apps", Action::ReadApps),
            ("billing", "Billing", Action::ReadBilling),
            ("members", "Members", Action::ReadTenant),
            ("keys", "Keys", Action::ReadKeys),
            ("api-keys", "API keys", Action::ManageApiKeys),
            ("inspector", "Token inspector", Action::ReadKeys),
            ("audit", "Audit", Action::ReadAudit),
        ];
        let Some(place) = &self.place else { return Vec::new() };
        let allowed = pages.iter().filter(|(.., action)| may(place.role, *action));
        let link = |(page, label, _): &(&'static str, &'static str, Action)| Link {
            to: place.at(page),
            label,
            is_here: self.section == *page,
        };
        allowed.map(link).collect()
    }

    pub fn operator_links(&self) -> Vec<Link> {
        let pages = [
            ("/operator/tenants", "All tenants", "operator-tenants"),
            ("/operator/nodes", "Nodes", "operator-nodes"),
            ("/operator/plans", "Plans", "operator-plans"),
            ("/operator/invoices", "Open invoices", "operator-invoices"),
            ("/operator/audit", "Audit of all", "operator-audit"),
        ];
        let link = |(to, label, section): (&str, &'static str, &str)| Link {
            to: to.to_owned(),
            label,
            is_here: self.section == section,
        };
        if self.is_operator { pages.map(link).into() } else { Vec::new() }
    }
}

/// The query of a page after a redirect.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Done {
    pub done: Option<String>,
}

/// A page as an answer.
pub(super) fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// A form that comes back with what is wrong.
pub(super) fn again(template: &impl Template) -> Response {
    page_with(StatusCode::UNPROCESSABLE_ENTITY, template)
}

pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(super) fn redirect(to: &str, done: &str) -> Response {
    debug_assert!(NOTICES.iter().any(|(word, _)| *word == done), "{done} says nothing");
    Redirect::to(&format!("{to}?done={done}")).into_response()
}
