//! The control shard's thread: a tokio runtime, and the loop that drives [`Control`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::handle::{COMMANDS_MAX, Command, Handle, ReloadError};
use super::http::{self, Desk, Facts};
use super::keys::Jwks;
use super::keys::feed::{self, Client, ClientError, FromFeed, HeartbeatAnswer, UsageAnswer};
use super::keys::source::{FetchError, Fetched, Fetcher, KeyDirError, KeyFiles};
use super::link::Mailbox;
use super::messages::ToControl;
use super::overload::rss_bytes;
use super::settings::{HttpBounds, Settings};
use super::state::{Control, Effect, Parts, Question};
use crate::limits::Meter;
use crate::time::Now;

/// Batches of the shards handled before their answers go out.
const BATCHES_PER_TURN: usize = 64;

/// Questions of HTTP requests that may wait; a request whose question finds no place waits with it.
const QUESTIONS_MAX: usize = 256;

/// Finished fetches and directory reads that may wait.
const FINISHED_MAX: usize = 16;

/// How long a stop waits for full mailboxes and for HTTP requests that are being answered.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The ways between the control shard and the data shards.
pub struct Links {
    /// What the shards send, one batch per loop turn.
    pub from_shards: mpsc::Receiver<Vec<ToControl>>,
    /// One per shard, in the order of their indices.
    pub shards: Vec<Mailbox>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Why the control shard could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not load the verification keys")]
    Keys(#[from] KeyDirError),
    #[error("the preloaded keys of tenant {tenant} are not a JWKS document")]
    Preloaded { tenant: Uuid, source: serde_json::Error },
    #[error("could not start the control shard's thread")]
    Thread(#[source] io::Error),
    #[error("could not start the thread that follows the dashboard's key feed")]
    Feed(#[source] io::Error),
    #[error("could not start the control shard's runtime")]
    Runtime(#[source] io::Error),
    #[error("the control shard ended while it started; its log line says why")]
    Ended,
}

/// Starts the control shard on a thread of its own; returns once its keys are loaded, those of the listed tenants' URLs
/// too, or when fetching them takes longer than [`super::KeySettings::start_wait`].
///
/// The shards are given the keys through their mailboxes.
///
/// # Errors
/// [`StartError`]; a key file that can't be used is named.
pub fn start(settings: Settings, links: Links) -> Result<Handle, StartError> {
    let documents = Documents::read(&settings)?;
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(super::keys::refresh::RUNNING_MAX + 3)
            .build()
            .map_err(StartError::Runtime);
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        runtime.block_on(async {
            match Shell::new(settings, links, documents, received) {
                Ok(shell) => shell.run(started).await,
                Err(error) => drop(started.send(Err(error))),
            }
        });
        runtime.shutdown_background(); // a fetch that is under way is not worth waiting for
    };
    let thread =
        std::thread::Builder::new().name("control".into()).spawn(body).map_err(StartError::Thread)?;
    outcome.recv().map_err(|_| StartError::Ended)??;
    Ok(Handle { commands, thread })
}

/// The key documents that are there before anything is fetched.
struct Documents {
    preloaded: Vec<(Uuid, Jwks)>,
    files: KeyFiles,
}

impl Documents {
    fn read(settings: &Settings) -> Result<Self, StartError> {
        let parse = |(tenant, json): &(Uuid, Vec<u8>)| {
            let tenant = *tenant;
            let jwks = Jwks::parse(json).map_err(|source| StartError::Preloaded { tenant, source })?;
            Ok((tenant, jwks))
        };
        let preloaded = settings.preloaded_keys.iter().map(parse).collect::<Result<_, StartError>>()?;
        let files = settings.live.keys.dir.as_deref().map(KeyFiles::read).unwrap_or_default();
        Ok(Self { preloaded, files })
    }
}

/// What came back from a thread that may block.
enum Finished {
    Fetch { tenant: Uuid, outcome: Result<Fetched, FetchError> },
    KeyDir { files: KeyFiles, done: oneshot::Sender<Result<(), ReloadError>> },
    Heartbeat(Result<HeartbeatAnswer, ClientError>),
    Usage(Result<UsageAnswer, ClientError>),
}

/// What woke the loop.
enum Wake {
    Batches,
    Question(Question),
    Command(Option<Command>),
    Finished(Finished),
    Feed(FromFeed),
    Timeout,
}

/// Carries out what [`Control`] decides.
struct Shell {
    control: Control,
    started: Instant,
    from_shards: mpsc::Receiver<Vec<ToControl>>,
    shards_are_gone: bool,
    commands: mpsc::Receiver<Command>,
    questions: mpsc::Receiver<Question>,
    finished: mpsc::Receiver<Finished>,
    finish: mpsc::Sender<Finished>,
    desk: Desk,
    extra: Option<Router>,
    router: Router,
    http: HttpBounds,
    room: Arc<Semaphore>,
    requests: JoinSet<()>,
    fetcher: Option<Fetcher>,
    key_dir: Option<std::path::PathBuf>,
    feed: mpsc::Receiver<FromFeed>,
    /// The start waits for the feed's first complete picture, or for its failure.
    awaits_feed: bool,
    dashboard: Option<Client>,
    /// What this node shows the dashboard.
    credential: Option<Arc<str>>,
    /// When the start no longer waits for keys.
    start_by: Duration,
    stop_by: Option<Duration>,
}

impl Shell {
    fn new(
        settings: Settings,
        links: Links,
        documents: Documents,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, StartError> {
        let Settings {
            started,
            live,
            http,
            bounds,
            make_verifier,
            key_functions,
            dashboard,
            certificate,
            extra,
            ..
        } = settings;
        let fetcher = Fetcher::new(&live.keys);
        let key_dir = live.keys.dir.clone();
        let start_by = now(started).monotonic.saturating_add(live.keys.start_wait);
        let facts = Facts::of(&live, http.body_bytes_max);
        let mailboxes = links.shards;
        let rss_bytes = Box::new(rss_bytes);
        let meter = dashboard.is_some().then(|| Meter::new(boot()));
        let parts =
            Parts { live, bounds, make_verifier, key_functions, mailboxes, rss_bytes, certificate, meter };
        let mut control = Control::new(parts, now(started));
        control.preload(documents.preloaded, documents.files)?;
        let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
        let (finish, finished) = mpsc::channel(FINISHED_MAX);
        let dashboard = dashboard.map(Client::new);
        let (from_feed, feed) = mpsc::channel(feed::WAITING_MAX);
        if let Some(client) = dashboard.clone() {
            feed::spawn(client, from_feed).map_err(StartError::Feed)?;
        }
        let desk = Desk::new(ask);
        let router = http::router(desk.clone(), facts, extra.clone());
        Ok(Self {
            control,
            started,
            from_shards: links.from_shards,
            shards_are_gone: false,
            commands,
            questions,
            finished,
            finish,
            desk,
            extra,
            router,
            http,
            room: Arc::new(Semaphore::new(http.requests_max)),
            requests: JoinSet::new(),
            fetcher,
            key_dir,
            feed,
            awaits_feed: dashboard.is_some(),
            dashboard,
            credential: None,
            start_by,
            stop_by: None,
        })
    }

    /// Runs until it is stopped; `started` hears when the keys are there.
    async fn run(mut self, started: std::sync::mpsc::SyncSender<Result<(), StartError>>) {
        let mut started = Some(started);
        let mut batches = Vec::with_capacity(BATCHES_PER_TURN);
        loop {
            let now = now(self.started);
            self.control.handle_timeout(now);
            self.control.settle(now);
            while let Some(effect) = self.control.poll_effect() {
                self.carry_out(effect);
            }
            while self.requests.try_join_next().is_some() {}
            let has_keys = !self.control.is_fetching() && !self.awaits_feed;
            if has_keys || now.monotonic >= self.start_by {
                // If whoever waits for this is gone, the closed command channel ends the loop.
                started.take().map(|started| started.send(Ok(())));
            }
            let has_work = self.control.has_backlog() || !self.requests.is_empty();
            if self.stop_by.is_some_and(|by| now.monotonic >= by || !has_work) {
                return;
            }
            let wake = self.wait(now, &mut batches).await;
            self.handle(wake, &mut batches);
        }
    }

    async fn wait(&mut self, now: Now, batches: &mut Vec<Vec<ToControl>>) -> Wake {
        let due = self.control.poll_timeout(now);
        let due = self.stop_by.map_or(due, |by| due.min(by));
        let due = if now.monotonic < self.start_by { due.min(self.start_by) } else { due };
        let until = tokio::time::Instant::from_std(self.started + due);
        tokio::select! {
            count = self.from_shards.recv_many(batches, BATCHES_PER_TURN), if !self.shards_are_gone => {
                self.shards_are_gone = count == 0;
                Wake::Batches
            }
            // Never none: the desk holds a sender, as does `finish`.
            Some(question) = self.questions.recv() => Wake::Question(question),
            Some(finished) = self.finished.recv() => Wake::Finished(finished),
            Some(what) = self.feed.recv() => Wake::Feed(what),
            command = self.commands.recv(), if self.stop_by.is_none() => Wake::Command(command),
            _ = self.requests.join_next(), if self.stop_by.is_some() && !self.requests.is_empty() => Wake::Timeout,
            () = tokio::time::sleep_until(until) => Wake::Timeout,
        }
    }

    fn handle(&mut self, wake: Wake, batches: &mut Vec<Vec<ToControl>>) {
        let now = now(self.started);
        match wake {
            Wake::Batches => {
                for message in batches.drain(..).flatten() {
                    self.control.handle(now, message);
                }
            }
            Wake::Question(question) => {
                self.control.question(now, question);
                while let Ok(question) = self.questions.try_recv() {
                    self.control.question(now, question);
                }
            }
            Wake::Finished(Finished::Fetch { tenant, outcome }) => self.control.fetched(now, tenant, outcome),
            Wake::Finished(Finished::KeyDir { files, done }) => {
                let outcome = ReloadError::unless_none(self.control.replace_files(files));
                self.control.reloaded(now, outcome, done);
            }
            Wake::Finished(Finished::Heartbeat(outcome)) => self.control.heartbeat_answered(now, outcome),
            Wake::Finished(Finished::Usage(outcome)) => self.control.usage_answered(now, outcome),
            Wake::Feed(what) => {
                match &what {
                    FromFeed::Enrolled { credential } => self.credential = Some(Arc::clone(credential)),
                    FromFeed::Documents { is_complete, .. } => self.awaits_feed &= !is_complete,
                    FromFeed::Fleet(_) | FromFeed::Limits { .. } => {}
                    FromFeed::Lost => self.awaits_feed = false,
                }
                self.control.heard(now, what);
            }
            Wake::Command(Some(command)) => self.obey(now, command),
            Wake::Command(None) => self.stop(now),
            Wake::Timeout => {}
        }
    }

    fn obey(&mut self, now: Now, command: Command) {
        match command {
            Command::Reload { live, done } => {
                self.control.reload(now, &live);
                let facts = Facts::of(&live, self.http.body_bytes_max);
                self.router = http::router(self.desk.clone(), facts, self.extra.clone());
                self.fetcher = Fetcher::new(&live.keys);
                self.key_dir = live.keys.dir;
                match self.key_dir.clone() {
                    Some(dir) => self.block(move || Finished::KeyDir { files: KeyFiles::read(&dir), done }),
                    None => {
                        let outcome =
                            ReloadError::unless_none(self.control.replace_files(KeyFiles::default()));
                        self.control.reloaded(now, outcome, done);
                    }
                }
            }
            Command::Revoke { tenant, key_id } => self.control.revoke(tenant, &key_id),
            Command::Drain { over, done } => self.control.drain(now, over, done),
            Command::Stop => self.stop(now),
        }
    }

    fn stop(&mut self, now: Now) {
        self.control.stop();
        self.stop_by = Some(now.monotonic + STOP_WAIT);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Serve { socket, tls, read, peer } => {
                let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
                    self.control.http_refused_total += 1;
                    return; // dropping the socket closes it
                };
                let served =
                    http::serve(http::Connection { socket, tls, read, peer }, self.router.clone(), self.http);
                self.requests.spawn(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%peer, %error, "an HTTP request was not served to its end");
                    }
                    drop(place);
                });
            }
            Effect::Heartbeat(heartbeat) => {
                let (Some(client), Some(credential)) = (self.dashboard.clone(), self.credential.clone())
                else {
                    return; // it is asked for only once there are both
                };
                self.block(move || Finished::Heartbeat(client.heartbeat(&credential, heartbeat)));
            }
            Effect::Usage(report) => {
                let (Some(client), Some(credential)) = (self.dashboard.clone(), self.credential.clone())
                else {
                    return; // it follows a heartbeat, so there are both
                };
                self.block(move || Finished::Usage(client.usage(&credential, &report)));
            }
            Effect::Fetch { tenant, entity_tag } => {
                let Some(fetcher) = self.fetcher.clone() else {
                    return; // without a URL nothing is ever queued
                };
                self.block(move || {
                    let outcome = fetcher.fetch(tenant, entity_tag.as_deref());
                    Finished::Fetch { tenant, outcome }
                });
            }
        }
    }

    /// Runs something that may block, off this thread.
    fn block(&self, work: impl FnOnce() -> Finished + Send + 'static) {
        let finish = self.finish.clone();
        tokio::task::spawn_blocking(move || {
            // Closed only when the control shard has ended: then nobody wants to know.
            let _ = finish.blocking_send(work());
        });
    }
}

/// Tells this process from those before it: when it began.
fn boot() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_micros()).unwrap_or(i64::MAX).max(1)
}

fn now(started: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { monotonic: started.elapsed(), unix_s: unix.as_secs() }
}
