//! Who may talk: a TLS 1.3 identity derived from the cluster secret, as a raw public key (RFC 7250).
//! Every node of the cluster has the same one and accepts no other, so there is no certificate to
//! issue, to renew or to parse.

use proto::id::ClusterSecret;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::sign::any_eddsa_type, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::CertifiedKey,
};
use std::sync::Arc;

/// PKCS#8 v1 around a 32-byte Ed25519 seed (RFC 8410, 7).
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// SubjectPublicKeyInfo around a 32-byte Ed25519 public key (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// This node's key pair: of the first secret.
pub(super) fn own_key(secrets: &[ClusterSecret], cluster: &str) -> Arc<CertifiedKey> {
    let seed = secrets[0].derive("tls", cluster);
    let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8_PREFIX.as_slice(), &seed].concat());
    let key = any_eddsa_type(&pkcs8).expect("32 bytes are an Ed25519 seed");
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(public_key(&seed))], key))
}

fn public_key(seed: &[u8; 32]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are an Ed25519 seed");
    [SPKI_PREFIX.as_slice(), pair.public_key().as_ref()].concat()
}

/// Accepts exactly the keys derived from this cluster's secrets.
#[derive(Debug)]
pub(super) struct Pinned {
    keys: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(super) fn new(secrets: &[ClusterSecret], cluster: &str, provider: Arc<CryptoProvider>) -> Arc<Self> {
        let keys = secrets.iter().map(|secret| public_key(&secret.derive("tls", cluster))).collect();
        Arc::new(Self { keys, provider })
    }

    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        if self.keys.iter().any(|key| key.as_slice() == presented.as_ref()) {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
