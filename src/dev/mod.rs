//! `wiresocket dev`: one process, nothing to install, nothing to configure. A dashboard with a demo tenant and app, a
//! node that belongs to it, and the playground.
//!
//! Node and dashboard meet as they do in production: the node enrols over loopback, follows the key feed and accepts what
//! the token endpoint signs. Only how they are configured is decided here.
//!
//! The start waits for one thing that takes time: the demo tenant's RSA key. With `--data` it is there already, from the
//! second start on.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod embedded;
mod folder;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use self::embedded::{CREDENTIAL, ENROLMENT_SECRET, Embedded, Tokens};
use self::folder::Folder;
use crate::config::{NodeConfig, UrlError, reachable};
use crate::dashboard::demo::{Demo, LogIn};
use crate::dashboard::region::{LicenseRegion, UnknownRegion};
use crate::journal::{Durability, Retention};
use crate::node::{Listeners, Node, NodeError};
use crate::playground;

pub use self::embedded::{EmbeddedError, TokenError};

/// In the folder of `--data`: documents, for ever.
const JOURNAL: &str = "journal";

/// Where the dashboard listens unless told otherwise, and unless the node was given any free port.
const DASHBOARD_PORT: u16 = 8090;

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// `None`: port 8090 of the node's address, or a free one.
    pub dashboard: Option<SocketAddr>,
    /// Where documents and the dashboard's data stay; `None`: nowhere.
    pub data: Option<PathBuf>,
    pub shards: Option<u16>,
    /// One line of JSON instead of a greeting.
    pub json: bool,
}

/// Why a dev node could not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("could not make the folder for the dashboard's data")]
    Folder(#[source] io::Error),
    #[error(transparent)]
    Dashboard(#[from] EmbeddedError),
    #[error(transparent)]
    Region(#[from] UnknownRegion),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("could not get the demo app a token: {0}")]
    Token(#[from] TokenError),
}

/// A node and its dashboard, both running.
#[derive(Debug)]
pub struct Dev {
    node: Node,
    dashboard: Embedded,
    /// Goes last.
    folder: Folder,
}

/// Where everything is.
#[derive(Debug, Clone)]
struct Places {
    node: SocketAddr,
    dashboard: String,
    demo: Demo,
}

/// Starts a node with its dashboard and says where they are: for a person, or as one line of JSON.
///
/// # Errors
/// [`DevError`] says what could not be had.
pub fn start(options: &Options) -> Result<Dev, DevError> {
    let listeners = Listeners::bind(&NodeConfig::dev(options.listen, options.shards))?;
    let address = reachable(listeners.address());
    let mut config = NodeConfig::dev(address, options.shards);
    config.node.listen = listeners.address();
    let region: LicenseRegion = config.node.region.parse()?;
    let listener = bind_dashboard(options)?;
    let folder = Folder::open(options.data.as_deref()).map_err(DevError::Folder)?;
    let dashboard = Embedded::start(&folder, listener, region)?;
    dashboard.let_node_in(&folder)?;
    let url = dashboard.url();
    config.shard.issuer = url.parse()?;
    config.keys.jwks_url = Some(format!("{url}/{{tenantId}}/.well-known/jwks").parse()?);
    config.dashboard.url = Some(url.parse()?);
    config.dashboard.enrolment_secret_file = Some(folder.file(ENROLMENT_SECRET));
    config.dashboard.credential_file = folder.file(CREDENTIAL);
    if folder.is_kept() {
        config.journal.directory = folder.file(JOURNAL);
        config.journal.durability = Durability::Disk;
        config.journal.retention = Retention::ForEver;
    }

    let places = Places { node: address, dashboard: url.to_owned(), demo: dashboard.demo().clone() };
    let token = dashboard.token()?;
    let greeting =
        if options.json { format!("{}\n", places.all(&token)) } else { places.greeting(&token, &folder) };
    let page = Arc::new(Page { places, tokens: dashboard.tokens() });
    let node = Node::start(config, listeners, Vec::new(), Some(routes(page)))?;
    // Whoever started it may not care to read this.
    let _ = io::stdout().write_all(greeting.as_bytes());
    Ok(Dev { node, dashboard, folder })
}

impl Dev {
    /// Serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// [`NodeError`] if a thread ended by itself.
    pub fn run(self) -> Result<(), NodeError> {
        let Self { node, dashboard, folder } = self;
        let outcome = node.run();
        dashboard.stop();
        drop(folder);
        outcome
    }
}

/// The address that was chosen; else the usual port, or any if that one is taken.
fn bind_dashboard(options: &Options) -> Result<TcpListener, EmbeddedError> {
    let usual =
        SocketAddr::new(options.listen.ip(), if options.listen.port() == 0 { 0 } else { DASHBOARD_PORT });
    let address = options.dashboard.unwrap_or(usual);
    let bound = TcpListener::bind(address).or_else(|error| match options.dashboard {
        None => TcpListener::bind(SocketAddr::new(address.ip(), 0)),
        Some(_) => Err(error),
    });
    bound.map_err(|source| EmbeddedError::Listen { address, source })
}

impl Places {
    /// What a client needs to connect.
    fn connection(&self, token: &str) -> Value {
        json!({
            "ws": format!("ws://{}", self.node),
            "http": format!("http://{}", self.node),
            "token": token,
            "tenantId": self.demo.tenant_id,
            "appId": self.demo.app_id,
        })
    }

    /// Everything a program needs: to connect, to get tokens of its own, to log in.
    fn all(&self, token: &str) -> Value {
        let mut all = self.connection(token);
        let Demo { tenant_id, client_id, client_secret, owner, operator, .. } = &self.demo;
        all["jwks"] = format!("{}/{tenant_id}/.well-known/jwks", self.dashboard).into();
        all["issuer"] = self.dashboard.as_str().into();
        all["dashboard"] = self.dashboard.as_str().into();
        all["clientId"] = client_id.as_str().into();
        all["clientSecret"] = client_secret.as_str().into();
        all["owner"] = json!(owner);
        all["operator"] = json!(operator);
        all
    }

    /// Everything a person needs.
    fn greeting(&self, token: &str, folder: &Folder) -> String {
        let Self { node, dashboard, demo } = self;
        let playground = if playground::is_bundled() {
            format!("http://{node}/playground   (open it in two windows)")
        } else {
            "not in this build: npm was missing when it was made (see `make playground`)".to_owned()
        };
        let data = if folder.is_kept() {
            format!("kept in {}, documents too", folder.path().display())
        } else {
            "gone when it stops, documents too (--data DIR keeps it)".to_owned()
        };
        let mail = folder.file(embedded::MAIL);
        let mail = mail.display();
        let Demo { client_id, client_secret, owner, operator, .. } = demo;
        let log_in = |LogIn { email, password }: &LogIn| format!("{email:<20} {password}");
        format!(
            r#"
  WireSocket {version} is running: a node, and its dashboard with a demo tenant. The data is {data}.

  Playground   {playground}
  Dashboard    {dashboard}
    owner      {owner}
    operator   {operator}
    mail       written to {mail}
  Health       http://{node}/health     Metrics  http://{node}/metrics

  A token, good for 15 minutes:

{token}

  The next one, and any number more:

    curl {dashboard}/connect/token -d grant_type=client_credentials -d scope=WireSocket.API \
      -d client_id={client_id} \
      -d client_secret={client_secret}

  y-websocket:

    import * as Y from 'yjs'
    import {{ WebsocketProvider }} from 'y-websocket'
    const provider = new WebsocketProvider('ws://{node}', 'my-document', new Y.Doc(), {{
      protocols: ['access_token', token]
    }})

  Hocuspocus:

    import * as Y from 'yjs'
    import {{ HocuspocusProvider }} from '@hocuspocus/provider'
    const provider = new HocuspocusProvider({{
      url: 'ws://{node}', name: 'my-document', document: new Y.Doc(), token
    }})

  Stop with Ctrl-C.

"#,
            version = env!("CARGO_PKG_VERSION"),
            owner = log_in(owner),
            operator = log_in(operator),
        )
    }
}

/// What the playground's page is served with.
#[derive(Debug)]
struct Page {
    places: Places,
    tokens: Tokens,
}

fn routes(page: Arc<Page>) -> Router {
    Router::new()
        .route("/playground", get(|| async { asset("") }))
        .route("/playground/", get(|| async { asset("") }))
        .route("/playground/config.json", get(playground_config))
        .route("/playground/{*path}", get(|Path(path): Path<String>| async move { asset(&path) }))
        .with_state(page)
}

fn asset(path: &str) -> Response {
    match playground::asset(path) {
        Some(asset) => (asset.headers(), asset.bytes).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the playground's page connects with: a fresh token each time, which it asks for again before that one ends. The
/// app's secret stays here, as it stays in a customer's backend.
async fn playground_config(State(page): State<Arc<Page>>) -> Response {
    match page.tokens.issue().await {
        Ok(token) => {
            let mut connection = page.places.connection(&token);
            connection["version"] = env!("CARGO_PKG_VERSION").into();
            ([(header::CACHE_CONTROL, "no-store")], Json(connection)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
