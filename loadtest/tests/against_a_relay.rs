//! Whole runs against a relay in this process, honest or hostile: is what it does found?

mod relay_server;

use relay_server::RelayServer;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use wiresocket_loadtest::load::typing::{TypingResult, run};
use wiresocket_loadtest::load::{LoadError, Session};
use wiresocket_loadtest::progress::Progress;
use wiresocket_loadtest::relay::Fault;
use wiresocket_loadtest::scenario::{Churn, Overrides, Scenario, SlowReaders, Typing};
use wiresocket_loadtest::target::Target;
use wiresocket_loadtest::update::pattern::Mix;
use wiresocket_loadtest::update::typist::Positions;
use wiresocket_loadtest::verification::Findings;
use wiresocket_loadtest::wire::Protocol;

/// 3 documents x 4 clients, 2 of them typing 50 updates/s each, for half a second.
fn small() -> Scenario {
    let overrides = Overrides {
        documents: Some(3),
        clients: Some(4),
        writers: Some(2),
        rate: Some(50.0),
        seconds: Some(0.4),
        positions: Some(Positions::Random),
        ..Overrides::default()
    };
    let mut scenario = Scenario::load(Path::new("b-many-rooms"), &overrides).expect("valid");
    let typing = scenario.typing.as_mut().expect("a typing scenario");
    (typing.warmup_s, typing.settle_s) = (0.1, 3.0);
    scenario
}

fn type_against(fault: Option<Fault>) -> TypingResult {
    let server = RelayServer::start(fault);
    let scenario = small();
    let target = Target::new(&server.url(), Protocol::Relay, None, None, None).expect("a target");
    let session = Session::new(&scenario, &target, None).expect("a session");
    let typing = scenario.typing.as_ref().expect("a typing scenario");
    run(&session, typing, &mut Progress::silent()).expect("a result")
}

#[test]
fn an_honest_relay_is_right_and_every_delivery_is_counted() {
    let result = type_against(None);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
    assert_eq!(result.verification, Findings::default());
    assert_eq!(result.updates_sent, 3 * 2 * 25); // half a second
    assert_eq!(result.convergence.expect("said").not_checked.as_deref(), Some("relay"));
    // Latencies are those of the window: 0.4 s of 6 writers at 50/s, to 3 readers each.
    assert_eq!(result.latency.expect("latencies").count, 3 * 2 * 20 * 3);
}

#[test]
fn a_lost_update_is_found() {
    let result = type_against(Some(Fault::Lose { nth: 10 }));
    assert_eq!(result.verification, Findings { lost: 3, ..Findings::default() });
    assert!(!result.failures.is_empty());
}

#[test]
fn a_duplicated_update_is_found() {
    let result = type_against(Some(Fault::Duplicate { nth: 10 }));
    assert_eq!(result.verification, Findings { duplicated: 3, ..Findings::default() });
    assert!(!result.failures.is_empty());
}

#[test]
fn a_reordered_update_is_found() {
    let result = type_against(Some(Fault::Delay { nth: 10 }));
    assert_eq!(result.verification, Findings { reordered: 3, ..Findings::default() });
    assert!(!result.failures.is_empty());
}

/// The small scenario with one more table.
fn type_more(fault: Option<Fault>, change: impl FnOnce(&mut Typing)) -> Result<TypingResult, LoadError> {
    let server = RelayServer::start(fault);
    let mut scenario = small();
    change(scenario.typing.as_mut().expect("a typing scenario"));
    let target = Target::new(&server.url(), Protocol::Relay, None, None, None).expect("a target");
    let session = Session::new(&scenario, &target, None).expect("a session");
    run(&session, scenario.typing.as_ref().expect("a typing scenario"), &mut Progress::silent())
}

#[test]
fn a_load_tester_that_cannot_keep_up_says_so_and_what_it_never_sent_is_not_lost() {
    let result = type_more(None, |typing| (typing.rate, typing.measure_s) = (1e7, 1.0)).expect("a result");
    let sentences = result.failures.clone().into_sentences();
    assert!(sentences.iter().any(|sentence| sentence.contains("couldn't keep up")), "{sentences:?}");
    assert!(result.verification.is_right(), "{:?}", result.verification);
    assert!(result.updates_sent < 6e7 as u64);
}

#[test]
fn a_paste_is_one_delivery_and_all_its_items_are_lost_with_it() {
    let pastes = |typing: &mut Typing| {
        typing.mix = Some(Mix { characters: 0, pastes: 1, paste_length: 7, formatting: 0 });
    };
    let result = type_more(None, pastes).expect("a result");
    assert!(result.failures.is_empty(), "{:?}", result.failures);
    assert_eq!(result.latency.expect("latencies").count, 3 * 2 * 20 * 3);
    let result = type_more(Some(Fault::Lose { nth: 10 }), pastes).expect("a result");
    assert_eq!(result.verification, Findings { lost: 7 * 3, ..Findings::default() });
}

#[test]
fn a_reader_that_stalls_gets_everything_and_is_not_measured() {
    let stall = |typing: &mut Typing| {
        typing.slow_readers = Some(SlowReaders {
            per_document: 1,
            at_s: 0.1,
            for_s: 0.2,
            bytes_per_s: 0,
            receive_buffer_bytes: 4096,
        });
    };
    let result = type_more(None, stall).expect("a result");
    assert!(result.failures.is_empty(), "{:?}", result.failures);
    assert_eq!(result.latency.expect("latencies").count, 3 * 2 * 20 * 2);
    let slow = result.slow_readers.expect("slow readers");
    assert_eq!((slow.slow_readers, slow.closed_1013, slow.closed_otherwise, slow.cut), (3, 0, 0, 0));
}

#[test]
fn whoever_returns_to_a_relay_would_get_nothing_so_that_is_refused() {
    let churn = |typing: &mut Typing| typing.churn = Some(Churn { rate: 1.0, away_s: 0.1 });
    let error = type_more(None, churn).expect_err("refused");
    assert!(matches!(error, LoadError::NeedsDocuments("typing.churn")), "{error}");
}

#[test]
fn no_server_is_an_error_and_no_result() {
    let scenario = small();
    let url = RelayServer::start(None).url(); // stopped at once: nobody listens there now
    let target = Target::new(&url, Protocol::Relay, None, None, None).expect("a target");
    let session = Session::new(&scenario, &target, None).expect("a session");
    let typing = scenario.typing.as_ref().expect("a typing scenario");
    let error = run(&session, typing, &mut Progress::silent()).expect_err("no server");
    assert!(matches!(error, LoadError::NotSynced { .. } | LoadError::Connect { .. }), "{error}");
}

/// The program itself: exit codes and JSON.
fn program(url: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
        .args(["run", "a-classroom", "--wire", "relay", "--url", url, "--json"])
        .args(["--clients", "5", "--writers", "2", "--seconds", "0.2"])
        .args(arguments)
        .output()
        .expect("the program runs");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), json)
}

#[test]
fn the_program_exits_with_0_when_right_1_when_wrong_and_2_without_a_result() {
    let honest = RelayServer::start(None);
    let folder = tempfile::tempdir().expect("a folder");
    let hgrm = folder.path().join("latency.hgrm");
    let own_pid = std::process::id().to_string();
    let (code, json) = program(&honest.url(), &["--hgrm", &hgrm.to_string_lossy(), "--pid", &own_pid]);
    assert_eq!((code, &json["ok"]), (Some(0), &true.into()));
    assert_eq!(json["result"]["typing"]["verification"]["lost"], 0);
    assert!(json["result"]["typing"]["cpu_per_delivery_us"].as_f64() > Some(0.0));
    let percentiles = std::fs::read_to_string(hgrm).expect("written");
    assert!(percentiles.contains("Percentile") && percentiles.contains("#[Max"));

    let hostile = RelayServer::start(Some(Fault::Duplicate { nth: 3 }));
    let (code, json) = program(&hostile.url(), &[]);
    assert_eq!((code, &json["ok"]), (Some(1), &false.into()));
    assert_eq!(json["result"]["typing"]["verification"]["duplicated"], 4);

    assert_eq!(program("http://127.0.0.1:1", &[]).0, Some(2));
    assert_eq!(program(&honest.url(), &["--joins", "3"]).0, Some(2));
}

#[test]
fn what_would_spoil_a_run_is_found_before_it() {
    let honest = RelayServer::start(None);
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere").join("file");
    let nowhere = nowhere.to_string_lossy();
    for arguments in [
        &["--html", &nowhere][..],
        &["--hgrm", &nowhere],
        &[&format!("--json={nowhere}")],
        &["--html", &folder.path().to_string_lossy()],
        &["--ramp", "--ramp-seconds", "0"],
        &["--ramp", "--bound-ms", "nan"],
        &["--ramp", "--ramp-seconds", "inf"],
        &["--pid", "0"],
        &["--seconds", "nan"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
            .args(["run", "a-classroom", "--wire", "relay", "--url", &honest.url()])
            .args(arguments)
            .output()
            .expect("the program runs");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn json_goes_to_a_file_beside_the_table_and_holds_no_token() {
    let honest = RelayServer::start(None);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
        .args(["run", "a-classroom", "--clients", "5", "--writers", "2", "--seconds", "0.2"])
        .args(["--wire", "relay", "--url", &format!("{}/?access_token=SECRET", honest.url())])
        .args([&format!("--json={}", file("run.json")), "--html", &file("run.html")])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("written");
    for text in [&table, &read("run.json"), &read("run.html")] {
        assert!(text.contains("access_token=REDACTED") && !text.contains("SECRET"), "{text}");
        assert!(text.contains("1 document x 5 clients, 2 typing"), "{text}");
    }
    assert!(table.contains("not checked (relay)"), "{table}");
}

/// 2 documents x 3 clients, 2 of them typing 50 updates/s each, for an hour.
const LONG: &str = "name = \"long\"\ndescription = \"an hour\"\ndocuments = 2\nclients = 3\n[typing]\nwriters = 2\n\
                    rate = 50.0\nwarmup_s = 0.1\nmeasure_s = 3600.0\nsettle_s = 10.0\n";

/// Begins that run, calls `end` when it is well under way, and waits for what it says.
fn cut_short(arguments: &[&str], end: impl FnOnce(&Child)) -> (Option<i32>, serde_json::Value) {
    let server = RelayServer::start(None);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), LONG).expect("written");
    let child = Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
        .args(["run", "--wire", "relay", "--json", "--url", &server.url()])
        .arg(file.path())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    while server.messages() < 150 {
        std::thread::yield_now(); // 20 of them are the warm-up's
    }
    end(&child);
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

#[test]
fn an_interrupted_run_reports_what_there_was_until_then() {
    for (signal, processes) in [("-INT", "1"), ("-TERM", "1"), ("-INT", "2")] {
        let (code, json) = cut_short(&["--processes", processes], |child| kill(signal, child.id()));
        assert_eq!(code, Some(130), "{signal} {processes}: {json}");
        assert_eq!((&json["interrupted"], &json["ok"]), (&true.into(), &false.into()));
        assert_eq!(json["failures"].as_array().map(Vec::len), Some(0), "{json}");
        let typing = &json["result"]["typing"];
        assert!(typing["latency"]["count"].as_u64() > Some(100), "{json}");
        assert!(typing["measure_s"].as_f64() < Some(600.0) && json["ended_early_s"].as_f64() > Some(0.1));
        assert!(typing["deliveries_per_s"].as_f64() > Some(100.0), "{json}");
    }
}

#[test]
fn a_server_whose_process_ends_fails_the_run_which_still_reports() {
    for processes in ["1", "2"] {
        // Any process will do to be watched.
        let mut watched = Command::new("sleep").arg("1000").spawn().expect("it starts");
        let pid = watched.id();
        let (code, json) =
            cut_short(&["--pid", &pid.to_string(), "--processes", processes], |_| kill("-KILL", pid));
        watched.wait().expect("it ended");
        assert_eq!((code, &json["interrupted"]), (Some(1), &false.into()), "{json}");
        let failure = json["failures"][0].as_str().unwrap_or_default();
        assert!(failure.starts_with("the server's process ended at "), "{json}");
        assert!(json["result"]["typing"]["latency"]["count"].as_u64() > Some(100), "{json}");
        assert!(json["result"]["typing"]["server"]["cpu"]["total_s"].as_f64().is_some(), "{json}");
    }
}
