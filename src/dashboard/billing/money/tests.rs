//! No cent is lost or invented, whatever is done in whatever order.

use proptest::prelude::*;

use super::*;

const DAY_S: i64 = 86_400;
const START: i64 = 1_800_000_000;

fn month() -> Span {
    Span { start: START, end: Cadence::Month.after(START, 1) }
}

fn price(plan: &'static str, cents: i64) -> Price<'static> {
    Price { plan, cents, cadence: Cadence::Month }
}

fn sum(lines: &[Line]) -> i64 {
    lines.iter().map(|line| line.amount_cents).sum()
}

#[test]
fn half_a_period_costs_half_the_price() {
    let period = Span { start: START, end: START + 30 * DAY_S };
    let change = change(price("Starter", 2900), period, price("Pro", 19_900), START + 15 * DAY_S);
    let amounts: Vec<_> = change.lines.iter().map(|line| (line.kind, line.amount_cents)).collect();
    assert_eq!(amounts, [(LineKind::Unused, -1450), (LineKind::Remaining, 9950)]);
    assert!(!change.is_due_now && !change.is_new_period);
    assert_eq!(change.span, period);
}

#[test]
fn one_second_costs_what_it_should() {
    let period = Span { start: 0, end: 100 };
    assert_eq!(share(1000, period, 0, 1), 10);
    assert_eq!(share(1, period, 0, 99), 0);
    assert_eq!(share(1, period, 99, 100), 1, "the last second completes the cent");
    assert_eq!(share(1000, period, -50, 150), 1000, "nothing is charged outside the period");
}

#[test]
fn from_a_free_plan_a_whole_period_is_due_at_once() {
    let change = change(price("Free", 0), month(), price("Pro", 19_900), START + 5);
    assert_eq!(sum(&change.lines), 19_900);
    assert!(change.is_due_now && change.is_new_period);
    assert_eq!(change.span.start, START + 5);
}

#[test]
fn to_a_free_plan_the_rest_is_credited() {
    let half = START + (month().end - START) / 2;
    let change = change(price("Pro", 19_900), month(), price("Free", 0), half);
    assert_eq!((sum(&change.lines), change.is_due_now), (-9950, false));
}

#[test]
fn from_months_to_years_a_new_period_begins() {
    let to = Price { plan: "Pro, yearly", cents: 199_000, cadence: Cadence::Year };
    let change = change(price("Pro", 19_900), month(), to, START);
    assert_eq!((sum(&change.lines), change.is_due_now), (199_000 - 19_900, true));
    assert_eq!(change.span.end, Cadence::Year.after(START, 1));
}

#[test]
fn an_invoice_is_never_negative() {
    let credit = Line { kind: LineKind::Unused, description: String::new(), amount_cents: -500, span: None };
    let draft = draft(vec![credit, period_line(price("Starter", 200), month()).unwrap()]);
    assert_eq!((draft.total_cents, draft.carried_cents), (0, 300));
    assert_eq!(sum(&draft.lines), 0);
}

/// What can happen to a subscription.
#[derive(Debug, Clone)]
enum Step {
    /// After this part (in thousandths) of what is left of the period, to the plan of this price and cadence.
    Change(i64, i64, bool),
    /// To the period's end.
    Renew,
}

fn step() -> impl Strategy<Value = Step> {
    let cents = prop_oneof![Just(0), 1_i64..100, 100_i64..10_000_000];
    prop_oneof![
        3 => (0_i64..1000, cents, any::<bool>()).prop_map(|(part, cents, yearly)| Step::Change(part, cents, yearly)),
        1 => Just(Step::Renew),
    ]
}

/// A subscription's books, as `ledger` keeps them in the database.
struct Books {
    waiting: Vec<Line>,
    invoiced_cents: i64,
}

impl Books {
    fn issue(&mut self, lines: Vec<Line>) {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(lines);
        let draft = draft(all);
        assert!(draft.total_cents >= 0 && draft.carried_cents >= 0);
        assert_eq!(sum(&draft.lines), draft.total_cents, "an invoice's lines add up");
        assert!(draft.total_cents == 0 || draft.carried_cents == 0);
        self.invoiced_cents += draft.total_cents;
        if draft.carried_cents > 0 {
            let credit = Line {
                kind: LineKind::Credit,
                description: String::new(),
                amount_cents: -draft.carried_cents,
                span: None,
            };
            self.waiting.push(credit);
        }
    }
}

proptest! {
    #[test]
    fn the_shares_of_a_periods_parts_add_up_to_its_price(
        cents in 0_i64..1_000_000_000,
        length in 1_i64..40_000_000,
        cuts in prop::collection::vec(0_i64..40_000_000, 0..20),
    ) {
        let period = Span { start: START, end: START + length };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| START + cut % (length + 1)).collect();
        cuts.extend([period.start, period.end]);
        cuts.sort_unstable();
        let shares: Vec<_> = cuts.windows(2).map(|part| share(cents, period, part[0], part[1])).collect();
        prop_assert!(shares.iter().all(|share| *share >= 0));
        prop_assert_eq!(shares.iter().sum::<i64>(), cents);
    }

    #[test]
    fn there_and_back_costs_nothing(a in 1_i64..1_000_000, b in 1_i64..1_000_000, at in 0_i64..2_678_400) {
        let (from, to, at) = (price("A", a), price("B", b), START + at);
        let there = change(from, month(), to, at);
        let back = change(to, there.span, from, at);
        prop_assert_eq!(sum(&there.lines) + sum(&back.lines), 0);
    }

    /// Whatever is invoiced or waits to be is exactly what was used (and, for the current period, will be).
    #[test]
    fn no_cent_is_lost_or_invented_over_any_sequence(
        first in 0_i64..1_000_000,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut books = Books { waiting: Vec::new(), invoiced_cents: 0 };
        let (mut plan, mut used, mut used_until) = (price("P", first), 0, START);
        let begun = begin(plan, START);
        let mut period = begun.span;
        if begun.is_due_now {
            books.issue(begun.lines);
        }
        for step in steps {
            match step {
                Step::Change(part, cents, yearly) => {
                    let cadence = if yearly { Cadence::Year } else { Cadence::Month };
                    let to = Price { plan: "P", cents, cadence };
                    let at = used_until + (period.end - used_until) * part / 1000;
                    used += share(plan.cents, period, used_until, at);
                    let change = change(plan, period, to, at);
                    if change.is_due_now {
                        books.issue(change.lines);
                    } else {
                        books.waiting.extend(change.lines);
                    }
                    (plan, period, used_until) = (to, change.span, at);
                }
                Step::Renew => {
                    used += share(plan.cents, period, used_until, period.end);
                    used_until = period.end;
                    period = Span { start: period.end, end: plan.cadence.after(period.end, 1) };
                    if let Some(line) = period_line(plan, period) {
                        books.issue(vec![line]);
                    }
                }
            }
        }
        let prepaid = share(plan.cents, period, used_until, period.end);
        prop_assert_eq!(books.invoiced_cents + sum(&books.waiting), used + prepaid);
    }
}
