//! An authority of a test, and files with what it vouches for: for brokers that speak TLS.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// Makes certificates that nobody else believes. Its files go with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Issued {
    /// What the files say: the certificate and the key.
    ///
    /// # Panics
    /// The files are gone.
    pub fn pem(&self) -> [String; 2] {
        [&self.certificate, &self.key].map(|file| text(file))
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// It cannot be made.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let mut params = named("an authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it vouches for itself");
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("ca.pem"), &issuer.pem());
        Self { issuer, folder }
    }

    /// The file with its own certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server on this machine, or for a user of this name.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("keys can be made");
        let params = named(name, &["127.0.0.1", "localhost"]);
        let certificate = params.signed_by(&key, &self.issuer);
        let file = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let issued = Issued {
            certificate: file("pem"),
            key: file("key"),
        };
        write(
            &issued.certificate,
            &certificate.expect("it may sign").pem(),
        );
        write(&issued.key, &key.serialize_pem());
        issued
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|it| (*it).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("its own folder");
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).expect("it was written")
}
