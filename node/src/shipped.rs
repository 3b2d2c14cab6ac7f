//! The actor types in the shipped binary: two to try the CLI on, and those of the demo.

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

/// Registers the shipped actor types.
pub fn register(registry: &mut Registry) -> Result<(), Error> {
    registry.register::<account::Actor>()?;
    registry.register::<counter::Actor>()?;
    registry.register::<aircraft::Actor>()?;
    registry.register::<airport::Actor>()?;
    registry.register::<carrier::Actor>()?;
    Ok(())
}
