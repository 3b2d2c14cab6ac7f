//! Why one side ends a connection, and the first things that are read from one.

use std::time::Duration;

use quinn::{Connection, RecvStream};
use tokio::time::{Instant, sleep};

use crate::counters::{Counters, bump};
use crate::wire::{self, Close, ControlError, PREAMBLE_BYTES, Preamble};

/// What the other side did, for which its connection is closed.
#[derive(Debug)]
pub struct Fault {
    pub close: Close,
    pub text: String,
}

impl Fault {
    pub fn new(close: Close, text: impl Into<String>) -> Fault {
        Fault { close, text: text.into() }
    }

    /// Closes the connection, and says why.
    pub fn end(&self, connection: &Connection) {
        tracing::debug!(address = %connection.remote_address(), close = ?self.close, "{}", self.text);
        connection.close(self.close.code(), self.text.as_bytes());
    }
}

/// How serving something on a connection ended. `Err(None)`: the connection is gone; `Err(Some(_))`: it is about to be.
pub type Served = Result<(), Option<Fault>>;

/// Reads what a stream starts with. The caller sets the deadline.
pub async fn preamble(recv: &mut RecvStream, counters: &Counters) -> Result<Preamble, Option<Fault>> {
    let mut bytes = [0; PREAMBLE_BYTES];
    if let Err(e) = wire::read_exact(recv, &mut bytes).await {
        return Err(match e {
            ControlError::Connection(_) => None,
            e => {
                bump(&counters.bad_preambles);
                Some(Fault::new(Close::Preamble, format!("no whole preamble: {e}")))
            }
        });
    }
    parse(bytes, counters)
}

/// What these bytes, which a stream started with, say.
pub(crate) fn parse(bytes: [u8; PREAMBLE_BYTES], counters: &Counters) -> Result<Preamble, Option<Fault>> {
    Preamble::from_bytes(bytes).map_err(|e| {
        bump(&counters.bad_preambles);
        Some(Fault::new(Close::Preamble, e.to_string()))
    })
}

/// What a control value that could not be read means for its connection.
pub fn control_fault(error: &ControlError, counters: &Counters) -> Option<Fault> {
    if matches!(error, ControlError::Connection(_)) {
        return None;
    }
    bump(&counters.bad_controls);
    Some(Fault::new(Close::Control, error.to_string()))
}

/// Resolves once nothing has come from the other side for [`wire::IDLE_TIMEOUT`], or a little longer.
///
/// QUIC's own idle timeout is at least three times its probe timeout (RFC 9000, 10.1), and one late acknowledgement makes
/// that half a minute. A peer that lives is heard from more often: it acknowledges keep-alives.
pub async fn silence(connection: &Connection) {
    let mut heard = (connection.stats().udp_rx.datagrams, Instant::now());
    while heard.1.elapsed() < wire::IDLE_TIMEOUT {
        sleep(wire::KEEP_ALIVE / 2).await;
        let datagrams = connection.stats().udp_rx.datagrams;
        if datagrams != heard.0 {
            heard = (datagrams, Instant::now());
        }
    }
}

/// Whether anything comes from the other side in this time, after it was given something to acknowledge.
pub(crate) async fn is_heard(connection: &Connection, within: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(10);
    let (before, started) = (connection.stats().udp_rx.datagrams, Instant::now());
    while connection.close_reason().is_none() && started.elapsed() < within {
        sleep(LOOK).await;
        if connection.stats().udp_rx.datagrams != before {
            // A datagram that ends the connection says that nobody is there.
            return connection.close_reason().is_none();
        }
    }
    false
}
