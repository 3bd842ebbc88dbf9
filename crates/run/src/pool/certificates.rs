//! TLS by certificates that a site's authority gave out, in place of the key that follows from the token.

use super::{
    Tls,
    tls::{CONTROL, DATA, Ends, MODERN},
    token::{OTHERS, mode_of},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of certificates, as PEM. The token is needed all the same: the certificates say which hosts these are, the
/// token that they belong to this pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// This process's certificate and those between it and the authority. It has to be good for both ends of a
    /// connection, and that of the coordinator for the name in the workers' URL.
    pub certificate: PathBuf,
    /// Its key, which only its owner can read.
    pub key: PathBuf,
    /// The authority's certificates: nobody else's are trusted.
    pub ca: PathBuf,
}

/// Why there is no TLS by such files.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// Not a file with PEM of this kind.
    #[error("{}: no {what} can be read", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Others can read the key.
    #[error(
        "{}: others than its owner can get at the key (mode {mode:04o}); `chmod 600 {}` keeps it to you",
        path.display(),
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// They don't go together, or can't be used.
    #[error("{} and {}: the certificate can't be used", certificate.display(), key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// There is no authority in its file.
    #[error("{}: no authority to trust", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let wrong = |source| CertificatesError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect();
    match all.map_err(wrong)? {
        none if none.is_empty() => Err(wrong(rustls::pki_types::pem::Error::NoItemsFound)),
        some => Ok(some),
    }
}

impl CertificateFiles {
    fn key(&self) -> Result<PrivateKeyDer<'static>, CertificatesError> {
        let path = &self.key;
        // A file that isn't there is told of by whoever reads it.
        if let Ok(mode) = mode_of(path)
            && mode & OTHERS != 0
        {
            let path = path.clone();
            return Err(CertificatesError::Open { path, mode });
        }
        PrivateKeyDer::from_pem_file(path).map_err(|source| CertificatesError::Pem {
            path: path.clone(),
            what: "key",
            source,
        })
    }

    fn unusable(&self, source: Error) -> CertificatesError {
        CertificatesError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

impl Tls {
    /// By certificates.
    ///
    /// # Errors
    /// [`CertificatesError`] names the file.
    pub fn by_certificates(files: &CertificateFiles) -> Result<Tls, CertificatesError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca)? {
            roots.add(authority).map_err(|e| files.unusable(e))?;
        }
        let roots = Arc::new(roots);
        Ok(Tls {
            control: ends(files, &roots, CONTROL)?,
            data: ends(files, &roots, DATA)?,
            by_name: true,
        })
    }
}

fn ends(
    files: &CertificateFiles,
    roots: &Arc<RootCertStore>,
    protocol: &[u8],
) -> Result<Ends, CertificatesError> {
    let provider = Arc::new(ring::default_provider());
    let authority = |source| CertificatesError::Authority {
        path: files.ca.clone(),
        source,
    };
    let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let servers = servers.build().map_err(authority)?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let clients = clients.build().map_err(authority)?;
    // Ranks know each other by address and by the generation's secret, whatever they are called.
    let servers: Arc<dyn ServerCertVerifier> = match protocol == DATA {
        true => Arc::new(AnyName(servers)),
        false => servers,
    };
    let chain = certificates(&files.certificate)?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect(MODERN)
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_auth_cert(chain.clone(), files.key()?)
        .map_err(|error| files.unusable(error))?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect(MODERN)
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, files.key()?)
        .map_err(|error| files.unusable(error))?;
    Ok(Ends::of(client, server, protocol))
}

/// Trusts the authority's certificates, whatever name they are for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError as C;
        match self.0.verify_server_cert(shown, chain, name, ocsp, now) {
            // The name is looked at last, in a certificate that is good otherwise.
            Err(Error::InvalidCertificate(
                C::NotValidForName | C::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, shown, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tls::tests::shake;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use std::os::unix::fs::PermissionsExt;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Files of a host with this name, whose certificate is from one authority and which trusts another.
    fn files(folder: &Path, name: &str, from: &Authority, trusts: &Authority) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, from).unwrap();
        let write = |what: &str, text: String| {
            let path = folder.join(format!("{name}.{what}"));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        CertificateFiles {
            certificate: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
            ca: write("ca", trusts.pem()),
        }
    }

    #[test]
    fn certificates_of_one_authority_open_connections_and_a_coordinator_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (authority(), authority());
        let tls = |name: &str, from: &Authority, trusts: &Authority| {
            Tls::by_certificates(&files(folder.path(), name, from, trusts)).unwrap()
        };
        let head = tls("head.example", &ours, &ours);
        let node = tls("node.example", &ours, &ours);
        let control = |client: &Tls, server: &Tls, name: &str| {
            let name = client.control_name(name).unwrap();
            shake(&client.control.client, &server.control.server, name)
        };
        let data = |client: &Tls, server: &Tls| {
            shake(&client.data.client, &server.data.server, Tls::data_name())
        };
        control(&node, &head, "head.example").unwrap();
        control(&node, &head, "another.example").unwrap_err();
        data(&node, &head).unwrap();
        data(&head, &node).unwrap();
        // One whose authority is another, though it trusts ours; and one that trusts nobody here.
        for stranger in [
            tls("stranger.example", &theirs, &ours),
            tls("stranger.example", &ours, &theirs),
        ] {
            control(&stranger, &head, "head.example").unwrap_err();
            data(&stranger, &head).unwrap_err();
            data(&head, &stranger).unwrap_err();
        }
    }

    #[test]
    fn files_that_are_none_or_open_to_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority();
        let good = files(folder.path(), "head.example", &authority, &authority);
        let refusal = |files: &CertificateFiles| {
            let error = Tls::by_certificates(files).unwrap_err();
            polestar_core::chain(&error)
        };
        let nowhere = folder.path().join("nowhere");
        let swapped = CertificateFiles {
            certificate: good.key.clone(),
            ..good.clone()
        };
        assert!(refusal(&swapped).contains("head.example.key: no certificate can be read"));
        let lost = CertificateFiles {
            key: nowhere,
            ..good.clone()
        };
        assert!(refusal(&lost).contains("nowhere: no key can be read"));
        std::fs::set_permissions(&good.key, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(refusal(&good).contains("`chmod 600 "));
    }
}
