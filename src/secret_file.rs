//! Files that hold a secret: private keys, credentials, passwords. One that everybody on the machine can read is refused
//! rather than used, because then it isn't one.
//!
//! A group may read it: that is how a service gets what somebody else owns.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What "everybody" may do.
const OTHERS: u32 = 0o007;

/// Everybody may read it, or put another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "everybody on this machine may read or change it (mode {0:03o}); take that right away with chmod 600, and use a new secret if others may have read it"
)]
pub struct Exposed(u32);

/// Whether an error of [`read`] or [`check`] is that everybody can read the file.
#[must_use]
pub fn is_exposed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Exposed>())
}

/// The text of such a file.
///
/// # Errors
/// Also if everybody may read it: [`is_exposed`].
pub fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    // Of the very file that is read, whatever is put in its place meanwhile.
    check_open(&file)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Looks at it without reading it.
///
/// # Errors
/// As [`read`].
pub fn check(path: &Path) -> io::Result<()> {
    check_open(&File::open(path)?)
}

fn check_open(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    // A pipe (`<(…)` in a shell) or a terminal is nobody else's, whatever its mode.
    if metadata.is_file() && mode & OTHERS != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, Exposed(mode)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_everybody_can_read_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "secret").unwrap();
        for (mode, is_fine) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o602, false), (0o604, false)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let (text, looked) = (read(&path), check(&path));
            assert_eq!((text.is_ok(), looked.is_ok()), (is_fine, is_fine), "{mode:o}");
            if let Err(error) = text {
                assert!(is_exposed(&error), "{error}");
                assert!(error.to_string().contains("chmod 600"), "{error}");
                assert!(!error.to_string().contains("secret\""), "{error}");
            }
        }
    }
}
