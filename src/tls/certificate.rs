//! A certificate chain and its private key, from PEM files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::validity::Validity;
use crate::secret_file;

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then those that lead to the authority's.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1, without a pass phrase.
    pub private_key: PathBuf,
}

/// Why they can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read the certificate {}: {source}", path.display())]
    Certificate { path: PathBuf, source: io::Error },
    #[error("cannot read the private key {}: {source}", path.display())]
    Key { path: PathBuf, source: io::Error },
    #[error(
        "there is no certificate in {}: it must be a PEM file with \"-----BEGIN CERTIFICATE-----\", the server's own first",
        .0.display()
    )]
    NoCertificate(PathBuf),
    #[error(
        "there is no private key in {}: it must be a PEM file with \"-----BEGIN PRIVATE KEY-----\" (or RSA or EC), without a \
         pass phrase",
        .0.display()
    )]
    NoKey(PathBuf),
    #[error("{} is not a whole PEM file: {reason}", path.display())]
    Pem { path: PathBuf, reason: String },
    #[error("the first certificate in {} is none that can be understood: {reason}", path.display())]
    CertificateForm { path: PathBuf, reason: String },
    #[error("the private key in {} can't be used: {reason}; take an RSA (2048 bits or more), ECDSA or Ed25519 one", path.display())]
    KeyForm { path: PathBuf, reason: String },
    #[error(
        "the private key {} does not belong to the first certificate in {}: take the key that the certificate was asked for \
         with, and see that the server's certificate comes before those of its authorities",
        key.display(), certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("no randomness from the system for the session tickets")]
    Randomness,
}

/// A key that belongs to its certificate.
#[derive(Debug)]
pub(super) struct Loaded {
    pub key: CertifiedKey,
    pub validity: Validity,
}

impl CertificateError {
    /// The file is not on this host, or not for whoever asks: that says nothing about the file.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        match self {
            Self::Certificate { source, .. } | Self::Key { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    && !secret_file::is_exposed(source)
            }
            _ => false,
        }
    }
}

impl TlsFiles {
    /// Looks whether both could be used now, and says what is worth a warning.
    ///
    /// # Errors
    /// [`CertificateError`] names the file and what is wrong with it.
    pub fn check(&self) -> Result<Option<String>, CertificateError> {
        let loaded = self.load(&default_provider())?;
        let warning = loaded.validity.warning(SystemTime::now());
        Ok(warning.map(|warning| format!("the certificate {}: {warning}", self.certificate.display())))
    }

    /// Reads and checks both.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Loaded, CertificateError> {
        let (path, key_path) = (&self.certificate, &self.private_key);
        let unreadable = |source| CertificateError::Certificate { path: path.clone(), source };
        let text = std::fs::read(path).map_err(unreadable)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|error| broken_pem(path, &error))?;
        let first = chain.first().ok_or_else(|| CertificateError::NoCertificate(path.clone()))?;
        let validity = Validity::of(first).ok_or_else(|| CertificateError::CertificateForm {
            path: path.clone(),
            reason: "its period of validity can't be found".to_owned(),
        })?;
        let key = read_key(key_path)?;
        let signing = provider.key_provider.load_private_key(key).map_err(|error| {
            CertificateError::KeyForm { path: key_path.clone(), reason: error.to_string() }
        })?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Loaded { key, validity }),
            Err(Error::InconsistentKeys(_)) => {
                Err(CertificateError::Mismatch { certificate: path.clone(), key: key_path.clone() })
            }
            Err(error) => {
                Err(CertificateError::CertificateForm { path: path.clone(), reason: error.to_string() })
            }
        }
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let unreadable = |source| CertificateError::Key { path: path.to_owned(), source };
    let text = secret_file::read(path).map_err(unreadable)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::NoKey(path.to_owned()),
        error => broken_pem(path, &error),
    })
}

fn broken_pem(path: &Path, error: &pem::Error) -> CertificateError {
    // Never what stands in the file: it may be a key.
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly",
        pem::Error::Base64Decode(_) => "what stands between the marks is not base64",
        _ => "it is damaged",
    };
    CertificateError::Pem { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn write(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn each_mistake_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let certificate =
            CertificateParams::new(["sync.example.com".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let good = write(dir.path(), "good.pem", &certificate, 0o644);
        let own = write(dir.path(), "own.key", &key.serialize_pem(), 0o600);
        let load = |certificate: &Path, private_key: &Path| {
            let files = TlsFiles { certificate: certificate.to_owned(), private_key: private_key.to_owned() };
            files.load(&default_provider())
        };
        assert!(load(&good, &own).is_ok());
        let half = &certificate[..certificate.len() / 2];
        let cases = [
            (dir.path().join("none"), own.clone(), "cannot read the certificate"),
            (good.clone(), dir.path().join("none"), "cannot read the private key"),
            (good.clone(), write(dir.path(), "open.key", &key.serialize_pem(), 0o604), "chmod 600"),
            (good.clone(), write(dir.path(), "other.key", &other.serialize_pem(), 0o600), "does not belong"),
            (own.clone(), own.clone(), "there is no certificate in"),
            (good.clone(), write(dir.path(), "as.key", &certificate, 0o600), "there is no private key in"),
            (write(dir.path(), "half.pem", half, 0o644), own.clone(), "a section has no end"),
            (write(dir.path(), "empty.pem", "", 0o644), own.clone(), "there is no certificate in"),
        ];
        for (certificate, key, expected) in cases {
            let error = load(&certificate, &key).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
