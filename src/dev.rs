//! `wiresocket dev`: one process, nothing to install, nothing to configure. A tenant and an app in memory, a fresh key,
//! and the playground.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::SigningKey;
use crate::auth::sign::SigningKeyError;
use crate::config::{NodeConfig, reachable};
use crate::node::{Listeners, Node, NodeError};
use crate::playground;

/// How long a dev token is good for.
const TOKEN_TTL_S: u64 = 24 * 3600;

/// Wide enough for any load test on one machine.
const LIMIT: u32 = 1_000_000_000;

/// Why a dev node could not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("cannot make a key and a token for the demo app: {0}")]
    Key(#[from] SigningKeyError),
}

/// The demo tenant, its app, and where they are served.
#[derive(Debug)]
struct Demo {
    key: SigningKey,
    key_id: String,
    tenant: Uuid,
    app: Uuid,
    address: SocketAddr,
    issuer: String,
    region: String,
}

/// Starts a dev node and says where it is: for a person, or as one line of JSON.
///
/// # Errors
/// [`DevError`] says what could not be had.
pub fn start(listen: SocketAddr, shards: Option<u16>, json: bool) -> Result<Node, DevError> {
    let listeners = Listeners::bind(&NodeConfig::dev(listen, shards))?;
    let address = reachable(listeners.address());
    let mut config = NodeConfig::dev(address, shards);
    config.node.listen = listeners.address();
    let key = SigningKey::generate()?;
    let demo = Demo {
        key_id: key.thumbprint(),
        key,
        tenant: Uuid::new_v4(),
        app: Uuid::new_v4(),
        address,
        issuer: config.shard.issuer.as_str().to_owned(),
        region: config.node.region.clone(),
    };
    let jwks = demo.key.jwks(&demo.key_id).to_string().into_bytes();
    let greeting = if json { format!("{}\n", demo.connection()?) } else { demo.greeting()? };
    let tenant = demo.tenant;
    let node = Node::start(config, listeners, vec![(tenant, jwks)], Some(routes(Arc::new(demo))))?;
    // Whoever started it may not care to read this.
    let _ = std::io::stdout().write_all(greeting.as_bytes());
    Ok(node)
}

impl Demo {
    fn token(&self) -> Result<String, SigningKeyError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": self.issuer,
            "sub": "demo",
            "aud": "WireSocket.API",
            "scope": "WireSocket.API",
            "tenantid": self.tenant,
            "appId": self.app,
            "licenseRegionCode": self.region,
            "dbCode": format!("shard-01-{}", self.region.trim_start_matches("aws-")),
            "limits": {
                "maxConnections": LIMIT,
                "maxDocuments": LIMIT,
                "maxUsersPerDoc": LIMIT,
                "opsPerMinute": LIMIT,
            },
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_TTL_S,
            "jti": Uuid::new_v4(),
        });
        self.key.sign(&self.key_id, &claims)
    }

    /// Everything a program needs to connect.
    fn connection(&self) -> Result<Value, SigningKeyError> {
        Ok(json!({
            "ws": format!("ws://{}", self.address),
            "http": format!("http://{}", self.address),
            "token": self.token()?,
            "tenantId": self.tenant,
            "appId": self.app,
            "jwks": format!("http://{}/{}/.well-known/jwks", self.address, self.tenant),
        }))
    }

    /// Everything a person needs to connect.
    fn greeting(&self) -> Result<String, SigningKeyError> {
        let (address, token) = (self.address, self.token()?);
        let playground = if playground::is_bundled() {
            format!("http://{address}/playground   (open it in two windows)")
        } else {
            "not in this build: npm was missing when it was made (see `make playground`)".to_owned()
        };
        Ok(format!(
            r#"
  WireSocket {version} is running: a demo tenant and app in memory, gone when it stops.

  Playground   {playground}
  Health       http://{address}/health     Metrics  http://{address}/metrics

  A token, good for a day:

{token}

  y-websocket:

    import * as Y from 'yjs'
    import {{ WebsocketProvider }} from 'y-websocket'
    const provider = new WebsocketProvider('ws://{address}', 'my-document', new Y.Doc(), {{
      protocols: ['access_token', token]
    }})

  Hocuspocus:

    import * as Y from 'yjs'
    import {{ HocuspocusProvider }} from '@hocuspocus/provider'
    const provider = new HocuspocusProvider({{
      url: 'ws://{address}', name: 'my-document', document: new Y.Doc(), token
    }})

  Stop with Ctrl-C.

"#,
            version = env!("CARGO_PKG_VERSION"),
        ))
    }
}

fn routes(demo: Arc<Demo>) -> Router {
    Router::new()
        .route("/playground", get(|| async { asset("") }))
        .route("/playground/", get(|| async { asset("") }))
        .route("/playground/config.json", get(playground_config))
        .route("/playground/{*path}", get(|Path(path): Path<String>| async move { asset(&path) }))
        .route("/{tenant}/.well-known/jwks", get(jwks))
        .with_state(demo)
}

fn asset(path: &str) -> Response {
    let Some(asset) = playground::asset(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(asset.cache_control));
    let policy = HeaderValue::from_static(playground::CONTENT_SECURITY_POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What the playground's page connects with: a fresh token each time.
async fn playground_config(State(demo): State<Arc<Demo>>) -> Response {
    match demo.connection() {
        Ok(mut connection) => {
            connection["version"] = env!("CARGO_PKG_VERSION").into();
            ([(header::CACHE_CONTROL, "no-store")], Json(connection)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn jwks(State(demo): State<Arc<Demo>>, Path(tenant): Path<Uuid>) -> Response {
    if tenant != demo.tenant {
        return StatusCode::NOT_FOUND.into_response();
    }
    let caching = [(header::CACHE_CONTROL, "public, max-age=300")];
    (caching, Json(demo.key.jwks(&demo.key_id))).into_response()
}
