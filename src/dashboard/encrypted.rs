//! A listener whose connections are encrypted before anybody hears of them. Handshakes go on beside one another, so a slow
//! one holds nobody up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// From accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at a time; who comes then waits in the kernel's queue.
const HANDSHAKES_MAX: usize = 1024;

/// How long to leave the queue alone when there is no descriptor left, or the like.
const PAUSE: Duration = Duration::from_millis(200);

const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks TLS: use https://\n";

type Accepted = (TlsStream<TcpStream>, SocketAddr);

pub(super) struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<Accepted>>,
}

impl Encrypted {
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { listener, acceptor: config.into(), handshakes: JoinSet::new() }
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => if let Ok(Some(accepted)) = done {
                    return accepted;
                },
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((tcp, peer)) => {
                        self.handshakes.spawn(handshake(self.acceptor.clone(), tcp, peer));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn handshake(acceptor: TlsAcceptor, mut tcp: TcpStream, peer: SocketAddr) -> Option<Accepted> {
    let encrypted = async {
        let mut first = [0];
        tcp.peek(&mut first).await?;
        if first[0].is_ascii_uppercase() {
            tcp.write_all(SPEAK_TLS).await?;
            tcp.shutdown().await?;
            // Closing with bytes unread would send a reset, which may overtake the answer.
            tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await?;
            return Err(io::Error::other("it speaks plain HTTP"));
        }
        acceptor.accept(tcp).await
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, encrypted).await {
        Ok(Ok(stream)) => Some((stream, peer)),
        Ok(Err(error)) => {
            tracing::info!(%peer, "TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "TLS handshake failed: it took too long");
            None
        }
    }
}
