//! One invoice: its lines, what has been paid, how to pay the rest, and, for operators, settling it by hand.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use uuid::Uuid;

use super::bill::Bill;
use super::billing::{app_name, badge};
use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Place, Shell, again, page, redirect};
use super::text::{Moment, amount, cents};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::access::Action;
use crate::dashboard::billing::invoices::{self, Invoice, InvoiceDetail, InvoiceError, InvoiceState};
use crate::dashboard::billing::payments::{PaymentError, PaymentKind};
use crate::dashboard::billing::providers::Collection;
use crate::dashboard::subscriptions;

#[derive(Template)]
#[template(path = "invoice.html")]
struct InvoicePage<'a> {
    shell: Shell,
    place: Place,
    invoice: Invoice,
    bill: Bill,
    app: String,
    /// The page of the app's plan, if the app is still there.
    plan: Option<String>,
    badge: (&'static str, &'static str),
    /// What was settled of the total, each with its sign.
    settled: Vec<Settlement>,
    /// How to pay, for whoever may.
    collection: Option<Collection>,
    /// Whether the one who looks may settle it by hand.
    is_operator: bool,
    issuer: String,
    form: &'a Fields,
}

/// A payment, a refund, or credit.
struct Settlement {
    what: String,
    at: Option<Moment>,
    amount: String,
}

impl InvoicePage<'_> {
    fn issued(&self) -> String {
        Moment(self.invoice.issued_at).day()
    }

    fn due_on(&self) -> String {
        Moment(self.invoice.due_at).day()
    }

    fn settled_on(&self) -> Option<Moment> {
        self.invoice.settled_at.map(Moment)
    }

    fn due(&self) -> String {
        amount(self.invoice.due_cents(), &self.invoice.currency)
    }

    fn is_open(&self) -> bool {
        self.invoice.state == InvoiceState::Open
    }

    fn is_void(&self) -> bool {
        self.invoice.state == InvoiceState::Void
    }

    fn is_wrong(&self, field: &str) -> bool {
        !self.form.error_of(field).is_empty()
    }
}

/// What came in and went out, in the order of time; credit has no one moment and comes first.
fn settlements(detail: &InvoiceDetail) -> Vec<Settlement> {
    let invoice = &detail.invoice;
    let credit = (invoice.credited_cents > 0).then(|| Settlement {
        what: "Credit".to_owned(),
        at: None,
        amount: amount(-invoice.credited_cents, &invoice.currency),
    });
    let payment = |record: &invoices::PaymentRecord| {
        let word = if record.kind == PaymentKind::Payment { "Payment" } else { "Refund" };
        let by = if record.provider == invoices::MANUAL {
            String::new()
        } else {
            format!(" by {}", record.provider)
        };
        let reference =
            if record.reference.is_empty() { String::new() } else { format!(", {}", record.reference) };
        Settlement {
            what: format!("{word}{by}{reference}"),
            at: Some(Moment(record.at)),
            amount: amount(-signed(record.kind, record.amount_cents), &invoice.currency),
        }
    };
    let received: i64 = detail.payments.iter().map(|record| signed(record.kind, record.amount_cents)).sum();
    // What was paid beyond the total, and what nobody pays any more: so that the amounts end with what is due.
    let excess = received - (invoice.paid_cents - invoice.refunded_cents);
    let given_up = invoice.total_cents - invoice.credited_cents - invoice.paid_cents;
    let is_void = invoice.state == InvoiceState::Void;
    let others = [
        ("Paid too much: a credit for later invoices", excess, excess > 0),
        ("Written off", -given_up, is_void && given_up > 0),
    ];
    let others = others.into_iter().filter(|(.., holds)| *holds).map(|(what, cents, _)| Settlement {
        what: what.to_owned(),
        at: None,
        amount: amount(cents, &invoice.currency),
    });
    credit.into_iter().chain(detail.payments.iter().map(payment)).chain(others).collect()
}

/// What came in is positive.
fn signed(kind: PaymentKind, cents: i64) -> i64 {
    match kind {
        PaymentKind::Payment => cents,
        PaymentKind::Refund => -cents,
    }
}

async fn invoice_page<'a>(
    member: &Member,
    place: Place,
    invoice: Uuid,
    done: &Done,
    form: &'a Fields,
) -> Result<InvoicePage<'a>, Failure> {
    let (dashboard, actor, tenant) = (member.dashboard(), member.actor(), place.tenant.id);
    let detail = invoices::read(dashboard, &actor, tenant, invoice).await?;
    let apps = subscriptions::list(dashboard, &actor, tenant).await?;
    let names: BTreeMap<Uuid, String> = apps.into_iter().map(|app| (app.app, app.name)).collect();
    let issuer = dashboard.config.issuer.as_str();
    let mut collection = None;
    if detail.invoice.due_cents() > 0 && place.may(&Action::ChangeSubscriptions) {
        let back = place.at(&format!("billing/invoices/{invoice}?done=payment-under-way"));
        let return_to = format!("{issuer}{back}");
        collection = Some(invoices::checkout(dashboard, &actor, tenant, invoice, &return_to).await?);
    }
    let found = &detail.invoice;
    let sum = found.total_cents;
    Ok(InvoicePage {
        shell: member.shell("billing").within(&place).after(done),
        bill: Bill::new(&detail.lines, &found.currency).adding_up_to("Total", sum, &found.currency),
        app: app_name(&names, found.app),
        plan: names.contains_key(&found.app).then(|| place.at(&format!("apps/{}/plan", found.app))),
        badge: badge(found, dashboard.now()),
        settled: settlements(&detail),
        collection,
        is_operator: member.account().is_operator,
        issuer: issuer.to_owned(),
        invoice: detail.invoice,
        place,
        form,
    })
}

pub(super) async fn show(
    member: Member,
    Path((tenant, invoice)): Path<(String, Uuid)>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    Ok(page(&invoice_page(&member, place, invoice, &done, &Fields::default()).await?))
}

/// An operator has seen the money.
pub(super) async fn mark_paid(
    Path((tenant, invoice)): Path<(String, Uuid)>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let typed = form.get("amount").trim().to_owned();
    let amount_cents = if typed.is_empty() { None } else { cents(&typed) };
    if amount_cents.is_none() && !typed.is_empty() {
        form.wrong("amount", "write an amount such as 29 or 29.50, without a currency");
    }
    if form.is_good() {
        let (dashboard, actor, reference) = (member.dashboard(), member.actor(), form.get("reference"));
        let paid =
            invoices::mark_paid(dashboard, &actor, place.tenant.id, invoice, amount_cents, reference).await;
        match paid {
            Ok(paid) => {
                let done =
                    if paid.state == InvoiceState::Open { "invoice-part-paid" } else { "invoice-paid" };
                return Ok(redirect(&place.at(&format!("billing/invoices/{invoice}")), done));
            }
            Err(error @ InvoiceError::Reference) => form.wrong("reference", error),
            Err(InvoiceError::Payment(PaymentError::Amount(_))) => {
                form.wrong("amount", "an amount is more than nothing; leave it empty for all that is due");
            }
            Err(error) => put(&mut form, error)?,
        }
    }
    Ok(again(&invoice_page(&member, place, invoice, &Done::default(), &form).await?))
}

/// An operator gives the invoice up.
pub(super) async fn write_off(
    Path((tenant, invoice)): Path<(String, Uuid)>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    if form.get("reason").trim().is_empty() {
        form.wrong("reason", "say why: the audit log keeps it");
    }
    if form.is_good() {
        let (dashboard, actor, reason) = (member.dashboard(), member.actor(), form.get("reason"));
        match invoices::write_off(dashboard, &actor, place.tenant.id, invoice, reason).await {
            Ok(()) => {
                return Ok(redirect(
                    &place.at(&format!("billing/invoices/{invoice}")),
                    "invoice-written-off",
                ));
            }
            Err(error @ InvoiceError::Reference) => form.wrong("reason", error),
            Err(error) => put(&mut form, error)?,
        }
    }
    Ok(again(&invoice_page(&member, place, invoice, &Done::default(), &form).await?))
}

/// What an operation refused, over the form.
fn put(form: &mut Fields, error: InvoiceError) -> Result<(), Failure> {
    let failure = Failure::from(error);
    if !failure.is_told() {
        return Err(failure);
    }
    form.wrong_whole(&failure.text);
    Ok(())
}
