//! One HTTP request on a socket that a data shard handed over.
//!
//! Every connection serves exactly one request, then closes: a proxy that reuses a kept-alive connection may send an
//! upgrade on it next, and that must reach a data shard.
//!
//! A slow or greedy client holds at most [`HttpBounds`]: time for the head, time for the whole, bytes of both.

mod problem;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::settings::HttpBounds;
pub(super) use routes::{Desk, Facts, router};

/// The least that hyper takes for its read buffer.
const READ_BUFFER_BYTES_MIN: usize = 8192;

/// Who is at the other end of the socket.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

/// Why a request could not be served to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("could not take over the socket")]
    Adopt(#[source] io::Error),
    #[error("the connection failed")]
    Connection(#[source] hyper::Error),
    #[error("the request took longer than {} s", .0.as_secs())]
    Timeout(std::time::Duration),
}

/// Serves the one request whose beginning is in `read`.
///
/// # Errors
/// [`ServeError`]; the socket is closed in any case.
pub(super) async fn serve(
    socket: OwnedFd,
    read: Vec<u8>,
    peer: IpAddr,
    router: Router,
    bounds: HttpBounds,
) -> Result<(), ServeError> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true).map_err(ServeError::Adopt)?;
    let stream = TcpStream::from_std(socket).map_err(ServeError::Adopt)?;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(bounds.head_bytes_max.max(READ_BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(Replay { read, replayed: 0, stream }), service);
    match tokio::time::timeout(bounds.request_timeout, connection).await {
        Ok(outcome) => outcome.map_err(ServeError::Connection),
        Err(_) => Err(ServeError::Timeout(bounds.request_timeout)),
    }
}

/// A stream that first yields what somebody else has already read of it.
#[derive(Debug)]
struct Replay {
    read: Vec<u8>,
    replayed: usize,
    stream: TcpStream,
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.replayed..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..length]);
        self.replayed += length;
        if self.replayed == self.read.len() {
            (self.read, self.replayed) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
