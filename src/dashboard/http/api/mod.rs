//! The management API: JSON under `/api/v1`, one file for each noun, described by the document at
//! `/api/v1/openapi.json`.
//!
//! What holds for every route is done once, around the routes or in their arguments, and not in them:
//! - who asks, and how often he may (`identity`); `Idempotency-Key` (`replay`); conditional reading (`entity`)
//! - bodies and queries are bounded and strict: what is unknown is refused with its name (`input`)
//! - lists come in pages with opaque cursors (`page`); errors are problem details (`refusal`)
//! - what is editable has an ETag, and editing it needs `If-Match`
//!
//! A route checks no right: the operation that it calls does. What the caller may not know of is 404.
//!
//! Absent: what nodes call (`http::nodes`) and tokens (`oauth`), which the document describes all the same; pages for
//! people.

mod api_keys;
mod apps;
pub(in crate::dashboard) mod audit;
mod entity;
mod identity;
mod input;
mod invitations;
mod invoices;
mod keys;
mod me;
mod members;
mod nodes;
mod openapi;
mod page;
mod plans;
mod refusal;
mod replay;
mod sign_up;
mod subscriptions;
mod tenants;
mod usage;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::{Extension, Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::Problem;
use crate::dashboard::Dashboard;

/// What a route is handed of the process.
type Here = State<Arc<Dashboard>>;

const BODY_BYTES_MAX: usize = 64 << 10;

/// The routes with their description: neither is there without the other.
fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::with_openapi(openapi::head())
        .merge(openapi::routes())
        .merge(me::routes())
        .merge(sign_up::routes())
        .merge(tenants::routes())
        .merge(members::routes())
        .merge(invitations::routes())
        .merge(apps::routes())
        .merge(plans::routes())
        .merge(subscriptions::routes())
        .merge(invoices::routes())
        .merge(usage::routes())
        .merge(keys::routes())
        .merge(nodes::routes())
        .merge(api_keys::routes())
        .merge(audit::routes())
}

/// With a document that describes the `others` as well.
pub(super) fn router(
    dashboard: &Arc<Dashboard>,
    others: impl IntoIterator<Item = OpenApi>,
) -> Router<Arc<Dashboard>> {
    let (router, mut document) = routes().split_for_parts();
    others.into_iter().for_each(|other| document.merge(other));
    let document = openapi::finish(document, &dashboard.config.issuer);
    // The last is the outermost.
    router
        .route_layer(Extension(document))
        .route_layer(middleware::from_fn_with_state(Arc::clone(dashboard), replay::once))
        .route_layer(middleware::from_fn_with_state(Arc::clone(dashboard), identity::identify))
        .route_layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// axum tells nobody its routes, except in its debug output.
    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let (router, document) = routes().split_for_parts();
        let text = format!("{router:?}");
        let routed: BTreeSet<_> =
            text.split('"').filter(|part| part.starts_with("/api/v1")).map(ToOwned::to_owned).collect();
        let described: BTreeSet<_> = document.paths.paths.keys().cloned().collect();
        assert!(routed.len() > 20, "{text}");
        assert_eq!(routed, described);
    }
}
