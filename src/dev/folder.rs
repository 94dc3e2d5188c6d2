//! Where the embedded dashboard keeps its files: a directory that goes with the process, or one that stays.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::dashboard::random;

/// A directory for this process's files. Dropping it removes it, unless it was named by the user.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// The named directory, made if it is not there; without a name a new one among the temporary files. Only this user
    /// may look into a directory that is made here.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(named: Option<&Path>) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let Some(path) = named else {
            let path = std::env::temp_dir().join(format!("wiresocket-dev-{}", random::word()));
            builder.create(&path)?;
            return Ok(Self { path, is_kept: false });
        };
        builder.recursive(true).create(path)?;
        Ok(Self { path: path.to_owned(), is_kept: true })
    }

    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only this user may read.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let (path, part) = (self.file(name), self.file(&format!("{name}.part")));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// If it is there and stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_without_a_name_goes_and_one_with_a_name_stays() {
        let folder = Folder::open(None).unwrap();
        let path = folder.path().to_owned();
        let file = folder.write("secret", "x").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());

        let parent = tempfile::tempdir().unwrap();
        let named = parent.path().join("a/b");
        let folder = Folder::open(Some(&named)).unwrap();
        folder.write("secret", "x").unwrap();
        folder.remove("nothing").unwrap();
        drop(folder);
        assert_eq!(fs::read_to_string(named.join("secret")).unwrap(), "x");
    }
}
