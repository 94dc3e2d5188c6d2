//! One scenario, several processes: for more than one core or one address can drive.
//!
//! ```text
//! parent ──► part 1 … N: its share of the documents, and addresses of its own
//!        ◄── connected        all of them: then everybody begins at one instant
//!        ◄── counted          every second, for the view and the series
//!        ◄── finished         all of them: the server's memory is read, nobody has left yet
//!        ◄── tally            histograms and counts, which add up
//! ```
//!
//! A part is a scenario like any other, with fewer documents: schedule and verification know nothing of
//! the others. Parts are copies of this program, told what to do by lines of JSON on standard input. The
//! parent measures the server and drives nothing. Deliberately absent: the readers of one document in
//! several processes.

pub mod part;
mod tally;
mod window;

pub use tally::Tally;

use crate::load::seconds_ns;
use crate::measure::process::ProcessError;
use crate::measure::series::Counted;
use crate::measure::{Clock, Latency};
use crate::progress::Progress;
use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::tokens::TokenCounts;
use crate::watch::{Watch, interrupt};
use part::{Order, PartScenario, Word};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use thiserror::Error;
use window::Window;

/// Between the last connection and the first update: an order must have reached everybody by then.
const PAUSE_S: f64 = 0.3;
/// Parts begin at most so far apart.
const STAGGER_S_MAX: f64 = 0.05;

#[derive(Debug, Error)]
pub enum ProcessesError {
    #[error("cannot start process {number} of the load tester: {source}")]
    Start { number: usize, source: io::Error },
    #[error("process {number} of the load tester failed: {reason}")]
    Failed { number: usize, reason: String },
    #[error("process {number} of the load tester ended without a result: {source}")]
    Gone { number: usize, source: io::Error },
    #[error(
        "--processes {processes} needs as many documents, the scenario has {documents}: a document is never divided. Take --processes {documents}, or more --documents"
    )]
    TooFewDocuments { processes: u32, documents: u32 },
    #[error(
        "a scenario with [{0}] is not made for --processes: leave it out. What can be divided is [idle], [storm], and [typing] without slow_readers and slice_updates"
    )]
    Kind(&'static str),
    #[error("the run ended before anything was measured")]
    Halted,
    #[error(transparent)]
    Server(#[from] ProcessError),
}

/// The parts at work. Those that still run when this is dropped are ended.
#[derive(Debug)]
struct Parts {
    children: Vec<Child>,
    orders: Vec<ChildStdin>,
    words: Receiver<(usize, io::Result<Word>)>,
    connected: usize,
    finished: usize,
    /// By part.
    tallies: Vec<Option<Tally>>,
    counted: Counts,
    watch: Watch,
    /// Have the parts been told to end before their time?
    is_halted: bool,
    is_complete: bool,
}

/// What all parts have counted so far.
#[derive(Debug, Default)]
struct Counts {
    deliveries: Vec<u64>,
    failures: Vec<usize>,
    latency: Latency,
    ticks: BTreeMap<u64, usize>,
}

/// Runs the scenario in `processes` copies of this program, which get this one's arguments. Each has tokens of its
/// own: how many these were comes along.
pub fn run(
    scenario: &Scenario,
    processes: u32,
    sample_s: f64,
    watch: &Watch,
    progress: &mut Progress,
) -> Result<(Outcome, Option<TokenCounts>), ProcessesError> {
    let window = Window::of(scenario).ok_or(ProcessesError::Kind(scenario.kind()))?;
    if let Some(what) = indivisible(scenario) {
        return Err(ProcessesError::Kind(what));
    }
    if scenario.documents < processes {
        return Err(ProcessesError::TooFewDocuments { processes, documents: scenario.documents });
    }
    let clock = Clock::start();
    let memory_before = watch.memory()?;
    let mut parts = Parts::start(scenario, processes, sample_s, watch.clone())?;
    parts.pump(&clock, progress, "connecting", 0..0, |parts, _| {
        parts.is_halted || parts.connected == processes as usize
    })?;
    if parts.is_halted {
        return Err(ProcessesError::Halted);
    }

    let start_ns = clock.now_ns() + seconds_ns(PAUSE_S);
    let stagger_s = window.interval_s(scenario).unwrap_or(0.0).min(STAGGER_S_MAX);
    for place in 0..processes {
        let delay_s = stagger_s * f64::from(place) / f64::from(processes);
        parts.order(place as usize, &Order::Begin { start_ns: start_ns + seconds_ns(delay_s) })?;
    }
    let begin_ns = start_ns + seconds_ns(window.begin_s);
    parts.pump(&clock, progress, "warming up", start_ns..begin_ns, |parts, now_ns| {
        parts.is_halted || now_ns >= begin_ns
    })?;
    if parts.is_halted {
        return Err(ProcessesError::Halted);
    }
    let cpu_before = watch.cpu()?;
    let end_ns = window.length_s.map(|length_s| begin_ns + seconds_ns(length_s));
    let span_ns = begin_ns..end_ns.unwrap_or(begin_ns);
    parts.pump(&clock, progress, "measuring", span_ns, |parts, now_ns| {
        parts.is_halted || end_ns.map_or(parts.finished == processes as usize, |end_ns| now_ns >= end_ns)
    })?;
    let measured_s = parts.is_halted.then(|| (clock.now_ns() - begin_ns) as f64 / 1e9);
    let window = Window { length_s: measured_s.or(window.length_s), ..window };
    let cpu_after = watch.cpu()?;
    parts.pump(&clock, progress, "settling", 0..0, |parts, _| parts.finished == processes as usize)?;
    let memory_after = watch.memory()?;
    (0..processes as usize).try_for_each(|place| parts.order(place, &Order::Leave))?;
    parts.pump(&clock, progress, "adding up", 0..0, |parts, _| parts.tallies.iter().all(Option::is_some))?;

    parts.is_complete = true;
    let cpu = crate::load::used(cpu_after, cpu_before);
    let mut sum = Tally::default();
    parts.tallies.iter_mut().filter_map(Option::take).for_each(|tally| sum.add(tally));
    let tokens = sum.tokens;
    Ok((window.outcome(scenario, sum, cpu, memory_before, memory_after), tokens))
}

/// What parts can't measure: they don't see the server, and each would look at it at an instant of its own.
fn indivisible(scenario: &Scenario) -> Option<&'static str> {
    let typing = scenario.typing.as_ref()?;
    let slow_readers = typing.slow_readers.as_ref().map(|_| "typing.slow_readers");
    slow_readers.or(typing.slice_updates.map(|_| "typing.slice_updates"))
}

/// The share of documents, and of connections being set up at once, of part `place`, from zero, of `processes`.
fn share(scenario: &Scenario, place: u32, processes: u32) -> Scenario {
    let documents = scenario.documents / processes + u32::from(place < scenario.documents % processes);
    let connect_at_once = (scenario.connect_at_once / processes).max(1);
    let mut part = Scenario { documents, connect_at_once, ..scenario.clone() };
    if let Some(churn) = part.typing.as_mut().and_then(|typing| typing.churn.as_mut()) {
        churn.rate *= f64::from(documents) / f64::from(scenario.documents); // it counts over all documents
    }
    part
}

impl Parts {
    fn start(
        scenario: &Scenario,
        processes: u32,
        sample_s: f64,
        watch: Watch,
    ) -> Result<Self, ProcessesError> {
        let (sender, words) = channel();
        let count = processes as usize;
        let mut parts = Self {
            children: Vec::with_capacity(count),
            orders: Vec::with_capacity(count),
            words,
            connected: 0,
            finished: 0,
            tallies: vec![None; count],
            counted: Counts { deliveries: vec![0; count], failures: vec![0; count], ..Counts::default() },
            watch,
            is_halted: false,
            is_complete: false,
        };
        for place in 0..processes {
            let number = place as usize + 1;
            parts
                .start_one(place as usize, &sender)
                .map_err(|source| ProcessesError::Start { number, source })?;
            let scenario = share(scenario, place, processes);
            parts.order(
                place as usize,
                &Order::Prepare(Box::new(PartScenario { scenario, place, sample_s })),
            )?;
        }
        Ok(parts)
    }

    fn start_one(&mut self, place: usize, sender: &Sender<(usize, io::Result<Word>)>) -> io::Result<()> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--part")
            .process_group(0) // a terminal interrupts the parent, which tells the parts
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        self.children.push(child);
        let (orders, words) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        self.orders.push(orders);
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(words).lines() {
                let word = line.and_then(|line| Ok(serde_json::from_str(&line)?));
                if sender.send((place, word)).is_err() {
                    return;
                }
            }
            let _ = sender.send((place, Err(io::ErrorKind::UnexpectedEof.into())));
        });
        Ok(())
    }

    fn order(&mut self, place: usize, order: &Order) -> Result<(), ProcessesError> {
        let gone = |source| ProcessesError::Gone { number: place + 1, source };
        let mut line = serde_json::to_string(order).map_err(|error| gone(error.into()))?;
        line.push('\n');
        self.orders[place].write_all(line.as_bytes()).map_err(gone)
    }

    /// Listens to the parts until `done(self, now_ns)`; the view shows how much of `span_ns` is over, or, if
    /// that is empty, how many are ready.
    fn pump(
        &mut self,
        clock: &Clock,
        progress: &mut Progress,
        phase: &str,
        span_ns: Range<u64>,
        done: impl Fn(&Self, u64) -> bool,
    ) -> Result<(), ProcessesError> {
        /// How exactly the edges of the window are met.
        const LOOK: Duration = Duration::from_millis(2);
        loop {
            let now_ns = clock.now_ns();
            if self.watch.halt(now_ns).is_some() && !std::mem::replace(&mut self.is_halted, true) {
                self.children.iter().for_each(|child| interrupt(child.id()));
            }
            if done(self, now_ns) {
                return Ok(());
            }
            let (all, connected, finished) = (self.children.len(), self.connected, self.finished);
            let (over, whole) = match span_ns.end.checked_sub(span_ns.start) {
                Some(whole) if whole > 0 => (now_ns.saturating_sub(span_ns.start), whole),
                _ => ((connected + finished) as u64, 2 * all as u64),
            };
            progress.show_part(now_ns, over, whole, || {
                format!("{phase}: {all} processes, {connected} connected, {finished} finished")
            });
            match self.words.recv_timeout(LOOK) {
                Ok((place, word)) => self.hear(place, word, clock, progress)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn hear(
        &mut self,
        place: usize,
        word: io::Result<Word>,
        clock: &Clock,
        progress: &mut Progress,
    ) -> Result<(), ProcessesError> {
        let number = place + 1;
        match word {
            Ok(Word::Connected) => self.connected += 1,
            Ok(Word::Finished) => self.finished += 1,
            Ok(Word::Tally(tally)) => self.tallies[place] = Some(*tally),
            Ok(Word::Failed { reason }) => return Err(ProcessesError::Failed { number, reason }),
            Ok(Word::Counted { tick, deliveries, failures, latency }) => {
                let counts = &mut self.counted;
                (counts.deliveries[place], counts.failures[place]) = (deliveries, failures);
                counts.latency.add(&latency);
                let heard = counts.ticks.entry(tick).or_default();
                *heard += 1;
                if *heard == self.children.len() {
                    counts.ticks = counts.ticks.split_off(&(tick + 1));
                    let deliveries = counts.deliveries.iter().sum();
                    let failures = counts.failures.iter().sum();
                    let latency = &counts.latency;
                    progress.sample_now(clock.now_ns(), Counted { deliveries, latency, failures });
                }
            }
            // Who has given its tally may go.
            Err(_) if self.tallies[place].is_some() => {}
            Err(source) => return Err(ProcessesError::Gone { number, source }),
        }
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.orders.clear();
        for child in &mut self.children {
            // Who has a result ends by itself; who is waited for in vain must not go on.
            if !self.is_complete {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Churn, Overrides};
    use std::path::Path;

    #[test]
    fn every_document_is_in_exactly_one_part() {
        let overrides = Overrides { documents: Some(11), ..Overrides::default() };
        let scenario = Scenario::load(Path::new("b-many-rooms"), &overrides).expect("valid");
        let documents: Vec<u32> = (0..4).map(|place| share(&scenario, place, 4).documents).collect();
        assert_eq!(documents, [3, 3, 3, 2]);
    }

    #[test]
    fn departures_are_shared_too_and_what_would_get_lost_is_refused() {
        let mut scenario = Scenario::load(Path::new("b-many-rooms"), &Overrides::default()).expect("valid");
        let typing = scenario.typing.as_mut().expect("typing");
        typing.churn = Some(Churn { rate: 50.0, away_s: 1.0 });
        let rate = |place| share(&scenario, place, 3).typing.and_then(|typing| typing.churn).map(|c| c.rate);
        let rates: f64 = (0..3).filter_map(rate).sum();
        assert!((rates - 50.0).abs() < 1e-9, "{rates}");
        assert_eq!(indivisible(&scenario), None);
        scenario.typing.as_mut().expect("typing").slice_updates = Some(1000);
        let refused = run(&scenario, 2, 1.0, &Watch::new(None), &mut Progress::silent());
        assert!(matches!(refused, Err(ProcessesError::Kind("typing.slice_updates"))));
        let day = Scenario::load(Path::new("day"), &Overrides::default()).expect("valid");
        let refused = run(&day, 2, 1.0, &Watch::new(None), &mut Progress::silent());
        assert!(matches!(refused, Err(ProcessesError::Kind("day"))));
    }

    #[test]
    fn a_document_is_never_divided() {
        let scenario = Scenario::load(Path::new("a-classroom"), &Overrides::default()).expect("valid");
        let refused = run(&scenario, 2, 1.0, &Watch::new(None), &mut Progress::silent());
        assert!(matches!(refused, Err(ProcessesError::TooFewDocuments { processes: 2, documents: 1 })));
    }
}
