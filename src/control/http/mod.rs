//! One HTTP request on a socket that a data shard handed over.
//!
//! Every connection serves exactly one request, then closes: a proxy that reuses a kept-alive connection may send an
//! upgrade on it next, and that must reach a data shard.
//!
//! A slow or greedy client holds at most [`HttpBounds`]: time for the head, time for the whole, bytes of both.

mod problem;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::ServiceExt;

use self::stream::Stream;
use super::settings::HttpBounds;
use crate::tls::Session;
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

/// What a data shard has handed over.
pub(super) struct Connection {
    pub socket: OwnedFd,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Box<Session>>,
    /// The request's beginning, decrypted.
    pub read: Vec<u8>,
    pub peer: IpAddr,
}

/// Serves one request.
///
/// # Errors
/// [`ServeError`]; the socket is closed in any case.
pub(super) async fn serve(
    connection: Connection,
    router: Router,
    bounds: HttpBounds,
) -> Result<(), ServeError> {
    let Connection { socket, tls, read, peer } = connection;
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
        .serve_connection(TokioIo::new(Stream::new(stream, tls, read)), service);
    match tokio::time::timeout(bounds.request_timeout, connection).await {
        Ok(outcome) => outcome.map_err(ServeError::Connection),
        Err(_) => Err(ServeError::Timeout(bounds.request_timeout)),
    }
}
