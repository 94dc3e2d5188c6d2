//! Refresh tokens: one use, families, and what ends them.

use axum::http::StatusCode;
use serde_json::json;
use wiresocket::dashboard::{apps, subscriptions};

use crate::stage::{API, OFFLINE, Stage, decoded, kid};

const DAY_S: i64 = 86_400;

pub async fn a_refresh_token_is_for_offline_access_and_one_use(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    assert!(stage.token(&credentials, API).await.json.get("refresh_token").is_none());
    let first = stage.token(&credentials, &format!("unknown {OFFLINE}")).await;
    assert_eq!(first.json["scope"], OFFLINE, "what is unknown is left out");
    let token = first.text("refresh_token");
    let second = stage.refresh(&credentials.client_id, &token).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.json);
    assert_eq!((&second.json["scope"], &second.json["expires_in"]), (&json!(OFFLINE), &json!(900)));
    assert_ne!(second.text("refresh_token"), token);
    assert_eq!(kid(&second.text("access_token")), kid(&first.text("access_token")));

    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", &credentials.client_id),
        ("refresh_token", &second.text("refresh_token")),
        ("scope", API),
    ];
    let narrower = stage.post("/connect/token", &fields).await;
    assert_eq!(narrower.json["scope"], API);
    let third = stage.refresh(&credentials.client_id, &narrower.text("refresh_token")).await;
    assert_eq!(third.json["scope"], OFFLINE, "a narrower access token does not narrow the refresh token");
}

pub async fn a_spent_token_used_again_ends_its_family(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let id = &credentials.client_id;
    let other_family = stage.token(&credentials, OFFLINE).await.text("refresh_token");
    let first = stage.token(&credentials, OFFLINE).await.text("refresh_token");
    let second = stage.refresh(id, &first).await.text("refresh_token");
    let third = stage.refresh(id, &second).await.text("refresh_token");
    let reuse = stage.refresh(id, &first).await;
    assert_eq!((reuse.status, reuse.error()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    assert!(reuse.text("error_description").contains("used before"));
    assert_eq!(
        stage.refresh(id, &third).await.error(),
        "invalid_grant",
        "the newest of the family is dead too"
    );
    assert_eq!(stage.refresh(id, &other_family).await.status, StatusCode::OK, "other families live");
}

pub async fn of_many_uses_at_once_one_succeeds(stage: Stage) {
    const USES: usize = 100;
    let (_, credentials) = stage.ready().await;
    let id = &credentials.client_id;
    // From an address of its own each: who fails too often from one has to wait, and that is not what is tested here.
    let addresses = std::cell::Cell::new(0);
    let refresh = |token: String| {
        addresses.set(addresses.get() + 1);
        let (ip, stage) = (format!("198.51.{}.{}", addresses.get() / 256, addresses.get() % 256), &stage);
        async move {
            let fields = [("grant_type", "refresh_token"), ("client_id", id), ("refresh_token", &token)];
            stage.post_from(&ip, "/connect/token", &fields, None).await
        }
    };
    // A family of some generations.
    let mut family = vec![stage.token(&credentials, OFFLINE).await.text("refresh_token")];
    for generation in 0..8 {
        let next = refresh(family[generation].clone()).await.text("refresh_token");
        family.push(next);
    }
    let newest = family.last().unwrap().clone();
    let mut uses: Vec<_> = (0..USES).map(|_| Box::pin(refresh(newest.clone()))).collect();
    let mut answers = Vec::new();
    // All are polled in turn, so that all are under way at once.
    std::future::poll_fn(|context| {
        uses.retain_mut(|each| match each.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if uses.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.error() == "invalid_grant").count(), USES - 1);
    family.push(won[0].text("refresh_token"));
    let mut dead = 0;
    for token in &family {
        dead += usize::from(refresh(token.clone()).await.error() == "invalid_grant");
    }
    assert_eq!(dead, family.len(), "one of the two had stolen it: nobody keeps the family");
    println!(
        "figure: refresh replay: 1 winner of {USES} at once, {dead} of the family's {} dead",
        family.len()
    );
}

pub async fn a_refresh_token_lives_seven_days(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let first = stage.token(&credentials, OFFLINE).await.text("refresh_token");
    stage.clock.advance(7 * DAY_S - 1);
    let second = stage.refresh(&credentials.client_id, &first).await.text("refresh_token");
    stage.clock.advance(7 * DAY_S);
    let late = stage.refresh(&credentials.client_id, &second).await;
    assert_eq!(late.error(), "invalid_grant");
}

pub async fn a_new_secret_kills_the_old_one_and_its_refresh_tokens(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let refresh = stage.token(&credentials, OFFLINE).await.text("refresh_token");
    let app = stage.read(tenant, &credentials).await;
    let new = apps::regenerate_secret(&stage.dashboard, &stage.operator, &app).await.unwrap();
    assert_eq!(new.client_id, credentials.client_id);
    assert_eq!(stage.token(&credentials, API).await.error(), "invalid_client");
    assert_eq!(stage.refresh(&credentials.client_id, &refresh).await.error(), "invalid_grant");
    assert_eq!(stage.token(&new, API).await.status, StatusCode::OK);

    // A refresh token that is issued while the secret changes is dead, or was never issued.
    for _ in 0..4 {
        let app = stage.read(tenant, &new).await;
        let current = apps::regenerate_secret(&stage.dashboard, &stage.operator, &app).await.unwrap();
        let (issued, regenerated) = tokio::join!(
            stage.token(&current, OFFLINE),
            apps::regenerate_secret(&stage.dashboard, &stage.operator, &app),
        );
        regenerated.unwrap();
        if issued.status == StatusCode::OK {
            let used = stage.refresh(&current.client_id, &issued.text("refresh_token")).await;
            assert_eq!(used.error(), "invalid_grant", "a token of the old secret lives on");
        }
        stage.clock.advance(600); // whoever fails too often has to wait
    }
}

pub async fn a_client_can_give_its_refresh_token_back(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let (id, path) = (&credentials.client_id, "/connect/revocation");
    let answer = stage.token(&credentials, OFFLINE).await;
    let token = answer.text("refresh_token");
    let unknown = stage.post(path, &[("token", "wsr_use1_unknown"), ("client_id", id)]).await;
    assert_eq!(unknown.status, StatusCode::OK, "section 2.2: as good as revoked");
    let access = stage.post(path, &[("token", &answer.text("access_token")), ("client_id", id)]).await;
    assert_eq!(access.error(), "unsupported_token_type");
    let stranger = stage.post(path, &[("token", &token), ("client_id", id), ("client_secret", "x")]).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);

    let given_back = stage.post(path, &[("token", &token), ("client_id", id)]).await;
    assert_eq!(given_back.status, StatusCode::OK);
    assert_eq!(stage.refresh(id, &token).await.error(), "invalid_grant");
}

pub async fn a_lapsed_plan_does_not_spend_the_token(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let app = stage.read(tenant, &credentials).await;
    subscriptions::cancel(&stage.dashboard, &stage.operator, &app).await.unwrap();
    stage.clock.advance(31 * DAY_S - 1);
    let refresh = stage.token(&credentials, OFFLINE).await.text("refresh_token");
    stage.clock.advance(1);
    assert_eq!(stage.refresh(&credentials.client_id, &refresh).await.error(), "unauthorized_client");
    stage.subscribe(tenant, &credentials, "free").await;
    assert_eq!(stage.refresh(&credentials.client_id, &refresh).await.status, StatusCode::OK);
}

pub async fn a_token_that_allows_less_stays_so(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let id = credentials.client_id.as_str();
    let asked = [
        ("grant_type", "client_credentials"),
        ("client_id", id),
        ("client_secret", &credentials.client_secret),
        ("scope", "WireSocket.API WireSocket.ReadOnly offline_access"),
        ("documents", "notes  minutes-*"),
    ];
    let first = stage.post("/connect/token", &asked).await;
    assert_eq!(first.json["scope"], "WireSocket.API WireSocket.ReadOnly offline_access");
    let claims = decoded(&first.text("access_token"), 1);
    assert_eq!(claims["documents"], json!(["notes", "minutes-*"]));
    assert_eq!(claims["scope"], first.json["scope"]);

    // A page has the refresh token. It can ask for less, and not for what it hasn't.
    let refresh = async |token: String, more: (&str, &str)| {
        let fields = [("grant_type", "refresh_token"), ("client_id", id), ("refresh_token", &token), more];
        stage.post("/connect/token", &fields).await
    };
    let chosen = refresh(first.text("refresh_token"), ("documents", "*")).await;
    assert_eq!(chosen.error(), "invalid_request", "the refresh token is not spent for that");
    let second = refresh(first.text("refresh_token"), ("scope", API)).await;
    assert_eq!(second.json["scope"], "WireSocket.API WireSocket.ReadOnly");
    let third = stage.refresh(id, &second.text("refresh_token")).await;
    for answer in [second, third] {
        let claims = decoded(&answer.text("access_token"), 1);
        assert_eq!(claims["documents"], json!(["notes", "minutes-*"]));
        assert!(claims["scope"].as_str().unwrap().contains("WireSocket.ReadOnly"));
    }

    for bad in ["no name!", &"n".repeat(256), &"a ".repeat(257), &"n* ".repeat(1366)] {
        let fields = [&asked[..4], &[("documents", bad)]].concat();
        let refused = stage.post("/connect/token", &fields).await;
        assert_eq!((refused.status.as_u16(), refused.error()), (400, "invalid_request"), "{bad:.20}");
    }
    let plain = stage.token(&credentials, API).await;
    assert!(decoded(&plain.text("access_token"), 1).get("documents").is_none());
}
