//! What each operation's error is to its caller: one table of statuses.
//!
//! Whoever may not know of a thing is told that there is none. Member names are those of the requests' bodies.

use super::Problem;
use crate::dashboard::access::Denied;
use crate::dashboard::accounts::AccountError;
use crate::dashboard::api_keys::ApiKeyError;
use crate::dashboard::apps::AppError;
use crate::dashboard::audit::FindError;
use crate::dashboard::billing::invoices::InvoiceError;
use crate::dashboard::billing::payments::PaymentError;
use crate::dashboard::invitations::InvitationError;
use crate::dashboard::keys::KeysError;
use crate::dashboard::mail::MailError;
use crate::dashboard::members::MemberError;
use crate::dashboard::plans::PlanError;
use crate::dashboard::sign_up::SignUpError;
use crate::dashboard::signer::SignerError;
use crate::dashboard::subscriptions::SubscriptionError;
use crate::dashboard::tenants::TenantError;

impl From<Denied> for Problem {
    fn from(error: Denied) -> Self {
        match error {
            Denied::NotLoggedIn => Self::unauthorized("the credential is not good (any more)"),
            Denied::NoSuchTenant => Self::not_found(error.to_string()),
            Denied::Role { .. } => Self::forbidden(error.to_string()),
            Denied::Store(error) => error.into(),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        let detail = error.to_string();
        match error {
            AccountError::Email(_) => Self::invalid("/email", detail),
            AccountError::Name => Self::invalid("/name", detail),
            AccountError::Password(_) => Self::invalid("/password", detail),
            AccountError::Exists(_) => Self::conflict(detail),
            AccountError::Missing => Self::not_found(detail),
            AccountError::Denied(error) => error.into(),
            AccountError::Store(error) => error.into(),
        }
    }
}

impl From<TenantError> for Problem {
    fn from(error: TenantError) -> Self {
        let detail = error.to_string();
        match error {
            TenantError::Name => Self::invalid("/name", detail),
            // As it is said to those who may not know whether it exists.
            TenantError::Missing(_) => Denied::NoSuchTenant.into(),
            TenantError::Changed => Self::changed(),
            TenantError::State { .. } => Self::conflict(detail),
            TenantError::Key(error) => error.into(),
            TenantError::Member(error) => error.into(),
            TenantError::Denied(error) => error.into(),
            TenantError::Store(error) => error.into(),
        }
    }
}

impl From<SignUpError> for Problem {
    fn from(error: SignUpError) -> Self {
        match error {
            SignUpError::Tenant(error @ TenantError::Name) => Self::invalid("/tenantName", error.to_string()),
            SignUpError::Tenant(error) => error.into(),
            SignUpError::Account(error) => error.into(),
            SignUpError::Store(error) => error.into(),
        }
    }
}

impl From<MemberError> for Problem {
    fn from(error: MemberError) -> Self {
        let detail = error.to_string();
        match error {
            MemberError::Role => Self::invalid("/role", detail),
            MemberError::Exists | MemberError::LastOwner => Self::conflict(detail),
            MemberError::Missing => Self::not_found(detail),
            MemberError::Changed => Self::changed(),
            MemberError::Denied(error) => error.into(),
            MemberError::Store(error) => error.into(),
        }
    }
}

impl From<InvitationError> for Problem {
    fn from(error: InvitationError) -> Self {
        let detail = error.to_string();
        match error {
            InvitationError::Role => Self::invalid("/role", detail),
            InvitationError::Member(_)
            | InvitationError::Exists(_)
            | InvitationError::TooMany
            | InvitationError::Closed
            | InvitationError::Inviter => Self::conflict(detail),
            InvitationError::Missing => Self::not_found(detail),
            InvitationError::Token => Self::invalid("/token", detail),
            InvitationError::NewcomerNeeded | InvitationError::AccountExists => {
                Self::invalid("/password", detail)
            }
            InvitationError::Mail(error) => error.into(),
            InvitationError::Account(error) => error.into(),
            InvitationError::Membership(error) => error.into(),
            InvitationError::Denied(error) => error.into(),
            InvitationError::Store(error) => error.into(),
        }
    }
}

impl From<MailError> for Problem {
    fn from(error: MailError) -> Self {
        match error {
            MailError::NotConfigured => Self::unavailable(error.to_string()),
            MailError::Recipient(_) => Self::invalid("/email", error.to_string()),
            MailError::LogIn(source) => {
                let error = source.to_string();
                tracing::error!(%error, "the mail relay refuses the user name or password of mail.smtp_url");
                Self::bad_gateway(
                    "the mail relay refuses the dashboard's own user name or password, so nobody is invited; its operator \
                     corrects mail.smtp_url",
                )
            }
            error => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "a letter could not be sent");
                Self::bad_gateway("the mail could not be sent, so nobody is invited; try again later")
            }
        }
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        let detail = error.to_string();
        match error {
            AppError::Name => Self::invalid("/name", detail),
            AppError::TooManyDomains(_) => Self::invalid("/allowedDomains", detail),
            AppError::Region(_) => Self::invalid("/region", detail),
            AppError::TooMany | AppError::TenantState(_) => Self::conflict(detail),
            AppError::Missing => Self::not_found(detail),
            AppError::Changed => Self::changed(),
            AppError::Denied(error) => error.into(),
            AppError::Store(error) => error.into(),
        }
    }
}

impl From<KeysError> for Problem {
    fn from(error: KeysError) -> Self {
        let detail = error.to_string();
        match error {
            KeysError::Rotating | KeysError::NoActive => Self::conflict(detail),
            KeysError::Missing(_) => Self::not_found(detail),
            KeysError::Signer(SignerError::Overloaded) => Self::unavailable(detail),
            KeysError::Denied(error) => error.into(),
            KeysError::Store(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        let detail = error.to_string();
        match error {
            ApiKeyError::Name => Self::invalid("/name", detail),
            ApiKeyError::Role => Self::invalid("/role", detail),
            ApiKeyError::Expiry => Self::invalid("/expiresAt", detail),
            ApiKeyError::TooMuch(_) => Self::forbidden(detail),
            ApiKeyError::TooMany => Self::conflict(detail),
            ApiKeyError::Missing => Self::not_found(detail),
            ApiKeyError::Invalid => Self::unauthorized(detail),
            ApiKeyError::Denied(error) => error.into(),
            ApiKeyError::Store(error) => error.into(),
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let detail = error.to_string();
        match error {
            PlanError::Id(_) => Self::invalid("/id", detail),
            PlanError::Name => Self::invalid("/name", detail),
            PlanError::Limit(limit) => Self::invalid(format!("/limits/{limit}"), detail),
            PlanError::Price => Self::invalid("/priceCents", detail),
            PlanError::Currency(_) => Self::invalid("/currency", detail),
            PlanError::Exists(_) => Self::conflict(detail),
            PlanError::Missing(_) => Self::not_found(detail),
            PlanError::Changed => Self::changed(),
            PlanError::Denied(error) => error.into(),
            PlanError::Store(error) => error.into(),
        }
    }
}

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Self {
        let detail = error.to_string();
        match error {
            SubscriptionError::Plan(_) => Self::invalid("/plan", detail),
            SubscriptionError::App => Self::not_found(detail),
            SubscriptionError::Stale => Self::stale_quote(detail),
            SubscriptionError::Exists
            | SubscriptionError::Same
            | SubscriptionError::FreeTaken
            | SubscriptionError::Currency { .. }
            | SubscriptionError::PastDue(_)
            | SubscriptionError::Unpaid(_)
            | SubscriptionError::TenantState(_)
            | SubscriptionError::Missing
            | SubscriptionError::NotCancelled => Self::conflict(detail),
            SubscriptionError::Denied(error) => error.into(),
            SubscriptionError::Store(error) => error.into(),
        }
    }
}

impl From<InvoiceError> for Problem {
    fn from(error: InvoiceError) -> Self {
        let detail = error.to_string();
        match error {
            InvoiceError::Missing => Self::not_found(detail),
            InvoiceError::NotOpen { .. } => Self::conflict(detail),
            InvoiceError::Reference => Self::invalid("/reference", detail),
            InvoiceError::Payment(PaymentError::Amount(_)) => Self::invalid("/amountCents", detail),
            InvoiceError::Payment(_) => Self::unprocessable(detail),
            InvoiceError::Denied(error) => error.into(),
            InvoiceError::Store(error) => error.into(),
        }
    }
}

impl From<FindError> for Problem {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Denied(error) => error.into(),
            FindError::Store(error) => error.into(),
        }
    }
}
