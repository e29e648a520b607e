//! Who may talk: a TLS 1.3 identity derived from the cluster secret, as a raw public key (RFC 7250).
//! Every node of the cluster has the same one and accepts no other, so there is no certificate to
//! issue, to renew or to parse.
//!
//! Where there are several secrets the first one identifies and all are accepted. Each connection proves
//! its secret itself: nothing is resumed, since whoever resumes shows what was proved once, perhaps by a
//! secret that is accepted no more; and nothing is sent early, before both ends have proved theirs.

use proto::id::ClusterSecret;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{AlwaysResolvesClientRawPublicKeys, Resumption},
    crypto::{CryptoProvider, ring::sign::any_eddsa_type, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage},
    sign::CertifiedKey,
    version::TLS13,
};
use std::sync::Arc;

/// The name in the TLS handshake; keys are pinned, so it is the same for every node.
pub(super) const SERVER_NAME: &str = "ringway";

/// PKCS#8 v1 around a 32-byte Ed25519 seed (RFC 8410, 7).
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// SubjectPublicKeyInfo around a 32-byte Ed25519 public key (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// TLS 1.3 between nodes for one protocol: as the dialled one and as the dialling one.
pub(super) fn tls(
    secrets: &[ClusterSecret],
    cluster: &str,
    alpn: &[u8],
) -> Result<(ServerConfig, ClientConfig), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = own_key(secrets, cluster);
    let pinned = Pinned::new(secrets, cluster, provider.clone());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(pinned.clone())
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.clone())));
    server.alpn_protocols = vec![alpn.to_vec()];
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.max_early_data_size = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    client.alpn_protocols = vec![alpn.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    Ok((server, client))
}

/// A public key, as it stands in handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey(Vec<u8>);

impl PublicKey {
    fn of(secret: &ClusterSecret, cluster: &str) -> Self {
        Self(public_key(&secret.derive("tls", cluster)))
    }

    /// What the other end has shown, and proved to have the private half of. That it has shown nothing can't
    /// be, and is a key that nobody has.
    pub(super) fn shown(by: Option<&[CertificateDer<'_>]>) -> Self {
        Self(by.and_then(<[_]>::first).map(|key| key.to_vec()).unwrap_or_default())
    }
}

/// The keys that follow from one list of secrets.
#[derive(Debug)]
pub(super) struct Keys {
    own: PublicKey,
    accepted: Vec<PublicKey>,
}

/// What the two ends of a connection have shown to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) own: PublicKey,
    pub(super) peer: PublicKey,
}

/// What a proof is worth by the secrets of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Current,
    /// This node would show another key now; the other end may stop accepting that one.
    Outdated,
    /// The other end has shown a key that is accepted no more.
    Gone,
}

impl Keys {
    pub(super) fn new(secrets: &[ClusterSecret], cluster: &str) -> Self {
        let accepted: Vec<_> = secrets.iter().map(|secret| PublicKey::of(secret, cluster)).collect();
        Self { own: accepted[0].clone(), accepted }
    }

    pub(super) fn own(&self) -> &PublicKey {
        &self.own
    }

    pub(super) fn accept(&self, key: &PublicKey) -> bool {
        self.accepted.contains(key)
    }

    pub(super) fn judge(&self, proof: &Proof) -> Trust {
        match self.accept(&proof.peer) {
            false => Trust::Gone,
            true if proof.own == self.own => Trust::Current,
            true => Trust::Outdated,
        }
    }
}

/// As somebody who knows these keys by sight, and has none.
#[cfg(test)]
pub(super) fn keyless(secrets: &[ClusterSecret], cluster: &str, alpn: &[u8]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned::new(secrets, cluster, provider.clone());
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let client = client.expect("it speaks TLS 1.3").dangerous().with_custom_certificate_verifier(pinned);
    let mut client = client.with_client_cert_resolver(Arc::new(NoKey));
    client.alpn_protocols = vec![alpn.to_vec()];
    client
}

/// Speaks of raw public keys, and when it comes to it has none.
#[cfg(test)]
#[derive(Debug)]
struct NoKey;

#[cfg(test)]
impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// This node's key pair: of the first secret.
fn own_key(secrets: &[ClusterSecret], cluster: &str) -> Arc<CertifiedKey> {
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
struct Pinned {
    keys: Keys,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn new(secrets: &[ClusterSecret], cluster: &str, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { keys: Keys::new(secrets, cluster), provider })
    }

    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        if self.keys.accept(&PublicKey(presented.to_vec())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seeds: &[u8]) -> Keys {
        let secrets: Vec<_> = seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect();
        Keys::new(&secrets, "ringway")
    }

    #[test]
    fn a_proof_is_outdated_when_this_node_changes_and_gone_when_the_others_key_is() {
        let (old, new) = (keys(&[1]).own, keys(&[2]).own);
        let proof = |own: &PublicKey, peer: &PublicKey| Proof { own: own.clone(), peer: peer.clone() };
        for (secrets, own, peer, trust) in [
            ([1, 2].as_slice(), &old, &old, Trust::Current),
            (&[1, 2], &old, &new, Trust::Current), // the other one is a step ahead
            (&[2, 1], &old, &old, Trust::Outdated),
            (&[2, 1], &new, &old, Trust::Current), // and here a step behind
            (&[2], &new, &new, Trust::Current),
            (&[2], &old, &new, Trust::Outdated),
            (&[2], &new, &old, Trust::Gone),
            (&[2], &new, &PublicKey::shown(None), Trust::Gone),
        ] {
            assert_eq!(keys(secrets).judge(&proof(own, peer)), trust, "{secrets:?}");
        }
    }
}
