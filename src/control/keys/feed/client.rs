//! What a node says to its dashboard, over HTTP: enrolment, heartbeats, and the request that begins the feed. Everything
//! here blocks, within bounds.

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body, BodyReader};

use crate::control::settings::DashboardSettings;
use crate::limits::{AppReport, Report};
use crate::secret_file;

/// A request that is not the feed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The feed says something every 5 s; a connection that is silent for three times that is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What is read of an answer that is not the feed.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What went wrong between this node and its dashboard.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum ClientError {
    #[error("could not reach {url}")]
    Http { url: String, source: Box<ureq::Error> },
    #[error("{url} answered {status}: {detail}")]
    Status { url: String, status: StatusCode, detail: String },
    #[error("{url} answered 401: {detail}")]
    Refused { url: String, detail: String },
    #[error("{url} did not answer as a dashboard does; is dashboard.url right?")]
    Answer { url: String, source: serde_json::Error },
    #[error(
        "this node has no credential yet: make an enrolment secret with `wiresocket admin create-enrolment-secret`, and name \
         its file in dashboard.enrolment_secret_file"
    )]
    NoCredential,
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not keep this node's credential in {}; check that its directory exists and may be written", path.display())]
    Keep { path: PathBuf, source: io::Error },
}

/// How the node fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Heartbeat {
    pub connections: u64,
    pub documents: u64,
    pub draining: bool,
    /// Tells this process from the one before; 0 if it reports no usage.
    pub boot: i64,
}

/// What the dashboard answers to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::control) struct HeartbeatAnswer {
    /// What the operator wants this node to be: `active` or `draining`.
    pub state: Box<str>,
    /// Seconds until the next one is expected.
    pub heartbeat_s: u64,
}

/// What the dashboard answers to a report of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::control) struct UsageAnswer {
    /// It counts, or did so before; false if the dashboard knows another process as this node.
    pub taken: bool,
}

#[derive(Deserialize)]
struct Enrolled {
    credential: Box<str>,
}

/// Speaks to the dashboard. Clones share their connections.
#[derive(Debug, Clone)]
pub(in crate::control) struct Client {
    settings: Arc<DashboardSettings>,
    requests: Agent,
    feeds: Agent,
}

impl Client {
    pub fn new(settings: DashboardSettings) -> Self {
        let agent = |overall: Option<Duration>| -> Agent {
            let config = Agent::config_builder()
                .timeout_global(overall)
                .timeout_connect(Some(REQUEST_TIMEOUT))
                .timeout_recv_response(Some(REQUEST_TIMEOUT))
                .timeout_per_read(Some(SILENCE_MAX))
                .max_redirects(0) // the credential goes to where the operator said, nowhere else
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .proxy(None)
                .user_agent(concat!("wiresocket/", env!("CARGO_PKG_VERSION")));
            config.build().new_agent()
        };
        Self { settings: Arc::new(settings), requests: agent(Some(REQUEST_TIMEOUT)), feeds: agent(None) }
    }

    /// The credential that was kept, or a new one if there is none: then it is kept first, and used after.
    ///
    /// # Errors
    /// [`ClientError`] says what is missing.
    pub fn credential(&self) -> Result<Arc<str>, ClientError> {
        match read(&self.settings.credential_file) {
            Ok(credential) => Ok(credential),
            Err(ClientError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => self.enrol(),
            Err(error) => Err(error),
        }
    }

    /// Enrols, whether there is a credential or not.
    ///
    /// # Errors
    /// [`ClientError`]; nothing was kept then.
    pub fn enrol(&self) -> Result<Arc<str>, ClientError> {
        let DashboardSettings { enrolment_secret_file, credential_file, .. } = &*self.settings;
        let secret = read(enrolment_secret_file.as_deref().ok_or(ClientError::NoCredential)?)?;
        let introduction = json!({
            "name": self.settings.name,
            "region": self.settings.region,
            "cluster": self.settings.cluster,
            "publicUrl": self.settings.public_url,
            "capacity": self.settings.capacity,
            "version": env!("CARGO_PKG_VERSION"),
        });
        // An enrolment that could not be kept would be lost: find out before the secret is spent.
        let failed = |source| ClientError::Keep { path: credential_file.clone(), source };
        let part = credential_file.with_extension("part");
        let mut file = new_private_file(&part).map_err(failed)?;
        let enrolled: Enrolled = self.post("/api/v1/nodes/enrol", &secret, &introduction)?;
        let written = file.write_all(enrolled.credential.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&part, credential_file)).map_err(failed)?;
        tracing::info!(name = %self.settings.name, "enrolled with the dashboard");
        Ok(enrolled.credential.into())
    }

    /// # Errors
    /// [`ClientError`].
    pub fn heartbeat(&self, credential: &str, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ClientError> {
        let Heartbeat { connections, documents, draining, boot } = heartbeat;
        let body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "connections": connections,
            "documents": documents,
            "draining": draining,
            "boot": boot,
            "publicUrl": self.settings.public_url,
            "capacity": self.settings.capacity,
        });
        self.post("/api/v1/nodes/self/heartbeat", credential, &body)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn usage(&self, credential: &str, report: &Report) -> Result<UsageAnswer, ClientError> {
        let app = |app: &AppReport| {
            json!({
                "appId": app.app.app,
                "connections": app.connections,
                "documents": app.documents,
                "ops": app.ops,
            })
        };
        let apps: serde_json::Value = report.apps.iter().map(app).collect();
        let body = json!({ "boot": report.boot, "sequence": report.sequence, "apps": apps });
        self.post("/api/v1/nodes/self/usage", credential, &body)
    }

    /// Begins the feed, after the event with this id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn feed(
        &self,
        credential: &str,
        after: Option<&str>,
    ) -> Result<BufReader<BodyReader<'static>>, ClientError> {
        let url = format!("{}/api/v1/nodes/self/keys", self.settings.url);
        let mut request = self.feeds.get(&url).header(header::ACCEPT, "text/event-stream");
        request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let response =
            request.call().map_err(|source| ClientError::Http { url: url.clone(), source: source.into() })?;
        Ok(BufReader::new(accepted(url, response)?.into_body().into_reader()))
    }

    fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        bearer: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let url = format!("{}{path}", self.settings.url);
        let failed = |source: ureq::Error| ClientError::Http { url: url.clone(), source: source.into() };
        let request = self.requests.post(&url).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        let response = request.send(body.to_string()).map_err(failed)?;
        let mut response = accepted(url.clone(), response)?;
        let json = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(failed)?;
        serde_json::from_slice(&json).map_err(|source| ClientError::Answer { url, source })
    }
}

/// The response, if it says that all is well.
fn accepted(url: String, mut response: Response<Body>) -> Result<Response<Body>, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("it did not say why").to_owned();
    Err(match status {
        StatusCode::UNAUTHORIZED => ClientError::Refused { url, detail },
        status => ClientError::Status { url, status, detail },
    })
}

fn read(path: &Path) -> Result<Arc<str>, ClientError> {
    let text =
        secret_file::read(path).map_err(|source| ClientError::Read { path: path.to_owned(), source })?;
    Ok(text.trim().into())
}

/// Nobody else may read it.
fn new_private_file(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
