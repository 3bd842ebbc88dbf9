//! TLS between the processes of a pool.
//!
//! Both ends of a connection prove that they have the pool's token: its key is an Ed25519 key that is derived from the
//! token, shown as a raw public key (RFC 7250), and accepted only if it is this very key. So there are no
//! certificates to make, copy, renew or compare with clocks, a coordinator that is started again with the same token
//! is the same, and a stranger fails in the handshake. Keys of a connection are fresh (TLS 1.3, ephemeral
//! Diffie-Hellman): who learns the token later can't read what was recorded.

use super::Token;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivatePkcs8KeyDer, ServerName,
        SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SigningKey},
    version::TLS13,
};
use std::{fmt, sync::Arc};

/// What an Ed25519 key of 32 bytes begins with in PKCS #8 (RFC 8410).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// The name that clients ask for: the pool's key is what counts, whatever its hosts are called.
const NAME: &str = "pool.polestar.internal";
/// What is spoken on the control port, and on the ports between ranks: who asks one for the other is refused.
pub(super) const CONTROL: &[u8] = b"h2";
pub(super) const DATA: &[u8] = b"polestar-data";

/// Why a configuration can always be made.
pub(super) const MODERN: &str = "ring speaks TLS 1.3";

/// Both ends of one kind of connection.
#[derive(Clone)]
pub struct Ends {
    /// Who dials.
    pub client: Arc<ClientConfig>,
    /// Who listens.
    pub server: Arc<ServerConfig>,
}

impl Ends {
    /// Those of one protocol. Sessions last as long as the processes: there is nothing to resume.
    pub(super) fn of(mut client: ClientConfig, mut server: ServerConfig, protocol: &[u8]) -> Ends {
        client.alpn_protocols = vec![protocol.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        server.alpn_protocols = vec![protocol.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ends {
            client: Arc::new(client),
            server: Arc::new(server),
        }
    }
}

/// How the processes of a pool talk when others could listen or join in. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// Workers to coordinator.
    pub control: Ends,
    /// Ranks to ranks.
    pub data: Ends,
    /// Whether a coordinator is known by its name, and not by the pool's key.
    pub(super) by_name: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// That of a pool.
    pub fn of(token: &Token) -> Tls {
        let seed = token.derive("polestar pool 2026 ed25519 key of its tls");
        let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8[..], &seed].concat());
        let key = ring::sign::any_eddsa_type(&pkcs8).expect("any 32 bytes are an Ed25519 key");
        let ends = |protocol| ends(&key, protocol);
        Tls {
            control: ends(CONTROL),
            data: ends(DATA),
            by_name: false,
        }
    }

    /// Whether whoever is through a handshake has shown that it has the token.
    pub fn proves_token(&self) -> bool {
        !self.by_name
    }

    /// What a worker calls the coordinator on this host.
    ///
    /// # Errors
    /// A host's name that can't be one.
    pub fn control_name(&self, host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        match self.by_name {
            true => ServerName::try_from(host.to_owned()),
            false => Ok(Tls::data_name()),
        }
    }

    /// What ranks call each other.
    pub fn data_name() -> ServerName<'static> {
        ServerName::try_from(NAME).expect("it is a DNS name")
    }
}

fn ends(key: &Arc<dyn SigningKey>, protocol: &[u8]) -> Ends {
    let provider = Arc::new(ring::default_provider());
    let public = key.public_key().expect("Ed25519 keys have one").to_vec();
    let shown = Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(public.clone())],
        Arc::clone(key),
    ));
    let only = Arc::new(OnlyKey {
        public: SubjectPublicKeyInfoDer::from(public),
        provider: Arc::clone(&provider),
    });
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect(MODERN)
        .dangerous()
        .with_custom_certificate_verifier(only.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            shown.clone(),
        )));
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect(MODERN)
        .with_client_cert_verifier(only)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown)));
    Ends::of(client, server, protocol)
}

/// Trusts one key, whoever shows it.
#[derive(Debug)]
struct OnlyKey {
    public: SubjectPublicKeyInfoDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl OnlyKey {
    fn is(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match shown.as_ref() == self.public.as_ref() {
            true => Ok(()),
            false => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &self.public, signature, algorithms)
    }
}

/// TLS 1.2 is never spoken.
fn old() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOffered.into()
}

/// What both ends ask of a signature: that it is by the pool's key, in TLS 1.3, which shows keys and no certificates.
macro_rules! signatures_by_only_key {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _shown: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(old())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            _shown: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.signed(message, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for OnlyKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.is(shown).map(|()| ServerCertVerified::assertion())
    }

    signatures_by_only_key!();
}

impl ClientCertVerifier for OnlyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.is(shown).map(|()| ClientCertVerified::assertion())
    }

    signatures_by_only_key!();
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    /// A handshake in memory. The server's last word counts: in TLS 1.3 the client is done before it is accepted.
    pub(in crate::pool) fn shake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: ServerName<'static>,
    ) -> Result<(), rustls::Error> {
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        let keys = [[0; 16]; 2];
        let ours = client.export_keying_material(keys[0], b"test", None)?;
        let theirs = server.export_keying_material(keys[1], b"test", None)?;
        assert!(ours == theirs && ours != keys[0]);
        Ok(())
    }

    #[test]
    fn only_the_same_token_opens_a_connection_and_each_port_is_its_own() {
        let token = Token::random().unwrap();
        // Each end derives its key for itself, as two processes do, or one that was started again.
        let (ours, theirs) = (Tls::of(&token), Tls::of(&token));
        let shake = |client: &_, server: &_| shake(client, server, Tls::data_name());
        shake(&ours.control.client, &theirs.control.server).unwrap();
        shake(&ours.data.client, &theirs.data.server).unwrap();
        shake(&ours.data.client, &theirs.control.server).unwrap_err();
        let stranger = Tls::of(&Token::random().unwrap());
        for (client, server) in [(&stranger, &ours), (&ours, &stranger)] {
            let error = shake(&client.control.client, &server.control.server).unwrap_err();
            assert!(
                matches!(error, rustls::Error::InvalidCertificate(_)),
                "{error}"
            );
        }
    }
}
