//! Certificates of a test's own authority, and connections that trust it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::http;

pub const NAME: &str = "sync.example.com";

/// Whom the clients of a test trust, and the server's files in a directory.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("the authority's certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, issuer: Issuer::new(params, key), roots }
    }

    /// A certificate for [`NAME`], changed, with its key, as PEM.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("tls.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("tls.key")
    }

    /// Puts a new certificate and its key where the server looks.
    pub fn renew(&self) {
        let (certificate, key) = self.issue(|_| {});
        self.put(&certificate, &key);
    }

    pub fn put(&self, certificate: &str, key: &str) {
        self.write(&self.certificate(), certificate);
        self.write(&self.key(), key);
    }

    /// Readers see the file whole or not at all.
    fn write(&self, path: &Path, text: &str) {
        let mut file = tempfile::NamedTempFile::new_in(self.dir.path()).expect("a temporary file");
        file.write_all(text.as_bytes()).expect("the file is written");
        file.as_file().set_permissions(PermissionsExt::from_mode(0o600)).expect("its rights are set");
        file.persist(path).expect("the file is put in its place");
    }

    /// What connects with these versions; connections with the same one resume each other's sessions.
    pub fn connector(&self, versions: &[&'static SupportedProtocolVersion]) -> Connector {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Connector(Arc::new(config))
    }
}

#[derive(Debug, Clone)]
pub struct Connector(pub Arc<ClientConfig>);

impl Connector {
    pub fn session(&self) -> ClientConnection {
        let name = ServerName::try_from(NAME).expect("a name");
        ClientConnection::new(Arc::clone(&self.0), name).expect("a session")
    }

    #[track_caller]
    pub fn connect(&self, address: SocketAddr) -> Stream {
        self.over(http::connect(address))
    }

    /// Goes through the handshake on a connection that is open.
    #[track_caller]
    pub fn over(&self, tcp: TcpStream) -> Stream {
        let mut stream = StreamOwned::new(self.session(), tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the handshake succeeds");
        }
        Stream::Tls(Box::new(stream))
    }
}

/// What a client talks over.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    #[track_caller]
    fn session(&self) -> &ClientConnection {
        match self {
            Self::Plain(_) => panic!("it is not encrypted"),
            Self::Tls(tls) => &tls.conn,
        }
    }

    pub fn version(&self) -> Option<ProtocolVersion> {
        self.session().protocol_version()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.session().alpn_protocol()
    }

    pub fn kind(&self) -> Option<HandshakeKind> {
        self.session().handshake_kind()
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> Vec<u8> {
        self.session().peer_certificates().expect("the server has one")[0].to_vec()
    }

    /// Says that nothing more will come, and nothing else.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            tls.flush().expect("the goodbye is sent");
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
