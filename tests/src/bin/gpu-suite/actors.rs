//! The actors that the suite runs beside the shipped ones.
//!
//! Handlers cannot read a multiprocessor's clock or follow a bad address. Two actors here have functions that do nothing where
//! Rust runs them; devices compile what [`super::by_hand`] puts in their place. No other binary has these actors.

use ringhold::rt::Actor as _;
use ringhold::shipped::rod;
use ringhold_kernels::registry::{Error, Registry};

use super::by_hand::{self, ByHand};

#[path = "../../../../kernels/tests/actors/mod.rs"]
mod shared;

pub use shared::{circle, listener, talker};

/// What most of the suite's own kernels are made with.
///
/// # Panics
/// If two types have one name, or what is written by hand no longer fits: neither depends on the machine.
pub fn for_kernels() -> Registry {
    let mut registry = Registry::new();
    let register = |registry: &mut Registry| -> Result<(), Error> {
        ringhold::shipped::register(registry)?;
        registry.register::<talker::Actor>()?.register::<listener::Actor>()?.register::<circle::Actor>()?;
        registry.register::<hop::Actor>()?.register::<crowd::Actor>()?.register::<spray::Actor>()?;
        registry.register::<echo::Actor>()?.register::<stopwatch::Actor>()?;
        Ok(())
    };
    register(&mut registry).expect("the suite's types have names of their own");
    by_hand::write(&mut registry, &STOPWATCH);
    registry
}

/// What the kernels for wide actors are made with: those of the suite want more threads, or fewer, than those that ship.
///
/// # Panics
/// As [`for_kernels`].
pub fn wide() -> Registry {
    let mut registry = Registry::new();
    let register = |registry: &mut Registry| -> Result<(), Error> {
        registry.register::<row::Actor>()?.register::<rod::Actor>()?.register::<slab::Actor>()?;
        Ok(())
    };
    register(&mut registry).expect("the types have names of their own");
    registry
}

/// What its nodes and their device hosts are made with: this binary in any role of the library.
///
/// # Panics
/// As [`for_kernels`].
pub fn for_nodes() -> Registry {
    let mut registry = Registry::new();
    let register = |registry: &mut Registry| -> Result<(), Error> {
        ringhold::shipped::register(registry)?;
        registry.register::<talker::Actor>()?.register::<listener::Actor>()?;
        registry.register::<endless::Actor>()?.register::<wild::Actor>()?;
        Ok(())
    };
    register(&mut registry).expect("the suite's types have names of their own");
    by_hand::write(&mut registry, &WILD);
    registry
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

/// Passes tokens to anyone, until it is told to keep those that come.
#[ringhold::actor]
pub mod crowd {
    pub struct State {
        pub passed: u64,
        pub kept: u32,
        pub halted: bool,
    }

    pub enum Message {
        /// `mask` is the number of actors less one.
        Token {
            mask: u32,
            random: u32,
        },
        Halt,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Token { .. } if state.halted => state.kept += 1,
            Message::Token { mask, random } => {
                state.passed += 1;
                // As in `hop`.
                let next = random * 1_664_525 + 1_013_904_223;
                ctx.send(id((next >> 8 & mask) as u64), Message::Token { mask, random: next });
            }
            Message::Halt => state.halted = true,
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

/// Cells that as many threads as a block can have mix, and add up.
#[ringhold::actor(threads_per_actor = 1024)]
pub mod slab {
    const CELLS: u32 = 1500;

    pub struct State {
        pub cells: [u32; CELLS],
    }

    pub enum Message {
        /// Faults where `at` is one of the cells, after some of them were written.
        Mix { by: u32, at: u32 },
    }

    pub enum Reply {
        Cells { sum: u64, most: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Mix { by, at } => {
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = state.cells[i].rotate_left(7) + (by ^ i) * 0x9e37_79b9 + 1 / i.abs_diff(at);
                }
            }
        }
        let mut sum = 0u64;
        let mut most = 0;
        for i in ctx.threads(0..CELLS) {
            sum += state.cells[i] as u64 * i as u64;
            most = most.max(state.cells[i]);
        }
        ctx.reply(Reply::Cells { sum, most });
    }
}

/// Times round trips to another of its kind, and ticks of its worker's clock, by the clock of the multiprocessor it runs on.
#[ringhold::actor]
pub mod stopwatch {
    /// Round trips that are kept; a power of two.
    pub const SAMPLES: u32 = 2048;

    pub struct State {
        /// When it sent what it waits for.
        pub sent: u64,
        pub peer: u64,
        pub left: u32,
        pub count: u32,
        /// Cycles of each round trip.
        pub samples: [u32; SAMPLES],
    }

    pub enum Message {
        Start {
            peer: u64,
            rounds: u32,
        },
        There,
        Back,
        /// How many round trips are to come.
        Left,
        /// What the clock says, and what the time is.
        Now,
        /// How long so many ticks of the worker's clock take.
        Tick {
            count: u32,
        },
    }

    pub enum Reply {
        Left { left: u32 },
        Now { cycles: u64, ns: u64 },
        Took { cycles: u64 },
    }

    /// By hand: the multiprocessor's clock.
    fn cycles() -> u64 {
        0
    }

    /// By hand: the GPU's clock.
    fn nanoseconds() -> u64 {
        0
    }

    /// By hand: ticks the worker's clock, and says how many cycles that took.
    fn ticks(count: u32, _ctx: &mut Context) -> u64 {
        count as u64
    }

    /// By hand: keeps a sample. An index that is computed could be out of bounds, and a handler that can fault is run over a
    /// copy of its state.
    fn keep(state: &mut State, sample: u64) {
        state.samples[0] = sample as u32;
    }

    fn serve(state: &mut State, ctx: &mut Context) {
        state.sent = cycles();
        ctx.send(id(state.peer), Message::There);
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let now = cycles();
        match message {
            Message::Start { peer, rounds } => {
                state.peer = peer;
                state.left = rounds;
                serve(state, ctx);
            }
            Message::There => ctx.send(ctx.sender(), Message::Back),
            Message::Back => {
                let took = now - state.sent;
                keep(state, took);
                state.left -= 1;
                if state.left > 0 {
                    serve(state, ctx);
                }
            }
            Message::Left => ctx.reply(Reply::Left { left: state.left }),
            Message::Now => ctx.reply(Reply::Now { cycles: now, ns: nanoseconds() }),
            Message::Tick { count } => {
                let took = ticks(count, ctx);
                ctx.reply(Reply::Took { cycles: took });
            }
        }
    }
}

const STOPWATCH: ByHand = ByHand {
    type_id: stopwatch::Actor::TYPE,
    before: "
#ifdef __CUDACC__
RH_FN rh::u64 suite_cycles() {
    rh::u64 now;
    asm volatile(\"mov.u64 %0, %%clock64;\" : \"=l\"(now)::\"memory\");
    return now;
}
RH_FN rh::u64 suite_nanoseconds() {
    rh::u64 now;
    asm volatile(\"mov.u64 %0, %%globaltimer;\" : \"=l\"(now)::\"memory\");
    return now;
}
#else
#include <time.h>
RH_FN rh::u64 suite_nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (rh::u64)now.tv_sec * 1000000000ull + (rh::u64)now.tv_nsec;
}
RH_FN rh::u64 suite_cycles() { return suite_nanoseconds(); }
#endif
",
    bodies: &[
        ("cycles", "return suite_cycles();"),
        ("nanoseconds", "return suite_nanoseconds();"),
        (
            "ticks",
            "const rh::u64 before = suite_cycles();
    rh::u64 stamp = 0;
    for (rh::u32 i = 0; i < x0_count; i++) stamp = x1__ctx->worker.next_stamp();
    // A stamp is never 0; the compiler does not know.
    return suite_cycles() - before + (stamp == 0);",
        ),
        (
            "keep",
            "const rh::u32 most = 0xffffffffu;
    x0_state->m_samples.v[x0_state->m_count++ % 2048u] = x1_sample < most ? (rh::u32)x1_sample : most;",
        ),
    ],
};

/// Holds its worker for ever: a sequence without a zero (Marsaglia, "Xorshift RNGs", 2003) is looked through for one.
#[ringhold::actor]
pub mod endless {
    pub struct State {
        pub last: u32,
    }

    pub enum Message {
        /// `first` is not zero.
        Spin { first: u32 },
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Spin { first } => {
                let mut x = first;
                while x != 0 {
                    x ^= x << 13;
                    x ^= x >> 17;
                    x ^= x << 5;
                }
                state.last = x;
            }
        }
    }
}

/// Stores to an address that it is told.
#[ringhold::actor]
pub mod wild {
    pub struct State {
        pub stores: u64,
    }

    pub enum Message {
        Store { address: u64 },
    }

    /// By hand: stores there.
    fn store_to(address: u64) -> u64 {
        address
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Store { address } => state.stores += store_to(address),
        }
    }
}

const WILD: ByHand = ByHand {
    type_id: wild::Actor::TYPE,
    before: "",
    bodies: &[("store_to", "*reinterpret_cast<volatile rh::u32*>(x0_address) = 1;\n    return 1;")],
};
