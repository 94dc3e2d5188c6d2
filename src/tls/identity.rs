//! What a process shows its clients: one configuration for ever, with the certificate that its files have now.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{CertificateError, TlsFiles};

/// How often to look whether the files have changed.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The certificate, its key, and where they came from.
#[derive(Debug)]
pub struct Identity {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    /// The files as they were looked at last, good or not.
    seen: Stamps,
}

/// The certificate for the next handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A writer that panicked has stored nothing: what is there is whole.
        Some(Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
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
        let key = load(&files, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets are all there is of a session: nothing is kept here, and no shard waits for another.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new().map_err(|_| CertificateError::Randomness)?;
        Ok(Self { files, provider, current, config: Arc::new(config), seen })
    }

    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Takes over what the files hold now if they have changed, and logs how that went. With files that can't be used
    /// all stays as it is, until they change again.
    pub fn look(&mut self) {
        let now = Stamps::of(&self.files);
        if now != self.seen {
            self.take_over(now);
        }
    }

    /// The same whether they have changed or not.
    pub fn reload(&mut self) {
        self.take_over(Stamps::of(&self.files));
    }

    fn take_over(&mut self, seen: Stamps) {
        self.seen = seen;
        let certificate = self.files.certificate.display();
        match load(&self.files, &self.provider) {
            Ok(key) => {
                let mut current = self.current.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                *current = Arc::new(key);
                tracing::info!(%certificate, "TLS: new connections get the certificate that is there now");
            }
            Err(error) => {
                tracing::error!(%certificate, "TLS: the certificate in use stays as it was: {error}");
            }
        }
    }
}

fn load(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let loaded = files.load(provider)?;
    if let Some(warning) = loaded.validity.warning(SystemTime::now()) {
        tracing::warn!(certificate = %files.certificate.display(), "TLS: about the certificate: {warning}");
    }
    Ok(loaded.key)
}

/// What tells a file that was written anew; links are followed, as tools that renew certificates turn them.
type Stamp = Option<(i64, i64, u64, u64)>;

#[derive(Debug, PartialEq, Eq)]
struct Stamps {
    certificate: Stamp,
    private_key: Stamp,
}

impl Stamps {
    fn of(files: &TlsFiles) -> Self {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.ino(), found.len()))
        };
        Self { certificate: stamp(&files.certificate), private_key: stamp(&files.private_key) }
    }
}
