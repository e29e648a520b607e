//! What two proxies show each other: certificates of an authority that was made for the run. Called by `stage`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The name that both ends have and look for.
pub(super) const NAME: &str = "localhost";

/// Files in PEM.
#[derive(Debug)]
pub(in super::super) struct Certificates {
    pub(super) authority: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants it.
    pub(super) both: PathBuf,
}

impl Certificates {
    pub(in super::super) fn make(dir: &Path) -> anyhow::Result<Certificates> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "the benchmark's authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();

        let mut node = CertificateParams::new([NAME.to_owned()])?;
        node.distinguished_name.push(DnType::CommonName, "a proxy");
        let key = KeyPair::generate()?;
        let certificate = node.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();

        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            anyhow::Ok(path)
        };
        let key = key.serialize_pem();
        Ok(Certificates {
            authority: write("authority.pem", &authority_pem)?,
            certificate: write("proxy.pem", &certificate)?,
            key: write("proxy.key", &key)?,
            both: write("proxy-and-key.pem", &(certificate + &key))?,
        })
    }
}
