//! The actors of the scenario, written to make trouble: chains across devices, bursts, faults, timers, stops.
//!
//! Every message bears who began it (`source`, a client), which of its operations that was (`seq`), and, where it
//! follows from another message, which of those it is (`part`, `hop`): so each can be told from all others.

use ringhold::actor;

/// Money that moves, and everything that can go wrong with it.
#[actor]
pub mod ledger {
    use super::sequencer;

    pub struct State {
        pub balance: i64,
        pub quotient: i64,
        pub posts: u32,
        pub credits: u32,
        pub transfers: u32,
        pub marks: u32,
        /// A hash of what came from each source, in its order; the last is for bursts.
        pub trail: [u64; 8],
    }

    pub enum Message {
        Post {
            source: u32,
            seq: u32,
            amount: i64,
        },
        /// Goes on along `route`, four bits a hop, for `hops` hops.
        Transfer {
            source: u32,
            seq: u32,
            hop: u32,
            hops: u32,
            amount: i64,
            route: u64,
        },
        /// Sends `count` credits to one ledger at once.
        Burst {
            source: u32,
            seq: u32,
            count: u32,
            to: u64,
        },
        Credit {
            source: u32,
            seq: u32,
            part: u32,
            amount: i64,
        },
        /// Tells a sequencer first, and then divides: by zero, none of it has happened.
        Divide {
            source: u32,
            seq: u32,
            by: i64,
        },
        /// Faults where `at` is no index.
        Mark {
            source: u32,
            seq: u32,
            at: u32,
        },
        /// Sends a sequencer's message to whatever `to` is.
        Note {
            source: u32,
            seq: u32,
            to: ActorId,
        },
        /// Never replies.
        Silent {
            source: u32,
            seq: u32,
        },
        Close {
            source: u32,
            seq: u32,
        },
    }

    pub enum Reply {
        Balance { balance: i64, posts: u32 },
    }

    pub const PRIME: u64 = 0x0000_0100_0000_01b3;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Post { source, seq, amount } => {
                state.posts += 1;
                state.balance += amount;
                state.follow(source & 3, seq);
            }
            Message::Transfer { source, seq, hop, hops, amount, route } => {
                state.transfers += 1;
                if hop > 0 {
                    state.balance += amount;
                }
                if hop < hops {
                    state.balance -= amount;
                    let next = (route >> (hop * 4)) & 15;
                    ctx.send(id(next), Message::Transfer { source, seq, hop: hop + 1, hops, amount, route });
                }
            }
            Message::Burst { source, seq, count, to } => {
                let mut part: u32 = 0;
                while part < count {
                    part += 1;
                    ctx.send(id(to), Message::Credit { source, seq, part, amount: 1 });
                }
                state.balance -= count as i64;
            }
            Message::Credit { source, seq, part, amount } => {
                state.credits += 1;
                state.balance += amount;
                state.follow(7, source * 1_000_003 + seq * 1009 + part);
            }
            Message::Divide { source, seq, by } => {
                state.balance += 1;
                ctx.send(sequencer::id(source as u64), sequencer::Message::Note { source, seq, part: 1u32 });
                state.quotient = 1_000_000 / by;
            }
            Message::Mark { source, seq, at } => {
                state.marks += 1;
                state.trail[at] += (source + seq) as u64;
            }
            Message::Note { source, seq, to } => {
                ctx.send(to, sequencer::Message::Note { source, seq, part: 1u32 });
            }
            Message::Silent { source, seq } => {
                state.follow(source & 3, seq);
                return;
            }
            Message::Close { source, seq } => {
                state.follow(source & 3, seq);
                ctx.stop();
            }
        }
        ctx.reply(Reply::Balance { balance: state.balance, posts: state.posts });
    }

    impl State {
        fn follow(&mut self, at: u32, what: u32) {
            self.trail[at] = (self.trail[at] ^ what as u64) * PRIME;
        }
    }
}

/// Writes down the order in which it was told.
#[actor]
pub mod sequencer {
    pub struct State {
        pub seen: u32,
        pub fired: u32,
        pub order: u64,
        pub last: [u32; 4],
    }

    pub enum Message {
        Note {
            source: u32,
            seq: u32,
            part: u32,
        },
        /// Sends itself `Fired` after a while.
        Later {
            source: u32,
            seq: u32,
            delay_us: u32,
        },
        Fired {
            source: u32,
            seq: u32,
        },
        Stop {
            source: u32,
            seq: u32,
        },
    }

    pub enum Reply {
        Seen { seen: u32, order: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Note { source, seq, part } => {
                state.seen += 1;
                state.last[source & 3] = seq;
                state.order = (state.order ^ ((source as u64) << 40 | (part as u64) << 32 | seq as u64)) * 31;
            }
            Message::Later { source, seq, delay_us } => {
                ctx.send_after(delay_us as u64, ctx.id(), Message::Fired { source, seq });
            }
            Message::Fired { source, seq } => {
                state.fired += 1;
                state.order = (state.order ^ ((source as u64) << 48 | seq as u64)) * 37;
            }
            Message::Stop { source, seq } => {
                state.last[source & 3] = seq;
                ctx.stop();
            }
        }
        ctx.reply(Reply::Seen { seen: state.seen, order: state.order });
    }
}
