//! Every tenant's open invoices, for whoever looks after the money.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::billing::InvoiceRow;
use super::failure::Failure;
use super::page::{Done, Shell, page};
use super::visit::{Member, Query};
use crate::dashboard::billing::invoices;
use crate::dashboard::tenants;

const PAGE_ROWS: i64 = 50;

#[derive(Template)]
#[template(path = "operator_invoices.html")]
struct InvoicesPage {
    shell: Shell,
    invoices: Vec<Row>,
    /// The last number of the page, if there are newer ones.
    newer: Option<i64>,
    is_oldest: bool,
}

struct Row {
    row: InvoiceRow,
    tenant: String,
}

/// Which page: the invoices with numbers above.
#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    after: Option<i64>,
}

pub(super) async fn list(
    member: Member,
    Query(after): Query<After>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let mut found =
        invoices::list_open(dashboard, &actor, after.after.unwrap_or_default(), PAGE_ROWS + 1).await?;
    let has_more = found.len() > usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    if has_more {
        found.pop();
    }
    let newer = found.last().map(|invoice| invoice.number).filter(|_| has_more);
    let mut names: BTreeMap<Uuid, String> = BTreeMap::new();
    for invoice in &found {
        if !names.contains_key(&invoice.tenant)
            && let Some(tenant) = tenants::find(dashboard, invoice.tenant).await?
        {
            names.insert(tenant.id, tenant.name);
        }
    }
    let now = dashboard.now();
    let row = |invoice: invoices::Invoice| Row {
        tenant: names.get(&invoice.tenant).cloned().unwrap_or_default(),
        row: InvoiceRow::new(invoice, String::new(), now),
    };
    Ok(page(&InvoicesPage {
        shell: member.shell("operator-invoices").after(&done),
        invoices: found.into_iter().map(row).collect(),
        newer,
        is_oldest: after.after.is_none(),
    }))
}
