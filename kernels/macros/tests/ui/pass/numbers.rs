//! Every operator, cast, literal and method of numbers.

#[ringhold::actor(name = "test.numbers")]
pub mod numbers {
    pub struct State {
        pub signed: [i64; 4],
        pub unsigned: [u64; 4],
        pub single: f32,
        pub double: f64,
        pub flag: bool,
        pub level: Level,
    }

    pub enum Message {
        Run { a: i32, b: u8, c: f32 },
    }

    pub enum Level {
        Low,
        High,
    }

    const MASK: u32 = 0xff << SHIFT;
    const SHIFT: u32 = 8;
    const SCALE: f64 = 1.5 * std::f64::consts::PI;
    const ON: bool = SHIFT == 8 && !(MASK < 1);
    const SMALLEST: i8 = -128;
    const BYTES: [u8; SHIFT / 2] = [b'r', b'i', b'n', b'g'];
    const KILO: u32 = 10u32.pow(3);
    const FIRST: u8 = BYTES[0];

    fn integers(state: &mut State, a: i32, b: u8) {
        let x = a as i64;
        state.signed[0] = x + 1 - 2 * 3 / 4 % 5;
        state.signed[1] = (x << 3u8) >> (b & 7);
        state.signed[2] = -x ^ !x | 0x7f & 0o17;
        state.signed[3] += i64::MIN;
        state.signed[3] -= SMALLEST as i64;
        state.signed[3] *= -1;
        state.signed[3] /= 3;
        state.signed[3] %= 7;
        state.signed[3] <<= 2;
        state.signed[3] >>= 1u64;
        state.unsigned[0] |= (MASK as u64).wrapping_shl(3);
        state.unsigned[0] &= u64::MAX - 1;
        state.unsigned[0] ^= 1_000;
        state.unsigned[1] = a.unsigned_abs() as u64 + a.abs_diff(5) as u64;
        state.unsigned[2] = (a.leading_zeros() + b.count_ones() + u8::BITS) as u64;
        state.unsigned[3] = b.rotate_left(3).swap_bytes().reverse_bits() as u64;
        let y = a.wrapping_add(1).wrapping_sub(2).wrapping_mul(3).wrapping_neg();
        let z = y.saturating_add(1).saturating_sub(2).saturating_mul(3).clamp(-5, 5).min(3).max(a);
        let w = z.pow(2).abs().signum().div_euclid(3).rem_euclid(2);
        state.flag = w.is_positive() || w.is_negative() || b.is_power_of_two() || a >= 5 && b != FIRST;
        state.flag &= true;
        state.flag = state.flag ^ ON;
    }

    fn floats(state: &mut State, c: f32) {
        let half = 0.5;
        state.single = c * half + 1.0 - 2.5e3 / 3.0 % 1.5;
        state.double = state.single as f64 * SCALE + -1.0;
        state.double += f64::EPSILON.sqrt().floor().ceil().trunc().round().abs();
        state.double = state.double.mul_add(2.0, 1.0).min(f64::MAX).max(f64::MIN).clamp(0.0, 1e9);
        state.flag = state.double.is_nan() || state.double.is_finite() || c.is_infinite() || c < half;
        state.unsigned[0] = state.double.to_bits() ^ (c.to_bits() as u64);
        state.double = f64::from_bits(state.unsigned[0]);
        state.single = f32::from_bits(KILO);
        state.signed[0] = state.double as i64 + c as i64 + state.flag as i64 + state.level as i64;
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Run { a, b, c } => {
                integers(state, a, b);
                floats(state, c);
                state.level = if state.level == Level::Low { Level::High } else { Level::Low };
            }
        }
    }
}

fn main() {}
