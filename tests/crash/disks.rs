//! Disks that are full, and disks that fail: nothing false is acknowledged, and who is in there goes on.

use super::loops::{self, Ext4};
use super::support::{Answer, NodeSetup, Replica, Server, Tenant, wait_until};

/// Updates are bigger than what a file system keeps for itself.
const CHUNK_BYTES: usize = 20_000;

/// Writes marks until one is not acknowledged any more; how many were.
#[track_caller]
fn write_until_it_fails(server: &Server, writer: &mut Replica, reader: &mut Replica) -> usize {
    for n in 0..2000 {
        // The last mark must get to the other one, stored or not.
        let mark = format!("mark-{n} ");
        writer.append(&format!("{mark}{}", "x".repeat(CHUNK_BYTES)));
        let has_failed = || server.metrics().get("wiresocket_journal_failed") == 1.0;
        wait_until("it is acknowledged, or the journal fails", || {
            writer.flush();
            writer.acknowledged == n + 2 || has_failed()
        });
        reader.wait_for("the relayed mark", |reader| reader.text().contains(&mark));
        if writer.acknowledged < n + 2 {
            return n;
        }
    }
    panic!("the disk does not become full");
}

/// What everybody must see of a journal that has failed.
#[track_caller]
fn check_failed(
    server: &Server,
    token: &str,
    writer: &mut Replica,
    reader: &mut Replica,
    doing: &str,
    why: &str,
) {
    let acknowledged = writer.acknowledged;
    server.wait_for_log("the journal has failed", |entry| {
        let message = entry["message"].as_str().unwrap_or_default();
        entry["level"] == "ERROR"
            && message.starts_with(&format!("the journal has failed: cannot {doing}"))
            && message.contains(why)
    });
    let health = server.get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("degraded")));
    wait_until("newcomers are refused", || match server.upgrade("/other").token(token).send() {
        Answer::Refused(response) => response.status == 503,
        Answer::Open(_) => false,
    });
    for _ in 0..3 {
        writer.append("still here ");
    }
    reader
        .wait_for("what is relayed all the same", |reader| reader.text().matches("still here ").count() == 3);
    writer.flush();
    assert_eq!(writer.acknowledged, acknowledged, "nothing is acknowledged any more");
}

#[track_caller]
fn join(server: &Server, token: &str) -> Replica {
    let mut replica = Replica::join_hocuspocus(server, "notes", token);
    replica.wait_for("the acknowledgement of step 2", |replica| replica.acknowledged == 1);
    replica
}

#[track_caller]
fn check_all_is_there(server: &Server, token: &str, acknowledged: usize) {
    let mut late = join(server, token);
    late.flush();
    let text = late.text();
    for n in 0..acknowledged {
        assert!(text.contains(&format!("mark-{n} ")), "mark {n} of {acknowledged} is lost");
    }
}

#[test]
fn a_file_system_that_is_full_costs_acknowledgements_and_nothing_else() {
    if let Some(why) = loops::unavailable() {
        return eprintln!("a full disk: SKIPPED, nothing was tested: {why}");
    }
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let images = tempfile::tempdir().expect("a temporary directory");
    let disk = Ext4::make(images.path().join("disk.img"), images.path().join("disk"), 8);
    let ballast = disk.mount.join("ballast");
    loops::run("fallocate", &["-l", "4M", loops::text(&ballast)]);
    let setup = || {
        NodeSetup::new(&tenant)
            .set("journal.directory", loops::text(&disk.mount.join("journal")))
            .set("journal.segment_bytes", 256 << 10)
            .set("sessions.grace_period_s", 300)
    };
    let server = setup().start();
    let (mut writer, mut reader) = (join(&server, &token), join(&server, &token));
    let acknowledged = write_until_it_fails(&server, &mut writer, &mut reader);
    assert!(acknowledged > 10, "only {acknowledged} fitted");
    check_failed(&server, &token, &mut writer, &mut reader, "", "No space left on device");
    let dir = server.kill();
    std::fs::remove_file(ballast).expect("there is space again");
    let server = setup().start_in(dir);
    assert_eq!(server.get("/health").status, 200);
    check_all_is_there(&server, &token, acknowledged);
    let mut again = join(&server, &token);
    again.append("stored again");
    again.wait_for("an acknowledgement", |replica| replica.acknowledged == 2);
    drop(server.kill());
    eprintln!("a full disk: {acknowledged} acknowledged, none falsely");
}

/// The medium has less room than the file system on it believes: it takes writes into memory, and `fdatasync` fails.
#[test]
fn a_disk_whose_fdatasync_fails_is_not_asked_again() {
    if let Some(why) = loops::unavailable() {
        return eprintln!("a failing disk: SKIPPED, nothing was tested: {why}");
    }
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let images = tempfile::tempdir().expect("a temporary directory");
    let medium = images.path().join("medium");
    std::fs::create_dir(&medium).expect("the mount point");
    loops::run("mount", &["-t", "tmpfs", "-o", "size=16M", "medium", loops::text(&medium)]);
    let mut disk = Ext4::make(medium.join("disk.img"), images.path().join("disk"), 64);
    let journal = disk.mount.join("journal");
    let ballast = medium.join("ballast");
    let setup = || {
        NodeSetup::new(&tenant)
            .set("journal.directory", loops::text(&journal))
            .set("sessions.grace_period_s", 300)
    };
    let server = setup().start();
    let (mut writer, mut reader) = (join(&server, &token), join(&server, &token));
    // Whatever room there is, but for a few updates.
    let free = free_bytes(&medium).saturating_sub(1 << 20);
    loops::run("fallocate", &["-l", &free.to_string(), loops::text(&ballast)]);
    let acknowledged = write_until_it_fails(&server, &mut writer, &mut reader);
    assert!(acknowledged > 0);
    check_failed(&server, &token, &mut writer, &mut reader, "sync", "Input/output error");
    let dir = server.kill();
    // The medium works again.
    std::fs::remove_file(ballast).expect("there is space again");
    loops::run("mount", &["-o", "remount,size=128M", loops::text(&medium)]);
    disk.unmount();
    disk.mount();
    let server = setup().start_in(dir);
    check_all_is_there(&server, &token, acknowledged);
    drop(server.kill());
    drop(disk);
    loops::run("umount", &["--lazy", loops::text(&medium)]);
    eprintln!("a failing disk: {acknowledged} acknowledged, none falsely");
}

fn free_bytes(at: &std::path::Path) -> u64 {
    let path = std::ffi::CString::new(loops::text(at)).expect("no zero byte");
    // SAFETY: plain numbers, all zero is one of their values.
    let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both live through the call.
    let asked = unsafe { libc::statvfs(path.as_ptr(), &mut figures) };
    assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
    figures.f_bavail * figures.f_bsize
}
