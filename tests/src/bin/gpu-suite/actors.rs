//! The actors that the suite runs beside the shipped ones.

use ringhold_kernels::registry::{Error, Registry};

/// Everything that the suite's kernels are compiled with.
pub fn register(registry: &mut Registry) -> Result<(), Error> {
    ringhold::shipped::register(registry)?;
    registry.register::<talker::Actor>()?;
    registry.register::<listener::Actor>()?;
    registry.register::<circle::Actor>()?;
    registry.register::<hop::Actor>()?;
    registry.register::<spray::Actor>()?;
    registry.register::<echo::Actor>()?;
    registry.register::<row::Actor>()?;
    Ok(())
}

/// Sends numbered notes to every listener, in bursts that no short inbox holds.
#[ringhold::actor]
pub mod talker {
    use super::listener;

    pub struct State {
        pub next: u64,
    }

    pub enum Message {
        Talk { rounds: u32, listeners: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Talk { rounds, listeners } => {
                for _round in 0..rounds {
                    for i in 0..listeners {
                        ctx.send(
                            listener::id(i as u64),
                            listener::Message::Note { talker: ctx.id().key() as u32, number: state.next },
                        );
                    }
                    state.next += 1;
                }
            }
        }
    }
}

/// Counts what it hears, and what it hears out of order.
#[ringhold::actor]
pub mod listener {
    pub struct State {
        pub next: [u64; 64],
        pub heard: u64,
        pub out_of_order: u64,
    }

    pub enum Message {
        Note { talker: u32, number: u64 },
        Read,
    }

    pub enum Reply {
        Heard { heard: u64, out_of_order: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Note { talker, number } => {
                if state.next[talker] != number {
                    state.out_of_order += 1;
                }
                state.next[talker] = number + 1;
                state.heard += 1;
            }
            Message::Read => ctx.reply(Reply::Heard { heard: state.heard, out_of_order: state.out_of_order }),
        }
    }
}

/// Passes every token on, twice at first: traffic in circles that outgrows every inbox.
#[ringhold::actor]
pub mod circle {
    pub struct State {
        pub passed: u64,
    }

    pub enum Message {
        Token { left: u32, double: u32, members: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Token { left, double, members } => {
                state.passed += 1;
                if left > 0 {
                    let mut copies = 1;
                    if double > 0 {
                        copies = 2;
                    }
                    for copy in 0..copies {
                        let to = (ctx.id().key() * 7 + 1 + copy as u64) % members;
                        ctx.send(id(to), Message::Token { left: left - 1, double: double.saturating_sub(1), members });
                    }
                }
            }
        }
    }
}

/// One of many that pass tokens: to anyone, or to the next. Their number is a power of two.
#[ringhold::actor]
pub mod hop {
    pub struct State {
        pub seen: u64,
    }

    pub enum Message {
        /// `mask` is the number of actors less one.
        Anyone {
            left: u32,
            mask: u32,
            random: u32,
        },
        Next {
            left: u32,
            mask: u32,
        },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        state.seen += 1;
        match message {
            Message::Anyone { left, mask, random } => {
                if left > 0 {
                    // A linear congruential generator (Numerical Recipes); its upper bits are the better ones.
                    let next = random * 1_664_525 + 1_013_904_223;
                    let to = (next >> 8 ^ left << 16) & mask;
                    ctx.send(id(to as u64), Message::Anyone { left: left - 1, mask, random: next });
                }
            }
            Message::Next { left, mask } => {
                if left > 0 {
                    let to = (ctx.id().key() as u32 + 1) & mask;
                    ctx.send(id(to as u64), Message::Next { left: left - 1, mask });
                }
            }
        }
    }
}

/// Sends many messages to one actor.
#[ringhold::actor]
pub mod spray {
    use super::echo;

    pub struct State {
        pub sprayed: u64,
    }

    pub enum Message {
        Burst { count: u64, to: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Burst { count, to } => {
                for i in 0..count {
                    ctx.send(echo::id(to), echo::Message::Tell { value: i, padding: 0u64 });
                }
                state.sprayed += count;
            }
        }
    }
}

/// Adds up what it is told. Its messages have 24 bytes: 64 with their header.
#[ringhold::actor]
pub mod echo {
    pub struct State {
        pub sum: u64,
        pub told: u64,
    }

    pub enum Message {
        Ask { value: u64, padding: u64 },
        Tell { value: u64, padding: u64 },
    }

    pub enum Reply {
        Sum { sum: u64, told: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Ask { value, padding } => {
                state.sum += value + padding;
                ctx.reply(Reply::Sum { sum: state.sum, told: state.told });
            }
            Message::Tell { value, padding } => {
                state.sum += value + padding;
                state.told += 1;
            }
        }
    }
}

/// A row of cells that one warp mixes, in loops that are no multiple of its threads.
#[ringhold::actor(threads_per_actor = 32)]
pub mod row {
    const CELLS: u32 = 75;

    pub struct State {
        pub cells: [u32; CELLS],
        pub next: [u32; CELLS],
    }

    pub enum Message {
        Fill {
            seed: u32,
        },
        Mix {
            by: u32,
        },
        /// Faults where `at` is one of the cells, after some of them were written.
        Spoil {
            at: u32,
        },
    }

    pub enum Reply {
        Cells { sum: u64, least: u32, most: u32, mask: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Fill { seed } => {
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = (seed ^ i) * 0x9e37_79b9 + ctx.id().key() as u32;
                }
            }
            Message::Mix { by } => {
                for i in ctx.threads(0..CELLS) {
                    state.next[i] = state.cells[(i + by % CELLS) % CELLS].rotate_left(5) + state.cells[i];
                }
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = state.next[i];
                }
            }
            Message::Spoil { at } => {
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = 7;
                    state.next[i] = 100 / i.abs_diff(at);
                }
            }
        }
        let mut sum = 0u64;
        let mut least = u32::MAX;
        let mut most = 0;
        let mut mask = 0;
        for i in ctx.threads(0..CELLS) {
            sum += state.cells[i] as u64 * i as u64;
            least = least.min(state.cells[i]);
            most = most.max(state.cells[i]);
            mask ^= state.cells[i] + i;
        }
        ctx.reply(Reply::Cells { sum, least, most, mask });
    }
}
