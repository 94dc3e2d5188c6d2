//! Plans and billing through the pages, as a browser without JavaScript uses them.

use axum::http::StatusCode;
use serde_json::json;
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, Role};
use wiresocket::dashboard::billing::Cadence;
use wiresocket::dashboard::billing::invoices::{self, InvoiceState};
use wiresocket::dashboard::config::ProviderSettings;
use wiresocket::dashboard::master::MasterKeys;
use wiresocket::dashboard::members;
use wiresocket::dashboard::plans::{self, PlanTerms};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::subscriptions::{self, AppId, SubscriptionState};

use crate::billing::{self, DAY_S, MONTH_S, invoice, newest, pay, pick, subscription, upkeep};
use crate::nodes::{enrol, post};
use crate::stage::{PASSWORD, Stage};
use crate::web::{Browser, EMAIL, Page, operator, owner};

/// The owner of a tenant with an app that has no plan yet.
async fn customer(stage: &Stage) -> (AppId, Browser) {
    let (tenant, browser) = owner(stage).await;
    let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    (AppId { tenant, app: credentials.app }, browser)
}

/// Time goes by, and the session with it.
async fn later(stage: &Stage, browser: &mut Browser, seconds: i64) {
    stage.clock.advance(seconds);
    upkeep(stage).await;
    browser.log_in(stage, EMAIL, PASSWORD).await.leads_to("/");
    browser.get(stage, "/account").await;
}

fn plan_of(app: AppId) -> String {
    format!("/tenants/{}/apps/{}/plan", app.tenant, app.app)
}

fn page_of(app: AppId, invoice: Uuid) -> String {
    format!("/tenants/{}/billing/invoices/{invoice}", app.tenant)
}

/// The lines of the page's tables of money, one table after the other.
fn lines(page: &Page) -> Vec<String> {
    let tables = page.html.split("<table class=\"bill\">").skip(1);
    let body = |table: &str| {
        let (_, rest) = table.split_once("<tbody>").unwrap();
        rest.split_once("</tbody>").unwrap().0.to_owned()
    };
    tables.map(body).collect()
}

async fn preview(stage: &Stage, browser: &mut Browser, app: AppId, plan: &str) -> Page {
    let page = browser.get(stage, &format!("{}/confirm?plan={plan}", plan_of(app))).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.html);
    page
}

async fn confirm(stage: &Stage, browser: &mut Browser, app: AppId, plan: &str, page: &Page) -> Page {
    let quote = page.after("name=\"quote\" value=\"");
    browser.post(stage, &plan_of(app), &[("plan", plan), ("quote", &quote)]).await
}

pub async fn what_a_plan_costs_is_shown_and_then_charged(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    browser.get(&stage, &plan_of(app)).await.says("Plan of Notes");
    browser
        .post(&stage, &plan_of(app), &[("plan", "starter")])
        .await
        .leads_to(&format!("{}/confirm?plan=starter", plan_of(app)));
    let shown = preview(&stage, &mut browser, app, "starter").await;
    shown.says("Confirm and be charged $29.00");
    shown.says("is charged in full");
    assert_eq!(
        subscriptions::read(&stage.dashboard, &stage.operator, app).await.unwrap(),
        None,
        "only shown"
    );
    let confirmed = confirm(&stage, &mut browser, app, "starter", &shown).await;
    let first = newest(&stage, app).await.invoice;
    confirmed.leads_to(&format!("{}?done=plan-invoiced", page_of(app, first.id)));
    let page = browser.get(&stage, &page_of(app, first.id)).await;
    assert_eq!(lines(&page), lines(&shown)[..1], "the invoice has the lines that were shown");
    page.says("<th scope=\"row\">Total</th><td class=\"amount\">$29.00</td>");
    page.says("WireSocket invoice 1");
    page.says("Ask the operator of this platform how to pay");
    pay(&stage, app, first.id).await;
    let page = browser.get(&stage, &page_of(app, first.id)).await;
    page.says("<span class=\"badge active\">paid</span>");
    page.says("Payment, bank");
    assert!(!page.html.contains("WireSocket invoice 1"), "nothing is left to pay");

    // Half a month on, to a dearer plan: counted to the second, and charged with the next invoice.
    later(&stage, &mut browser, MONTH_S / 2).await;
    let shown = preview(&stage, &mut browser, app, "pro").await;
    for words in ["Nothing is charged.", "which has 2,678,400 seconds", "1,339,200 of them left, 50.0 %"] {
        shown.says(words);
    }
    for words in ["given back: $14.50", "is charged: $99.50", "−$14.50", "$284.00", "up from 1,000"] {
        shown.says(words);
    }
    confirm(&stage, &mut browser, app, "pro", &shown)
        .await
        .leads_to(&format!("/tenants/{}/apps/{}?done=plan-changed", app.tenant, app.app));
    assert_eq!(subscription(&stage, app).await.plan.id, "pro");
    let billing = format!("/tenants/{}/billing", app.tenant);
    browser.get(&stage, &billing).await.says("$85.00 <span class=\"muted\">will be on the next invoice");
    let end = subscription(&stage, app).await.period_end;
    later(&stage, &mut browser, end - stage.dashboard.now()).await;
    let page = browser.get(&stage, &page_of(app, newest(&stage, app).await.invoice.id)).await;
    assert_eq!(lines(&page), lines(&shown), "the promised lines");
    browser.get(&stage, &billing).await.says("<p class=\"price\">$284.00</p>");
}

pub async fn the_first_free_plan_is_taken_at_once_and_the_second_is_refused_by_name(stage: Stage) {
    let (notes, mut browser) = customer(&stage).await;
    browser.get(&stage, &plan_of(notes)).await.says("Choose Free");
    browser
        .post(&stage, &plan_of(notes), &[("plan", "free")])
        .await
        .leads_to(&format!("/tenants/{}/apps/{}?done=plan-chosen", notes.tenant, notes.app));
    let second = stage.app_in(notes.tenant, LicenseRegion::EuWest1, &[]).await;
    let second = AppId { app: second.app, ..notes };
    let link = format!("<a href=\"{}\">Notes</a> has the free plan", plan_of(notes));
    let page = browser.get(&stage, &plan_of(second)).await;
    page.says(&link);
    assert!(!page.html.contains("Choose Free"), "{}", page.html);
    // Somebody who had the page open before.
    let refused = browser.post(&stage, &plan_of(second), &[("plan", "free")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.says("A tenant has one app on the free plan, and Notes is it.");
    refused.says(&format!("<a href=\"{}\">The plan of Notes</a>", plan_of(notes)));
    pick(&stage, second, "starter").await;
    let refused = browser.get(&stage, &format!("{}/confirm?plan=free", plan_of(second))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.says("and Notes is it.");
    for unknown in ["gold", "%3Cb%3E", ""] {
        let refused = browser.get(&stage, &format!("{}/confirm?plan={unknown}", plan_of(second))).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        refused.says("on offer");
        assert!(!refused.html.contains("<b>"), "{}", refused.html);
    }
    assert_eq!(subscription(&stage, second).await.plan.id, "starter");
}

pub async fn a_price_that_no_longer_holds_is_shown_again(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let shown = preview(&stage, &mut browser, app, "starter").await;
    stage.clock.advance(901);
    let again = confirm(&stage, &mut browser, app, "starter", &shown).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    again.says("Nothing was changed or charged.");
    again.says("More than 15 minutes have gone by");
    let dearer = terms(3900, Cadence::Month);
    plans::change(&stage.dashboard, &stage.operator, "starter", 1, dearer).await.unwrap();
    let again = confirm(&stage, &mut browser, app, "starter", &again).await;
    again.says("The plan has new terms");
    again.says("be charged $39.00");
    let second = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    pick(&stage, AppId { app: second.app, ..app }, "pro").await;
    let again = confirm(&stage, &mut browser, app, "starter", &again).await;
    again.says("Something that changes what you owe");
    assert_eq!(subscriptions::read(&stage.dashboard, &stage.operator, app).await.unwrap(), None);
    let confirmed = confirm(&stage, &mut browser, app, "starter", &again).await;
    assert_eq!(confirmed.status, StatusCode::SEE_OTHER, "{}", confirmed.html);
    assert_eq!(newest(&stage, app).await.invoice.total_cents, 3900);
}

fn terms(price_cents: i64, period: Cadence) -> PlanTerms {
    PlanTerms { period, ..billing::terms(price_cents) }
}

pub async fn a_change_to_the_free_plan_is_credited(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let first = pick(&stage, app, "starter").await.unwrap();
    let second = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    let open = pick(&stage, AppId { app: second.app, ..app }, "starter").await.unwrap();
    pay(&stage, app, first).await;
    // Before the other invoice is overdue.
    later(&stage, &mut browser, DAY_S).await;
    let shown = preview(&stage, &mut browser, app, "free").await;
    shown.says("The rest of Starter is credited to Acme");
    shown.says("−$28.07");
    shown.says("Of the credit, $28.07 pays invoices that are open.");
    shown.says("There is none for Notes");
    confirm(&stage, &mut browser, app, "free", &shown).await;
    let page = browser.get(&stage, &page_of(app, open)).await;
    page.says("<td>Credit</td><td class=\"amount\">−$28.07</td>");
    page.says("<th scope=\"row\">Due</th><td class=\"amount\">$0.93</td>");
    browser.get(&stage, &format!("/tenants/{}/billing", app.tenant)).await.says("$0.93 left to pay");
}

pub async fn a_cancellation_can_be_taken_back(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, issued).await;
    browser.get(&stage, &plan_of(app)).await.says("It runs to the end of its period");
    let (cancel, keep) = (format!("{}/cancel", plan_of(app)), format!("{}/keep", plan_of(app)));
    browser.post(&stage, &cancel, &[]).await.leads_to(&format!("{}?done=plan-cancelled", plan_of(app)));
    let page = browser.get(&stage, &plan_of(app)).await;
    page.says("Take the cancellation back");
    page.says("runs until <time datetime=\"2027-02-15T08:00:00Z\">2027-02-15 08:00 UTC</time>");
    assert!(!page.html.contains("Cancel the plan"), "{}", page.html);
    assert_eq!(browser.post(&stage, &cancel, &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    browser.post(&stage, &keep, &[]).await.leads_to(&format!("{}?done=plan-goes-on", plan_of(app)));
    assert_eq!(subscription(&stage, app).await.state, SubscriptionState::Active);
    let late = browser.post(&stage, &keep, &[]).await;
    late.says("This app has no cancelled plan that still runs");

    // Choosing another plan takes a cancellation back too; one that has run out leaves an app without a plan.
    browser.post(&stage, &cancel, &[]).await;
    stage.clock.advance(MONTH_S);
    browser.log_in(&stage, EMAIL, PASSWORD).await;
    let page = browser.get(&stage, &plan_of(app)).await;
    page.says("Choose Free");
    assert!(!page.html.contains("Take the cancellation back"), "{}", page.html);
    let page = browser.get(&stage, &format!("/tenants/{}/apps/{}", app.tenant, app.app)).await;
    page.says("This app has no plan");
}

pub async fn who_pays_late_is_told_until_when(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let developer = stage.account("dev@example.com").await;
    members::add(&stage.dashboard, &stage.operator, app.tenant, developer, Role::Developer).await.unwrap();
    let issued = pick(&stage, app, "starter").await.unwrap();
    later(&stage, &mut browser, 7 * DAY_S).await;
    let (page_of_app, billing) =
        (format!("/tenants/{}/apps/{}", app.tenant, app.app), format!("/tenants/{}/billing", app.tenant));
    for path in [&page_of_app, &billing, &plan_of(app)] {
        let page = browser.get(&stage, path).await;
        page.says("A payment for Notes is late.");
        // START, a week to pay, a week of grace.
        page.says("before <time datetime=\"2027-01-29T08:00:00Z\">");
        page.says(&format!("<a href=\"{}\">Pay invoice 1</a>: $29.00 is due.", page_of(app, issued)));
    }
    browser.get(&stage, &billing).await.says("$29.00 overdue");
    let page = browser.get(&stage, &plan_of(app)).await;
    page.says(&format!("<a href=\"{}\">Pay invoice 1</a> first.", page_of(app, issued)));
    assert!(!page.html.contains("Choose Pro"), "{}", page.html);
    let second = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    let page = browser.get(&stage, &plan_of(AppId { app: second.app, ..app })).await;
    assert!(page.html.contains("Choose Free") && !page.html.contains("Choose Pro"), "{}", page.html);
    let refused = browser.get(&stage, &format!("{}/confirm?plan=pro", plan_of(app))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.says("Invoice 1 of this app is overdue; pay it first");
    refused.says(&format!("<a href=\"{}\">Pay invoice 1</a></p>", page_of(app, issued)));

    let mut developers = Browser::default();
    developers.log_in(&stage, "dev@example.com", PASSWORD).await;
    let page = developers.get(&stage, &page_of_app).await;
    page.says("Ask an owner of Acme, or whoever does its billing, to pay.");
    assert!(!page.html.contains("Pay invoice"), "{}", page.html);

    later(&stage, &mut browser, 7 * DAY_S).await;
    let page = browser.get(&stage, &page_of_app).await;
    page.says("Notes has had no tokens since");
    page.says("Tokens are back the moment the payment is");
    assert!(!page.html.contains("This app has no plan"), "it has one, unpaid: {}", page.html);
    let page = browser.get(&stage, &format!("{page_of_app}/quick-start")).await;
    page.says("Notes has had no tokens since");
    assert!(!page.html.contains("This app has no plan"), "{}", page.html);
    let apps = format!("/tenants/{}/apps", app.tenant);
    browser
        .get(&stage, &apps)
        .await
        .says("<span class=\"badge suspended\">Starter, not paid: no tokens</span>");
    pay(&stage, app, issued).await;
    let page = browser.get(&stage, &page_of_app).await;
    assert!(!page.html.contains("has had no tokens"), "{}", page.html);
    page.says("<span class=\"badge active\">active</span>");
}

pub async fn each_role_sees_of_the_money_what_is_its_own(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    let billing = format!("/tenants/{}/billing", app.tenant);
    let (bill, settle) = (page_of(app, issued), format!("{}/paid", page_of(app, issued)));
    let confirm = format!("{}/confirm?plan=pro", plan_of(app));
    let ok = StatusCode::OK;
    let (no, gone) = (StatusCode::FORBIDDEN, StatusCode::NOT_FOUND);
    for (role, email, sees_bills, chooses) in [
        (Role::Admin, "admin@example.com", ok, no),
        (Role::Developer, "dev@example.com", no, no),
        (Role::Billing, "clerk@example.com", ok, ok),
    ] {
        let account = stage.account(email).await;
        members::add(&stage.dashboard, &stage.operator, app.tenant, account, role).await.unwrap();
        let mut theirs = Browser::default();
        theirs.log_in(&stage, email, PASSWORD).await;
        let plan = theirs.get(&stage, &plan_of(app)).await;
        assert_eq!((plan.status, theirs.get(&stage, &confirm).await.status), (ok, chooses), "{email}");
        assert_eq!(plan.html.contains("Choose Pro"), chooses == ok, "{email}");
        assert_eq!(plan.html.contains("Cancel the plan"), chooses == ok, "{email}");
        assert_eq!(theirs.get(&stage, &billing).await.status, sees_bills, "{email}");
        let page = theirs.get(&stage, &bill).await;
        assert_eq!(page.status, sees_bills, "{email}");
        assert_eq!(page.html.contains("WireSocket invoice 1"), chooses == ok, "{email}: how to pay");
        assert!(!page.html.contains("Mark as paid"), "{email}");
        assert_eq!(theirs.post(&stage, &settle, &[]).await.status, no, "{email}");
        let cancel = theirs.post(&stage, &format!("{}/cancel", plan_of(app)), &[]).await;
        assert_eq!(cancel.status == no, chooses == no, "{email}");
        if role == Role::Billing {
            theirs
                .get(&stage, &format!("/tenants/{}", app.tenant))
                .await
                .leads_to(&format!("/tenants/{}/billing", app.tenant));
        }
    }
    assert_eq!(browser.get(&stage, &bill).await.status, ok);
    assert_eq!(browser.post(&stage, &settle, &[]).await.status, no, "an owner");
    let write_off = format!("{bill}/write-off");
    assert_eq!(browser.post(&stage, &write_off, &[("reason", "mine")]).await.status, no);
    for path in ["/operator/plans", "/operator/plans/new", "/operator/plans/pro", "/operator/invoices"] {
        assert_eq!(browser.get(&stage, path).await.status, no, "{path}");
    }
    for path in ["/operator/plans/pro", "/operator/plans/pro/offer"] {
        let whole = [("offered", "no"), ("version", "1")];
        let terms = [("name", "P"), ("price", "1"), ("currency", "USD"), ("period", "month")];
        let limits = ["max_connections", "max_documents", "max_users_per_doc", "ops_per_minute"];
        let fields = [&whole[..], &terms[..], &limits.map(|name| (name, "1"))[..]].concat();
        assert_eq!(browser.post(&stage, path, &fields).await.status, no, "{path}");
    }

    // Somebody else's.
    let (others, _) = stage.tenant("eve@example.com").await;
    let mut eve = Browser::default();
    eve.log_in(&stage, "eve@example.com", PASSWORD).await;
    eve.get(&stage, "/account").await;
    for path in [&billing, &bill, &plan_of(app), &confirm] {
        assert_eq!(eve.get(&stage, path).await.status, gone, "{path}");
    }
    for path in [
        format!("/tenants/{others}/billing/invoices/{issued}"),
        format!("/tenants/{others}/apps/{}/plan", app.app),
        format!("/tenants/{others}/apps/{}/plan/confirm?plan=pro", app.app),
    ] {
        assert_eq!(eve.get(&stage, &path).await.status, gone, "{path}");
    }
    let smuggled = format!("/tenants/{others}/apps/{}/plan", app.app);
    assert_eq!(eve.post(&stage, &smuggled, &[("plan", "free")]).await.status, gone);

    let mut ops = operator(&stage).await;
    ops.get(&stage, &billing).await.says("Invoice 1");
    ops.get(&stage, &bill).await.says("Mark as paid");
}

pub async fn an_operator_settles_invoices(stage: Stage) {
    let (app, _) = customer(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    let mut ops = operator(&stage).await;
    let list = ops.get(&stage, "/operator/invoices").await;
    list.says(&format!("href=\"{}\"", page_of(app, issued)));
    list.says("Acme");
    let paid = format!("{}/paid", page_of(app, issued));
    ops.get(&stage, &page_of(app, issued)).await.says("Settle it by hand");
    for (typed, told) in [("1,50", "write an amount such as 29"), ("0", "more than nothing")] {
        let wrong = ops.post(&stage, &paid, &[("reference", "wire 7"), ("amount", typed)]).await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        wrong.says("id=\"error-amount\"");
        assert!(wrong.html.to_lowercase().contains(told), "{}", wrong.html);
        wrong.says("value=\"wire 7\"");
    }
    let long = ops.post(&stage, &paid, &[("reference", &"x".repeat(201))]).await;
    long.says("id=\"error-reference\"");
    ops.post(&stage, &paid, &[("reference", "wire 7"), ("amount", "9.00")])
        .await
        .leads_to(&format!("{}?done=invoice-part-paid", page_of(app, issued)));
    ops.get(&stage, "/operator/invoices").await.says("$20.00<br><span class=\"muted\">of $29.00");
    ops.post(&stage, &paid, &[("reference", "wire 8"), ("amount", "25.5")])
        .await
        .leads_to(&format!("{}?done=invoice-paid", page_of(app, issued)));
    let page = ops.get(&stage, &page_of(app, issued)).await;
    for words in ["Payment, wire 7", "−$9.00", "Payment, wire 8", "−$25.50"] {
        page.says(words);
    }
    page.says("<td>Paid too much: a credit for later invoices</td><td class=\"amount\">$5.50</td>");
    page.says("<th scope=\"row\">Due</th><td class=\"amount\">$0.00</td>");
    ops.get(&stage, "/operator/invoices").await.says("Nothing is open");
    let twice = ops.post(&stage, &paid, &[("reference", "wire 9")]).await;
    twice.says("Invoice 1 is paid; only an open one can be settled.");

    let second = stage.app_in(app.tenant, LicenseRegion::UsEast1, &[]).await;
    let issued = pick(&stage, AppId { app: second.app, ..app }, "starter").await.unwrap();
    let write_off = format!("{}/write-off", page_of(app, issued));
    let unsaid = ops.post(&stage, &write_off, &[("reason", "  ")]).await;
    unsaid.says("id=\"error-reason\"");
    assert_eq!(invoice(&stage, app, issued).await.invoice.state, InvoiceState::Open);
    ops.post(&stage, &write_off, &[("reason", "a friend")])
        .await
        .leads_to(&format!("{}?done=invoice-written-off", page_of(app, issued)));
    ops.get(&stage, &page_of(app, issued)).await.says("<span class=\"badge void\">written off</span>");
}

pub async fn an_operator_keeps_the_catalogue(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let mut ops = operator(&stage).await;
    ops.get(&stage, "/operator/plans").await.says("Starter");
    ops.get(&stage, "/operator/plans/new").await.says("Make the plan");
    let fields = |id: &'static str, price: &'static str, documents: &'static str| {
        [
            ("id", id),
            ("name", "Team"),
            ("price", price),
            ("currency", "USD"),
            ("period", "year"),
            ("max_connections", "500"),
            ("max_documents", documents),
            ("max_users_per_doc", "30"),
            ("ops_per_minute", "20000"),
        ]
    };
    for (id, price, documents, wrong) in [
        ("Team!", "290", "400", "error-id"),
        ("starter", "290", "400", "error-id"),
        ("team", "29,00", "400", "error-price"),
        ("team", "9999999", "400", "error-price"),
        ("team", "290", "many", "error-max_documents"),
        ("team", "290", "0", "error-max_documents"),
    ] {
        let refused = ops.post(&stage, "/operator/plans/new", &fields(id, price, documents)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{id} {price} {documents}");
        refused.says(&format!("id=\"{wrong}\""));
        refused.says("value=\"Team\"");
    }
    ops.post(&stage, "/operator/plans/new", &fields("team", "290", "400"))
        .await
        .leads_to("/operator/plans/team?done=plan-made");
    pick(&stage, app, "team").await;
    let page = ops.get(&stage, "/operator/plans/team").await;
    page.says("value=\"290.00\"");
    let version = page.after("name=\"version\" value=\"");
    let mut newer = fields("team", "350.50", "400").to_vec();
    newer.push(("version", &version));
    ops.post(&stage, "/operator/plans/team", &newer)
        .await
        .leads_to("/operator/plans/team?done=plan-version-made");
    let overtaken = ops.post(&stage, "/operator/plans/team", &newer).await;
    assert_eq!(overtaken.status, StatusCode::UNPROCESSABLE_ENTITY);
    overtaken.says("Load the present terms");
    let list = ops.get(&stage, "/operator/plans").await;
    list.says("$350.50 a year");
    list.says("0 <span class=\"muted\">and 1 on older versions");

    // Whoever has it keeps it, and may take the new terms.
    let page = browser.get(&stage, &plan_of(app)).await;
    page.says("$290 <span class=\"muted\">a year");
    page.says("Take the new terms of Team");
    ops.post(&stage, "/operator/plans/team/offer", &[("offered", "no")])
        .await
        .leads_to("/operator/plans/team?done=plan-retired");
    let page = browser.get(&stage, &plan_of(app)).await;
    assert!(!page.html.contains("Take the new terms"), "{}", page.html);
    page.says("These are the terms that it was chosen with.");
    ops.post(&stage, "/operator/plans/team/offer", &[("offered", "yes")])
        .await
        .leads_to("/operator/plans/team?done=plan-offered");
    preview(&stage, &mut browser, app, "team").await.says("Confirm Team");
    assert_eq!(ops.get(&stage, "/operator/plans/gold").await.status, StatusCode::NOT_FOUND);
}

pub async fn a_checkout_is_linked_where_there_is_one(stage: Stage) {
    let mut config = stage.dashboard.config.clone();
    config.billing.provider = Some("acme".to_owned());
    let acme = ProviderSettings {
        checkout_url: "https://pay.example.com/{invoiceId}?a={amountCents}&r={returnTo}".to_owned(),
        webhook_secrets: Vec::new(),
    };
    config.billing.providers.insert("acme".to_owned(), acme);
    let shop = stage.restarted(config, MasterKeys::ephemeral(&[1])).await;
    let (app, mut browser) = customer(&shop).await;
    let issued = pick(&shop, app, "starter").await.unwrap();
    let page = browser.get(&shop, &page_of(app, issued)).await;
    let back = format!(
        "https%3A%2F%2Fauth.example.com%2Ftenants%2F{}%2Fbilling%2Finvoices%2F{issued}%3Fdone%3Dpayment-under-way",
        app.tenant
    );
    page.says(&format!("href=\"https://pay.example.com/{issued}?a=2900&#38;r={back}\""));
    assert!(!page.html.contains("Name this reference"), "{}", page.html);
    browser
        .get(&shop, &format!("{}?done=payment-under-way", page_of(app, issued)))
        .await
        .says("once the payment provider has told us");
}

pub async fn invoices_come_in_pages(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let billing = format!("/tenants/{}/billing", app.tenant);
    browser.get(&stage, &billing).await.says("No invoices yet");
    let first = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, first).await;
    for _ in 0..26 {
        let end = subscription(&stage, app).await.period_end;
        stage.clock.advance(end - stage.dashboard.now());
        upkeep(&stage).await;
        pay(&stage, app, newest(&stage, app).await.invoice.id).await;
    }
    browser.log_in(&stage, EMAIL, PASSWORD).await;
    let page = browser.get(&stage, &billing).await;
    assert_eq!(page.html.matches("<strong>Invoice ").count(), 25);
    page.says("Invoice 27");
    let older = page.after("?before=");
    let page =
        browser.get(&stage, &format!("{billing}?before={}", older.trim_end_matches("#invoices"))).await;
    assert_eq!(page.html.matches("<strong>Invoice ").count(), 2, "27 in all: {}", page.html);
    page.says("Invoice 1<");
    assert!(!page.html.contains("Older"), "{}", page.html);
    browser.get(&stage, &format!("{billing}?before=1")).await.says("No older invoices");
    let open = invoices::open_of(&stage.dashboard, &Actor::system(), app.tenant).await.unwrap();
    assert_eq!(open, []);
}

pub async fn a_smaller_plan_says_what_is_in_use(stage: Stage) {
    let (app, mut browser) = customer(&stage).await;
    let issued = pick(&stage, app, "starter").await.unwrap();
    pay(&stage, app, issued).await;
    let credential = enrol(&stage, "node-1").await;
    let beat = json!({ "version": "1", "connections": 0, "documents": 0, "draining": false, "boot": 1 });
    assert_eq!(post(&stage, "self/heartbeat", &credential, beat).await.status, StatusCode::OK);
    let report = json!({ "boot": 1, "sequence": 1, "apps": [
        { "appId": app.app, "connections": 312, "documents": 7, "ops": 1 }
    ] });
    assert_eq!(post(&stage, "self/usage", &credential, report).await.status, StatusCode::OK);
    let page = browser.get(&stage, &plan_of(app)).await;
    page.says("In use now: connections 312, documents 7.");
    page.says("312 are connected now. They stay, but nobody else gets in until fewer than 100 are.");
    let shown = preview(&stage, &mut browser, app, "free").await;
    shown.says("down from 1,000");
    shown.says("fewer than 100 are");
    // Its node is silent: figures that are old are no warning.
    stage.clock.advance(600);
    let page = browser.get(&stage, &plan_of(app)).await;
    assert!(!page.html.contains("312"), "{}", page.html);
}
