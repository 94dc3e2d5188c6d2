//! The web UI through its router, as a browser without JavaScript uses it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use ring::hmac;
use tower::ServiceExt;
use uuid::Uuid;
use wiresocket::dashboard::access::Actor;
use wiresocket::dashboard::accounts;
use wiresocket::dashboard::region::LicenseRegion;

use super::stage::{ISSUER, PASSWORD, Stage, encoded};

pub const EMAIL: &str = "ada@example.com";
pub const OPERATOR: &str = "ops@example.com";

/// A browser: it keeps its cookie, and sends what the last page's forms hold.
#[derive(Default)]
pub struct Browser {
    cookie: String,
    form_token: String,
    origin: Option<&'static str>,
}

pub struct Page {
    pub status: StatusCode,
    headers: HeaderMap,
    pub html: String,
}

impl Page {
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn leads_to(&self, path: &str) {
        assert_eq!(
            (self.status, self.header(header::LOCATION)),
            (StatusCode::SEE_OTHER, path),
            "{}",
            self.html
        );
    }

    #[track_caller]
    pub fn says(&self, words: &str) {
        assert!(self.html.contains(words), "no {words:?} in {}", self.html);
    }

    /// What follows `before`, up to the next `"` or `<`.
    #[track_caller]
    pub fn after(&self, before: &str) -> String {
        let rest = self.html.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {}", self.html)).1;
        rest.split(['"', '<']).next().unwrap().to_owned()
    }
}

impl Browser {
    /// Another window of the same browser.
    pub fn window(&self) -> Self {
        Self { cookie: self.cookie.clone(), ..Self::default() }
    }

    /// The same window once more, with the same form.
    pub fn again(&self) -> Self {
        Self { cookie: self.cookie.clone(), form_token: self.form_token.clone(), origin: self.origin }
    }

    pub async fn get(&mut self, stage: &Stage, path: &str) -> Page {
        self.send(stage, Request::get(path), Body::empty()).await
    }

    /// Sends a form; the token is that of the last page that was loaded.
    pub async fn post(&mut self, stage: &Stage, path: &str, fields: &[(&str, &str)]) -> Page {
        let token = self.form_token.clone();
        let fields = [&[("form_token", token.as_str())], fields].concat();
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, self.origin.unwrap_or(ISSUER));
        self.send(stage, request, Body::from(pairs.join("&"))).await
    }

    pub async fn send(&mut self, stage: &Stage, request: axum::http::request::Builder, body: Body) -> Page {
        let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
        let request = request.header(header::COOKIE, &self.cookie).extension(ConnectInfo(peer));
        let router = wiresocket::dashboard::router(Arc::clone(&stage.dashboard));
        let answer = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        if let Some(cookie) = parts.headers.get(header::SET_COOKIE) {
            self.cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let html = String::from_utf8(axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        if let Some((_, rest)) = html.split_once("name=\"form_token\" value=\"") {
            self.form_token = rest.split('"').next().unwrap().to_owned();
        }
        Page { status: parts.status, headers: parts.headers, html }
    }

    pub async fn log_in(&mut self, stage: &Stage, email: &str, password: &str) -> Page {
        self.get(stage, "/login").await;
        self.post(stage, "/login", &[("email", email), ("password", password)]).await
    }
}

/// Somebody who runs the platform, logged in.
pub async fn operator(stage: &Stage) -> Browser {
    let made = accounts::create_operator(&stage.dashboard, &stage.operator, OPERATOR, "Op").await;
    let (_, one_time) = made.unwrap();
    let mut browser = Browser::default();
    browser.log_in(stage, OPERATOR, &one_time).await.leads_to("/");
    browser.get(stage, "/account/password").await;
    let new = [("current", one_time.as_str()), ("password", PASSWORD)];
    browser.post(stage, "/account/password", &new).await.leads_to("/account?done=password-changed");
    browser.get(stage, "/account").await;
    browser
}

/// Somebody who owns an active tenant, logged in.
pub async fn owner(stage: &Stage) -> (Uuid, Browser) {
    let (tenant, _) = stage.tenant(EMAIL).await;
    let mut browser = Browser::default();
    browser.log_in(stage, EMAIL, PASSWORD).await.leads_to("/");
    (tenant, browser)
}

pub async fn who_signs_up_makes_an_app_once_approved(stage: Stage) {
    let (_, password) =
        accounts::create_operator(&stage.dashboard, &stage.operator, "ops@example.com", "Op").await.unwrap();
    let mut ada = Browser::default();
    ada.get(&stage, "/signup").await.says("Sign up");
    let short = [("tenant", "Acme"), ("name", "Ada"), ("email", EMAIL), ("password", "short")];
    let page = ada.post(&stage, "/signup", &short).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("The password is too short");
    page.says("value=\"Acme\"");
    let good = [("tenant", "Acme"), ("name", "Ada"), ("email", EMAIL), ("password", PASSWORD)];
    let page = ada.post(&stage, "/signup", &good).await;
    let apps = page.header(header::LOCATION).split('?').next().unwrap().to_owned();
    ada.get(&stage, &apps).await.says("Waiting for approval");

    let mut operator = Browser::default();
    operator.log_in(&stage, "ops@example.com", &password).await.leads_to("/");
    operator.get(&stage, "/operator/tenants").await.leads_to("/account/password");
    operator.get(&stage, "/account/password").await.says("one-time password");
    let new = [("current", password.as_str()), ("password", PASSWORD)];
    operator.post(&stage, "/account/password", &new).await.leads_to("/account?done=password-changed");
    let page = operator.get(&stage, "/operator/tenants").await;
    page.says("ada@example.com");
    let approve = page.after("action=\"/operator/tenants/");
    operator
        .post(&stage, &format!("/operator/tenants/{approve}"), &[])
        .await
        .leads_to("/operator/tenants?done=approved");

    ada.get(&stage, &format!("{apps}/new")).await.says("License region");
    let wrong = [("name", "Notes"), ("region", "aws-eu-west-1"), ("domain_1", "https://a.example/path")];
    let page = ada.post(&stage, &format!("{apps}/new"), &wrong).await;
    page.says("has a path; write just the host");
    page.says("value=\"https://a.example/path\"");
    let right = [("name", "Notes"), ("region", "aws-eu-west-1"), ("domain_1", "https://MyApp.com/")];
    let page = ada.post(&stage, &format!("{apps}/new"), &right).await;
    let secret = page.after("id=\"client-secret\">");
    assert!(secret.starts_with("wss_"), "{secret}");
    let app = page.after("class=\"button strong\" href=\"").replace("/plan", "");
    let page = ada.get(&stage, &app).await;
    page.says("no plan");
    page.says("<code>myapp.com</code>");
    assert!(!page.html.contains(&secret), "a secret is shown once");
    ada.get(&stage, &format!("{app}/plan")).await;
    let chosen = ada.post(&stage, &format!("{app}/plan"), &[("plan", "starter")]).await;
    chosen.leads_to(&format!("{app}/plan/confirm?plan=starter"));
    ada.post(&stage, &format!("{app}/plan"), &[("plan", "free")])
        .await
        .leads_to(&format!("{app}?done=plan-chosen"));
    let client_id = ada.get(&stage, &app).await.after("id=\"client-id\">");
    ada.get(&stage, &format!("{app}/quick-start")).await.says(&client_id);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &client_id),
        ("client_secret", &secret),
        ("scope", "WireSocket.API"),
    ];
    let token = stage.post("/connect/token", &fields).await.text("access_token");

    // The inspector goes through the node's checks.
    let inspector = apps.replace("/apps", "/inspector");
    ada.get(&stage, &inspector).await;
    ada.post(&stage, &inspector, &[("token", &token), ("origin", "https://myapp.com")])
        .await
        .says("A node takes this token");
    let page = ada.post(&stage, &inspector, &[("token", &token), ("origin", "https://evil.example")]).await;
    page.says("<strong>4003</strong>");
    let page = ada.post(&stage, &inspector, &[("token", &format!("{token}x"))]).await;
    page.says("<strong>4002</strong>");
    stage.clock.advance(3600);
    ada.post(&stage, &inspector, &[("token", &token)]).await.says("It expired 45 minutes ago");

    let page = ada.get(&stage, &apps.replace("/apps", "/audit")).await;
    for action in ["tenant.create", "tenant.approve", "key.create", "app.create", "subscription.create"] {
        page.says(&format!("<strong>{action}</strong>"));
    }
    let page =
        ada.get(&stage, &format!("{}?action=app&actor={EMAIL}", apps.replace("/apps", "/audit"))).await;
    page.says("<strong>app.create</strong>");
    assert!(!page.html.contains("subscription.create"), "{}", page.html);
}

pub async fn a_form_counts_with_its_own_token_and_origin_only(stage: Stage) {
    let (tenant, mut browser) = owner(&stage).await;
    let rotate = format!("/tenants/{tenant}/keys/rotate");
    browser.get(&stage, &format!("/tenants/{tenant}/keys")).await.says("Rotate the key");

    browser.origin = Some("https://evil.example");
    assert_eq!(browser.post(&stage, &rotate, &[]).await.status, StatusCode::FORBIDDEN);
    browser.origin = None;
    let token = std::mem::take(&mut browser.form_token);
    assert_eq!(browser.post(&stage, &rotate, &[]).await.status, StatusCode::FORBIDDEN);
    // Another session's token is none of this one's.
    let mut other = Browser::default();
    other.log_in(&stage, EMAIL, PASSWORD).await;
    other.get(&stage, "/account").await;
    browser.form_token.clone_from(&other.form_token);
    assert_eq!(browser.post(&stage, &rotate, &[]).await.status, StatusCode::FORBIDDEN);
    browser.form_token = token;
    browser.post(&stage, &rotate, &[]).await.leads_to(&format!("/tenants/{tenant}/keys?done=key-rotating"));

    let page = browser.get(&stage, "/account").await;
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header(header::CACHE_CONTROL), "no-store");
    assert_eq!(page.header(header::REFERRER_POLICY), "same-origin");
    assert!(
        !page.html.contains("<style") && !page.html.contains(" style=") && !page.html.contains(" onclick")
    );
}

pub async fn a_session_ends_when_it_is_idle_and_when_its_owner_says_so(stage: Stage) {
    let (tenant, mut browser) = owner(&stage).await;
    let keys = format!("/tenants/{tenant}/keys");
    assert!(browser.cookie.starts_with("__Host-wiresocket="), "{}", browser.cookie);
    let planted = {
        let mut stranger = Browser::default();
        stranger.get(&stage, "/login").await;
        let planted = stranger.cookie.clone();
        stranger.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
        assert_ne!(stranger.cookie, planted, "log-in gives a new id");
        planted
    };
    let mut thief = Browser { cookie: planted, ..Browser::default() };
    thief.get(&stage, &keys).await.leads_to(&format!("/login?next={keys}"));

    assert_eq!(browser.get(&stage, &keys).await.status, StatusCode::OK);
    let old = browser.cookie.clone();
    browser.post(&stage, "/logout", &[]).await.leads_to("/login?done=logged-out");
    let mut back = Browser { cookie: old, ..Browser::default() };
    back.get(&stage, &keys).await.leads_to(&format!("/login?next={keys}"));

    browser.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
    for _ in 0..3 {
        stage.clock.advance(7 * 3600);
        assert_eq!(browser.get(&stage, &keys).await.status, StatusCode::OK, "in use");
    }
    stage.clock.advance(8 * 3600 + 60);
    browser.get(&stage, &keys).await.leads_to(&format!("/login?next={keys}"));

    let (mut here, mut there) = (Browser::default(), Browser::default());
    here.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
    there.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
    here.get(&stage, "/account").await.says("Where you are logged in");
    let changed = [("current", PASSWORD), ("password", "a different long password")];
    here.post(&stage, "/account/password", &changed).await.leads_to("/account?done=password-changed");
    assert_eq!(here.get(&stage, &keys).await.status, StatusCode::OK);
    there.get(&stage, &keys).await.leads_to(&format!("/login?next={keys}"));
    here.post(&stage, "/account/sessions/end-all", &[]).await.leads_to("/login?done=logged-out-everywhere");
    here.get(&stage, &keys).await.leads_to(&format!("/login?next={keys}"));
}

/// What an authenticator app shows (RFC 6238), for a secret in base32.
pub fn code(secret: &str, unix_s: i64) -> String {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in secret.bytes() {
        let value = if letter.is_ascii_digit() { letter - b'2' + 26 } else { letter - b'A' };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let tag = hmac::sign(&key, &(unix_s / 30).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let number = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

pub async fn a_second_factor_is_asked_for_and_each_code_counts_once(stage: Stage) {
    let (tenant, mut browser) = owner(&stage).await;
    let keys = format!("/tenants/{tenant}/keys");
    browser.get(&stage, "/account").await.says("Set it up");
    browser.post(&stage, "/account/second-factor", &[]).await.leads_to("/account/second-factor");
    let page = browser.get(&stage, "/account/second-factor").await;
    page.says("<svg class=\"qr\"");
    let secret = page.after("id=\"totp-secret\">");
    let now = |stage: &Stage| code(&secret, stage.clock.unix_s());
    let wrong = browser.post(&stage, "/account/second-factor/confirm", &[("code", "000000")]).await;
    wrong.says("This code is not right");
    let page = browser.post(&stage, "/account/second-factor/confirm", &[("code", &now(&stage))]).await;
    let codes = page.after("id=\"recovery-codes\">");
    let codes: Vec<&str> = codes.lines().collect();
    assert_eq!(codes.len(), 10);

    let mut other = Browser::default();
    other.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/login/code");
    other.get(&stage, &keys).await.leads_to("/login/code");
    other.get(&stage, "/login/code").await;
    // The code that turned it on is spent.
    assert_eq!(
        other.post(&stage, "/login/code", &[("code", &now(&stage))]).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    stage.clock.advance(30);
    let half = other.cookie.clone();
    other.post(&stage, "/login/code", &[("code", &now(&stage))]).await.leads_to("/");
    assert_ne!(other.cookie, half, "a whole session has a new id");
    assert_eq!(other.get(&stage, &keys).await.status, StatusCode::OK);

    for outcome in [StatusCode::SEE_OTHER, StatusCode::UNPROCESSABLE_ENTITY] {
        let mut lost = Browser::default();
        lost.log_in(&stage, EMAIL, PASSWORD).await;
        lost.get(&stage, "/login/code").await;
        assert_eq!(lost.post(&stage, "/login/code", &[("code", codes[0])]).await.status, outcome, "once");
    }
    let mut guesser = Browser::default();
    guesser.log_in(&stage, EMAIL, PASSWORD).await;
    guesser.get(&stage, "/login/code").await;
    for _ in 0..3 {
        guesser.post(&stage, "/login/code", &[("code", "000000")]).await;
    }
    assert_eq!(
        guesser.post(&stage, "/login/code", &[("code", "000000")]).await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "five failures of this address"
    );
}

pub async fn another_tenants_pages_do_not_exist(stage: Stage) {
    let (tenant, mut browser) = owner(&stage).await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    let (others, _) = stage.tenant("eve@example.com").await;
    let theirs = stage.app_in(others, LicenseRegion::UsEast1, &[]).await;
    browser.get(&stage, "/account").await;
    let app = theirs.app;
    for path in [
        format!("/tenants/{others}"),
        format!("/tenants/{others}/apps"),
        format!("/tenants/{others}/apps/{app}"),
        format!("/tenants/{tenant}/apps/{app}"),
        format!("/tenants/{others}/members"),
        format!("/tenants/{others}/keys"),
        format!("/tenants/{others}/audit"),
        format!("/tenants/{others}/audit/export"),
        format!("/tenants/{others}/inspector"),
    ] {
        assert_eq!(browser.get(&stage, &path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in [
        format!("/tenants/{others}/keys/rotate"),
        format!("/tenants/{others}/apps/{app}/secret"),
        format!("/tenants/{tenant}/apps/{app}/delete"),
        format!("/tenants/{others}/members/remove"),
    ] {
        assert_eq!(browser.post(&stage, &path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/operator/tenants", "/operator/nodes", "/operator/audit", "/operator/audit/export"] {
        assert_eq!(browser.get(&stage, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let approve = format!("/operator/tenants/{others}/approve");
    assert_eq!(browser.post(&stage, &approve, &[]).await.status, StatusCode::FORBIDDEN);

    // A book-keeper sees no apps and no keys.
    let clerk = stage.account("clerk@example.com").await;
    let add = wiresocket::dashboard::members::add;
    let billing = wiresocket::dashboard::access::Role::Billing;
    add(&stage.dashboard, &Actor::command_line(), tenant, clerk, billing).await.unwrap();
    let mut clerks = Browser::default();
    clerks.log_in(&stage, "clerk@example.com", PASSWORD).await.leads_to("/");
    let members = clerks.get(&stage, &format!("/tenants/{tenant}/members")).await;
    assert!(!members.html.contains("/keys\""), "{}", members.html);
    for page in ["apps", "keys", "audit", "inspector"] {
        let path = format!("/tenants/{tenant}/{page}");
        assert_eq!(clerks.get(&stage, &path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let secret = format!("/tenants/{tenant}/apps/{}/secret", credentials.app);
    assert_eq!(clerks.post(&stage, &secret, &[]).await.status, StatusCode::FORBIDDEN);
}
