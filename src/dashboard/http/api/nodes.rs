//! The fleet's registry, for operators.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, uncached};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::page::{Page, Paging};
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::nodes::{self, NodeError};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(enrolment))
        .routes(routes!(read, remove))
        .routes(routes!(drain))
        .routes(routes!(undrain))
}

/// A server that editors connect to, as it last spoke of itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "c1b6b3de-8a2d-4d8f-9a1e-3f5d7b9c1e2f", "name": "eu-1", "region": "aws-eu-west-1",
    "cluster": "blue", "publicUrl": "wss://eu-1.example.com", "capacity": 50_000, "version": "0.1.0",
    "state": "active", "connections": 1234, "documents": 321, "lastHeartbeatAt": 1_800_000_000 }))]
struct Node {
    id: Uuid,
    name: String,
    region: String,
    cluster: String,
    public_url: String,
    /// Connections that it takes at most.
    capacity: i64,
    version: String,
    #[schema(value_type = NodeState)]
    state: &'static str,
    connections: i64,
    documents: i64,
    /// Unix seconds.
    last_heartbeat_at: i64,
}

/// `down`: nothing was heard of it for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NodeState {
    Active,
    Draining,
    Down,
}

impl From<NodeState> for nodes::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Active => Self::Active,
            NodeState::Draining => Self::Draining,
            NodeState::Down => Self::Down,
        }
    }
}

impl From<nodes::Node> for Node {
    fn from(node: nodes::Node) -> Self {
        Self {
            id: node.id,
            name: node.name,
            region: node.region,
            cluster: node.cluster,
            public_url: node.public_url,
            capacity: node.capacity,
            version: node.version,
            state: node.state.as_str(),
            connections: node.connections,
            documents: node.documents,
            last_heartbeat_at: node.last_heartbeat_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NodesQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only nodes of this region.
    region: Option<String>,
    /// Only nodes in this state.
    state: Option<NodeState>,
}

/// List the nodes
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", operation_id = "listNodes", params(NodesQuery),
    responses((status = 200, description = "A page of nodes, by name", body = Page<Node>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<NodesQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("nodes", &uri, query.limit, query.cursor.as_deref())?;
    let wanted = query.state.map(nodes::NodeState::from);
    let found = nodes::list(&dashboard, &actor).await?.into_iter().filter(|node| {
        wanted.is_none_or(|state| state == node.state)
            && query.region.as_ref().is_none_or(|region| *region == node.region)
    });
    Ok(paging.render_part(found.map(Node::from).collect(), |node| node.name.clone()))
}

/// Read a node
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", operation_id = "readNode",
    responses((status = 200, description = "The node", body = Node)))]
async fn read(State(dashboard): Here, Caller(actor): Caller, At(id): At<Uuid>) -> Result<Response, Problem> {
    Ok(Entity(Node::from(find(&dashboard, &actor, id).await?)).into_response())
}

/// Take a node out of the registry
///
/// For operators. Its credential is dead at once. Needs no `If-Match`: a node is what it says of itself.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}", tag = "nodes", operation_id = "removeNode",
    responses((status = 204, description = "Removed")))]
async fn remove(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<StatusCode, Problem> {
    let node = find(&dashboard, &actor, id).await?;
    nodes::remove(&dashboard, &actor, &node.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drain a node
///
/// For operators. It takes no new sessions and asks the living ones to go elsewhere.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/drain", tag = "nodes", operation_id = "drainNode",
    responses((status = 200, description = "It will drain", body = Node)))]
async fn drain(State(dashboard): Here, Caller(actor): Caller, At(id): At<Uuid>) -> Result<Response, Problem> {
    let node = find(&dashboard, &actor, id).await?;
    nodes::drain(&dashboard, &actor, &node.name).await?;
    Ok(Entity(Node::from(find(&dashboard, &actor, id).await?)).into_response())
}

/// End a drain
///
/// For operators. The node takes sessions again.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/undrain", tag = "nodes", operation_id = "undrainNode",
    responses((status = 200, description = "It takes sessions", body = Node)))]
async fn undrain(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<Response, Problem> {
    let node = find(&dashboard, &actor, id).await?;
    nodes::undrain(&dashboard, &actor, &node.name).await?;
    Ok(Entity(Node::from(find(&dashboard, &actor, id).await?)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "uses": 3, "days": 1 }))]
struct NewEnrolment {
    /// How many nodes it lets in.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    uses: i64,
    /// For how many days.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 365, default = 1)]
    days: i64,
}

fn one() -> i64 {
    1
}

/// What lets nodes in; shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Enrolment {
    #[schema(example = "wse_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1")]
    enrolment_secret: String,
    uses: i64,
    days: i64,
}

/// Make an enrolment secret
///
/// For operators. A node hands it in once and gets a credential of its own.
#[utoipa::path(post, path = "/api/v1/nodes/enrolment-secrets", tag = "nodes", operation_id = "createEnrolmentSecret",
    request_body = NewEnrolment, responses((status = 201, description = "Made", body = Enrolment)))]
async fn enrolment(
    State(dashboard): Here,
    Caller(actor): Caller,
    Payload(new): Payload<NewEnrolment>,
) -> Result<Response, Problem> {
    let made = nodes::create_enrolment(&dashboard, &actor, new.uses, new.days).await;
    let secret = made.map_err(|error| match error {
        NodeError::Bounds => {
            let member = if (1..=1000).contains(&new.uses) { "/days" } else { "/uses" };
            Problem::invalid(member, error.to_string())
        }
        error => error.into(),
    })?;
    let body = Enrolment { enrolment_secret: secret, uses: new.uses, days: new.days };
    Ok(uncached(StatusCode::CREATED, &body))
}

async fn find(dashboard: &Dashboard, actor: &Actor, id: Uuid) -> Result<nodes::Node, Problem> {
    let found = nodes::list(dashboard, actor).await?.into_iter().find(|node| node.id == id);
    found.ok_or_else(|| Problem::not_found("there is no such node"))
}
