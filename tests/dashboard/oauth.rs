//! The token endpoint, introspection and metadata, against RFC 6749, 7662 and 8414.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::master::MasterKeys;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::{accounts, members};

use crate::stage::{API, ISSUER, OFFLINE, PASSWORD, START, Stage, client_credentials, decoded, kid};

const TOKEN: &str = "/connect/token";

/// The fields of a request, and the status and error it is answered with.
type Case<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str);

pub async fn a_token_says_what_the_contract_says(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &["myapp.com", "localhost:3000"]).await;
    stage.subscribe(tenant, &credentials, "starter").await;
    let answer = stage.token(&credentials, API).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    let token = answer.text("access_token");
    assert_eq!(
        answer.json,
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": 900, "scope": API })
    );
    let header = decoded(&token, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!(stage.published(tenant).await, [kid(&token)]);
    let claims = decoded(&token, 1);
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER, "sub": credentials.client_id, "aud": API, "scope": API,
            "tenantid": tenant, "appId": credentials.app,
            "licenseRegionCode": "aws-us-east-1", "dbCode": "shard-01-us-east-1",
            "allowed_domain_1": "myapp.com", "allowed_domain_2": "localhost:3000",
            "limits": { "maxConnections": 1000, "maxDocuments": 1000, "maxUsersPerDoc": 50, "opsPerMinute": 60000 },
            "iat": START, "exp": START + 900, "jti": claims["jti"],
        })
    );
    let second = decoded(&stage.token(&credentials, API).await.text("access_token"), 1);
    assert_ne!(claims["jti"], second["jti"]);
}

pub async fn a_client_may_authenticate_by_form_or_by_basic(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let (id, secret) = (&credentials.client_id, &credentials.client_secret);
    let grant = [("grant_type", "client_credentials"), ("scope", API)];
    let ip = "192.0.2.1";
    let plain = stage.post_from(ip, TOKEN, &grant, Some((id, secret))).await;
    assert_eq!(plain.status, StatusCode::OK, "{}", plain.json);
    // RFC 6749 section 2.3.1; some libraries encode every character that is not alphanumeric.
    let encode = |text: &str| text.replace('-', "%2D").replace('_', "%5F");
    let encoded = stage.post_from(ip, TOKEN, &grant, Some((&encode(id), &encode(secret)))).await;
    assert_eq!(encoded.status, StatusCode::OK, "{}", encoded.json);
    let twice = stage.post_from(ip, TOKEN, &client_credentials(&credentials, API), Some((id, secret))).await;
    assert_eq!((twice.status, twice.error()), (StatusCode::BAD_REQUEST, "invalid_request"));
}

pub async fn every_error_is_one_of_the_specifications(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let (id, secret) = (credentials.client_id.as_str(), credentials.client_secret.as_str());
    let right = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
    let with = |more: &[(&'static str, &'static str)]| [&right[..], more].concat();
    let without = |name: &str| right.iter().copied().filter(|(field, _)| *field != name).collect::<Vec<_>>();
    let rows: [Case<'_>; 13] = [
        (vec![], 400, "invalid_request"),
        (without("grant_type"), 400, "invalid_request"),
        (without("client_id"), 401, "invalid_client"),
        (without("client_secret"), 401, "invalid_client"),
        (vec![("grant_type", "authorization_code")], 400, "unsupported_grant_type"),
        (with(&[]), 400, "invalid_scope"),
        (with(&[("scope", "openid")]), 400, "invalid_scope"),
        (with(&[("scope", "WireSocket.APIx offline_access")]), 400, "invalid_scope"),
        (with(&[("scope", "a"), ("scope", "b")]), 400, "invalid_request"),
        (vec![("grant_type", "refresh_token"), ("client_id", id)], 400, "invalid_request"),
        (
            vec![("grant_type", "refresh_token"), ("client_id", id), ("refresh_token", "x")],
            400,
            "invalid_grant",
        ),
        (
            vec![("grant_type", "client_credentials"), ("client_id", "use1-x"), ("client_secret", secret)],
            401,
            "invalid_client",
        ),
        (
            vec![("grant_type", "client_credentials"), ("client_id", "x"), ("client_secret", secret)],
            401,
            "invalid_client",
        ),
    ];
    for (n, (fields, status, error)) in rows.into_iter().enumerate() {
        let answer = stage.post_from(&format!("192.0.2.{n}"), TOKEN, &fields, None).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (status, error), "{fields:?}: {}", answer.json);
        assert!(!answer.text("error_description").is_empty());
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
        let challenged = answer.headers.contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(challenged, status == 401, "{fields:?}");
    }
    let json = Request::post(TOKEN).header(header::CONTENT_TYPE, "application/json");
    let answer = stage.send(json, Body::from("{}")).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, "invalid_request"));
    let answer = stage.get(TOKEN).await;
    assert_eq!((answer.status.as_u16(), answer.header(header::ALLOW)), (405, "POST"));
}

pub async fn an_operator_can_introspect_and_others_cannot(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let answer = stage.token(&credentials, OFFLINE).await;
    let (token, refresh) = (answer.text("access_token"), answer.text("refresh_token"));
    let (_, one_time) =
        accounts::create_operator(&stage.dashboard, &stage.operator, "ops@example.com", "Ops").await.unwrap();
    let introspect = async |token: &str, basic| {
        stage.post_from("192.0.2.7", "/connect/introspect", &[("token", token)], basic).await
    };
    let one_time_refused = introspect(&token, Some(("ops@example.com", &one_time))).await;
    assert_eq!(one_time_refused.status, StatusCode::UNAUTHORIZED, "a one-time password is for changing it");
    let account = accounts::by_email(&stage.dashboard, "ops@example.com").await.unwrap().unwrap();
    let actor = Actor::account(account.id, None);
    accounts::change_password(&stage.dashboard, &actor, account.id, PASSWORD).await.unwrap();

    let ops = Some(("ops@example.com", PASSWORD));
    let found = introspect(&token, ops).await;
    assert_eq!(found.json["active"], true, "{}", found.json);
    assert_eq!(found.json["tenantid"], tenant.to_string());
    assert_eq!(found.json["client_id"], credentials.client_id);
    assert_eq!(introspect(&refresh, ops).await.json["active"], true);
    let forged = format!("{}x", &token[..token.len() - 1]);
    for worthless in [forged.as_str(), "x", "a.b.c", "wsr_use1_x"] {
        assert_eq!(introspect(worthless, ops).await.json, json!({ "active": false }), "{worthless}");
    }
    stage.clock.advance(901);
    assert_eq!(introspect(&token, ops).await.json, json!({ "active": false }));

    for nobody in [None, Some(("owner@example.com", PASSWORD)), Some(("ops@example.com", "wrong"))] {
        assert_eq!(introspect(&token, nobody).await.status, StatusCode::UNAUTHORIZED, "{nobody:?}");
    }
}

pub async fn the_password_grant_is_for_trusted_clients_only(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let fields = |user: &'static str, password: &'static str| {
        let (id, secret) = (credentials.client_id.clone(), credentials.client_secret.clone());
        vec![
            ("grant_type", "password".to_owned()),
            ("client_id", id),
            ("client_secret", secret),
            ("username", user.to_owned()),
            ("password", password.to_owned()),
            ("scope", API.to_owned()),
        ]
    };
    let ask = async |stage: &Stage, ip: &str, user, password| {
        let fields = fields(user, password);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        stage.post_from(ip, TOKEN, &fields, None).await
    };
    let off = ask(&stage, "192.0.2.1", "owner@example.com", PASSWORD).await;
    assert_eq!((off.status, off.error()), (StatusCode::BAD_REQUEST, "unauthorized_client"));

    let mut config = stage.dashboard.config.clone();
    config.tokens.password_clients = vec![credentials.client_id.clone()];
    // A restart with another master key: the key that was sealed before does not open, so it is replaced.
    let trusting = stage.restarted(config, MasterKeys::ephemeral(&[1])).await;
    let before = trusting.published(tenant).await.remove(0);
    wiresocket::dashboard::keys::revoke(&trusting.dashboard, &trusting.operator, tenant, &before)
        .await
        .unwrap();

    let given = ask(&trusting, "192.0.2.2", "owner@example.com", PASSWORD).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.json);
    let wrong = ask(&trusting, "192.0.2.3", "owner@example.com", "something else").await;
    assert_eq!((wrong.status, wrong.error()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    let outsider = trusting.account("outsider@example.com").await;
    let refused = ask(&trusting, "192.0.2.4", "outsider@example.com", PASSWORD).await;
    assert_eq!(refused.error(), "invalid_grant");
    members::add(&trusting.dashboard, &trusting.operator, tenant, outsider, Role::Developer).await.unwrap();
    let given = ask(&trusting, "192.0.2.4", "outsider@example.com", PASSWORD).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.json);
}

pub async fn whoever_fails_too_often_has_to_wait(stage: Stage) {
    let (_, credentials) = stage.ready().await;
    let (id, secret) = (credentials.client_id.as_str(), credentials.client_secret.as_str());
    let ask = async |ip: &str, secret: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
            ("scope", API),
        ];
        stage.post_from(ip, TOKEN, &fields, None).await
    };
    for _ in 0..5 {
        assert_eq!(ask("203.0.113.9", "guess").await.status, StatusCode::UNAUTHORIZED);
    }
    let limited = ask("203.0.113.9", secret).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "the right secret no longer helps");
    assert_eq!(limited.header(header::RETRY_AFTER), "600");
    assert_eq!(ask("203.0.113.10", secret).await.status, StatusCode::OK, "others are not held up");
    stage.clock.advance(600);
    assert_eq!(ask("203.0.113.9", secret).await.status, StatusCode::OK);

    // Guesses from many addresses lock out the guessers, not the client's own servers.
    for n in 0..100 {
        ask(&format!("198.51.100.{n}"), "guess").await;
    }
    assert_eq!(ask("198.51.100.1", secret).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("203.0.113.10", secret).await.status, StatusCode::OK);
}

pub async fn the_metadata_names_the_endpoints(stage: Stage) {
    let document = stage.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(document.status, StatusCode::OK);
    let preflight = stage.send(Request::options(TOKEN), Body::empty()).await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT, "a page of any origin may refresh");
    assert_eq!(preflight.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert_eq!(document.json["issuer"], ISSUER);
    assert_eq!(document.json["token_endpoint"], format!("{ISSUER}/connect/token"));
    assert_eq!(document.json["grant_types_supported"], json!(["client_credentials", "refresh_token"]));
    for (endpoint, error) in [
        ("token_endpoint", "invalid_request"),
        ("revocation_endpoint", "invalid_request"),
        ("introspection_endpoint", "invalid_client"),
    ] {
        let url = document.text(endpoint);
        let path = url.strip_prefix(ISSUER).unwrap();
        assert_eq!(stage.post(path, &[]).await.error(), error, "{path}");
    }
}
