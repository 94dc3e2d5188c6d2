//! The program's own part of its defence: secrets that everybody can read are refused, no privilege is needed, and no token
//! gets into a log, a metric or an answer.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::http::{self, read_to_end};
use support::server::run;
use support::wire::{self, Wire};
use support::{Answer, Client, DashboardServer, Incoming, NodeSetup, Replica, Server, Tenant, test_key};

fn write_exposed(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the file is written");
    chmod(path, 0o644);
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode is set");
}

#[track_caller]
fn assert_exposed(path: &Path, code: i32, args: &[&str]) {
    let (exit, stdout, stderr) = run(args);
    assert_eq!(exit, Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(path.to_str().expect("UTF-8")), "{stderr}");
    assert!(stderr.contains("everybody") && stderr.contains("chmod 600"), "{stderr}");
    assert!(!(stderr + &stdout).contains("hunter2"), "a secret is shown");
}

#[test]
fn a_private_key_that_everybody_can_read_signs_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let key = dir.path().join("key.pem");
    write_exposed(&key, &test_key(1).to_pkcs8_pem().expect("PEM"));
    let args =
        ["token", "--key", key.to_str().expect("UTF-8"), "--tenant", "7e4a0000-0000-4000-8000-000000000001"];
    assert_exposed(&key, 1, &args);
    chmod(&key, 0o640);
    let (code, token, stderr) = run(&args);
    assert_eq!((code, token.trim().split('.').count()), (Some(0), 3), "{stderr}");
}

#[test]
fn a_node_does_not_start_on_a_credential_or_enrolment_secret_that_everybody_can_read() {
    for name in ["enrolment_secret_file", "credential_file"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let secret = dir.path().join("secret");
        write_exposed(&secret, "hunter2");
        let other = dir.path().join("not-there");
        let file = |key: &str| if key == name { &secret } else { &other }.to_str().expect("UTF-8").to_owned();
        let config = NodeSetup::without_keys()
            .set("auth.jwks_url", "http://127.0.0.1:9/{tenantId}.json")
            .set("dashboard.url", "http://127.0.0.1:9")
            .set("dashboard.enrolment_secret_file", file("enrolment_secret_file"))
            .set("dashboard.credential_file", file("credential_file"))
            .set("journal.durability", "memory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, config.to_toml()).expect("the configuration is written");
        assert_exposed(&secret, 78, &["node", "--config", path.to_str().expect("UTF-8")]);
    }
}

#[test]
fn a_dashboard_does_not_start_on_a_master_key_or_smtp_url_that_everybody_can_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (key, smtp) = (dir.path().join("master-key"), dir.path().join("smtp-url"));
    let (code, _, stderr) = run(&["admin", "generate-master-key", key.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{stderr}");
    write_exposed(&smtp, "smtp://user:hunter2@127.0.0.1:9");
    let config = dir.path().join("dashboard.toml");
    let text = format!(
        "[dashboard]\nlisten = \"127.0.0.1:0\"\nissuer = \"https://auth.example.com\"\noperator_email = \"a@example.com\"\n\
         [database]\nhome = \"sqlite:{}\"\n[master_keys]\n1 = {{ file = \"{}\" }}\n\
         [mail]\nfrom = \"a@example.com\"\nsmtp_url = {{ file = \"{}\" }}\n",
        dir.path().join("home.db").display(),
        key.display(),
        smtp.display()
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let args = ["dashboard", "--config", config.to_str().expect("UTF-8")];
    let refused = |path: &Path| {
        let (code, _, stderr) = run(&args);
        assert!(code.is_some_and(|code| code != 0), "it starts");
        assert!(stderr.contains(path.to_str().expect("UTF-8")), "{stderr}");
        assert!(stderr.contains("everybody") && stderr.contains("chmod 600"), "{stderr}");
        assert!(!stderr.contains("hunter2"), "a secret is shown");
    };
    refused(&smtp);
    chmod(&key, 0o604);
    refused(&key);
}

#[test]
fn a_dashboard_shows_no_secret_of_a_configuration_that_is_wrong() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("dashboard.toml");
    let start = "[dashboard]\nissuer = \"https://auth.example.com\"\noperator_email = \"a@example.com\"\n";
    let home = "[database]\nhome = \"sqlite:home.db\"\n";
    for rest in [
        "[database]\nhome = \"mysql://user:hunter2@db.example/d\"\n",
        "[database]\nhome = \"postgres:/user:hunter2@db.example/d\"\n",
        "[database]\nhome = [\"postgres://user:hunter2@db.example/d\"]\n",
        "[database]\nhome = \"postgres://user:hunter2@db.example/d\n",
        &format!("{home}[master_keys]\n1 = \"hunter2\"\n"),
        &format!("{home}[master_keys]\n1 = {{ file = [\"hunter2\"] }}\n"),
        &format!("{home}[mail]\nfrom = \"a@example.com\"\nsmtp_url = \"smtp://u:hunter2@mail.example\"\n"),
        &format!(
            "{home}[billing.providers.a]\ncheckout_url = \"https://a\"\nwebhook_secrets = \"hunter2\"\n"
        ),
        &format!(
            "{home}[billing.providers.a]\ncheckout_url = \"https://a\"\nwebhook_secrets = [\"hunter2\"]\n"
        ),
    ] {
        std::fs::write(&config, format!("{start}{rest}")).expect("the configuration is written");
        let (code, _, stderr) = run(&["dashboard", "--config", config.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(78), "{rest}: {stderr}");
        assert!(stderr.contains("dashboard.toml") && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn a_dashboard_believes_its_proxies_about_addresses_and_nobody_else() {
    for trusted in [true, false] {
        let proxies = if trusted { "trusted_proxies = [\"127.0.0.1\"]" } else { "" };
        let dashboard = DashboardServer::start(&format!("[http]\njwks_per_10_minutes = 2\n{proxies}\n"));
        let target = "/7e4a0000-0000-4000-8000-000000000001/.well-known/jwks";
        let is_limited = |forwarded_for: &str| {
            let headers = [("X-Forwarded-For", forwarded_for), ("Connection", "close")];
            http::request(dashboard.address, "GET", target, &headers).status == 429
        };
        assert!(!is_limited("198.51.100.1") && !is_limited("192.0.2.1, 198.51.100.1"));
        for client in ["198.51.100.1", "192.0.2.1, 198.51.100.1", "é, 198.51.100.1", "::ffff:198.51.100.1"] {
            assert!(is_limited(client), "{client}");
        }
        assert_eq!(is_limited("198.51.100.2"), !trusted);
    }
}

/// Nobody at all, without a single capability, and without a way to get one.
const AS_NOBODY: [&str; 7] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
];

#[test]
fn a_node_needs_no_privilege() {
    // SAFETY: it has no arguments and can't fail.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("SKIPPED: only root can become nobody; this whole run is without privilege then");
    }
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nobodys = |dir: &Path| {
        for name in ["", "keys", "journal"].map(|name| dir.join(name)) {
            std::fs::create_dir_all(&name).expect("a directory");
            std::os::unix::fs::chown(&name, Some(65534), Some(65534)).expect("it is nobody's");
        }
    };
    nobodys(dir.path());
    let start = |dir: tempfile::TempDir| {
        let server = NodeSetup::new(&tenant);
        server.start_under(&AS_NOBODY, dir)
    };
    let server = start(dir);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["65534"; 4]);
    assert_eq!(field("Groups:"), [""; 0]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    let mut editor = Replica::join_hocuspocus(&server, "notes", &token);
    editor.append("by nobody");
    editor.wait_for("the acknowledgements", |editor| editor.acknowledged == 2);
    let server = start(server.kill());
    let mut reader = Replica::join(&server, "notes", &token);
    reader.wait_for_text("by nobody");
}

/// Tokens that are refused at different places, and one that is good.
fn tokens(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let good = || tenant.token();
    let token = good().build();
    vec![
        ("good", token.clone()),
        ("expired", good().expires_in(-60).build()),
        ("of an unknown key", good().header("kid", "nobody").build()),
        ("with a wrong signature", good().signed_by(test_key(2)).build()),
        ("for another site", good().claim("allowed_domain_1", "a.example.com").build()),
        ("for another document", good().claim("documents", serde_json::json!(["other"])).build()),
        ("for no connection", good().limit("maxConnections", 1).build()),
        ("of another issuer", good().claim("iss", "https://evil.example.com").build()),
        ("with something behind it", format!("{token}!")),
        ("with a part too many", format!("{token}.{}", token.rsplit('.').next().expect("a part"))),
        ("that is broken off", token[..token.len() - 20].to_owned()),
        ("with a broken header", format!("x{token}")),
        ("of 20 kB", good().claim("padding", "x".repeat(15_000)).build()),
    ]
}

/// Everywhere a client may have put it, rightly or wrongly. Each is a whole request.
fn requests(server: &Server, token: &str) -> Vec<Vec<u8>> {
    let upgrade = |target: &str| server.upgrade(target);
    let mut heads = vec![
        upgrade("/notes").token(token).head(),
        upgrade("/notes").token(token).origin("https://b.example.com").head(),
        upgrade("/notes").token(token).origin(&format!("https://{token}")).head(),
        upgrade("/notes").protocols(token).head(),
        upgrade("/notes").protocols(&format!("{token}, access_token")).head(),
        upgrade("/notes").bearer(token).head(),
        upgrade("/notes").header("Authorization", &format!("Basic {token}")).head(),
        upgrade("/notes").header("Authorization", token).head(),
        upgrade("/notes").header("Cookie", &format!("token={token}")).head(),
        upgrade("/notes").header("X-Forwarded-For", token).head(),
        upgrade("/notes").header(token, "x").head(),
        upgrade(&format!("/notes?token={token}")).head(),
        upgrade(&format!("/notes?access_token={token}&x={token}")).head(),
        upgrade(&format!("/notes?%74oken={token}")).head(),
        upgrade(&format!("/notes?x={token}")).head(),
        upgrade(&format!("/notes#{token}")).head(),
        upgrade(&format!("/?token={token}/notes")).head(),
        upgrade(&format!("/{token}")).head(),
        upgrade(&format!("/{token}/notes?token={token}")).head(),
        upgrade(&format!("/bad name?token={token}")).head(),
        upgrade("/notes").header("Sec-WebSocket-Version", token).head(),
    ];
    for (method, target) in [
        ("GET", format!("/discovery?documentName=notes&token={token}")),
        ("GET", format!("/discovery?documentName={token}&token={token}")),
        ("GET", format!("/usage?token={token}")),
        ("GET", format!("/health?token={token}")),
        ("GET", format!("/nothing/{token}?token={token}")),
        ("POST", format!("/usage?token={token}")),
        (token, "/usage".to_owned()),
        ("GET", format!("http://{token}/usage")),
    ] {
        heads.push(
            format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            )
            .into_bytes(),
        );
    }
    heads.push(format!("{token}\r\n\r\n").into_bytes());
    heads
}

/// Sends it, and takes everything in until the server has nothing more to say.
fn answer_to(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut stream = http::connect(server.address);
    let _ = stream.write_all(request);
    // Whoever was let in says goodbye, or the server would wait: a close frame, masked.
    let _ = stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]);
    read_to_end(&mut stream)
}

/// In band, on both wires: as the first word, and as a renewal.
fn in_band(server: &Server, good: &str, token: &str) -> Vec<u8> {
    let mut answers = Vec::new();
    let mut take_all = |client: &mut Client| {
        let _ = client.try_ping(b"flush");
        loop {
            match client.receive() {
                Incoming::Binary(bytes) => answers.extend(bytes),
                Incoming::Text(text) | Incoming::Close(_, text) => answers.extend(text.into_bytes()),
                Incoming::Ping => {}
                Incoming::Pong | Incoming::Ended => return,
            }
        }
    };
    let hocuspocus = Wire::Hocuspocus("notes".to_owned());
    for first in [None, Some(good)] {
        let mut client = Client::hocuspocus(server);
        for token in first.into_iter().chain([token]) {
            let _ = client.try_send(&hocuspocus.frame(&wire::auth(token, Some("4.8.0"))));
        }
        take_all(&mut client);
    }
    if let Answer::Open(mut client) = server.upgrade("/notes").token(good).send() {
        let _ = client.try_send(&wire::auth(token, None));
        take_all(&mut client);
    }
    answers
}

/// Whether there is enough of a token's signature to matter.
fn shows(text: &[u8], token: &str) -> bool {
    let signature = token.trim_end_matches('!').rsplit('.').next().expect("a last part").as_bytes();
    let pieces = signature.chunks(24).filter(|piece| piece.len() == 24);
    pieces.into_iter().any(|piece| text.windows(24).any(|window| window == piece))
}

#[test]
fn no_token_gets_into_a_log_a_metric_or_an_answer() {
    let tenant = Tenant::new(1);
    let good = tenant.token().build();
    for rejection in ["status", "close"] {
        let server = NodeSetup::new(&tenant)
            .set("log.level", "trace")
            .set("auth.rejection", rejection)
            .set("journal.durability", "memory")
            .start();
        let tokens = tokens(&tenant);
        // The only connection that one of them allows.
        let full = &tokens.iter().find(|(name, _)| *name == "for no connection").expect("it is there").1;
        let _inside = server.upgrade("/notes").token(full).open();
        let mut log_was = 0;
        for (name, token) in &tokens {
            for request in requests(&server, token) {
                let answer = answer_to(&server, &request);
                let (asked, answer_text) =
                    (String::from_utf8_lossy(&request), String::from_utf8_lossy(&answer));
                assert!(!shows(&answer, token), "a token {name} is in the answer {answer_text} to {asked}");
            }
            assert!(!shows(&in_band(&server, &good, token), token), "a token {name} is in an answer in band");
            let metrics = server.get("/metrics");
            assert!(!shows(&metrics.body, token), "a token {name} is in the metrics");
            let log = server.stderr();
            assert!(log.len() > log_was, "nothing is logged");
            log_was = log.len();
            let line =
                log.lines().find(|line| shows(line.as_bytes(), token) || shows(line.as_bytes(), &good));
            assert_eq!(line, None, "a token {name} is in the log");
        }
        let refusals = server.metrics().family("wiresocket_closes_total").len();
        assert!(refusals >= 4, "only {refusals} kinds of refusal");
    }
}
