//! What a tenant pays: its apps' plans, its credit, its invoices.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::bill::Bill;
use super::failure::Failure;
use super::page::{Done, Place, Shell, page};
use super::standing::{self, Standing};
use super::text::{Moment, amount, money};
use super::visit::{Member, Path, Query};
use crate::dashboard::access::Action;
use crate::dashboard::billing::Line;
use crate::dashboard::billing::invoices::{self, Invoice, InvoiceState};
use crate::dashboard::subscriptions;

const PAGE_ROWS: i64 = 25;

#[derive(Template)]
#[template(path = "billing.html")]
struct BillingPage {
    shell: Shell,
    place: Place,
    apps: Vec<AppRow>,
    /// What is due, by currency.
    due: Vec<Due>,
    waiting: Vec<Waiting>,
    invoices: Vec<InvoiceRow>,
    /// The last number of the page, if there are older ones.
    older: Option<i64>,
    is_newest: bool,
}

struct AppRow {
    id: Uuid,
    name: String,
    standing: Option<Standing>,
    price: String,
}

struct Due {
    amount: String,
    /// Of it, what is late.
    overdue: Option<String>,
}

/// Lines of one currency that wait for an invoice.
struct Waiting {
    bill: Bill,
    balance: String,
    is_credit: bool,
}

/// An invoice in a list.
pub(super) struct InvoiceRow {
    pub invoice: Invoice,
    pub app: String,
    pub badge: (&'static str, &'static str),
}

impl InvoiceRow {
    pub fn new(invoice: Invoice, app: String, now: i64) -> Self {
        Self { badge: badge(&invoice, now), invoice, app }
    }

    pub fn issued(&self) -> String {
        Moment(self.invoice.issued_at).day()
    }

    pub fn due_on(&self) -> String {
        Moment(self.invoice.due_at).day()
    }

    pub fn total(&self) -> String {
        amount(self.invoice.total_cents, &self.invoice.currency)
    }

    pub fn due(&self) -> String {
        amount(self.invoice.due_cents(), &self.invoice.currency)
    }

    /// Whether some of it is settled and some is not.
    pub fn is_part_paid(&self) -> bool {
        self.invoice.state == InvoiceState::Open && self.invoice.due_cents() != self.invoice.total_cents
    }

    pub fn is_open(&self) -> bool {
        self.invoice.state == InvoiceState::Open
    }
}

/// The badge's colour and words.
pub(super) fn badge(invoice: &Invoice, now: i64) -> (&'static str, &'static str) {
    match invoice.state {
        InvoiceState::Open if invoice.is_overdue(now) => ("suspended", "overdue"),
        InvoiceState::Open => ("pending", "open"),
        InvoiceState::Paid => ("active", "paid"),
        InvoiceState::Void => ("void", "written off"),
        InvoiceState::Refunded => ("void", "refunded"),
    }
}

/// What an app that is gone is called on the invoices that it left.
pub(super) fn app_name(names: &BTreeMap<Uuid, String>, app: Uuid) -> String {
    names.get(&app).cloned().unwrap_or_else(|| "a deleted app".to_owned())
}

/// What is due of open invoices, by currency.
fn due_of(open: &[Invoice], now: i64) -> Vec<Due> {
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for invoice in open {
        let (all, late) = sums.entry(&invoice.currency).or_default();
        *all += invoice.due_cents();
        *late += if invoice.is_overdue(now) { invoice.due_cents() } else { 0 };
    }
    let due = |(currency, (all, late)): (&str, (i64, i64))| Due {
        amount: amount(all, currency),
        overdue: (late > 0).then(|| amount(late, currency)),
    };
    sums.into_iter().map(due).collect()
}

fn waiting_of(lines: Vec<(String, Line)>) -> Vec<Waiting> {
    let mut by_currency: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for (currency, line) in lines {
        by_currency.entry(currency).or_default().push(line);
    }
    let waiting = |(currency, lines): (String, Vec<Line>)| {
        let sum: i64 = lines.iter().map(|line| line.amount_cents).sum();
        Waiting {
            bill: Bill::new(&lines, &currency).adding_up_to("Together", sum, &currency),
            balance: amount(sum.abs(), &currency),
            is_credit: sum < 0,
        }
    };
    by_currency.into_iter().map(waiting).collect()
}

impl BillingPage {
    fn may_choose(&self) -> bool {
        self.place.may(&Action::ChangeSubscriptions)
    }
}

/// Which page of the invoices.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Before {
    before: Option<i64>,
}

pub(super) async fn show(
    member: Member,
    Path(tenant): Path<String>,
    Query(before): Query<Before>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let (dashboard, actor, id) = (member.dashboard(), member.actor(), place.tenant.id);
    let mut found = invoices::list(dashboard, &actor, id, before.before, PAGE_ROWS + 1).await?;
    let has_more = found.len() > usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    if has_more {
        found.pop();
    }
    let older = found.last().map(|invoice| invoice.number).filter(|_| has_more);
    let open = standing::open_invoices(&member, &place).await?;
    let apps = subscriptions::list(dashboard, &actor, id).await?;
    let names: BTreeMap<Uuid, String> = apps.iter().map(|app| (app.app, app.name.clone())).collect();
    let row = |app: subscriptions::AppPlan| {
        let (id, name) = (app.app, app.name.clone());
        let standing = Standing::new(&member, &place, app, &open);
        let price = standing.as_ref().map(|standing| {
            let plan = &standing.subscription.plan;
            format!("{} a {}", money(plan.price_cents, &plan.currency), plan.period)
        });
        AppRow { id, name, standing, price: price.unwrap_or_default() }
    };
    let apps = apps.into_iter().map(row).collect();
    let now = dashboard.now();
    let invoices =
        found.into_iter().map(|each| InvoiceRow::new(each.clone(), app_name(&names, each.app), now));
    let invoices = invoices.collect();
    Ok(page(&BillingPage {
        shell: member.shell("billing").within(&place).after(&done),
        apps,
        due: due_of(&open, now),
        waiting: waiting_of(invoices::waiting(dashboard, &actor, id).await?),
        invoices,
        older,
        is_newest: before.before.is_none(),
        place,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::billing::LineKind;

    #[test]
    fn what_waits_is_a_credit_or_a_charge_by_currency() {
        let line = |currency: &str, amount_cents| {
            let line = Line { kind: LineKind::Credit, description: "x".to_owned(), amount_cents, span: None };
            (currency.to_owned(), line)
        };
        let waiting = waiting_of(vec![line("USD", -8500), line("EUR", 100), line("USD", 500)]);
        let shown: Vec<_> = waiting.iter().map(|each| (each.balance.as_str(), each.is_credit)).collect();
        assert_eq!(shown, [("1.00 EUR", false), ("$80.00", true)]);
    }
}
