//! A stream that first yields what a shard has already read of it, and goes on with the encryption that a shard began.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{BUFFER_BYTES_MIN, Session};

/// Plain bytes encrypted at a time: what fits into a record.
const SEALED_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Stream {
    stream: TcpStream,
    tls: Option<Tls>,
    /// Plain bytes that were read and not yet given on.
    read: Vec<u8>,
    given: usize,
}

#[derive(Debug)]
struct Tls {
    session: Box<Session>,
    /// Encrypted bytes that the kernel has not taken yet.
    sealed: Vec<u8>,
    sent: usize,
    said_goodbye: bool,
}

impl Stream {
    pub fn new(stream: TcpStream, session: Option<Box<Session>>, read: Vec<u8>) -> Self {
        let tls = session.map(|session| Tls { session, sealed: Vec::new(), sent: 0, said_goodbye: false });
        Self { stream, tls, read, given: 0 }
    }
}

impl Tls {
    /// Hands the kernel what is encrypted.
    fn poll_send(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.sealed.len() {
            let sent = ready!(Pin::new(&mut *stream).poll_write(cx, &self.sealed[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        (self.sealed, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Reads and decrypts; what comes of it is empty only at the end.
    fn poll_receive(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut buffer = vec![0; BUFFER_BYTES_MIN];
        while !self.session.peer_is_done {
            let mut room = ReadBuf::new(self.session.room(&mut buffer));
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut room))?;
            let count = room.filled().len();
            if count == 0 {
                break;
            }
            let received = self.session.receive(&mut buffer, count);
            self.sealed.append(&mut self.session.output);
            // Whether it can go now or not: what is read doesn't wait for it.
            let _ = self.poll_send(stream, cx)?;
            let count = received.map_err(io::Error::other)?;
            if count > 0 {
                buffer.truncate(count);
                return Poll::Ready(Ok(buffer));
            }
        }
        Poll::Ready(Ok(Vec::new()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given == this.read.len() {
            let Some(tls) = &mut this.tls else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
            this.read = ready!(tls.poll_receive(&mut this.stream, cx))?;
            this.given = 0;
        }
        let rest = &this.read[this.given..];
        let length = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..length]);
        this.given += length;
        if this.given == this.read.len() {
            (this.read, this.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(tls) = &mut this.tls else { return Pin::new(&mut this.stream).poll_write(cx, buf) };
        ready!(tls.poll_send(&mut this.stream, cx))?;
        let taken = &buf[..buf.len().min(SEALED_BYTES_MAX)];
        tls.session.seal(taken, &mut tls.sealed).map_err(io::Error::other)?;
        // These bytes are taken; whether the kernel has room for them is the next call's matter.
        let _ = tls.poll_send(&mut this.stream, cx)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(tls) = &mut this.tls {
            ready!(tls.poll_send(&mut this.stream, cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(tls) = &mut this.tls {
            if !tls.said_goodbye {
                tls.said_goodbye = true;
                tls.session.say_goodbye(&mut tls.sealed);
            }
            ready!(tls.poll_send(&mut this.stream, cx))?;
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
