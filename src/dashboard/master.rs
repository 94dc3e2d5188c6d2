//! The master keys: what private signing keys are sealed with at rest.
//!
//! AES-256-GCM with a random nonce; the associated data names what is sealed, so that a sealed text copied to another
//! row does not open. Several versions may be configured: new seals use the newest, older ones open what they sealed
//! until everything has been resealed (`keys::reseal`), and can then be removed.
//!
//! A master key is 32 bytes, base64 (either alphabet) or hex, in a file of its own or in an environment variable.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::random;
use crate::secret_file;

const KEY_BYTES: usize = 32;

/// Where a master key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    File(PathBuf),
    Environment(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(variable) => write!(f, "the environment variable {variable}"),
        }
    }
}

/// Why a master key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error(
        "could not read master key {version} from {from}; make one with `wiresocket admin generate-master-key FILE`"
    )]
    Read { version: i64, from: KeySource, source: std::io::Error },
    #[error("master key {version}: {} can be read by everybody; take that right away with chmod 600", path.display())]
    Exposed { version: i64, path: PathBuf },
    #[error("master key {version}: the environment variable {variable} is not set")]
    Unset { version: i64, variable: String },
    #[error(
        "master key {version}: {from} does not hold 32 bytes in base64 or hex; make one with `wiresocket admin generate-master-key FILE`"
    )]
    Form { version: i64, from: KeySource },
    #[error("could not write a new master key to {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Why a sealed text does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(
        "it is sealed with master key {0}, which is not configured; put it back until everything is resealed"
    )]
    NoKey(i64),
    #[error("it does not open with master key {0}: it was changed, or that master key was")]
    Wrong(i64),
    #[error("it is no sealed text")]
    Form,
}

/// All configured master keys; at least one.
pub struct MasterKeys {
    keys: BTreeMap<i64, LessSafeKey>,
    newest: i64,
}

impl fmt::Debug for MasterKeys {
    /// The versions only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MasterKeys").field(&self.keys.keys()).finish()
    }
}

impl MasterKeys {
    /// Reads the keys. `sources` must not be empty: the configuration sees to that.
    ///
    /// # Errors
    /// [`MasterKeyError`] names the version and where it should come from.
    pub fn read(sources: &BTreeMap<i64, KeySource>) -> Result<Self, MasterKeyError> {
        let mut keys = BTreeMap::new();
        for (&version, source) in sources {
            let form = || MasterKeyError::Form { version, from: source.clone() };
            let text = match source {
                KeySource::File(path) => read_file(version, path)?,
                KeySource::Environment(variable) => std::env::var(variable)
                    .map_err(|_| MasterKeyError::Unset { version, variable: variable.clone() })?,
            };
            keys.insert(version, parse(text.trim()).ok_or_else(form)?);
        }
        let newest = keys.keys().next_back().copied().unwrap_or_default();
        Ok(Self { keys, newest })
    }

    /// Keys that live as long as the process: for tests and `dev`.
    #[must_use]
    pub fn ephemeral(versions: &[i64]) -> Self {
        let keys: BTreeMap<_, _> = versions
            .iter()
            .filter_map(|&version| Some((version, usable(&random::bytes::<KEY_BYTES>())?)))
            .collect();
        let newest = keys.keys().next_back().copied().unwrap_or_default();
        Self { keys, newest }
    }

    /// The version that seals.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Seals with the newest key. `purpose` must be given again to open.
    ///
    /// # Panics
    /// Never: ring refuses only texts of gigabytes.
    #[must_use]
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> String {
        let nonce = random::bytes::<NONCE_LEN>();
        let mut text = plain.to_vec();
        let key = &self.keys[&self.newest];
        let aad = Aad::from(associated(self.newest, purpose));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .expect("a text of this size can be sealed");
        format!("{}.{}.{}", self.newest, URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(text))
    }

    /// # Errors
    /// [`OpenError`] says which master key is missing or wrong.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Vec<u8>, OpenError> {
        let mut parts = sealed.split('.');
        let (Some(version), Some(nonce), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(OpenError::Form);
        };
        let version: i64 = version.parse().map_err(|_| OpenError::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| OpenError::Form);
        let nonce = Nonce::try_assume_unique_for_key(&decode(nonce)?).map_err(|_| OpenError::Form)?;
        let mut text = decode(text)?;
        let key = self.keys.get(&version).ok_or(OpenError::NoKey(version))?;
        let aad = Aad::from(associated(version, purpose));
        let plain = key.open_in_place(nonce, aad, &mut text).map_err(|_| OpenError::Wrong(version))?;
        Ok(plain.to_vec())
    }
}

fn associated(version: i64, purpose: &str) -> String {
    format!("wiresocket/{version}/{purpose}")
}

fn read_file(version: i64, path: &Path) -> Result<String, MasterKeyError> {
    let unreadable = |source| {
        let from = KeySource::File(path.to_owned());
        MasterKeyError::Read { version, from, source }
    };
    secret_file::read(path).map_err(|error| match secret_file::is_exposed(&error) {
        true => MasterKeyError::Exposed { version, path: path.to_owned() },
        false => unreadable(error),
    })
}

fn parse(text: &str) -> Option<LessSafeKey> {
    let hex = || -> Option<Vec<u8>> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    let bytes = if text.len() == KEY_BYTES * 2 {
        hex()?
    } else {
        let unpadded = text.trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(unpadded).or_else(|_| STANDARD.decode(text)).ok()?
    };
    usable(&bytes)
}

fn usable(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new)
}

/// Writes a new master key into a file that must not be there yet, readable by its owner alone.
///
/// # Errors
/// [`MasterKeyError::Write`], also if the file exists: overwriting one would lose everything sealed with it.
pub fn generate(path: &Path) -> Result<(), MasterKeyError> {
    let text = format!("{}\n", STANDARD.encode(random::bytes::<KEY_BYTES>()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| MasterKeyError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn only(version: i64, path: &Path) -> BTreeMap<i64, KeySource> {
        BTreeMap::from([(version, KeySource::File(path.to_owned()))])
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_purpose_only() {
        let master = MasterKeys::ephemeral(&[1]);
        let sealed = master.seal("signing-key/a", b"secret");
        assert_eq!(master.open("signing-key/a", &sealed).unwrap(), b"secret");
        assert_eq!(master.open("signing-key/b", &sealed), Err(OpenError::Wrong(1)));
        assert_ne!(master.seal("signing-key/a", b"secret"), sealed, "each seal has its own nonce");
        assert_eq!(MasterKeys::ephemeral(&[1]).open("signing-key/a", &sealed), Err(OpenError::Wrong(1)));
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let master = MasterKeys::ephemeral(&[1]);
        let sealed = master.seal("p", b"secret");
        let flipped = if sealed.ends_with('A') { 'B' } else { 'A' };
        let changed = format!("{}{flipped}", &sealed[..sealed.len() - 3]);
        assert!(master.open("p", &changed).is_err());
        assert_eq!(master.open("p", "1.x"), Err(OpenError::Form));
        assert_eq!(master.open("p", &sealed.replacen('1', "7", 1)), Err(OpenError::NoKey(7)));
    }

    #[test]
    fn new_seals_use_the_newest_key_and_old_ones_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        generate(&first).unwrap();
        generate(&second).unwrap();
        let old = MasterKeys::read(&only(1, &first)).unwrap();
        let sealed = old.seal("p", b"secret");
        let mut both = only(1, &first);
        both.extend(only(2, &second));
        let both = MasterKeys::read(&both).unwrap();
        assert_eq!(both.open("p", &sealed).unwrap(), b"secret");
        let resealed = both.seal("p", b"secret");
        assert!(resealed.starts_with("2."));
        assert_eq!(old.open("p", &resealed), Err(OpenError::NoKey(2)));
    }

    #[test]
    fn a_key_file_that_everybody_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        generate(&path).unwrap();
        assert!(generate(&path).is_err(), "a key is never overwritten");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKeys::read(&only(1, &path)), Err(MasterKeyError::Exposed { .. })));
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_or_hex() {
        let bytes = [7_u8; 32];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes), hex] {
            assert!(parse(&text).is_some(), "{text}");
        }
        for text in [String::new(), STANDARD.encode([7_u8; 31]), "g".repeat(64), "short".to_owned()] {
            assert!(parse(&text).is_none(), "{text}");
        }
    }
}
