//! What the transport counts: everything it refuses, drops or waits for has a number here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::frame::{FRAME_ERROR_CAUSES, FrameError};
use crate::wire::Counter;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Figures of a node's transport since it started. Relaxed: they order nothing.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: AtomicU64,)*
            /// Lanes closed for a bad frame, by [`FrameError::cause`].
            pub bad_frames: [AtomicU64; FRAME_ERROR_CAUSES.len()],
        }

        impl Counters {
            /// Every counter with its name, in a fixed order.
            pub fn snapshot(&self) -> Vec<Counter> {
                let mut all = vec![$(Counter { name: stringify!($name).into(), value: self.$name.load(Relaxed) },)*];
                for (cause, value) in FRAME_ERROR_CAUSES.iter().zip(&self.bad_frames) {
                    all.push(Counter { name: format!("bad_frames_{cause}"), value: value.load(Relaxed) });
                }
                all
            }
        }
    };
}

counters! {
    /// Datagrams that cannot be QUIC: garbage, or other protocols at this port.
    datagrams_not_quic,
    /// Handshakes begun.
    handshakes,
    /// Handshakes that did not end in [`crate::wire::HANDSHAKE_DEADLINE`], or whose client went away.
    handshakes_lost,
    /// Clients that showed no certificate.
    refused_no_certificate,
    /// Clients whose certificate was not signed by this node's authority, had expired, or was no certificate.
    refused_certificate,
    /// Handshakes that failed otherwise: another protocol, another TLS version.
    refused_handshake,
    /// Handshakes refused because too many were under way or the node was stopping.
    refused_busy,
    /// Hellos refused for the protocol's version.
    refused_version,
    /// Hellos refused for the layout of an actor type.
    refused_layout,
    /// Hellos refused for another reason: cluster, limit of sessions, stopping, not valid.
    refused_hello,
    /// Sessions begun.
    sessions,
    /// Sessions that ended by the client's word.
    sessions_closed,
    /// Sessions whose client fell silent or went away without a word.
    sessions_lost,
    /// Sessions that the node closed for what the client did.
    sessions_broken,
    /// Connections of other nodes begun.
    peers,
    /// Those of them that ended without a word, or for what the other node did.
    peers_lost,
    /// Connections between nodes refused, by this one or by the one that connected.
    refused_peers,
    /// Nodes given a certificate and the authority for a join token.
    enrolled,
    /// Enrolments refused.
    refused_enrolments,
    /// Requests of other nodes answered.
    peer_requests,
    /// Streams without a preamble this node knows, or not allowed where they came.
    bad_preambles,
    /// Control values that could not be decoded.
    bad_controls,
    /// Preambles, hellos, requests or frames that were not complete at their deadline.
    too_slow,
    /// Lanes or streams over their limit.
    too_many_streams,
    /// Requests served.
    requests,
    /// Frames taken from clients.
    frames_in,
    /// Bytes of those frames.
    bytes_in,
    /// Messages admitted.
    messages_in,
    /// Of those, asks.
    asks_in,
    /// Messages refused because the node was stopping.
    refused_stopping,
    /// Answers handed to sessions.
    answers_out,
    /// Answers whose session was gone.
    answers_dropped,
    /// Times that a session was held back because the devices had no room.
    held_back_room,
    /// Lanes that ended because the next message on them was for another node's actor.
    moved_on,
    /// Times that a session was held back because too many of its asks or answers waited.
    held_back_asks,
}

impl Counters {
    pub fn bad_frame(&self, error: &FrameError) {
        self.bad_frames[error.cause()].fetch_add(1, Relaxed);
    }
}

/// Adds one.
pub fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let counters = Counters::default();
        bump(&counters.sessions);
        counters.bad_frame(&FrameError::Kind(3));
        let all = counters.snapshot();
        let names: std::collections::BTreeSet<_> = all.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), all.len());
        let ones: Vec<_> = all.iter().filter(|c| c.value == 1).map(|c| c.name.as_str()).collect();
        assert_eq!(ones, ["sessions", "bad_frames_kind"]);
    }
}
