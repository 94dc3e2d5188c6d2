//! Plans, subscriptions, invoices and usage by the management API: what it says of them, and how it refuses.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::apps;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::subscriptions::QUOTE_LIFE_S;

use crate::nodes::{enrol, post};
use crate::stage::{API, Answer, START, Stage};

/// A tenant with an app that has no plan.
struct Shop {
    stage: Stage,
    tenant: Uuid,
    owner: Actor,
    app: apps::Credentials,
    /// Of the owner's and of an operator's keys.
    owner_key: String,
    operator_key: String,
}

impl Shop {
    async fn new(stage: Stage) -> Self {
        let (tenant, owner) = stage.tenant("owner@example.com").await;
        let app = stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
        let owner_key = stage.api_key(&owner, Some(tenant), Role::Owner).await;
        let operator_key = stage.api_key(&stage.operator, None, Role::Operator).await;
        Self { stage, tenant, owner, app, owner_key, operator_key }
    }

    fn of_app(&self, rest: &str) -> String {
        format!("/tenants/{}/apps/{}/{rest}", self.tenant, self.app.app)
    }

    async fn get(&self, path: &str) -> Answer {
        self.stage.call("GET", path).by(&self.owner_key).send().await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.stage.call("POST", path).by(&self.owner_key).json(body).await
    }

    async fn operate(&self, path: &str, body: Value) -> Answer {
        self.stage.call("POST", path).by(&self.operator_key).json(body).await
    }

    async fn preview(&self, plan: &str) -> Value {
        let shown = self.post(&self.of_app("subscription/preview"), json!({ "plan": plan })).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.json);
        shown.json
    }
}

fn refusal(answer: &Answer) -> (u16, &str) {
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json", "{}", answer.json);
    (answer.status.as_u16(), answer.json["errors"][0]["pointer"].as_str().unwrap_or_default())
}

pub async fn what_a_preview_shows_is_what_a_pick_with_its_quote_does(stage: Stage) {
    let shop = Shop::new(stage).await;
    let subscription = shop.of_app("subscription");
    assert_eq!(refusal(&shop.get(&subscription).await).0, 404);
    let shown = shop.preview("starter").await;
    assert_eq!(
        (&shown["current"], &shown["invoiceNow"]["totalCents"]),
        (&Value::Null, &json!(2900)),
        "{shown}"
    );
    assert_eq!(shown["validUntil"], START + QUOTE_LIFE_S);
    assert_eq!(refusal(&shop.get(&subscription).await).0, 404, "a preview changes nothing");

    shop.stage.clock.advance(60);
    let pick = json!({ "plan": "starter", "quote": shown["quote"] });
    let picked = shop.post(&subscription, pick.clone()).await;
    assert_eq!(picked.status, StatusCode::OK, "{}", picked.json);
    let (now, invoice) = (&picked.json["subscription"], picked.text("invoice"));
    assert_eq!((&now["state"], &now["plan"]["id"]), (&json!("active"), &json!("starter")));
    assert_eq!(
        (&now["periodStart"], &now["periodEnd"]),
        (&shown["period"]["start"], &shown["period"]["end"])
    );
    let invoice = shop.get(&format!("/tenants/{}/invoices/{invoice}", shop.tenant)).await;
    assert_eq!(invoice.json["lines"], shown["invoiceNow"]["lines"], "to the cent");
    assert_eq!((&invoice.json["dueCents"], &invoice.json["state"]), (&json!(2900), &json!("open")));

    let again = shop.post(&subscription, pick).await;
    assert_eq!(refusal(&again).0, 409);
    assert_eq!(again.json["type"], "urn:wiresocket:problem:stale-quote", "{}", again.json);
    let same = shop.post(&subscription, json!({ "plan": "starter" })).await;
    assert_eq!((refusal(&same).0, same.text("detail")), (409, "the app is on this plan already".to_owned()));
    for (body, pointer) in [
        (json!({ "plan": "gold" }), "/plan"),
        (json!({ "plan": "pro", "quote": "1.2" }), "/quote"),
        (json!({ "plan": "pro", "colour": "red" }), "/colour"),
    ] {
        assert_eq!(refusal(&shop.post(&subscription, body).await), (422, pointer));
    }
    let old = shop.preview("pro").await;
    shop.stage.clock.advance(QUOTE_LIFE_S + 1);
    let late = shop.post(&subscription, json!({ "plan": "pro", "quote": old["quote"] })).await;
    assert_eq!(late.json["type"], "urn:wiresocket:problem:stale-quote");
    assert_eq!(shop.stage.token(&shop.app, API).await.status, StatusCode::OK);
}

pub async fn a_subscription_is_cancelled_taken_back_and_ended(stage: Stage) {
    let shop = Shop::new(stage).await;
    let subscription = shop.of_app("subscription");
    for verb in ["cancel", "uncancel"] {
        let refused = shop.post(&format!("{subscription}/{verb}"), json!({})).await;
        assert_eq!(refusal(&refused).0, 409, "without a plan");
    }
    shop.post(&subscription, json!({ "plan": "free" })).await;
    let cancelled = shop.post(&format!("{subscription}/cancel"), json!({})).await;
    assert_eq!(
        (&cancelled.json["state"], &cancelled.json["cancelledAt"]),
        (&json!("cancelled"), &json!(START))
    );
    let tag = cancelled.header(header::ETAG).to_owned();
    assert_eq!(shop.get(&subscription).await.header(header::ETAG), tag);
    let back = shop.post(&format!("{subscription}/uncancel"), json!({})).await;
    assert_eq!((&back.json["state"], &back.json["cancelledAt"]), (&json!("active"), &Value::Null));
    let list = shop.get(&format!("/tenants/{}/subscriptions", shop.tenant)).await;
    assert_eq!(list.json["items"][0]["subscription"], back.json);

    let second = shop.stage.app_in(shop.tenant, LicenseRegion::UsEast1, &[]).await.app;
    let second = format!("/tenants/{}/apps/{second}/subscription", shop.tenant);
    let taken = shop.post(&second, json!({ "plan": "free" })).await;
    assert!(refusal(&taken).0 == 409 && taken.text("detail").contains("free plan"), "{}", taken.json);
    let ended = shop.post(&format!("{subscription}/end"), json!({})).await;
    assert_eq!(refusal(&ended).0, 403, "tenants cancel");
    let ended = shop.operate(&format!("{subscription}/end"), json!({})).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(refusal(&shop.get(&subscription).await).0, 404);
    assert_eq!(shop.post(&second, json!({ "plan": "free" })).await.status, StatusCode::OK);
}

pub async fn an_invoice_is_paid_or_written_off_once(stage: Stage) {
    let shop = Shop::new(stage).await;
    let picked = shop.post(&shop.of_app("subscription"), json!({ "plan": "starter" })).await;
    let invoices = format!("/tenants/{}/invoices", shop.tenant);
    let invoice = format!("{invoices}/{}", picked.text("invoice"));
    let go = shop.post(&format!("{invoice}/checkout"), json!({})).await;
    assert!(go.json["instructions"].is_string() && go.json["url"].is_null(), "{}", go.json);
    let strange =
        shop.post(&format!("{invoice}/checkout"), json!({ "returnTo": "javascript:alert(1)" })).await;
    assert_eq!(refusal(&strange), (422, "/returnTo"));

    let pay = format!("{invoice}/mark-paid");
    assert_eq!(refusal(&shop.operate(&pay, json!({ "amountCents": 0 })).await), (422, "/amountCents"));
    let long = json!({ "reference": "x".repeat(201) });
    assert_eq!(refusal(&shop.operate(&pay, long).await), (422, "/reference"));
    let long = json!({ "reason": "x".repeat(201) });
    assert_eq!(refusal(&shop.operate(&format!("{invoice}/write-off"), long).await), (422, "/reason"));
    let part = shop.operate(&pay, json!({ "amountCents": 900, "reference": "first" })).await;
    assert_eq!(
        (&part.json["state"], &part.json["dueCents"]),
        (&json!("open"), &json!(2000)),
        "{}",
        part.json
    );
    let open = shop.stage.call("GET", "/invoices").by(&shop.operator_key).send().await;
    assert_eq!(open.json["items"][0]["id"], part.json["id"]);
    // The same request again, with its key, is the same payment.
    let rest = async || {
        let call = shop.stage.call("POST", &pay).by(&shop.operator_key).with("idempotency-key", "rest");
        call.json(json!({})).await
    };
    let (paid, repeated) = (rest().await, rest().await);
    assert_eq!((&paid.json["state"], &paid.json["dueCents"]), (&json!("paid"), &json!(0)));
    assert_eq!(repeated.json, paid.json);
    assert_eq!(paid.json["payments"].as_array().map(Vec::len), Some(2));
    for (path, body) in [("mark-paid", json!({})), ("write-off", json!({}))] {
        assert_eq!(refusal(&shop.operate(&format!("{invoice}/{path}"), body).await).0, 409, "{path}");
    }
    assert_eq!(refusal(&shop.post(&format!("{invoice}/checkout"), json!({})).await).0, 409);

    let second = shop.stage.app_in(shop.tenant, LicenseRegion::UsEast1, &[]).await.app;
    let second = format!("/tenants/{}/apps/{second}/subscription", shop.tenant);
    shop.post(&second, json!({ "plan": "pro" })).await;
    let all = shop.get(&invoices).await.json["items"].as_array().unwrap().clone();
    let numbers: Vec<_> = all.iter().map(|invoice| invoice["number"].as_i64().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers.is_sorted_by(|a, b| a > b), "newest first: {numbers:?}");
    let foreign = format!("/tenants/{}/invoices/{}", shop.tenant, Uuid::nil());
    assert_eq!(refusal(&shop.get(&foreign).await).0, 404);
}

pub async fn a_plans_new_terms_need_its_etag(stage: Stage) {
    let shop = Shop::new(stage).await;
    let limits = json!({ "maxConnections": 9, "maxDocuments": 8, "maxUsersPerDoc": 7, "opsPerMinute": 60 });
    let mut body = json!({ "id": "team", "name": "Team", "limits": limits, "priceCents": 990, "currency": "USD", "period": "year" });
    let made = shop.operate("/plans", body.clone()).await;
    assert_eq!((made.status, made.header(header::LOCATION)), (StatusCode::CREATED, "/api/v1/plans/team"));
    assert_eq!((&made.json["version"], &made.json["isOffered"]), (&json!(1), &json!(true)));
    assert_eq!(refusal(&shop.operate("/plans", body.clone()).await).0, 409);
    for (pointer, wrong) in [("/id", json!("Team")), ("/currency", json!("usd")), ("/priceCents", json!(-1))]
    {
        let mut bad = body.clone();
        bad[&pointer[1..]] = wrong;
        assert_eq!(refusal(&shop.operate("/plans", bad).await), (422, pointer));
    }
    let mut bad = body.clone();
    (bad["id"], bad["limits"]["maxUsersPerDoc"]) = ("other".into(), 0.into());
    assert_eq!(refusal(&shop.operate("/plans", bad).await), (422, "/limits/maxUsersPerDoc"));

    body.as_object_mut().unwrap().remove("id");
    body["limits"]["maxConnections"] = 90.into();
    let tag = shop.get("/plans/team").await.header(header::ETAG).to_owned();
    let change = |tag: &str| {
        let call = shop.stage.call("PUT", "/plans/team").by(&shop.operator_key).with("if-match", tag);
        call.json(body.clone())
    };
    let (one, other) = tokio::join!(change(&tag), change(&tag));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", one.json, other.json);
    let now = shop.get("/plans/team").await;
    assert_eq!((&now.json["version"], &now.json["limits"]["maxConnections"]), (&json!(2), &json!(90)));

    let retired = shop.operate("/plans/team/retire", json!({})).await;
    assert_eq!(retired.json["isOffered"], false);
    let refused = shop.post(&shop.of_app("subscription"), json!({ "plan": "team" })).await;
    assert_eq!(refusal(&refused), (422, "/plan"));
    assert_eq!(shop.operate("/plans/team/offer", json!({})).await.json["isOffered"], true);
    assert_eq!(refusal(&shop.operate("/plans/none/offer", json!({})).await).0, 404);
    assert_eq!(
        shop.post(&shop.of_app("subscription"), json!({ "plan": "team" })).await.status,
        StatusCode::OK
    );
}

pub async fn usage_is_told_with_its_limits_and_its_history(stage: Stage) {
    let shop = Shop::new(stage).await;
    let (usage, history) = (shop.of_app("usage"), shop.of_app("usage/history"));
    assert_eq!(shop.get(&usage).await.json["limits"], Value::Null, "no plan");
    shop.post(&shop.of_app("subscription"), json!({ "plan": "starter" })).await;
    let node = enrol(&shop.stage, "eu-1").await;
    let beat = json!({ "version": "1", "connections": 0, "documents": 0, "draining": false, "boot": 1 });
    post(&shop.stage, "self/heartbeat", &node, beat).await;
    let apps = json!([{ "appId": shop.app.app, "connections": 7, "documents": 3, "ops": 50 }]);
    post(&shop.stage, "self/usage", &node, json!({ "boot": 1, "sequence": 1, "apps": apps })).await;

    let live = shop.get(&usage).await.json;
    let figures = (&live["connections"], &live["documents"], &live["opsThisMinute"], &live["nodes"]);
    assert_eq!(figures, (&json!(7), &json!(3), &json!(50), &json!(1)), "{live}");
    assert_eq!((&live["limits"]["maxConnections"], &live["isStale"]), (&json!(1000), &json!(false)));
    for (query, step_s, count) in [("", 60, 1440), ("?step=hour", 3600, 169)] {
        let told = shop.get(&format!("{history}{query}")).await.json;
        let points = told["points"].as_array().unwrap();
        assert_eq!(points.len(), count, "{query}");
        let last = points.last().unwrap();
        assert_eq!((&last["connections"], &last["ops"]), (&json!(7), &json!(50)), "{query}: {last}");
        let is_step =
            |pair: &[Value]| pair[1]["at"].as_i64().unwrap() - pair[0]["at"].as_i64().unwrap() == step_s;
        assert!(points.windows(2).all(is_step), "{query}");
    }
    let part = shop.get(&format!("{history}?from={}&to={}", START - 120, START)).await.json;
    assert_eq!(part["points"].as_array().unwrap().len(), 2, "the end is not included: {part}");
    for query in
        [format!("step=hour&from={}", START - 300 * 86_400), "step=day".to_owned(), "since=1".to_owned()]
    {
        assert_eq!(refusal(&shop.get(&format!("{history}?{query}")).await).0, 400, "{query}");
    }
    let billing = shop.stage.account("billing@example.com").await;
    let dashboard = &shop.stage.dashboard;
    wiresocket::dashboard::members::add(dashboard, &shop.owner, shop.tenant, billing, Role::Billing)
        .await
        .unwrap();
    let key = shop.stage.api_key(&Actor::account(billing, None), Some(shop.tenant), Role::Billing).await;
    let seen = shop.stage.call("GET", &usage).by(&key).send().await;
    assert_eq!(seen.status, StatusCode::OK, "who pays sees what it is for");
}
