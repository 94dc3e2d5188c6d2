//! The program: exit code 0 if everything is as it has to be, 1 if the server's result is wrong, 2 if there
//! is no result (bad arguments, no server, a run that couldn't be carried out).

mod cli;

use clap::Parser;
use cli::{Cli, Command, Compare, MeasureArgs, Run, TokenArgs};
use std::error::Error;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
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
use wiresocket_loadtest::relay::Relay;
use wiresocket_loadtest::report::run_file::RunFile;
use wiresocket_loadtest::report::{Outcome, Report, comparison, html};
use wiresocket_loadtest::scenario::{Overrides, Scenario};
use wiresocket_loadtest::target::{DevServer, Target};
use wiresocket_loadtest::tokens::endpoint::Endpoint;
use wiresocket_loadtest::tokens::mint::Mint;
use wiresocket_loadtest::tokens::{Source, Tokens};
use wiresocket_loadtest::wire::Protocol;

fn main() -> ExitCode {
    // Failing here is no reason to stop: running out of descriptors later has an error of its own.
    let _ = raise_descriptor_limit();
    let result = match Cli::parse().command {
        Command::Run(run) => self::run(&run),
        Command::Compare(arguments) => compare(&arguments),
        Command::Relay { listen } => relay(listen),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wiresocket-loadtest: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            eprintln!("  because: {cause}");
            source = cause.source();
        }
        ExitCode::from(2)
    })
}

fn run(run: &Run) -> Result<ExitCode, Box<dyn Error>> {
    if run.part {
        return Ok(part(run));
    }
    let scenario = Scenario::load(&run.scenario, &Overrides::from(&run.changes))?;
    let target = target(run)?;
    let server = server(&run.measuring)?;
    let own = Process::own()?;
    let own = (run.processes == 1).then_some(own); // the parent of several drives nothing
    let mut progress = Progress::new(Sampler::new(run.measuring.sample_s, server.clone(), own));
    let outcome = if run.processes > 1 {
        drive_processes(run, &scenario, server.as_ref(), &mut progress)
    } else {
        drive(&run.measuring, &scenario, &target, server, &mut progress)
    };
    let series = progress.finish();
    let report = Report::new(run.output.label.as_deref(), &scenario, &target, outcome?, series);
    let text = if run.output.json { serde_json::to_string(&report)? } else { report.to_string() };
    print(&format!("{text}\n"))?;
    if let (Some(path), Some(latency)) = (&run.output.hgrm, report.result.latency()) {
        write(path, &latency.hgrm())?;
    }
    if let Some(path) = &run.output.html {
        write(path, &html::page(&[RunFile::try_from(&report)?]))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
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
    let tokens = tokens(&run.tokens, dev.as_ref())?;
    let url = server.url.as_deref().or(dev.as_ref().map(|dev| dev.ws.as_str())).unwrap_or_default();
    let path = server.path.as_deref();
    let mut target = Target::with_tokens(url, server.wire, path, tokens, run.tokens.token_form)?;
    target.renews_in_band |= run.tokens.renew_in_band || dev.is_some();
    Ok(target)
}

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
    args: &MeasureArgs,
    scenario: &Scenario,
    target: &Target,
    server: Option<Server>,
    progress: &mut Progress,
) -> Result<Outcome, Box<dyn Error>> {
    if target.protocol == Protocol::Relay && scenario.join.is_some() {
        return Err(LoadError::NeedsDocuments("join").into());
    }
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
        return Ok(Outcome::Ramp(ramp(scenario, typing, target, server, bounds, progress)?));
    }
    drive_session(&Session::new(scenario, target, server)?, progress)
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

fn compare(arguments: &Compare) -> Result<ExitCode, Box<dyn Error>> {
    let mut runs = arguments.runs.iter().map(|path| RunFile::read(path)).collect::<Result<Vec<_>, _>>()?;
    for (run, label) in runs.iter_mut().zip(&arguments.labels) {
        run.label.clone_from(label);
    }
    let table = comparison::markdown(&runs);
    match &arguments.markdown {
        Some(path) => write(path, &table)?,
        None => print(&table)?,
    }
    if let Some(path) = &arguments.html {
        write(path, &html::page(&runs))?;
    }
    Ok(if runs.iter().all(|run| run.ok) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn drive_processes(
    run: &Run,
    scenario: &Scenario,
    server: Option<&Server>,
    progress: &mut Progress,
) -> Result<Outcome, Box<dyn Error>> {
    if run.measuring.ramp || run.server.dev_json.as_deref() == Some(Path::new("-")) {
        return Err("--processes goes neither with --ramp nor with --dev-json from standard input".into());
    }
    progress.sample_when_told();
    Ok(processes::run(scenario, run.processes, run.measuring.sample_s, server, progress)?)
}

/// One of several processes: the result, or why there is none, goes to the parent.
fn part(run: &Run) -> ExitCode {
    let word = match try_part(run) {
        Ok(tally) => Word::Tally(Box::new(tally)),
        Err(error) => Word::Failed { reason: error.to_string() },
    };
    if say(&word).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn try_part(run: &Run) -> Result<Tally, Box<dyn Error>> {
    let orders = Orders::listen();
    let PartScenario { scenario, place, sample_s } = orders.prepare()?;
    let mut target = target(run)?;
    if target.address.ip().is_loopback() {
        target.first_source = place * scenario.source_addresses;
    }
    let mut session = Session::new(&scenario, &target, None)?;
    session.orders = Some(orders);
    let outcome = drive_session(&session, &mut Progress::of_part(sample_s))?;
    Tally::of(outcome).ok_or_else(|| "this kind of scenario is not made for several processes".into())
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

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
