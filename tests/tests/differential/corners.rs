//! An actor made of what is easily got wrong: orders of evaluation, guards, edges of types, early exits.

#[ringhold::actor]
pub mod corners {
    use super::super::programs::sink;

    pub struct Pair {
        pub left: i16,
        pub right: i16,
    }

    pub enum Tree {
        Leaf { value: i32 },
        Fork { pair: Pair, weights: [u8; 3] },
        Bare,
    }

    pub struct State {
        pub trace: u64,
        pub tree: Tree,
        pub grid: [[i32; 3]; 2],
        pub pairs: [Pair; 4],
        pub single: f32,
        pub double: f64,
        pub flag: bool,
        pub at: i8,
        pub last: ActorId,
    }

    pub enum Message {
        Order { a: u8, b: u8 },
        Guards { x: i32, y: i32 },
        Loops { from: u8, to: u8, stop: i8 },
        Edges { a: i64, b: i64, shift: i32 },
        Floats { x: f64, y: f32 },
        Lazy { index: i32, divisor: i32 },
        Trees { tree: Tree, pair: Pair },
        Late { index: u64 },
    }

    pub enum Reply {
        Number { value: i64 },
        Real { x: f64, y: f32, bits: u64 },
        Whole { tree: Tree },
    }

    const STEP: u64 = 31;
    const LIMITS: [i32; 4] = [i32::MIN, -1, 1, i32::MAX];

    /// Writes down that it was called, so that the order of calls shows in the state.
    fn note(value: u64, trace: &mut u64) -> u64 {
        *trace = *trace * STEP + value;
        value
    }

    fn quarter(numbers: [i32; 4], index: i32) -> i32 {
        100 / numbers[index]
    }

    impl Pair {
        fn sum(&self) -> i16 {
            self.left + self.right
        }

        fn swap(&mut self) {
            let Pair { left, right } = *self;
            self.left = right;
            self.right = left;
        }

        fn of(value: i64) -> Pair {
            Pair { right: value as i16, left: (value >> 16) as i16 }
        }
    }

    impl Tree {
        fn depth(self) -> u32 {
            match self {
                Tree::Leaf { .. } | Tree::Bare => 0,
                Tree::Fork { weights, .. } => weights[0] as u32,
            }
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Order { a, b } => order(state, a, b, ctx),
            Message::Guards { x, y } => guards(state, x, y),
            Message::Loops { from, to, stop } => loops(state, from, to, stop),
            Message::Edges { a, b, shift } => {
                state.trace = edges(a, b, shift) as u64;
                ctx.reply(Reply::Number { value: edges(b, a, shift) });
            }
            Message::Floats { x, y } => floats(state, x, y, ctx),
            Message::Lazy { index, divisor } => lazy(state, index, divisor, ctx),
            Message::Trees { tree, pair } => trees(state, tree, pair, ctx),
            Message::Late { index } => {
                // All this is undone by the fault.
                state.trace = 1;
                ctx.send(ctx.id(), Message::Guards { x: 1, y: 2 });
                ctx.reply(Reply::Number { value: 1 });
                ctx.stop();
                state.pairs[index].left = 7;
            }
        }
        state.last = ctx.sender();
    }

    fn order(state: &mut State, a: u8, b: u8, ctx: &mut Context) {
        let pair =
            Pair { right: note(a as u64, &mut state.trace) as i16, left: note(b as u64, &mut state.trace) as i16 };
        state.trace = state.trace - {
            state.trace += 1;
            state.trace
        } * 3;
        state.grid[{
            state.at += 1;
            1
        }][(state.at & 1) as u8] = {
            state.at += 2;
            state.at as i32
        };
        state.grid[state.at.rem_euclid(2)][2] += {
            state.at -= 1;
            state.at as i32
        };
        state.pairs[(pair.right & 3) as u16].swap();
        state.pairs[pair.left & 3] = Pair::of(state.trace as i64);
        ctx.send_after(
            note(1, &mut state.trace),
            sink::id(note(2, &mut state.trace)),
            sink::Message::Whole {
                d: note(3, &mut state.trace),
                c: note(4, &mut state.trace) as i32,
                b: pair.sum() as u16,
                a: pair.left as i8,
            },
        );
        ctx.send(ctx.sender(), Message::Order { a: b, b: a });
    }

    /// A guard is tried on each alternative that matches, and its effects stay.
    fn guards(state: &mut State, x: i32, y: i32) {
        match x + 0 {
            1 | 0..=9
                if {
                    state.trace += 1;
                    y > 3
                } =>
            {
                state.at = 1
            }
            n @ (-5..=5 | 0..)
                if {
                    state.trace += 10;
                    n > y
                } =>
            {
                state.at = 2
            }
            n if n == y => state.at = 3,
            i32::MIN..=-100 => state.at = 4,
            n => state.at = n as i8,
        }
        match (Pair { left: x as i16, right: y as i16 }) {
            Pair { left: n @ 1..=9, right: _ } | Pair { left: _, right: n }
                if {
                    state.trace += 100;
                    n > 5
                } =>
            {
                state.pairs[0].left = n;
            }
            Pair { left: 0, right } | Pair { left: right, .. } => state.pairs[0].right = right,
        }
        state.flag = match state.tree {
            Tree::Leaf { value } if value == x => true,
            Tree::Fork { pair: Pair { left, .. }, .. } if left as i32 == x => false,
            Tree::Leaf { .. } => y > 0,
            _ => !state.flag,
        };
        if let Tree::Fork { weights, .. } = state.tree {
            state.trace += weights[2] as u64;
        }
    }

    fn loops(state: &mut State, from: u8, to: u8, stop: i8) {
        let mut rounds = 0u32;
        'outer: for i in from..=to {
            if i as i8 == stop {
                continue;
            }
            for j in i8::MAX - 2..=i8::MAX {
                match (i as i8) ^ j {
                    0 => break 'outer,
                    1..=20 => continue 'outer,
                    k if k == stop => break,
                    _ => rounds += 1,
                }
            }
            while {
                rounds += 1;
                rounds % 7 != 0
            } {
                if rounds > 2000 {
                    break 'outer;
                }
            }
        }
        let found = 'search: loop {
            let mut n = stop;
            loop {
                n = n.wrapping_add(1);
                if n % 13 == 0 {
                    break 'search n;
                }
                if n == i8::MAX {
                    break;
                }
            }
            if rounds > 5 {
                break -1;
            }
            rounds += 3;
        };
        for mut k in -3i64..3 {
            k *= 2;
            state.trace += k as u64;
        }
        for _ in 5u32..2 {
            state.trace = 0;
        }
        state.at = found;
        state.trace += rounds as u64;
    }

    fn edges(a: i64, b: i64, shift: i32) -> i64 {
        let narrow = a as i8;
        let product = (a as u16) * (b as u16);
        let mut sum = a / (b | 1) + a % (b | 1) + (a >> shift) + ((b as u64) >> shift) as i64 + (a << (b as u8));
        sum += (narrow / (b as i8 | 1)) as i64 + (-narrow) as i64 + narrow.abs() as i64 + (narrow << shift) as i64;
        sum ^= product as i64 * (a as i32).saturating_mul(b as i32) as i64;
        sum += a.saturating_mul(b) ^ a.saturating_add(b) ^ a.saturating_sub(b) ^ a.pow(shift as u32 & 7);
        sum += (a as u32).rotate_left(shift as u32) as i64 + (b as i16).rotate_right(shift as u32) as i64;
        sum ^= a.div_euclid(b | 1) + a.rem_euclid(b | 1) + LIMITS[shift & 3] as i64;
        sum ^= (a.leading_zeros() + (b as u8).leading_zeros() + (b as i16).trailing_zeros()) as i64;
        sum + (a == b) as i64 + quarter([1, 2, 3, 4], shift & 3) as i64
    }

    fn floats(state: &mut State, x: f64, y: f32, ctx: &mut Context) {
        state.double = x.mul_add(x, -x) + x * x - x % 0.7 + (y as f64).min(x).max(-1.5);
        state.single = (x as f32).round() / y + y.trunc() - y.floor() * y.ceil() + y.abs().sqrt();
        let whole = x as i64 ^ (y as u8) as i64 ^ (x as i8) as i64 ^ (y as u64) as i64;
        state.trace =
            state.trace.rotate_left(3) ^ whole as u64 ^ (-0.0f64).max(x).to_bits() ^ (x as u64) ^ (y as i32) as u64;
        state.flag = x < y as f64 || !(x >= y as f64) && y.is_finite();
        let same = f64::from_bits((x - x).to_bits());
        ctx.reply(Reply::Real { x: same / 0.0, y: -(y / y), bits: (whole as f32).to_bits() as u64 });
        ctx.reply(Reply::Number { value: (whole as f64) as i64 });
    }

    /// What is on the right of `&&` and `||` may fault, and then must not be reached.
    fn lazy(state: &mut State, index: i32, divisor: i32, ctx: &mut Context) {
        let inside = index >= 0 && index < 4 && state.pairs[index].left > 0;
        let quotient;
        if divisor == 0 || 100 / divisor > 3 {
            quotient = 1;
        } else {
            quotient = 1000 % divisor;
        }
        state.trace += quotient as u64;
        if inside || quotient > 500 {
            ctx.stop();
        }
        state.at = (quotient as i8).clamp(-5, index as i8);
        state.pairs[(100 / divisor) & 3].right += 1;
    }

    fn trees(state: &mut State, tree: Tree, mut pair: Pair, ctx: &mut Context) {
        pair.swap();
        let before = state.tree;
        state.tree = match tree {
            Tree::Fork { pair: Pair { left, right: 0..=99 }, weights } => Tree::Fork {
                weights: [weights[1], weights[2], weights[0]],
                pair: Pair { right: left, left: pair.sum() },
            },
            Tree::Leaf { value } => Tree::Leaf { value: value - tree.depth() as i32 },
            other => other,
        };
        state.grid = [[before.depth() as i32; 3], [1, pair.left as i32, 3]];
        ctx.reply(Reply::Whole { tree: before });
    }
}
