//! `wiresocket dashboard`: the process around a [`Dashboard`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::accounts::{self, AccountError};
use super::config::Config;
use super::encrypted::Encrypted;
use super::{Dashboard, OpenError, feed, http, keys, oauth, subscriptions, usage};
use crate::tls::{self, CertificateError, Identity};

/// How often what is due is looked for: keys that take over, periods that end, audit entries that wait, tokens that have expired.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("could not start the dashboard's threads")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("could not make the first operator's account")]
    Operator(#[from] AccountError),
    #[error("could not listen on {address}; is another program using it?")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("[tls]: {0}")]
    Tls(#[from] CertificateError),
    #[error("the dashboard stopped serving")]
    Serve(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT; requests that are being answered then are answered.
///
/// # Errors
/// [`ServeError`] says what could not be opened, and what to do.
pub fn run(config: Config) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("dashboard")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), ServeError> {
    let address = config.listen;
    let identity = config.tls.clone().map(Identity::open).transpose()?;
    let dashboard = Dashboard::open(config).await?;
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
    if let Some(password) = accounts::first_operator(&dashboard).await? {
        // On standard output and not in the log: logs are kept, and read by others.
        println!(
            "The operator's account is {}, with the one-time password {password}",
            dashboard.config.operator_email
        );
    }
    let bound = listener.local_addr().map_err(|source| ServeError::Bind { address, source })?;
    tracing::info!(address = %bound, issuer = dashboard.config.issuer.as_str(), tls = identity.is_some(), "listening");
    serve_on(dashboard, listener, identity, asked_to_stop()).await.map_err(ServeError::Serve)
}

/// Serves a dashboard that is open, over TLS if there is an identity, with its upkeep, until `stop` is over; then closes its databases.
///
/// # Errors
/// If the listener fails.
pub async fn serve_on(
    dashboard: Arc<Dashboard>,
    listener: TcpListener,
    identity: Option<Identity>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let upkeep = tokio::spawn(keep_up(Arc::clone(&dashboard)));
    let look = tokio::spawn(feed::look(Arc::clone(&dashboard)));
    let service = http::router(Arc::clone(&dashboard)).into_make_service_with_connect_info::<SocketAddr>();
    let following = Arc::clone(&dashboard);
    let stop = async move {
        stop.await;
        following.end_feeds();
    };
    let served = match identity {
        None => axum::serve(listener, service).with_graceful_shutdown(stop).await,
        Some(identity) => {
            let encrypted = Encrypted::new(listener, identity.config());
            let renewal = tokio::spawn(renew(identity));
            // Tapped only because then axum knows how to tell the peer's address.
            let served = axum::serve(encrypted.tap_io(|_| {}), service).with_graceful_shutdown(stop).await;
            renewal.abort();
            served
        }
    };
    upkeep.abort();
    look.abort();
    dashboard.close().await;
    served
}

/// Takes over new certificates: when the files change, and on SIGHUP.
async fn renew(mut identity: Identity) {
    let mut looks = tokio::time::interval(tls::LOOK_EVERY);
    let mut hang_up = signal(SignalKind::hangup()).ok();
    loop {
        let hung_up = async {
            match &mut hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = looks.tick() => identity.look(),
            _ = hung_up => identity.reload(),
        }
    }
}

async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be received: only SIGKILL will stop this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
}

/// Does what is due, again and again. What fails is tried again the next time.
async fn keep_up(dashboard: Arc<Dashboard>) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        match keys::upkeep(&dashboard).await {
            Ok(done) if done != keys::Upkeep::default() => tracing::info!(?done, "keys"),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the upkeep of keys failed"),
        }
        match subscriptions::upkeep(&dashboard).await {
            Ok(done) if done != subscriptions::Upkeep::default() => tracing::info!(?done, "subscriptions"),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the upkeep of subscriptions failed"),
        }
        if let Err(error) = dashboard.deliver_audit().await {
            tracing::error!(%error, "audit entries could not be delivered");
        }
        if let Err(error) = oauth::refresh::forget_expired(&dashboard).await {
            tracing::error!(%error, "expired refresh tokens could not be deleted");
        }
        if let Err(error) = usage::upkeep(&dashboard).await {
            tracing::error!(%error, "old figures of usage could not be deleted");
        }
    }
}
