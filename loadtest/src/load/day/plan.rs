//! What the people of a day do, and when: all of it is fixed before the day begins. Pure: the same seed
//! makes the same plan.
//!
//! People arrive at random (a Poisson process) at a rate that follows a sine from midnight to midnight,
//! choose a document by Zipf's law, stay for an exponentially distributed time. Writers type in bursts and
//! think between; cursors move; some lose their connection once. A plan says nothing of connections.

use crate::scenario::Day;
use crate::update::pattern::Edit;
use std::f64::consts::TAU;

/// Before they leave people look at what they wrote.
const LAST_LOOK_S: f64 = 0.3;
const SESSION_S_MIN: f64 = 1.0;
/// Back at least this long before leaving.
const ONLINE_AGAIN_S: f64 = 0.5;
/// A format needs that much new text around it.
const CHARACTERS_BETWEEN_FORMATS: u32 = 3;
/// Updates of an owner's first text are as long as a paragraph.
const PARAGRAPH: u32 = 400;

/// splitmix64: every seed gives a good sequence.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 (included) to 1 (not).
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }

    fn happens(&mut self, share: f64) -> bool {
        self.share() < share
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Join,
    /// The connection breaks; the person doesn't notice.
    Drop,
    Return,
    /// The next update of this person.
    Type,
    MoveCursor,
    Leave,
}

/// Who does what, and when: nanoseconds since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    pub due_ns: u64,
    pub person: u32,
    pub deed: Deed,
}

/// A person is one session: whoever comes again is someone else.
#[derive(Debug, Clone)]
pub struct Person {
    pub document: u32,
    /// What each of their updates is; when it is due.
    pub edits: Vec<Edit>,
    pub typed_ns: Vec<u64>,
    /// Without a connection from, to.
    pub offline_ns: Option<(u64, u64)>,
    /// `None`: stays to the end of the day.
    pub leaves_ns: Option<u64>,
}

#[derive(Debug)]
pub struct Plan {
    /// The first of them are the documents' owners, in order: they join before midnight, and stay.
    pub people: Vec<Person>,
    pub actions: Vec<Action>,
    /// The most people expected to be there at the same time, without the owners.
    pub peak: u32,
    /// Who found every document full, and went away.
    pub turned_away: u32,
}

impl Plan {
    /// `seats` is the most people in a document at the same time.
    pub fn new(day: &Day, documents: u32, seats: u32, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut people: Vec<Person> = (1..=documents).map(|rank| owner(day, rank)).collect();
        let mut actions = Vec::new();
        let popularity = Popularity::new(day.zipf_exponent, documents);
        let mut stays: Vec<Vec<f64>> = vec![Vec::new(); documents as usize]; // until when, by document
        let mut turned_away = 0;
        for joins_s in arrivals(day, &mut dice) {
            let leaves_s = joins_s + dice.exponential(day.session_mean_s).max(SESSION_S_MIN);
            let mut person_dice = Dice(dice.next());
            stays.iter_mut().for_each(|stays| stays.retain(|until| *until > joins_s));
            let Some(document) =
                popularity.choose(&mut dice, |document| (stays[document as usize].len() as u32) < seats)
            else {
                turned_away += 1;
                continue;
            };
            stays[document as usize].push(leaves_s);
            let number = people.len() as u32;
            people.push(person(day, document, joins_s, leaves_s, number, &mut person_dice, &mut actions));
        }
        actions.sort_by_key(|action: &Action| action.due_ns); // stable: a person's deeds stay in order
        let (mut there, mut peak) = (0u32, 0);
        for action in &actions {
            match action.deed {
                Deed::Join => there += 1,
                Deed::Leave => there -= 1,
                _ => {}
            }
            peak = peak.max(there);
        }
        Self { people, actions, peak, turned_away }
    }

    pub fn updates(&self) -> u64 {
        self.people.iter().map(|person| person.typed_ns.len() as u64).sum()
    }
}

/// A document's owner has its first text, and doesn't type any more.
fn owner(day: &Day, rank: u32) -> Person {
    let characters = f64::from(day.initial_characters_max) / f64::from(rank).powf(day.zipf_exponent);
    let characters = (characters as u32).max(1);
    let mut edits = vec![Edit::Insert(PARAGRAPH); (characters / PARAGRAPH) as usize];
    if !characters.is_multiple_of(PARAGRAPH) {
        edits.push(Edit::Insert(characters % PARAGRAPH));
    }
    Person { document: rank - 1, edits, typed_ns: Vec::new(), offline_ns: None, leaves_ns: None }
}

/// When people come, in seconds since midnight: thinned from a steady stream at the rate of noon.
fn arrivals(day: &Day, dice: &mut Dice) -> Vec<f64> {
    let interval_s = day.session_mean_s / f64::from(day.people_at_noon);
    let mut arrivals = Vec::new();
    let mut at_s = 0.0;
    loop {
        at_s += dice.exponential(interval_s);
        if at_s >= day.day_s {
            return arrivals;
        }
        if dice.happens(busyness(day, at_s)) {
            arrivals.push(at_s);
        }
    }
}

/// 1 at noon, `night_share` at midnight.
fn busyness(day: &Day, at_s: f64) -> f64 {
    let sun = 0.5 - 0.5 * (TAU * at_s / day.day_s).cos();
    day.night_share + (1.0 - day.night_share) * sun
}

/// Zipf's law.
struct Popularity {
    up_to: Vec<f64>, // by document: the share of it and all more popular ones
}

impl Popularity {
    fn new(exponent: f64, documents: u32) -> Self {
        let weights: Vec<f64> = (1..=documents).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let up_to = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        Self { up_to }
    }

    /// A document that has room; who finds one full takes the next.
    fn choose(&self, dice: &mut Dice, has_room: impl Fn(u32) -> bool) -> Option<u32> {
        let share = dice.share();
        let documents = self.up_to.len() as u32;
        let first = self.up_to.partition_point(|up_to| *up_to <= share) as u32;
        (0..documents).map(|step| (first + step) % documents).find(|document| has_room(*document))
    }
}

/// One person's deeds, from joining to leaving (or to the end of the day).
fn person(
    day: &Day,
    document: u32,
    joins_s: f64,
    leaves_s: f64,
    number: u32,
    dice: &mut Dice,
    actions: &mut Vec<Action>,
) -> Person {
    let stays = leaves_s >= day.day_s;
    let end_s = if stays { day.day_s } else { leaves_s };
    let mut act = |at_s: f64, deed| {
        actions.push(Action { due_ns: (at_s * 1e9) as u64, person: number, deed });
    };
    act(joins_s, Deed::Join);
    let mut person =
        Person { document, edits: Vec::new(), typed_ns: Vec::new(), offline_ns: None, leaves_ns: None };
    if dice.happens(day.writers_share) {
        let times = typing_times(day, joins_s, end_s - LAST_LOOK_S, dice);
        person.edits = edits(day, times.len(), dice);
        person.typed_ns = times.iter().map(|at_s| (at_s * 1e9) as u64).collect();
        times.into_iter().for_each(|at_s| act(at_s, Deed::Type));
    }
    let mut at_s = joins_s + LAST_LOOK_S;
    while at_s < end_s - LAST_LOOK_S {
        act(at_s, Deed::MoveCursor);
        at_s += dice.exponential(1.0 / day.cursor_rate).clamp(0.02, 20.0);
    }
    if dice.happens(day.offline_share) {
        let away_s = dice.exponential(day.offline_mean_s);
        let spare_s = end_s - joins_s - away_s - LAST_LOOK_S - ONLINE_AGAIN_S;
        if spare_s > 0.0 {
            let from_s = joins_s + LAST_LOOK_S + dice.share() * spare_s;
            let to_s = from_s + away_s;
            act(from_s, Deed::Drop);
            act(to_s, Deed::Return);
            person.offline_ns = Some(((from_s * 1e9) as u64, (to_s * 1e9) as u64));
        }
    }
    if !stays {
        act(end_s, Deed::Leave);
        person.leaves_ns = Some((end_s * 1e9) as u64);
    }
    person
}

/// Bursts of typing, thinking between them.
fn typing_times(day: &Day, from_s: f64, to_s: f64, dice: &mut Dice) -> Vec<f64> {
    let mut times = Vec::new();
    let mut at_s = from_s + dice.exponential(day.think_mean_s);
    while at_s < to_s {
        times.push(at_s);
        let thinks = dice.happens(1.0 / day.burst_mean_updates);
        at_s += dice.exponential(if thinks { day.think_mean_s } else { 1.0 / day.typing_rate });
    }
    times
}

fn edits(day: &Day, count: usize, dice: &mut Dice) -> Vec<Edit> {
    let mut unformatted = 0;
    (0..count)
        .map(|_| {
            let kind = dice.share();
            if kind < day.format_share && unformatted >= CHARACTERS_BETWEEN_FORMATS {
                unformatted = 0;
                return Edit::Format;
            }
            let is_paste = kind >= day.format_share && kind < day.format_share + day.paste_share;
            let len = if is_paste { day.paste_length } else { 1 };
            unformatted += len;
            Edit::Insert(len)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Overrides, Scenario};
    use std::path::Path;

    fn day() -> Day {
        let scenario = Scenario::load(Path::new("day"), &Overrides::default()).expect("valid");
        scenario.day.expect("a day")
    }

    #[test]
    fn the_same_seed_makes_the_same_day_and_another_a_different_one() {
        let plan = |seed| Plan::new(&day(), 40, 60, seed).actions;
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn noon_is_busy_and_the_first_document_popular() {
        let day = day();
        let plan = Plan::new(&day, 40, 1000, 7);
        let joins = |from: f64, to: f64| {
            let hours = (from * day.day_s * 1e9) as u64..(to * day.day_s * 1e9) as u64;
            let joins = plan.actions.iter().filter(|action| action.deed == Deed::Join);
            joins.filter(|action| hours.contains(&action.due_ns)).count()
        };
        assert!(joins(0.4, 0.6) > 2 * (joins(0.0, 0.1) + joins(0.9, 1.0)));
        assert!((100..250).contains(&plan.peak), "{}", plan.peak);
        let visits = |document| plan.people.iter().filter(|person| person.document == document).count();
        assert!(visits(0) > 5 * visits(20));
        let size = |owner: usize| plan.people[owner].edits.iter().map(|edit| edit.clocks()).sum::<u32>();
        assert_eq!((size(0), size(1), size(39)), (200_000, 100_000, 5_000));
    }

    #[test]
    fn everyone_joins_first_types_only_while_there_and_leaves_last() {
        let plan = Plan::new(&day(), 40, 60, 3);
        assert!(plan.actions.is_sorted_by_key(|action| action.due_ns));
        for (number, person) in plan.people.iter().enumerate().skip(40) {
            let own = plan.actions.iter().filter(|action| action.person as usize == number);
            let deeds: Vec<Deed> = own.map(|action| action.deed).collect();
            assert_eq!(deeds[0], Deed::Join);
            assert_eq!(person.leaves_ns.is_some(), deeds.ends_with(&[Deed::Leave]));
            assert_eq!(deeds.iter().filter(|deed| **deed == Deed::Type).count(), person.edits.len());
            let drop = deeds.iter().position(|deed| *deed == Deed::Drop);
            let back = deeds.iter().position(|deed| *deed == Deed::Return);
            assert_eq!(drop.is_some(), person.offline_ns.is_some());
            assert!(
                drop.zip(back).is_none_or(|(drop, back)| drop < back) && drop.is_some() == back.is_some()
            );
        }
    }

    #[test]
    fn nobody_enters_a_full_document() {
        let plan = Plan::new(&day(), 2, 5, 3);
        let mut there = [0; 2];
        for action in &plan.actions {
            let document = plan.people[action.person as usize].document as usize;
            match action.deed {
                Deed::Join => there[document] += 1,
                Deed::Leave => there[document] -= 1,
                _ => {}
            }
            assert!(there[document] <= 5);
        }
        assert!(plan.turned_away > 0);
    }
}
