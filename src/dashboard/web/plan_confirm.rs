//! What choosing a plan does, before it does it: what is charged now, what is credited, what the next invoice will be.
//! The figures are a preview's, and its quote is what is posted: what was shown is what happens, or nothing.

use askama::Template;
use axum::response::Response;

use super::bill::Bill;
use super::page::{Shell, again, page};
use super::plan::{Limit, Scene, compare};
use super::text::{Moment, amount, grouped, money, percent};
use super::visit::Member;
use crate::dashboard::Dashboard;
use crate::dashboard::billing::{LineKind, Span};
use crate::dashboard::plans::Plan;
use crate::dashboard::subscriptions::{InvoicePreview, Preview, QUOTE_LIFE_S, Quote};

#[derive(Template)]
#[template(path = "plan_confirm.html")]
struct ConfirmPage {
    shell: Shell,
    scene: Scene,
    plan: Plan,
    current: Option<Plan>,
    limits: [Limit; 4],
    /// Why the figures that were confirmed don't count any more.
    stale: Option<&'static str>,
    now: Option<Charge>,
    next: Option<Charge>,
    /// What is given back when nothing is charged after it.
    credit: Option<Bill>,
    /// Of the credit, what pays invoices that are open.
    credit_spent: Option<String>,
    proration: Option<Proration>,
    period_end: Moment,
    quote: Quote,
    good_until: Moment,
}

/// An invoice that is not issued yet.
struct Charge {
    bill: Bill,
    total: String,
    total_cents: i64,
    at: Moment,
    due: Moment,
}

/// How the rest of a period was counted.
struct Proration {
    price: String,
    start: Moment,
    end: Moment,
    seconds: String,
    at: Moment,
    seconds_left: String,
    share: String,
    credited: Option<String>,
    charged: Option<String>,
}

impl Charge {
    fn new(dashboard: &Dashboard, what: &'static str, invoice: &InvoicePreview) -> Self {
        let bill = Bill::new(&invoice.lines, &invoice.currency);
        Self {
            bill: bill.adding_up_to(what, invoice.total_cents, &invoice.currency),
            total: amount(invoice.total_cents, &invoice.currency),
            total_cents: invoice.total_cents,
            at: Moment(invoice.at),
            due: Moment(invoice.at + dashboard.config.billing.payment_term_s),
        }
    }
}

impl Proration {
    /// `None` if no period is cut.
    fn new(preview: &Preview) -> Option<Self> {
        let (current, period) = (preview.current.as_ref()?, preview.current_period?);
        let line = |kind: LineKind| preview.lines.iter().find(|line| line.kind == kind);
        let (unused, remaining) = (line(LineKind::Unused), line(LineKind::Remaining));
        let rest: Span = unused.or(remaining)?.span?;
        let (whole, left) = (period.end - period.start, rest.end - rest.start);
        let shown = |cents: i64| amount(cents.abs(), &current.currency);
        Some(Self {
            price: money(current.price_cents, &current.currency),
            start: Moment(period.start),
            end: Moment(period.end),
            seconds: grouped(whole),
            at: Moment(rest.start),
            seconds_left: grouped(left),
            share: percent(left, whole),
            credited: unused.map(|line| shown(line.amount_cents)),
            charged: remaining.map(|line| shown(line.amount_cents)),
        })
    }
}

impl ConfirmPage {
    fn price(&self, plan: &Plan) -> String {
        format!("{} a {}", money(plan.price_cents, &plan.currency), plan.period)
    }

    /// What the button says: nobody is charged without having read the sum.
    fn question(&self) -> String {
        match &self.now {
            Some(charge) if charge.total_cents > 0 => {
                format!("Confirm and be charged {}", charge.total)
            }
            _ => format!("Confirm {}", self.plan.name),
        }
    }
}

/// Why a quote no longer holds, seen from the present one.
fn reason(stale: Quote, fresh: Quote) -> &'static str {
    if fresh.at - stale.at > QUOTE_LIFE_S {
        "More than 15 minutes have gone by since those figures were made."
    } else if fresh.plan_version != stale.plan_version {
        "The plan has new terms since those figures were made."
    } else {
        "Something that changes what you owe has happened since those figures were made, such as a payment or another \
         app's plan."
    }
}

/// The page. With a `stale` quote it says what became of that one.
pub(super) fn show(member: &Member, scene: Scene, preview: Preview, stale: Option<Quote>) -> Response {
    let dashboard = member.dashboard();
    let charge = |what, invoice: &Option<InvoicePreview>| {
        invoice.as_ref().map(|invoice| Charge::new(dashboard, what, invoice))
    };
    let is_credit_only = preview.plan.is_free() && !preview.lines.is_empty();
    let paid_before = preview.current.as_ref().filter(|current| !current.is_free());
    let currency = &paid_before.unwrap_or(&preview.plan).currency;
    let template = ConfirmPage {
        shell: member.shell("apps").within(&scene.place),
        limits: compare(&preview.plan, preview.current.as_ref(), scene.used.as_ref()),
        stale: stale.map(|stale| reason(stale, preview.quote)),
        now: charge("Charged now", &preview.invoice_now),
        next: charge("Next invoice", &preview.next_invoice),
        credit: is_credit_only.then(|| Bill::new(&preview.lines, currency)),
        credit_spent: (preview.credit_spent_cents > 0).then(|| amount(preview.credit_spent_cents, currency)),
        proration: Proration::new(&preview),
        period_end: Moment(preview.period.end),
        good_until: Moment(preview.quote.at + QUOTE_LIFE_S),
        quote: preview.quote,
        current: preview.current,
        plan: preview.plan,
        scene,
    };
    if stale.is_some() { again(&template) } else { page(&template) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_quote_is_told_why() {
        let quote = Quote { at: 1000, account: 7, plan_version: 2 };
        assert!(reason(quote, Quote { at: 1901, ..quote }).contains("15 minutes"));
        assert!(reason(quote, Quote { plan_version: 3, ..quote }).contains("new terms"));
        assert!(reason(quote, Quote { account: 8, ..quote }).contains("a payment"));
    }
}
