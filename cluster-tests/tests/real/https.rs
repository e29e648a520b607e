//! TLS as a client speaks it, with an authority of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cluster_tests::real::http::Answer;
use cluster_tests::real::places;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who signs the certificates of a test, in a folder of its own.
pub(crate) struct Authority {
    pub(crate) dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let dir = places::scratch("certificates").unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("authority.pem"), own.pem()).unwrap();
        let own = own.der().clone();
        Authority { dir, issuer: Issuer::new(params, key), own }
    }

    /// Its own certificate, for clients that are to trust it.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    /// A certificate for this machine and its key, both PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a node");
        params.use_authority_key_identifier_extension = true; // Python insists
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Puts a new pair where a node looks for it, and gives the line of its configuration.
    pub(crate) fn renew(&self) -> String {
        let (cert, key) = self.issue();
        self.put("cert.pem", &cert);
        self.put("key.pem", &key);
        let path = |name: &str| self.dir.join(name).display().to_string();
        format!("tls = {{ cert = {:?}, key = {:?} }}\n", path("cert.pem"), path("key.pem"))
    }

    pub(crate) fn put(&self, name: &str, pem: &str) {
        // Whole or not at all, as whoever renews certificates does it.
        let path = self.dir.join(name);
        let beside = path.with_extension("new");
        std::fs::write(&beside, pem).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// A client that trusts it and offers these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> Client {
        self.client_of(protocols, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_of(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Each connection shows the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Client(Arc::new(config))
    }
}

pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) async fn connect(&self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(to.ip().to_string()).unwrap();
        TlsConnector::from(self.0.clone()).connect(name, stream).await
    }

    /// The certificate that is shown to whoever connects now.
    pub(crate) async fn shown(&self, to: SocketAddr) -> Vec<u8> {
        let stream = self.connect(to).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// One request on a connection of its own, by the version of HTTP that both speak.
    pub(crate) async fn request(
        &self,
        method: &str,
        to: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let stream = self.connect(to).await?;
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut request = Request::builder().method(method);
        request = match is_http_2 {
            true => request.uri(format!("https://{to}{path}")),
            false => request.uri(path).header("host", to.to_string()),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let io = TokioIo::new(stream);
        let response = if is_http_2 {
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(driver);
            sender.send_request(request).await?
        } else {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(driver);
            sender.send_request(request).await?
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// What a PEM file of one certificate holds.
pub(crate) fn der(path: &Path) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}
