//! Disks to crash: ext4 in files, in a mount namespace of the test's own, which takes every mount with it when it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there are none; tests that need them say so and end.
pub fn unavailable() -> Option<&'static str> {
    // SAFETY: it has no arguments and can't fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("mounting needs root");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices");
    }
    let has = |program: &str| {
        Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if !["mkfs.ext4", "mount", "fsfreeze"].into_iter().all(has) {
        return Some("mkfs.ext4, mount or fsfreeze is missing");
    }
    // SAFETY: this thread, and what it starts from now on, have mounts of their own; nothing else is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Some("a mount namespace can't be made");
    }
    let made = Command::new("mount").args(["--make-rprivate", "/"]).status();
    made.map_or(true, |status| !status.success()).then_some("mounts can't be made private")
}

/// Runs a program that must succeed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}: {stderr}", output.status);
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// An ext4 in a file of so many MiB, mounted. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Ext4 {
    pub file: PathBuf,
    pub mount: PathBuf,
    mounted: bool,
}

impl Ext4 {
    /// In `<directory>/<name>.img`, mounted at `mount`.
    #[track_caller]
    pub fn make(file: PathBuf, mount: PathBuf, mib: u64) -> Self {
        let image = std::fs::File::create(&file).expect("the image");
        image.set_len(mib << 20).expect("the image's size");
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", text(&file)],
        );
        std::fs::create_dir_all(&mount).expect("the mount point");
        let mut made = Self { file, mount, mounted: false };
        made.mount();
        made
    }

    #[track_caller]
    pub fn mount(&mut self) {
        run("mount", &["-t", "ext4", "-o", "loop", text(&self.file), text(&self.mount)]);
        self.mounted = true;
    }

    /// Returns when nothing of it is in use any more.
    #[track_caller]
    pub fn unmount(&mut self) {
        run("umount", &[text(&self.mount)]);
        self.mounted = false;
    }

    /// Nothing is written to it while this lives; who tries, waits.
    #[track_caller]
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", text(&self.mount)]);
        Frozen(&self.mount)
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.mounted {
            // The test may be failing already; the namespace takes it away anyway.
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
    }
}

/// A file system that stands still.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Panicking in here could end a test that is failing without a word.
        if !Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(self.0)
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("{} stays frozen", self.0.display());
        }
    }
}
