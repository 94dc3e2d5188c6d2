//! What docs/upstream.md reports is so, with the versions that we use. A test that fails here says that a dependency got
//! better: then its report, and the rule of `engine::prescan` that stands against it, may go.
//!
//! Each finding runs in a process of its own, since some end it. To see one:
//! `WIRESOCKET_FINDING=divide cargo test --test upstream finding -- --exact --ignored --nocapture`
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

#[allow(dead_code)] // it is a program too
#[path = "fuzz/upstream.rs"]
mod findings;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use glommio::LocalExecutorBuilder;

const NAME: &str = "WIRESOCKET_FINDING";

#[test]
#[ignore = "ends the process that it runs in; the other tests run it"]
fn finding() {
    if let Ok(name) = std::env::var(NAME) {
        findings::run(&name);
    }
}

fn run(finding: &str) -> Output {
    let itself = std::env::current_exe().expect("this test");
    let mut command = Command::new(itself);
    command
        .args(["finding", "--exact", "--ignored", "--nocapture"])
        .env(NAME, finding)
        .env("RUST_BACKTRACE", "0");
    command.output().expect("this test runs again")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_panics(finding: &str, place: &str, message: &str) {
    let output = run(finding);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{told}{}", text(&output.stdout));
    assert!(told.contains(place) && told.contains(message), "{told}");
}

#[test]
fn nested_values_end_the_process() {
    let output = run("any-depth");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(text(&output.stderr).contains("overflowed its stack"), "{}", text(&output.stderr));
}

#[test]
fn small_input_takes_much_memory() {
    for finding in ["state-vector-count", "update-count", "array-length", "squash", "sub-document"] {
        let told = text(&run(finding).stdout);
        let held = told.split_once("bytes: ").and_then(|(_, rest)| rest.split_once(" MiB held"));
        let mib: u64 =
            held.and_then(|(mib, _)| mib.parse().ok()).unwrap_or_else(|| panic!("{finding}: {told}"));
        println!("{finding}: {mib} MiB");
        assert!(mib > 64, "{finding}: {told}");
    }
}

#[test]
fn updates_panic_while_they_are_applied() {
    assert_panics("listed-twice", "block_store.rs:317:70", "called `Option::unwrap()` on a `None` value");
    assert_panics("unreachable", "update.rs:155:13", "entered unreachable code");
}

/// The transaction commits when it is dropped, also by the panic, and panics again.
#[test]
fn a_panic_may_end_the_process() {
    let output = run("divide");
    let told = text(&output.stderr);
    assert!(told.contains("block_store.rs:60:28") && told.contains("attempt to divide by zero"), "{told}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{told}");
}

#[test]
fn an_accepted_update_makes_every_encoding_panic() {
    assert!(text(&run("poison").stdout).contains("applied: Ok(())"));
    assert_panics("poison", "transaction.rs:390:33", "Malformed(EmptyBlock)");
}

const YIELDS: u32 = 1000;
static YIELDED: AtomicU32 = AtomicU32::new(0);

/// An executor whose preemption timer has fired before it came to run its tasks runs none of them and parks, with a task
/// that is ready. A thread that loses its CPU for as long as the timer runs gets there by chance (100 ms by default); a
/// timer of a nanosecond gets there every time.
#[test]
#[ignore = "shows a thread that never comes back, for ten seconds"]
fn glommio_parks_with_a_task_that_is_ready() {
    assert_eq!(yields_within(Duration::from_secs(3600)), YIELDS);
    let yielded = yields_within(Duration::from_nanos(1));
    println!("{yielded} of {YIELDS} yields, then the executor parked although its task was ready");
    assert!(yielded < YIELDS);
}

/// How often a task that only yields gets to it, in ten seconds. The thread is left behind.
fn yields_within(preempt_timer: Duration) -> u32 {
    YIELDED.store(0, Ordering::SeqCst);
    let (done, heard) = channel();
    let builder = LocalExecutorBuilder::default().io_memory(64 << 10).preempt_timer(preempt_timer);
    let executor = builder.spawn(move || async move {
        for _ in 0..YIELDS {
            YIELDED.fetch_add(1, Ordering::SeqCst);
            glommio::executor().yield_now().await;
        }
        let _ = done.send(());
    });
    std::mem::forget(executor.expect("an executor"));
    let _ = heard.recv_timeout(Duration::from_secs(10));
    YIELDED.load(Ordering::SeqCst)
}
