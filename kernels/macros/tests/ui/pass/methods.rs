//! Methods, associated functions, references, temporaries, recursion-free helpers with the context.

#[ringhold::actor]
pub mod methods {
    pub struct State {
        pub queue: Queue,
        pub owner: ActorId,
        pub last: Entry,
    }

    #[allow(dead_code)]
    pub struct Queue {
        entries: [Entry; CAPACITY],
        head: u8,
        length: u8,
    }

    pub struct Entry {
        pub from: ActorId,
        pub value: u64,
    }

    pub enum Message {
        Push { value: u64 },
        Pop,
        Own { owner: ActorId },
    }

    pub enum Reply {
        Taken { entry: Entry },
        Refused,
    }

    const CAPACITY: u8 = 8;

    impl Queue {
        fn is_full(&self) -> bool {
            self.length == CAPACITY
        }

        fn push(&mut self, entry: Entry) -> bool {
            if self.is_full() {
                return false;
            }
            let slot = (self.head + self.length) % CAPACITY;
            self.entries[slot] = entry;
            self.length += 1;
            true
        }

        fn pop(&mut self) -> Entry {
            let entry = self.entries[self.head];
            self.head = (self.head + 1) % CAPACITY;
            self.length -= 1;
            entry
        }
    }

    impl Entry {
        fn new(from: ActorId, value: u64) -> Self {
            Self { from, value }
        }

        fn doubled(mut self) -> Entry {
            self.value *= 2;
            self
        }

        fn key(self) -> u64 {
            self.from.key() ^ self.value ^ self.from.type_id() as u64
        }
    }

    impl Reply {
        fn is_refusal(&self) -> bool {
            match *self {
                Self::Refused => true,
                Self::Taken { .. } => false,
            }
        }
    }

    fn add(total: &mut u64, by: &u64) {
        *total += *by;
        grow(total);
    }

    fn grow(total: &mut u64) {
        *total = total.wrapping_add(1);
    }

    fn first(values: &[u64; 2]) -> u64 {
        values[0]
    }

    fn answer(reply: Reply, ctx: &mut Context) {
        if !reply.is_refusal() {
            ctx.reply(reply);
        }
    }

    impl State {
        fn take(&mut self, ctx: &mut Context) {
            let entry = self.queue.pop();
            self.last = entry;
            answer(Reply::Taken { entry }, ctx);
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Push { value } => {
                let mut total = Entry::new(ctx.sender(), value).doubled().value;
                add(&mut total, &value);
                add(&mut state.last.value, &total);
                let pair = [total, state.last.key()];
                let entry = Entry { value: first(&pair), from: ctx.sender() };
                if !Queue::push(&mut state.queue, entry) {
                    answer(Reply::Refused, ctx);
                }
            }
            Message::Pop if state.queue.length > 0 => state.take(ctx),
            Message::Pop => answer(Reply::Refused, ctx),
            Message::Own { owner } => {
                if owner != ctx.id() && state.owner == id(0) {
                    state.owner = owner;
                }
            }
        }
        let copy = *state;
        *state = copy;
    }
}

fn main() {}
