//! What the command line may say.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use wiresocket_loadtest::scenario::Overrides;
use wiresocket_loadtest::target::TokenForm;
use wiresocket_loadtest::update::typist::Positions;
use wiresocket_loadtest::wire::Protocol;

const EXIT_CODES: &str = "Exit codes: 0 everything is as it has to be, 1 the server's result is wrong, 2 there is no result, 130 interrupted \
     (by SIGINT or SIGTERM: the report is about what there was until then; a second one, a moment later, ends at once).";

/// Stands for standard output.
const STDOUT: &str = "-";

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Load tester for Yjs servers: open loop, verified, over any of the wire protocols",
    after_help = EXIT_CODES,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a scenario against a server
    Run(Box<Run>),
    /// Put several runs side by side: their JSON files, the first of them is what the others are compared with
    Compare(Compare),
    /// Measure a token endpoint: tokens a second, latency, the server's CPU for each
    Tokens(TokenRate),
    /// Serve a bare relay: no CRDT, no tokens; drive it with --wire relay to find the ceiling
    Relay {
        /// Where to listen; port 0 takes a free one. The address is printed
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
pub struct TokenRate {
    /// The endpoint (RFC 6749)
    #[arg(long, value_name = "URL")]
    pub token_endpoint: String,
    /// The client's id
    #[arg(long, value_name = "ID")]
    pub client_id: String,
    /// File that holds the client's secret
    #[arg(long, value_name = "FILE")]
    pub client_secret_file: PathBuf,
    /// What to ask for
    #[arg(long, default_value = "WireSocket.API offline_access")]
    pub scope: String,
    /// Which grant is measured
    #[arg(long, value_enum, default_value = "client-credentials")]
    pub grant: GrantKind,
    /// Clients that ask at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// The server's process, to measure its CPU
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print the figures as one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GrantKind {
    ClientCredentials,
    RefreshToken,
}

#[derive(Debug, Args)]
pub struct Run {
    /// A TOML file, or one of a-classroom, b-many-rooms, c-idle, d-storm, e-cold-join, f-long-run,
    /// g-stalled-reader, day, soak
    pub scenario: PathBuf,
    #[command(flatten)]
    pub server: ServerArgs,
    /// The folder of editing traces [default: the environment's WIRESOCKET_TRACES]
    #[arg(long, value_name = "FOLDER")]
    pub traces: Option<PathBuf>,
    /// Divide the documents between so many processes, which begin at one instant, each with loopback
    /// addresses of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: u32,
    /// This is one of several processes: its parent talks to it
    #[arg(long, hide = true)]
    pub part: bool,
    #[command(flatten)]
    pub tokens: TokenArgs,
    #[command(flatten)]
    pub measuring: MeasureArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub changes: Changes,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Where the server is: ws://HOST:PORT
    #[arg(long, required_unless_present = "dev_json")]
    pub url: Option<String>,
    /// Take address and tokens from the line that `wiresocket dev --json` prints: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub dev_json: Option<PathBuf>,
    /// How the server speaks
    #[arg(long, value_enum, default_value = "y-websocket")]
    pub wire: Protocol,
    /// Path (and query) of a document [default: /{document}, for hocuspocus /]
    #[arg(long)]
    pub path: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenArgs {
    /// Access token
    #[arg(long)]
    pub token: Option<String>,
    /// File that holds the access token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Make the tokens: the private RSA key that signs them (PEM)
    #[arg(long, value_name = "PEM", conflicts_with_all = ["token", "token_file"], requires = "claims")]
    pub key_file: Option<PathBuf>,
    /// What the tokens claim, in TOML or JSON; iat, exp and jti are added
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub claims: Option<PathBuf>,
    /// Key id in the tokens' header [default: the key's RFC 7638 thumbprint]
    #[arg(long, requires = "key_file")]
    pub key_id: Option<String>,
    /// How long a made token lives, in seconds
    #[arg(long, value_name = "SECONDS", requires = "key_file", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    pub token_life_s: u64,
    /// Fetch the tokens with OAuth 2 client credentials (RFC 6749) from this URL
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = ["token", "token_file", "key_file"],
        requires_all = ["client_id", "client_secret_file"]
    )]
    pub token_endpoint: Option<String>,
    /// The client's id at the token endpoint
    #[arg(long, value_name = "ID", requires = "token_endpoint")]
    pub client_id: Option<String>,
    /// File that holds the client's secret
    #[arg(long, value_name = "FILE", requires = "token_endpoint")]
    pub client_secret_file: Option<PathBuf>,
    /// The scope to ask the token endpoint for
    #[arg(long, requires = "token_endpoint")]
    pub scope: Option<String>,
    /// So many different tokens, made or fetched; connections take turns with them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tokens: u32,
    /// Hand renewed tokens over on living connections. Hocuspocus has it always; of y-websocket servers only
    /// WireSocket knows the message (and --dev-json means WireSocket)
    #[arg(long)]
    pub renew_in_band: bool,
    /// How the token is handed over [default: protocol, for hocuspocus in-band]
    #[arg(long, value_enum)]
    pub token_form: Option<TokenForm>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
pub struct MeasureArgs {
    /// Measure this process's CPU and memory: the server's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=PID_MAX))]
    pub pid: Option<u32>,
    /// The same for a control group (version 2), e.g. a container's: /sys/fs/cgroup/…
    #[arg(long, value_name = "FOLDER", conflicts_with = "pid")]
    pub cgroup: Option<PathBuf>,
    /// Take a sample for the time series so often, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_interval)]
    pub sample_s: f64,
    /// Find the most deliveries per second with p99 under --bound-ms
    #[arg(long)]
    pub ramp: bool,
    /// The bound of --ramp, in milliseconds
    #[arg(long, default_value_t = 100.0, requires = "ramp", value_parser = parse_bound)]
    pub bound_ms: f64,
    /// How long --ramp may search; confirming what it found may take a little longer
    #[arg(long, value_name = "SECONDS", default_value_t = 85.0, requires = "ramp", value_parser = parse_ramp)]
    pub ramp_seconds: f64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON object instead of the table; with =FILE, write it to that file and print the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = STDOUT)]
    pub json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the latency percentiles to this file, for HdrHistogram's plotters
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// What the run is called in tables and plots [default: the scenario's name]
    #[arg(long)]
    pub label: Option<String>,
}

impl OutputArgs {
    /// The file that the JSON goes to, if it isn't standard output.
    pub fn json_file(&self) -> Option<&PathBuf> {
        self.json.as_ref().filter(|path| *path != Path::new(STDOUT))
    }
}

/// What differs from the scenario's file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changes to the scenario")]
pub struct Changes {
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
    /// The measured window, in seconds; of joins, the longest it may last
    #[arg(long)]
    seconds: Option<f64>,
    /// Joins to measure
    #[arg(long)]
    joins: Option<u32>,
    /// Where writers type
    #[arg(long, value_parser = parse_positions)]
    positions: Option<Positions>,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// What `run --json` printed, one file for each run
    #[arg(required = true, value_name = "JSON")]
    pub runs: Vec<PathBuf>,
    /// What each run is called, in the same order [default: its label]
    #[arg(long = "label")]
    pub labels: Vec<String>,
    /// Write a page with overlaid plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the table to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

impl From<&Changes> for Overrides {
    fn from(changes: &Changes) -> Self {
        Self {
            documents: changes.documents,
            clients: changes.clients,
            writers: changes.writers,
            rate: changes.rate,
            deliveries: changes.deliveries,
            seconds: changes.seconds,
            joins: changes.joins,
            positions: changes.positions,
        }
    }
}

fn parse_positions(text: &str) -> Result<Positions, String> {
    match text {
        "append" => Ok(Positions::Append),
        "random" => Ok(Positions::Random),
        _ => Err("append or random".to_owned()),
    }
}

/// The kernel's own limit; 0 would be the load tester itself.
const PID_MAX: i64 = 1 << 22;

fn parse_interval(text: &str) -> Result<f64, String> {
    number(text, 0.05..=3600.0, "seconds")
}

fn parse_bound(text: &str) -> Result<f64, String> {
    number(text, 0.001..=3_600_000.0, "milliseconds")
}

fn parse_ramp(text: &str) -> Result<f64, String> {
    number(text, 1.0..=86_400.0, "seconds")
}

fn number(text: &str, range: RangeInclusive<f64>, unit: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("it must be a number of {unit} from {} to {}", range.start(), range.end()))
}
