//! Why a connection was closed.

use quinn::VarInt;

/// Why a connection was closed: QUIC's application error code. The reason text beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// The side that closed has let go of it without a word, which is what QUIC says then: an attempt that was given up, or a
    /// program that has ended. It may come back.
    Dropped = 0,
    /// The node stops; what it admitted it has answered. A client reconnects, here or elsewhere.
    Stopping = 1,
    /// A stream did not start with a preamble that this node knows, or was of a kind not allowed there.
    Preamble = 2,
    /// The hello was refused; the greeting says why.
    Refused = 3,
    /// A frame broke the rules; the reason says which.
    Frame = 4,
    /// Something due did not come before its deadline.
    TooSlow = 5,
    /// A limit on sessions or streams; or the client has come back on another connection.
    TooMany = 6,
    /// A control value could not be decoded.
    Control = 7,
    /// The node failed at serving the client, by a bug of its own.
    Internal = 8,
    /// The client will connect again, here or elsewhere.
    Again = 9,
    /// The side that closed has nothing more to say, and as a client will not come back.
    Done = 10,
}

impl Close {
    pub const fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub fn from_code(code: VarInt) -> Option<Close> {
        use Close::*;
        let code = code.into_inner();
        [Dropped, Stopping, Preamble, Refused, Frame, TooSlow, TooMany, Control, Internal, Again, Done]
            .into_iter()
            .find(|c| *c as u64 == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_are_read_back() {
        for close in [Close::Done, Close::Stopping, Close::Frame, Close::Control, Close::Internal] {
            assert_eq!(Close::from_code(close.code()), Some(close));
        }
        assert_eq!(Close::from_code(VarInt::from_u32(1000)), None);
    }
}
