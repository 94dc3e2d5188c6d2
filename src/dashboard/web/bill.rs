//! Lines of money and their sum, as previews and invoices show them: the same table for both, so that what was confirmed
//! can be compared with what was charged.

use askama::Template;

use super::text::{Moment, amount, grouped};
use crate::dashboard::billing::{Line, LineKind};

/// Lines that add up.
#[derive(Debug, Template)]
#[template(path = "bill.html")]
pub(super) struct Bill {
    rows: Vec<Row>,
    /// What the sum is called, and the sum.
    total: Option<(&'static str, String)>,
}

#[derive(Debug)]
struct Row {
    description: String,
    /// To the second, where seconds were counted: from, to, and how many.
    exact: Option<(String, String, String)>,
    amount: String,
    is_credit: bool,
}

impl Bill {
    pub fn new(lines: &[Line], currency: &str) -> Self {
        Self { rows: lines.iter().map(|line| Row::new(line, currency)).collect(), total: None }
    }

    pub fn adding_up_to(self, what: &'static str, cents: i64, currency: &str) -> Self {
        Self { total: Some((what, amount(cents, currency))), ..self }
    }
}

impl Row {
    fn new(line: &Line, currency: &str) -> Self {
        let is_part = matches!(line.kind, LineKind::Unused | LineKind::Remaining);
        let exact = line.span.filter(|_| is_part).map(|span| {
            (Moment(span.start).exact(), Moment(span.end).exact(), grouped(span.end - span.start))
        });
        Self {
            description: line.description.clone(),
            exact,
            amount: amount(line.amount_cents, currency),
            is_credit: line.amount_cents < 0,
        }
    }
}
