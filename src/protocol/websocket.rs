//! WebSocket frames, server side (RFC 6455), over buffers that the caller owns.
//!
//! The caller reads a socket into a shared scratch buffer and pulls messages out of it with [`Reader::next`]. A frame
//! that is whole in the scratch buffer is unmasked there and yielded without a copy. Only what is incomplete when the
//! buffer ends (a part of a frame, or the fragments of a message) is kept, in a box that an idle connection does not
//! have.
//!
//! Invariants: memory grows with bytes that arrived, never with a length that was announced; a message over its limit
//! is refused at the header that announces it; after a [`FrameError`] the reader must not be used again.
//!
//! Not here: extensions (none is negotiated, so reserved bits are an error), answering pings and closes (the shard),
//! and the upgrade ([`super::request`]).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::{REASON_BYTES_MAX, Refusal};

/// The longest payload of a ping, pong or close.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// What one message may cost. It may change between calls: small before authentication, larger after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest message, over all its fragments.
    pub message_bytes_max: usize,
    /// Most frames that one message may consist of. Empty ones count: they cost a header each.
    pub fragments_max: u32,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Binary(&'a mut [u8]),
    Text(&'a str),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client ends the connection; nothing after it is to be read.
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// Why a client's bytes are not WebSocket frames that this server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a client frame is not masked")]
    Unmasked,
    #[error("a reserved bit is set, but no extension was negotiated")]
    ReservedBit,
    #[error("a frame has a reserved opcode")]
    ReservedOpcode,
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame has more than 125 bytes")]
    LongControl,
    #[error("a continuation frame continues nothing")]
    UnexpectedContinuation,
    #[error("a new message begins inside a fragmented one")]
    UnfinishedMessage,
    #[error("a close frame has one byte or a code that must not be sent")]
    InvalidClose,
    #[error("a text message or close reason is not UTF-8")]
    Utf8,
    #[error("a message is larger than the {limit} bytes allowed here")]
    TooBig { limit: usize },
    #[error("a message has more than the {limit} fragments allowed here")]
    TooManyFragments { limit: u32 },
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let reason = error.to_string().into();
        match error {
            FrameError::Utf8 => Self::InvalidPayload(reason),
            FrameError::TooBig { .. } | FrameError::TooManyFragments { .. } => Self::TooBig(reason),
            _ => Self::Protocol(reason),
        }
    }
}

/// The frames of one connection. Eight bytes while nothing is incomplete.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// What is kept between calls.
#[derive(Debug, Default)]
struct Partial {
    /// Bytes of a frame that has not arrived whole, header included and still masked.
    frame: Vec<u8>,
    /// The unmasked fragments of a message that has not ended.
    message: Vec<u8>,
    /// What the fragments are of; none if no message is open.
    fragments_of: Option<Opcode>,
    fragments: u32,
    /// How much of `message` is known to be UTF-8 (text only).
    valid_utf8: usize,
    /// What the last call yielded, if it was not in the caller's buffer.
    yielded: Vec<u8>,
}

/// The open message as far as judging the next header needs it.
#[derive(Clone, Copy)]
struct Open {
    bytes: usize,
    fragments: u32,
}

/// A header that passed all checks.
struct Header {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of the header itself.
    head: usize,
    payload: usize,
}

impl Header {
    const fn whole(&self) -> usize {
        self.head + self.payload
    }

    /// Whether the frame is part of a message of several.
    fn is_fragment(&self) -> bool {
        self.opcode == Opcode::Continuation || !self.is_final
    }
}

/// What became of the bytes at the front of the input.
enum Step<'b> {
    /// The input is used up.
    Incomplete,
    /// A fragment was added to the open message.
    Fragment,
    /// A message that is whole in the caller's buffer.
    InPlace(Opcode, &'b mut [u8]),
    /// A message that begins at this offset of `Partial::yielded`.
    Assembled(Opcode, usize),
}

impl Reader {
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes the next message from the front of `input`, which is advanced past it. `None` means that all of `input`
    /// was consumed and no further message is whole.
    ///
    /// Call it until it yields `None`: that call also frees what an assembled message occupied. To stop earlier, hand
    /// what is left of `input` to [`Reader::into_unread`].
    ///
    /// # Errors
    /// [`FrameError`]; the connection is then to be closed with the refusal it converts into.
    pub fn next<'m, 'b: 'm>(
        &'m mut self,
        input: &mut &'b mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Message<'m>>, FrameError> {
        self.forget_yielded();
        loop {
            match self.step(input, limits)? {
                Step::Incomplete => return Ok(None),
                Step::Fragment => {}
                Step::InPlace(opcode, payload) => return message(opcode, payload).map(Some),
                Step::Assembled(opcode, start) => {
                    let partial = self.partial.get_or_insert_default();
                    return message(opcode, &mut partial.yielded[start..]).map(Some);
                }
            }
        }
    }

    /// The bytes that another reader needs to go on where this one stopped: what it holds, then `rest`, the part of
    /// the input that was not consumed. Fragments that were unmasked already travel as one frame with a zero mask.
    #[must_use]
    pub fn into_unread(self, rest: &[u8]) -> Vec<u8> {
        let Some(partial) = self.partial else { return rest.to_vec() };
        let held = partial.message.len() + partial.frame.len();
        let mut unread = Vec::with_capacity(CLIENT_HEADER_BYTES_MAX + held + rest.len());
        if let Some(opcode) = partial.fragments_of {
            write_header(&mut unread, opcode, partial.message.len());
            unread[0] &= !FINAL_BIT;
            unread[1] |= MASK_BIT;
            unread.extend_from_slice(&[0; 4]);
            unread.extend_from_slice(&partial.message);
        }
        unread.extend_from_slice(&partial.frame);
        unread.extend_from_slice(rest);
        unread
    }

    /// Bytes of heap that this reader holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let held = |partial: &Partial| {
            partial.frame.capacity() + partial.message.capacity() + partial.yielded.capacity()
        };
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + held(partial))
    }

    /// Frees what the last call yielded, and the box if nothing is left in it.
    fn forget_yielded(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        partial.yielded = Vec::new();
        if partial.frame.is_empty() && partial.fragments_of.is_none() {
            self.partial = None;
        }
    }

    fn step<'b>(&mut self, input: &mut &'b mut [u8], limits: &FrameLimits) -> Result<Step<'b>, FrameError> {
        if let Some(partial) = self.partial.as_mut().filter(|partial| !partial.frame.is_empty()) {
            return partial.step(input, limits);
        }
        let open = self.partial.as_ref().and_then(|partial| partial.open());
        let header = match header(input, open, limits)? {
            Some(header) if header.whole() <= input.len() => header,
            header => {
                if !input.is_empty() {
                    let whole = header.map_or(CLIENT_HEADER_BYTES_MAX, |header| header.whole());
                    let rest = std::mem::take(input);
                    self.partial.get_or_insert_default().keep(rest, whole);
                }
                return Ok(Step::Incomplete);
            }
        };
        let (frame, rest) = std::mem::take(input).split_at_mut(header.whole());
        *input = rest;
        let payload = &mut frame[header.head..];
        unmask(payload, header.mask);
        if header.is_fragment() {
            return self.partial.get_or_insert_default().append(&header, payload);
        }
        Ok(Step::InPlace(header.opcode, payload))
    }
}

impl Partial {
    fn open(&self) -> Option<Open> {
        self.fragments_of.map(|_| Open { bytes: self.message.len(), fragments: self.fragments })
    }

    /// Goes on with a frame whose front is kept.
    fn step<'b>(&mut self, input: &mut &'b mut [u8], limits: &FrameLimits) -> Result<Step<'b>, FrameError> {
        let header = loop {
            let header = header(&self.frame, self.open(), limits)?;
            // One byte at a time until the header is whole: what follows it must not be mistaken for it.
            let whole = header.as_ref().map_or(self.frame.len() + 1, Header::whole);
            let missing = (whole - self.frame.len()).min(input.len());
            let (front, rest) = std::mem::take(input).split_at_mut(missing);
            *input = rest;
            self.keep(front, whole);
            match header {
                Some(header) if self.frame.len() == whole => break header,
                None if self.frame.len() == whole => {}
                _ => return Ok(Step::Incomplete),
            }
        };
        let mut frame = std::mem::take(&mut self.frame);
        unmask(&mut frame[header.head..], header.mask);
        if header.is_fragment() {
            return self.append(&header, &frame[header.head..]);
        }
        self.yielded = frame;
        Ok(Step::Assembled(header.opcode, header.head))
    }

    /// Adds bytes of a frame of `whole` bytes. Space at most doubles, so it follows what arrived, and never passes
    /// what the frame needs.
    fn keep(&mut self, bytes: &[u8], whole: usize) {
        let needed = self.frame.len() + bytes.len();
        if needed > self.frame.capacity() {
            let roomy = (2 * needed).min(whole).max(needed);
            self.frame.reserve_exact(roomy - self.frame.len());
        }
        self.frame.extend_from_slice(bytes);
    }

    /// Adds an unmasked fragment to the open message, or opens one with it.
    fn append<'b>(&mut self, header: &Header, payload: &[u8]) -> Result<Step<'b>, FrameError> {
        let opcode = *self.fragments_of.get_or_insert(header.opcode);
        self.fragments += 1;
        self.message.extend_from_slice(payload);
        if opcode == Opcode::Text {
            // A character may be cut by a fragment's end; anything else wrong is wrong at once.
            if let Err(error) = std::str::from_utf8(&self.message[self.valid_utf8..]) {
                if error.error_len().is_some() {
                    return Err(FrameError::Utf8);
                }
                self.valid_utf8 += error.valid_up_to();
            } else {
                self.valid_utf8 = self.message.len();
            }
        }
        if !header.is_final {
            return Ok(Step::Fragment);
        }
        self.yielded = std::mem::take(&mut self.message);
        self.fragments_of = None;
        self.fragments = 0;
        self.valid_utf8 = 0;
        Ok(Step::Assembled(opcode, 0))
    }
}

/// Parses and judges the header at the front of `bytes`; none if it is not all there.
fn header(bytes: &[u8], open: Option<Open>, limits: &FrameLimits) -> Result<Option<Header>, FrameError> {
    let mut cursor = Cursor::new(&bytes[..bytes.len().min(CLIENT_HEADER_BYTES_MAX)]);
    // The only error of parsing from memory is an opcode it does not know.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::ReservedOpcode)?;
    let Some((header, length)) = parsed else { return Ok(None) };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(FrameError::ReservedBit);
    }
    let mask = header.mask.ok_or(FrameError::Unmasked)?;
    let opcode = match header.opcode {
        OpCode::Data(Data::Continue) => Opcode::Continuation,
        OpCode::Data(Data::Text) => Opcode::Text,
        OpCode::Data(Data::Binary) => Opcode::Binary,
        OpCode::Control(Control::Close) => Opcode::Close,
        OpCode::Control(Control::Ping) => Opcode::Ping,
        OpCode::Control(Control::Pong) => Opcode::Pong,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(FrameError::ReservedOpcode);
        }
    };
    let is_final = header.is_final;
    let payload = match opcode {
        Opcode::Close | Opcode::Ping | Opcode::Pong => judge_control(is_final, length)?,
        Opcode::Continuation if open.is_none() => return Err(FrameError::UnexpectedContinuation),
        Opcode::Text | Opcode::Binary if open.is_some() => return Err(FrameError::UnfinishedMessage),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => judge_data(is_final, length, open, limits)?,
    };
    Ok(Some(Header { opcode, is_final, mask, head: cursor.position() as usize, payload }))
}

fn judge_control(is_final: bool, length: u64) -> Result<usize, FrameError> {
    match usize::try_from(length) {
        _ if !is_final => Err(FrameError::FragmentedControl),
        Ok(length) if length <= CONTROL_BYTES_MAX => Ok(length),
        _ => Err(FrameError::LongControl),
    }
}

fn judge_data(
    is_final: bool,
    length: u64,
    open: Option<Open>,
    limits: &FrameLimits,
) -> Result<usize, FrameError> {
    let so_far = open.unwrap_or(Open { bytes: 0, fragments: 0 });
    let is_fragment = open.is_some() || !is_final;
    if is_fragment && so_far.fragments >= limits.fragments_max {
        return Err(FrameError::TooManyFragments { limit: limits.fragments_max });
    }
    match usize::try_from(length) {
        Ok(length) if length.saturating_add(so_far.bytes) <= limits.message_bytes_max => Ok(length),
        _ => Err(FrameError::TooBig { limit: limits.message_bytes_max }),
    }
}

/// A whole, unmasked message.
fn message(opcode: Opcode, payload: &mut [u8]) -> Result<Message<'_>, FrameError> {
    Ok(match opcode {
        Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        Opcode::Text => Message::Text(std::str::from_utf8(payload).map_err(|_| FrameError::Utf8)?),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Close => return close(payload),
    })
}

/// RFC 6455 section 5.5.1: nothing, or a code and a reason.
fn close(payload: &[u8]) -> Result<Message<'_>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(Message::Close { code: None, reason: "" }),
        [_] => return Err(FrameError::InvalidClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 7.4: 1004 to 1006 and 1015 never travel, the rest up to 2999 is the protocol's own.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::InvalidClose);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
    Ok(Message::Close { code: Some(code), reason })
}

/// Undoes a client's masking (section 5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return;
    }
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

const FINAL_BIT: u8 = 0x80;
const MASK_BIT: u8 = 0x80;

/// What a frame is (section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Appends the header of a whole message of `payload` bytes; a server does not mask.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload: usize) {
    out.push(FINAL_BIT | opcode as u8);
    match payload {
        0..126 => out.push(payload as u8),
        126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// How many bytes [`write_header`] appends for a binary message of `payload` bytes.
#[must_use]
pub const fn binary_header_len(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    }
}

/// Appends a binary message.
pub fn write_binary(out: &mut Vec<u8>, payload: &[u8]) {
    write_header(out, Opcode::Binary, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a ping. A payload of more than 125 bytes is cut: no ping can carry it.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Opcode::Ping, payload);
}

/// Appends a pong; `payload` is that of the ping it answers.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Opcode::Pong, payload);
}

fn write_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close frame. A reason of more than 123 bytes is cut at a character.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Appends an empty close frame, the answer to a close without a code.
pub fn write_empty_close(out: &mut Vec<u8>) {
    write_header(out, Opcode::Close, 0);
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (section 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    tungstenite::handshake::derive_accept_key(key.as_bytes())
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
