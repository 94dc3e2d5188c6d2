//! Payments that a provider reports, over HTTP.

use std::os::unix::fs::PermissionsExt;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use wiresocket::dashboard::access::Actor;
use wiresocket::dashboard::audit;
use wiresocket::dashboard::billing::invoices::{self, InvoiceError, InvoiceState};
use wiresocket::dashboard::billing::providers::Collection;
use wiresocket::dashboard::billing::standard_webhooks::Secret;
use wiresocket::dashboard::config::ProviderSettings;
use wiresocket::dashboard::master::{KeySource, MasterKeys};
use wiresocket::dashboard::subscriptions::{AppId, SubscriptionState};

use crate::billing::{app, invoice, newest, pay, pick, subscription, upkeep};
use crate::stage::{Answer, Stage};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const FOREIGN: &str = "whsec_//////////////////////////////////////////8=";

/// A stage with a hosted checkout called `acme`, which two secrets may sign for.
struct Shop {
    stage: Stage,
    app: AppId,
    owner: Actor,
    _secrets: TempDir,
}

impl Shop {
    async fn open(stage: &Stage) -> Self {
        let (app, _, owner) = app(stage).await;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, secret: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, secret).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            KeySource::File(path)
        };
        let mut config = stage.dashboard.config.clone();
        config.billing.provider = Some("acme".to_owned());
        let acme = ProviderSettings {
            checkout_url: "https://pay.example.com/{invoiceId}?a={amountCents}{currency}&r={returnTo}"
                .to_owned(),
            webhook_secrets: vec![file("old", OLD), file("new", NEW)],
        };
        config.billing.providers.insert("acme".to_owned(), acme);
        let stage = stage.restarted(config, MasterKeys::ephemeral(&[1])).await;
        Self { stage, app, owner, _secrets: dir }
    }

    fn now(&self) -> i64 {
        self.stage.dashboard.now()
    }

    async fn deliver(&self, id: &str, body: &Value) -> StatusCode {
        self.deliver_as(id, NEW, self.now(), body).await.status
    }

    async fn deliver_as(&self, id: &str, secret: &str, at: i64, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = secret.parse::<Secret>().unwrap().sign(id, at, body.as_bytes());
        self.post(
            "acme",
            &[("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &signature)],
            body,
        )
        .await
    }

    async fn post(&self, provider: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::post(format!("/billing/webhooks/{provider}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // From an address of its own each time: the limit on failures is not what is tested here.
        let [a, b, ..] = Uuid::new_v4().into_bytes();
        self.stage.send_from(&format!("198.18.{a}.{b}"), request, Body::from(body)).await
    }

    async fn state(&self, id: Uuid) -> (InvoiceState, i64) {
        let invoice = invoice(&self.stage, self.app, id).await.invoice;
        (invoice.state, invoice.due_cents())
    }
}

fn succeeded(invoice: Uuid, payment: &str, cents: i64) -> Value {
    json!({
        "type": "payment.succeeded",
        "data": { "invoiceId": invoice, "paymentId": payment, "amountCents": cents, "currency": "USD" },
    })
}

fn refunded(invoice: Uuid, refund: &str, cents: i64) -> Value {
    json!({
        "type": "payment.refunded",
        "data": { "invoiceId": invoice, "refundId": refund, "amountCents": cents, "currency": "USD" },
    })
}

pub async fn a_checkout_is_paid_once_however_often_it_is_told(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    let (dashboard, tenant) = (&shop.stage.dashboard, shop.app.tenant);
    let go = invoices::checkout(dashboard, &shop.owner, tenant, id, "https://a.example/").await.unwrap();
    let url = format!("https://pay.example.com/{id}?a=2900USD&r=https%3A%2F%2Fa.example%2F");
    assert_eq!(go, Collection::Checkout { url });
    let manual = invoices::checkout(&stage.dashboard, &shop.owner, tenant, id, "").await.unwrap();
    assert!(matches!(manual, Collection::Instructions(_)), "{manual:?}");

    let body = succeeded(id, "pay_1", 2900);
    let told = || shop.deliver("msg_1", &body);
    let (a, b, c) = tokio::join!(told(), told(), told());
    assert_eq!([a, b, c], [StatusCode::NO_CONTENT; 3]);
    assert_eq!(shop.deliver("msg_2", &body).await, StatusCode::NO_CONTENT, "the same payment, told anew");
    let detail = invoice(&shop.stage, shop.app, id).await;
    assert_eq!(detail.payments.len(), 1, "{:?}", detail.payments);
    assert_eq!(shop.state(id).await, (InvoiceState::Paid, 0));
    assert_eq!(invoices::waiting(dashboard, &shop.owner, tenant).await.unwrap(), [], "and no credit");
    let again = invoices::checkout(dashboard, &shop.owner, tenant, id, "").await;
    assert!(matches!(again, Err(InvoiceError::NotOpen { .. })), "{again:?}");
}

pub async fn only_the_provider_is_believed(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    let (now, body) = (shop.now(), succeeded(id, "pay_1", 2900));
    let timestamp = now.to_string();
    for (secret, at, why) in [
        (FOREIGN, now, "no signature"),
        (NEW, now - 301, "timestamp is more than 300 seconds"),
        (NEW, now + 301, "timestamp is more than 300 seconds"),
    ] {
        let refused = shop.deliver_as("msg_1", secret, at, &body).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.text("detail").contains(why), "{}", refused.json);
    }
    let signature = NEW.parse::<Secret>().unwrap().sign("msg_1", now, body.to_string().as_bytes());
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", timestamp.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    let forged = shop.post("acme", &headers, succeeded(id, "pay_1", 1).to_string()).await;
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED, "another body");
    for left_out in 0..3 {
        let some: Vec<_> =
            headers.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, h)| *h).collect();
        let refused = shop.post("acme", &some, body.to_string()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text("detail").contains(headers[left_out].0), "{}", refused.json);
    }
    for nobody in ["manual", "other"] {
        assert_eq!(shop.post(nobody, &headers, body.to_string()).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(shop.state(id).await, (InvoiceState::Open, 2900), "nothing has come of all that");

    // A replay, of what was overheard: within the tolerance it counts once, later it is refused.
    let both = format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= {signature}");
    let good = [headers[0], headers[1], ("webhook-signature", both.as_str())];
    assert_eq!(shop.post("acme", &good, body.to_string()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(shop.post("acme", &good, body.to_string()).await.status, StatusCode::NO_CONTENT);
    stage.clock.advance(301);
    assert_eq!(shop.post("acme", &good, body.to_string()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(invoice(&shop.stage, shop.app, id).await.payments.len(), 1);
}

pub async fn a_secret_is_changed_without_a_gap(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    for (secret, payment) in [(OLD, "pay_1"), (NEW, "pay_2")] {
        let answer = shop.deliver_as(payment, secret, shop.now(), &succeeded(id, payment, 1450)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(shop.state(id).await, (InvoiceState::Paid, 0), "two halves");
}

pub async fn a_payment_that_fails_makes_the_invoice_overdue(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    let failed = json!({ "type": "payment.failed", "data": { "invoiceId": id, "reason": "card declined" } });
    for _ in 0..2 {
        assert_eq!(shop.deliver("msg_1", &failed).await, StatusCode::NO_CONTENT);
    }
    let entries = audit::entries(&stage.dashboard.home, 0, 1000, Some(shop.app.tenant)).await.unwrap();
    let told = entries.iter().filter(|entry| entry.event.action == "invoice.payment_failed");
    assert_eq!(told.count(), 1, "one delivery counts once");
    assert_eq!(subscription(&shop.stage, shop.app).await.state, SubscriptionState::PastDue);
    stage.clock.advance(7 * 86_400);
    assert_eq!(upkeep(&shop.stage).await.disabled, 1, "the grace runs from the failure on");
    assert_eq!(shop.deliver("msg_2", &succeeded(id, "pay_1", 2900)).await, StatusCode::NO_CONTENT);
    let found = subscription(&shop.stage, shop.app).await;
    assert_eq!((found.state, found.disabled_at), (SubscriptionState::Active, None));
    assert_eq!(shop.deliver("msg_3", &failed).await, StatusCode::NO_CONTENT);
    assert_eq!(shop.state(id).await, (InvoiceState::Paid, 0), "a failure told late changes nothing");
}

pub async fn refunds_and_odd_amounts_are_booked(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    assert_eq!(
        shop.deliver("early", &refunded(id, "re_0", 100)).await,
        StatusCode::BAD_REQUEST,
        "not yet paid"
    );
    assert_eq!(shop.deliver("m1", &succeeded(id, "pay_1", 900)).await, StatusCode::NO_CONTENT);
    assert_eq!(shop.deliver("m2", &refunded(id, "re_1", 900)).await, StatusCode::NO_CONTENT);
    assert_eq!(
        shop.state(id).await,
        (InvoiceState::Open, 2900),
        "a part payment that went back is due again"
    );

    assert_eq!(shop.deliver("m3", &succeeded(id, "pay_2", 4000)).await, StatusCode::NO_CONTENT);
    assert_eq!(shop.state(id).await, (InvoiceState::Paid, 0));
    let credit = async || {
        let waiting = invoices::waiting(&shop.stage.dashboard, &shop.owner, shop.app.tenant).await.unwrap();
        waiting.iter().map(|(_, line)| line.amount_cents).sum::<i64>()
    };
    assert_eq!(credit().await, -1100, "what was paid too much");
    assert_eq!(shop.deliver("m4", &refunded(id, "re_2", 1500)).await, StatusCode::NO_CONTENT);
    assert_eq!(credit().await, 0, "goes back first");
    let found = invoice(&shop.stage, shop.app, id).await.invoice;
    assert_eq!((found.state, found.refunded_cents), (InvoiceState::Paid, 400));
    assert_eq!(shop.deliver("m5", &refunded(id, "re_3", 2501)).await, StatusCode::BAD_REQUEST, "too much");
    assert_eq!(
        shop.deliver("m5", &refunded(id, "re_3", 2500)).await,
        StatusCode::NO_CONTENT,
        "not spent by that"
    );
    assert_eq!(shop.state(id).await, (InvoiceState::Refunded, 0));
    assert_eq!(newest(&shop.stage, shop.app).await.payments.len(), 5);
}

pub async fn what_can_not_be_acted_on_is_named(stage: Stage) {
    let shop = Shop::open(&stage).await;
    let id = pick(&shop.stage, shop.app, "starter").await.unwrap();
    let mut euros = succeeded(id, "pay_1", 2900);
    euros["data"]["currency"] = json!("EUR");
    for (body, said) in [
        (succeeded(Uuid::nil(), "pay_1", 2900), "there is no invoice"),
        (succeeded(id, "pay_1", 0), "positive number of cents"),
        (euros, "is in USD, not in EUR"),
        (json!({ "type": "payment.succeeded", "data": {} }), "missing field `invoiceId`"),
        (json!([1]), "webhook's body"),
    ] {
        let answer = shop.deliver_as("msg_1", NEW, shop.now(), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.text("detail").contains(said), "{}", answer.json);
    }
    let other = json!({ "type": "customer.created", "data": {} });
    assert_eq!(shop.deliver("msg_1", &other).await, StatusCode::NO_CONTENT);
    assert_eq!(shop.deliver("msg_1", &succeeded(id, "pay_1", 2900)).await, StatusCode::NO_CONTENT);
    assert_eq!(shop.state(id).await.0, InvoiceState::Paid);
    let done =
        invoices::mark_paid(&shop.stage.dashboard, &stage.operator, shop.app.tenant, id, None, "").await;
    assert!(matches!(done, Err(InvoiceError::NotOpen { .. })), "{done:?}");
    stage.clock.advance(crate::billing::MONTH_S);
    upkeep(&shop.stage).await;
    let next = newest(&shop.stage, shop.app).await.invoice.id;
    assert_eq!(
        pay(&stage, shop.app, next).await.state,
        InvoiceState::Paid,
        "an operator may still mark by hand"
    );
}
