//! The pages that say why there is no other.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::form::sentence;
use super::page::{Shell, page_with};
use crate::dashboard::access::Denied;
use crate::dashboard::accounts::AccountError;
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
use crate::dashboard::tenants::TenantError;
use crate::dashboard::tokens::TokenError;
use crate::dashboard::totp::TotpError;
use crate::dashboard::usage::UsageError;

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

    pub fn nothing_here() -> Self {
        Self::missing("There is nothing at this address.")
    }

    /// An address that takes forms, asked for as a page: loaded again, or out of a browser's history.
    pub fn not_a_page() -> Self {
        let text = "This address takes what a form sends; it is no page. Go back to the page of the form.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Nothing to see here", text)
    }

    pub fn too_large() -> Self {
        let text = "That is more than a form takes. Go back, and send less.";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Too much", text)
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
