//! A connection between nodes after its greeting, the same on both sides: its control stream, and when it is over.

use quinn::{Connection, RecvStream, SendStream};

use super::present::Presence;
use crate::fault::{Fault, silence};
use crate::wire::Close;

/// On a control stream: nothing, but the other side acknowledges it, if it lives.
const PING: u8 = 0;

/// What control streams are sent before; see [`quinn::SendStream::set_priority`]. Requests are at 1 or 0, by their size.
pub(super) const CONTROL_PRIORITY: i32 = 2;

/// Resolves when the connection is over: with what the other side did wrong, or with nothing if it is gone.
pub(super) async fn watch(
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    presence: &Presence,
) -> Option<Fault> {
    let gone = silence(connection);
    tokio::pin!(gone);
    let mut said = [0; 64];
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return Some(Fault::new(Close::TooSlow, "nothing came from the node any more")),
            () = presence.ping.notified() => send.write_all(&[PING]).await.ok()?,
            read = recv.read(&mut said) => match read {
                Ok(Some(n)) if said[..n].iter().all(|byte| *byte == PING) => {}
                Ok(Some(_)) => return Some(Fault::new(Close::Control, "the control stream says what nobody knows")),
                Ok(None) | Err(_) if connection.close_reason().is_some() => return None,
                Ok(None) | Err(_) => return Some(Fault::new(Close::Done, "the control stream has ended")),
            },
        }
    }
}
