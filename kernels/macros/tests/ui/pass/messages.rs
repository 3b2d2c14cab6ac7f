//! Sends to this actor and to others, timers, ids, the clock, the end.

#[ringhold::actor]
pub mod counter {
    pub struct State {
        pub count: u64,
    }

    pub enum Message {
        Add { by: u64, ratio: f64, from: ActorId },
        Reset,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { by, .. } => state.count += by,
            Message::Reset => ctx.stop(),
        }
    }
}

#[ringhold::actor(name = "test.driver", threads_per_actor = 1)]
pub mod driver {
    use super::counter;

    pub struct State {
        pub ticks: u64,
        pub seen_at: u64,
    }

    pub enum Message {
        Start { counters: u64 },
        Tick,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { counters } => {
                for key in 0..counters {
                    ctx.send(counter::id(key), counter::Message::Add { by: key + 1, ratio: 0.5f64, from: ctx.id() });
                }
                ctx.send_after(1_000, ctx.id(), Message::Tick);
            }
            Message::Tick => {
                state.ticks += 1;
                state.seen_at = ctx.now();
                let next = Message::Tick;
                ctx.send(id(state.ticks), next);
                ctx.send_after(5, counter::id(1), counter::Message::Reset);
            }
        }
    }
}

/// Keeps nothing.
#[ringhold::actor]
pub mod echo {
    pub struct State {}

    pub enum Message {
        Say { value: u64 },
    }

    pub enum Reply {
        Said { value: u64, padding: Nothing },
    }

    /// No field, no byte.
    pub struct Nothing {}

    #[allow(unused_variables)]
    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Say { value } => ctx.reply(Reply::Said { value, padding: Nothing {} }),
        }
    }
}

fn main() {}
