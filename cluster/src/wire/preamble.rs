//! What a stream starts with.

use super::{VERSION, VERSION_MIN};

/// What a stream starts with: 8 bytes, so that garbage is recognised before anything is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    pub version: u16,
    pub kind: StreamKind,
}

/// `RHLD`.
pub const MAGIC: [u8; 4] = *b"RHLD";
pub const PREAMBLE_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    Control = 1,
    Request = 2,
    Lane = 3,
    /// The first of a node's connection to another.
    Peer = 4,
    PeerRequest = 5,
    /// The first, and only one, of a connection that shows a join token.
    Enrol = 6,
    /// What actors of one node send to those of another.
    PeerLane = 7,
}

impl StreamKind {
    /// Whether it is a connection's first, whose hello says which versions the sender speaks.
    pub const fn is_first(self) -> bool {
        matches!(self, StreamKind::Control | StreamKind::Peer | StreamKind::Enrol)
    }
}

impl Preamble {
    /// Of a stream that is written in the newest version there is; of a first one, in the oldest.
    pub const fn new(kind: StreamKind) -> Preamble {
        Preamble { version: if kind.is_first() { VERSION_MIN } else { VERSION }, kind }
    }

    pub fn to_bytes(self) -> [u8; PREAMBLE_BYTES] {
        let [m0, m1, m2, m3] = MAGIC;
        let [v0, v1] = self.version.to_le_bytes();
        [m0, m1, m2, m3, v0, v1, self.kind as u8, 0]
    }

    pub fn from_bytes(bytes: [u8; PREAMBLE_BYTES]) -> Result<Preamble, PreambleError> {
        let [m0, m1, m2, m3, v0, v1, kind, zero] = bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(PreambleError::Magic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        let kind = match (kind, zero) {
            (1, 0) => Ok(StreamKind::Control),
            (2, 0) => Ok(StreamKind::Request),
            (3, 0) => Ok(StreamKind::Lane),
            (4, 0) => Ok(StreamKind::Peer),
            (5, 0) => Ok(StreamKind::PeerRequest),
            (6, 0) => Ok(StreamKind::Enrol),
            (7, 0) => Ok(StreamKind::PeerLane),
            _ => Err(PreambleError::Kind(kind)),
        };
        // A node's hello is read whatever its version: the beginning of it says more, and is answered.
        let says_more = matches!(kind, Ok(StreamKind::Peer | StreamKind::Enrol));
        if !says_more && !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(PreambleError::Version(version));
        }
        let kind = kind?;
        Ok(Preamble { version, kind })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    #[error("a stream does not start with `RHLD`: the peer does not speak Ringhold's protocol")]
    Magic,
    #[error("a stream is of protocol version {0}; this node speaks {VERSION_MIN} to {VERSION}")]
    Version(u16),
    #[error("a stream is of kind {0}, which this version does not know")]
    Kind(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_is_read_back_and_garbage_is_told_apart() {
        use StreamKind::*;
        for kind in [Control, Request, Lane, Peer, PeerRequest, Enrol, PeerLane] {
            let preamble = Preamble::new(kind);
            assert_eq!(Preamble::from_bytes(preamble.to_bytes()), Ok(preamble));
        }
        let good = Preamble::new(StreamKind::Lane).to_bytes();
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Preamble::from_bytes(bytes)
        };
        assert_eq!(with(0, b'X'), Err(PreambleError::Magic));
        assert_eq!(with(4, 99), Err(PreambleError::Version(99)));
        assert_eq!(with(6, 9), Err(PreambleError::Kind(9)));
        assert!(with(7, 1).is_err());
        let peer = Preamble { version: 99, kind: StreamKind::Peer };
        assert_eq!(Preamble::from_bytes(peer.to_bytes()), Ok(peer));
    }
}
