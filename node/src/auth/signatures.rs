//! What signatures of tokens are checked with: ring, as all else here is. `jsonwebtoken` brings other libraries
//! for it, or takes a provider; this is one that checks and never signs.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
};
use ring::signature::{self as ring_signature, RsaPublicKeyComponents, UnparsedPublicKey};

/// What tokens may be signed with. All of it has a public key: a list that held a shared secret's algorithm too
/// could be made to take a public key, which everybody has, for that secret.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(), // for keys that are made, and thumbprints
};

/// Once in a process, however many nodes tests run in it.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if !ALGORITHMS.contains(algorithm) || key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.kind().clone() }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

impl Verifier {
    fn is_good(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let Some(rsa) = rsa(self.algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
            }
            DecodingKeyKind::SecretOrDer(key) => {
                let Some(by_point) = by_point(self.algorithm) else { return false };
                UnparsedPublicKey::new(by_point, key).verify(message, signature).is_ok()
            }
        }
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if self.is_good(message, signature) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Keys from 2,048 to 8,192 bits.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's own, and it may add to them")]
fn rsa(algorithm: Algorithm) -> Option<&'static ring_signature::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
        _ => None, // of another family
    }
}

/// Of those whose key is a point of a curve.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's own, and it may add to them")]
fn by_point(algorithm: Algorithm) -> Option<&'static dyn ring_signature::VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&ring_signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&ring_signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&ring_signature::ED25519),
        _ => None, // of another family
    }
}
