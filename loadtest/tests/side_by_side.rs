//! The program as its users call it: several processes, plots, and runs side by side.

mod relay_server;

use relay_server::RelayServer;
use std::path::Path;
use std::process::{Command, Output};
use wiresocket_loadtest::relay::Fault;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wiresocket-loadtest"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// 5 documents x 4 clients, all of them typing 20 updates/s, for half a second.
fn run(url: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let fixed = ["run", "b-many-rooms", "--wire", "relay", "--url", url, "--json"];
    let small = ["--documents", "5", "--clients", "4", "--seconds", "0.5", "--sample-s", "0.1"];
    let rate: &[&str] = if arguments.contains(&"--rate") { &[] } else { &["--rate", "20"] };
    let output = program(&[&fixed[..], &small, rate, arguments].concat());
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), json, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn several_processes_find_together_what_one_finds() {
    let server = RelayServer::start(None);
    let own_pid = std::process::id().to_string();
    let (code, json, errors) = run(&server.url(), &["--processes", "3", "--pid", &own_pid]);
    assert_eq!((code, &json["ok"]), (Some(0), &true.into()), "{errors}");
    let result = &json["result"]["typing"];
    // 5 x 4 writers, 20/s, to 3 readers each, for half a second.
    assert_eq!(result["latency"]["count"], 5 * 4 * 10 * 3);
    assert_eq!(result["offered_deliveries_per_s"], 1200.0);
    assert_eq!(result["connect"]["count"], 20);
    assert!(result["cpu_per_delivery_us"].as_f64() > Some(0.0));
    let series = json["series"].as_array().expect("samples");
    assert!(series.iter().any(|sample| sample["deliveries_per_s"].as_f64() > Some(0.0)), "{series:?}");
}

#[test]
fn what_goes_wrong_in_one_process_fails_the_run() {
    let server = RelayServer::start(Some(Fault::Duplicate { nth: 10 }));
    let (code, json, _) = run(&server.url(), &["--processes", "2"]);
    assert_eq!((code, &json["result"]["typing"]["verification"]["duplicated"]), (Some(1), &3.into()));
    assert_eq!(json["failures"].as_array().map(Vec::len), Some(1));

    let nobody = server.url();
    drop(server);
    let (code, _, errors) = run(&nobody, &["--processes", "2"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("process ") && errors.contains("failed"), "{errors}");
}

#[test]
fn runs_are_put_side_by_side() {
    let server = RelayServer::start(None);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for name in ["one", "two"] {
        let (code, json, errors) = run(&server.url(), &["--label", name, "--html", &path("run.html")]);
        assert_eq!(code, Some(0), "{errors}");
        std::fs::write(path(name), json.to_string()).expect("written");
    }
    let (html, markdown) = (path("both.html"), path("both.md"));
    let files = [path("one"), path("two")];
    let output = program(&[
        "compare",
        &files[0],
        &files[1],
        "--label",
        "A|B",
        "--html",
        &html,
        "--markdown",
        &markdown,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).expect("written");
    assert!(read(&markdown).starts_with("| | A\\|B | two |\n"));
    assert!(read(&markdown).contains("| verified | right | right |"));
    for page in [read(&html), read(&path("run.html"))] {
        assert!(page.contains("Latency by percentile") && page.contains("Deliveries over time"));
    }
    assert_eq!(program(&["compare", &path("nothing")]).status.code(), Some(2));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let json = |result: &str| {
        format!(
            r#"{{"url":"ws://x","wire":"relay","connections":5,"ok":true,"result":{result},
                "scenario":{{"name":"a","description":"d"}}}}"#
        )
    };
    let (good, empty) = (path("good"), path("empty"));
    std::fs::write(&good, json(r#"{"typing":{"deliveries_per_s":5.0}}"#)).expect("written");
    std::fs::write(&empty, json("null")).expect("written");
    let refused = |arguments: &[&str]| {
        let output = program(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, errors) = refused(&["compare", &good, "--label", "one", "--label", "two"]);
    assert!(code == Some(2) && errors.contains("2 times --label for 1 runs"), "{errors}");
    let detour = path("./good");
    for option in ["--html", "--markdown"] {
        let (code, errors) = refused(&["compare", &good, option, &detour]);
        assert!(code == Some(2) && errors.contains("one of the runs"), "{errors}");
    }
    assert_eq!(refused(&["compare", &good, "--html", &path("x"), "--markdown", &path("x")]).0, Some(2));
    assert!(std::fs::read_to_string(&good).expect("still there").contains("typing"));
    let output = program(&["compare", &good, &empty]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("| verified | right | **WRONG** |"));
}

#[test]
fn a_run_that_measured_nothing_is_not_right() {
    let server = RelayServer::start(None);
    // The first update is due at once, and the window begins later.
    let (code, json, errors) = run(&server.url(), &["--rate", "0.001"]);
    assert_eq!((code, &json["ok"]), (Some(1), &false.into()), "{errors}");
    assert!(json["failures"].to_string().contains("nothing was measured"), "{json}");
}

#[test]
fn a_development_servers_token_goes_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = folder.path().join("dev.json");
    std::fs::write(&dev, r#"{"ws":"ws://127.0.0.1:9","token":"SECRET"}"#).expect("written");
    let dev = dev.to_string_lossy();
    let output = program(&["run", "a-classroom", "--dev-json", &dev, "--url", "ws://127.0.0.1:10"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("127.0.0.1:9") && !errors.contains("SECRET"), "{errors}");
}
