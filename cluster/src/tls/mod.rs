//! Certificates: who may talk to whom.
//!
//! A node and its clients show each other certificates of one authority; without one, nobody gets in. When none is
//! configured, [`Authority::open_or_create`] makes an authority in the node's data folder, with a certificate for
//! the node and one for clients of this machine:
//!
//! | file | what | mode |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | the authority: its certificate, which everybody needs, and its key, which only nodes have | 0644, 0600 |
//! | `node.pem`, `node.key` | the node | 0644, 0600 |
//! | `client.pem`, `client.key` | a client | 0644, 0600 |
//!
//! All keys are Ed25519. A node's certificate bears the name [`NODE_NAME`], whatever its address, and a client's does
//! not: no client can pose as a node.
//!
//! A node that joins a cluster shows a [`Token`] first, which bears [`JOIN_NAME`] and is good for nothing but that, and is
//! given the authority, see [`crate::enrol`]: every node of a cluster can let others in. So whoever has the data folder of
//! any of them, or an unused token, has the cluster.

mod authority;
mod facts;
mod token;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};

use crate::network::Network;
use crate::wire;

pub use authority::{Authority, Issued, TOKEN_VALIDITY_MAX};
pub(crate) use authority::{make_key, pem_certificates};
pub(crate) use facts::Facts;
pub use token::{Token, TokenError};

/// The name in every node's certificate, which clients insist on.
pub const NODE_NAME: &str = "node.ringhold";
/// The name in the certificate of a [`Token`]: it opens nothing but an enrolment.
pub const JOIN_NAME: &str = "join.ringhold";
/// How long certificates made here are valid.
pub const VALIDITY_YEARS: i32 = 10;

/// Where an identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authority whose certificates are accepted from the other side.
    pub ca: PathBuf,
    /// The certificate to show, and its key. A client without them is refused by every node, and told why.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// The node's files in a folder made by [`Authority::open_or_create`].
    pub fn node(folder: &Path) -> Files {
        Files { ca: folder.join("ca.pem"), own: Some((folder.join("node.pem"), folder.join("node.key"))) }
    }

    /// The client's files in a folder made by [`Authority::open_or_create`].
    pub fn client(folder: &Path) -> Files {
        Files { ca: folder.join("ca.pem"), own: Some((folder.join("client.pem"), folder.join("client.key"))) }
    }
}

/// Who this side is, and whom it believes.
#[derive(Debug)]
pub struct Identity {
    pub files: Files,
    authorities: Vec<CertificateDer<'static>>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Identity {
    /// A secret for this purpose, the same as long as the private key is: for what peers are to know again after a restart.
    pub(crate) fn derived(&self, purpose: &[u8]) -> Option<[u8; 32]> {
        let (_, key) = self.own.as_ref()?;
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.secret_der());
        let tag = ring::hmac::sign(&secret, purpose);
        Some(*tag.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity {
            files: self.files.clone(),
            authorities: self.authorities.clone(),
            own: self.own.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key())),
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Node,
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Node => "node",
            Role::Client => "client",
        })
    }
}

/// What is wrong with a certificate or key, in which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what} {}: {source}. {}", path.display(), read_help(.source))]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {what} {}: {source}. Make the folder writable, or configure certificates of your own", path.display())]
    Write { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} holds no {what} in PEM form ({detail}). Replace it with one", path.display())]
    Pem { what: &'static str, path: PathBuf, detail: String },
    #[error(
        "the key {} does not belong to the certificate {} ({detail}). Put the pair that was made together there",
        key.display(), certificate.display()
    )]
    KeyMismatch { certificate: PathBuf, key: PathBuf, detail: String },
    #[error("the authority {} cannot be used: {detail}. Replace it with a valid certificate", path.display())]
    Authority { path: PathBuf, detail: String },
    #[error(
        "the {role} certificate {} is not acceptable under the authority {}: {detail}. Have that authority issue \
         another, or configure the authority that issued this one",
        certificate.display(), ca.display()
    )]
    NotAcceptable { role: Role, certificate: PathBuf, ca: PathBuf, detail: String },
    #[error(
        "{} is missing and cannot be issued without the authority's key {}. Copy the file there, or the key, or \
         remove the folder to have a new authority made (every client then needs its new certificate)",
        missing.display(), key.display()
    )]
    Incomplete { missing: PathBuf, key: PathBuf },
    #[error(
        "the authority {} was not made by ringhold with the key {}: issue {} with the tool that made it",
        ca.display(), key.display(), wanted.display()
    )]
    ForeignAuthority { ca: PathBuf, key: PathBuf, wanted: PathBuf },
    #[error(
        "there is no key {} beside the authority {}: ringhold did not make this authority, or its key was moved. Issue \
         certificates with the tool that made it",
        key.display(), ca.display()
    )]
    NotOurs { ca: PathBuf, key: PathBuf },
    #[error("cannot make {what}: {detail}")]
    Make { what: String, detail: String },
    #[error("a node needs a certificate and a key of its own: configure both")]
    NoIdentity,
}

fn read_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "Check the path, or start a node once to have certificates made",
        io::ErrorKind::PermissionDenied => "Run as the user it belongs to, or make it readable",
        _ => "Check the path",
    }
}

impl Identity {
    /// Reads an identity and checks it: the key belongs to the certificate, and the authority signed it for `role`.
    pub fn load(files: Files, role: Role, network: &dyn Network) -> Result<Identity, Error> {
        let authorities = certificates(&files.ca, "the authority's certificate")?;
        let own = match &files.own {
            None => None,
            Some((certificate, key)) => Some((certificates(certificate, "certificate")?, private_key(key)?)),
        };
        let identity = Identity { files, authorities, own };
        identity.check(role, network)?;
        Ok(identity)
    }

    /// The same certificate to show, but whom `other` believes to believe: while authorities are exchanged, say.
    #[must_use]
    pub fn believing(self, other: &Identity) -> Identity {
        let files = Files { ca: other.files.ca.clone(), ..self.files };
        Identity { files, authorities: other.authorities.clone(), own: self.own }
    }

    /// Whether this side has a certificate to show.
    pub fn has_certificate(&self) -> bool {
        self.own.is_some()
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|e| Error::Authority { path: self.files.ca.clone(), detail: detail(&e) })?;
        }
        Ok(Arc::new(roots))
    }

    fn check(&self, role: Role, network: &dyn Network) -> Result<(), Error> {
        let roots = self.roots()?;
        let (Some((chain, key)), Some((certificate_file, key_file))) = (&self.own, &self.files.own) else {
            return if role == Role::Node { Err(Error::NoIdentity) } else { Ok(()) };
        };
        let provider = network.crypto_provider();
        rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|e| {
            Error::KeyMismatch { certificate: certificate_file.clone(), key: key_file.clone(), detail: detail(&e) }
        })?;
        let now = network.time_provider().current_time().unwrap_or(UnixTime::since_unix_epoch(Default::default()));
        let (own, intermediates) = chain.split_first().expect("a chain that was read is not empty");
        let authority = |e: rustls::server::VerifierBuilderError| Error::Authority {
            path: self.files.ca.clone(),
            detail: e.to_string(),
        };
        let verified = match role {
            Role::Node => {
                let name = ServerName::try_from(NODE_NAME).expect("a valid name");
                WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(authority)?
                    .verify_server_cert(own, intermediates, &name, &[], now)
                    .map(|_| ())
            }
            Role::Client => WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(authority)?
                .verify_client_cert(own, intermediates, now)
                .map(|_| ()),
        };
        verified.map_err(|e| Error::NotAcceptable {
            role,
            certificate: certificate_file.clone(),
            ca: self.files.ca.clone(),
            detail: detail(&e),
        })
    }
}

/// What is wrong with a certificate, in words.
fn detail(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(e) => match e {
            CertificateError::UnknownIssuer => "another authority signed it".into(),
            CertificateError::BadSignature => "its signature is not of the authority".into(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet: check the clock".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("it does not bear the name `{NODE_NAME}`, as a node's must")
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "it was issued for another purpose".into()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = fs::read(path).map_err(|source| Error::Read { what, path: path.into(), source })?;
    let bad = |detail: String| Error::Pem { what: "certificate", path: path.into(), detail };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|e| bad(e.to_string()))?;
    if all.is_empty() { Err(bad("no CERTIFICATE section".into())) } else { Ok(all) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = fs::read(path).map_err(|source| Error::Read { what: "key", path: path.into(), source })?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| Error::Pem {
        what: "private key",
        path: path.into(),
        detail: e.to_string(),
    })
}

/// The certificate that the other side of a connection showed. That it is one of the authority's is what the handshake has made
/// sure of.
pub(crate) fn shown(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

/// Whether the other side of a connection showed a certificate with this name in it.
pub fn peer_bears(connection: &quinn::Connection, name: &'static str) -> bool {
    let name = ServerName::try_from(name).expect("a valid name");
    shown(connection).is_some_and(|certificate| {
        ParsedCertificate::try_from(&certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    })
}

/// TLS as a node speaks it: 1.3 only, this protocol only, and only with clients of the identity's authority.
pub fn server_config(identity: &Identity, network: &dyn Network) -> Result<rustls::ServerConfig, Error> {
    let (Some((chain, key)), Some((certificate_file, key_file))) = (&identity.own, &identity.files.own) else {
        return Err(Error::NoIdentity);
    };
    let provider = network.crypto_provider();
    let clients = WebPkiClientVerifier::builder_with_provider(identity.roots()?, provider.clone())
        .build()
        .map_err(|e| Error::Authority { path: identity.files.ca.clone(), detail: e.to_string() })?;
    let mut config = rustls::ServerConfig::builder_with_details(provider, network.time_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|e| Error::KeyMismatch {
            certificate: certificate_file.clone(),
            key: key_file.clone(),
            detail: detail(&e),
        })?;
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    // Every session starts with a full handshake: no tickets to keep, none to steal.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS as a client speaks it: only with nodes of the identity's authority.
pub fn client_config(identity: &Identity, network: &dyn Network) -> Result<rustls::ClientConfig, Error> {
    let builder = rustls::ClientConfig::builder_with_details(network.crypto_provider(), network.time_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(identity.roots()?);
    let mut config = match (&identity.own, &identity.files.own) {
        (Some((chain, key)), Some((certificate_file, key_file))) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|e| Error::KeyMismatch {
                certificate: certificate_file.clone(),
                key: key_file.clone(),
                detail: detail(&e),
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::RealNetwork;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("tls");
        Authority::open_or_create(&folder, &RealNetwork).unwrap();
        (temp, folder)
    }

    fn load(folder: &Path, role: Role) -> Result<Identity, Error> {
        let files = if role == Role::Node { Files::node(folder) } else { Files::client(folder) };
        Identity::load(files, role, &RealNetwork)
    }

    #[test]
    fn a_folder_is_made_whole_and_its_keys_are_private() {
        let (temp, folder) = made();
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["ca.key", "ca.pem", "client.key", "client.pem", "node.key", "node.pem"]);
        #[cfg(unix)]
        for key in ["ca.key", "node.key", "client.key"] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(folder.join(key)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        load(&folder, Role::Node).unwrap();
        load(&folder, Role::Client).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn what_exists_is_kept_and_what_is_missing_is_issued() {
        let (_temp, folder) = made();
        let node = fs::read(folder.join("node.pem")).unwrap();
        fs::remove_file(folder.join("client.pem")).unwrap();
        Authority::open_or_create(&folder, &RealNetwork).unwrap();
        assert_eq!(fs::read(folder.join("node.pem")).unwrap(), node);
        load(&folder, Role::Client).unwrap();
        fs::remove_file(folder.join("ca.key")).unwrap();
        Authority::open_or_create(&folder, &RealNetwork).unwrap();
        fs::remove_file(folder.join("node.key")).unwrap();
        let error = Authority::open_or_create(&folder, &RealNetwork).unwrap_err().to_string();
        assert!(error.contains("ca.key") && error.contains("node.pem"), "{error}");
    }

    #[test]
    fn each_thing_wrong_is_named_with_its_file() {
        let (_temp, folder) = made();
        let (_other_temp, other) = made();
        let swap = |name: &str| fs::copy(other.join(name), folder.join(name)).unwrap();

        swap("node.key");
        let error = load(&folder, Role::Node).unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
        swap("node.pem");
        let error = load(&folder, Role::Node).unwrap_err();
        assert!(matches!(error, Error::NotAcceptable { .. }), "{error}");
        assert!(error.to_string().contains("another authority signed it"), "{error}");

        let error = Identity::load(
            Files { ca: folder.join("ca.pem"), own: Files::client(&folder).own },
            Role::Node,
            &RealNetwork,
        )
        .unwrap_err();
        assert!(error.to_string().contains("node.ringhold") || error.to_string().contains("purpose"), "{error}");

        fs::write(folder.join("client.key"), "hello").unwrap();
        let error = load(&folder, Role::Client).unwrap_err().to_string();
        assert!(error.contains("client.key") && error.contains("PEM"), "{error}");
        fs::remove_file(folder.join("client.pem")).unwrap();
        let error = load(&folder, Role::Client).unwrap_err().to_string();
        assert!(error.contains("client.pem") && error.contains("Check the path"), "{error}");
    }
}
