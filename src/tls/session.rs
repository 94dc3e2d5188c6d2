//! One connection's TLS: bytes of the wire in, plain bytes out, and back. No I/O here.
//!
//! A session that waits holds no buffer: what comes in is decrypted in the caller's, and only the beginning of a record
//! that is not whole is kept.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ServerConfig, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, HandshakeKind};

/// Plain bytes come to the front of the buffer while records behind are still read: this much room lets the first record's
/// come before it. More than any record holds.
const FRONT_BYTES: usize = 17 << 10;

/// The least that a buffer must have: the front, and a record with its header.
pub const BUFFER_BYTES_MIN: usize = FRONT_BYTES + (18 << 10);

/// What is kept of a handshake whose next message is not whole: many may be half open at a time. A ClientHello has one or two
/// kilobytes; this is one record.
const HANDSHAKE_BYTES_MAX: usize = 18 << 10;

/// What a record may hold (RFC 8446 section 5.1), and more than it may grow by.
const RECORD_BYTES: usize = 16 << 10;
const OVERHEAD_BYTES: usize = 64;

/// The server's side of a TLS connection.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// What came and could not be used yet.
    unfinished: Vec<u8>,
    /// What must be sent before anything else: parts of the handshake, alerts.
    pub output: Vec<u8>,
    /// The other side has said that nothing more will come.
    pub peer_is_done: bool,
    /// Why the connection is over, if it broke.
    pub failure: Option<Error>,
}

/// What is left to do with a state of rustls's.
enum Step {
    Again,
    Done,
}

impl Session {
    /// # Errors
    /// If the configuration can't be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self {
            connection,
            unfinished: Vec::new(),
            output: Vec::new(),
            peer_is_done: false,
            failure: None,
        })
    }

    /// The same with bytes that were read before it was known what they are.
    ///
    /// # Errors
    /// If the configuration can't be used.
    pub fn beginning_with(config: Arc<ServerConfig>, bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self { unfinished: bytes.to_vec(), ..Self::new(config)? })
    }

    /// How the handshake went; `None` while it goes on.
    #[must_use]
    pub fn handshake(&self) -> Option<HandshakeKind> {
        if self.connection.is_handshaking() { None } else { self.connection.handshake_kind() }
    }

    /// Where in `buffer` (of [`BUFFER_BYTES_MIN`] or more) the next bytes of the wire belong. Empty if what is there is too
    /// much for one message of a handshake.
    pub fn room<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let start = FRONT_BYTES + self.unfinished.len();
        let end = match self.connection.is_handshaking() {
            true => buffer.len().min(FRONT_BYTES + HANDSHAKE_BYTES_MAX),
            false => buffer.len(),
        };
        buffer.get_mut(start..end).unwrap_or_default()
    }

    /// Takes in `count` bytes that were put into [`Self::room`]. The plain bytes are then at the front of the buffer; how
    /// many is returned. [`Self::output`] may have grown.
    ///
    /// # Errors
    /// If the connection can't go on: send what is in [`Self::output`], then close.
    pub fn receive(&mut self, buffer: &mut [u8], count: usize) -> Result<usize, Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let outcome = self.decrypt(buffer, count);
        if let Err(error) = &outcome {
            self.failure.get_or_insert_with(|| error.clone());
        }
        outcome
    }

    fn decrypt(&mut self, buffer: &mut [u8], count: usize) -> Result<usize, Error> {
        let end = FRONT_BYTES + self.unfinished.len() + count;
        if end > buffer.len() {
            return Err(Error::General("more bytes than there is room for".to_owned()));
        }
        buffer[FRONT_BYTES..][..self.unfinished.len()].copy_from_slice(&self.unfinished);
        self.unfinished = Vec::new();
        let (mut start, mut plain) = (FRONT_BYTES, 0);
        let mut failure = None;
        loop {
            let (front, wire) = buffer[..end].split_at_mut(start);
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(wire);
            let step = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let payload = record?.payload;
                        let room = front.get_mut(plain..plain + payload.len());
                        let room = room.ok_or_else(|| Error::General("a record too large".to_owned()))?;
                        room.copy_from_slice(payload);
                        plain += payload.len();
                    }
                    Step::Again
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.output),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Step::Again
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_is_done = true;
                    Step::Again
                }
                Ok(ConnectionState::Closed) => {
                    self.peer_is_done = true;
                    Step::Done
                }
                Ok(_) => Step::Done,
                Err(error) => {
                    failure.get_or_insert(error);
                    Step::Again
                }
            };
            start += discard;
            // After a failure there is only the alert that says so to be had. Asked for more, rustls would read the
            // wrong bytes again.
            if matches!(step, Step::Done) || (failure.is_some() && !self.connection.wants_write()) {
                break;
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                if start < end && !self.peer_is_done {
                    self.unfinished = buffer[start..end].to_vec();
                }
                Ok(plain)
            }
        }
    }

    /// Appends what is to be sent for these plain bytes to `out`, behind [`Self::output`].
    ///
    /// # Errors
    /// If the connection can't send any more.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if plain.is_empty() {
            return Ok(());
        }
        let room = plain.len() + (plain.len() / RECORD_BYTES + 1) * OVERHEAD_BYTES;
        self.write(out, room, |connection, room| connection.encrypt(plain, room))
    }

    /// Appends the alert that says that nothing more will come.
    pub fn say_goodbye(&mut self, out: &mut Vec<u8>) {
        // A connection that can't say it has nobody left to say it to.
        let _ = self.write(out, OVERHEAD_BYTES, |connection, room| connection.queue_close_notify(room));
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        mut encode_into: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            // rustls must not be asked again: it remembers places in a buffer that is gone.
            return Err(error.clone());
        }
        out.append(&mut self.output);
        loop {
            // What is unfinished has been looked at already: nothing more is read of it. But it must be there, since
            // rustls remembers places in it.
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.unfinished);
            let step = match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    let written = match encode_into(&mut traffic, &mut out[start..]) {
                        Err(EncryptError::InsufficientSize(needed)) => {
                            out.resize(start + needed.required_size, 0);
                            encode_into(&mut traffic, &mut out[start..])
                        }
                        written => written,
                    };
                    out.truncate(start + *written.as_ref().unwrap_or(&0));
                    written.map_err(|error| Error::General(error.to_string()))?;
                    Step::Done
                }
                ConnectionState::EncodeTlsData(data) => encode(data, out),
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    Step::Again
                }
                ConnectionState::PeerClosed => {
                    self.peer_is_done = true;
                    Step::Again
                }
                _ => return Err(Error::General("the connection takes no data now".to_owned())),
            };
            self.unfinished.drain(..discard);
            if matches!(step, Step::Done) {
                return Ok(());
            }
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Step {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        out.resize(start + needed.required_size, 0);
        if data.encode(&mut out[start..]).is_err() {
            out.truncate(start);
        }
    }
    Step::Again
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handshake", &self.handshake())
            .field("unfinished", &self.unfinished.len())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

    use super::*;

    struct Pair {
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
        buffer: Vec<u8>,
    }

    impl Pair {
        fn of(version: &'static SupportedProtocolVersion) -> Self {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(certificate.der().clone()).unwrap();
            let provider = Arc::new(default_provider());
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            let client = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            Self { server: Arc::new(server), client: Arc::new(client), buffer: vec![0; 64 << 10] }
        }

        fn begin(&self) -> (Session, ClientConnection) {
            let name = ServerName::try_from("a.example").unwrap();
            let client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
            (Session::new(Arc::clone(&self.server)).unwrap(), client)
        }

        /// Plain bytes that come of these, given in parts of so many.
        fn give(&mut self, session: &mut Session, bytes: &[u8], part: usize) -> Result<Vec<u8>, Error> {
            let mut plain = Vec::new();
            for bytes in bytes.chunks(part) {
                session.room(&mut self.buffer)[..bytes.len()].copy_from_slice(bytes);
                let count = session.receive(&mut self.buffer, bytes.len())?;
                plain.extend_from_slice(&self.buffer[..count]);
            }
            Ok(plain)
        }

        fn handshake(&mut self, part: usize) -> (Session, ClientConnection) {
            let (mut session, mut client) = self.begin();
            while client.is_handshaking() || session.handshake().is_none() {
                self.give(&mut session, &flight(&mut client), part).unwrap();
                let output = std::mem::take(&mut session.output);
                take(&mut client, &output);
            }
            (session, client)
        }
    }

    fn flight(client: &mut ClientConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn take(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
            let _ = std::io::Read::read_to_end(&mut client.reader(), &mut plain);
        }
        plain
    }

    #[test]
    fn bytes_pass_both_ways_however_they_are_cut() {
        for version in [&TLS12, &TLS13] {
            let mut pair = Pair::of(version);
            for part in [1, 7, 1000, 40_000] {
                let (mut session, mut client) = pair.handshake(part);
                let sent: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
                client.set_buffer_limit(None);
                std::io::Write::write_all(&mut client.writer(), &sent).unwrap();
                let received = pair.give(&mut session, &flight(&mut client), part).unwrap();
                assert!(
                    received == sent && session.unfinished.is_empty() && session.unfinished.capacity() == 0
                );
                let mut out = Vec::new();
                session.seal(&sent, &mut out).unwrap();
                session.say_goodbye(&mut out);
                assert!(take(&mut client, &out) == sent);
                client.send_close_notify();
                pair.give(&mut session, &flight(&mut client), part).unwrap();
                assert!(session.peer_is_done);
            }
        }
    }

    #[test]
    fn a_half_open_handshake_keeps_little() {
        let mut pair = Pair::of(&TLS13);
        let (mut session, _) = pair.begin();
        // A ClientHello that claims 60 KB, in records of 16 KB.
        let mut endless = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xea, 0x60][..], &[0; 16_380]].concat();
        endless.extend([0x16, 3, 1, 0x40, 0].iter().chain(&[0; 16_384]));
        for byte in endless {
            let room = session.room(&mut pair.buffer);
            let Some(first) = room.first_mut() else { break };
            *first = byte;
            session.receive(&mut pair.buffer, 1).unwrap();
        }
        assert!(session.room(&mut pair.buffer).is_empty(), "it can't go on");
        assert!(session.unfinished.capacity() <= HANDSHAKE_BYTES_MAX && session.output.is_empty());
    }

    #[test]
    fn new_keys_are_taken_while_a_record_is_not_whole() {
        let mut pair = Pair::of(&TLS13);
        let (mut session, mut client) = pair.handshake(1000);
        for round in 0..20 {
            client.refresh_traffic_keys().unwrap();
            std::io::Write::write_all(&mut client.writer(), b"hello").unwrap();
            let bytes = flight(&mut client);
            let (first, rest) = bytes.split_at(round % bytes.len());
            let mut plain = pair.give(&mut session, first, 1000).unwrap();
            let mut out = Vec::new();
            session.seal(b"meanwhile", &mut out).unwrap();
            assert_eq!(take(&mut client, &out), b"meanwhile");
            plain.extend(pair.give(&mut session, rest, 1000).unwrap());
            assert_eq!(plain, b"hello");
        }
    }

    #[test]
    fn a_wrong_byte_anywhere_ends_the_connection_and_nothing_else() {
        for version in [&TLS12, &TLS13] {
            let mut pair = Pair::of(version);
            let (_, mut client) = pair.begin();
            let hello = flight(&mut client);
            for part in [5, 40_000] {
                for (at, mask) in (0..hello.len()).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0xff)]) {
                    let mut wrong = hello.clone();
                    wrong[at] ^= mask;
                    let mut session = Session::new(Arc::clone(&pair.server)).unwrap();
                    let mut out = Vec::new();
                    let outcome = pair.give(&mut session, &wrong, part);
                    assert_eq!(outcome.is_err(), session.failure.is_some());
                    assert!(session.seal(b"x", &mut out).is_err() && outcome.unwrap_or_default().is_empty());
                    session.say_goodbye(&mut out);
                    assert!(pair.give(&mut session, &hello, part).is_err() || session.failure.is_none());
                }
            }
            for at in 0..60 {
                let (mut session, mut client) = pair.handshake(40_000);
                std::io::Write::write_all(&mut client.writer(), &[7; 38]).unwrap();
                let mut wrong = flight(&mut client);
                wrong[at] ^= 0x80;
                let outcome = pair.give(&mut session, &wrong, 40_000);
                // A length that is too long waits for the rest; a record's minor version says nothing.
                let harmless = |plain: Vec<u8>| plain.is_empty() || (at == 2 && plain == [7; 38]);
                assert!(outcome.is_err() || outcome.is_ok_and(harmless), "{at}");
                let mut out = Vec::new();
                let _ = session.seal(b"x", &mut out);
                session.say_goodbye(&mut out);
            }
        }
    }
}
