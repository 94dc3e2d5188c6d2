//! The program: exit code 0 if everything is as it has to be, 1 if the server's result is wrong (or its process
//! ended), 2 if there is no result (bad arguments, no server, a run that couldn't be carried out), 130 if somebody
//! interrupted the run: the report tells of what there was until then.

mod cli;

use clap::Parser;
use cli::{Cli, Command, Compare, GrantKind, MeasureArgs, OutputArgs, Run, TokenArgs, TokenRate};
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use wiresocket_loadtest::event_loop::poller::raise_descriptor_limit;
use wiresocket_loadtest::load::{LoadError, Session, day, idle, join, storm, typing};
use wiresocket_loadtest::measure::cgroup::Cgroup;
use wiresocket_loadtest::measure::process::{Process, ProcessError};
use wiresocket_loadtest::measure::series::Sampler;
use wiresocket_loadtest::measure::server::Server;
use wiresocket_loadtest::processes::part::{Orders, PartScenario, Word, say};
use wiresocket_loadtest::processes::{self, Tally};
use wiresocket_loadtest::progress::Progress;
use wiresocket_loadtest::ramp::{Bounds, ramp};
use wiresocket_loadtest::redaction::redacted;
use wiresocket_loadtest::relay::Relay;
use wiresocket_loadtest::report::run_file::RunFile;
use wiresocket_loadtest::report::{Outcome, Report, comparison, html};
use wiresocket_loadtest::scenario::{Overrides, Scenario};
use wiresocket_loadtest::target::{DevServer, Target};
use wiresocket_loadtest::tokens::endpoint::Endpoint;
use wiresocket_loadtest::tokens::mint::Mint;
use wiresocket_loadtest::tokens::rate::{self, Grant};
use wiresocket_loadtest::tokens::{Source, TokenCounts, Tokens};
use wiresocket_loadtest::trace::{Found, TraceError};
use wiresocket_loadtest::watch::{INTERRUPTED_EXIT_CODE, Watch, catch_interruptions, end_with_parent};
use wiresocket_loadtest::wire::Protocol;

fn main() -> ExitCode {
    // Failing here is no reason to stop: running out of descriptors later has an error of its own.
    let _ = raise_descriptor_limit();
    let result = match Cli::parse().command {
        Command::Run(run) => self::run(&run),
        Command::Compare(arguments) => compare(&arguments),
        Command::Tokens(arguments) => token_rate(&arguments),
        Command::Relay { listen } => relay(listen),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wiresocket-loadtest: {}", redacted(&sentence(error.as_ref())));
        ExitCode::from(2)
    })
}

/// An error and its causes, each said once: most errors name their cause themselves.
fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str("\n  because: ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn run(run: &Run) -> Result<ExitCode, Box<dyn Error>> {
    if run.part {
        return Ok(part(run));
    }
    let mut scenario = Scenario::load(&run.scenario, &Overrides::from(&run.changes))?;
    if run.measuring.ramp {
        scenario.description.push_str("; --ramp raises the rate");
    }
    let output = &run.output;
    check_writable([&output.html, &output.hgrm].into_iter().flatten().chain(output.json_file()))?;
    find_trace(&scenario, traces(run).as_deref())?;
    let target = target(run)?;
    let server = server(&run.measuring)?;
    let own = Process::own()?;
    let own = (run.processes == 1).then_some(own); // the parent of several drives nothing
    let mut progress = Progress::new(Sampler::new(run.measuring.sample_s, server.clone(), own));
    let watch = Watch::new(server);
    catch_interruptions();
    let outcome = if run.processes > 1 {
        drive_processes(run, &scenario, &watch, &mut progress)
    } else {
        drive(run, &scenario, &target, &watch, &mut progress).map(|outcome| (outcome, None))
    };
    let series = progress.finish();
    let outcome = match outcome {
        // Connections end before the server's process does.
        Err(error) if watch.look().is_some() => (Outcome::nothing(sentence(error.as_ref())), None),
        outcome => outcome?,
    };
    let (outcome, tokens_of_parts) = outcome;
    let mut report =
        Report::new(run.output.label.as_deref(), &scenario, &target, outcome, watch.halted(), series);
    if let (Some(own), Some(others)) = (&mut report.tokens, tokens_of_parts) {
        *own += others;
    }
    hand_over(&run.output, &report)?;
    Ok(match (report.interrupted, report.ok) {
        (true, _) => ExitCode::from(INTERRUPTED_EXIT_CODE),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
    })
}

/// The folder of traces; an empty variable is as good as none.
fn traces(run: &Run) -> Option<PathBuf> {
    let variable = || std::env::var_os("WIRESOCKET_TRACES").filter(|folder| !folder.is_empty());
    run.traces.clone().or_else(|| variable().map(PathBuf::from))
}

/// Finds the scenario's trace before anything is done, and says so if it is none that people wrote.
fn find_trace(scenario: &Scenario, folder: Option<&Path>) -> Result<(), TraceError> {
    let Some(name) = scenario.trace() else { return Ok(()) };
    if Found::find(name, folder)? == Found::MadeUp {
        eprintln!(
            "wiresocket-loadtest: the trace {name} is made up, with the statistics of automerge-paper; \
             --traces or WIRESOCKET_TRACES names a folder with real ones"
        );
    }
    Ok(())
}

fn server(args: &MeasureArgs) -> Result<Option<Server>, ProcessError> {
    Ok(match (args.pid, &args.cgroup) {
        (Some(pid), _) => Some(Server::Process(Process::open(pid)?)),
        (None, Some(folder)) => Some(Server::Cgroup(Cgroup::open(folder)?)),
        (None, None) => None,
    })
}

fn target(run: &Run) -> Result<Target, Box<dyn Error>> {
    let server = &run.server;
    let dev = server.dev_json.as_deref().map(DevServer::read).transpose()?;
    if let (Some(dev), Some(url)) = (&dev, &server.url) {
        dev.check_is_at(url)?;
    }
    let tokens = tokens(&run.tokens, dev.as_ref())?;
    let url = server.url.as_deref().or(dev.as_ref().map(|dev| dev.ws.as_str())).unwrap_or_default();
    let path = server.path.as_deref();
    let mut target = Target::with_tokens(url, server.wire, path, tokens, run.tokens.token_form)?;
    target.renews_in_band |= run.tokens.renew_in_band || dev.is_some();
    Ok(target)
}

/// What a development server's token endpoint must be asked for.
const DEV_SCOPE: &str = "WireSocket.API";

fn tokens(args: &TokenArgs, dev: Option<&DevServer>) -> Result<Tokens, Box<dyn Error>> {
    let count = args.tokens as usize;
    if let (Some(key_file), Some(claims)) = (&args.key_file, &args.claims) {
        let life = Duration::from_secs(args.token_life_s);
        let mint = Mint::open(key_file, args.key_id.as_deref(), claims, life)?;
        return Ok(Tokens::renewed(Source::Mint(mint), count)?);
    }
    if let (Some(url), Some(id), Some(secret_file)) =
        (&args.token_endpoint, &args.client_id, &args.client_secret_file)
    {
        let secret = read_secret("the client's secret", secret_file)?;
        let endpoint = Endpoint::new(url.clone(), id.clone(), secret, args.scope.clone());
        return Ok(Tokens::renewed(Source::Endpoint(endpoint), count)?);
    }
    let is_given = args.token.is_some() || args.token_file.is_some();
    if let Some(client) = dev.and_then(|dev| dev.client.as_ref()).filter(|_| !is_given) {
        let (id, secret) = (client.client_id.clone(), client.client_secret.clone());
        let url = format!("{}/connect/token", client.issuer);
        let endpoint = Endpoint::new(url, id, secret, Some(DEV_SCOPE.to_owned()));
        return Ok(Tokens::renewed(Source::Endpoint(endpoint), count)?);
    }
    if count > 1 {
        return Err("--tokens needs --key-file or --token-endpoint: there is only one token otherwise".into());
    }
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(read_secret("the token", path)?),
        (None, None) => dev.map(|dev| dev.token.clone()),
    };
    Ok(Tokens::fixed(token.as_deref()))
}

fn read_secret(what: &str, path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {what} from {}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn drive(
    run: &Run,
    scenario: &Scenario,
    target: &Target,
    watch: &Watch,
    progress: &mut Progress,
) -> Result<Outcome, Box<dyn Error>> {
    if target.protocol == Protocol::Relay && scenario.join.is_some() {
        return Err(LoadError::NeedsDocuments("join").into());
    }
    let args = &run.measuring;
    if args.ramp {
        let Some(typing) = &scenario.typing else {
            return Err("--ramp raises the rate of a [typing] scenario; this one has none".into());
        };
        let happens_once = [
            (typing.storm.is_some(), "storm"),
            (typing.slow_readers.is_some(), "slow_readers"),
            (typing.trace.is_some(), "trace"),
        ];
        if let Some((_, what)) = happens_once.iter().find(|(there, _)| *there) {
            return Err(format!("--ramp takes short steps: a scenario with typing.{what} has none").into());
        }
        let bounds = Bounds { p99_ms: args.bound_ms, seconds: args.ramp_seconds };
        return Ok(Outcome::Ramp(ramp(scenario, typing, target, watch, bounds, progress)?));
    }
    let mut session = Session::new(scenario, target, None)?;
    session.watch = watch.clone();
    session.traces = traces(run);
    drive_session(&session, progress)
}

fn drive_session(session: &Session<'_>, progress: &mut Progress) -> Result<Outcome, Box<dyn Error>> {
    Ok(match session.scenario {
        Scenario { typing: Some(typing), .. } => Outcome::Typing(typing::run(session, typing, progress)?),
        Scenario { idle: Some(idle), .. } => Outcome::Idle(idle::run(session, idle, progress)?),
        Scenario { storm: Some(storm), .. } => Outcome::Storm(storm::run(session, storm, progress)?),
        Scenario { join: Some(join), .. } => Outcome::Join(join::run(session, join, progress)?),
        Scenario { day: Some(day), .. } => Outcome::Day(day::run(session, day, progress)?),
        _ => return Err("the scenario does nothing".into()),
    })
}

/// Prints the report, and writes the files asked for.
fn hand_over(output: &OutputArgs, report: &Report) -> Result<(), Box<dyn Error>> {
    let json = || serde_json::to_string(report).map(|json| format!("{json}\n"));
    match output.json_file() {
        None if output.json.is_some() => print(&json()?)?,
        None => print(&format!("{report}\n"))?,
        Some(path) => {
            print(&format!("{report}\n"))?;
            write(path, &json()?)?;
        }
    }
    if let Some(path) = &output.hgrm {
        match report.result.latency() {
            Some(latency) => write(path, &latency.hgrm())?,
            None => {
                eprintln!("wiresocket-loadtest: {} is not written: the run has no latencies", path.display())
            }
        }
    }
    if let Some(path) = &output.html {
        write(path, &html::page(&[RunFile::try_from(report)?]))?;
    }
    Ok(())
}

fn compare(arguments: &Compare) -> Result<ExitCode, Box<dyn Error>> {
    let Compare { runs: files, labels, html, markdown } = arguments;
    if labels.len() > files.len() {
        return Err(format!("{} times --label for {} runs: leave some out", labels.len(), files.len()).into());
    }
    refuse_overwriting(files, html.as_deref(), markdown.as_deref())?;
    check_writable([html, markdown].into_iter().flatten())?;
    let mut runs = files.iter().map(|path| RunFile::read(path)).collect::<Result<Vec<_>, _>>()?;
    for (run, label) in runs.iter_mut().zip(labels) {
        run.label.clone_from(label);
    }
    let table = comparison::markdown(&runs);
    match markdown {
        Some(path) => {
            write(path, &table)?;
            if let Some(warning) = comparison::warning(&runs) {
                eprintln!("wiresocket-loadtest: {warning}");
            }
        }
        None => print(&table)?,
    }
    if let Some(path) = html {
        write(path, &html::page(&runs))?;
    }
    Ok(if runs.iter().all(|run| run.ok) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The page and the table take no run's place, nor each other's.
fn refuse_overwriting(runs: &[PathBuf], html: Option<&Path>, markdown: Option<&Path>) -> Result<(), String> {
    // A file that isn't there yet is none of the others, unless it is called the same.
    let is_same = |one: &Path, other: &Path| {
        one == other
            || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
    };
    for (option, path) in [("--html", html), ("--markdown", markdown)] {
        let Some(path) = path else { continue };
        if runs.iter().any(|run| is_same(run, path)) {
            return Err(format!(
                "{option} {} is one of the runs, which it would overwrite: name another file",
                path.display()
            ));
        }
    }
    match html.zip(markdown) {
        Some((html, markdown)) if is_same(html, markdown) => {
            Err(format!("--html and --markdown are both {}: name another file", html.display()))
        }
        _ => Ok(()),
    }
}

fn drive_processes(
    run: &Run,
    scenario: &Scenario,
    watch: &Watch,
    progress: &mut Progress,
) -> Result<(Outcome, Option<TokenCounts>), Box<dyn Error>> {
    if run.measuring.ramp || run.server.dev_json.as_deref() == Some(Path::new("-")) {
        return Err("--processes goes neither with --ramp nor with --dev-json from standard input".into());
    }
    progress.sample_when_told();
    Ok(processes::run(scenario, run.processes, run.measuring.sample_s, watch, progress)?)
}

/// One of several processes: the result, or why there is none, goes to the parent.
fn part(run: &Run) -> ExitCode {
    let word = match try_part(run) {
        Ok(tally) => Word::Tally(Box::new(tally)),
        Err(error) => Word::Failed { reason: sentence(error.as_ref()) },
    };
    if say(&word).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn try_part(run: &Run) -> Result<Tally, Box<dyn Error>> {
    end_with_parent();
    catch_interruptions();
    let orders = Orders::listen();
    let PartScenario { scenario, place, sample_s } = orders.prepare()?;
    let mut target = target(run)?;
    if target.address.ip().is_loopback() {
        target.first_source = place * scenario.source_addresses;
    }
    let mut session = Session::new(&scenario, &target, None)?;
    session.orders = Some(orders);
    session.traces = traces(run);
    let outcome = drive_session(&session, &mut Progress::of_part(sample_s))?;
    let tally = Tally::of(outcome).ok_or("this kind of scenario is not made for several processes")?;
    Ok(Tally { tokens: target.tokens.counts(), ..tally })
}

fn token_rate(arguments: &TokenRate) -> Result<ExitCode, Box<dyn Error>> {
    let secret = read_secret("the client's secret", &arguments.client_secret_file)?;
    let endpoint = |_| {
        let TokenRate { token_endpoint, client_id, scope, .. } = arguments;
        Endpoint::new(token_endpoint.clone(), client_id.clone(), secret.clone(), Some(scope.clone()))
    };
    let grant = match arguments.grant {
        GrantKind::ClientCredentials => Grant::ClientCredentials,
        GrantKind::RefreshToken => Grant::RefreshToken,
    };
    let server = arguments.pid.map(Process::open).transpose()?;
    let seconds = Duration::from_secs(arguments.seconds);
    let rate = rate::measure((0..arguments.clients).map(endpoint).collect(), grant, seconds, server)?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string(&rate)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{:.0} tokens/s to {} clients", rate.tokens_per_s, rate.clients);
    if let Some(latency) = rate.latency {
        text.push_str(&format!("; p50 {:.1} ms, p99 {:.1} ms", latency.p50_ms, latency.p99_ms));
    }
    if let Some(cpu_us) = rate.cpu_per_token_us {
        text.push_str(&format!("; server CPU {:.2} ms per token", cpu_us / 1000.0));
    }
    print(&format!("{text}; load tester {:.2} cores\n", rate.own_cores))?;
    Ok(ExitCode::SUCCESS)
}

fn relay(listen: SocketAddr) -> Result<ExitCode, Box<dyn Error>> {
    let mut relay = Relay::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    print(&format!("ws://{}\n", relay.address()?))?;
    relay.serve(|| true)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a result. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write the result to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Finds out before a run whether its report can be written after it. Files that were not there still aren't.
fn check_writable<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), String> {
    for path in paths {
        let is_there = path.exists();
        if is_there && !path.is_file() && !path.is_dir() {
            continue; // opening a pipe would wait for its reader
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        if !is_there {
            // Should that fail, an empty file stays until the report takes its place.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
