//! Tokens from an OAuth 2 token endpoint (RFC 6749): client credentials first, then the refresh token, if
//! one came along.

use super::Issued;
use serde::Deserialize;
use std::time::Duration;
use thiserror::Error;
use ureq::http::StatusCode;

const TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// RFC 6749 leaves the life open if the answer doesn't say; this is short enough for any server.
const LIFE_DEFAULT_S: u64 = 300;

#[derive(Debug, Error)]
pub enum EndpointError {
    #[error("cannot ask {url} for a token: {source}")]
    Http { url: String, source: Box<ureq::Error> },
    #[error("{url} gave no token: {status} {answer}")]
    Refused { url: String, status: StatusCode, answer: String },
    #[error("{url} answered with something else than a token (RFC 6749, 5.1): {source}")]
    Answer { url: String, source: serde_json::Error },
    #[error("{url} gave no refresh token; does the scope ask for offline_access?")]
    NoRefreshToken { url: String },
}

pub struct Endpoint {
    agent: ureq::Agent,
    url: String,
    client_id: String,
    client_secret: String,
    scope: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl Endpoint {
    pub fn new(url: String, client_id: String, client_secret: String, scope: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0) // the secret goes where the user said, nowhere else
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("wiresocket-loadtest/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), url, client_id, client_secret, scope }
    }

    /// Asks with the refresh token, if there is one; if that is refused or there is none, with the secret.
    pub fn issue(&self, refresh_token: Option<&str>) -> Result<Issued, EndpointError> {
        if let Some(refresh_token) = refresh_token {
            match self.refresh(refresh_token) {
                Err(EndpointError::Refused { .. }) => {}
                answer => return answer,
            }
        }
        self.grant()
    }

    /// The `refresh_token` grant.
    pub fn refresh(&self, refresh_token: &str) -> Result<Issued, EndpointError> {
        self.ask(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", &self.client_id),
        ])
    }

    /// The `client_credentials` grant.
    pub fn grant(&self) -> Result<Issued, EndpointError> {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", &self.client_secret),
        ];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        self.ask(&form)
    }

    /// As [`Endpoint::grant`], of which a refresh token must come.
    pub fn grant_to_refresh(&self) -> Result<String, EndpointError> {
        let missing = || EndpointError::NoRefreshToken { url: self.url.clone() };
        self.grant()?.refresh_token.ok_or_else(missing)
    }

    fn ask(&self, form: &[(&str, &str)]) -> Result<Issued, EndpointError> {
        let failed = |source| EndpointError::Http { url: self.url.clone(), source: Box::new(source) };
        let mut response = self
            .agent
            .post(&self.url)
            .header("Accept", "application/json")
            .send_form(form.iter().copied())
            .map_err(failed)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(failed)?;
        if status != StatusCode::OK {
            let answer = String::from_utf8_lossy(&body).into_owned();
            return Err(EndpointError::Refused { url: self.url.clone(), status, answer });
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|source| EndpointError::Answer { url: self.url.clone(), source })?;
        Ok(Issued {
            token: answer.access_token.into(),
            life: Duration::from_secs(answer.expires_in.unwrap_or(LIFE_DEFAULT_S)),
            refresh_token: answer.refresh_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// Answers one request after the other; what was asked.
    fn serve(answers: &'static [(&str, &str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/connect/token", listener.local_addr().expect("an address"));
        let serve = move || {
            answers
                .iter()
                .map(|(status, body)| {
                    let (mut stream, _) = listener.accept().expect("a request");
                    let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
                    let (mut line, mut length) = (String::new(), 0);
                    while lines.read_line(&mut line).expect("a line") > 2 {
                        let lower = line.to_ascii_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                        line.clear();
                    }
                    let mut asked = vec![0; length];
                    lines.read_exact(&mut asked).expect("a form");
                    write!(
                        stream,
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    )
                    .expect("answered");
                    String::from_utf8(asked).expect("text")
                })
                .collect()
        };
        (url, std::thread::spawn(serve))
    }

    fn endpoint(url: String) -> Endpoint {
        Endpoint::new(url, "app".to_owned(), "s&cret".to_owned(), Some("WireSocket.API".to_owned()))
    }

    #[test]
    fn credentials_first_then_the_refresh_token_then_credentials_again() {
        let (url, server) = serve(&[
            ("200 OK", r#"{"access_token":"A","expires_in":900,"refresh_token":"R","token_type":"Bearer"}"#),
            ("200 OK", r#"{"access_token":"B"}"#),
            ("400 Bad Request", r#"{"error":"invalid_grant"}"#),
            ("200 OK", r#"{"access_token":"C","expires_in":1}"#),
        ]);
        let endpoint = endpoint(url);
        let first = endpoint.issue(None).expect("a token");
        assert_eq!(
            (&*first.token, first.life.as_secs(), first.refresh_token.as_deref()),
            ("A", 900, Some("R"))
        );
        assert_eq!(&*endpoint.issue(first.refresh_token.as_deref()).expect("a token").token, "B");
        assert_eq!(&*endpoint.issue(Some("spent")).expect("a token").token, "C");
        let asked = server.join().expect("served");
        let credentials =
            "grant_type=client_credentials&client_id=app&client_secret=s%26cret&scope=WireSocket.API";
        assert_eq!(asked[0], credentials);
        assert_eq!(asked[1], "grant_type=refresh_token&refresh_token=R&client_id=app");
        assert_eq!(asked[3], credentials);
    }

    #[test]
    fn a_refusal_says_what_the_endpoint_said() {
        let (url, server) = serve(&[("401 Unauthorized", r#"{"error":"invalid_client"}"#)]);
        let error = endpoint(url).issue(None).expect_err("refused").to_string();
        assert!(error.contains("401") && error.contains("invalid_client"), "{error}");
        server.join().expect("served");
    }
}
