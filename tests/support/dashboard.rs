//! `wiresocket dashboard` as a child process, and `wiresocket admin` on the same databases.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::http::{self, Response};
use super::keys::ISSUER;
use super::server::{BINARY, NodeSetup, Process, run};

/// A running dashboard, on an SQLite file of its own unless told otherwise.
#[derive(Debug)]
pub struct DashboardServer {
    process: Process,
    pub address: SocketAddr,
    config: PathBuf,
    dir: TempDir,
}

/// A dashboard that was stopped; its databases are still there.
#[derive(Debug)]
pub struct StoppedDashboard {
    address: SocketAddr,
    config: PathBuf,
    dir: TempDir,
}

impl StoppedDashboard {
    #[track_caller]
    pub fn admin(&self, args: &[&str]) -> Value {
        admin(&self.config, args)
    }

    /// Starts it where it was.
    #[track_caller]
    pub fn start_again(self) -> DashboardServer {
        let text = std::fs::read_to_string(&self.config).expect("the configuration is there");
        let text = text.replace("127.0.0.1:0", &self.address.to_string());
        std::fs::write(&self.config, text).expect("the configuration is written");
        DashboardServer::start_with(self.dir, self.config)
    }
}

#[track_caller]
fn admin(config: &Path, args: &[&str]) -> Value {
    let config = config.to_str().expect("UTF-8");
    let (code, stdout, stderr) = run(&[&["admin", "--config", config], args].concat());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    serde_json::from_str(&stdout).expect("it prints JSON")
}

impl DashboardServer {
    /// `more` is appended to the configuration.
    #[track_caller]
    pub fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = format!("sqlite:{}", dir.path().join("home.db").display());
        Self::start_in(dir, &home, more)
    }

    /// The same on a database that is there already.
    #[track_caller]
    pub fn start_on(home: &str, more: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), home, more)
    }

    #[track_caller]
    fn start_in(dir: TempDir, home: &str, more: &str) -> Self {
        let master_key = dir.path().join("master-key-1");
        let (code, _, stderr) = run(&["admin", "generate-master-key", master_key.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(0), "{stderr}");
        let config = dir.path().join("dashboard.toml");
        let text = format!(
            "[dashboard]\nlisten = \"127.0.0.1:0\"\nissuer = \"{ISSUER}\"\noperator_email = \"ops@example.com\"\n\
             [database]\nhome = \"{home}\"\n[master_keys]\n1 = {{ file = \"{}\" }}\n[log]\nformat = \"json\"\n{more}",
            master_key.display(),
        );
        std::fs::write(&config, text).expect("the configuration is written");
        Self::start_with(dir, config)
    }

    #[track_caller]
    fn start_with(dir: TempDir, config: PathBuf) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("dashboard").arg("--config").arg(&config);
        let process = Process::start(command);
        let address = eventually("the dashboard says where it listens", || {
            process.check_alive();
            process.log_entries().iter().find_map(|entry| {
                (entry["message"] == "listening").then(|| entry["address"].as_str()?.parse().ok()).flatten()
            })
        });
        Self { process, address, config, dir }
    }

    /// Stops it.
    #[track_caller]
    pub fn stop(self) -> StoppedDashboard {
        let Self { mut process, address, config, dir } = self;
        process.signal(libc::SIGTERM);
        assert_eq!(process.wait_for_exit().code(), Some(0));
        StoppedDashboard { address, config, dir }
    }

    /// `wiresocket admin`; what it prints.
    #[track_caller]
    pub fn admin(&self, args: &[&str]) -> Value {
        admin(&self.config, args)
    }

    /// The node's settings with which it belongs to this dashboard, which it has let in.
    #[track_caller]
    pub fn member(&self, node: NodeSetup) -> NodeSetup {
        let secret_file = self.new_enrolment_secret();
        self.member_with(node, secret_file, "node-credential")
    }

    /// The same for one of several nodes, by its name.
    #[track_caller]
    pub fn member_called(&self, name: &str, node: NodeSetup) -> NodeSetup {
        let file = self.dir.path().join(format!("enrolment-secret-{name}"));
        std::fs::rename(self.new_enrolment_secret(), &file).expect("it is renamed");
        let secret_file = file.to_str().expect("UTF-8").to_owned();
        self.member_with(node, secret_file, &format!("node-credential-{name}")).set("node.name", name)
    }

    fn member_with(&self, node: NodeSetup, secret_file: String, credential: &str) -> NodeSetup {
        let credential_file = self.dir.path().join(credential);
        let node = node
            .set("auth.jwks_url", self.jwks_url())
            .set("dashboard.url", format!("http://{}", self.address));
        node.set("dashboard.enrolment_secret_file", secret_file)
            .set("dashboard.credential_file", credential_file.to_str().expect("UTF-8"))
    }

    /// Puts a secret that lets one node in where [`Self::member`]'s node looks for it; the file.
    #[track_caller]
    pub fn new_enrolment_secret(&self) -> String {
        let secret = self.admin(&["create-enrolment-secret"]);
        let file = self.dir.path().join("enrolment-secret");
        std::fs::write(&file, secret["enrolmentSecret"].as_str().expect("a secret")).expect("it is written");
        let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, owners).expect("its mode is set");
        file.to_str().expect("UTF-8").to_owned()
    }

    /// What the first start prints for the operator; the pipe may bring it later than the log says "listening".
    #[track_caller]
    pub fn first_line(&self) -> String {
        eventually("the dashboard prints a line", || {
            self.process.stdout().split_once('\n').map(|(line, _)| line.to_owned())
        })
    }

    /// What a node's `auth.jwks_url` is.
    pub fn jwks_url(&self) -> String {
        format!("http://{}/{{tenantId}}/.well-known/jwks", self.address)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        http::request(self.address, "GET", target, &[("Connection", "close")])
    }

    /// A form whose values need no encoding but that of spaces.
    #[track_caller]
    pub fn post(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        let fields = fields.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
        let body = fields.collect::<Vec<_>>().join("&");
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        http::exchange(self.address, request.as_bytes())
    }

    /// What the token endpoint answers to these credentials, as `admin create-app` printed them.
    #[track_caller]
    pub fn token(&self, credentials: &Value, scope: &str) -> Value {
        let text = |field: &str| credentials[field].as_str().expect("credentials");
        let answer = self.post(
            "/connect/token",
            &[
                ("grant_type", "client_credentials"),
                ("client_id", text("clientId")),
                ("client_secret", text("clientSecret")),
                ("scope", scope),
            ],
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}
