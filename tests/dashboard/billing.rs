//! Plans, what they cost, and what happens to whoever doesn't pay.

use axum::http::StatusCode;
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Denied, Role};
use wiresocket::dashboard::apps::{self, Credentials};
use wiresocket::dashboard::billing::invoices::{self, Invoice, InvoiceDetail, InvoiceError, InvoiceState};
use wiresocket::dashboard::billing::{Cadence, LineKind};
use wiresocket::dashboard::plans::{self, Plan, PlanError, PlanTerms};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::{Columns, query};
use wiresocket::dashboard::subscriptions::{
    self, AppId, Subscription, SubscriptionError, SubscriptionState, Upkeep,
};
use wiresocket::dashboard::{audit, members, tenants};

use crate::stage::{API, START, Stage, decoded};

pub const DAY_S: i64 = 86_400;
/// START is 2027-01-15: the month that begins then has 31 days.
pub const MONTH_S: i64 = 31 * DAY_S;

/// A tenant with an app, which has no plan yet.
pub async fn app(stage: &Stage) -> (AppId, Credentials, Actor) {
    let (tenant, owner) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    (AppId { tenant, app: credentials.app }, credentials, owner)
}

pub async fn pick(stage: &Stage, app: AppId, plan: &str) -> Option<Uuid> {
    subscriptions::pick(&stage.dashboard, &stage.operator, app, plan, None).await.unwrap().invoice
}

pub async fn subscription(stage: &Stage, app: AppId) -> Subscription {
    subscriptions::read(&stage.dashboard, &stage.operator, app).await.unwrap().expect("a subscription")
}

pub async fn invoice(stage: &Stage, app: AppId, id: Uuid) -> InvoiceDetail {
    invoices::read(&stage.dashboard, &stage.operator, app.tenant, id).await.unwrap()
}

pub async fn newest(stage: &Stage, app: AppId) -> InvoiceDetail {
    let newest = invoices::list(&stage.dashboard, &stage.operator, app.tenant, None, 1).await.unwrap();
    invoice(stage, app, newest[0].id).await
}

pub async fn pay(stage: &Stage, app: AppId, id: Uuid) -> Invoice {
    invoices::mark_paid(&stage.dashboard, &stage.operator, app.tenant, id, None, "bank").await.unwrap()
}

pub async fn upkeep(stage: &Stage) -> Upkeep {
    subscriptions::upkeep(&stage.dashboard).await.unwrap()
}

fn amounts(detail: &InvoiceDetail) -> Vec<(LineKind, i64)> {
    detail.lines.iter().map(|line| (line.kind, line.amount_cents)).collect()
}

pub fn terms(price_cents: i64) -> PlanTerms {
    PlanTerms {
        name: "Team".to_owned(),
        max_connections: 500,
        max_documents: 400,
        max_users_per_doc: 30,
        ops_per_minute: 20_000,
        price_cents,
        currency: "USD".to_owned(),
        period: Cadence::Month,
    }
}

async fn team(stage: &Stage) -> Plan {
    plans::create(&stage.dashboard, &stage.operator, "team", terms(1000)).await.unwrap()
}

pub async fn a_plans_new_terms_are_for_those_who_come_later(stage: Stage) {
    let (first, credentials, owner) = app(&stage).await;
    let (dashboard, operator) = (&stage.dashboard, &stage.operator);
    let refused = plans::create(dashboard, &owner, "team", terms(1000)).await;
    assert!(matches!(refused, Err(PlanError::Denied(Denied::Role { .. }))), "{refused:?}");
    let team = team(&stage).await;
    let twice = plans::create(dashboard, operator, "team", terms(1000)).await;
    assert!(matches!(twice, Err(PlanError::Exists(_))), "{twice:?}");
    pick(&stage, first, "team").await;

    let dearer = PlanTerms { price_cents: 1500, max_connections: 9, ..terms(0) };
    let changed = plans::change(dashboard, operator, "team", team.version, dearer.clone()).await.unwrap();
    assert_eq!((changed.version, changed.price_cents), (2, 1500));
    let late = plans::change(dashboard, operator, "team", team.version, dearer).await;
    assert!(matches!(late, Err(PlanError::Changed)), "{late:?}");
    let claims = decoded(&stage.token(&credentials, API).await.text("access_token"), 1);
    assert_eq!(claims["limits"]["maxConnections"], 500, "the subscription's version");
    let second = stage.app_in(first.tenant, LicenseRegion::UsEast1, &[]).await;
    let second = AppId { app: second.app, ..first };
    let id = pick(&stage, second, "team").await.unwrap();
    assert_eq!(invoice(&stage, second, id).await.invoice.total_cents, 1500);

    plans::retire(dashboard, operator, "team").await.unwrap();
    let third = stage.app_in(first.tenant, LicenseRegion::UsEast1, &[]).await;
    let third = AppId { app: third.app, ..first };
    let gone = subscriptions::pick(dashboard, operator, third, "team", None).await;
    assert!(matches!(gone, Err(SubscriptionError::Plan(_))), "{gone:?}");
    for open in invoices::list_open(dashboard, operator, 0, 10).await.unwrap() {
        pay(&stage, first, open.id).await;
    }
    stage.clock.advance(MONTH_S);
    assert_eq!(upkeep(&stage).await.renewed, 2, "who has a retired plan keeps it");
    let totals: Vec<_> = invoices::list_open(dashboard, operator, 0, 10).await.unwrap();
    let mut totals: Vec<_> = totals.iter().map(|invoice| invoice.total_cents).collect();
    totals.sort_unstable();
    assert_eq!(totals, [1000, 1500], "each at the price that it was made with");
}

pub async fn a_plans_terms_are_checked(stage: Stage) {
    let make = async |id: &str, terms: PlanTerms| {
        let made = plans::create(&stage.dashboard, &stage.operator, id, terms).await;
        made.map(|_| ()).unwrap_err().to_string()
    };
    assert!(make("Team!", terms(1)).await.contains("a-z 0-9 and hyphens"));
    assert!(make("team", terms(-1)).await.contains("cents"));
    assert!(make("team", PlanTerms { max_documents: 0, ..terms(1) }).await.contains("maxDocuments"));
    assert!(make("team", PlanTerms { currency: "usd".to_owned(), ..terms(1) }).await.contains("ISO 4217"));
    assert!(make("team", PlanTerms { name: " ".to_owned(), ..terms(1) }).await.contains("name"));
    assert_eq!(plans::list(&stage.dashboard).await.unwrap().len(), 4, "the seeded ones");
}

pub async fn from_free_to_paid_is_charged_in_full_at_once(stage: Stage) {
    let (app, credentials, _) = app(&stage).await;
    assert_eq!(pick(&stage, app, "free").await, None);
    stage.clock.advance(10 * DAY_S);
    let issued = pick(&stage, app, "starter").await.expect("an invoice at once");
    let detail = invoice(&stage, app, issued).await;
    assert_eq!(amounts(&detail), [(LineKind::Period, 2900)]);
    let invoice = &detail.invoice;
    assert_eq!((invoice.number, invoice.total_cents, invoice.due_cents()), (1, 2900, 2900));
    assert_eq!(
        (invoice.issued_at, invoice.due_at),
        (stage.dashboard.now(), stage.dashboard.now() + 7 * DAY_S)
    );
    let found = subscription(&stage, app).await;
    assert_eq!(found.period_start, stage.dashboard.now(), "a period of its own");
    let claims = decoded(&stage.token(&credentials, API).await.text("access_token"), 1);
    assert_eq!(claims["limits"]["maxConnections"], 1000, "the next token has the new limits");
}

pub async fn a_preview_is_what_then_happens(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let (dashboard, operator) = (&stage.dashboard, &stage.operator);
    let first = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, first).await;
    stage.clock.advance(MONTH_S / 2);
    let before = audit::entries(&dashboard.home, 0, 1000, None).await.unwrap().len();
    let preview = subscriptions::preview(dashboard, operator, app, "pro").await.unwrap();
    assert_eq!(
        preview.lines.iter().map(|line| line.amount_cents).collect::<Vec<_>>(),
        [-1450, 9950],
        "half of each price"
    );
    assert_eq!((preview.invoice_now, preview.current.unwrap().id.as_str()), (None, "starter"));
    assert_eq!(subscription(&stage, app).await.plan.id, "starter", "a preview changes nothing");
    assert_eq!(audit::entries(&dashboard.home, 0, 1000, None).await.unwrap().len(), before);

    // Somebody thinks about it for ten minutes; the price stands.
    stage.clock.advance(600);
    let picked = subscriptions::pick(dashboard, operator, app, "pro", Some(preview.quote)).await.unwrap();
    assert_eq!(picked.invoice, None, "on the next invoice");
    let waiting = invoices::waiting(dashboard, operator, app.tenant).await.unwrap();
    assert_eq!(waiting.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), preview.lines);
    let end = subscription(&stage, app).await.period_end;
    assert_eq!((preview.period.end, end), (end, START + MONTH_S), "the period goes on");
    stage.clock.advance(end - dashboard.now());
    assert_eq!(upkeep(&stage).await, Upkeep { renewed: 1, ..Upkeep::default() });
    let renewal = newest(&stage, app).await;
    let promised = preview.next_invoice.unwrap();
    assert_eq!(renewal.lines, promised.lines);
    assert_eq!((renewal.invoice.total_cents, promised.total_cents), (28_400, 28_400));
    assert_eq!(promised.at, end);
}

pub async fn a_change_of_cadence_begins_a_new_period(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let (dashboard, operator) = (&stage.dashboard, &stage.operator);
    let yearly = PlanTerms { period: Cadence::Year, ..terms(29_000) };
    plans::create(dashboard, operator, "starter-yearly", yearly).await.unwrap();
    let first = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, first).await;
    stage.clock.advance(MONTH_S / 2);
    let preview = subscriptions::preview(dashboard, operator, app, "starter-yearly").await.unwrap();
    let picked =
        subscriptions::pick(dashboard, operator, app, "starter-yearly", Some(preview.quote)).await.unwrap();
    let detail = invoice(&stage, app, picked.invoice.expect("invoiced at once")).await;
    assert_eq!(amounts(&detail), [(LineKind::Unused, -1450), (LineKind::Period, 29_000)]);
    assert_eq!(preview.invoice_now.unwrap().lines, detail.lines);
    let found = subscription(&stage, app).await;
    assert_eq!(found.period_end - found.period_start, 365 * DAY_S);
}

pub async fn a_quote_goes_stale(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let (dashboard, operator) = (&stage.dashboard, &stage.operator);
    pick(&stage, app, "starter").await;
    let quote = subscriptions::preview(dashboard, operator, app, "pro").await.unwrap().quote;
    let with =
        async |plan: &str, quote| subscriptions::pick(dashboard, operator, app, plan, Some(quote)).await;
    stage.clock.advance(901);
    let old = with("pro", quote).await;
    assert!(matches!(old, Err(SubscriptionError::Stale)), "{old:?}");
    let quote = subscriptions::preview(dashboard, operator, app, "pro").await.unwrap().quote;
    pick(&stage, app, "business").await;
    let overtaken = with("pro", quote).await;
    assert!(matches!(overtaken, Err(SubscriptionError::Stale)), "{overtaken:?}");
    let ahead = subscriptions::Quote {
        at: dashboard.now() + 1,
        ..subscriptions::preview(dashboard, operator, app, "pro").await.unwrap().quote
    };
    let early = with("pro", ahead).await;
    assert!(matches!(early, Err(SubscriptionError::Stale)), "{early:?}");
    let same = subscriptions::preview(dashboard, operator, app, "business").await;
    assert!(matches!(same, Err(SubscriptionError::Same)), "{same:?}");
}

pub async fn a_credit_is_carried_over_until_it_is_used(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let first = pick(&stage, app, "pro").await.unwrap();
    pay(&stage, app, first).await;
    stage.clock.advance(MONTH_S / 2);
    pick(&stage, app, "starter").await;
    let mut totals = Vec::new();
    for _ in 0..4 {
        stage.clock.advance(subscription(&stage, app).await.period_end - stage.dashboard.now());
        upkeep(&stage).await;
        let detail = newest(&stage, app).await;
        let sum: i64 = detail.lines.iter().map(|line| line.amount_cents).sum();
        assert_eq!(sum, detail.invoice.total_cents);
        totals.push(detail.invoice.total_cents);
        if detail.invoice.total_cents > 0 {
            pay(&stage, app, detail.invoice.id).await;
        }
    }
    // 9950 back, 1450 for the rest of the month on the smaller plan: 8500 of credit, 2900 a month.
    assert_eq!(totals, [0, 0, 200, 2900]);
}

pub async fn an_unpaid_plan_earns_no_credit(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let (dashboard, operator) = (&stage.dashboard, &stage.operator);
    let issued = pick(&stage, app, "business").await.unwrap();
    stage.clock.advance(MONTH_S / 31);
    let preview = subscriptions::preview(dashboard, operator, app, "free").await.unwrap();
    pick(&stage, app, "free").await;
    let owed = invoice(&stage, app, issued).await.invoice;
    assert_eq!((owed.total_cents, owed.state), (99_900, InvoiceState::Open));
    assert_eq!(owed.due_cents(), 99_900 / 31, "one day of 31");
    assert_eq!(preview.credit_spent_cents, owed.credited_cents);
    let second = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    let issued = pick(&stage, AppId { app: second.app, ..app }, "starter").await.unwrap();
    assert_eq!(invoice(&stage, app, issued).await.invoice.due_cents(), 2900, "nothing was left to spend");

    stage.clock.advance(6 * DAY_S);
    let third = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    let refused =
        subscriptions::pick(dashboard, operator, AppId { app: third.app, ..app }, "starter", None).await;
    assert!(matches!(refused, Err(SubscriptionError::Unpaid(1))), "{refused:?}");
}

pub async fn an_overdue_invoice_takes_the_tokens_away_and_payment_brings_them_back(stage: Stage) {
    let (app, credentials, _) = app(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    let has_token = async || stage.token(&credentials, API).await.status == StatusCode::OK;
    stage.clock.advance(7 * DAY_S - 1);
    assert_eq!(upkeep(&stage).await, Upkeep::default());
    stage.clock.advance(1);
    assert_eq!(upkeep(&stage).await, Upkeep { past_due: 1, ..Upkeep::default() });
    assert_eq!(upkeep(&stage).await, Upkeep::default(), "once");
    assert_eq!(subscription(&stage, app).await.state, SubscriptionState::PastDue);
    assert!(has_token().await, "in the grace");
    let other = subscriptions::pick(&stage.dashboard, &stage.operator, app, "pro", None).await;
    assert!(matches!(other, Err(SubscriptionError::PastDue(1))), "{other:?}");
    subscriptions::cancel(&stage.dashboard, &stage.operator, app).await.unwrap();
    assert_eq!(subscription(&stage, app).await.state, SubscriptionState::PastDue, "who cancels still owes");
    subscriptions::uncancel(&stage.dashboard, &stage.operator, app).await.unwrap();

    stage.clock.advance(7 * DAY_S);
    assert_eq!(upkeep(&stage).await, Upkeep { disabled: 1, ..Upkeep::default() });
    let refused = stage.token(&credentials, API).await;
    assert_eq!(refused.error(), "unauthorized_client");
    assert!(refused.text("error_description").contains("overdue"), "{}", refused.json);
    let paid = pay(&stage, app, issued).await;
    assert_eq!((paid.state, paid.due_cents()), (InvoiceState::Paid, 0));
    assert!(has_token().await);
    assert_eq!(subscription(&stage, app).await.state, SubscriptionState::Active);
    let again =
        invoices::mark_paid(&stage.dashboard, &stage.operator, app.tenant, issued, None, "again").await;
    assert!(matches!(again, Err(InvoiceError::NotOpen { number: 1, .. })), "{again:?}");

    let entries = audit::entries(&stage.dashboard.home, 0, 1000, Some(app.tenant)).await.unwrap();
    let actions: Vec<_> = entries.iter().skip(5).map(|entry| entry.event.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "subscription.create",
            "invoice.issue",
            "subscription.past_due",
            "subscription.cancel",
            "subscription.uncancel",
            "subscription.disable",
            "invoice.pay",
            "subscription.recover",
        ]
    );
    audit::verify(&stage.dashboard.home).await.unwrap();
}

pub async fn who_never_pays_is_not_renewed(stage: Stage) {
    let (app, credentials, _) = app(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    for _ in 0..4 {
        stage.clock.advance(8 * DAY_S);
        upkeep(&stage).await;
    }
    let left = subscriptions::read(&stage.dashboard, &stage.operator, app).await.unwrap();
    assert_eq!(left, None, "ended at its period's end");
    assert_eq!(newest(&stage, app).await.invoice.id, issued, "and no further invoice");
    assert_eq!(stage.token(&credentials, API).await.error(), "unauthorized_client");
    let refused = subscriptions::pick(&stage.dashboard, &stage.operator, app, "starter", None).await;
    assert!(matches!(refused, Err(SubscriptionError::Unpaid(1))), "{refused:?}");
    invoices::write_off(&stage.dashboard, &stage.operator, app.tenant, issued, "a friend").await.unwrap();
    pick(&stage, app, "starter").await.expect("a clean slate");
}

pub async fn a_cancellation_can_be_taken_back_until_the_period_ends(stage: Stage) {
    let (app, credentials, owner) = app(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, issued).await;
    subscriptions::cancel(&stage.dashboard, &owner, app).await.unwrap();
    assert_eq!(subscription(&stage, app).await.state, SubscriptionState::Cancelled);
    subscriptions::uncancel(&stage.dashboard, &owner, app).await.unwrap();
    let twice = subscriptions::uncancel(&stage.dashboard, &owner, app).await;
    assert!(matches!(twice, Err(SubscriptionError::NotCancelled)), "{twice:?}");
    stage.clock.advance(MONTH_S);
    assert_eq!(upkeep(&stage).await.renewed, 1, "as if nothing had been");
    pay(&stage, app, newest(&stage, app).await.invoice.id).await;
    subscriptions::cancel(&stage.dashboard, &owner, app).await.unwrap();
    let end = subscription(&stage, app).await.period_end;
    stage.clock.advance(end - stage.dashboard.now());
    let late = subscriptions::uncancel(&stage.dashboard, &owner, app).await;
    assert!(matches!(late, Err(SubscriptionError::NotCancelled)), "{late:?}");
    assert_eq!(stage.token(&credentials, API).await.error(), "unauthorized_client", "before any upkeep");
    assert_eq!(upkeep(&stage).await, Upkeep { ended: 1, ..Upkeep::default() });
    let open = invoices::list_open(&stage.dashboard, &stage.operator, 0, 10).await.unwrap();
    assert_eq!(open, [], "nothing is charged for what does not begin");
}

pub async fn a_deleted_apps_rest_is_credited(stage: Stage) {
    let (app, credentials, _) = app(&stage).await;
    let issued = pick(&stage, app, "pro").await.unwrap();
    pay(&stage, app, issued).await;
    stage.clock.advance(MONTH_S / 2);
    let found = stage.read(app.tenant, &credentials).await;
    apps::delete(&stage.dashboard, &stage.operator, &found).await.unwrap();
    let second = stage.app_in(app.tenant, LicenseRegion::EuWest1, &[]).await;
    let issued = pick(&stage, AppId { app: second.app, ..app }, "starter").await.unwrap();
    let detail = invoice(&stage, app, issued).await;
    assert_eq!(
        amounts(&detail),
        [(LineKind::Unused, -9950), (LineKind::Period, 2900), (LineKind::CarriedOver, 7050)],
        "any app's next invoice takes it"
    );
    assert_eq!(detail.invoice.state, InvoiceState::Paid, "nothing is due");
}

pub async fn two_dashboards_renew_once(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let config = stage.dashboard.config.clone();
    let other = stage.restarted(config, wiresocket::dashboard::master::MasterKeys::ephemeral(&[1])).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, issued).await;
    // The dashboards were away for three months: three periods, each once.
    stage.clock.advance(subscriptions_end(&stage, app, 3).await - stage.dashboard.now());
    let (a, b, c, d) = tokio::join!(
        subscriptions::upkeep(&stage.dashboard),
        subscriptions::upkeep(&other.dashboard),
        subscriptions::upkeep(&stage.dashboard),
        subscriptions::upkeep(&other.dashboard),
    );
    let renewed: u32 = [a, b, c, d].into_iter().map(|done| done.unwrap().renewed).sum();
    assert_eq!(renewed, 3);
    let all = invoices::list(&stage.dashboard, &stage.operator, app.tenant, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|invoice| invoice.number).collect::<Vec<_>>(), [4, 3, 2, 1], "no gaps");
    let found = subscription(&stage, app).await;
    assert_eq!(found.period_start, Cadence::Month.after(START, 3));
    assert_eq!(found.period_end, Cadence::Month.after(START, 4));
}

async fn subscriptions_end(stage: &Stage, app: AppId, periods: i64) -> i64 {
    Cadence::Month.after(subscription(stage, app).await.period_start, periods)
}

pub async fn a_suspension_is_not_billed(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, issued).await;
    tenants::suspend(&stage.dashboard, &stage.operator, app.tenant).await.unwrap();
    let refused = subscriptions::pick(&stage.dashboard, &stage.operator, app, "pro", None).await;
    assert!(matches!(refused, Err(SubscriptionError::TenantState(_))), "{refused:?}");
    stage.clock.advance(100 * DAY_S);
    assert_eq!(upkeep(&stage).await, Upkeep { held: 1, ..Upkeep::default() });
    assert_eq!(upkeep(&stage).await, Upkeep::default());
    tenants::resume(&stage.dashboard, &stage.operator, app.tenant).await.unwrap();
    assert_eq!(upkeep(&stage).await, Upkeep { renewed: 1, ..Upkeep::default() });
    let found = subscription(&stage, app).await;
    assert_eq!(found.period_start, stage.dashboard.now(), "the new period begins when the tenant is back");
    assert_eq!(newest(&stage, app).await.invoice.number, 2);
}

pub async fn of_many_changes_to_the_free_plan_one_succeeds(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let config = stage.dashboard.config.clone();
    let other = stage.restarted(config, wiresocket::dashboard::master::MasterKeys::ephemeral(&[1])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
        let app = AppId { tenant, app: credentials.app };
        pick(&stage, app, "starter").await;
        let dashboard = if n % 2 == 0 { &stage.dashboard } else { &other.dashboard };
        let (dashboard, actor) = (dashboard.clone(), stage.operator.clone());
        tasks.spawn(async move { subscriptions::pick(&dashboard, &actor, app, "free", None).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let taken = outcomes.iter().filter(|outcome| matches!(outcome, Err(SubscriptionError::FreeTaken)));
    assert_eq!(taken.count(), 7, "{outcomes:?}");
}

pub async fn who_may_see_and_who_may_pick(stage: Stage) {
    let (app, _, owner) = app(&stage).await;
    let dashboard = &stage.dashboard;
    let member = async |email: &str, role| {
        let account = stage.account(email).await;
        members::add(dashboard, &owner, app.tenant, account, role).await.unwrap();
        Actor::account(account, None)
    };
    let billing = member("billing@example.com", Role::Billing).await;
    let developer = member("dev@example.com", Role::Developer).await;
    let admin = member("admin@example.com", Role::Admin).await;
    let (_, stranger) = stage.tenant("stranger@example.com").await;

    let picked = subscriptions::pick(dashboard, &billing, app, "starter", None).await.unwrap();
    let issued = picked.invoice.unwrap();
    for reader in [&owner, &billing, &developer, &admin] {
        let listed = subscriptions::list(dashboard, reader, app.tenant).await.unwrap();
        assert_eq!(listed[0].name, "Notes");
        assert_eq!(listed[0].subscription.as_ref().unwrap().plan.id, "starter");
        let is_denied = invoices::read(dashboard, reader, app.tenant, issued).await.is_err();
        assert_eq!(is_denied, *reader == developer, "a developer sees the plan only");
        let may_pick = subscriptions::preview(dashboard, reader, app, "pro").await;
        assert_eq!(may_pick.is_ok(), *reader == owner || *reader == billing, "{may_pick:?}");
        let paid = invoices::mark_paid(dashboard, reader, app.tenant, issued, None, "").await;
        assert!(matches!(paid, Err(InvoiceError::Denied(Denied::Role { .. }))), "{paid:?}");
    }
    let foreign = subscriptions::pick(dashboard, &stranger, app, "pro", None).await;
    assert!(matches!(foreign, Err(SubscriptionError::Denied(Denied::NoSuchTenant))), "{foreign:?}");
    let (other, _) = stage.tenant("third@example.com").await;
    let smuggled = invoices::read(dashboard, &stage.operator, other, issued).await;
    assert!(matches!(smuggled, Err(InvoiceError::Missing)), "{smuggled:?}");
    let smuggled = AppId { tenant: other, ..app };
    assert_eq!(subscriptions::read(dashboard, &stage.operator, smuggled).await.unwrap(), None);
    let ended = subscriptions::end_now(dashboard, &stage.operator, smuggled).await;
    assert!(matches!(ended, Err(SubscriptionError::Missing)), "{ended:?}");
}

pub async fn who_tells_nodes_learns_of_new_limits(stage: Stage) {
    let (app, ..) = app(&stage).await;
    let dashboard = &stage.dashboard;
    let head = async || {
        let row = query("SELECT seq FROM audit_head WHERE id = 1").fetch_one(dashboard.home.reader()).await;
        row.unwrap().int("seq").unwrap()
    };
    let start = head().await;
    pick(&stage, app, "free").await;
    let picked = head().await;
    let changed = subscriptions::changed_limits(dashboard, start, picked).await.unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].0, changed[0].1.as_ref().unwrap().id.as_str()), (app, "free"));
    assert_eq!(subscriptions::changed_limits(dashboard, picked, picked).await.unwrap(), []);
    subscriptions::end_now(dashboard, &stage.operator, app).await.unwrap();
    let changed = subscriptions::changed_limits(dashboard, picked, head().await).await.unwrap();
    assert_eq!(changed, [(app, None)]);
}
