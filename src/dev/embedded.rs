//! The dashboard of `wiresocket dev`: the same that `wiresocket dashboard` serves, on threads of its own in this process.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde::Deserialize;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::folder::Folder;
use crate::config::{UrlError, reachable};
use crate::dashboard::access::Actor;
use crate::dashboard::config::{Config, MailSettings, MailTarget};
use crate::dashboard::demo::{self, Demo, DemoError};
use crate::dashboard::master::{self, KeySource, MasterKeyError};
use crate::dashboard::nodes::{self, NodeError};
use crate::dashboard::region::LicenseRegion;
use crate::dashboard::store::StoreError;
use crate::dashboard::tokens::API;
use crate::dashboard::{self, Dashboard, OpenError};

/// How long a stop waits for requests that are being answered.
const STOP_WAIT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 10;

const MASTER_KEY: &str = "master-key";
const DEMO: &str = "demo.json";
/// Where letters go that a real dashboard would send.
pub const MAIL: &str = "mail";
pub const ENROLMENT_SECRET: &str = "enrolment-secret";
pub const CREDENTIAL: &str = "node-credential";

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("could not start the dashboard's threads")]
    Runtime(#[source] io::Error),
    #[error("could not listen on {address} for the dashboard; choose another address with --dashboard")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the dashboard's address makes no URL")]
    Url(#[from] UrlError),
    #[error(transparent)]
    Database(#[from] StoreError),
    #[error("could not write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not what `wiresocket dev` wrote; remove it together with the database beside it", path.display())]
    Demo { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "could not make the demo tenant and its app; if the folder is one of yours, begin with an empty one"
    )]
    Make(#[from] DemoError),
    #[error("could not make a secret for the node to enrol with")]
    Enrolment(#[from] NodeError),
}

/// Why there is no token for the demo's app.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the token endpoint answered {status}: {answer}; if the demo's app was changed, begin with another --data folder"
    )]
    Refused { status: StatusCode, answer: String },
    #[error("the token endpoint's answer is none of RFC 6749")]
    Answer(#[from] serde_json::Error),
    #[error("the dashboard has stopped")]
    Stopped,
}

/// A dashboard that runs.
#[derive(Debug)]
pub struct Embedded {
    runtime: Runtime,
    dashboard: Arc<Dashboard>,
    url: String,
    demo: Demo,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

/// Gets tokens for the demo's app as its backend would: from the token endpoint, with the app's credentials.
#[derive(Clone)]
pub struct Tokens {
    router: Router,
    runtime: Handle,
    form: Arc<str>,
}

impl fmt::Debug for Tokens {
    /// Without the app's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Embedded {
    /// Starts the dashboard on its database in this folder, and makes the demo if there is none. Takes as long as an RSA
    /// key takes to be made: a tenth of a second, and now and then seconds.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what could not be had.
    pub fn start(
        folder: &Folder,
        listener: TcpListener,
        region: LicenseRegion,
    ) -> Result<Self, EmbeddedError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dashboard")
            .enable_all()
            .build()
            .map_err(EmbeddedError::Runtime)?;
        let address = listener.local_addr().map_err(EmbeddedError::Runtime)?;
        let url = format!("http://{}", reachable(address));
        let config = config(folder, address, &url)?;
        let (dashboard, demo) = runtime.block_on(async {
            let dashboard = Dashboard::open(config).await?;
            let demo = demo_in(folder, &dashboard, region).await?;
            Ok::<_, EmbeddedError>((dashboard, demo))
        })?;
        let (stop, stopped) = oneshot::channel();
        let served = {
            let _within = runtime.enter();
            listener.set_nonblocking(true).map_err(EmbeddedError::Runtime)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(EmbeddedError::Runtime)?;
            let stopped = async {
                // Gone counts as said.
                let _ = stopped.await;
            };
            tokio::spawn(dashboard::serve_on(Arc::clone(&dashboard), listener, None, stopped))
        };
        Ok(Self { runtime, dashboard, url, demo, stop, served })
    }

    /// Where it is, and its tokens' issuer.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn demo(&self) -> &Demo {
        &self.demo
    }

    pub fn tokens(&self) -> Tokens {
        let Demo { client_id, client_secret, .. } = &self.demo;
        let form = format!(
            "grant_type=client_credentials&client_id={client_id}&client_secret={client_secret}&scope={API}"
        );
        Tokens {
            router: dashboard::router(Arc::clone(&self.dashboard)),
            runtime: self.runtime.handle().clone(),
            form: form.into(),
        }
    }

    /// A token, for whoever is not on a runtime.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn token(&self) -> Result<String, TokenError> {
        let tokens = self.tokens();
        self.runtime.block_on(tokens.issue())
    }

    /// Lets this process's node in, under a name that may have been in before.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn let_node_in(&self, folder: &Folder) -> Result<(), EmbeddedError> {
        let actor = Actor::command_line();
        let enrolment = nodes::create_enrolment(&self.dashboard, &actor, 1, 1);
        let secret = self.runtime.block_on(enrolment)?;
        let failed = |name: &'static str| {
            let path = folder.file(name);
            move |source| EmbeddedError::Write { path, source }
        };
        // Its address may be another than when it last enrolled.
        folder.remove(CREDENTIAL).map_err(failed(CREDENTIAL))?;
        folder.write(ENROLMENT_SECRET, &secret).map_err(failed(ENROLMENT_SECRET))?;
        Ok(())
    }

    /// Stops serving; requests that are being answered are answered.
    pub fn stop(self) {
        let Self { runtime, stop, served, .. } = self;
        let _ = stop.send(()); // over already: then it serves no more
        let stopped = runtime.block_on(async { tokio::time::timeout(STOP_WAIT, served).await });
        match stopped {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the dashboard stopped serving"),
            Ok(Err(error)) => tracing::error!(%error, "the dashboard panicked"),
            Err(_) => tracing::warn!("requests to the dashboard were cut off"),
        }
        runtime.shutdown_background();
    }
}

fn config(folder: &Folder, address: SocketAddr, url: &str) -> Result<Config, EmbeddedError> {
    let home = format!("sqlite:{}", folder.file("dashboard.db").display()).parse()?;
    let mut config = Config::in_one_database(address, url.parse()?, home);
    let master_key = folder.file(MASTER_KEY);
    if !master_key.exists() {
        master::generate(&master_key)?;
    }
    config.master_keys = [(1, KeySource::File(master_key))].into();
    // What would be mailed can be read in files.
    let target = MailTarget::Directory(folder.file(MAIL));
    config.mail = Some(MailSettings { from: "WireSocket <no-reply@localhost>".to_owned(), target });
    // Everybody here has the same address.
    config.http.jwks_per_10_minutes = 0;
    Ok(config)
}

/// The demo that was kept with the database, or a new one.
async fn demo_in(
    folder: &Folder,
    dashboard: &Dashboard,
    region: LicenseRegion,
) -> Result<Demo, EmbeddedError> {
    let path = folder.file(DEMO);
    if path.exists() {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| EmbeddedError::Write { path: path.clone(), source })?;
        return serde_json::from_str(&text).map_err(|source| EmbeddedError::Demo { path, source });
    }
    tracing::info!("making the demo tenant with its RSA key");
    let demo = demo::make(dashboard, region).await?;
    if folder.is_kept() {
        let text = serde_json::to_string_pretty(&demo)
            .map_err(|source| EmbeddedError::Demo { path: path.clone(), source })?;
        folder.write(DEMO, &text).map_err(|source| EmbeddedError::Write { path, source })?;
    }
    Ok(demo)
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
}

impl Tokens {
    /// A fresh token. The work is done on the dashboard's threads, whoever waits for it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn issue(&self) -> Result<String, TokenError> {
        let (router, form) = (self.router.clone(), Body::from(self.form.to_string()));
        let asked = self.runtime.spawn(async move {
            let request = Request::post("/connect/token")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form)
                .map_err(|_| TokenError::Stopped)?;
            let Ok(response) = router.oneshot(request).await;
            let status = response.status();
            let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
            let body = body.map_err(|_| TokenError::Stopped)?;
            if status != StatusCode::OK {
                return Err(TokenError::Refused { status, answer: String::from_utf8_lossy(&body).into() });
            }
            Ok(serde_json::from_slice::<Answer>(&body)?.access_token)
        });
        asked.await.map_err(|_| TokenError::Stopped)?
    }
}
