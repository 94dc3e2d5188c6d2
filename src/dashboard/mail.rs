//! Mail that the dashboard sends: by SMTP, or into files, which is for development and tests.
//!
//! Plain text only. The sender's address and the relay are the configuration's; what is written is the caller's. Absent:
//! a queue. Whoever sends waits for the relay's word, and tells the person in front of the screen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::config::{MailSettings, MailTarget};
use super::master::KeySource;
use super::random;

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
    #[error("mail can't be sent to {0}")]
    Recipient(String),
    #[error("could not put a letter together")]
    Form(#[from] lettre::error::Error),
    #[error("the mail relay did not take the letter")]
    Relay(#[from] lettre::transport::smtp::Error),
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
            MailTarget::Smtp(source) => {
                let url = read(source)?;
                let relay =
                    AsyncSmtpTransport::<Tokio1Executor>::from_url(url.trim()).map_err(MailError::Url)?;
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
                relay.send(message).await?;
                Ok(())
            }
            Way::Directory(directory) => write(directory, message.formatted()).await,
        }
    }
}

fn read(source: &KeySource) -> Result<String, MailError> {
    let failed = |error| MailError::Source { from: source.clone(), source: error };
    match source {
        KeySource::File(path) => std::fs::read_to_string(path).map_err(failed),
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
    fn a_wrong_sender_is_refused_at_the_start() {
        let target = MailTarget::Directory("x".into());
        assert!(matches!(Mailer::open(settings("nobody", target).as_ref()), Err(MailError::From(_))));
    }
}
