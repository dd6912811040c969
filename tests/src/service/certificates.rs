//! Certificates of a test authority of our own, made anew for every run: there is no key to keep secret.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::Error;

/// Where a certificate and its key lie, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// An authority, and what it vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The certificate of the authority, PEM.
    pub authority: PathBuf,
    /// For `localhost`, `127.0.0.1` and `registry.windlass.test`.
    pub server: Certificate,
    /// For a client.
    pub client: Certificate,
}

impl Certificates {
    /// Makes an authority of this name and its certificates in a directory.
    ///
    /// # Errors
    /// `Io` if they cannot be made or written.
    pub fn make(name: &str, directory: &Path) -> Result<Self, Error> {
        let failed = |source: rcgen::Error| Error::io("make certificates", std::io::Error::other(source));
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(failed)?).map_err(failed)?;
        let authority_file = directory.join("authority.pem");
        write(&authority_file, &authority.pem())?;

        let issue = |file: &str, names: &[&str], purpose: ExtendedKeyUsagePurpose| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names).map_err(failed)?;
            params.distinguished_name.push(DnType::CommonName, file);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().map_err(failed)?;
            let certificate = params.signed_by(&key, &authority).map_err(failed)?;
            let files = Certificate {
                certificate: directory.join(format!("{file}.pem")),
                key: directory.join(format!("{file}-key.pem")),
            };
            write(&files.certificate, &certificate.pem())?;
            write(&files.key, &key.serialize_pem())?;
            Ok(files)
        };
        let hosts = ["localhost", "127.0.0.1", "registry.windlass.test"];
        Ok(Self {
            authority: authority_file,
            server: issue("server", &hosts, ExtendedKeyUsagePurpose::ServerAuth)?,
            client: issue("client", &["client"], ExtendedKeyUsagePurpose::ClientAuth)?,
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::io("write certificates", source))
}
