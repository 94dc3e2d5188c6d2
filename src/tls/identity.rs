//! What a process shows its clients: one configuration for ever, with the certificate that its files have now.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{CertificateError, Loaded, TlsFiles};
use super::validity::Validity;

/// How often to look whether the files have changed.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How often to say that a certificate ends soon, or has ended: a process may run for longer than its certificate.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// The certificate, its key, and where they came from.
#[derive(Debug)]
pub struct Identity {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    /// The files as they were looked at last, good or not.
    seen: Stamps,
    /// When it was last looked at how long the certificate is still good for.
    dated: SystemTime,
}

/// The certificate for the next handshake.
#[derive(Debug)]
struct Current(RwLock<Shown>);

#[derive(Debug, Clone)]
struct Shown {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Current {
    fn shown(&self) -> Shown {
        // A writer that panicked has stored nothing: what is there is whole.
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn show(&self, loaded: Loaded) {
        let shown = Shown { key: Arc::new(loaded.key), validity: loaded.validity };
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = shown;
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown().key)
    }
}

/// When the certificate that new connections get expires, at any time; in seconds since 1970.
#[derive(Debug, Clone)]
pub struct Expiry(Arc<Current>);

impl Expiry {
    #[must_use]
    pub fn unix_s(&self) -> i64 {
        self.0.shown().validity.until
    }
}

impl Identity {
    /// Reads and checks the files; what is only worth a warning is logged.
    ///
    /// # Errors
    /// [`CertificateError`] names the file and what is wrong with it.
    pub fn open(files: TlsFiles) -> Result<Self, CertificateError> {
        let provider = Arc::new(default_provider());
        let seen = Stamps::of(&files);
        let Loaded { key, validity } = files.load(&provider)?;
        let current = Arc::new(Current(RwLock::new(Shown { key: Arc::new(key), validity })));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets are all there is of a session: nothing is kept here, and no shard waits for another.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new().map_err(|_| CertificateError::Randomness)?;
        let mut identity =
            Self { files, provider, current, config: Arc::new(config), seen, dated: UNIX_EPOCH };
        identity.warn(SystemTime::now());
        Ok(identity)
    }

    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    #[must_use]
    pub fn expiry(&self) -> Expiry {
        Expiry(Arc::clone(&self.current))
    }

    /// Takes over what the files hold now if they have changed, and logs how that went. With files that can't be used
    /// all stays as it is, until they change again.
    pub fn look(&mut self) {
        let now = Stamps::of(&self.files);
        if now != self.seen {
            self.take_over(now);
        }
        self.warn(SystemTime::now());
    }

    /// The same whether they have changed or not.
    pub fn reload(&mut self) {
        self.take_over(Stamps::of(&self.files));
    }

    fn take_over(&mut self, seen: Stamps) {
        self.seen = seen;
        let certificate = self.files.certificate.display();
        match self.files.load(&self.provider) {
            Ok(loaded) => {
                self.current.show(loaded);
                self.dated = UNIX_EPOCH;
                tracing::info!(%certificate, "TLS: new connections get the certificate that is there now");
            }
            Err(error) => {
                tracing::error!(%certificate, "TLS: the certificate in use stays as it was: {error}");
            }
        }
    }

    fn warn(&mut self, now: SystemTime) {
        if let Some(warning) = self.due_warning(now) {
            tracing::warn!(certificate = %self.files.certificate.display(), "TLS: about the certificate: {warning}");
        }
    }

    /// What is to be said of the certificate in use, once in a while.
    fn due_warning(&mut self, now: SystemTime) -> Option<String> {
        // A clock that was set back is one that has to be looked at again.
        let is_due = now.duration_since(self.dated).map_or(true, |since| since >= WARN_EVERY);
        if !is_due {
            return None;
        }
        self.dated = now;
        self.current.shown().validity.warning(now)
    }
}

/// What tells a file that was written anew, put in another's place, or given other rights: the time at which its inode
/// changed, and because the clock of that may stand still for some milliseconds, its size and mode. Links are followed, as
/// tools that renew certificates turn them.
type Stamp = Option<(i64, i64, u64, u64, u64, u32)>;

#[derive(Debug, PartialEq, Eq)]
struct Stamps {
    certificate: Stamp,
    private_key: Stamp,
}

impl Stamps {
    fn of(files: &TlsFiles) -> Self {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let (seconds, nanoseconds) = (found.ctime(), found.ctime_nsec());
            Some((seconds, nanoseconds, found.dev(), found.ino(), found.len(), found.mode()))
        };
        Self { certificate: stamp(&files.certificate), private_key: stamp(&files.private_key) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    /// 2030-01-01.
    const END_UNIX_S: u64 = 1_893_456_000;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Writes a certificate for this year's end, in place.
        fn write(&self, year: i32) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            std::fs::write(self.path("tls.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(self.path("tls.key"), key.serialize_pem()).unwrap();
            self.allow(0o600);
        }

        fn allow(&self, mode: u32) {
            std::fs::set_permissions(self.path("tls.key"), Permissions::from_mode(mode)).unwrap();
        }
    }

    fn open(year: i32) -> (Files, Identity) {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        files.write(year);
        let named = TlsFiles { certificate: files.path("tls.pem"), private_key: files.path("tls.key") };
        let identity = Identity::open(named).unwrap();
        (files, identity)
    }

    #[test]
    fn a_key_whose_rights_are_mended_is_taken_over() {
        let (files, mut identity) = open(2030);
        let expiry = identity.expiry();
        assert_eq!(expiry.unix_s(), END_UNIX_S as i64);
        files.write(2031);
        files.allow(0o644);
        identity.look();
        assert_eq!(expiry.unix_s(), END_UNIX_S as i64, "everybody may read its key");
        files.allow(0o600);
        identity.look();
        assert_eq!(expiry.unix_s(), END_UNIX_S as i64 + 365 * 86_400);
    }

    #[test]
    fn the_last_good_certificate_stays_until_there_is_another() {
        let (files, mut identity) = open(2030);
        let shown = identity.current.shown().key;
        let is_same = |identity: &Identity| Arc::ptr_eq(&shown, &identity.current.shown().key);
        let whole = std::fs::read(files.path("tls.pem")).unwrap();
        for half in [&b""[..], &whole[..whole.len() / 2]] {
            std::fs::write(files.path("tls.pem"), half).unwrap();
            identity.look();
            assert!(is_same(&identity));
        }
        for gone in ["tls.pem", "tls.key"] {
            std::fs::remove_file(files.path(gone)).unwrap();
            identity.look();
            assert!(is_same(&identity), "{gone} is missing");
        }
        files.write(2032);
        identity.look();
        assert!(!is_same(&identity));
    }

    #[test]
    fn what_ends_soon_is_said_once_a_day_and_of_a_new_certificate_at_once() {
        let (files, mut identity) = open(2030);
        let at = |days: u32| UNIX_EPOCH + Duration::from_secs(END_UNIX_S) - DAY * 10 + DAY * days;
        assert_eq!(identity.due_warning(at(0)), None);
        for days in 4..20 {
            let said = identity.due_warning(at(days)).expect("it ends soon, or has");
            assert!(said.contains("expire"), "{said}");
            assert_eq!(identity.due_warning(at(days) + DAY / 2), None);
        }
        files.write(2029);
        identity.take_over(Stamps::of(&identity.files));
        assert!(identity.due_warning(at(19) + DAY / 2).is_some());
    }
}
