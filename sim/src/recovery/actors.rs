//! The actors of the scenario: each writes down everything that it was told, in its order.
//!
//! Of two types that do the same, one is `committed` in most runs. What is written down says which client sent it and which
//! of its operations it was; what follows from it is one more (see [`what`]).

use ringhold::actor;

/// An operation of a client, as a word. The next word is what follows from it.
pub fn what(source: u32, seq: u32) -> u32 {
    source << 24 | seq << 1
}

/// What is said to be kept is kept.
#[actor]
pub mod journal {
    use super::sketch;

    pub struct State {
        pub count: u32,
        pub trail: u64,
        pub entries: [u32; 256],
    }

    pub enum Message {
        Put {
            what: u32,
        },
        /// Puts it, and has an actor of the other type put it too.
        Forward {
            what: u32,
            to: u64,
        },
        /// Puts it, and once more after a while.
        Later {
            what: u32,
            delay_us: u32,
        },
        /// Puts it, and ends.
        Close {
            what: u32,
        },
    }

    pub enum Reply {
        Put { at: u32, trail: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Put { what } => {
                state.put(what);
            }
            Message::Forward { what, to } => {
                state.put(what);
                ctx.send(sketch::id(to), sketch::Message::Put { what: what + 1u32 });
            }
            Message::Later { what, delay_us } => {
                state.put(what);
                ctx.send_after(delay_us as u64, ctx.id(), Message::Put { what: what + 1u32 });
            }
            Message::Close { what } => {
                state.put(what);
                ctx.stop();
            }
        }
        ctx.reply(Reply::Put { at: state.count - 1, trail: state.trail });
    }

    impl State {
        fn put(&mut self, what: u32) {
            self.entries[self.count] = what;
            self.count += 1;
            self.trail = (self.trail ^ what as u64) * 0x0000_0100_0000_01b3;
        }
    }
}

/// The same, and it is never said to be kept.
#[actor]
pub mod sketch {
    use super::journal;

    pub struct State {
        pub count: u32,
        pub trail: u64,
        pub entries: [u32; 256],
    }

    pub enum Message {
        Put {
            what: u32,
        },
        /// Puts it, and has an actor of the other type put it too.
        Forward {
            what: u32,
            to: u64,
        },
        /// Puts it, and once more after a while.
        Later {
            what: u32,
            delay_us: u32,
        },
        /// Puts it, and ends.
        Close {
            what: u32,
        },
    }

    pub enum Reply {
        Put { at: u32, trail: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Put { what } => {
                state.put(what);
            }
            Message::Forward { what, to } => {
                state.put(what);
                ctx.send(journal::id(to), journal::Message::Put { what: what + 1u32 });
            }
            Message::Later { what, delay_us } => {
                state.put(what);
                ctx.send_after(delay_us as u64, ctx.id(), Message::Put { what: what + 1u32 });
            }
            Message::Close { what } => {
                state.put(what);
                ctx.stop();
            }
        }
        ctx.reply(Reply::Put { at: state.count - 1, trail: state.trail });
    }

    impl State {
        fn put(&mut self, what: u32) {
            self.entries[self.count] = what;
            self.count += 1;
            self.trail = (self.trail ^ what as u64) * 0x0000_0100_0000_01b3;
        }
    }
}
