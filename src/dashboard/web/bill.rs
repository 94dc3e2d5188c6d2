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
    /// The words of the description, and whether each is a date, which must not break.
    words: Vec<(String, bool)>,
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
            words: line.description.split(' ').map(|word| (word.to_owned(), is_date(word))).collect(),
            exact,
            amount: amount(line.amount_cents, currency),
            is_credit: line.amount_cents < 0,
        }
    }
}

/// Whether it is a date as descriptions have it: `2027-01-15`.
fn is_date(word: &str) -> bool {
    word.len() == 10 && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::billing::Span;

    #[test]
    fn what_was_counted_in_seconds_says_how_many() {
        let span = Some(Span { start: 1_800_000_000, end: 1_800_003_600 });
        let line = |kind, amount_cents| Line {
            kind,
            description: "<Team>, 2027-01-15 to 2027-02-15".to_owned(),
            amount_cents,
            span,
        };
        let lines = [line(LineKind::Period, 2900), line(LineKind::Unused, -1450)];
        let html = Bill::new(&lines, "USD").adding_up_to("Total", 1450, "USD").to_string();
        assert!(html.contains("&#60;Team&#62;, <span class=\"moment\">2027-01-15</span> to"), "{html}");
        assert_eq!(html.matches("3,600 seconds").count(), 1, "a whole period isn't counted: {html}");
        assert!(html.contains("credit\">−$14.50</td>") && html.contains("amount\">$14.50</td>"), "{html}");
    }
}
