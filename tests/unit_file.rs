//! The systemd unit: systemd takes it, it leaves little to an intruder, and the node calls nothing that it forbids.
//!
//! The unit itself is not started here. systemd-analyze judges it, and strace says what a node calls from its start to its
//! stop; where one of them is missing, the test says so.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use support::{NodeSetup, Replica, Tenant, eventually};

const UNIT: &str = include_str!("../tuning/wiresocket.service");

/// systemd's exposure level, which goes to 100.
const EXPOSURE_MAX: &str = "--threshold=15";

/// What it printed; `None` if there is no such program.
fn output(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok()
}

#[test]
fn systemd_takes_the_unit_and_finds_it_tight() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("wiresocket.service");
    // systemd looks whether the program is there.
    std::fs::write(&file, UNIT.replace("/usr/local/bin/wiresocket", support::server::BINARY))
        .expect("the unit");
    let file = file.to_str().expect("UTF-8");
    let Some(verified) = output("systemd-analyze", &["verify", file]) else {
        return eprintln!("SKIPPED: there is no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    let judged =
        output("systemd-analyze", &["security", "--offline=true", EXPOSURE_MAX, file]).expect("it is there");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

/// The groups of system calls, as systemd has them.
fn groups() -> Option<BTreeMap<String, Vec<String>>> {
    let listed = output("systemd-analyze", &["syscall-filter"])?;
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        match line.strip_prefix("    ").map(str::trim) {
            None => group = line.to_owned(),
            Some(call) if call.is_empty() || call.starts_with('#') => {}
            Some(call) => groups.entry(group.clone()).or_default().push(call.to_owned()),
        }
    }
    Some(groups)
}

fn calls_of(groups: &BTreeMap<String, Vec<String>>, name: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for call in groups.get(name).into_iter().flatten() {
        if call.starts_with('@') {
            calls.append(&mut calls_of(groups, call));
        } else {
            calls.insert(call.clone());
        }
    }
    calls
}

#[test]
fn a_node_calls_nothing_that_the_unit_forbids() {
    let Some(groups) = groups() else { return eprintln!("SKIPPED: there is no systemd-analyze") };
    if output("strace", &["-V"]).is_none() {
        return eprintln!("SKIPPED: there is no strace");
    }
    let mut allowed = BTreeSet::new();
    for filter in UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match filter.strip_prefix('~') {
            None => allowed.append(&mut calls_of(&groups, filter)),
            Some(forbidden) => allowed = &allowed - &calls_of(&groups, forbidden),
        }
    }
    assert!(allowed.contains("io_uring_enter") && allowed.contains("fdatasync"), "{allowed:?}");
    assert!(!allowed.contains("mount") && !allowed.contains("setuid"), "{allowed:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trace = dir.path().join("trace");
    // -D: the node stays our child, and strace is its grandchild.
    let strace = ["strace", "-D", "-f", "-qq", "-o", trace.to_str().expect("UTF-8")];
    let tenant = Tenant::new(1);
    let server =
        NodeSetup::new(&tenant).start_under(&strace, tempfile::tempdir().expect("a temporary directory"));
    let mut editor = Replica::join_hocuspocus(&server, "notes", &tenant.token().build());
    editor.append("written");
    editor.wait_for("the acknowledgements", |editor| editor.acknowledged == 2);
    assert_eq!(server.get("/health").status, 200);
    drop(editor);
    server.stop();
    let said = eventually("the trace is whole", || {
        std::fs::read_to_string(&trace).ok().filter(|said| said.contains("exit_group("))
    });
    // "1234 openat(AT_FDCWD, …": the pid, and what it calls.
    let called: BTreeSet<String> = said
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call.to_owned()))
        .filter(|call| call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(called.contains("io_uring_enter") && called.contains("fdatasync"), "{called:?}");
    let forbidden: Vec<_> = called.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "SystemCallFilter forbids {forbidden:?}");
}
