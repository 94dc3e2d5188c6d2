//! The journal's files in a directory of their own: `journal-00000000000000000001`, and so on.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]
#![allow(unsafe_code)] // signal dispositions have no safe interface in std

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::storage::Storage;

const PREFIX: &str = "journal-";

/// Held by the process that has the directory.
const LOCK: &str = "lock";

/// Why a directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot make the journal's directory {}: {source}; make it for the node's user, or set journal.directory", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot use the journal's directory {}: {source}; it must be writable for the node's user", path.display())]
    Use { path: PathBuf, source: io::Error },
    #[error("the journal in {} is in use by another process; a node needs a journal.directory of its own", path.display())]
    InUse { path: PathBuf },
}

/// The files of one journal. Nobody else has them while this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    directory: File,
    newest: Option<File>,
    /// A file was made and its name may not be on disk yet.
    name_is_new: bool,
    _lock: File,
}

impl Directory {
    /// Takes the directory, which is made if it isn't there.
    ///
    /// # Errors
    /// [`DirectoryError`] says what to do.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        make(path).map_err(|source| DirectoryError::Make { path: path.to_owned(), source })?;
        let cannot = |source| DirectoryError::Use { path: path.to_owned(), source };
        let lock =
            private().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
        // A file that may not grow any more is an error to report like a full disk, not the end of the process.
        // SAFETY: the signal is ignored from here on; no handler runs.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let directory = File::open(path).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), directory, newest: None, name_is_new: false, _lock: lock })
    }

    fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{segment:020}"))
    }
}

/// Makes the directory, and sees to it that its name is on disk too.
fn make(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(|parent| File::open(parent)?.sync_all())
}

/// Documents are nobody else's business.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Storage for Directory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(str::parse);
            if let Some(Ok(number)) = number {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        self.newest = Some(private().create_new(true).append(true).open(self.file(segment))?);
        self.name_is_new = true;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.newest.as_mut().ok_or(io::ErrorKind::NotFound)?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.newest.as_mut().ok_or(io::ErrorKind::NotFound)?.sync_data()?;
        if self.name_is_new {
            self.directory.sync_all()?;
            self.name_is_new = false;
        }
        Ok(())
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.file(segment))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_at(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.file(segment))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.file(segment))?;
        // Were a later removal to reach the disk before this one, the log would have a hole.
        self.directory.sync_all()
    }

    fn name(&self, segment: u64) -> String {
        self.file(segment).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_journals_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/journal");
        let first = Directory::open(&path).unwrap();
        assert!(matches!(Directory::open(&path), Err(DirectoryError::InUse { .. })));
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn segments_are_found_again_with_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(dir.path()).unwrap();
        directory.create(2).unwrap();
        directory.append(b"old").unwrap();
        directory.sync().unwrap();
        directory.create(10).unwrap();
        directory.append(b"hello ").unwrap();
        directory.append(b"world").unwrap();
        directory.sync().unwrap();
        assert!(directory.create(2).is_err(), "a segment is made once");
        fs::write(dir.path().join("journal-x"), "somebody else's").unwrap();
        assert_eq!(directory.segments().unwrap(), [2, 10]);
        assert_eq!(directory.read(10).unwrap(), b"hello world");
        assert_eq!(directory.read_at(10, 6, 5).unwrap(), b"world");
        assert!(directory.read_at(10, 7, 5).is_err());
        directory.truncate(10, 5).unwrap();
        assert_eq!(directory.read(10).unwrap(), b"hello");
        directory.remove(2).unwrap();
        assert_eq!(directory.segments().unwrap(), [10]);
    }
}
