//! What a run is doing while it goes on: sampled for the report, and shown where somebody watches.
//!
//! Loads call [`Progress::observe`] and one of the `show`s in every turn of their loop; both cost a
//! comparison unless something is due. The view appears only if standard error is a terminal.

use crate::measure::Latency;
use crate::measure::series::{Counted, Sample, Sampler};
use crate::processes::part::{self, Word};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

const REFRESH_NS: u64 = 200_000_000;

#[derive(Debug, Default)]
pub struct Progress {
    sampler: Option<Sampler>,
    view: Option<View>,
    next_ns: u64,
    part: Option<PartCounter>,
}

/// Tells the parent what this process has counted, at whole multiples of the interval on the host's clock.
#[derive(Debug)]
struct PartCounter {
    interval_ns: u64,
    tick: u64,
    latency: Latency,
}

impl Progress {
    /// Samples, and shows something if standard error is a terminal.
    pub fn new(sampler: Sampler) -> Self {
        let view = std::io::stderr().is_terminal().then(View::new);
        Self { sampler: Some(sampler), view, ..Self::default() }
    }

    /// Neither samples nor shows anything: for tests.
    pub fn silent() -> Self {
        Self::default()
    }

    /// For one process of several: tells the parent what it counts.
    pub fn of_part(interval_s: f64) -> Self {
        let interval_ns = (interval_s * 1e9) as u64;
        Self {
            part: Some(PartCounter { interval_ns, tick: 0, latency: Latency::default() }),
            ..Self::default()
        }
    }

    /// From now on samples are taken only by [`Self::sample_now`].
    pub fn sample_when_told(&mut self) {
        if let Some(sampler) = &mut self.sampler {
            sampler.wait_for_orders();
        }
    }

    pub fn sample_now(&mut self, now_ns: u64, counted: Counted<'_>) {
        self.sample(now_ns, Some(counted));
    }

    /// Notes what has been counted so far, if a sample is due.
    #[inline]
    pub fn observe(&mut self, now_ns: u64, counted: Counted<'_>) {
        if self.sampler.as_ref().is_some_and(|sampler| sampler.is_due(now_ns)) {
            self.sample(now_ns, Some(counted));
        } else if let Some(part) = &mut self.part {
            part.count(now_ns, counted);
        }
    }

    /// A new run begins, which counts from nothing.
    pub fn restart(&mut self) {
        if let Some(sampler) = &mut self.sampler {
            sampler.restart();
        }
    }

    #[cold]
    fn sample(&mut self, now_ns: u64, counted: Option<Counted<'_>>) {
        let Some(sampler) = &mut self.sampler else { return };
        if sampler.sample(now_ns, counted).is_err() {
            // The server's process is gone: the load finds out by itself, and says so.
            sampler.stop();
        }
        if let (Some(view), Some(sample)) = (&self.view, sampler.last()) {
            view.show_sample(sample, counted.map_or(0, |counted| counted.failures));
        }
    }

    /// Shows `line()` if the last one is old enough.
    pub fn show(&mut self, now_ns: u64, line: impl FnOnce() -> String) {
        self.show_part(now_ns, 0, 0, line);
    }

    /// The same with a bar: `done` of `all`.
    #[inline]
    pub fn show_part(&mut self, now_ns: u64, done: u64, all: u64, line: impl FnOnce() -> String) {
        if self.sampler.as_ref().is_some_and(|sampler| sampler.is_due(now_ns)) {
            self.sample(now_ns, None);
        }
        if let Some(view) = &self.view
            && now_ns >= self.next_ns
        {
            self.next_ns = now_ns + REFRESH_NS;
            view.show_phase(done, all, line());
        }
    }

    /// Says something that stays: above the view, or simply on standard error.
    pub fn say(&self, line: &str) {
        match &self.view {
            Some(view) => view.say(line),
            None if self.sampler.is_some() => eprintln!("{line}"),
            None => {}
        }
    }

    /// What was sampled; the view goes.
    pub fn finish(mut self) -> Vec<Sample> {
        if let Some(view) = &self.view {
            view.clear();
        }
        self.sampler.as_mut().map(Sampler::take).unwrap_or_default()
    }
}

impl PartCounter {
    fn count(&mut self, now_ns: u64, counted: Counted<'_>) {
        let tick = now_ns / self.interval_ns;
        if tick == self.tick {
            return;
        }
        self.tick = tick;
        let latency = counted.latency.since(&self.latency);
        self.latency.clone_from(counted.latency);
        let Counted { deliveries, failures, .. } = counted;
        // A parent that doesn't listen any more is noticed when the part waits for its next order.
        let _ = part::say(&Word::Counted { tick, deliveries, failures, latency });
    }
}

/// The lines on the terminal.
#[derive(Debug)]
struct View {
    lines: MultiProgress,
    phase: ProgressBar,
    traffic: ProgressBar,
    costs: ProgressBar,
}

impl View {
    fn new() -> Self {
        let lines = MultiProgress::new();
        let add = |template: &str| {
            let line = lines.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template(template);
            line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
            line
        };
        let phase = add("{elapsed_precise:.dim} {bar:24.cyan/dim} {wide_msg}");
        let traffic = add("  {wide_msg}");
        let costs = add("  {wide_msg}");
        Self { lines, phase, traffic, costs }
    }

    fn show_phase(&self, done: u64, all: u64, line: String) {
        self.phase.set_length(all.max(1));
        self.phase.set_position(done.min(all));
        self.phase.set_message(line);
        self.phase.tick();
    }

    fn show_sample(&self, sample: &Sample, failures: usize) {
        let ms = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.2} ms"));
        let percent =
            |percent: Option<f64>| percent.map_or("–".to_owned(), |percent| format!("{percent:.1} %"));
        let memory = sample
            .server_memory_bytes
            .map_or("–".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1_048_576.0));
        self.traffic.set_message(format!(
            "deliveries/s {:>12.0}   p50 {:>10}   p99 {:>10}   failures {failures}",
            sample.deliveries_per_s,
            ms(sample.p50_ms),
            ms(sample.p99_ms),
        ));
        self.costs.set_message(format!(
            "server CPU {:>14}   memory {memory:>10}   generator CPU {}",
            percent(sample.server_cpu_percent),
            percent(sample.generator_cpu_percent),
        ));
        self.traffic.tick();
        self.costs.tick();
    }

    fn say(&self, line: &str) {
        // A terminal that can't be written to has nobody to tell.
        let _ = self.lines.println(line);
    }

    fn clear(&self) {
        let _ = self.lines.clear();
    }
}

/// The loop never sleeps longer than this, so that the view keeps moving.
pub const TURN_MAX: Duration = Duration::from_millis(200);
