//! Usage, invitations, API keys, recovery codes and the operator's pages, as a browser without JavaScript uses them.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::members;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::sessions::IDLE_S;

use super::nodes::{enrol, post};
use super::stage::{PASSWORD, Stage};
use super::web::{Browser, EMAIL, Page, code, operator, owner};

/// A process of a node that says what it holds.
async fn beat(stage: &Stage, credential: &str, draining: bool, connections: i64) {
    let body = json!({ "version": "1", "connections": connections, "documents": 1, "draining": draining, "boot": 1 });
    assert_eq!(post(stage, "self/heartbeat", credential, body).await.status, StatusCode::OK);
}

async fn report(stage: &Stage, credential: &str, sequence: i64, app: Uuid, figures: (i64, i64, i64)) {
    let (connections, documents, ops) = figures;
    let app = json!({ "appId": app, "connections": connections, "documents": documents, "ops": ops });
    let body = json!({ "boot": 1, "sequence": sequence, "apps": [app] });
    assert_eq!(post(stage, "self/usage", credential, body).await.json, json!({ "taken": true }));
}

fn json_of(page: &Page) -> Value {
    assert_eq!(page.status, StatusCode::OK, "{}", page.html);
    serde_json::from_str(&page.html).unwrap()
}

pub async fn usage_is_shown_against_the_limits_and_gaps_stay_gaps(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let credentials = stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    let app = format!("/tenants/{tenant}/apps/{}", credentials.app);
    let page = ada.get(&stage, &format!("{app}/usage")).await;
    page.says("no plan, so there are no limits");
    stage.subscribe(tenant, &credentials, "starter").await;

    let node = enrol(&stage, "eu-1").await;
    beat(&stage, &node, false, 800).await;
    let start = stage.clock.unix_s();
    report(&stage, &node, 1, credentials.app, (800, 3, 40)).await;
    stage.clock.advance(180);
    beat(&stage, &node, false, 950).await;
    report(&stage, &node, 2, credentials.app, (950, 4, 7)).await;

    let page = ada.get(&stage, &format!("{app}/usage?span=hour")).await;
    page.says("<strong data-figure>950</strong>");
    page.says("of 1,000");
    page.says("<span class=\"gauge critical\" data-gauge=\"connections\">");
    page.says("data-warning>critical<");
    page.says("on 1 node");
    page.says("<td data-label=\"Changes\">–</td>");
    let answer = json_of(&ada.get(&stage, &format!("{app}/usage/points?span=hour")).await);
    let minute = |at: i64| at - at.rem_euclid(60);
    let expected = json!([[minute(start), 800, 3, 40], [minute(start + 180), 950, 4, 7]]);
    assert_eq!(answer["points"], expected, "of the minutes between nothing was reported");
    assert_eq!((&answer["stepS"], &answer["spanS"]), (&json!(60), &json!(3600)));
    assert_eq!((&answer["limits"]["connections"], &answer["silentFor"]), (&json!(1000), &Value::Null));
    let since = format!("{app}/usage/points?span=hour&since={}", minute(start) + 60);
    assert_eq!(json_of(&ada.get(&stage, &since).await)["points"], json!([expected[1]]), "what is new");
    let year = json_of(&ada.get(&stage, &format!("{app}/usage/points?span=year")).await);
    assert_eq!(year["points"], json!([[start - start.rem_euclid(3600), 950, 4, 47]]));

    // The figures are on the app's page and in the list too.
    ada.get(&stage, &app).await.says("<strong data-figure>950</strong>");
    ada.get(&stage, &format!("/tenants/{tenant}/apps")).await.says("<strong data-figure>950</strong>");

    stage.clock.advance(30);
    ada.get(&stage, &format!("{app}/usage"))
        .await
        .says("Nothing was heard of a node for <span>30 seconds</span>");

    // Book-keepers see what an app uses, and not the app. Other tenants see nothing.
    let clerk = stage.account("clerk@example.com").await;
    members::add(&stage.dashboard, &Actor::command_line(), tenant, clerk, Role::Billing).await.unwrap();
    let mut clerks = Browser::default();
    clerks.log_in(&stage, "clerk@example.com", PASSWORD).await.leads_to("/");
    clerks.get(&stage, &format!("{app}/usage")).await.says("<strong data-figure>950</strong>");
    assert_eq!(clerks.get(&stage, &app).await.status, StatusCode::FORBIDDEN);
    stage.tenant("eve@example.com").await;
    let mut eve = Browser::default();
    eve.log_in(&stage, "eve@example.com", PASSWORD).await.leads_to("/");
    for path in [format!("{app}/usage"), format!("{app}/usage/points")] {
        assert_eq!(eve.get(&stage, &path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

pub async fn a_page_that_lies_open_keeps_no_session_alive(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let apps = format!("/tenants/{tenant}/apps");
    let mut open = ada.window();
    for _ in 0..3 {
        stage.clock.advance(IDLE_S / 4);
        let request = Request::get(&apps).header("x-refresh", "1");
        assert_eq!(open.send(&stage, request, Body::empty()).await.status, StatusCode::OK);
    }
    stage.clock.advance(IDLE_S / 4 + 60);
    ada.get(&stage, &apps).await.leads_to(&format!("/login?next={apps}"));
}

pub async fn who_is_invited_looks_and_joins(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let members = format!("/tenants/{tenant}/members");
    ada.get(&stage, &members).await.says("Invite somebody");
    let invite = format!("{members}/invite");
    let wrong = ada.post(&stage, &invite, &[("email", "nobody"), ("role", "king")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    wrong.says("This is no e-mail address");
    wrong.says("Choose a role from the list");
    wrong.says("value=\"nobody\"");
    let grace = [("email", "grace@example.com"), ("role", "developer")];
    ada.post(&stage, &invite, &grace).await.leads_to(&format!("{members}?done=invited"));
    let page = ada.get(&stage, &members).await;
    page.says("<strong>grace@example.com</strong>");
    page.says("by ada@example.com");
    ada.post(&stage, &invite, &grace).await.says("is invited already");
    ada.post(&stage, &invite, &[("email", EMAIL), ("role", "admin")]).await.says("is a member already");

    let letter = stage.letters_to("grace@example.com").pop().unwrap();
    assert!(
        letter.contains("ada@example.com invites you to join Acme on WireSocket, as developer."),
        "{letter}"
    );
    let token = stage.invitation_token("grace@example.com");
    assert_eq!(letter.matches(&token).count(), 2, "in the link, and to be copied");

    let mut grace = Browser::default();
    grace.get(&stage, "/invitation").await.says("data-code-from-link");
    let page = grace.post(&stage, "/invitation", &[("code", "wsi_wrong")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("The invitation&#39;s link is not good");
    let page = grace.post(&stage, "/invitation", &[("code", &token)]).await;
    page.says("Join Acme");
    page.says("<strong>developer</strong>");
    page.says("Make one for grace@example.com");
    let short = [("code", token.as_str()), ("name", "Grace"), ("password", "short")];
    let page = grace.post(&stage, "/invitation/accept", &short).await;
    page.says("The password is too short");
    page.says("value=\"Grace\"");
    let good = [("code", token.as_str()), ("name", "Grace"), ("password", PASSWORD)];
    let joined = grace.post(&stage, "/invitation/accept", &good).await;
    joined.leads_to(&format!("/tenants/{tenant}/apps?done=joined"));
    grace.get(&stage, &format!("/tenants/{tenant}/apps?done=joined")).await.says("You are a member now");
    grace.get(&stage, "/tenants").await.says("you are developer");
    assert_eq!(grace.get(&stage, &format!("/tenants/{tenant}/audit")).await.status, StatusCode::FORBIDDEN);

    let mut late = Browser::default();
    late.get(&stage, "/invitation").await;
    late.post(&stage, "/invitation/accept", &good).await.says("The invitation&#39;s link is not good");
    ada.get(&stage, &members).await.says("<strong>Grace</strong>");
}

pub async fn who_has_an_account_joins_and_logs_in(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    stage.tenant("bob@example.com").await;
    let (members, invite) =
        (format!("/tenants/{tenant}/members"), format!("/tenants/{tenant}/members/invite"));
    ada.get(&stage, &members).await;
    for email in ["bob@example.com", "carol@example.com"] {
        let fields = [("email", email), ("role", "billing")];
        ada.post(&stage, &invite, &fields).await.leads_to(&format!("{members}?done=invited"));
    }
    let token = stage.invitation_token("bob@example.com");

    // Whoever has the mail is not logged in by it, and somebody else's session is not taken for his.
    let mut bob = Browser::default();
    bob.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/");
    bob.get(&stage, "/invitation").await;
    let page = bob.post(&stage, "/invitation", &[("code", &token)]).await;
    page.says("You are logged in as ada@example.com, and the invitation is for bob@example.com");
    assert!(!page.html.contains("name=\"password\""), "{}", page.html);
    let log_in = format!("/login?next=/tenants/{tenant}/members&done=joined-log-in");
    bob.post(&stage, "/invitation/accept", &[("code", &token)]).await.leads_to(&log_in);
    bob.get(&stage, &members).await.leads_to(&format!("/login?next={members}"));
    bob.get(&stage, &log_in).await.says("Log in to go on");
    let fields = [("email", "bob@example.com"), ("password", PASSWORD), ("next", members.as_str())];
    bob.post(&stage, "/login", &fields).await.leads_to(&members);
    assert_eq!(bob.get(&stage, &members).await.status, StatusCode::OK);

    // Who is logged in with the invited account goes straight on.
    stage.account("carol@example.com").await;
    let mut carol = Browser::default();
    carol.log_in(&stage, "carol@example.com", PASSWORD).await.leads_to("/");
    carol.get(&stage, "/invitation").await;
    let token = stage.invitation_token("carol@example.com");
    carol
        .post(&stage, "/invitation", &[("code", &token)])
        .await
        .says("the account that you are logged in with");
    let joined = carol.post(&stage, "/invitation/accept", &[("code", &token)]).await;
    joined.leads_to(&format!("{members}?done=joined"));

    // An operator adds an account as it is; nobody else can.
    let (dan, fields) =
        ("dan@example.com", [("email", "dan@example.com"), ("role", "developer"), ("how", "add")]);
    let mut ops = operator(&stage).await;
    ops.get(&stage, &members).await.says("Add their account");
    ops.post(&stage, &invite, &fields).await.says("Nobody has an account with this address");
    stage.account(dan).await;
    ops.post(&stage, &invite, &fields).await.leads_to(&format!("{members}?done=member-added"));
    let page = ada.get(&stage, &members).await;
    page.says(dan);
    assert!(!page.html.contains("Add their account"), "{}", page.html);
    let other = [("email", "owner2@example.com"), ("role", "developer"), ("how", "add")];
    stage.account("owner2@example.com").await;
    ada.post(&stage, &invite, &other).await.leads_to(&format!("{members}?done=invited"));
}

pub async fn an_invitation_is_withdrawn_and_codes_can_not_be_guessed(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let members = format!("/tenants/{tenant}/members");
    ada.get(&stage, &members).await;
    let fields = [("email", "grace@example.com"), ("role", "admin")];
    ada.post(&stage, &format!("{members}/invite"), &fields)
        .await
        .leads_to(&format!("{members}?done=invited"));
    let token = stage.invitation_token("grace@example.com");
    let id = ada.get(&stage, &members).await.after("name=\"invitation\" value=\"");
    let withdraw = format!("{members}/withdraw");
    ada.post(&stage, &withdraw, &[("invitation", &id)])
        .await
        .leads_to(&format!("{members}?done=invitation-withdrawn"));
    assert!(!ada.get(&stage, &members).await.html.contains("grace@example.com"));
    ada.post(&stage, &withdraw, &[("invitation", &id)]).await.says("not open any more");

    let mut guest = Browser::default();
    guest.get(&stage, "/invitation").await;
    for code in [token.as_str(), "wsi_1", "wsi_2", "wsi_3", "wsi_4"] {
        let page = guest.post(&stage, "/invitation", &[("code", code)]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{code}");
    }
    let page = guest.post(&stage, "/invitation", &[("code", "wsi_5")]).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "five failures of this address");

    std::fs::remove_dir_all(stage.mail_directory()).unwrap();
    std::fs::write(stage.mail_directory(), "a file").unwrap();
    let page = ada.post(&stage, &format!("{members}/invite"), &fields).await;
    page.says("The mail could not be sent, so nobody is invited");
    page.says("value=\"grace@example.com\"");
}

pub async fn an_api_key_is_shown_once_and_ends_when_it_is_revoked(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    let keys = format!("/tenants/{tenant}/api-keys");
    ada.get(&stage, &keys).await.says("No keys yet");
    let wrong = [("name", " "), ("role", "developer"), ("until", "2020-01-01")];
    ada.post(&stage, &keys, &wrong).await.says("An API key needs a name");
    let wrong = [("name", "CI"), ("role", "developer"), ("until", "2020-01-01")];
    let page = ada.post(&stage, &keys, &wrong).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("Choose a day from today on");
    let good = [("name", "CI <b>"), ("role", "developer"), ("until", "2027-06-30")];
    let page = ada.post(&stage, &keys, &good).await;
    let secret = page.after("id=\"api-key\">");
    assert!(secret.starts_with("wsk_"), "{secret}");
    let page = ada.get(&stage, &keys).await;
    assert!(!page.html.contains(&secret), "a secret is shown once");
    page.says("CI &#60;b&#62;");
    page.says("made by ada@example.com");
    page.says("<td data-label=\"Last used\">never</td>");
    page.says("2027-07-01 00:00 UTC");

    let apps = format!("/tenants/{tenant}/apps");
    assert_eq!(stage.call("GET", &apps).by(&secret).send().await.status, StatusCode::OK);
    let page = ada.get(&stage, &keys).await;
    page.says("<td data-label=\"Last used\">in the last hour</td>");
    let id = page.after("name=\"key\" value=\"");

    // A developer makes keys for developers only, and revokes none that may more.
    let dev = stage.account("dev@example.com").await;
    members::add(&stage.dashboard, &Actor::command_line(), tenant, dev, Role::Developer).await.unwrap();
    let mut devs = Browser::default();
    devs.log_in(&stage, "dev@example.com", PASSWORD).await.leads_to("/");
    let page = devs.get(&stage, &keys).await;
    page.says("<option value=\"developer\"");
    assert!(!page.html.contains("<option value=\"admin\""), "{}", page.html);
    let page = devs.post(&stage, &keys, &[("name", "Mine"), ("role", "admin")]).await;
    page.says("it would have rights that you don&#39;t have");

    ada.post(&stage, &format!("{keys}/revoke"), &[("key", &id)])
        .await
        .leads_to(&format!("{keys}?done=api-key-revoked"));
    assert_eq!(stage.call("GET", &apps).by(&secret).send().await.status, StatusCode::UNAUTHORIZED);
    ada.get(&stage, &keys).await.says("<span class=\"badge revoked\">revoked</span>");
    ada.post(&stage, &format!("{keys}/revoke"), &[("key", &id)]).await.says("or it is revoked");
}

pub async fn new_recovery_codes_take_the_place_of_the_old(stage: Stage) {
    let (_, mut ada) = owner(&stage).await;
    let renew = "/account/second-factor/codes";
    ada.get(&stage, "/account").await;
    ada.post(&stage, renew, &[("codes_password", PASSWORD)]).await.says("not being set up");
    ada.post(&stage, "/account/second-factor", &[]).await.leads_to("/account/second-factor");
    let secret = ada.get(&stage, "/account/second-factor").await.after("id=\"totp-secret\">");
    ada.post(&stage, renew, &[("codes_password", PASSWORD)]).await.says("not being set up");
    ada.get(&stage, "/account/second-factor").await;
    let now = code(&secret, stage.clock.unix_s());
    let page = ada.post(&stage, "/account/second-factor/confirm", &[("code", &now)]).await;
    let old = page.after("id=\"recovery-codes\">");
    ada.get(&stage, "/account").await.says("Recovery codes left: 10");

    let page = ada.post(&stage, renew, &[("codes_password", "not the password")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("This is not your password");
    let page = ada.post(&stage, renew, &[("codes_password", PASSWORD)]).await;
    page.says("The old ones are dead");
    let new = page.after("id=\"recovery-codes\">");
    assert_eq!(new.lines().count(), 10);
    assert!(!new.lines().any(|code| old.contains(code)));
    for (code, status) in [
        (old.lines().next().unwrap(), StatusCode::UNPROCESSABLE_ENTITY),
        (new.lines().next().unwrap(), StatusCode::SEE_OTHER),
    ] {
        let mut lost = Browser::default();
        lost.log_in(&stage, EMAIL, PASSWORD).await.leads_to("/login/code");
        lost.get(&stage, "/login/code").await;
        assert_eq!(lost.post(&stage, "/login/code", &[("code", code)]).await.status, status);
    }
    ada.get(&stage, "/account").await.says("Recovery codes left: 9");
}

pub async fn the_audit_log_is_exported_as_the_api_does(stage: Stage) {
    let (tenant, mut ada) = owner(&stage).await;
    stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    stage.dashboard.deliver_audit().await.unwrap();
    let key = stage.api_key(&Actor::command_line(), Some(tenant), Role::Owner).await;
    let export = format!("/tenants/{tenant}/audit/export");
    for (web, api) in [("", ""), ("?format=csv", "?format=csv"), ("?action=app&actor=", "?action=app")] {
        let page = ada.get(&stage, &format!("{export}{web}")).await;
        let answer = stage.call("GET", &format!("{export}{api}")).by(&key).send().await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.html.contains("app.create"), "{}", page.html);
        assert_eq!(page.html, String::from_utf8(answer.bytes.clone()).unwrap(), "{web}");
        for name in [header::CONTENT_TYPE, header::CONTENT_DISPOSITION] {
            assert_eq!(page.header(&name), answer.header(&name), "{web}");
        }
    }
    let wrong = ada.get(&stage, &format!("{export}?from=yesterday")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
}

pub async fn an_operator_sees_where_nodes_are_and_whose_tenants_are(stage: Stage) {
    let (tenant, _) = owner(&stage).await;
    stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    let mut ops = operator(&stage).await;
    let page = ops.get(&stage, "/operator/tenants").await;
    page.says("<td data-label=\"Owner\">ada@example.com</td>");
    page.says("<td data-label=\"Apps\">2</td>");

    ops.get(&stage, "/operator/nodes").await.says("No nodes yet");
    let (one, two) = (enrol(&stage, "eu-1").await, enrol(&stage, "eu-2").await);
    beat(&stage, &one, false, 40).await;
    beat(&stage, &two, true, 12).await;
    let page = ops.get(&stage, "/operator/nodes").await;
    page.says("1 active, 1 draining");
    page.says("12 connections left");
    page.says("0 seconds ago");
    page.says("aws-ap-south-1: no node");
    beat(&stage, &two, true, 0).await;
    ops.get(&stage, "/operator/nodes").await.says("empty: it can be stopped");
    stage.clock.advance(60);
    ops.get(&stage, "/operator/nodes").await.says("2 down");
}
