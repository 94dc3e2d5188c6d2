//! The command line.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wiresocket::config::{self, LogFormat, LogLevel, LogSettings};
use wiresocket::node::{Listeners, Node, check_files};
use wiresocket::{dashboard, dev, logging, mint};

/// Sync server for Yjs documents: multi-tenant, guarded by tokens, one thread per core.
#[derive(Debug, Parser)]
#[command(name = "wiresocket", version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done or stopped by a signal, 1 failed while running, 2 wrong arguments, \
                          78 wrong configuration.\n\
                          Logs go to standard error. WIRESOCKET_LOG=debug shows more (the syntax is that of RUST_LOG).";

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one of it
enum Command {
    /// Try it: one process, no configuration, a dashboard with a demo app and its tokens, and a playground in the browser.
    Dev {
        /// Where to listen; port 0 picks a free one.
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
        listen: SocketAddr,
        /// Where the dashboard listens [default: port 8090 beside the node, or a free one].
        #[arg(long, value_name = "ADDR")]
        dashboard: Option<SocketAddr>,
        /// Keep the documents and the dashboard's data (accounts, apps, keys) in this folder [default: they are gone when the
        /// process ends].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// How many shards [default: one for each core but one].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        shards: Option<u16>,
        /// Print one line of JSON once it accepts connections: ws, http, token, tenantId, appId, jwks, issuer, dashboard,
        /// clientId, clientSecret, owner, operator.
        #[arg(long)]
        json: bool,
    },
    /// Run a production node. SIGTERM drains it, SIGHUP reads the file again.
    Node {
        /// The configuration; tuning/node.toml documents every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the dashboard: tenants, apps, keys and the token endpoint. The first start prints the operator's password.
    Dashboard {
        /// The configuration; tuning/dashboard.toml documents every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Operate a dashboard from its host: operators, tenants, apps, keys, audit. Works while it runs.
    Admin {
        /// The dashboard's configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: dashboard::admin::Command,
    },
    /// Say what is wrong with a configuration and the certificate and secrets that it names, or print what a node would run
    /// with.
    CheckConfig {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Mint a token with any claims, or make a tenant's key: for tests and operators.
    Token(mint::Args),
}

/// EX_CONFIG of sysexits.h.
const WRONG_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Dev { listen, dashboard, data, shards, json } => {
            run_dev(&dev::Options { listen, dashboard, data, shards, json })
        }
        Command::Node { config } => run_node(&config),
        Command::Dashboard { config } => run_dashboard(&config),
        Command::Admin { config, command } => run_admin(config.as_deref(), command),
        Command::CheckConfig { file } => check_config(&file),
        Command::Token(args) => match mint::run(&args) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => failed(&error),
        },
    }
}

/// Prints a result. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => failed(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints an error with its causes.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprint!("wiresocket: {error}");
    let mut shown = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some errors show their cause already.
        if !shown.contains(&text) {
            eprint!(": {text}");
        }
        shown = text;
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn run_dev(options: &dev::Options) -> ExitCode {
    if let Err(error) = logging::init(LogSettings { format: LogFormat::Human, level: LogLevel::Info }) {
        return failed(&error);
    }
    match dev::start(options).map(dev::Dev::run) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn serve(node: Node) -> ExitCode {
    match node.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn run_node(file: &Path) -> ExitCode {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(&error),
    };
    let log_level = match logging::init(config.log) {
        Ok(log_level) => log_level,
        Err(error) => return failed(&error),
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let node =
        Listeners::bind(&config).and_then(|listeners| Node::start(config, listeners, Vec::new(), None));
    match node {
        Ok(node) => serve(node.with_reload(file, log_level)),
        Err(error) if error.is_configuration() => wrong_configuration(&error),
        Err(error) => failed(&error),
    }
}

fn run_dashboard(file: &Path) -> ExitCode {
    let config = match dashboard::config::load(file) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(&error),
    };
    if let Err(error) = logging::init(config.log) {
        return failed(&error);
    }
    match dashboard::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (dashboard::ServeError::Open(_) | dashboard::ServeError::Tls(_))) => {
            wrong_configuration(&error)
        }
        Err(error) => failed(&error),
    }
}

fn run_admin(file: Option<&Path>, command: dashboard::admin::Command) -> ExitCode {
    let config = match file.filter(|_| command.needs_config()).map(dashboard::config::load).transpose() {
        Ok(config) => config,
        Err(error) => return wrong_configuration(&error),
    };
    match dashboard::admin::run(config, command) {
        Ok(value) => print(&format!("{value}\n")),
        Err(error) => failed(&error),
    }
}

fn check_config(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(config) => {
            let of_files = match check_files(&config) {
                Ok(warnings) => warnings,
                Err(error) => return wrong_configuration(&error),
            };
            for warning in config.warnings().into_iter().chain(of_files) {
                eprintln!("warning: {warning}");
            }
            print(&config::effective_toml(&config))
        }
        Err(error) => wrong_configuration(&error),
    }
}

fn wrong_configuration(error: &dyn std::error::Error) -> ExitCode {
    failed(error);
    ExitCode::from(WRONG_CONFIGURATION)
}
