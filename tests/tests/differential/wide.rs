//! Actors of many threads: what is easily got wrong in data-parallel loops, and sums of floats.

#[ringhold::actor(threads_per_actor = 32)]
pub mod wide {
    pub struct Row {
        pub x: i32,
        pub marks: [u8; 3],
    }

    pub struct Board {
        pub items: [i16; 40],
        pub best: i16,
    }

    pub struct State {
        pub cells: [i32; 48],
        pub next: [i32; 48],
        pub rows: [Row; 20],
        pub grid: [[u16; 33]; 3],
        pub board: Board,
        pub reals: [f64; 40],
        pub trace: u64,
        pub count: u32,
        pub flag: bool,
    }

    pub enum Message {
        Fill { from: i8, to: i8, value: i32 },
        Blur { rounds: u8 },
        Bytes { from: u8, through: u8, mask: u8 },
        Words { from: i16, to: i16, add: i64 },
        Far { below: u64, by: i64 },
        Rows { by: i32, low: u32, high: u32 },
        Grid { row: u8, add: u16 },
        Divide { by: i32, from: u32 },
        Faults { a: u8, b: u8, c: u8 },
        Branches { which: u8, steps: u8 },
        Reals { x: f64, y: f32 },
        Callers { salt: u64 },
        Board { weights: [i16; 4], floor: i16 },
    }

    pub enum Reply {
        Bits { or: u8, and: u8, xor: u8, sum: u8, least: u8, most: u8 },
        Sums { a: i16, b: u32, c: i64, least: i16, most: i64, any: bool, all: bool, odd: bool },
        Reals { least: f64, most: f64, sum: f64, low: f32, high: f32, total: f32 },
        Count { count: u32 },
    }

    const LENGTH: u32 = 48;

    /// The bits of the trace after it was noted that something came.
    fn note(trace: u64, what: u64) -> u64 {
        trace * 31 + what
    }

    fn other(i: u32, by: i32) -> i32 {
        if i == 7 { 0 } else { by % 5 + i as i32 }
    }

    impl Row {
        fn mark(&mut self, by: i32) -> u8 {
            self.marks[by & 3] += 1;
            self.x += by;
            self.marks[0]
        }

        fn weight(&self, at: u32) -> i32 {
            self.x + self.marks[at] as i32
        }
    }

    impl Board {
        /// The board lies in the state, and the threads reach it through `self`.
        fn settle(&mut self, weights: [i16; 4], floor: i16, ctx: &mut Context) -> u32 {
            let mut best = i16::MIN;
            let mut changed = 0u32;
            let before = self.best;
            for i in ctx.threads(0..40i16) {
                let item = self.items[i] + weights[i & 3] + before;
                if item < floor {
                    continue;
                }
                changed += (item != self.items[i]) as u32;
                self.items[i] = item;
                best = best.max(item);
            }
            self.best = best;
            changed
        }
    }

    fn spread(cells: &[i32; 48], next: &mut [i32; 48], ctx: &mut Context) {
        for i in ctx.threads(0..LENGTH) {
            let left = if i == 0 { 0 } else { i - 1 };
            let right = (i + 1).min(LENGTH - 1);
            next[i] = (cells[left] >> 2) + (cells[i] >> 1) + (cells[right] >> 2);
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Fill { from, to, value } => {
                // Often out of bounds: then nothing of it stays.
                for i in ctx.threads(from..to) {
                    state.cells[i] = value + i as i32;
                }
                state.count += 1;
            }
            Message::Blur { rounds } => {
                for _ in 0..rounds & 3 {
                    spread(&state.cells, &mut state.next, ctx);
                    for i in ctx.threads(0..LENGTH) {
                        state.cells[i] = state.next[i];
                    }
                }
            }
            Message::Bytes { from, through, mask } => bytes(from, through, mask, ctx),
            Message::Words { from, to, add } => words(state, from, to, add, ctx),
            Message::Far { below, by } => {
                let mut sum = by;
                let first = u64::MAX - below % 100;
                for i in ctx.threads(first..=u64::MAX) {
                    sum += i as i64 * by;
                }
                let mut least = i64::MAX;
                for i in ctx.threads(i64::MIN..i64::MIN + (below % 90) as i64) {
                    least = least.min(i ^ by);
                }
                state.trace = note(note(state.trace, sum as u64), least as u64);
            }
            Message::Rows { by, low, high } => {
                let mut marked = 0u64;
                let high = high.min(21);
                'rows: for row in ctx.threads(low..high) {
                    for at in 0..3u32 {
                        if state.rows[row].weight(at) == by {
                            continue 'rows;
                        }
                        if at as i32 == by {
                            break;
                        }
                        state.rows[row].marks[at] = at as u8;
                    }
                    marked += state.rows[row].mark(by) as u64;
                    let mut twice = state.rows[row];
                    twice.x *= 2;
                    state.rows[row] = twice;
                }
                state.trace = note(state.trace, marked);
            }
            Message::Grid { row, add } => {
                let mut most = 0;
                for i in ctx.threads(0..33) {
                    state.grid[row & 3][i] += add + i;
                    most = most.max(state.grid[row & 3][i]);
                }
                for i in ctx.threads(0..3) {
                    for j in 0..33 {
                        state.grid[i][j] ^= state.grid[i][32 - j] + (j == 5) as u16;
                    }
                }
                ctx.send(ctx.id(), Message::Grid { row, add: most });
            }
            Message::Divide { by, from } => {
                // Two lines that can fault: what is told is what the lowest faulting iteration does.
                for i in ctx.threads(from..LENGTH) {
                    state.next[i] = 100 / other(i, by);
                    state.cells[i] = state.next[i] / (by - 3 * i as i32).clamp(-9, by);
                }
                ctx.reply(Reply::Count { count: from });
            }
            Message::Faults { a, b, c } => {
                // Iterations of different threads fault on different lines: the lowest is told.
                let mut sum = 0;
                for i in ctx.threads(0..100u8) {
                    if i == a {
                        sum += 1 / (i - a) as u32;
                    }
                    if i == b {
                        sum += state.count / (i - b) as u32;
                    }
                    if i == c {
                        sum += i.clamp(c, c - 1) as u32 + state.rows[i as u32 + LENGTH].x as u32;
                    }
                    sum += 1;
                }
                state.count += sum;
            }
            Message::Branches { which, steps } => branches(state, which, steps, ctx),
            Message::Reals { x, y } => reals(state, x, y, ctx),
            Message::Callers { salt } => {
                let mut mixed = salt;
                for i in ctx.threads(0u64..50) {
                    let own = ctx.id().key() * i ^ ctx.now();
                    mixed ^= if id(i) == ctx.sender() { own } else { own + ctx.sender().key() };
                }
                state.trace = note(state.trace, mixed);
            }
            Message::Board { weights, floor } => {
                let changed = state.board.settle(weights, floor, ctx);
                ctx.reply(Reply::Count { count: changed });
            }
        }
        state.flag = !state.flag;
    }

    fn bytes(from: u8, through: u8, mask: u8, ctx: &mut Context) {
        let mut or = mask & 1;
        let mut and = mask | 0xf0;
        let mut xor = mask;
        let mut sum = mask;
        let mut least = mask;
        let mut most = mask;
        for i in ctx.threads(from..=through) {
            or |= i & mask;
            and &= i | mask;
            xor ^= i;
            sum += i * mask;
            least = least.min(i ^ mask);
            if i % 3 == 0 {
                most = most.max(i ^ mask);
            }
        }
        ctx.reply(Reply::Bits { or, and, xor, sum, least, most });
    }

    fn words(state: &mut State, from: i16, to: i16, add: i64, ctx: &mut Context) {
        let mut a = from;
        let mut b = state.count;
        let mut c = add;
        let mut least = to;
        let mut most = i64::MIN;
        let mut any = state.flag;
        let mut all = true;
        let mut odd = state.flag;
        for i in ctx.threads(from..to) {
            a += i;
            b += (i as i64 * add) as u32;
            c += add << (i & 7);
            least = least.min(i - to);
            most = most.max(add ^ i as i64);
            any |= i == 9;
            all &= i != 12;
            odd ^= i % 2 != 0;
        }
        state.count = b;
        ctx.reply(Reply::Sums { a, b, c, least, most, any, all, odd });
    }

    fn branches(state: &mut State, which: u8, steps: u8, ctx: &mut Context) {
        let mut total = 0u32;
        let found = match which & 3 {
            0 => {
                for i in ctx.threads(0..LENGTH) {
                    state.cells[i] -= 1;
                    total += (state.cells[i] < 0) as u32;
                }
                total
            }
            1 | 2
                if {
                    for i in ctx.threads(0..20) {
                        total += state.rows[i].marks[2] as u32;
                    }
                    total > 40
                } =>
            {
                total / 2
            }
            _ => {
                let mut step = 0;
                while step < steps & 7 {
                    step += 1;
                    if step == 2 {
                        continue;
                    }
                    // Empty, and reversed.
                    for i in ctx.threads(5..step) {
                        state.cells[i] += 1;
                        total += 1;
                    }
                    for i in ctx.threads(0..LENGTH) {
                        match state.cells[i] {
                            n @ (-5..=5) => state.next[i] = n * step as i32,
                            0..=100 if i % 2 == 0 => {}
                            n => {
                                let kept = loop {
                                    if state.next[i] > n || total_of(state.next[i]) > 9 {
                                        break state.next[i];
                                    }
                                    state.next[i] += n.abs() | 1;
                                };
                                state.next[i] = kept >> 1;
                            }
                        }
                    }
                    if total > 12 {
                        break;
                    }
                }
                total
            }
        };
        let value = if steps > 7 {
            let mut sum = found as u64;
            for i in ctx.threads(0..LENGTH) {
                sum += state.cells[i] as u64;
            }
            sum
        } else {
            found as u64
        };
        state.trace = note(state.trace, value);
    }

    fn total_of(x: i32) -> u32 {
        x.count_ones()
    }

    /// The sums are of eighths that are small enough to be exact, in any order.
    fn reals(state: &mut State, x: f64, y: f32, ctx: &mut Context) {
        for i in ctx.threads(0..40) {
            state.reals[i] = if i % 7 == 3 { x } else { state.reals[i] * 0.5 - y as f64 };
        }
        let mut least = x;
        let mut most = f64::NEG_INFINITY;
        let mut sum = -0.0;
        let mut low = y;
        let mut high = f32::NAN;
        let mut total = y as i8 as f32;
        let count = if state.flag { 40 } else { 0 };
        for i in ctx.threads(0..count) {
            least = least.min(state.reals[i]);
            most = most.max(state.reals[i]);
            sum += state.reals[i] as i16 as f64 * 0.125;
            low = low.min(state.reals[i] as f32);
            high = high.max(-state.reals[i] as f32);
            total += state.reals[i] as i8 as f32 * 0.125;
        }
        ctx.reply(Reply::Reals { least, most, sum, low, high, total });
    }
}

/// Sums whose terms are any floats: they depend on the order, within a bound.
#[ringhold::actor(threads_per_actor = 128)]
pub mod sums {
    pub struct State {
        pub singles: [f32; 1000],
        pub doubles: [f64; 1000],
    }

    pub enum Message {
        Sum { single: f32, double: f64 },
    }

    pub enum Reply {
        Sum { single: f32, double: f64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Sum { mut single, mut double } => {
                for i in ctx.threads(0..1000) {
                    single += state.singles[i];
                    double += state.doubles[i];
                }
                ctx.reply(Reply::Sum { single, double });
            }
        }
    }
}
