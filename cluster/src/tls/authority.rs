//! The authority that ringhold makes: it issues certificates, and is handed from node to node.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::token::Token;
use super::{Error, Files, Identity, JOIN_NAME, NODE_NAME, Role, VALIDITY_YEARS, private_key};
use crate::network::Network;

/// The longest that a token is valid.
pub const TOKEN_VALIDITY_MAX: Duration = Duration::from_secs(365 * 86_400);

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
        let (ca, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let wanted = wanted.map_or_else(|| ca.clone(), |role| folder.join(format!("{role}.pem")));
        if !key.exists() {
            return Err(Error::Incomplete { missing: wanted, key });
        }
        Authority::read(ca, key, wanted)
    }

    /// The authority of an identity, whose key lies beside its certificate (`ca.key` beside `ca.pem`) where ringhold made it.
    pub fn of(identity: &Identity) -> Result<Authority, Error> {
        let ca = identity.files.ca.clone();
        let key = ca.with_extension("key");
        if !key.exists() {
            return Err(Error::NotOurs { ca, key });
        }
        Authority::read(ca.clone(), key, ca)
    }

    fn read(ca: PathBuf, key_file: PathBuf, wanted: PathBuf) -> Result<Authority, Error> {
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
        let folder = ca.parent().unwrap_or(Path::new("")).into();
        Ok(Authority { folder, certificate, key })
    }

    /// One that another node has handed over.
    pub(crate) fn handed(certificate: String, key: &str) -> Result<Authority, Error> {
        let broken = |e: rcgen::Error| Error::Make { what: "the authority of the key".into(), detail: e.to_string() };
        let key = KeyPair::from_pem_and_sign_algo(key, &PKCS_ED25519).map_err(broken)?;
        Ok(Authority { folder: PathBuf::from("(as another node has it)"), certificate, key })
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate that the other side must know.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate.
    pub fn issue(&self, role: Role, network: &dyn Network) -> Result<Issued, Error> {
        let key = make_key(network)?;
        self.issue_for(role, key, network)
    }

    /// Issues a certificate for a key that was made here.
    pub(crate) fn issue_for(&self, role: Role, key: KeyPair, network: &dyn Network) -> Result<Issued, Error> {
        let issued = Issued { certificate: self.certify(role, &key, network)?, key: key.serialize_pem() };
        // An authority with another name than this key's would not be found as the issuer.
        self.identity_of(&issued, role, network).map_err(|_| self.foreign(role))?;
        Ok(issued)
    }

    /// Issues a node's certificate for an Ed25519 key of which only the public half is known here.
    pub(crate) fn certify_node(&self, public: [u8; 32], network: &dyn Network) -> Result<String, Error> {
        // Which it finds out with a key that it knows.
        self.issue(Role::Client, network).map_err(|_| self.foreign(Role::Node))?;
        self.certify(Role::Node, &PublicKey(public), network)
    }

    fn certify(&self, role: Role, key: &impl PublicKeyData, network: &dyn Network) -> Result<String, Error> {
        let names = if role == Role::Node { vec![NODE_NAME.to_owned()] } else { vec![] };
        let purposes = match role {
            // Nodes are each other's clients.
            Role::Node => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let params = params(&format!("Ringhold {role}"), names, network)?;
        self.sign(format!("a {role} certificate"), params, purposes, key, network).map(|made| made.pem())
    }

    fn sign(
        &self,
        what: String,
        mut params: CertificateParams,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        key: &impl PublicKeyData,
        network: &dyn Network,
    ) -> Result<rcgen::Certificate, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = purposes;
        let issuer = Issuer::new(authority_params(&self.key, network)?, &self.key);
        params.signed_by(key, &issuer).map_err(|e| Error::Make { what, detail: e.to_string() })
    }

    fn foreign(&self, role: Role) -> Error {
        Error::ForeignAuthority {
            ca: self.folder.join("ca.pem"),
            key: self.folder.join("ca.key"),
            wanted: self.folder.join(format!("{role}.pem")),
        }
    }

    /// Makes what lets one node join the cluster, within this time (at most [`TOKEN_VALIDITY_MAX`]) and once.
    pub fn token(&self, cluster: &str, validity: Duration, network: &dyn Network) -> Result<Token, Error> {
        // A certificate's time is in seconds.
        let expires_s = network.wall_us() / 1_000_000 + validity.min(TOKEN_VALIDITY_MAX).as_secs();
        let key = make_key(network)?;
        let mut params = params("Ringhold join token", vec![JOIN_NAME.to_owned()], network)?;
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(expires_s);
        let purposes = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = self.sign("a join token".into(), params, purposes, &key, network)?;
        let issued = Issued { certificate: certificate.pem(), key: key.serialize_pem() };
        self.identity_of(&issued, Role::Client, network).map_err(|_| self.foreign(Role::Node))?;
        // The first of them is the one whose key this is, as the identity's check has shown.
        let authorities = pem_certificates(&self.certificate, &self.folder.join("ca.pem"))?;
        Ok(Token {
            authority: authorities.first().expect("one that certificates were checked with").to_vec(),
            certificate: certificate.der().to_vec(),
            key: key.serialize_der(),
            cluster: cluster.into(),
            expires_s,
        })
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

    pub(crate) fn identity_of(&self, issued: &Issued, role: Role, network: &dyn Network) -> Result<Identity, Error> {
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

    fn create(&self, folder: &Path, network: &dyn Network) -> Result<(), Error> {
        self.create_with(folder, &self.issue(Role::Node, network)?, network)
    }

    /// Writes everything into a folder beside the real one and renames it, so that it is there whole or not at all.
    pub(crate) fn create_with(&self, folder: &Path, node: &Issued, network: &dyn Network) -> Result<(), Error> {
        let mut suffix = [0; 4];
        network.random(&mut suffix);
        let name = folder.file_name().map_or_else(|| "tls".into(), |n| n.to_string_lossy().into_owned());
        let draft = folder.with_file_name(format!(".{name}-{:08x}", u32::from_le_bytes(suffix)));
        let result = self.fill(&draft, node, network).and_then(|()| {
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

    fn fill(&self, folder: &Path, node: &Issued, network: &dyn Network) -> Result<(), Error> {
        make_folder(folder)?;
        write_file(&folder.join("ca.key"), "the authority's key", &self.key.serialize_pem(), KEY_MODE)?;
        write_file(&folder.join("ca.pem"), "the authority's certificate", &self.certificate, CERTIFICATE_MODE)?;
        node.write(folder, Role::Node)?;
        self.issue(Role::Client, network)?.write(folder, Role::Client)
    }
}

/// An Ed25519 key of which only this half is known.
struct PublicKey([u8; 32]);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
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

pub(crate) fn pem_certificates(pem: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|e| Error::Pem { what: "certificate", path: path.into(), detail: e.to_string() })
}

/// An Ed25519 key from 32 of the network's random bytes, so that a simulated one repeats.
pub(crate) fn make_key(network: &dyn Network) -> Result<KeyPair, Error> {
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

    #[test]
    fn certificates_end_after_their_years() {
        assert_eq!(year_of(0), 1970);
        assert_eq!(year_of(1_767_300_000 * 1_000_000), 2026);
    }
}
