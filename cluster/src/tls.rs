//! Certificates: who may talk to whom.
//!
//! A node and its clients show each other certificates of one authority; without one, nobody gets in. When none is
//! configured, [`Authority::open_or_create`] makes an authority in the node's data folder, with a certificate for
//! the node and one for clients of this machine:
//!
//! | file | what | mode |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | the authority: its certificate, which everybody needs, and its key, which stays here | 0644, 0600 |
//! | `node.pem`, `node.key` | the node | 0644, 0600 |
//! | `client.pem`, `client.key` | a client | 0644, 0600 |
//!
//! All keys are Ed25519. A node's certificate bears the name [`NODE_NAME`], whatever its address, and a client's does
//! not: no client can pose as a node.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, date_time_ymd,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};

use crate::network::Network;
use crate::wire;

/// The name in every node's certificate, which clients insist on.
pub const NODE_NAME: &str = "node.ringhold";
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

/// Whether the other side of a connection showed a certificate with this name in it. That it is one of the authority's is
/// what the handshake has made sure of.
pub fn peer_bears(connection: &quinn::Connection, name: &'static str) -> bool {
    let Some(chain) = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
    else {
        return false;
    };
    let name = ServerName::try_from(name).expect("a valid name");
    chain.first().is_some_and(|certificate| {
        ParsedCertificate::try_from(certificate)
            .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
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

/// An authority that ringhold made: it can issue certificates for nodes and clients.
pub struct Authority {
    /// Where its files are; for one in memory, what errors call it.
    folder: PathBuf,
    certificate: String,
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A certificate and its key, in PEM form.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Makes sure that `folder` holds an authority and certificates of it for the node and for clients: makes all of
    /// it where there is nothing, issues what is missing, and leaves alone what exists.
    pub fn open_or_create(folder: &Path, network: &dyn Network) -> Result<(), Error> {
        let ca = folder.join("ca.pem");
        if !ca.exists() && !folder.join("ca.key").exists() {
            return Authority::in_memory(network)?.create(folder, network);
        }
        let missing: Vec<Role> = [Role::Node, Role::Client]
            .into_iter()
            .filter(|role| !folder.join(format!("{role}.pem")).exists() || !folder.join(format!("{role}.key")).exists())
            .collect();
        if missing.is_empty() && ca.exists() {
            return Ok(());
        }
        let authority = Authority::open(folder, missing.first().copied())?;
        for role in missing {
            authority.issue(role, network)?.write(folder, role)?;
        }
        Ok(())
    }

    /// An authority of its own, nowhere on disk.
    pub fn in_memory(network: &dyn Network) -> Result<Authority, Error> {
        let key = make_key(network)?;
        let made = authority_params(&key, network)?
            .self_signed(&key)
            .map_err(|e| Error::Make { what: "an authority".into(), detail: e.to_string() })?;
        Ok(Authority { folder: PathBuf::from("(in memory)"), certificate: made.pem(), key })
    }

    /// Reads an authority that [`Authority::open_or_create`] made.
    fn open(folder: &Path, wanted: Option<Role>) -> Result<Authority, Error> {
        let (ca, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
        let wanted = wanted.map_or_else(|| ca.clone(), |role| folder.join(format!("{role}.pem")));
        if !key_file.exists() {
            return Err(Error::Incomplete { missing: wanted, key: key_file });
        }
        let certificate = fs::read_to_string(&ca).map_err(|source| Error::Read {
            what: "the authority's certificate",
            path: ca.clone(),
            source,
        })?;
        let PrivateKeyDer::Pkcs8(key) = private_key(&key_file)? else {
            return Err(Error::ForeignAuthority { ca, key: key_file, wanted });
        };
        let Ok(key) = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519) else {
            return Err(Error::ForeignAuthority { ca, key: key_file, wanted });
        };
        Ok(Authority { folder: folder.into(), certificate, key })
    }

    /// The certificate that the other side must know.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate.
    pub fn issue(&self, role: Role, network: &dyn Network) -> Result<Issued, Error> {
        let make = |e: rcgen::Error| Error::Make { what: format!("a {role} certificate"), detail: e.to_string() };
        let key = make_key(network)?;
        let names = if role == Role::Node { vec![NODE_NAME.to_owned()] } else { vec![] };
        let mut params = params(&format!("Ringhold {role}"), names, network)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match role {
            // Nodes are each other's clients.
            Role::Node => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let issuer = Issuer::new(authority_params(&self.key, network)?, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(make)?;
        let issued = Issued { certificate: certificate.pem(), key: key.serialize_pem() };
        // An authority with another name than this key's would not be found as the issuer.
        self.identity_of(&issued, role, network).map_err(|_| Error::ForeignAuthority {
            ca: self.folder.join("ca.pem"),
            key: self.folder.join("ca.key"),
            wanted: self.folder.join(format!("{role}.pem")),
        })?;
        Ok(issued)
    }

    /// A new identity under this authority, without files.
    pub fn identity(&self, role: Role, network: &dyn Network) -> Result<Identity, Error> {
        self.identity_of(&self.issue(role, network)?, role, network)
    }

    /// An identity that believes this authority and has nothing to show.
    pub fn anonymous(&self) -> Result<Identity, Error> {
        let files = Files { ca: self.folder.join("ca.pem"), own: None };
        Ok(Identity { authorities: pem_certificates(&self.certificate, &files.ca)?, own: None, files })
    }

    fn identity_of(&self, issued: &Issued, role: Role, network: &dyn Network) -> Result<Identity, Error> {
        let files = match role {
            Role::Node => Files::node(&self.folder),
            Role::Client => Files::client(&self.folder),
        };
        let (certificate, key) = files.own.as_ref().expect("both have files");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(|e| Error::Pem {
            what: "private key",
            path: key.clone(),
            detail: e.to_string(),
        })?;
        let own = Some((pem_certificates(&issued.certificate, certificate)?, key));
        let identity = Identity { authorities: pem_certificates(&self.certificate, &files.ca)?, own, files };
        identity.check(role, network)?;
        Ok(identity)
    }

    /// Writes everything into a folder beside the real one and renames it, so that it is there whole or not at all.
    fn create(&self, folder: &Path, network: &dyn Network) -> Result<(), Error> {
        let mut suffix = [0; 4];
        network.random(&mut suffix);
        let name = folder.file_name().map_or_else(|| "tls".into(), |n| n.to_string_lossy().into_owned());
        let draft = folder.with_file_name(format!(".{name}-{:08x}", u32::from_le_bytes(suffix)));
        let result = self.fill(&draft, network).and_then(|()| {
            fs::rename(&draft, folder).map_err(|source| Error::Write {
                what: "the certificates' folder",
                path: folder.into(),
                source,
            })
        });
        if result.is_err() {
            // What could not be finished is of no use to anybody.
            let _ = fs::remove_dir_all(&draft);
        }
        result
    }

    fn fill(&self, folder: &Path, network: &dyn Network) -> Result<(), Error> {
        make_folder(folder)?;
        write_file(&folder.join("ca.key"), "the authority's key", &self.key.serialize_pem(), KEY_MODE)?;
        write_file(&folder.join("ca.pem"), "the authority's certificate", &self.certificate, CERTIFICATE_MODE)?;
        for role in [Role::Node, Role::Client] {
            self.issue(role, network)?.write(folder, role)?;
        }
        Ok(())
    }
}

impl Issued {
    /// Writes `ROLE.pem` and `ROLE.key` into a folder.
    pub fn write(&self, folder: &Path, role: Role) -> Result<(), Error> {
        write_file(&folder.join(format!("{role}.key")), "key", &self.key, KEY_MODE)?;
        write_file(&folder.join(format!("{role}.pem")), "certificate", &self.certificate, CERTIFICATE_MODE)
    }
}

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o700;

fn make_folder(folder: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { what: "the certificates' folder", path: folder.into(), source };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, FOLDER_MODE);
    builder.create(folder).map_err(failed)
}

fn write_file(path: &Path, what: &'static str, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Write { what, path: path.into(), source };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // The mode is set as the file is made: a key is at no moment readable by others.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn pem_certificates(pem: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|e| Error::Pem { what: "certificate", path: path.into(), detail: e.to_string() })
}

/// An Ed25519 key from 32 of the network's random bytes, so that a simulated one repeats.
fn make_key(network: &dyn Network) -> Result<KeyPair, Error> {
    // PKCS#8 v1 (RFC 8410 §7): everything before the 32 bytes is always the same.
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut der = PREFIX.to_vec();
    der.resize(PREFIX.len() + 32, 0);
    network.random(&mut der[PREFIX.len()..]);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .map_err(|e| Error::Make { what: "a key".into(), detail: e.to_string() })
}

fn params(name: &str, names: Vec<String>, network: &dyn Network) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)
        .map_err(|e| Error::Make { what: "a certificate".into(), detail: e.to_string() })?;
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    params.distinguished_name = distinguished;
    let mut serial = [0; 16];
    network.random(&mut serial);
    // Positive, as RFC 5280 §4.1.2.2 wants it.
    serial[0] = serial[0] & 0x7f | 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let year = year_of(network.wall_us());
    // From the year before, so that a clock that is behind does no harm.
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + VALIDITY_YEARS, 12, 31);
    Ok(params)
}

/// The authority's parameters follow from its key (and the date), so that a key alone is enough to issue with.
fn authority_params(key: &KeyPair, network: &dyn Network) -> Result<CertificateParams, Error> {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.der_bytes());
    let print: String = digest.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
    let mut params = params(&format!("Ringhold authority {print}"), vec![], network)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn year_of(wall_us: u64) -> i32 {
    const YEAR_US: u64 = 31_556_952 * 1_000_000;
    1970 + (wall_us / YEAR_US) as i32
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

    #[test]
    fn certificates_end_after_their_years() {
        assert_eq!(year_of(0), 1970);
        assert_eq!(year_of(1_767_300_000 * 1_000_000), 2026);
    }
}
