//! `wiresocket dashboard` as a child process, and `wiresocket admin` on the same databases.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::http::{self, Response};
use super::keys::ISSUER;
use super::server::{BINARY, Process, run};

/// A running dashboard, on an SQLite file of its own unless told otherwise.
#[derive(Debug)]
pub struct DashboardServer {
    process: Process,
    pub address: SocketAddr,
    config: PathBuf,
    _dir: TempDir,
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
        let mut command = Command::new(BINARY);
        command.arg("dashboard").arg("--config").arg(&config);
        let process = Process::start(command);
        let address = eventually("the dashboard says where it listens", || {
            process.check_alive();
            process.log_entries().iter().find_map(|entry| {
                (entry["message"] == "listening").then(|| entry["address"].as_str()?.parse().ok()).flatten()
            })
        });
        Self { process, address, config, _dir: dir }
    }

    /// `wiresocket admin`; what it prints.
    #[track_caller]
    pub fn admin(&self, args: &[&str]) -> Value {
        let config = self.config.to_str().expect("UTF-8");
        let (code, stdout, stderr) = run(&[&["admin", "--config", config], args].concat());
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        serde_json::from_str(&stdout).expect("it prints JSON")
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

    /// SIGTERM, then the exit status.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        self.process.wait_for_exit()
    }
}
