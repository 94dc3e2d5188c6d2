//! A tiny HTTP server of JWKS documents that counts how often it is asked.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::http::head_end;
use super::keys::Tenant;

#[derive(Default)]
struct State {
    sets: Mutex<HashMap<String, Value>>,
    fetches: AtomicUsize,
    /// While this is locked, no answer goes out.
    gate: Mutex<()>,
}

/// Serves `/<tenantid>/jwks` until the test ends.
pub struct JwksServer {
    address: SocketAddr,
    state: Arc<State>,
}

impl JwksServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// For `auth.jwks_url`.
    pub fn url(&self) -> String {
        format!("http://{}/{{tenantId}}/jwks", self.address)
    }

    pub fn publish(&self, tenant: &Tenant, jwks: Value) {
        let path = format!("/{}/jwks", tenant.id);
        self.state.sets.lock().expect("no thread panics").insert(path, jwks);
    }

    /// How many requests came in.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// Requests are taken but not answered while the guard lives.
    pub fn hold(&self) -> impl Drop + '_ {
        self.state.gate.lock().expect("no thread panics")
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head_end(&head).is_none() {
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => head.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    state.fetches.fetch_add(1, Ordering::SeqCst);
    drop(state.gate.lock().expect("no thread panics"));
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let set = state.sets.lock().expect("no thread panics").get(path).cloned();
    let (status, body) = match set {
        Some(set) => ("200 OK", set.to_string()),
        None => ("404 Not Found", "{}".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}
