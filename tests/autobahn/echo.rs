//! An echo server on the framing code of the server: what Autobahn's cases ask for, and what no Yjs server offers.
//!
//! It parses the upgrade, reads frames, answers pings and closes as a shard does (`shard/accept.rs`, `shard/traffic.rs`)
//! with the same functions of `wiresocket::protocol`, but over blocking sockets, a thread each. It prints its address on
//! stdout and runs until it is killed. Tests only: nothing of it is in the server's binary.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use wiresocket::protocol::close::Refusal;
use wiresocket::protocol::request::{self, HeadLimits, Status};
use wiresocket::protocol::websocket::{self, FrameLimits, Message, Opcode, Reader};

/// The server's default for messages; of fragments, Autobahn's performance cases use more than the server lets through.
const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 16 << 20, fragments_max: 1 << 20 };

const READ_BYTES: usize = 64 << 10;

/// How long the other side may take to close after we have.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // A client that goes without a word is none of ours.
            let _ = serve(stream);
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut scratch = vec![0; READ_BYTES];
    let Some(mut unread) = accept(&mut stream, &mut scratch)? else { return Ok(()) };
    let mut reader = Reader::new();
    let mut out = Vec::new();
    let mut is_open = feed(&mut reader, &mut unread, &mut out);
    loop {
        stream.write_all(&out)?;
        out.clear();
        if !is_open {
            return close(&mut stream, &mut scratch);
        }
        let count = stream.read(&mut scratch)?;
        if count == 0 {
            return Ok(());
        }
        is_open = feed(&mut reader, &mut scratch[..count], &mut out);
    }
}

/// Answers the upgrade; the bytes that came behind it, if it is one.
fn accept(stream: &mut TcpStream, scratch: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut response = Vec::new();
    loop {
        let count = stream.read(scratch)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&scratch[..count]);
        match request::parse(&bytes, &HeadLimits::default()) {
            Ok(Status::Incomplete) => {}
            Ok(Status::Complete(head)) => {
                let Some(upgrade) = &head.upgrade else { return Ok(None) };
                request::accept_response(&mut response, &upgrade.key, upgrade.protocol);
                stream.write_all(&response)?;
                return Ok(Some(bytes.split_off(head.head_len)));
            }
            Err(error) => {
                error.write_response(&mut response);
                stream.write_all(&response)?;
                return Ok(None);
            }
        }
    }
}

/// Takes in what was read and appends the answers. False: a close is the last of them.
fn feed(reader: &mut Reader, mut bytes: &mut [u8], out: &mut Vec<u8>) -> bool {
    loop {
        match reader.next(&mut bytes, &LIMITS) {
            Ok(None) => return true,
            Ok(Some(Message::Binary(payload))) => websocket::write_binary(out, payload),
            Ok(Some(Message::Text(text))) => {
                websocket::write_header(out, Opcode::Text, text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Ok(Some(Message::Ping(payload))) => websocket::write_pong(out, payload),
            Ok(Some(Message::Pong(_))) => {}
            Ok(Some(Message::Close { code, .. })) => {
                match code {
                    Some(code) => websocket::write_close(out, code, ""),
                    None => websocket::write_empty_close(out),
                }
                return false;
            }
            Err(error) => {
                let refusal = Refusal::from(error);
                websocket::write_close(out, refusal.code(), &refusal.reason());
                return false;
            }
        }
    }
}

/// Closes our side and waits for the other: unread bytes would make a reset of it, which may overtake the close frame.
fn close(stream: &mut TcpStream, scratch: &mut [u8]) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(CLOSING_TIMEOUT))?;
    while stream.read(scratch)? > 0 {}
    Ok(())
}
