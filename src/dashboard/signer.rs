//! RSA off the async threads: a signature takes a millisecond of a core, a new key hundreds.
//!
//! Two bounds: how many run at once, and how many wait. One more than may wait is refused at once, so that a burst makes
//! an honest 503 and not a queue that nobody gets to the end of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::auth::SigningKey;
use crate::auth::sign::SigningKeyError;

/// Private keys kept opened. More tenants than this at once open theirs again now and then.
const OPENED_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Signer {
    waiting: Semaphore,
    running: Arc<Semaphore>,
    /// By key id, which is the key's thumbprint.
    opened: Mutex<HashMap<String, Arc<SigningKey>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    #[error("too many tokens are waiting to be signed; try again in a second")]
    Overloaded,
    #[error("could not sign the token")]
    Sign(#[from] SigningKeyError),
}

impl Signer {
    pub fn new(threads: usize, queue_max: usize) -> Self {
        Self {
            waiting: Semaphore::new(threads + queue_max),
            running: Arc::new(Semaphore::new(threads)),
            opened: Mutex::new(HashMap::new()),
        }
    }

    /// Runs work on a blocking thread, once its turn has come.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SignerError> {
        let _place = self.waiting.try_acquire().map_err(|_| SignerError::Overloaded)?;
        let running = Arc::clone(&self.running);
        let permit = running.acquire_owned().await.map_err(|_| SignerError::Overloaded)?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit; // a request that has gone away frees its thread when the work is done
            work()
        });
        Ok(done.await.expect("signing does not panic"))
    }

    pub fn opened(&self, kid: &str) -> Option<Arc<SigningKey>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    pub fn keep(&self, kid: &str, key: SigningKey) -> Arc<SigningKey> {
        let key = Arc::new(key);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= OPENED_MAX
            && let Some(any) = opened.keys().next().cloned()
        {
            opened.remove(&any);
        }
        opened.insert(kid.to_owned(), Arc::clone(&key));
        key
    }

    pub async fn sign(&self, kid: &str, key: Arc<SigningKey>, claims: Value) -> Result<String, SignerError> {
        let kid = kid.to_owned();
        Ok(self.run(move || key.sign(&kid, &claims)).await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_may_wait_is_refused_at_once() {
        let signer = Arc::new(Signer::new(1, 1));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let signer = Arc::clone(&signer);
            async move {
                let work = move || {
                    let _ = started.send(());
                    held.recv()
                };
                signer.run(work).await.is_ok()
            }
        });
        has_started.await.unwrap();
        let second = signer.run(|| 2);
        tokio::pin!(second);
        // Polled once, it takes the one place to wait in.
        assert!(tokio::select! { biased; _ = &mut second => false, () = std::future::ready(()) => true });
        assert!(matches!(signer.run(|| 3).await, Err(SignerError::Overloaded)));
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(second.await.unwrap(), 2);
    }
}
