//! Actors whose end depends on every message having been handled once, and in order of its pair, and on nothing else.

pub const WALKERS: u64 = 97;
pub const MAYFLIES: u64 = 13;
pub const WIDE: u64 = 3;
/// Visits after which a mayfly is gone.
pub const LIFE: u64 = 3;
pub const CELLS: usize = 100;

/// Passes a token on, at once or after a while, to itself at times, and tells others how often it has.
#[ringhold::actor]
pub mod walker {
    use super::listener;
    use super::mayfly;
    use super::wide;

    pub struct State {
        pub steps: u64,
        pub sum: u64,
    }

    pub enum Message {
        Walk {
            left: u32,
            token: u64,
        },
        /// Rests in an hour.
        Later,
        Rest,
    }

    pub enum Reply {
        Steps { steps: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Walk { left, token } => {
                let from = ctx.id().key();
                ctx.send(listener::id(from % 7), listener::Message::Note { from: from as u32, number: state.steps });
                state.steps += 1;
                state.sum += token;
                let visited = mayfly::id((token + left as u64) % 13);
                if (token + left as u64) % 4 == 1 {
                    ctx.send_after(30, visited, mayfly::Message::Visit { token });
                } else {
                    ctx.send(visited, mayfly::Message::Visit { token });
                }
                if left % 4 == 0 {
                    ctx.send(wide::id(token % 3), wide::Message::Add { token });
                }
                if left > 0 {
                    let next = (token * 31 + left as u64 * 7) % 97;
                    let onward = Message::Walk { left: left - 1, token };
                    if token % 11 == 3 {
                        ctx.send_after(20, id(next), onward);
                    } else if token % 7 == 2 && left % 2 == 1 {
                        ctx.send(ctx.id(), onward);
                    } else {
                        ctx.send(id(next), onward);
                    }
                }
                ctx.reply(Reply::Steps { steps: state.steps });
            }
            Message::Later => ctx.send_after(3_600_000_000, ctx.id(), Message::Rest),
            Message::Rest => ctx.stop(),
        }
    }
}

/// Counts what it hears, and what it hears out of order.
#[ringhold::actor]
pub mod listener {
    pub struct State {
        pub next: [u64; 128],
        pub heard: u64,
        pub out_of_order: u64,
    }

    pub enum Message {
        Note { from: u32, number: u64 },
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Note { from, number } => {
                if state.next[from] != number {
                    state.out_of_order += 1;
                }
                state.next[from] = number + 1;
                state.heard += 1;
            }
        }
    }
}

/// Stops with its third visit, and begins anew with the next. Its state has bytes that mean nothing.
#[ringhold::actor]
pub mod mayfly {
    pub struct State {
        pub old: bool,
        pub visits: u32,
        pub last: u64,
        pub mood: Mood,
    }

    pub enum Mood {
        Fresh,
        Tired { of: u8, weight: f64 },
    }

    pub enum Message {
        Visit { token: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Visit { token } => {
                state.visits += 1;
                state.last = token;
                state.old = state.visits == 2;
                if state.old {
                    state.mood = Mood::Tired { of: token as u8, weight: 0.5 };
                }
                if state.visits == 3 {
                    ctx.stop();
                }
            }
        }
    }
}

/// Adds to each of its cells, by many threads.
#[ringhold::actor(threads_per_actor = 64)]
pub mod wide {
    pub struct State {
        pub cells: [u64; 100],
    }

    pub enum Message {
        Add { token: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { token } => {
                for i in ctx.threads(0..100) {
                    state.cells[i] += token * (i as u64 + 1);
                }
            }
        }
        let _ = ctx.now();
    }
}

/// What all of them come to, one message after the other.
#[derive(Default)]
pub struct Model {
    /// Steps and sum of each walker.
    pub walkers: std::collections::HashMap<u64, (u64, u64)>,
    pub visits: [u64; MAYFLIES as usize],
    pub added: [u64; WIDE as usize],
}

impl Model {
    pub fn walk(&mut self, first: u64, left: u32, token: u64) {
        let mut at = first;
        for left in (0..=left).rev() {
            let walker = self.walkers.entry(at).or_default();
            *walker = (walker.0 + 1, walker.1 + token);
            self.visits[((token + left as u64) % MAYFLIES) as usize] += 1;
            if left % 4 == 0 {
                self.added[(token % WIDE) as usize] += token;
            }
            let to_itself = token % 11 != 3 && token % 7 == 2 && left % 2 == 1;
            if !to_itself {
                at = (token * 31 + left as u64 * 7) % WALKERS;
            }
        }
    }
}
