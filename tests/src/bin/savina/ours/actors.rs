//! The actors of the cases, as a user of Ringhold writes them.
//!
//! A new actor's state is zero, so each gets what it has to know in a message before the clock starts.

/// Half of ping-pong: serves, and counts the pongs.
#[ringhold::actor]
pub mod ping {
    use super::pong;

    pub struct State {
        pub pings_left: u64,
        pub pongs: u64,
    }

    pub enum Message {
        Start { pings: u64 },
        Pong,
        Read,
    }

    pub enum Reply {
        Pongs { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { pings } => state.pings_left = pings,
            Message::Pong => state.pongs += 1,
            Message::Read => {
                ctx.reply(Reply::Pongs { count: state.pongs });
                return;
            }
        }
        if state.pings_left > 0 {
            state.pings_left -= 1;
            ctx.send(pong::id(0), pong::Message::Ping);
        }
    }
}

/// The other half: answers whoever pings it.
#[ringhold::actor]
pub mod pong {
    use super::ping;

    pub struct State {
        pub pings: u64,
    }

    pub enum Message {
        Ping,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Ping => {
                state.pings += 1;
                ctx.send(ctx.sender(), ping::Message::Pong);
            }
        }
    }
}

/// Sends batches to the counter.
#[ringhold::actor]
pub mod producer {
    use super::counter;

    pub struct State {
        pub batch: u64,
        pub batches_left: u64,
        pub counted: u64,
    }

    pub enum Message {
        Start { batch: u64, batches: u64 },
        Count { count: u64 },
        Read,
    }

    pub enum Reply {
        Counted { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { batch, batches } => {
                state.batch = batch;
                state.batches_left = batches;
            }
            Message::Count { count } => state.counted = count,
            Message::Read => {
                ctx.reply(Reply::Counted { count: state.counted });
                return;
            }
        }
        if state.batches_left > 0 {
            state.batches_left -= 1;
            for _ in 0..state.batch {
                ctx.send(counter::id(0), counter::Message::Increment);
            }
            ctx.send(counter::id(0), counter::Message::Retrieve);
        }
    }
}

/// Counts.
#[ringhold::actor]
pub mod counter {
    use super::producer;

    pub struct State {
        pub count: u64,
    }

    pub enum Message {
        Increment,
        Retrieve,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Increment => state.count += 1,
            Message::Retrieve => ctx.send(ctx.sender(), producer::Message::Count { count: state.count }),
        }
    }
}

/// One of the ring.
#[ringhold::actor]
pub mod node {
    pub struct State {
        pub next: ActorId,
        pub seen: u64,
    }

    pub enum Message {
        Link { next: u64 },
        Token { hops_left: u64 },
        Read,
    }

    pub enum Reply {
        Seen { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Link { next } => state.next = id(next),
            Message::Token { hops_left } => {
                state.seen += 1;
                if hops_left > 0 {
                    ctx.send(state.next, Message::Token { hops_left: hops_left - 1 });
                }
            }
            Message::Read => ctx.reply(Reply::Seen { count: state.seen }),
        }
    }
}

/// Spreads messages over the workers.
#[ringhold::actor]
pub mod source {
    use super::worker;

    pub struct State {
        pub workers: u64,
        pub messages: u64,
        pub rounds_left: u64,
        pub complete: u64,
        pub waiting: u64,
    }

    pub enum Message {
        Start { workers: u64, messages: u64, rounds: u64 },
        Complete,
        Read,
    }

    pub enum Reply {
        Complete { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { workers, messages, rounds } => {
                state.workers = workers;
                state.messages = messages;
                state.rounds_left = rounds;
            }
            Message::Complete => {
                state.complete += 1;
                state.waiting -= 1;
            }
            Message::Read => {
                ctx.reply(Reply::Complete { count: state.complete });
                return;
            }
        }
        if state.waiting == 0 && state.rounds_left > 0 {
            state.rounds_left -= 1;
            state.waiting = state.workers;
            for _ in 0..state.messages {
                for key in 0..state.workers {
                    ctx.send(worker::id(key), worker::Message::Work);
                }
            }
        }
    }
}

/// Takes its share of the source's messages.
#[ringhold::actor]
pub mod worker {
    use super::source;

    pub struct State {
        pub messages: u64,
        pub seen: u64,
    }

    pub enum Message {
        Hello { messages: u64 },
        Work,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Hello { messages } => state.messages = messages,
            Message::Work => {
                state.seen += 1;
                if state.seen == state.messages {
                    state.seen = 0;
                    ctx.send(source::id(0), source::Message::Complete);
                }
            }
        }
    }
}

/// One of many that ping each other.
#[ringhold::actor]
pub mod big {
    use super::sink;

    pub struct State {
        pub random: u64,
        pub pings_left: u64,
    }

    pub enum Message {
        Prepare { seed: u64, pings: u64 },
        Start,
        Ping,
        Pong,
    }

    pub const ACTORS: u64 = 120;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Prepare { seed, pings } => {
                state.random = seed;
                state.pings_left = pings;
            }
            Message::Ping => ctx.send(ctx.sender(), Message::Pong),
            Message::Start | Message::Pong => {
                if state.pings_left > 0 {
                    state.pings_left -= 1;
                    ctx.send(id(state.partner()), Message::Ping);
                } else {
                    ctx.send(sink::id(0), sink::Message::Finished);
                }
            }
        }
    }

    impl State {
        /// xorshift64 (Marsaglia 2003).
        fn partner(&mut self) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % ACTORS
        }
    }
}

/// Starts the nodes of big, and counts those that have finished.
#[ringhold::actor]
pub mod sink {
    use super::big;

    pub struct State {
        pub finished: u64,
    }

    pub enum Message {
        Start { actors: u64 },
        Finished,
        Read,
    }

    pub enum Reply {
        Finished { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { actors } => {
                for key in 0..actors {
                    ctx.send(big::id(key), big::Message::Start);
                }
            }
            Message::Finished => state.finished += 1,
            Message::Read => ctx.reply(Reply::Finished { count: state.finished }),
        }
    }
}

/// Creates actors that live for one message.
#[ringhold::actor]
pub mod driver {
    use super::brief;

    pub struct State {
        pub actors: u64,
        pub rounds_left: u64,
        pub created: u64,
        pub complete: u64,
    }

    pub enum Message {
        Start { actors: u64, rounds: u64 },
        Complete,
        Read,
    }

    pub enum Reply {
        Complete { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { actors, rounds } => {
                state.actors = actors;
                state.rounds_left = rounds;
            }
            Message::Complete => state.complete += 1,
            Message::Read => {
                ctx.reply(Reply::Complete { count: state.complete });
                return;
            }
        }
        if state.complete == state.created && state.rounds_left > 0 {
            state.rounds_left -= 1;
            for _ in 0..state.actors {
                ctx.send(brief::id(state.created), brief::Message::Work);
                state.created += 1;
            }
        }
    }
}

/// Exists for one message.
#[ringhold::actor]
pub mod brief {
    use super::driver;

    pub struct State {
        pub seen: u64,
    }

    pub enum Message {
        Work,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Work => {
                state.seen += 1;
                ctx.send(driver::id(0), driver::Message::Complete);
                ctx.stop();
            }
        }
    }
}

/// Adds up what it is told, and answers the sum when asked. Its messages have 24 bytes: 64 with their header.
#[ringhold::actor]
pub mod echo {
    pub struct State {
        pub sum: u64,
        pub tells: u64,
    }

    pub enum Message {
        Ask { value: u64, padding: u64 },
        Tell { value: u64, padding: u64 },
        Read,
    }

    pub enum Reply {
        Sum { sum: u64 },
        Tells { count: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Ask { value, padding } => {
                state.sum += value + padding;
                ctx.reply(Reply::Sum { sum: state.sum });
            }
            Message::Tell { value, padding } => {
                state.sum += value + padding;
                state.tells += 1;
            }
            Message::Read => ctx.reply(Reply::Tells { count: state.tells }),
        }
    }
}

/// Creates idle actors, a few at a time so that its own messages take next to no memory.
#[ringhold::actor]
pub mod creator {
    use super::idle;

    pub struct State {
        pub left: u64,
    }

    pub enum Message {
        Start { actors: u64 },
        Continue,
    }

    pub const AT_ONCE: u64 = 1000;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Start { actors } => state.left = actors,
            Message::Continue => {}
        }
        for _ in 0..state.left.min(AT_ONCE) {
            state.left -= 1;
            ctx.send(idle::id(state.left), idle::Message::Add { value: 1u64 });
        }
        if state.left > 0 {
            ctx.send(id(0), Message::Continue);
        }
    }
}

/// Holds 8 bytes and waits.
#[ringhold::actor]
pub mod idle {
    pub struct State {
        pub sum: u64,
    }

    pub enum Message {
        Add { value: u64 },
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Add { value } => state.sum += value,
        }
    }
}
