//! The stream of a lane: frames one way, and what the receiver says of them the other way.

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use crate::frame::{FrameHeader, FrameReader, LaneError};
use crate::peers::PeerName;

/// A stream between two nodes that carries a lane's messages, and to whom.
#[derive(Debug)]
pub struct LaneStream {
    /// The other node, as it has said when the connection was made.
    pub node: PeerName,
    pub writer: LaneWriter,
    pub reader: LaneReader,
}

/// Writes one side's frames.
#[derive(Debug)]
pub struct LaneWriter(SendStream);

/// Reads the other side's frames.
#[derive(Debug)]
pub struct LaneReader(RecvStream, FrameReader);

impl LaneStream {
    pub(crate) fn new(node: PeerName, send: SendStream, recv: RecvStream) -> LaneStream {
        LaneStream { node, writer: LaneWriter(send), reader: LaneReader(recv, FrameReader::default()) }
    }
}

impl LaneWriter {
    /// Writes a frame; returns once there was room for all of it.
    ///
    /// # Errors
    /// The stream is over.
    pub async fn write(&mut self, header: FrameHeader, body: Bytes) -> Result<(), LaneError> {
        debug_assert_eq!(header.len as usize, body.len());
        let head = Bytes::copy_from_slice(&header.to_bytes());
        match self.0.write_all_chunks(&mut [head, body]).await {
            Ok(()) => Ok(()),
            Err(quinn::WriteError::ConnectionLost(e)) => Err(e.into()),
            Err(_) => Err(LaneError::Reset),
        }
    }
}

impl LaneReader {
    /// The next frame, or `None` where the other side has ended in good order. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The stream is over, or what comes is no frame.
    pub async fn next(&mut self) -> Result<Option<(FrameHeader, &mut [u8])>, LaneError> {
        self.1.next(&mut self.0).await
    }
}
