//! The real binary, as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Upgrade;
use super::http::{self, Response};
use super::keys::{ISSUER, Tenant};
use super::{Metrics, eventually};

pub const BINARY: &str = env!("CARGO_BIN_EXE_wiresocket");

/// A configuration for `wiresocket node` in the making: the defaults of a test, plus what the test sets.
#[derive(Debug, Clone)]
pub struct NodeSetup {
    config: toml::Table,
    key_sets: Vec<(String, Value)>,
}

impl NodeSetup {
    /// Two shards, a free port, per-IP buckets off, JSON logs, and this tenant's key.
    pub fn new(tenant: &Tenant) -> Self {
        Self::without_keys().keys_of(tenant)
    }

    pub fn without_keys() -> Self {
        Self { config: toml::Table::new(), key_sets: Vec::new() }
            .set("node.listen", "127.0.0.1:0")
            .set("node.shards", 2)
            .set("node.region", "aws-us-east-1")
            .set("auth.issuer", ISSUER)
            .set("http.upgrades_per_minute", 0)
            .set("http.discovery_per_minute", 0)
            .set("http.usage_per_minute", 0)
            .set("http.health_per_minute", 0)
            .set("drain.spread_s", 1)
            .set("log.format", "json")
    }

    pub fn keys_of(self, tenant: &Tenant) -> Self {
        self.key_set(&tenant.id.to_string(), tenant.jwks())
    }

    /// A file `<name>.json` in the key directory.
    pub fn key_set(mut self, name: &str, jwks: Value) -> Self {
        self.key_sets.push((name.to_owned(), jwks));
        self
    }

    /// `set("auth.rejection", "close")`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (section, key) = key.split_once('.').expect("a key is section.key");
        let section = self.config.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().expect("a section is a table").insert(key.to_owned(), value.into());
        self
    }

    pub fn to_toml(&self) -> String {
        self.config.to_string()
    }

    /// Writes the files and starts the node.
    #[track_caller]
    pub fn start(self) -> Server {
        self.start_in(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The same in a directory where a node was before.
    #[track_caller]
    pub fn start_in(self, dir: TempDir) -> Server {
        self.start_under(&[], dir)
    }

    /// The same, by a program that becomes the node: `setpriv --reuid=nobody`.
    #[track_caller]
    pub fn start_under(self, wrapper: &[&str], dir: TempDir) -> Server {
        let (setup, process) = self.spawn(wrapper, &dir);
        let address = eventually("the node says where it listens", || {
            process.check_alive();
            process.log_entries().iter().find_map(|entry| {
                (entry["message"] == "listening").then(|| entry["address"].as_str()?.parse().ok()).flatten()
            })
        });
        Server { process, address, setup: Some(setup), dir: Some(dir), dev: Value::Null }
    }

    /// Starts it and kills it after this time, however far it is.
    pub fn kill_while_starting(self, after: Duration, dir: TempDir) -> TempDir {
        let (_, mut process) = self.spawn(&[], &dir);
        std::thread::sleep(after);
        process.signal(libc::SIGKILL);
        process.wait_for_exit();
        dir
    }

    /// The journal is in this directory unless the test has put it somewhere else.
    fn spawn(self, wrapper: &[&str], dir: &TempDir) -> (Self, Process) {
        let key_dir = dir.path().join("keys");
        std::fs::create_dir_all(&key_dir).expect("the key directory");
        for (name, jwks) in &self.key_sets {
            write_file(&key_dir.join(format!("{name}.json")), &jwks.to_string());
        }
        let setup = if self.config["auth"].get("jwks_url").is_some() && self.key_sets.is_empty() {
            self
        } else {
            self.set("auth.key_dir", key_dir.to_str().expect("a UTF-8 path"))
        };
        let has_journal =
            setup.config.get("journal").is_some_and(|journal| journal.get("directory").is_some());
        let journal = dir.path().join("journal");
        let setup = if has_journal {
            setup
        } else {
            setup.set("journal.directory", journal.to_str().expect("a UTF-8 path"))
        };
        let file = dir.path().join("node.toml");
        write_file(&file, &setup.to_toml());
        let mut words = wrapper.iter().copied().chain([BINARY]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).arg("node").arg("--config").arg(&file);
        let process = Process::start(command);
        (setup, process)
    }
}

/// Writes a file so that a reader sees it whole or not at all.
fn write_file(path: &Path, text: &str) {
    let dir = path.parent().and_then(Path::parent).expect("a file in a directory of the test's");
    let mut file = tempfile::NamedTempFile::new_in(dir).expect("a temporary file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("the file is written");
    // A node may run as somebody else; there is no secret in these.
    let everybodys = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), everybodys).expect("its mode is set");
    file.persist(path).expect("the file is put in its place");
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    process: Process,
    pub address: SocketAddr,
    setup: Option<NodeSetup>,
    dir: Option<TempDir>,
    /// What `dev --json` printed.
    pub dev: Value,
}

impl Server {
    /// `wiresocket dev` with so many shards.
    #[track_caller]
    pub fn dev(shards: u16) -> Self {
        Self::dev_with(&["--shards", &shards.to_string()], &[])
    }

    /// `wiresocket dev` with these arguments and variables besides.
    #[track_caller]
    pub fn dev_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        // A test kills its server in the end: what that leaves behind goes with this.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(BINARY);
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--json"])
            .args(args)
            .env("TMPDIR", dir.path())
            .envs(environment.iter().copied());
        let process = Process::start(command);
        let line = eventually("dev says where it is", || {
            process.check_alive();
            process.stdout().lines().next().map(str::to_owned)
        });
        let dev: Value = serde_json::from_str(&line).expect("dev prints JSON");
        let address = dev["http"].as_str().and_then(|url| url.strip_prefix("http://"));
        let address = address.and_then(|address| address.parse().ok()).expect("dev says its address");
        Self { process, address, setup: None, dir: Some(dir), dev }
    }

    /// The token that `dev` printed.
    pub fn dev_token(&self) -> String {
        self.dev["token"].as_str().expect("dev prints a token").to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn upgrade(&self, target: &str) -> Upgrade {
        Upgrade::new(self.address, target)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        http::get(self.address, target)
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.address)
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn wait_for_metric(&self, sample: &str, value: f64) {
        let mut seen = f64::NAN;
        super::wait_until(&format!("{sample} is {value}"), || {
            seen = self.metrics().get(sample);
            seen == value
        });
    }

    /// Writes `<tenant>.json` of the key directory anew.
    pub fn write_keys(&self, tenant: &Tenant, jwks: &Value) {
        let path = self.key_dir().join(format!("{}.json", tenant.id));
        write_file(&path, &jwks.to_string());
    }

    pub fn remove_keys(&self, tenant: &Tenant) {
        let path = self.key_dir().join(format!("{}.json", tenant.id));
        std::fs::remove_file(path).expect("the key file goes");
    }

    pub fn key_dir(&self) -> PathBuf {
        self.dir.as_ref().expect("a node, not dev").path().join("keys")
    }

    /// Writes the configuration anew, changed; [`Server::reload`] makes the node read it.
    pub fn configure(&mut self, change: impl FnOnce(NodeSetup) -> NodeSetup) {
        let setup = change(self.setup.take().expect("a node, not dev"));
        self.write_config(&setup.to_toml());
        self.setup = Some(setup);
    }

    /// Puts any text where the configuration is.
    pub fn write_config(&self, text: &str) {
        let dir = self.dir.as_ref().expect("a node, not dev").path();
        std::fs::write(dir.join("node.toml"), text).expect("the configuration is written");
    }

    /// SIGHUP; waits for the line that says how it went, and returns it.
    #[track_caller]
    pub fn reload(&self) -> Value {
        let is_outcome = |entry: &Value| {
            entry["message"].as_str().is_some_and(|message| {
                message.starts_with("SIGHUP: reloaded")
                    || message.starts_with("SIGHUP: the configuration stays")
                    || message.starts_with("SIGHUP: there is no")
            })
        };
        let before = self.log().iter().filter(|entry| is_outcome(entry)).count();
        self.signal(libc::SIGHUP);
        eventually("the reload's outcome is logged", || self.log().into_iter().filter(is_outcome).nth(before))
    }

    /// Writes the configuration anew, changed, and waits until the node runs with it.
    #[track_caller]
    pub fn reconfigure(&mut self, change: impl FnOnce(NodeSetup) -> NodeSetup) {
        self.configure(change);
        let outcome = self.reload();
        assert_eq!(outcome["level"], "INFO", "{outcome}");
    }

    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// SIGTERM, then the exit status.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait_for_exit()
    }

    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit()
    }

    /// Kills the process at once; what it left behind.
    pub fn kill(mut self) -> TempDir {
        self.signal(libc::SIGKILL);
        self.wait_for_exit();
        self.dir.take().expect("a node, not dev")
    }

    /// SIGTERM; what it left behind.
    #[track_caller]
    pub fn stop(mut self) -> TempDir {
        self.signal(libc::SIGTERM);
        assert_eq!(self.wait_for_exit().code(), Some(0), "{}", self.stderr());
        self.dir.take().expect("a node, not dev")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.child.try_wait().expect("the child can be waited for").is_none()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.process.stderr.lock().expect("the reader lives").clone()
    }

    /// The log so far (nodes log JSON; lines that are none are left out).
    pub fn log(&self) -> Vec<Value> {
        self.process.log_entries()
    }

    /// Waits for a log entry.
    #[track_caller]
    pub fn wait_for_log(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.log().into_iter().find(&is_it))
    }

    /// Resident memory, in bytes.
    #[track_caller]
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }
}

/// Runs the binary to its end: exit code, stdout, stderr.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(args).stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub(super) fn start(mut command: Command) -> Self {
        // What the developer has set must not decide over tests.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WIRESOCKET_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let (stdout, stderr) = <(Arc<Mutex<String>>, Arc<Mutex<String>>)>::default();
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&stdout)),
            collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&stderr)),
        ];
        Self { child, stdout, stderr, readers }
    }

    #[track_caller]
    pub(super) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the server exits", || self.child.try_wait().expect("the child can be waited for"))
    }

    pub(super) fn stdout(&self) -> String {
        self.stdout.lock().expect("the reader lives").clone()
    }

    pub(super) fn log_entries(&self) -> Vec<Value> {
        let stderr = self.stderr.lock().expect("the reader lives");
        stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Panics with the log if the process is over although nobody stopped it.
    #[track_caller]
    pub(super) fn check_alive(&self) {
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let waited = unsafe { libc::waitid(libc::P_PID, self.child.id(), &mut info, flags) };
        let exited = waited == 0 && unsafe { info.si_pid() } != 0;
        assert!(!exited, "the server ended:\n{}", self.stderr.lock().expect("the reader lives"));
    }

    pub(super) fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal} is sent: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine; it stays our child until it is waited for, so the pid is still its own.
        let _ = self.child.kill();
        let status = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let log = self.stderr.lock().map(|log| log.clone()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the server's last lines");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
            if let Some(signal) = status.ok().and_then(|status| status.signal()) {
                eprintln!("--- it was ended by signal {signal} (9 is the test's own)");
            }
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line) {
            into.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
