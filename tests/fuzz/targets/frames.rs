//! WebSocket frames: `protocol::websocket::Reader`.

use wiresocket::protocol::websocket::{FrameError, FrameLimits, Message, Reader};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 2000, fragments_max: 8 };

/// A message that outlives the buffer it was in.
#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Binary(Vec<u8>),
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Binary(payload) => Self::Binary(payload.to_vec()),
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Ping(payload) => Self::Ping(payload.to_vec()),
            Message::Pong(payload) => Self::Pong(payload.to_vec()),
            Message::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

type Read = (Vec<Owned>, Option<FrameError>);

/// Reads `bytes` in pieces of the given lengths, over and over; `moves`: another reader takes over after each message.
fn read(bytes: &[u8], pieces: &[u8], moves: bool) -> Read {
    let mut messages = Vec::new();
    let mut reader = Reader::new();
    let mut rest = bytes.to_vec();
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = usize::from(*pieces.next().unwrap_or(&255)).max(1).min(rest.len());
        let mut piece: Vec<u8> = rest.drain(..length).collect();
        let mut input = &mut piece[..];
        loop {
            match reader.next(&mut input, &LIMITS) {
                Ok(Some(message)) => messages.push(message.into()),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
            if moves {
                // An open message's fragments become one: a reader that counts them counts anew.
                let unread = std::mem::take(&mut reader).into_unread(input);
                rest.splice(..0, unread);
                input = &mut [];
                break;
            }
        }
        assert!(input.is_empty());
        // A frame that is not whole, and the fragments before it, each in space that at most doubles.
        let bound = 2 * (2 * LIMITS.message_bytes_max + 200) + 200;
        assert!(reader.heap_bytes() <= bound, "{} bytes are held", reader.heap_bytes());
    }
    (messages, None)
}

pub fn run(data: &[u8]) {
    let Some((pieces, bytes)) = data.split_first_chunk::<4>() else { return };
    let whole = read(bytes, &[255; 1], false);
    assert_eq!(read(bytes, pieces, false), whole, "it matters how the bytes arrive");
    let moved = read(bytes, pieces, true);
    // Only the count of fragments may differ, and only in favour of the client.
    if !matches!(whole.1, Some(FrameError::TooManyFragments { .. })) {
        assert_eq!(moved, whole, "a connection that moves reads something else");
    }
}
