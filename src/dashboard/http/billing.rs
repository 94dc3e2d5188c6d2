//! `POST /billing/webhooks/{provider}`: what payment providers deliver, signed as Standard Webhooks are.
//!
//! 204 for whatever was acted on, was known already, or doesn't matter here; anything else, and a provider comes again.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use super::{Client, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::billing::providers::DeliveryError;
use crate::dashboard::billing::standard_webhooks::Delivery;
use crate::dashboard::billing::webhooks::{self, WebhookError};

const BODY_BYTES_MAX: usize = 64 << 10;

/// Who failed, when wrong signatures are counted.
const WEBHOOKS: &str = "payment webhooks";

pub(super) fn router() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/billing/webhooks/{provider}", post(receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn receive(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    dashboard.may_try(address, WEBHOOKS).map_err(Problem::too_many_requests)?;
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| Problem::bad_request(format!("the {name} header is missing")))
    };
    let delivery = Delivery {
        id: header("webhook-id")?,
        timestamp: header("webhook-timestamp")?,
        signature: header("webhook-signature")?,
        body: &body,
    };
    let received = webhooks::receive(&dashboard, address, &provider, &delivery).await;
    if let Err(WebhookError::Delivery(DeliveryError::Signature(error))) = &received {
        tracing::warn!(provider, %error, "a payment webhook was refused");
        dashboard.count_failure(address, WEBHOOKS);
    }
    let received = received?;
    tracing::info!(provider, id = delivery.id, ?received, "a payment webhook");
    Ok(StatusCode::NO_CONTENT)
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Provider(_) | WebhookError::Delivery(DeliveryError::NoWebhooks(_)) => {
                Self::not_found(error.to_string())
            }
            WebhookError::Delivery(DeliveryError::Signature(error)) => Self::unauthorized(error.to_string()),
            WebhookError::Delivery(DeliveryError::Body(source)) => {
                Self::bad_request(format!("the webhook's body: {source}"))
            }
            WebhookError::Payment(error) => {
                tracing::error!(%error, "a payment webhook could not be acted on");
                Self::bad_request(error.to_string())
            }
            WebhookError::Store(error) => error.into(),
        }
    }
}
