//! A whole node: start-up, reload and shutdown of the shards and the control shard.
//!
//! Not here: what a node is configured with ([`crate::config`]) and the loops themselves ([`crate::shard`],
//! [`crate::control`]).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod files;
mod journal;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use ring::rand::SecureRandom;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::auth::keys::{KeySets, parse_jwks};
use crate::auth::{TokenError, Verifier};
use crate::config::{
    self, CoreLayout, Host, HostError, HttpSettings, LayoutError, NodeConfig, RING_MEMORY_BYTES,
    ShardSettings,
};
use crate::control::messages::ShardIndex;
use crate::control::{
    self, Bounds, HttpBounds, KeyFunctions, KeySettings, Links, Live, Mark, Marks, TokenRefused,
};
use crate::journal::Durability;
use crate::journal::thread::{Journal, JournalError};
use crate::limits::Rates;
use crate::logging::LogLevelHandle;
use crate::shard::mailbox::{Letter, Mailbox, Sender, mailbox};
use crate::shard::{self, Setup};
use crate::tls::{self, CertificateError, Identity};

pub use files::check_files;

/// Connections that may wait in the kernel until a shard accepts them (`net.core.somaxconn` caps it).
const BACKLOG: i32 = 4096;

/// Batches of the shards that may wait for the control shard.
const TO_CONTROL_BATCHES: usize = 4096;

/// Locked memory that one shard's glommio executor registers.
const LOCKED_BYTES_PER_SHARD: u64 = 8 * RING_MEMORY_BYTES as u64;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot listen on {address}: {source}; choose another node.listen, or stop what listens there")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "cannot listen on {address}: {source}; choose another node.plaintext_listen, or stop what listens there"
    )]
    ListenPlaintext { address: SocketAddr, source: io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] CertificateError),
    #[error("cannot make a shard's mailbox: {0}; raise the limit on open files (LimitNOFILE)")]
    Mailbox(#[source] io::Error),
    #[error(
        "{shards} shards need {need} bytes of locked memory, but this process may lock only {have}: raise it \
         (LimitMEMLOCK in the unit, `ulimit -l`), or set node.shards lower"
    )]
    LockedMemory { shards: usize, need: u64, have: u64 },
    #[error("shard {index} could not start: {reason}")]
    Shard { index: ShardIndex, reason: String },
    #[error("the control shard could not start: {0}")]
    Control(#[from] control::StartError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot use {}: {source}", path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("no randomness from the system")]
    Randomness,
    #[error("shard {0} ended although nobody stopped it; the log says why")]
    ShardEnded(ShardIndex),
    #[error("the journal ended although nobody stopped it; the log says why")]
    JournalEnded,
    #[error("the control shard ended although nobody stopped it; the log says why")]
    ControlEnded,
}

impl NodeError {
    /// Whether another configuration is what it takes; starting again is not.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Layout(_)
                | Self::Tls(_)
                | Self::LockedMemory { .. }
                | Self::Control(control::StartError::Keys(_))
                | Self::Journal(JournalError::Directory(_))
                | Self::Secret { .. }
        )
    }
}

/// The listening sockets of a node, one per shard on the same address (`SO_REUSEPORT`).
#[derive(Debug)]
pub struct Listeners {
    address: SocketAddr,
    host: Host,
    layout: CoreLayout,
    sockets: Vec<TcpListener>,
    /// The second, plain address.
    plaintext: Option<(SocketAddr, Vec<TcpListener>)>,
    identity: Option<Identity>,
}

impl Listeners {
    /// Binds as many sockets as the node will have shards. With port 0 the kernel chooses one port for all.
    ///
    /// # Errors
    /// [`NodeError`] if an address is taken, the cores don't fit the host, or the certificate can't be used.
    pub fn bind(config: &NodeConfig) -> Result<Self, NodeError> {
        let host = Host::detect()?;
        let layout = CoreLayout::new(&config.node, &host.cpus, host.parallelism)?;
        let need = LOCKED_BYTES_PER_SHARD * layout.shards.len() as u64;
        if let Some(have) = host.locked_bytes_max.filter(|have| *have < need) {
            return Err(NodeError::LockedMemory { shards: layout.shards.len(), need, have });
        }
        let identity = config.tls.files().map(Identity::open).transpose()?;
        let shards = layout.shards.len();
        let address = config.node.listen;
        let (address, sockets) =
            listen_often(address, shards).map_err(|source| NodeError::Listen { address, source })?;
        let plaintext = config.node.plaintext_listen.map(|address| {
            listen_often(address, shards).map_err(|source| NodeError::ListenPlaintext { address, source })
        });
        Ok(Self { address, host, layout, sockets, plaintext: plaintext.transpose()?, identity })
    }

    /// The address that was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket for each shard, and the address that they share.
fn listen_often(mut address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // The shards share their port, and would share it with another node's just as well: ask without sharing first.
    bind(address, false)?;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = listen(address)?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

fn bind(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, true)?;
    // Accepted sockets inherit it: small messages go out at once.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    /// What SIGHUP reads again; none for `dev`.
    file: Option<PathBuf>,
    log_level: Option<LogLevelHandle>,
    address: SocketAddr,
    identity: Option<Identity>,
    control: control::Handle,
    ended: mpsc::UnboundedReceiver<ShardIndex>,
    journal: Option<Journal>,
    signals: Signals,
    runtime: Arc<Runtime>,
}

/// The signals a node acts on. They are listened for before the node says that it is there: until then they would end
/// the process.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen(runtime: &Runtime) -> io::Result<Self> {
        let _within = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Says that a shard's thread is over, however that came.
struct Ending(ShardIndex, mpsc::UnboundedSender<ShardIndex>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens any more only when the node is over anyway.
        let _ = self.1.send(self.0);
    }
}

impl Node {
    /// Starts all threads. `preloaded` are key sets that no source names (dev); `extra` are further routes.
    ///
    /// # Errors
    /// [`NodeError`] says which part could not start and what to do.
    pub fn start(
        config: NodeConfig,
        listeners: Listeners,
        preloaded: Vec<(Uuid, Vec<u8>)>,
        extra: Option<Router>,
    ) -> Result<Self, NodeError> {
        let started = Instant::now();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Signals)?;
        let signals = Signals::listen(&runtime).map_err(NodeError::Signals)?;
        let Listeners { address, host, layout, sockets, plaintext, identity } = listeners;
        let tls = identity.as_ref().map(Identity::config);
        let (plaintext_address, plaintext) = plaintext.unzip();
        let mut plaintext = plaintext.into_iter().flatten();
        let mut senders: Vec<Sender> = Vec::new();
        let mut mailboxes: Vec<Mailbox> = Vec::new();
        for _ in &sockets {
            let (sender, receiver) = mailbox().map_err(NodeError::Mailbox)?;
            senders.push(sender);
            mailboxes.push(receiver);
        }
        files::check_secrets(&config.dashboard)?;
        let kept = journal::open(&config.journal, layout.shards.len(), random()?)?;
        let (to_control, from_shards) = mpsc::channel(TO_CONTROL_BATCHES);
        let links = Links { from_shards, shards: senders.iter().map(control_mailbox).collect() };
        let dashboard = dashboard_settings(&config, &host, address);
        let live = live(&config, &host, address);
        let certificate = identity.as_ref().map(Identity::expiry);
        let settings = control_settings(live, &config, started, preloaded, extra)?;
        let settings = control::Settings { dashboard, certificate, ..settings };
        let control = control::start(settings, links)?;
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let shard_settings = shard_settings(&config);
        let journal::Kept { opened, documents } = kept;
        let to_journal = opened.as_ref().map(|opened| opened.sender());
        let journal = journal::run(opened, &senders, &to_control)?;
        let parts = sockets.into_iter().zip(mailboxes).zip(documents);
        for (index, ((listener, mailbox), recovered)) in (0..).zip(parts) {
            let setup = Setup {
                index,
                cpu: layout.shards.get(usize::from(index)).copied(),
                settings: Arc::clone(&shard_settings),
                keys: Arc::new(KeySets::default()),
                listeners: [listener].into_iter().chain(plaintext.next()).collect(),
                tls: tls.clone(),
                mailbox,
                shards: senders.clone(),
                control: to_control.clone(),
                journal: to_journal.clone(),
                recovered,
                started,
                seed: random()?,
            };
            let ending = Ending(index, ended_sender.clone());
            start_shard(setup, ending)?;
        }
        let shards = layout.shards.len();
        let plaintext_address = plaintext_address.map(tracing::field::display);
        tracing::info!(%address, plaintext_address, tls = tls.is_some(), shards, region = config.node.region, "listening");
        Ok(Self {
            config,
            file: None,
            log_level: None,
            address,
            identity,
            control,
            ended,
            journal,
            signals,
            runtime: Arc::new(runtime),
        })
    }

    /// Lets SIGHUP read this file again.
    #[must_use]
    pub fn with_reload(mut self, file: &Path, log_level: LogLevelHandle) -> Self {
        self.file = Some(file.to_owned());
        self.log_level = Some(log_level);
        self
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until SIGTERM or SIGINT, then drains: new sessions are refused, living ones close with 1012 over the
    /// configured time. A second signal ends the node at once.
    ///
    /// # Errors
    /// [`NodeError`] if a thread ended by itself.
    pub fn run(mut self) -> Result<(), NodeError> {
        let runtime = Arc::clone(&self.runtime);
        let outcome = runtime.block_on(self.serve());
        let stopped = self.control.stop();
        if let Some(journal) = self.journal {
            journal::wait(&journal);
        }
        outcome?;
        stopped.map_err(|_| NodeError::ControlEnded)
    }

    async fn serve(&mut self) -> Result<(), NodeError> {
        let mut control_check = tokio::time::interval(Duration::from_secs(1));
        let mut certificate_check = tokio::time::interval(tls::LOOK_EVERY);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.hang_up.recv() => self.reload().await,
                Some(index) = self.ended.recv() => return Err(NodeError::ShardEnded(index)),
                _ = certificate_check.tick() => if let Some(identity) = &mut self.identity {
                    identity.look();
                },
                _ = control_check.tick() => if self.control.is_finished() {
                    return Err(NodeError::ControlEnded);
                } else if self.journal.as_ref().is_some_and(Journal::is_finished) {
                    return Err(NodeError::JournalEnded);
                },
            }
        }
        let over = self.config.drain_spread;
        tracing::info!(
            over_s = over.as_secs_f32(),
            "draining: new sessions are refused, living ones are closed"
        );
        let Ok(drained) = self.control.drain(over) else { return Err(NodeError::ControlEnded) };
        tokio::select! {
            outcome = drained => match outcome {
                Ok(outcome) if outcome.stragglers.is_empty() => tracing::info!("drained"),
                Ok(outcome) => tracing::warn!(shards = ?outcome.stragglers, "some sessions did not close in time"),
                Err(_) => return Err(NodeError::ControlEnded),
            },
            _ = self.signals.terminate.recv() => tracing::warn!("second signal: ending at once"),
            _ = self.signals.interrupt.recv() => tracing::warn!("second signal: ending at once"),
            Some(index) = self.ended.recv() => return Err(NodeError::ShardEnded(index)),
        }
        Ok(())
    }

    /// SIGHUP: takes over what can change while running, and says what can't. A file with mistakes changes nothing.
    async fn reload(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.reload();
        }
        let Some(file) = &self.file else {
            tracing::info!("SIGHUP: there is no configuration file to read again");
            return;
        };
        let read = match config::load(file) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!("SIGHUP: the configuration stays as it was: {error}");
                return;
            }
        };
        let reload = config::reload(&self.config, read);
        let host = match Host::detect() {
            Ok(host) => host,
            Err(error) => return tracing::error!("SIGHUP: the configuration stays as it was: {error}"),
        };
        let names =
            |keys: &[config::KeyName]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let outcome = match self.control.reload(live(&reload.config, &host, self.address)) {
            Ok(outcome) => outcome,
            Err(error) => return tracing::error!("SIGHUP: the configuration stays as it was: {error}"),
        };
        if let Some(log_level) = &self.log_level {
            log_level.set_level(reload.config.log.level);
        }
        match outcome.await {
            Ok(Ok(())) => {
                tracing::info!(changed = names(&reload.changed), "SIGHUP: reloaded, with the key directory")
            }
            Ok(Err(error)) => {
                let changed = names(&reload.changed);
                tracing::error!(changed, "SIGHUP: reloaded, but {}", with_causes(&error));
            }
            Err(_) => tracing::error!("SIGHUP: the control shard is gone"),
        }
        if !reload.needs_restart.is_empty() {
            tracing::warn!(
                keys = names(&reload.needs_restart),
                "SIGHUP: these keys take effect at the next start"
            );
        }
        self.config = reload.config;
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn start_shard(setup: Setup, ending: Ending) -> Result<(), NodeError> {
    let index = setup.index;
    let failed = |reason: String| NodeError::Shard { index, reason };
    let handle = shard::spawn(setup).map_err(|error| failed(error.to_string()))?;
    // Waits for the shard's thread, and reports how it ended.
    std::thread::Builder::new()
        .name(format!("shard-{index}-end"))
        .stack_size(64 << 10)
        .spawn(move || {
            let _ending = ending;
            match handle.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(shard = index, %error, "a shard failed"),
                Err(error) => tracing::error!(shard = index, %error, "a shard panicked"),
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// The control shard's end of a shard's mailbox.
fn control_mailbox(sender: &Sender) -> control::Mailbox {
    let sender = sender.clone();
    Arc::new(move |messages| {
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            if let Err(letter) = sender.send(Letter::Control(message)) {
                let kept = match letter {
                    Letter::Control(message) => Some(message),
                    Letter::Engine { .. } | Letter::HandOver(_) | Letter::Journal(_) => None,
                };
                return Err(kept.into_iter().chain(messages).collect());
            }
        }
        Ok(())
    })
}

fn random() -> Result<u64, NodeError> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NodeError::Randomness)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn shard_settings(config: &NodeConfig) -> Arc<ShardSettings> {
    let upgrades_limited = config.http.upgrades_per_minute.is_some();
    let exempt_networks = config.http.exempt_networks.clone();
    let mut settings = ShardSettings { upgrades_limited, exempt_networks, ..config.shard.clone() };
    let keeps = config.journal.durability != Durability::Memory;
    settings.engine.retention = keeps.then_some(config.journal.retention);
    Arc::new(settings)
}

/// What of the configuration a reload may change.
fn live(config: &NodeConfig, host: &Host, address: SocketAddr) -> Live {
    let HttpSettings {
        upgrades_per_minute, discovery_per_minute, usage_per_minute, health_per_minute, ..
    } = config.http;
    let overload = &config.overload;
    let mark = |capacity: u64| Mark::of(capacity, overload.shed_above_percent, overload.accept_below_percent);
    Live {
        shards: shard_settings(config),
        keys: KeySettings {
            dir: config.keys.key_dir.clone(),
            jwks_url: config.keys.jwks_url.clone(),
            tenants: config.keys.tenants.clone(),
            poll_interval: config.keys.jwks_poll,
            refresh_interval: config.keys.key_refresh_interval,
            stale_after: config.keys.key_set_stale_after,
            ..KeySettings::default()
        },
        region: config.node.region.as_str().into(),
        public_url: config.public_url(address).as_str().into(),
        cors_origins: config.http.cors_origins.iter().map(|origin| origin.as_str().into()).collect(),
        retry_after: config.shard.retry_after,
        rates: Rates {
            upgrades_per_minute: upgrades_per_minute.unwrap_or(0),
            discovery_per_minute: discovery_per_minute.unwrap_or(0),
            usage_per_minute: usage_per_minute.unwrap_or(0),
            health_per_minute: health_per_minute.unwrap_or(0),
        },
        exempt: config.http.exempt_networks.clone(),
        trusted_proxies: config.shard.trusted_proxies.clone(),
        marks: Marks {
            connections: Some(mark(host.connections_max(overload))),
            rss_bytes: Some(mark(host.memory_bytes_max(overload))),
        },
        drain_spread: config.drain_spread,
    }
}

/// What the dashboard is told of this node, if there is one.
fn dashboard_settings(
    config: &NodeConfig,
    host: &Host,
    address: SocketAddr,
) -> Option<control::DashboardSettings> {
    let config::DashboardSettings { url, enrolment_secret_file, credential_file, cluster } =
        config.dashboard.clone();
    Some(control::DashboardSettings {
        url: url?.as_str().into(),
        enrolment_secret_file,
        credential_file,
        name: config.node.name.as_deref().unwrap_or(&host.name).into(),
        region: config.node.region.as_str().into(),
        cluster: cluster.into(),
        public_url: config.public_url(address).as_str().into(),
        capacity: host.connections_max(&config.overload),
    })
}

fn control_settings(
    live: Live,
    config: &NodeConfig,
    started: Instant,
    preloaded: Vec<(Uuid, Vec<u8>)>,
    extra: Option<Router>,
) -> Result<control::Settings, NodeError> {
    let seed = random()?;
    Ok(control::Settings {
        started,
        live,
        http: HttpBounds {
            head_timeout: config.shard.handshake_timeout,
            head_bytes_max: config.shard.request_head_bytes_max.max(8192),
            ..HttpBounds::default()
        },
        bounds: Bounds::default(),
        preloaded_keys: preloaded,
        make_verifier: Box::new(move |settings, sets| {
            let policy = shard::token_policy(settings);
            let mut verifier = Verifier::new(policy, sets, settings.token_cache_entries, seed);
            Box::new(move |unix_s, token| {
                verifier.verify(unix_s, token).map_err(|error| {
                    let unknown_key = match &error {
                        TokenError::UnknownKey { tenant, key_id } => Some((*tenant, key_id.clone())),
                        _ => None,
                    };
                    TokenRefused { refusal: error.into(), unknown_key }
                })
            })
        }),
        key_functions: KeyFunctions {
            set_tenant: Box::new(|sets, tenant, json| {
                sets.set_tenant(tenant, parse_jwks(json).map_err(|error| error.to_string())?);
                Ok(())
            }),
            revoke: Box::new(KeySets::revoke),
        },
        dashboard: None,
        certificate: None,
        extra,
    })
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
