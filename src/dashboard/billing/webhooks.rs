//! What payment providers deliver. A delivery is believed by its signature, and counts once by its id: the note that it
//! was acted on and what it did are one transaction.

use std::net::IpAddr;

use super::payments::{self, Payment, PaymentError, Received};
use super::providers::{DeliveryError, PaymentEvent};
use super::standard_webhooks::Delivery;
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::store::{StoreError, query};

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("there is no payment provider {0:?} here")]
    Provider(String),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error(transparent)]
    Payment(PaymentError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PaymentError> for WebhookError {
    fn from(error: PaymentError) -> Self {
        match error {
            PaymentError::Store(error) => Self::Store(error),
            error => Self::Payment(error),
        }
    }
}

impl From<sqlx::Error> for WebhookError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Acts on a delivery to `POST /billing/webhooks/<provider>`.
///
/// # Errors
/// [`WebhookError`]; then nothing has changed, and the same delivery may come again.
pub async fn receive(
    dashboard: &Dashboard,
    address: Option<IpAddr>,
    provider: &str,
    delivery: &Delivery<'_>,
) -> Result<Received, WebhookError> {
    let now = dashboard.now();
    let found = dashboard.payments.of_name(provider);
    let event = found.ok_or_else(|| WebhookError::Provider(provider.to_owned()))?.read(delivery, now)?;
    let kind = match &event {
        PaymentEvent::Succeeded { .. } => "payment.succeeded",
        PaymentEvent::Failed { .. } => "payment.failed",
        PaymentEvent::Refunded { .. } => "payment.refunded",
        PaymentEvent::Other(_) => return Ok(Received::Ignored),
    };
    let mut tx = dashboard.home.begin().await?;
    let insert = query(
        "INSERT INTO webhook_deliveries (provider, webhook_id, kind, received_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (provider, webhook_id) DO NOTHING",
    );
    let insert = insert.bind(provider.to_owned()).bind(delivery.id.to_owned()).bind(kind).bind(now);
    if insert.execute(&mut *tx).await?.rows_affected() != 1 {
        return Ok(Received::Repeated);
    }
    let actor = Actor { address, ..Actor::system() };
    let reference = delivery.id;
    let received = match event {
        PaymentEvent::Succeeded { invoice, payment_id, amount_cents, currency } => {
            let (external_id, currency) = (payment_id.as_str(), currency.as_str());
            let payment = Payment { invoice, provider, external_id, amount_cents, currency, reference };
            payments::pay_in(&mut tx, &actor, now, &payment).await?
        }
        PaymentEvent::Refunded { invoice, refund_id, amount_cents, currency } => {
            let (external_id, currency) = (refund_id.as_str(), currency.as_str());
            let refund = Payment { invoice, provider, external_id, amount_cents, currency, reference };
            payments::refund_in(&mut tx, &actor, now, &refund).await?
        }
        PaymentEvent::Failed { invoice, reason } => {
            let reason: String = reason.chars().take(200).collect();
            payments::fail_in(&mut tx, &actor, now, invoice, &reason).await?
        }
        PaymentEvent::Other(_) => Received::Ignored,
    };
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(received)
}
