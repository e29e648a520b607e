//! One question to an issuer: its keys, over HTTPS. Bounded in time and length, redirected nowhere.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// What it may take, from the first packet to the last.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// 100 RSA keys with their certificates are 250 KiB.
const KEYS_LEN_MAX: usize = 512 * 1024;

/// Who vouches for an issuer's host.
#[derive(Clone)]
pub(crate) struct Authorities(Arc<RootCertStore>);

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

impl Authorities {
    /// Those in a file of certificates, and no others.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let listed = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
        for certificate in listed {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(Self(Arc::new(roots))) }
    }

    /// Those that this machine trusts; `SSL_CERT_FILE` names others.
    pub(super) fn of_this_machine() -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        Self(Arc::new(roots))
    }

    fn connector(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.0.clone())
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

pub(super) async fn fetch(uri: &Uri, authorities: &Authorities) -> Result<Bytes, String> {
    match tokio::time::timeout(FETCH_TIME_MAX, ask(uri, authorities)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no complete answer within {FETCH_TIME_MAX:?}")),
    }
}

async fn ask(uri: &Uri, authorities: &Authorities) -> Result<Bytes, String> {
    let host = uri.host().ok_or("no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let connecting = TcpStream::connect((host.as_str(), port));
    let stream = connecting.await.map_err(|error| format!("{host}:{port}: {error}"))?;
    if !is_https {
        return ask_over(stream, uri).await;
    }
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let stream = authorities.connector()?.connect(name, stream).await.map_err(|error| error.to_string())?;
    ask_over(stream, uri).await
}

async fn ask_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
) -> Result<Bytes, String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    tokio::spawn(driver); // ends with the answer
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(said)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), KEYS_LEN_MAX).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}
