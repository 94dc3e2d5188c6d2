//! Passwords: argon2id, because people choose them and they can be guessed. Memory-hard, so only a few at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use super::random;

/// Each takes 19 MiB for its time.
const AT_ONCE_MAX: usize = 4;

pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longer ones only cost time to hash.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Hashes and verifies on blocking threads, a bounded number at once; the others wait.
#[derive(Debug)]
pub struct Passwords {
    slots: Semaphore,
    /// Verified against when there is no such account, so that the time doesn't tell.
    nobodys: String,
}

/// Why a password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("the password is too short; use {PASSWORD_CHARS_MIN} characters or more")]
    TooShort,
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

impl Passwords {
    #[must_use]
    pub fn new() -> Self {
        Self { slots: Semaphore::new(AT_ONCE_MAX), nobodys: hash_now(&random::secret("")) }
    }

    /// The PHC string of a password that is good enough.
    ///
    /// # Errors
    /// [`PasswordError`] says what it lacks.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        if password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let password = password.to_owned();
        Ok(self.run(move || hash_now(&password)).await)
    }

    /// Whether the password is the hash's; takes as long when there is no hash.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobodys).to_owned();
        let password = password.to_owned();
        let verified = self.run(move || {
            let parsed = PasswordHash::new(&hash);
            parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        verified.await && known
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.expect("hashing does not panic")
    }
}

fn hash_now(password: &str) -> String {
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &random::bytes::<16>());
    hash.expect("argon2's own parameters are valid").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_and_verifies_its_own_password_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse battery", Some(&hash)).await);
        assert!(!passwords.verify("correct horse batterx", Some(&hash)).await);
        assert!(!passwords.verify("correct horse battery", None).await);
        assert_eq!(passwords.hash("short").await, Err(PasswordError::TooShort));
    }
}
