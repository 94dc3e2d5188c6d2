//! Whole runs against a small Yjs server in this process, honest or lying: is everything measured, and
//! is what it does wrong found?

mod support;

use support::{Lie, YjsServer};
use wiresocket_loadtest::load::typing::TypingResult;
use wiresocket_loadtest::load::{LoadError, Session, day, typing};
use wiresocket_loadtest::progress::Progress;
use wiresocket_loadtest::scenario::{Overrides, Scenario};
use wiresocket_loadtest::target::Target;
use wiresocket_loadtest::verification::Findings;
use wiresocket_loadtest::wire::Protocol;

const TYPING: &str = r#"
name = "test"
description = "2 documents x 5 clients"
documents = 2
clients = 5
connect_at_once = 1
[typing]
writers = 2
rate = 50.0
warmup_s = 0.1
measure_s = 0.8
settle_s = SETTLE
"#;

const STORM: &str = "[typing.storm]\nat_s = 0.3\nshare = 0.7\nreset = true\n";
const CHURN: &str = "[typing.churn]\nrate = 20.0\naway_s = 0.1\n";
const CURSORS: &str = "[typing.cursors]\nrate = 10.0\nof = \"clients\"\n";

fn scenario(text: &str) -> Scenario {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    Scenario::load(file.path(), &Overrides::default()).expect("valid")
}

fn target(server: &YjsServer) -> Target {
    Target::new(&server.url(), Protocol::YWebsocket, None, None, None).expect("a target")
}

/// The basic scenario with more tables (or keys), against such a server.
fn type_with(more: &str, lie: Lie) -> TypingResult {
    type_at(50, more, lie)
}

/// The same at another rate.
fn type_at(rate: u32, more: &str, lie: Lie) -> TypingResult {
    let server = YjsServer::start(lie);
    // Waiting for what never comes is a waste.
    let settle_s = if lie == Lie::Honest || more.contains("slow_readers") { "20.0" } else { "0.5" };
    let scenario = scenario(&format!(
        "{}{more}",
        TYPING.replace("50.0", &format!("{rate}.0")).replace("SETTLE", settle_s)
    ));
    let target = target(&server);
    let session = Session::new(&scenario, &target, None).expect("a session");
    let typing = scenario.typing.as_ref().expect("a typing scenario");
    typing::run(&session, typing, &mut Progress::silent()).expect("a result")
}

fn assert_right(result: &TypingResult) {
    assert!(result.failures.is_empty(), "{:?}", result.failures);
    assert!(result.verification.is_right());
}

#[test]
fn everything_at_once_is_right_on_an_honest_server() {
    let mix = "[typing.mix]\ncharacters = 6\npastes = 1\npaste_length = 30\nformatting = 1\n";
    let slow = "[typing.slow_readers]\nper_document = 1\nat_s = 0.1\nfor_s = 0.4\nbytes_per_s = 100\n";
    let result = type_with(&format!("{mix}{slow}{STORM}{CHURN}{CURSORS}"), Lie::Honest);
    assert_right(&result);
    let storm = result.storm.expect("a storm");
    // 7 of 10, less the slow ones and those who are away already.
    assert!((2..=5).contains(&storm.returns) && storm.rejoin.is_some(), "{storm:?}");
    assert!(result.churn.expect("churn").returns >= 10);
    let cursors = result.cursors.expect("cursors");
    assert!(cursors.moves_sent > 50 && cursors.moves_seen > 100 && cursors.latency.is_some());
    // A paste is one update, though it is thirty items.
    assert_eq!(result.updates_sent, 2 * 2 * 45);
}

#[test]
fn what_happens_meanwhile_is_added_up_over_several_processes() {
    let server = YjsServer::start(Lie::Honest);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let run = |more: &str| {
        std::fs::write(file.path(), format!("{TYPING}{more}").replace("SETTLE", "5.0")).expect("written");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
            .args(["run", "--processes", "2", "--json", "--url", &server.url()])
            .arg(file.path())
            .output()
            .expect("the program runs");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), json, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, json, errors) = run(&format!("{STORM}{CHURN}{CURSORS}"));
    assert_eq!(code, Some(0), "{errors} {json}");
    let result = &json["result"]["typing"];
    let number = |pointer: &str| result.pointer(pointer).and_then(serde_json::Value::as_u64).expect(pointer);
    assert!((2..=7).contains(&number("/storm/returns")), "{result}");
    assert_eq!(number("/storm/returns"), number("/storm/rejoin/count"));
    assert!(number("/churn/returns") >= 10, "{result}");
    assert!(number("/cursors/moves_sent") > 50 && number("/cursors/latency/count") > 50, "{result}");

    let (code, json, errors) = run("slice_updates = 10\n");
    assert_eq!((code, json), (Some(2), serde_json::Value::Null));
    assert!(errors.contains("[typing.slice_updates]"), "{errors}");
}

#[test]
fn what_a_server_forgets_of_those_who_return_is_lost() {
    for disturbance in [STORM, CHURN] {
        // So fast that something is typed however short they are away.
        let result = type_at(1000, disturbance, Lie::ForgetsWhoReturns);
        assert!(result.verification.lost > 0, "{disturbance}: {:?}", result.verification);
        assert!(!result.failures.is_empty());
    }
}

#[test]
fn a_last_cursor_that_nobody_sees_is_found() {
    let honest = type_with(CURSORS, Lie::Honest);
    assert_right(&honest);
    let sent = honest.cursors.expect("cursors").moves_sent as u32 / 2;
    let result = type_with(CURSORS, Lie::StopsCursors { after: sent - 3 });
    assert_eq!(result.verification, Findings::default());
    assert!(result.cursors.expect("cursors").lost > 0 && !result.failures.is_empty());
}

#[test]
fn a_cursor_that_nobody_has_is_found() {
    let result = type_with(CURSORS, Lie::InventsCursors);
    assert!(result.cursors.expect("cursors").foreign > 0 && !result.failures.is_empty());
}

#[test]
fn newcomers_and_readers_find_what_was_written() {
    let convergence = type_with("", Lie::Honest).convergence.expect("read back");
    // 2 writers in each of 2 documents, 45 characters each.
    assert_eq!((convergence.documents, convergence.readers, convergence.characters), (2, 2, 180));
    assert_eq!((convergence.unequal, convergence.not_checked), (0, None));
}

#[test]
fn other_letters_under_the_right_clocks_are_found() {
    for (lie, whose) in
        [(Lie::GarblesTheState, "the text of a newcomer"), (Lie::GarblesUpdates, "the reader on connection")]
    {
        let result = type_with("", lie);
        assert_eq!(result.verification, Findings::default(), "{lie:?}"); // clocks don't tell
        assert_eq!(result.convergence.expect("read back").unequal, 2, "{lie:?}");
        let sentences = result.failures.into_sentences();
        let named = |sentence: &String| {
            sentence.contains(whose) && sentence.contains("document 1 (lt-") && sentence.contains('#')
        };
        assert!(sentences.iter().any(named), "{lie:?}: {sentences:?}");
    }
}

#[test]
fn a_state_that_newcomers_do_not_get_is_found() {
    let result = type_with("", Lie::HidesTheState);
    assert_eq!(result.verification, Findings::default());
    let sentences = result.failures.into_sentences();
    assert!(sentences.iter().any(|sentence| sentence.contains("a newcomer has 0 items")), "{sentences:?}");
}

#[test]
fn a_slow_reader_that_was_closed_comes_back_and_is_whole() {
    let slow = "[typing.slow_readers]\nper_document = 1\nat_s = 0.1\nfor_s = 0.6\n";
    // 100 updates a second and document: the last client is closed in the middle of the stall.
    let result = type_with(slow, Lie::ClosesTheLast { after: 50 });
    assert_right(&result);
    let slow = result.slow_readers.expect("slow readers");
    assert_eq!((slow.slow_readers, slow.closed_1013, slow.closed_otherwise, slow.cut), (2, 2, 0, 0));
    assert_eq!(slow.rejoin.expect("measured").count, 2);
}

#[test]
fn a_closed_reader_that_is_not_slow_is_a_failure() {
    let result = type_with("", Lie::ClosesTheLast { after: 50 });
    assert!(!result.failures.is_empty());
}

fn trace(lie: Lie) -> TypingResult {
    let server = YjsServer::start(lie);
    let text = TYPING
        .replace("writers = 2", "writers = 1\nslice_updates = 150\ntrace = \"made-up\"")
        .replace("rate = 50.0", "rate = 500.0")
        .replace("SETTLE", if lie == Lie::Honest { "20.0" } else { "0.5" });
    let scenario = scenario(&text);
    let target = target(&server);
    let session = Session::new(&scenario, &target, None).expect("a session");
    let typing = scenario.typing.as_ref().expect("a typing scenario");
    typing::run(&session, typing, &mut Progress::silent()).expect("a result")
}

#[test]
fn a_newcomer_finds_the_text_of_a_trace_unless_deletions_got_lost() {
    let result = trace(Lie::Honest);
    assert_right(&result);
    let text = result.trace.as_ref().expect("a trace");
    assert!(text.text_is_right && text.edits == 450 && text.characters > 0, "{text:?}");
    let sliced: Vec<u64> = result.slices.iter().map(|slice| slice.updates).collect();
    assert!(sliced.is_sorted() && sliced.len() == 3 && sliced[2] == 450, "{sliced:?}");

    let result = trace(Lie::IgnoresDeletions);
    assert!(!result.trace.as_ref().expect("a trace").text_is_right && !result.failures.is_empty());
}

fn live_a_day(lie: Lie) -> day::DayResult {
    let server = YjsServer::start(lie);
    let mut scenario = Scenario::load(std::path::Path::new("day"), &Overrides::default()).expect("valid");
    (scenario.documents, scenario.clients) = (3, 40);
    let day = scenario.day.as_mut().expect("a day");
    (day.seed, day.day_s, day.session_mean_s) = (11, 1.8, 1.5);
    (day.people_at_noon, day.typing_rate, day.think_mean_s) = (40, 30.0, 0.1);
    (day.initial_characters_max, day.offline_share, day.offline_mean_s) = (2_000, 0.9, 0.2);
    (day.cursor_rate, day.settle_s) = (10.0, if lie == Lie::Honest { 10.0 } else { 0.5 });
    let target = target(&server);
    let session = Session::new(&scenario, &target, None).expect("a session");
    let day = scenario.day.as_ref().expect("a day");
    day::run(&session, day, &mut Progress::silent()).expect("a result")
}

#[test]
fn a_day_on_an_honest_server_is_right() {
    let result = live_a_day(Lie::Honest);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
    assert_eq!(result.seed, 11);
    let day = result.days[0];
    assert!(day.people > 10 && day.updates > 100 && day.deliveries > 500, "{day:?}");
    // What is divided by is what was measured, not the history that newcomers are greeted with.
    assert_eq!(day.deliveries, result.histogram.count());
    assert!(result.returned.is_some() && result.cursor_latency.is_some());
}

#[test]
fn a_day_finds_what_newcomers_and_those_who_return_do_not_get() {
    for lie in [Lie::HidesTheState, Lie::ForgetsWhoReturns, Lie::IgnoresHandOver] {
        let result = live_a_day(lie);
        assert!(result.verification.lost > 0 && !result.failures.is_empty(), "{lie:?}");
    }
    let result = live_a_day(Lie::StopsCursors { after: 20 });
    assert!(result.cursors.lost > 0 && !result.failures.is_empty());
}

#[test]
fn a_soak_without_the_servers_process_has_no_result() {
    let server = YjsServer::start(Lie::Honest);
    let scenario = Scenario::load(std::path::Path::new("soak"), &Overrides::default()).expect("valid");
    let target = target(&server);
    let session = Session::new(&scenario, &target, None).expect("a session");
    let day = scenario.day.as_ref().expect("a day");
    assert!(day.days() > 30);
    let error = day::run(&session, day, &mut Progress::silent()).expect_err("nothing to judge by");
    assert!(matches!(error, LoadError::NeedsServer("day.soak")), "{error}");
}
