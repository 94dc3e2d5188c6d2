//! What a change of plan costs, and how lines become an invoice: arithmetic on integer cents and seconds, nothing else.
//!
//! - A period's price is spread over its seconds. [`share`] rounds so that the shares of a period's parts, however it is
//!   cut, add up to the price: no cent is lost, none invented.
//! - An invoice is never negative: what would be is carried over, as a line that brings the invoice to zero and a credit
//!   that waits for the next one.

use super::calendar::{Cadence, date};

/// A stretch of time, its end excluded; unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: i64,
    pub end: i64,
}

/// What a line is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// A whole period's price.
    Period,
    /// The rest of a period that was paid for and is not used.
    Unused,
    /// The rest of a period on the new plan.
    Remaining,
    /// Brings a negative invoice to zero.
    CarriedOver,
    /// What an earlier invoice carried over, or was paid too much.
    Credit,
    /// Credit that was spent on an open invoice.
    CreditSpent,
}

/// A charge, or a credit if it is negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub kind: LineKind,
    pub description: String,
    pub amount_cents: i64,
    pub span: Option<Span>,
}

/// What a plan costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price<'a> {
    pub plan: &'a str,
    pub cents: i64,
    pub cadence: Cadence,
}

/// What going from one plan to another means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub lines: Vec<Line>,
    /// The period that is current afterwards.
    pub span: Span,
    /// Whether that period is a new one, which began with the change.
    pub is_new_period: bool,
    /// Whether the lines are invoiced now, and not with the next invoice.
    pub is_due_now: bool,
}

/// An invoice before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub lines: Vec<Line>,
    /// The sum of the lines, never negative.
    pub total_cents: i64,
    /// A credit for the next invoice.
    pub carried_cents: i64,
}

const KINDS: [(LineKind, &str); 6] = [
    (LineKind::Period, "period"),
    (LineKind::Unused, "unused"),
    (LineKind::Remaining, "remaining"),
    (LineKind::CarriedOver, "carried_over"),
    (LineKind::Credit, "credit"),
    (LineKind::CreditSpent, "credit_spent"),
];

impl LineKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl std::str::FromStr for LineKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or(())
    }
}

/// The part of a period's price that falls on `from..to`: the difference of what has accrued at both ends, each rounded
/// down.
#[must_use]
pub fn share(cents: i64, period: Span, from: i64, to: i64) -> i64 {
    let length = i128::from((period.end - period.start).max(1));
    let accrued = |at: i64| {
        let elapsed = i128::from(at.clamp(period.start, period.end) - period.start);
        i64::try_from(i128::from(cents) * elapsed / length).unwrap_or(cents)
    };
    accrued(to) - accrued(from)
}

/// A first period, or one that follows nothing.
#[must_use]
pub fn begin(to: Price<'_>, at: i64) -> Change {
    let span = Span { start: at, end: to.cadence.after(at, 1) };
    let lines: Vec<_> = period_line(to, span).into_iter().collect();
    Change { is_due_now: !lines.is_empty(), lines, span, is_new_period: true }
}

/// From one plan to another at a moment of the period.
///
/// - From a free plan: a new period, charged in full at once.
/// - Between paid plans of one cadence: the period goes on; the rest of it is credited on the old plan and charged on the
///   new one, with the next invoice.
/// - Between paid plans of different cadences: the rest is credited, and a new period charged in full, at once: the next
///   invoice could be a year away.
/// - To a free plan: the rest is credited.
#[must_use]
pub fn change(from: Price<'_>, period: Span, to: Price<'_>, at: i64) -> Change {
    if from.cents == 0 {
        return begin(to, at);
    }
    let unused = unused_line(from, period, at);
    if to.cents == 0 {
        let new = begin(to, at);
        return Change { lines: unused.into_iter().collect(), is_due_now: false, ..new };
    }
    if from.cadence != to.cadence {
        let new = begin(to, at);
        return Change { lines: unused.into_iter().chain(new.lines).collect(), ..new };
    }
    let rest = Span { start: at.clamp(period.start, period.end), end: period.end };
    let remaining = Line {
        kind: LineKind::Remaining,
        description: format!(
            "{}, rest of the period from {} to {}",
            to.plan,
            date(rest.start),
            date(rest.end)
        ),
        amount_cents: share(to.cents, period, rest.start, rest.end),
        span: Some(rest),
    };
    let remaining = (remaining.amount_cents != 0).then_some(remaining);
    let lines = unused.into_iter().chain(remaining).collect();
    Change { lines, span: period, is_new_period: false, is_due_now: false }
}

/// The line of a whole period; none if it is free.
#[must_use]
pub fn period_line(price: Price<'_>, span: Span) -> Option<Line> {
    (price.cents != 0).then(|| Line {
        kind: LineKind::Period,
        description: format!("{}, {} to {}", price.plan, date(span.start), date(span.end)),
        amount_cents: price.cents,
        span: Some(span),
    })
}

/// The credit for what is left of a period; none if nothing is.
#[must_use]
pub fn unused_line(price: Price<'_>, period: Span, at: i64) -> Option<Line> {
    let rest = Span { start: at.clamp(period.start, period.end), end: period.end };
    let amount_cents = -share(price.cents, period, rest.start, rest.end);
    (amount_cents != 0).then(|| Line {
        kind: LineKind::Unused,
        description: format!("{}, unused from {} to {}", price.plan, date(rest.start), date(rest.end)),
        amount_cents,
        span: Some(rest),
    })
}

/// Makes an invoice of lines; what would be negative is carried over.
#[must_use]
pub fn draft(mut lines: Vec<Line>) -> Draft {
    let sum: i64 = lines.iter().map(|line| line.amount_cents).sum();
    if sum >= 0 {
        return Draft { lines, total_cents: sum, carried_cents: 0 };
    }
    lines.push(Line {
        kind: LineKind::CarriedOver,
        description: "Credit carried over to the next invoice".to_owned(),
        amount_cents: -sum,
        span: None,
    });
    Draft { lines, total_cents: 0, carried_cents: -sum }
}

#[cfg(test)]
mod tests;
