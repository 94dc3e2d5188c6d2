//! Who collects the money: the seam between invoices and the world.
//!
//! A provider says how an open invoice is paid, and reads what is delivered to its webhook. Two are built in:
//!
//! - [`Manual`]: the tenant reads how to pay, an operator marks the invoice as paid. No webhooks.
//! - [`HostedCheckout`]: the tenant goes to a checkout whose address a template makes; signed webhooks (Standard
//!   Webhooks) say what became of it. An adapter in front of any payment service can speak this; nothing here talks to
//!   one over the network.
//!
//! The amount in a checkout's address is for show: what counts is the amount that a signed webhook names.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use uuid::Uuid;

use super::invoices::Invoice;
use super::standard_webhooks::{self, Delivery, Secret, SignatureError};
use crate::dashboard::config::BillingSettings;
use crate::dashboard::master::KeySource;
use crate::secret_file;

/// What a checkout's address is made of.
pub const PLACEHOLDERS: [&str; 5] = ["{invoiceId}", "{number}", "{amountCents}", "{currency}", "{returnTo}"];

/// How an invoice is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collection {
    /// Send the browser there.
    Checkout { url: String },
    /// Show this.
    Instructions(String),
}

/// What a provider says has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentEvent {
    Succeeded {
        invoice: Uuid,
        payment_id: String,
        amount_cents: i64,
        currency: String,
    },
    Failed {
        invoice: Uuid,
        reason: String,
    },
    Refunded {
        invoice: Uuid,
        refund_id: String,
        amount_cents: i64,
        currency: String,
    },
    /// Nothing that matters here.
    Other(String),
}

/// Why a delivery was not believed, or not understood.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("the payment provider {0} sends no webhooks")]
    NoWebhooks(String),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("the webhook's body is not {{\"type\", \"data\"}} as documented")]
    Body(#[from] serde_json::Error),
}

pub trait PaymentProvider: fmt::Debug + Send + Sync {
    fn name(&self) -> &str;

    fn collect(&self, invoice: &Invoice, return_to: &str) -> Collection;

    /// # Errors
    /// [`DeliveryError`] unless the delivery is the provider's own, and new enough.
    fn read(&self, delivery: &Delivery<'_>, now: i64) -> Result<PaymentEvent, DeliveryError>;
}

/// An operator marks invoices as paid.
#[derive(Debug)]
pub struct Manual {
    pub instructions: String,
}

#[derive(Debug)]
pub struct HostedCheckout {
    pub name: String,
    /// With [`PLACEHOLDERS`].
    pub checkout_url: String,
    pub secrets: Vec<Secret>,
}

/// The providers that are configured.
#[derive(Debug)]
pub struct Providers {
    manual: Manual,
    hosted: BTreeMap<String, HostedCheckout>,
    current: Option<String>,
}

/// Why a webhook secret can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSecretError {
    #[error("could not read the webhook secret of {provider} from {from}")]
    Read { provider: String, from: KeySource, source: std::io::Error },
    #[error(
        "the webhook secret of {provider} in {from} can be read by everybody; take that right away with chmod 600"
    )]
    Exposed { provider: String, from: KeySource },
    #[error("the webhook secret of {provider}: the environment variable {variable} is not set")]
    Unset { provider: String, variable: String },
    #[error("the webhook secret of {provider} in {from}")]
    Form { provider: String, from: KeySource, source: standard_webhooks::SecretError },
}

impl Providers {
    /// Reads the secrets of the providers that are configured.
    ///
    /// # Errors
    /// [`WebhookSecretError`] names the provider and the place.
    pub fn read(settings: &BillingSettings) -> Result<Self, WebhookSecretError> {
        let mut hosted = BTreeMap::new();
        for (name, provider) in &settings.providers {
            let secrets = provider.webhook_secrets.iter().map(|from| secret(name, from));
            let checkout = HostedCheckout {
                name: name.clone(),
                checkout_url: provider.checkout_url.clone(),
                secrets: secrets.collect::<Result<_, _>>()?,
            };
            hosted.insert(name.clone(), checkout);
        }
        let manual = Manual { instructions: settings.instructions.clone() };
        Ok(Self { manual, hosted, current: settings.provider.clone() })
    }

    /// Who collects what is issued from now on.
    #[must_use]
    pub fn current(&self) -> &dyn PaymentProvider {
        match self.current.as_ref().and_then(|name| self.hosted.get(name)) {
            Some(hosted) => hosted,
            None => &self.manual,
        }
    }

    #[must_use]
    pub fn of_name(&self, name: &str) -> Option<&dyn PaymentProvider> {
        if name == self.manual.name() {
            return Some(&self.manual);
        }
        self.hosted.get(name).map(|hosted| hosted as &dyn PaymentProvider)
    }
}

fn secret(provider: &str, from: &KeySource) -> Result<Secret, WebhookSecretError> {
    let provider = provider.to_owned();
    let text = match from {
        KeySource::Environment(variable) => std::env::var(variable).map_err(|_| {
            WebhookSecretError::Unset { provider: provider.clone(), variable: variable.clone() }
        })?,
        KeySource::File(path) => {
            let unreadable =
                |source| WebhookSecretError::Read { provider: provider.clone(), from: from.clone(), source };
            secret_file::read(path).map_err(|error| match secret_file::is_exposed(&error) {
                true => WebhookSecretError::Exposed { provider: provider.clone(), from: from.clone() },
                false => unreadable(error),
            })?
        }
    };
    text.parse().map_err(|source| WebhookSecretError::Form { provider, from: from.clone(), source })
}

impl PaymentProvider for Manual {
    fn name(&self) -> &str {
        super::invoices::MANUAL
    }

    fn collect(&self, _: &Invoice, _: &str) -> Collection {
        Collection::Instructions(self.instructions.clone())
    }

    fn read(&self, _: &Delivery<'_>, _: i64) -> Result<PaymentEvent, DeliveryError> {
        Err(DeliveryError::NoWebhooks(self.name().to_owned()))
    }
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SucceededData {
    invoice_id: Uuid,
    payment_id: String,
    amount_cents: i64,
    currency: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedData {
    invoice_id: Uuid,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefundedData {
    invoice_id: Uuid,
    refund_id: String,
    amount_cents: i64,
    currency: String,
}

impl PaymentProvider for HostedCheckout {
    fn name(&self) -> &str {
        &self.name
    }

    fn collect(&self, invoice: &Invoice, return_to: &str) -> Collection {
        let values = [
            invoice.id.to_string(),
            invoice.number.to_string(),
            invoice.due_cents().to_string(),
            invoice.currency.clone(),
            percent_encoded(return_to),
        ];
        let replace = |url: String, (name, value): (&str, String)| url.replace(name, &value);
        let url = PLACEHOLDERS.into_iter().zip(values).fold(self.checkout_url.clone(), replace);
        Collection::Checkout { url }
    }

    fn read(&self, delivery: &Delivery<'_>, now: i64) -> Result<PaymentEvent, DeliveryError> {
        standard_webhooks::verify(&self.secrets, delivery, now)?;
        let Envelope { kind, data } = serde_json::from_slice(delivery.body)?;
        Ok(match kind.as_str() {
            "payment.succeeded" => {
                let data: SucceededData = serde_json::from_value(data)?;
                PaymentEvent::Succeeded {
                    invoice: data.invoice_id,
                    payment_id: data.payment_id,
                    amount_cents: data.amount_cents,
                    currency: data.currency,
                }
            }
            "payment.failed" => {
                let data: FailedData = serde_json::from_value(data)?;
                PaymentEvent::Failed { invoice: data.invoice_id, reason: data.reason }
            }
            "payment.refunded" => {
                let data: RefundedData = serde_json::from_value(data)?;
                PaymentEvent::Refunded {
                    invoice: data.invoice_id,
                    refund_id: data.refund_id,
                    amount_cents: data.amount_cents,
                    currency: data.currency,
                }
            }
            _ => PaymentEvent::Other(kind),
        })
    }
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::invoices::InvoiceState;
    use super::*;

    fn invoice() -> Invoice {
        Invoice {
            id: Uuid::nil(),
            number: 7,
            tenant: Uuid::nil(),
            subscription: Uuid::nil(),
            app: Uuid::nil(),
            currency: "USD".to_owned(),
            state: InvoiceState::Open,
            total_cents: 2900,
            credited_cents: 400,
            paid_cents: 500,
            refunded_cents: 0,
            issued_at: 0,
            due_at: 0,
            settled_at: None,
            overpaid_cents: 0,
        }
    }

    #[test]
    fn a_checkouts_address_says_what_is_due() {
        let checkout_url =
            "https://pay.example.com/{invoiceId}?n={number}&a={amountCents}&c={currency}&r={returnTo}";
        let provider = HostedCheckout {
            name: "x".to_owned(),
            checkout_url: checkout_url.to_owned(),
            secrets: Vec::new(),
        };
        let url = "https://pay.example.com/00000000-0000-0000-0000-000000000000?n=7&a=2000&c=USD\
                   &r=https%3A%2F%2Fa.example%2F%3Fx%3D1"
            .to_owned();
        assert_eq!(provider.collect(&invoice(), "https://a.example/?x=1"), Collection::Checkout { url });
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let read = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            secret("acme", &KeySource::File(path.clone()))
        };
        assert!(read(0o600).is_ok());
        assert!(matches!(read(0o644), Err(WebhookSecretError::Exposed { .. })));
    }
}
