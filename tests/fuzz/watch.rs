//! Keeps the dearest inputs that the fuzzer comes across, which libFuzzer itself does not.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::cost::{Cost, measured};

static WORST: Mutex<Cost> = Mutex::new(Cost { time: std::time::Duration::from_micros(500), bytes: 64 << 10 });

/// Runs a target. An input that beats all before it in time or memory by a tenth is written to the folder that
/// `WIRESOCKET_FUZZ_WORST` names, and told on stderr.
pub fn run(target: &str, run: fn(&[u8]), data: &[u8]) {
    let cost = measured(|| run(data));
    let mut worst = WORST.lock().expect("one thread");
    if cost.time > worst.time * 11 / 10 {
        worst.time = cost.time;
        keep(target, "slowest", data);
        eprintln!("slowest {target}: {:.1} ms, {} bytes of input", cost.time.as_secs_f64() * 1e3, data.len());
    }
    if cost.bytes > worst.bytes + worst.bytes / 10 {
        worst.bytes = cost.bytes;
        keep(target, "largest", data);
        eprintln!("largest {target}: {} KiB, {} bytes of input", cost.bytes >> 10, data.len());
    }
}

fn keep(target: &str, which: &str, data: &[u8]) {
    let Some(folder) = std::env::var_os("WIRESOCKET_FUZZ_WORST") else { return };
    let path = PathBuf::from(folder).join(format!("{target}-{which}"));
    if let Err(error) = std::fs::write(&path, data) {
        eprintln!("cannot keep {}: {error}", path.display());
    }
}
