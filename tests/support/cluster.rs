//! A PostgreSQL cluster of the test's own: in a temporary directory, on a Unix socket there, as an unprivileged user.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[derive(Debug)]
pub struct Cluster {
    server: Child,
    dir: TempDir,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    databases: AtomicU32,
}

impl Cluster {
    /// `None` if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let bin = binaries()?;
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = dir.path().join("data");
        let mut initdb = command(&bin.join("initdb"), user);
        initdb.arg("--pgdata").arg(&data).args([
            "--username=test",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]);
        let output = initdb.arg("--locale=C").output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut postgres = command(&bin.join("postgres"), user);
        postgres.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-c", "listen_addresses="]);
        postgres
            .args(["-c", "fsync=off", "-c", "max_connections=200"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = postgres.spawn().unwrap();
        let cluster = Self { server, dir, bin, user, databases: AtomicU32::new(0) };
        cluster.wait_until_ready();
        Some(cluster)
    }

    fn wait_until_ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.tool("pg_isready").arg("--quiet").status().unwrap().success() {
            assert!(Instant::now() < until, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = command(&self.bin.join(name), self.user);
        tool.arg("--host").arg(self.dir.path()).arg("--username=test");
        tool
    }

    /// The URL of a new, empty database.
    pub fn new_database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let created = self.tool("createdb").arg("--maintenance-db=postgres").arg(&name).status().unwrap();
        assert!(created.success(), "createdb {name}");
        format!("postgres://test@localhost/{name}?host={}", self.dir.path().display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The newest of the versions that Debian keeps beside each other, or what is in the PATH.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let complete =
        |dir: &PathBuf| ["initdb", "postgres", "createdb"].iter().all(|name| dir.join(name).exists());
    let mut found: Vec<_> = debian.filter(complete).collect();
    found.sort();
    found.pop().or_else(|| in_path.into_iter().flatten().find(complete))
}

/// PostgreSQL refuses to run as root: then the user of Debian's package, or nobody.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let output = Command::new("id").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|user| Some((id(&["-u", user])?, id(&["-g", user])?)))
}
