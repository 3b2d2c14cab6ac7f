//! The actor types in the shipped binary: two to try the CLI on, one that many threads run, and those of the demo.

use ringhold_kernels::registry::{Error, Registry};

use crate::demo::actors::{aircraft, airport, carrier};

/// An account that never goes below zero.
#[ringhold::actor]
pub mod account {
    pub struct State {
        pub balance: i64,
        pub operations: u32,
    }

    pub enum Message {
        Deposit { cents: i64 },
        Withdraw { cents: i64 },
        Read,
    }

    pub enum Reply {
        Balance { cents: i64 },
        Refused { short_by: i64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Deposit { cents } => state.balance += cents,
            Message::Withdraw { cents } if state.balance < cents => {
                ctx.reply(Reply::Refused { short_by: cents - state.balance });
                return;
            }
            Message::Withdraw { cents } => state.balance -= cents,
            Message::Read => {}
        }
        state.operations += 1;
        ctx.reply(Reply::Balance { cents: state.balance });
    }
}

/// A number to add to.
#[ringhold::actor]
pub mod counter {
    pub struct State {
        pub count: u64,
    }

    pub enum Message {
        Add {
            amount: u64,
        },
        Read,
        /// Frees the counter; the next message finds it at zero.
        Stop,
    }

    pub enum Reply {
        Count { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { amount } => state.count += amount,
            Message::Read => {}
            Message::Stop => ctx.stop(),
        }
        ctx.reply(Reply::Count { count: state.count });
    }
}

/// Heat in a metal rod of 1,024 cells, from 0 degrees on; its ends let none out.
#[ringhold::actor(threads_per_actor = 256)]
pub mod rod {
    const CELLS: u32 = 1024;

    pub struct State {
        /// Thousandths of a degree.
        pub cells: [i32; CELLS],
        pub next: [i32; CELLS],
        pub steps: u64,
    }

    pub enum Message {
        /// Warms one cell, or cools it.
        Warm {
            cell: u32,
            millidegrees: i32,
        },
        /// Lets heat flow between neighbours, so many times; all but the first time in messages to itself.
        Flow {
            steps: u32,
        },
        Read,
    }

    pub enum Reply {
        /// `warmer` is how many cells are above 0. Heat flows and is never lost: only `Warm` changes `total`.
        Rod { steps: u64, coldest: i32, warmest: i32, warmer: u32, total: i64 },
    }

    /// What flows from one cell to its right neighbour in a step.
    fn flow(left: i32, right: i32) -> i32 {
        left / 4 - right / 4
    }

    fn step(state: &mut State, ctx: &mut Context) {
        for i in ctx.threads(0..CELLS) {
            let here = state.cells[i];
            let from_left = if i > 0 { flow(state.cells[i - 1], here) } else { 0 };
            let to_right = if i < CELLS - 1 { flow(here, state.cells[i + 1]) } else { 0 };
            state.next[i] = here + from_left - to_right;
        }
        for i in ctx.threads(0..CELLS) {
            state.cells[i] = state.next[i];
        }
        state.steps += 1;
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Warm { cell, millidegrees } => state.cells[cell] += millidegrees,
            Message::Flow { steps } => {
                step(state, ctx);
                if steps > 1 {
                    ctx.send(ctx.id(), Message::Flow { steps: steps - 1 });
                }
            }
            Message::Read => {}
        }
        if ctx.sender() == ctx.id() {
            // A message to itself: nobody waits for an answer.
            return;
        }
        let mut coldest = i32::MAX;
        let mut warmest = i32::MIN;
        let mut warmer = 0;
        let mut total = 0;
        for i in ctx.threads(0..CELLS) {
            coldest = coldest.min(state.cells[i]);
            warmest = warmest.max(state.cells[i]);
            warmer += (state.cells[i] > 0) as u32;
            total += state.cells[i] as i64;
        }
        ctx.reply(Reply::Rod { steps: state.steps, coldest, warmest, warmer, total });
    }
}

/// Registers the shipped actor types.
pub fn register(registry: &mut Registry) -> Result<(), Error> {
    registry.register::<account::Actor>()?;
    registry.register::<counter::Actor>()?;
    registry.register::<rod::Actor>()?;
    registry.register::<aircraft::Actor>()?;
    registry.register::<airport::Actor>()?;
    registry.register::<carrier::Actor>()?;
    Ok(())
}
