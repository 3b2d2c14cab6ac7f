//! The actors that everything is measured on.

/// Two of these talk, on two nodes. A message is 24 bytes, and 64 with its header.
#[ringhold::actor]
pub mod pair {
    /// Messages that the other acknowledges together.
    pub const BURST: u64 = 4096;
    /// Microseconds that are told apart. What takes longer counts as this.
    pub const MICROS: u32 = 4096;

    pub struct State {
        pub other: u64,
        /// Of the one that tells: bursts to send, and to be acknowledged.
        pub to_send: u32,
        pub to_come: u32,
        /// Of the one that is told.
        pub told: u64,
        /// When what is timed began, and how long it took: microseconds of this node's clock.
        pub began: u64,
        pub took: u64,
        /// Round trips to make, and how many took how many microseconds.
        pub trips: u32,
        pub micros: [u32; 4096],
    }

    pub enum Message {
        /// Sends the other so many bursts, of which so many are under way at a time.
        Send {
            other: u64,
            bursts: u32,
            window: u32,
        },
        Tell {
            from: u64,
            padding: u64,
        },
        Acknowledge,
        /// Makes so many round trips, one after the other.
        Travel {
            other: u64,
            trips: u32,
        },
        Ping {
            from: u64,
            padding: u64,
        },
        Pong {
            padding: u64,
        },
        Ask {
            padding: u64,
        },
        Read,
        /// How long so many of a thousand round trips took at most.
        Percentile {
            per_mille: u32,
        },
    }

    pub enum Reply {
        Asked { padding: u64 },
        Is { told: u64, took: u64, to_come: u32, trips: u32 },
        Micros { micros: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Send { other, bursts, window } => {
                state.other = other;
                state.to_send = bursts;
                state.to_come = bursts;
                state.began = ctx.now() >> 12;
                let mut i = 0u32;
                while i < window && state.to_send > 0 {
                    let mut sent = 0u64;
                    while sent < BURST {
                        ctx.send(id(other), Message::Tell { from: ctx.id().key(), padding: sent });
                        sent += 1;
                    }
                    state.to_send -= 1;
                    i += 1;
                }
            }
            Message::Tell { from, padding: _ } => {
                state.told += 1;
                if state.told % BURST == 0 {
                    ctx.send(id(from), Message::Acknowledge);
                }
            }
            Message::Acknowledge => {
                if state.to_send > 0 {
                    let mut sent = 0u64;
                    while sent < BURST {
                        ctx.send(id(state.other), Message::Tell { from: ctx.id().key(), padding: sent });
                        sent += 1;
                    }
                    state.to_send -= 1;
                }
                state.to_come -= 1;
                if state.to_come == 0 {
                    state.took = (ctx.now() >> 12) - state.began;
                }
            }
            Message::Travel { other, trips } => {
                state.other = other;
                state.trips = trips;
                state.began = ctx.now() >> 12;
                ctx.send(id(other), Message::Ping { from: ctx.id().key(), padding: 0 });
            }
            Message::Ping { from, padding } => ctx.send(id(from), Message::Pong { padding }),
            Message::Pong { padding } => {
                let now = ctx.now() >> 12;
                let mut took = now - state.began;
                if took >= MICROS as u64 {
                    took = MICROS as u64 - 1;
                }
                state.micros[took] += 1;
                state.trips -= 1;
                if state.trips > 0 {
                    state.began = now;
                    ctx.send(id(state.other), Message::Ping { from: ctx.id().key(), padding });
                }
            }
            Message::Ask { padding } => ctx.reply(Reply::Asked { padding }),
            Message::Read => {
                ctx.reply(Reply::Is { told: state.told, took: state.took, to_come: state.to_come, trips: state.trips });
            }
            Message::Percentile { per_mille } => {
                let mut all = 0u64;
                for i in 0..MICROS {
                    all += state.micros[i] as u64;
                }
                let wanted = (all * per_mille as u64 + 999) / 1000;
                let mut below = 0u64;
                let mut micros = 0u32;
                while micros < MICROS && below < wanted {
                    below += state.micros[micros] as u64;
                    micros += 1;
                }
                ctx.reply(Reply::Micros { micros });
            }
        }
    }
}

/// 256 bytes, all of which a touch changes.
#[ringhold::actor]
pub mod cell {
    pub struct State {
        pub words: [u64; 31],
        pub touched: u64,
    }

    pub enum Message {
        Touch,
        /// The same, and answers.
        Count,
        Read,
    }

    pub enum Reply {
        Touched { times: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Touch => {
                touch(state);
                return;
            }
            Message::Count => touch(state),
            Message::Read => {}
        }
        ctx.reply(Reply::Touched { times: state.touched });
    }

    fn touch(state: &mut State) {
        state.touched += 1;
        for i in 0..31 {
            state.words[i] = state.touched;
        }
    }
}
