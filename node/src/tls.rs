//! TLS for clients: a certificate and its key, read again when they change, and handshakes with them. The only
//! place outside of `peer/` that names rustls. The configuration asks whether a pair is good, `front/` takes
//! connections with it.

use crate::watched::Watched;
use rustls::{
    Error, InconsistentKeys, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::ServerSessionMemoryCache,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

pub(crate) use tokio_rustls::server::TlsStream;

/// What browsers and SDKs prefer comes first; who says nothing is served by what it speaks.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Sessions that are resumed without another signature: one takes about 1 KiB, so all take 1 MiB. They are
/// this node's own; at another one a client begins anew.
const RESUMABLE_MAX: usize = 1_024;
/// The first byte of whoever speaks TLS (RFC 8446, 5.1: a record of the type `handshake`).
pub(crate) const FIRST_BYTE: u8 = 22;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// PEM: the node's own first, then those that lead to a known one.
    pub(crate) cert: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub(crate) key: PathBuf,
}

/// What is wrong with a pair, and with which of the two.
#[derive(Debug)]
pub(crate) enum BadPair {
    Cert(String),
    Key(String),
}

impl fmt::Display for BadPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cert(what) | Self::Key(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BadPair {}

impl TlsFiles {
    /// Reads both and sees whether they can be used.
    pub(crate) fn check(&self) -> Result<(), BadPair> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (cert, key) = (read(&self.cert), read(&self.key));
        let (cert, key) = (cert.map_err(BadPair::Cert)?, key.map_err(BadPair::Key)?);
        self.settings(&cert, &key).map(drop)
    }

    fn settings(&self, cert: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, BadPair> {
        let of_cert = |what: &dyn fmt::Display| BadPair::Cert(format!("{}: {what}", self.cert.display()));
        let of_key = |what: &dyn fmt::Display| BadPair::Key(format!("{}: {what}", self.key.display()));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.map_err(|error| of_cert(&error))?;
        if chain.is_empty() {
            return Err(of_cert(&"holds no certificate (-----BEGIN CERTIFICATE-----)"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            let is_absent = matches!(error, pem::Error::NoItemsFound);
            let none: &dyn fmt::Display = &"holds no private key, or an encrypted one (PEM)";
            of_key(if is_absent { none } else { &error })
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            if matches!(error, Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) {
                return of_key(&format!("is not the key of the certificate in {}", self.cert.display()));
            }
            let is_of_cert = matches!(error, Error::InvalidCertificate(_));
            if is_of_cert { of_cert(&error) } else { of_key(&error) }
        })?;
        let mut settings = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| of_cert(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        settings.session_storage = ServerSessionMemoryCache::new(RESUMABLE_MAX);
        // What a client sends before the handshake is done could be sent again by anybody (RFC 8446, 8).
        settings.max_early_data_size = 0;
        Ok(Arc::new(settings))
    }
}

/// The pair as it is now, for all handshakes that begin now.
#[derive(Clone, Debug)]
pub(crate) struct Tls(watch::Receiver<Arc<ServerConfig>>);

/// Keeps a [`Tls`] as its files are.
#[derive(Debug)]
pub(crate) struct Renewal {
    files: TlsFiles,
    watched: Watched,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn open(files: TlsFiles) -> io::Result<(Self, Renewal)> {
        let (watched, contents) = Watched::read(vec![files.cert.clone(), files.key.clone()])?;
        let settings = files.of(&contents).map_err(io::Error::other)?;
        let (current, seen) = watch::channel(settings);
        Ok((Self(seen), Renewal { files, watched, current }))
    }

    /// A connection whose client has yet to prove that it speaks TLS.
    pub(crate) async fn accept<S>(&self, connection: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = self.0.borrow().clone();
        TlsAcceptor::from(settings).accept(connection).await
    }
}

impl TlsFiles {
    fn of(&self, contents: &[Vec<u8>]) -> Result<Arc<ServerConfig>, BadPair> {
        let [cert, key] = contents else { return Err(BadPair::Cert("two files are expected".into())) };
        self.settings(cert, key)
    }
}

impl Renewal {
    /// Takes a new pair whenever there is a good one. Connections that are open keep what they began with.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let contents = self.watched.changed().await;
            match self.files.of(&contents) {
                Ok(settings) => {
                    self.current.send_replace(settings);
                    let files: Vec<_> = self.watched.paths().collect();
                    tracing::info!(?files, "a new certificate is used from now on");
                }
                Err(error) => tracing::error!(
                    %error,
                    "the new certificate can't be used; the one before is used on until the files change"
                ),
            }
        }
    }
}
