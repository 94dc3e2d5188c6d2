//! A dashboard on empty databases, with a clock that stands still, and what every scenario does with it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Principal, Role};
use wiresocket::dashboard::api_keys::{self, NewApiKey};
use wiresocket::dashboard::apps::{self, App, Credentials, NewApp};
use wiresocket::dashboard::clock::Clock;
use wiresocket::dashboard::config::{Config, MailSettings, MailTarget};
use wiresocket::dashboard::master::MasterKeys;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::{self, Dashboard, accounts, subscriptions, tenants};

pub const ISSUER: &str = "https://auth.example.com";
/// When every scenario begins.
pub const START: i64 = 1_800_000_000;
pub const API: &str = "WireSocket.API";
pub const OFFLINE: &str = "WireSocket.API offline_access";
pub const PASSWORD: &str = "correct horse battery";

pub struct Stage {
    pub dashboard: Arc<Dashboard>,
    pub clock: Clock,
    pub operator: Actor,
    /// Goes with the stage.
    _dir: Option<TempDir>,
    /// Where its letters go.
    mail: Option<Arc<TempDir>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The RFC 6749 error, if it is one.
    pub fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_default()
    }

    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        self.json[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.json)).to_owned()
    }
}

impl Stage {
    pub async fn on_sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
        let mut stage = Self::on(&url("home.db"), &url("eu.db")).await;
        stage._dir = Some(dir);
        stage
    }

    /// `aws-eu-west-1` has a database of its own, the other regions are in the home database.
    pub async fn on(home: &str, eu: &str) -> Self {
        let mut config = Self::config(home, eu);
        config.http.failures_per_address = 5;
        Self::with_mail(config).await
    }

    /// With letters that can be read.
    pub async fn with_mail(mut config: Config) -> Self {
        let mail = tempfile::tempdir().unwrap();
        let target = MailTarget::Directory(mail.path().to_owned());
        config.mail = Some(MailSettings { from: "WireSocket <no-reply@example.com>".to_owned(), target });
        let mut stage = Self::with(config, MasterKeys::ephemeral(&[1])).await;
        stage.mail = Some(Arc::new(mail));
        stage
    }

    /// What was written to somebody, newest last.
    pub fn letters_to(&self, email: &str) -> Vec<String> {
        let directory = std::fs::read_dir(self.mail.as_ref().unwrap().path()).unwrap();
        let mut letters: Vec<_> = directory
            .map(|file| file.unwrap().path())
            .map(|path| {
                (path.metadata().unwrap().modified().unwrap(), std::fs::read_to_string(path).unwrap())
            })
            .filter(|(_, text)| text.contains(&format!("To: {email}")))
            .collect();
        letters.sort();
        // Long lines are quoted-printable: what they hold is ASCII, so only the soft breaks matter.
        letters.into_iter().map(|(_, text)| text.replace("=\r\n", "").replace("=3D", "=")).collect()
    }

    /// The token in the newest letter to somebody.
    pub fn invitation_token(&self, email: &str) -> String {
        let letter = self.letters_to(email).pop().expect("a letter");
        let (_, token) = letter.split_once("/invitation#").expect("a link");
        token.split_whitespace().next().unwrap().to_owned()
    }

    /// The directory of the letters, to make it unusable.
    pub fn mail_directory(&self) -> std::path::PathBuf {
        self.mail.as_ref().unwrap().path().to_owned()
    }

    pub fn config(home: &str, eu: &str) -> Config {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config::in_one_database(listen, ISSUER.parse().unwrap(), home.parse().unwrap());
        config.regions.get_mut(&LicenseRegion::EuWest1).unwrap().database = Some(eu.parse().unwrap());
        config
    }

    pub async fn with(config: Config, master: MasterKeys) -> Self {
        let clock = Clock::standing_at(START);
        let dashboard = Dashboard::open_with(config, clock.clone(), master).await.unwrap();
        Self { dashboard, clock, operator: Actor::command_line(), _dir: None, mail: None }
    }

    /// The same databases with another configuration, as after a restart.
    pub async fn restarted(&self, config: Config, master: MasterKeys) -> Self {
        let dashboard = Dashboard::open_with(config, self.clock.clone(), master).await.unwrap();
        Self {
            dashboard,
            clock: self.clock.clone(),
            operator: self.operator.clone(),
            _dir: None,
            mail: self.mail.clone(),
        }
    }

    pub async fn account(&self, email: &str) -> Uuid {
        let actor = Actor::anonymous(None);
        accounts::sign_up(&self.dashboard, &actor, email, "Somebody", PASSWORD).await.unwrap()
    }

    /// An active tenant and its owner.
    pub async fn tenant(&self, owner: &str) -> (Uuid, Actor) {
        let owner = Actor::account(self.account(owner).await, None);
        let Principal::Account(id) = owner.principal else { unreachable!() };
        let tenant = tenants::create(&self.dashboard, &owner, "Acme", id).await.unwrap();
        tenants::approve(&self.dashboard, &self.operator, tenant).await.unwrap();
        (tenant, owner)
    }

    pub async fn app_in(&self, tenant: Uuid, region: LicenseRegion, domains: &[&str]) -> Credentials {
        let allowed_domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
        let new = NewApp { name: "Notes".to_owned(), region, allowed_domains };
        apps::create(&self.dashboard, &self.operator, tenant, new).await.unwrap()
    }

    pub async fn read(&self, tenant: Uuid, credentials: &Credentials) -> App {
        apps::read(&self.dashboard, &self.operator, tenant, credentials.app).await.unwrap()
    }

    pub async fn subscribe(&self, tenant: Uuid, credentials: &Credentials, plan: &str) {
        let app = self.read(tenant, credentials).await;
        subscriptions::subscribe(&self.dashboard, &self.operator, &app, plan).await.unwrap();
    }

    /// A tenant with an app on a paid plan.
    pub async fn ready(&self) -> (Uuid, Credentials) {
        let (tenant, _) = self.tenant("owner@example.com").await;
        let credentials = self.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
        self.subscribe(tenant, &credentials, "starter").await;
        (tenant, credentials)
    }

    pub async fn send(&self, request: axum::http::request::Builder, body: Body) -> Answer {
        self.send_from("192.0.2.1", request, body).await
    }

    pub async fn send_from(&self, ip: &str, request: axum::http::request::Builder, body: Body) -> Answer {
        let peer = SocketAddr::new(ip.parse().unwrap(), 4000);
        let request = request.extension(ConnectInfo(peer)).body(body).unwrap();
        let router = dashboard::router(Arc::clone(&self.dashboard));
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, json, bytes: bytes.to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), Body::empty()).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_from("192.0.2.1", path, fields, None).await
    }

    pub async fn post_from(
        &self,
        ip: &str,
        path: &str,
        fields: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Answer {
        let mut request =
            Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some((user, password)) = basic {
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            request = request.header(header::AUTHORIZATION, value);
        }
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.send_from(ip, request, Body::from(body.join("&"))).await
    }

    /// An API key's secret, made by `maker`.
    pub async fn api_key(&self, maker: &Actor, tenant: Option<Uuid>, role: Role) -> String {
        let new = NewApiKey { name: "Test".to_owned(), role, expires_at: None };
        api_keys::create(&self.dashboard, maker, tenant, new).await.unwrap().secret
    }

    /// A request of the management API.
    pub fn call<'a>(&'a self, method: &str, path: &str) -> Call<'a> {
        let path = if path.starts_with("/api/v1") { path.to_owned() } else { format!("/api/v1{path}") };
        Call { stage: self, request: Request::builder().method(method).uri(path), ip: "192.0.2.1" }
    }

    pub async fn token(&self, credentials: &Credentials, scope: &str) -> Answer {
        self.post("/connect/token", &client_credentials(credentials, scope)).await
    }

    pub async fn refresh(&self, client_id: &str, token: &str) -> Answer {
        let fields = [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", token)];
        self.post("/connect/token", &fields).await
    }

    pub async fn jwks(&self, tenant: Uuid) -> Answer {
        // From an address of its own each time: the limit is not what is tested here.
        let [a, b, ..] = tenant_bytes();
        let ip = format!("198.18.{a}.{b}");
        self.send_from(&ip, Request::get(format!("/{tenant}/.well-known/jwks")), Body::empty()).await
    }

    /// The ids of the published keys.
    pub async fn published(&self, tenant: Uuid) -> Vec<String> {
        let answer = self.jwks(tenant).await;
        let keys = answer.json["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

/// A request of the management API that is being put together.
pub struct Call<'a> {
    stage: &'a Stage,
    request: axum::http::request::Builder,
    ip: &'a str,
}

impl<'a> Call<'a> {
    pub fn by(self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn from(mut self, ip: &'a str) -> Self {
        self.ip = ip;
        self
    }

    pub async fn send(self) -> Answer {
        self.stage.send_from(self.ip, self.request, Body::empty()).await
    }

    pub async fn json(self, body: Value) -> Answer {
        self.with("content-type", "application/json").text(&body.to_string()).await
    }

    pub async fn text(self, body: &str) -> Answer {
        self.stage.send_from(self.ip, self.request, Body::from(body.to_owned())).await
    }
}

fn tenant_bytes() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}

pub fn client_credentials<'a>(credentials: &'a Credentials, scope: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("grant_type", "client_credentials"),
        ("client_id", &credentials.client_id),
        ("client_secret", &credentials.client_secret),
        ("scope", scope),
    ]
}

pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// A part of a token: 0 the header, 1 the claims.
pub fn decoded(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The key that signed a token.
pub fn kid(token: &str) -> String {
    decoded(token, 0)["kid"].as_str().unwrap().to_owned()
}
