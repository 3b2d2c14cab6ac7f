//! Actors that try what a device promises: here on the CPU device and the emulated one, and in `tests/src/bin/gpu-suite` on
//! a GPU. Whoever has this module has a crate `ringhold`.

/// Sends numbered notes to every listener, in bursts that no inbox holds.
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
            Message::Read => {}
        }
        ctx.reply(Reply::Heard { heard: state.heard, out_of_order: state.out_of_order });
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
