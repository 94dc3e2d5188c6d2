//! The journal, through the real binary: what was acknowledged outlives the process, what is over leaves the disk, and a
//! disk that fails or lies is reported instead of trusted.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use support::wire::{self, Message, Wire};
use support::{Answer, Client, NodeSetup, Replica, Server, Tenant, wait_until};
use yrs::Text;

/// An editor whose acknowledgements are counted: the one for its step 2 is in.
#[track_caller]
fn join(server: &Server, document: &str, token: &str) -> Replica {
    let mut replica = Replica::join_hocuspocus(server, document, token);
    replica.wait_for("the acknowledgement of step 2", |replica| replica.acknowledged == 1);
    replica
}

/// Appends, and waits until that is acknowledged.
#[track_caller]
fn write(replica: &mut Replica, chunk: &str) {
    let expected = replica.acknowledged + 1;
    replica.append(chunk);
    replica.wait_for("an acknowledgement", |replica| replica.acknowledged == expected);
}

/// Writes words into a document of its own until the server is gone, and notes each when it is acknowledged.
fn keep_writing(
    server: &Server,
    document: String,
    token: &str,
    acknowledged: &Arc<Mutex<Vec<(String, String)>>>,
) -> JoinHandle<()> {
    let mut replica = join(server, &document, token);
    let acknowledged = Arc::clone(acknowledged);
    std::thread::spawn(move || {
        for n in 0.. {
            let word = format!("{document}-{n} ");
            let update = replica.edit(|text, transaction| {
                let end = text.len(transaction);
                text.insert(transaction, end, &word);
            });
            let frame = replica.wire.frame(&wire::update(&update));
            if replica.client.try_send(&frame).is_err() {
                return;
            }
            let expected = replica.acknowledged + 1;
            replica.wait_for("an acknowledgement or the end", |replica| {
                replica.acknowledged == expected || replica.ended.is_some()
            });
            if replica.acknowledged < expected {
                return;
            }
            acknowledged.lock().expect("no writer panicked").push((document.clone(), word));
        }
    })
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9_with_another_number_of_shards() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    for durability in ["disk", "process"] {
        let setup = |shards: i64| {
            NodeSetup::new(&tenant).set("node.shards", shards).set("journal.durability", durability)
        };
        let acknowledged = Arc::<Mutex<Vec<(String, String)>>>::default();
        let mut server = setup(2).start();
        for (round, shards) in [3, 1, 2].into_iter().enumerate() {
            let before = acknowledged.lock().unwrap().len();
            let writers: Vec<_> = (0..6)
                .map(|n| keep_writing(&server, format!("round-{round}-{n}"), &token, &acknowledged))
                .collect();
            wait_until("enough is acknowledged", || acknowledged.lock().unwrap().len() > before + 300);
            let dir = server.kill();
            writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
            server = setup(shards).start_in(dir);
            assert_eq!(server.get("/health").status, 200);
            // The documents of the rounds before are in their grace period since the restart.
            let all = acknowledged.lock().unwrap().clone();
            for n in 0..6 {
                let document = format!("round-{round}-{n}");
                let mut reader = join(&server, &document, &token);
                reader.flush();
                let text = reader.text();
                for (_, word) in all.iter().filter(|(of, _)| *of == document) {
                    assert!(text.contains(word.as_str()), "{durability}, round {round}: {word:?} is lost");
                }
            }
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("journal")).expect("the journal's directory");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-")));
    files.sort();
    files
}

#[test]
fn a_session_that_is_over_leaves_the_disk() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let setup = || NodeSetup::new(&tenant).set("sessions.grace_period_s", 0.1);
    let server = setup().start();
    let mut editor = join(&server, "notes", &token);
    write(&mut editor, &"a secret that must not stay ".repeat(4000));
    server.wait_for_metric("wiresocket_journal_documents", 1.0);
    drop(editor);
    server.wait_for_metric("wiresocket_journal_documents", 0.0);
    let dir = server.stop();
    let left: Vec<u8> =
        segments(dir.path()).iter().flat_map(|file| std::fs::read(file).expect("a segment")).collect();
    assert!(!left.windows(6).any(|bytes| bytes == b"secret"), "{} bytes are left", left.len());
    let server = setup().start_in(dir);
    let reader = join(&server, "notes", &token);
    assert_eq!(reader.text(), "");
}

#[test]
fn a_document_in_its_grace_period_is_back_after_a_restart_and_the_period_begins_again() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut editor = join(&server, "notes", &token);
    write(&mut editor, "still here");
    drop(editor);
    let dir = server.stop();
    let server = NodeSetup::new(&tenant).start_in(dir);
    server.wait_for_log("the journal was read", |entry| {
        entry["message"] == "the journal was read" && entry["documents"] == 1
    });
    let mut reader = join(&server, "notes", &token);
    reader.wait_for_text("still here");
}

#[test]
fn a_document_that_is_kept_for_ever_is_there_after_everybody_left_and_a_restart() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let setup =
        || NodeSetup::new(&tenant).set("sessions.grace_period_s", 0.1).set("journal.retention", "forever");
    let server = setup().start();
    let mut editor = join(&server, "notes", &token);
    write(&mut editor, "for ever");
    drop(editor);
    server.wait_for_metric("wiresocket_documents_active", 0.0);
    let mut reader = join(&server, "notes", &token);
    reader.wait_for_text("for ever");
    drop(reader);
    server.wait_for_metric("wiresocket_documents_active", 0.0);
    let server = setup().start_in(server.kill());
    assert_eq!(server.metrics().get("wiresocket_documents_active"), 0.0);
    let mut reader = Replica::join(&server, "notes", &token);
    reader.wait_for_text("for ever");
}

#[test]
fn a_y_websocket_client_that_asks_for_acknowledgements_gets_one_for_each_update() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let client: Client = server.upgrade("/notes?acknowledge=true").token(&token).open();
    let mut asks = Replica::new(client, Wire::YWebsocket);
    asks.sync();
    asks.wait_for("the acknowledgement of step 2", |replica| replica.acknowledged == 1);
    write(&mut asks, "a");
    write(&mut asks, "b");
    let mut doesnt = Replica::join(&server, "notes", &token);
    doesnt.append("c");
    asks.wait_for_text("abc");
    doesnt.flush();
    assert_eq!((asks.acknowledged, doesnt.acknowledged), (3, 0));
    let server = NodeSetup::new(&tenant).start_in(server.kill());
    let mut late = Replica::join(&server, "notes", &token);
    late.flush();
    assert!(late.text().starts_with("ab"));
}

/// From now on this process's files can't grow: what a full disk is to it.
fn fill_the_disk(server: &Server) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = i32::try_from(server.pid()).expect("a pid");
    // SAFETY: the limits of a child of ours are set from a value that lives through the call.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &none, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn on_a_full_disk_nobody_is_acknowledged_everybody_is_relayed_and_newcomers_are_refused() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let (mut writer, mut reader) = (join(&server, "notes", &token), join(&server, "notes", &token));
    write(&mut writer, "stored ");
    assert_eq!(server.get("/health").status, 200);
    fill_the_disk(&server);
    writer.append("not stored ");
    reader.wait_for_text("stored not stored ");
    server.wait_for_log("the journal has failed", |entry| {
        entry["level"] == "ERROR"
            && entry["message"].as_str().is_some_and(|text| {
                text.starts_with("the journal has failed: cannot write to") && text.contains("journal-")
            })
    });
    server.wait_for_metric("wiresocket_journal_failed", 1.0);
    writer.append("nor this");
    reader.wait_for_text("stored not stored nor this");
    writer.flush();
    assert_eq!(writer.acknowledged, 2, "step 2 and the first update");
    let health = server.get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("degraded")));
    assert!(health.json()["reason"].as_str().is_some_and(|reason| reason.contains("restart the node")));
    wait_until("newcomers are refused", || match server.upgrade("/notes").token(&token).send() {
        Answer::Refused(response) => response.status == 503,
        Answer::Open(_) => false,
    });
    reader.flush();
    let server = NodeSetup::new(&tenant).start_in(server.kill());
    let mut late = join(&server, "notes", &token);
    late.flush();
    assert!(late.text().starts_with("stored "));
}

#[test]
fn damage_in_the_middle_is_refused_naming_file_and_place() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut editor = join(&server, "notes", &token);
    for _ in 0..20 {
        write(&mut editor, "a word ");
    }
    let dir = server.kill();
    let file = segments(dir.path()).pop().expect("a segment");
    let mut bytes = std::fs::read(&file).expect("the segment");
    let whole = bytes.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&file, &bytes).expect("the segment is written");
    let config = dir.path().join("node.toml");
    let (code, _, stderr) = support::server::run(&["node", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1));
    let named = file.display().to_string();
    assert!(stderr.contains("the journal is damaged") && stderr.contains(&named), "{stderr}");
    assert!(stderr.contains(", byte "), "{stderr}");
    // A torn end is no damage.
    bytes = whole;
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&file, &bytes).expect("the segment is written");
    let server = NodeSetup::new(&tenant).start_in(dir);
    server.wait_for_log("what was cut off is said", |entry| {
        entry["level"] == "WARN"
            && entry["message"].as_str().is_some_and(|text| text.contains("torn by a crash"))
    });
    let mut late = join(&server, "notes", &token);
    late.flush();
    assert_eq!(late.text().matches("a word ").count(), 19);
}

#[test]
fn a_journal_belongs_to_one_node() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let config = server.key_dir().with_file_name("node.toml");
    let (code, _, stderr) = support::server::run(&["node", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
}

#[test]
fn without_a_journal_a_restart_begins_empty() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let setup = || NodeSetup::new(&tenant).set("journal.durability", "memory");
    let server = setup().start();
    let mut editor = join(&server, "notes", &token);
    write(&mut editor, "gone");
    let dir = server.kill();
    assert!(!dir.path().join("journal").exists());
    let server = setup().start_in(dir);
    assert_eq!(join(&server, "notes", &token).text(), "");
}

#[test]
fn dev_keeps_documents_in_its_folder_and_only_there() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let data = folder.path().to_str().expect("UTF-8");
    let kept = Server::dev_with(&["--shards", "2", "--data", data], &[]);
    let mut editor = join(&kept, "notes", &kept.dev_token());
    write(&mut editor, "kept");
    drop(editor);
    drop(kept);
    let kept = Server::dev_with(&["--shards", "1", "--data", data], &[]);
    let mut reader = join(&kept, "notes", &kept.dev_token());
    reader.wait_for_text("kept");
    assert!(!reader.auth.contains(&Message::SyncStatus(false)));
    let passing = Server::dev(1);
    assert!(!passing.metrics().has("wiresocket_journal_documents"));
}
