//! Mail that the dashboard sends: by SMTP, or into files, which is for development and tests.
//!
//! Plain text only. A relay's certificate is of a public authority, or of one that the configuration names. The sender's address and the relay are the configuration's; what is written is the caller's. Absent:
//! a queue. Whoever sends waits for the relay's word, and tells the person in front of the screen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::config::{MailSettings, MailTarget};
use super::master::KeySource;
use super::random;
use crate::secret_file;

const BEGIN_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A relay that says nothing for this long is not waited for.
const RELAY_ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A letter to one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// Why mail can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("this dashboard sends no mail; its operator sets [mail] in the configuration")]
    NotConfigured,
    #[error("mail.from = {0:?} is no sender: write an address, or a name and <an address>")]
    From(String),
    #[error("could not read the SMTP URL from {from}")]
    Source { from: KeySource, source: std::io::Error },
    #[error("the SMTP URL is none: write smtps://USER:PASSWORD@HOST, or smtp://HOST?tls=required")]
    Url(#[source] lettre::transport::smtp::Error),
    #[error("could not read the certificates of mail.ca_file, {path}")]
    Certificates { path: PathBuf, source: std::io::Error },
    #[error("mail.ca_file, {path}, holds no certificate; write those of your authority, in PEM")]
    NoCertificate { path: PathBuf, source: Option<lettre::transport::smtp::Error> },
    #[error(
        "mail.ca_file is of no use, because the SMTP URL asks for no TLS: write smtps://…, or smtp://…?tls=required"
    )]
    NoTls,
    #[error("mail can't be sent to {0}")]
    Recipient(String),
    #[error("could not put a letter together")]
    Form(#[from] lettre::error::Error),
    #[error(
        "the mail relay refuses the user name or password of the SMTP URL (mail.smtp_url); correct them, and start the \
         dashboard again"
    )]
    LogIn(#[source] lettre::transport::smtp::Error),
    #[error("the mail relay did not take the letter")]
    Relay(#[source] lettre::transport::smtp::Error),
    #[error("could not write the letter to {path}")]
    File { path: PathBuf, source: std::io::Error },
}

/// Sends letters.
pub struct Mailer(Option<(Mailbox, Way)>);

enum Way {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Directory(PathBuf),
}

impl fmt::Debug for Mailer {
    /// Without the relay's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.0.as_ref().map(|(_, way)| match way {
            Way::Smtp(_) => "smtp",
            Way::Directory(_) => "directory",
        });
        f.debug_tuple("Mailer").field(&way).finish()
    }
}

impl Mailer {
    /// Prepares to send; connects to nothing yet.
    ///
    /// # Errors
    /// [`MailError`] says what of the settings is wrong.
    pub fn open(settings: Option<&MailSettings>) -> Result<Self, MailError> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let from = settings.from.parse().map_err(|_| MailError::From(settings.from.clone()))?;
        let way = match &settings.target {
            MailTarget::Directory(path) => Way::Directory(path.clone()),
            MailTarget::Smtp { url, ca_file } => {
                let url = read(url)?;
                let mut relay =
                    AsyncSmtpTransport::<Tokio1Executor>::from_url(url.trim()).map_err(MailError::Url)?;
                if let Some(path) = ca_file {
                    relay = relay.tls(tls_with(url.trim(), path)?);
                }
                Way::Smtp(Box::new(relay.timeout(Some(RELAY_ANSWERS_WITHIN)).build()))
            }
        };
        Ok(Self(Some((from, way))))
    }

    /// Whether letters can be sent at all.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.0.is_some()
    }

    /// Sends a letter; when this returns, the relay has taken it.
    ///
    /// # Errors
    /// [`MailError`].
    pub async fn send(&self, letter: Letter) -> Result<(), MailError> {
        let (from, way) = self.0.as_ref().ok_or(MailError::NotConfigured)?;
        let to: Mailbox = letter.to.parse().map_err(|_| MailError::Recipient(letter.to.clone()))?;
        let message = Message::builder()
            .from(from.clone())
            .to(to)
            .subject(letter.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text)?;
        match way {
            Way::Smtp(relay) => {
                let refused = |error: smtp::Error| match error.status().map(u16::from) {
                    // RFC 4954 section 6.
                    Some(530 | 534 | 535 | 538) => MailError::LogIn(error),
                    _ => MailError::Relay(error),
                };
                relay.send(message).await.map(drop).map_err(refused)
            }
            Way::Directory(directory) => write(directory, message.formatted()).await,
        }
    }
}

/// What the URL asks for, with further authorities.
fn tls_with(url: &str, ca_file: &Path) -> Result<Tls, MailError> {
    let uri: Uri = url.parse().map_err(|_| MailError::NoTls)?;
    let mode = match (uri.scheme_str(), uri.query().unwrap_or_default()) {
        (Some("smtps"), _) => Tls::Wrapper,
        (_, query) if query.split('&').any(|part| part == "tls=required") => Tls::Required,
        (_, query) if query.split('&').any(|part| part == "tls=opportunistic") => Tls::Opportunistic,
        _ => return Err(MailError::NoTls),
    };
    let path = || ca_file.to_owned();
    let pem = std::fs::read(ca_file).map_err(|source| MailError::Certificates { path: path(), source })?;
    let unusable = |source| MailError::NoCertificate { path: path(), source };
    // A file without any would be taken, and trust nobody.
    if !pem.windows(BEGIN_CERTIFICATE.len()).any(|part| part == BEGIN_CERTIFICATE) {
        return Err(unusable(None));
    }
    let certificate = Certificate::from_pem(&pem).map_err(|source| unusable(Some(source)))?;
    let host = uri.host().unwrap_or_default().to_owned();
    let parameters = TlsParameters::builder(host).add_root_certificate(certificate).build();
    Ok(mode(parameters.map_err(|source| unusable(Some(source)))?))
}

fn read(source: &KeySource) -> Result<String, MailError> {
    let failed = |error| MailError::Source { from: source.clone(), source: error };
    match source {
        KeySource::File(path) => secret_file::read(path).map_err(failed),
        KeySource::Environment(variable) => {
            std::env::var(variable).map_err(|error| failed(std::io::Error::other(error)))
        }
    }
}

async fn write(directory: &Path, letter: Vec<u8>) -> Result<(), MailError> {
    let path = directory.join(format!("{}.eml", random::word()));
    let failed = |path: PathBuf| move |source| MailError::File { path, source };
    let (directory, target) = (directory.to_owned(), path.clone());
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(directory)?;
        std::fs::write(target, letter)
    });
    written.await.expect("writing a file does not panic").map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(from: &str, target: MailTarget) -> Option<MailSettings> {
        Some(MailSettings { from: from.to_owned(), target })
    }

    #[tokio::test]
    async fn a_letter_is_a_file_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let target = MailTarget::Directory(directory.path().join("mail"));
        let mailer = Mailer::open(settings("WireSocket <no-reply@example.com>", target).as_ref()).unwrap();
        let letter = Letter { to: "a@example.com".into(), subject: "Grüße".into(), text: "Hello".into() };
        mailer.send(letter).await.unwrap();
        let file = std::fs::read_dir(directory.path().join("mail")).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("To: a@example.com") && text.ends_with("Hello"), "{text}");
    }

    #[tokio::test]
    async fn a_recipient_can_add_no_header() {
        let directory = tempfile::tempdir().unwrap();
        let target = MailTarget::Directory(directory.path().to_owned());
        let mailer = Mailer::open(settings("a@example.com", target).as_ref()).unwrap();
        let to = "a@example.com\r\nBcc: b@example.com".to_owned();
        let sent = mailer.send(Letter { to, subject: String::new(), text: String::new() }).await;
        assert!(matches!(sent, Err(MailError::Recipient(_))), "{sent:?}");
    }

    #[tokio::test]
    async fn without_settings_it_says_so() {
        let mailer = Mailer::open(None).unwrap();
        let letter = Letter { to: "a@example.com".into(), subject: String::new(), text: String::new() };
        assert!(matches!(mailer.send(letter).await, Err(MailError::NotConfigured)));
        assert!(!mailer.is_configured());
    }

    #[test]
    fn an_authority_needs_tls_and_a_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let (url, ca_file) = (directory.path().join("url"), directory.path().join("ca.pem"));
        let open = |text: &str| {
            std::fs::write(&url, text).unwrap();
            std::fs::set_permissions(&url, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let url = KeySource::File(url.clone());
            let target = MailTarget::Smtp { url, ca_file: Some(ca_file.clone()) };
            Mailer::open(settings("a@example.com", target).as_ref())
        };
        let (plain, secure) = ("smtp://localhost", "smtp://u:p@localhost:2525?tls=required");
        assert!(matches!(open(plain), Err(MailError::NoTls)));
        assert!(matches!(open(secure), Err(MailError::Certificates { .. })));
        std::fs::write(&ca_file, "none").unwrap();
        for url in [secure, "smtps://localhost"] {
            let refused = open(url);
            assert!(matches!(refused, Err(MailError::NoCertificate { .. })), "{url}: {refused:?}");
        }
    }

    #[test]
    fn a_wrong_sender_is_refused_at_the_start() {
        let target = MailTarget::Directory("x".into());
        assert!(matches!(Mailer::open(settings("nobody", target).as_ref()), Err(MailError::From(_))));
    }
}
