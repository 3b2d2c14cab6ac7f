//! An actor that makes trouble when it is asked to: what the runbooks in docs/runbooks are tried with.
//!
//! It is a node, its device hosts and its command line, as any program of your own is:
//! `cargo run --example trouble -- node start`.

/// Does what it is told, be it good for its device or not.
#[ringhold::actor]
pub mod trouble {
    pub struct State {
        pub handled: u64,
        /// Once it is not zero, `Stick` does not stick.
        pub repaired: u32,
        pub turns: u64,
    }

    pub enum Message {
        /// Is well.
        Work,
        /// Never comes back, unless the actor has been repaired.
        Stick,
        Repair,
        /// Divides by zero, unless the actor has been repaired.
        Fault,
    }

    pub enum Reply {
        Handled { messages: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Work => {}
            Message::Stick => {
                while state.repaired == 0 {
                    state.turns += 1;
                }
            }
            Message::Repair => state.repaired = 1,
            Message::Fault => state.turns = 1 / (state.repaired as u64),
        }
        state.handled += 1;
        ctx.reply(Reply::Handled { messages: state.handled });
    }
}

/// Another one, which has nothing to do with it.
#[ringhold::actor]
pub mod bystander {
    pub struct State {
        pub handled: u64,
    }

    pub enum Message {
        Work,
    }

    pub enum Reply {
        Handled { messages: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Work => state.handled += 1,
        }
        ctx.reply(Reply::Handled { messages: state.handled });
    }
}

pub fn main() -> std::process::ExitCode {
    let mut registry = ringhold::Registry::new();
    registry.register::<trouble::Actor>().expect("no other type has its name");
    registry.register::<bystander::Actor>().expect("no other type has its name");
    ringhold::cli::main(registry)
}
