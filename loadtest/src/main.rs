//! The command line of the load tester.
//!
//! Exit codes: 0 if everything is as it has to be, 1 if the server's result is wrong, 2 if there is no
//! result (bad arguments, no server, a run that couldn't be carried out).

use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use wiresocket_loadtest::event_loop::poller::raise_descriptor_limit;
use wiresocket_loadtest::load::{LoadError, Session, day, idle, join, storm, typing};
use wiresocket_loadtest::measure::process::Process;
use wiresocket_loadtest::progress::Progress;
use wiresocket_loadtest::ramp::ramp;
use wiresocket_loadtest::relay::Relay;
use wiresocket_loadtest::report::{Outcome, Report};
use wiresocket_loadtest::scenario::{Overrides, Scenario};
use wiresocket_loadtest::target::{DevServer, Target, TokenForm};
use wiresocket_loadtest::update::typist::Positions;
use wiresocket_loadtest::wire::Protocol;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Load tester for Yjs servers: open loop, verified, over any of the wire protocols"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario against a server
    Run(Box<Run>),
    /// Serve a bare relay: no CRDT, no tokens; drive it with --wire relay to find the ceiling
    Relay {
        /// Where to listen; port 0 takes a free one. The address is printed
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// A TOML file, or one of a-classroom, b-many-rooms, c-idle, d-storm, e-cold-join,
    /// f-long-run, g-stalled-reader, day, soak
    scenario: PathBuf,
    /// Where the server is: ws://HOST:PORT
    #[arg(long, required_unless_present = "dev_json")]
    url: Option<String>,
    /// Take address and token from the line that `wiresocket dev --json` prints: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    dev_json: Option<PathBuf>,
    /// How the server speaks
    #[arg(long, value_enum, default_value = "y-websocket")]
    wire: Protocol,
    /// Path (and query) of a document [default: /{document}, for hocuspocus /]
    #[arg(long)]
    path: Option<String>,
    /// Access token
    #[arg(long)]
    token: Option<String>,
    /// File that holds the access token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// How the token is handed over [default: protocol, for hocuspocus in-band]
    #[arg(long, value_enum)]
    token_form: Option<TokenForm>,
    /// Measure this process's CPU and memory: the server's
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Write the latency percentiles to this file
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Find the most deliveries per second with p99 under --bound-ms
    #[arg(long)]
    ramp: bool,
    /// The bound of --ramp, in milliseconds
    #[arg(long, default_value_t = 100.0, requires = "ramp")]
    bound_ms: f64,
    #[command(flatten)]
    changes: Changes,
}

/// What differs from the scenario's file.
#[derive(Debug, Args)]
struct Changes {
    /// Documents
    #[arg(long)]
    documents: Option<u32>,
    /// Connections to each document
    #[arg(long)]
    clients: Option<u32>,
    /// Writers in each document
    #[arg(long)]
    writers: Option<u32>,
    /// Updates per second of each writer
    #[arg(long, conflicts_with = "deliveries")]
    rate: Option<f64>,
    /// Deliveries per second over all documents: sets the rate
    #[arg(long)]
    deliveries: Option<f64>,
    /// The measured window, in seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Joins to measure
    #[arg(long)]
    joins: Option<u32>,
    /// Where writers type
    #[arg(long, value_parser = parse_positions)]
    positions: Option<Positions>,
}

fn parse_positions(text: &str) -> Result<Positions, String> {
    match text {
        "append" => Ok(Positions::Append),
        "random" => Ok(Positions::Random),
        _ => Err("append or random".to_owned()),
    }
}

fn main() -> ExitCode {
    // Failing here is no reason to stop: running out of descriptors later has an error of its own.
    let _ = raise_descriptor_limit();
    let result = match Cli::parse().command {
        Command::Run(run) => self::run(&run),
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
    let overrides = Overrides {
        documents: run.changes.documents,
        clients: run.changes.clients,
        writers: run.changes.writers,
        rate: run.changes.rate,
        deliveries: run.changes.deliveries,
        seconds: run.changes.seconds,
        joins: run.changes.joins,
        positions: run.changes.positions,
    };
    let scenario = Scenario::load(&run.scenario, &overrides)?;
    let target = target(run)?;
    let server = run.pid.map(Process::open).transpose()?;
    let mut progress = Progress::new();
    let outcome = drive(run, &scenario, &target, server, &mut progress);
    progress.clear();
    let report = Report::new(&scenario, &target, outcome?);
    if run.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    if let (Some(path), Some(histogram)) = (&run.hgrm, report.histogram()) {
        std::fs::write(path, histogram.percentiles())
            .map_err(|error| format!("cannot write the percentiles to {}: {error}", path.display()))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn target(run: &Run) -> Result<Target, Box<dyn Error>> {
    let dev = run.dev_json.as_deref().map(DevServer::read).transpose()?;
    let token = match (&run.token, &run.token_file, &dev) {
        (Some(token), _, _) => Some(token.clone()),
        (None, Some(path), _) => {
            let token = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the token from {}: {error}", path.display()))?;
            Some(token.trim().to_owned())
        }
        (None, None, Some(dev)) => Some(dev.token.clone()),
        (None, None, None) => None,
    };
    let url = run.url.as_deref().or(dev.as_ref().map(|dev| dev.ws.as_str())).unwrap_or_default();
    Ok(Target::new(url, run.wire, run.path.as_deref(), token.as_deref(), run.token_form)?)
}

fn drive(
    run: &Run,
    scenario: &Scenario,
    target: &Target,
    server: Option<Process>,
    progress: &mut Progress,
) -> Result<Outcome, Box<dyn Error>> {
    if target.protocol == Protocol::Relay && scenario.join.is_some() {
        return Err(LoadError::NeedsDocuments("join").into());
    }
    if run.ramp {
        let Some(typing) = &scenario.typing else {
            return Err("--ramp raises the rate of a [typing] scenario; this one has none".into());
        };
        return Ok(Outcome::Ramp(ramp(scenario, typing, target, server, run.bound_ms, progress)?));
    }
    let session = Session::new(scenario, target, server)?;
    Ok(match scenario {
        Scenario { typing: Some(typing), .. } => Outcome::Typing(typing::run(&session, typing, progress)?),
        Scenario { idle: Some(idle), .. } => Outcome::Idle(idle::run(&session, idle, progress)?),
        Scenario { storm: Some(storm), .. } => Outcome::Storm(storm::run(&session, storm, progress)?),
        Scenario { day: Some(day), .. } => Outcome::Day(day::run(&session, day, progress)?),
        Scenario { join: Some(join), .. } => Outcome::Join(join::run(&session, join, progress)?),
        _ => return Err("the scenario does nothing".into()),
    })
}

fn relay(listen: SocketAddr) -> Result<ExitCode, Box<dyn Error>> {
    let mut relay = Relay::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("ws://{}", relay.address()?);
    relay.serve(|| true)?;
    Ok(ExitCode::SUCCESS)
}
