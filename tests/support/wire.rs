//! Both wires' messages, written anew from y-protocols and Hocuspocus, not with the server's own code.

pub const SYNC: u8 = 0;
pub const AWARENESS: u8 = 1;
pub const AUTH: u8 = 2;
pub const QUERY_AWARENESS: u8 = 3;
pub const SYNC_REPLY: u8 = 4;
pub const CLOSE: u8 = 7;
pub const SYNC_STATUS: u8 = 8;

/// What stands in front of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    YWebsocket,
    /// With the routing key.
    Hocuspocus(String),
}

impl Wire {
    pub fn frame(&self, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        if let Self::Hocuspocus(key) = self {
            write_bytes(&mut frame, key.as_bytes());
        }
        frame.extend_from_slice(body);
        frame
    }

    /// The message in a frame, if the frame is of this wire and key.
    pub fn parse(&self, frame: &[u8]) -> Option<Message> {
        match self {
            Self::YWebsocket => Message::parse(frame),
            Self::Hocuspocus(key) => {
                let mut reader = Reader(frame);
                let found = reader.bytes()?;
                if found == key.as_bytes() { Message::parse(reader.0) } else { None }
            }
        }
    }
}

/// What a server says about one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    StepOne(Vec<u8>),
    StepTwo(Vec<u8>),
    Update(Vec<u8>),
    Awareness(Vec<u8>),
    TokenRequest,
    Denied(String),
    Authenticated(String),
    SyncStatus(bool),
    Close(String),
    Other(Vec<u8>),
}

impl Message {
    /// None if it is malformed.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        Some(match reader.varint()? as u8 {
            SYNC | SYNC_REPLY => match reader.varint()? {
                0 => Self::StepOne(reader.bytes()?.to_vec()),
                1 => Self::StepTwo(reader.bytes()?.to_vec()),
                2 => Self::Update(reader.bytes()?.to_vec()),
                _ => return None,
            },
            AWARENESS => Self::Awareness(reader.bytes()?.to_vec()),
            AUTH => match reader.varint()? {
                0 => Self::TokenRequest,
                1 => Self::Denied(reader.string()?),
                2 => Self::Authenticated(reader.string()?),
                _ => return None,
            },
            CLOSE => Self::Close(reader.string()?),
            SYNC_STATUS => Self::SyncStatus(reader.varint()? == 1),
            _ => Self::Other(body.to_vec()),
        })
    }
}

pub fn step_one(state_vector: &[u8]) -> Vec<u8> {
    sync(0, state_vector)
}

pub fn step_two(update: &[u8]) -> Vec<u8> {
    sync(1, update)
}

pub fn update(update: &[u8]) -> Vec<u8> {
    sync(2, update)
}

fn sync(step: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![SYNC, step];
    write_bytes(&mut body, payload);
    body
}

/// One client's awareness; `state` is JSON, `null` for a client that leaves.
pub fn awareness(client: u64, clock: u64, state: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    write_varint(&mut payload, 1);
    write_varint(&mut payload, client);
    write_varint(&mut payload, clock);
    write_bytes(&mut payload, state.as_bytes());
    let mut body = vec![AWARENESS];
    write_bytes(&mut body, &payload);
    body
}

/// The clients of an awareness payload: id, clock, state.
pub fn awareness_clients(payload: &[u8]) -> Vec<(u64, u64, String)> {
    let mut reader = Reader(payload);
    let count = reader.varint().expect("a count");
    let mut client = || Some((reader.varint()?, reader.varint()?, reader.string()?));
    (0..count).map(|_| client().expect("a whole client")).collect()
}

/// A token in band: Hocuspocus' Auth, or a renewal on y-websocket. v4 of the provider adds its version.
pub fn auth(token: &str, version: Option<&str>) -> Vec<u8> {
    let mut body = vec![AUTH, 0];
    write_bytes(&mut body, token.as_bytes());
    if let Some(version) = version {
        write_bytes(&mut body, version.as_bytes());
    }
    body
}

pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads lib0.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}
