//! A join token: what somebody hands to a node that is to join.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use rcgen::date_time_ymd;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::{Files, Identity};
use crate::network::Network;
use crate::wire;

/// A certificate of a cluster's authority that lets one node join, its key, and the authority's certificate.
///
/// It is one line of text: `rhjt1-`, and then, in base64url without padding (RFC 4648 §5), the length of what follows as a
/// little-endian u32, its bincode, and the first four bytes of its SHA-256. It is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// DER, as are the next two: PKCS#8, the last.
    pub(super) authority: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    /// The cluster's name, for people.
    pub(super) cluster: String,
    /// Since the Unix epoch. The same as in the certificate, which is what counts.
    pub(super) expires_s: u64,
}

/// Why a text is no token that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "that is not a join token: one begins with `{PREFIX}`. Copy the whole line that a node of the cluster printed"
    )]
    NotAToken,
    #[error(
        "the join token is of version {0}, and this program reads version {VERSION}: use the release that the cluster runs"
    )]
    Newer(u32),
    #[error("the join token is cut short. Copy the whole line")]
    CutShort,
    #[error("the join token is damaged ({0}). Copy the whole line again")]
    Damaged(String),
    #[error("the join token expired at {0}. Have a node of the cluster make another")]
    Expired(String),
}

/// What all tokens begin with; then comes the version.
const NAME: &str = "rhjt";
const VERSION: u32 = 1;
const PREFIX: &str = "rhjt1-";
const CHECK_BYTES: usize = 4;
/// The largest there can be is far smaller.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Takes what was cut anywhere, so that its length can be told.
const BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

impl Token {
    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Until when it may be used, since the Unix epoch.
    pub fn expires(&self) -> Duration {
        Duration::from_secs(self.expires_s)
    }

    /// Whether it may still be used, as far as this machine's clock knows.
    pub fn check(&self, network: &dyn Network) -> Result<(), TokenError> {
        if network.wall_us() / 1_000_000 > self.expires_s {
            return Err(TokenError::Expired(utc(self.expires_s)));
        }
        Ok(())
    }

    /// Who connects with it, and whom it believes.
    pub fn identity(&self) -> Identity {
        let own =
            (vec![CertificateDer::from(self.certificate.clone())], PrivatePkcs8KeyDer::from(self.key.clone()).into());
        Identity {
            files: Files { ca: PathBuf::from("(the join token)"), own: Some(Default::default()) },
            authorities: vec![CertificateDer::from(self.authority.clone())],
            own: Some(own),
        }
    }

    /// The authority's certificate, in DER.
    pub(crate) fn authority(&self) -> &[u8] {
        &self.authority
    }
}

/// Without its key.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("cluster", &self.cluster)
            .field("expires_s", &self.expires_s)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = wire::encode(self).map_err(|_| fmt::Error)?;
        let check = check(&bytes[4..]);
        bytes.extend(check);
        write!(f, "{PREFIX}{}", BASE64.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// White space anywhere in it is overlooked: it may have been wrapped on its way.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (version, text) =
            text.strip_prefix(NAME).and_then(|rest| rest.split_once('-')).ok_or(TokenError::NotAToken)?;
        match version.parse() {
            Ok(VERSION) => {}
            Ok(other) => return Err(TokenError::Newer(other)),
            Err(_) => return Err(TokenError::NotAToken),
        }
        let bytes = decode(text)?;
        let (len, rest) = bytes.split_first_chunk().ok_or(TokenError::CutShort)?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > TOKEN_BYTES_MAX {
            return Err(TokenError::Damaged("its length is wrong".into()));
        }
        if rest.len() < len + CHECK_BYTES {
            return Err(TokenError::CutShort);
        }
        let (body, end) = rest.split_at(len);
        if end != check(body) {
            return Err(TokenError::Damaged("its checksum is wrong".into()));
        }
        wire::decode(body).map_err(|e| TokenError::Damaged(e.to_string()))
    }
}

fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    // One character alone carries no byte.
    let whole = if text.len() % 4 == 1 { text.len() - 1 } else { text.len() };
    let strange = |_| TokenError::Damaged("a character of it is wrong".into());
    BASE64.decode(text.as_bytes().get(..whole).unwrap_or_default()).map_err(strange)
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    *digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

/// A time as people read it.
fn utc(seconds: u64) -> String {
    // Further than any calendar here goes.
    const LAST: u64 = 253_402_300_799;
    let t = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LAST));
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", t.year(), t.hour(), t.minute(), t.second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::RealNetwork;
    use crate::tls::{Authority, Facts};

    fn token(validity: Duration) -> Token {
        Authority::in_memory(&RealNetwork).unwrap().token("prod", validity, &RealNetwork).unwrap()
    }

    #[test]
    fn a_token_comes_back_from_its_text_however_it_was_wrapped() {
        let token = token(Duration::from_secs(3_600));
        let text = token.to_string();
        assert!(text.starts_with("rhjt1-") && !text.contains(char::is_whitespace), "{text}");
        assert_eq!(text.parse(), Ok(token.clone()));
        let wrapped: String =
            text.as_bytes().chunks(60).map(|l| format!(" {}\r\n", str::from_utf8(l).unwrap())).collect();
        assert_eq!(wrapped.parse(), Ok(token.clone()));
        assert_eq!(token.cluster(), "prod");
        assert!(!format!("{token:?}").contains("key"), "a log has no secrets");
        let facts = Facts::of(&token.certificate).unwrap();
        assert_eq!(facts.not_after_s, token.expires().as_secs(), "seconds matter");
    }

    #[test]
    fn each_way_in_which_a_token_is_wrong_is_told_apart() {
        let text = token(Duration::from_secs(3_600)).to_string();
        let parse = |text: &str| text.parse::<Token>();
        for other in ["", "hello", "rhjt", "rhjt1", "rhjtx-AAAA", "-----BEGIN CERTIFICATE-----"] {
            assert_eq!(parse(other), Err(TokenError::NotAToken), "{other}");
        }
        assert_eq!(parse(&text.replacen("rhjt1", "rhjt2", 1)), Err(TokenError::Newer(2)));
        for len in PREFIX.len()..text.len() {
            assert_eq!(parse(&text[..len]), Err(TokenError::CutShort), "{len} of {}", text.len());
        }
        for at in PREFIX.len()..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(parse(str::from_utf8(&bytes).unwrap()).is_err(), "{at}");
        }
        let mut strange = text.clone();
        strange.replace_range(100..101, "!");
        assert!(parse(&strange).unwrap_err().to_string().contains("a character of it"));
        let mut changed = text.into_bytes();
        changed[100] = if changed[100] == b'x' { b'y' } else { b'x' };
        let changed = parse(str::from_utf8(&changed).unwrap()).unwrap_err();
        assert!(changed.to_string().contains("checksum"), "{changed}");
    }

    #[test]
    fn an_expired_token_says_when_it_did() {
        let mut token = token(Duration::from_secs(3_600));
        token.check(&RealNetwork).unwrap();
        token.expires_s = 1_772_323_199;
        let text = token.check(&RealNetwork).unwrap_err().to_string();
        assert!(text.contains("expired at 2026-02-28 23:59:59 UTC"), "{text}");
    }
}
