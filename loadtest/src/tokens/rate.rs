//! How many tokens a token endpoint gives: clients that ask, each on a connection of its own, one request after the other.
//!
//! Closed loop: a client asks when it has been answered, so the rate is the endpoint's, and the latency is that under this
//! many clients. Threads, because nothing here is in the way of a server under load but the server.

use super::endpoint::{Endpoint, EndpointError};
use crate::measure::process::{Process, ProcessError};
use crate::measure::{Latency, LatencySummary};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use thiserror::Error;

/// What the clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    ClientCredentials,
    /// Each answer's refresh token is spent on the next.
    RefreshToken,
}

/// Why there is no rate.
#[derive(Debug, Error)]
pub enum RateError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("a client's thread ended early; its message says why")]
    Client,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Rate {
    pub grant: Grant,
    pub clients: usize,
    pub seconds: f64,
    pub tokens: u64,
    pub tokens_per_s: f64,
    pub latency: Option<LatencySummary>,
    /// Of the server's process, if it was named.
    pub cpu_per_token_us: Option<f64>,
    /// The share of one core that this load tester took: what it takes, a server beside it lacks.
    pub own_cores: f64,
}

/// Asks for `seconds`, after a second that is not counted. The first refusal ends it.
///
/// # Errors
/// [`RateError`].
pub fn measure(
    endpoints: Vec<Endpoint>,
    grant: Grant,
    seconds: Duration,
    server: Option<Process>,
) -> Result<Rate, RateError> {
    const WARM_UP: Duration = Duration::from_secs(1);
    let (clients, own) = (endpoints.len(), Process::own()?);
    let counts = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(AtomicBool::new(false));
    let ready = Arc::new(Barrier::new(clients + 1));
    let client = |endpoint: Endpoint| {
        let (counts, ends, ready) = (Arc::clone(&counts), Arc::clone(&ends), Arc::clone(&ready));
        std::thread::spawn(move || {
            let asked = ask(&endpoint, grant, &counts, &ends, &ready);
            if asked.is_err() {
                ends.store(true, Ordering::Relaxed);
            }
            asked
        })
    };
    let threads: Vec<_> = endpoints.into_iter().map(client).collect();
    ready.wait();
    sleep_unless(&ends, WARM_UP);
    let cpu = || server.as_ref().map(Process::cpu).transpose();
    let (began, server_before, own_before) = (Instant::now(), cpu()?, own.cpu()?);
    counts.store(true, Ordering::Relaxed);
    sleep_unless(&ends, seconds);
    counts.store(false, Ordering::Relaxed);
    let (took, server_after, own_after) = (began.elapsed().as_secs_f64(), cpu(), own.cpu()?);
    ends.store(true, Ordering::Relaxed);
    let mut latency = Latency::default();
    for thread in threads {
        latency.add(&thread.join().map_err(|_| RateError::Client)??);
    }
    let tokens = latency.count();
    let used_s = server_before.zip(server_after?).map(|(before, after)| (after - before).total_s);
    Ok(Rate {
        grant,
        clients,
        seconds: took,
        tokens,
        tokens_per_s: tokens as f64 / took,
        latency: latency.summary(),
        cpu_per_token_us: used_s.map(|used_s| used_s * 1e6 / tokens.max(1) as f64),
        own_cores: (own_after - own_before).total_s / took,
    })
}

/// One client.
fn ask(
    endpoint: &Endpoint,
    grant: Grant,
    counts: &AtomicBool,
    ends: &AtomicBool,
    ready: &Barrier,
) -> Result<Latency, EndpointError> {
    let first = match grant {
        Grant::ClientCredentials => Ok(String::new()),
        Grant::RefreshToken => endpoint.grant_to_refresh(),
    };
    ready.wait(); // also if there is none: the others wait for it
    let (mut refresh_token, mut latency): (String, _) = (first?, Latency::default());
    while !ends.load(Ordering::Relaxed) {
        let (asked, is_counted) = (Instant::now(), counts.load(Ordering::Relaxed));
        let issued = match grant {
            Grant::ClientCredentials => endpoint.grant()?,
            Grant::RefreshToken => endpoint.refresh(&refresh_token)?,
        };
        if is_counted && counts.load(Ordering::Relaxed) {
            latency.record_ns(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        refresh_token = issued.refresh_token.unwrap_or(refresh_token);
    }
    Ok(latency)
}

fn sleep_unless(ends: &AtomicBool, time: Duration) {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let until = Instant::now() + time;
    while !ends.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Gives refresh tokens that are good once each, `good` of them on each connection.
    fn serve(good: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/connect/token", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                std::thread::spawn(move || answer(stream, good));
            }
        });
        url
    }

    fn answer(mut stream: TcpStream, good: usize) {
        let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
        for given in 0.. {
            let (mut line, mut length) = (String::new(), 0);
            while lines.read_line(&mut line).expect("a line") > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            if length == 0 {
                return;
            }
            let mut form = vec![0; length];
            lines.read_exact(&mut form).expect("a form");
            let form = String::from_utf8(form).expect("text");
            let is_spent = given > 0
                && form.contains("refresh_token=R")
                && !form.contains(&format!("refresh_token=R{}&", given - 1));
            let (status, body) = if is_spent || given >= good {
                ("400 Bad Request", "{\"error\":\"invalid_grant\"}".to_owned())
            } else {
                ("200 OK", format!("{{\"access_token\":\"A\",\"refresh_token\":\"R{given}\"}}"))
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn endpoints(url: &str, count: usize) -> Vec<Endpoint> {
        let one = |_| Endpoint::new(url.to_owned(), "app".to_owned(), "secret".to_owned(), None);
        (0..count).map(one).collect()
    }

    #[test]
    fn each_client_spends_its_own_refresh_tokens() {
        let url = serve(usize::MAX);
        for grant in [Grant::ClientCredentials, Grant::RefreshToken] {
            let own = Process::own().expect("this process");
            let rate =
                measure(endpoints(&url, 3), grant, Duration::from_millis(100), Some(own)).expect("a rate");
            assert!(rate.tokens > 0 && rate.tokens_per_s > 0.0, "{rate:?}");
            assert_eq!(rate.latency.map(|latency| latency.count), Some(rate.tokens));
            assert!(rate.cpu_per_token_us.is_some_and(|us| us > 0.0), "{rate:?}");
        }
    }

    #[test]
    fn a_refusal_ends_it_with_what_was_said() {
        let url = serve(3);
        let measured = measure(endpoints(&url, 2), Grant::RefreshToken, Duration::from_secs(60), None);
        let error = measured.expect_err("refused").to_string();
        assert!(error.contains("400") && error.contains("invalid_grant"), "{error}");
    }
}
