//! What is around every page, and the pages that say why there is none.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::assets;
use super::form::sentence;
use crate::dashboard::access::{Action, Denied, Role, may};
use crate::dashboard::accounts::{Account, AccountError};
use crate::dashboard::api_keys::ApiKeyError;
use crate::dashboard::apps::AppError;
use crate::dashboard::audit::FindError;
use crate::dashboard::billing::invoices::InvoiceError;
use crate::dashboard::invitations::InvitationError;
use crate::dashboard::keys::KeysError;
use crate::dashboard::mail::MailError;
use crate::dashboard::members::MemberError;
use crate::dashboard::nodes::NodeError;
use crate::dashboard::plans::PlanError;
use crate::dashboard::sign_up::SignUpError;
use crate::dashboard::store::StoreError;
use crate::dashboard::subscriptions::SubscriptionError;
use crate::dashboard::tenants::{Tenant, TenantError, TenantState};
use crate::dashboard::tokens::TokenError;
use crate::dashboard::totp::TotpError;
use crate::dashboard::usage::UsageError;

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

/// Why there is no page.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    title: &'static str,
    /// What a form shows beside its fields, where there is one.
    pub text: String,
    retry_after_s: Option<i64>,
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    shell: Shell,
    title: &'a str,
    text: &'a str,
}

impl Failure {
    fn new(status: StatusCode, title: &'static str, text: &str) -> Self {
        Self { status, title, text: sentence(text), retry_after_s: None }
    }

    pub fn missing(text: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Nothing here", text)
    }

    pub fn forbidden(text: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not allowed", text)
    }

    /// An operation that said no, in its own words.
    pub fn told(text: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "That did not work", text)
    }

    /// Whether the one who sent the form can mend it: then the form shows what was wrong.
    pub fn is_told(&self) -> bool {
        self.status == StatusCode::UNPROCESSABLE_ENTITY
    }

    pub fn too_many(wait_s: i64) -> Self {
        let text = "Too many attempts failed from your address. Wait ten minutes, then try again.";
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", text);
        Self { retry_after_s: Some(wait_s.max(1)), ..failure }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let shell = Shell::new(String::new(), "");
        let mut response =
            page_with(self.status, &FailurePage { shell, title: self.title, text: &self.text });
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%error, source, "a page failed");
        let text = "The dashboard failed; its operator finds the cause in the log.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something broke", text)
    }
}

impl From<Denied> for Failure {
    fn from(error: Denied) -> Self {
        match error {
            Denied::Store(error) => error.into(),
            Denied::NoSuchTenant => Self::missing(&error.to_string()),
            Denied::NotLoggedIn | Denied::Role { .. } => Self::forbidden(&error.to_string()),
        }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Denied(error) => error.into(),
            FindError::Store(error) => error.into(),
        }
    }
}

impl From<MemberError> for Failure {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Denied(error) => error.into(),
            MemberError::Store(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Denied(error) => error.into(),
            KeysError::Store(error) => error.into(),
            KeysError::Generate(_) | KeysError::Sealed { .. } => {
                tracing::error!(%error, "a key operation failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something broke",
                    "The dashboard could not use its keys; its operator finds the cause in the log.",
                )
            }
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<TenantError> for Failure {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Denied(error) => error.into(),
            TenantError::Store(error) => error.into(),
            TenantError::Key(error) => error.into(),
            TenantError::Member(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Denied(error) => error.into(),
            AppError::Store(error) => error.into(),
            AppError::Missing => Self::missing(&error.to_string()),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<SubscriptionError> for Failure {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Denied(error) => error.into(),
            SubscriptionError::Store(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Denied(error) => error.into(),
            PlanError::Store(error) => error.into(),
            PlanError::Missing(_) => Self::missing(&error.to_string()),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<InvoiceError> for Failure {
    fn from(error: InvoiceError) -> Self {
        match error {
            InvoiceError::Denied(error) => error.into(),
            InvoiceError::Store(error) => error.into(),
            InvoiceError::Missing => Self::missing(&error.to_string()),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Denied(error) => error.into(),
            NodeError::Store(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Denied(error) => error.into(),
            AccountError::Store(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<SignUpError> for Failure {
    fn from(error: SignUpError) -> Self {
        match error {
            SignUpError::Account(error) => error.into(),
            SignUpError::Tenant(error) => error.into(),
            SignUpError::Store(error) => error.into(),
        }
    }
}

impl From<TotpError> for Failure {
    fn from(error: TotpError) -> Self {
        match error {
            TotpError::Denied(error) => error.into(),
            TotpError::Store(error) => error.into(),
            TotpError::Sealed(_) => {
                tracing::error!(%error, "a second factor can't be checked");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something broke",
                    "The dashboard can't open the second factor; its operator finds the cause in the log.",
                )
            }
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            TokenError::Key(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Denied(error) => error.into(),
            UsageError::Store(error) => error.into(),
            UsageError::Node(error) => error.into(),
            other @ UsageError::Report => Self::told(&other.to_string()),
        }
    }
}

impl From<ApiKeyError> for Failure {
    fn from(error: ApiKeyError) -> Self {
        match error {
            ApiKeyError::Denied(error) => error.into(),
            ApiKeyError::Store(error) => error.into(),
            other => Self::told(&other.to_string()),
        }
    }
}

impl From<InvitationError> for Failure {
    fn from(error: InvitationError) -> Self {
        match error {
            InvitationError::Denied(error) => error.into(),
            InvitationError::Store(error) => error.into(),
            InvitationError::Account(error) => error.into(),
            InvitationError::Membership(error) => error.into(),
            InvitationError::Mail(error @ (MailError::NotConfigured | MailError::Recipient(_))) => {
                Self::told(&error.to_string())
            }
            InvitationError::Mail(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "an invitation could not be sent");
                Self::told(
                    "the mail could not be sent, so nobody is invited; try again, or ask the operator of this dashboard",
                )
            }
            other => Self::told(&other.to_string()),
        }
    }
}
