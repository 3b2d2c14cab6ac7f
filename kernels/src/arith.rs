//! Arithmetic with the same bits on every device.
//!
//! What the code made by `#[ringhold::actor]` calls where Rust's own operators would panic, differ between
//! debug and release, or leave a bit open. `kernels/cuda/arith.cuh` is the same for the other target; a
//! change here is a change there, and the differential tests compare the two.

use crate::actor::{Fault, FaultKind};

/// The integers of the subset.
pub trait Integer: Copy + Ord {
    const ZERO: Self;
    /// The value as an index: what is negative becomes larger than any array.
    fn as_index(self) -> u64;
    fn wrapping_div(self, divisor: Self) -> Self;
    fn wrapping_rem(self, divisor: Self) -> Self;
    fn wrapping_div_euclid(self, divisor: Self) -> Self;
    fn wrapping_rem_euclid(self, divisor: Self) -> Self;
}

macro_rules! integer {
    ($($type:ident via $wide:ident),*) => {$(
        impl Integer for $type {
            const ZERO: $type = 0;
            #[inline(always)]
            fn as_index(self) -> u64 {
                self as $wide as u64
            }
            #[inline(always)]
            fn wrapping_div(self, divisor: $type) -> $type {
                $type::wrapping_div(self, divisor)
            }
            #[inline(always)]
            fn wrapping_rem(self, divisor: $type) -> $type {
                $type::wrapping_rem(self, divisor)
            }
            #[inline(always)]
            fn wrapping_div_euclid(self, divisor: $type) -> $type {
                $type::wrapping_div_euclid(self, divisor)
            }
            #[inline(always)]
            fn wrapping_rem_euclid(self, divisor: $type) -> $type {
                $type::wrapping_rem_euclid(self, divisor)
            }
        }
    )*};
}
integer!(i8 via i64, i16 via i64, i32 via i64, i64 via i64, u8 via u64, u16 via u64, u32 via u64, u64 via u64);

/// `index` as a place in an array of `length`.
#[inline(always)]
pub fn index<I: Integer>(index: I, length: u32, line: u32) -> Result<usize, Fault> {
    let wide = index.as_index();
    if wide < u64::from(length) { Ok(wide as usize) } else { Err(Fault { kind: FaultKind::IndexOutOfBounds, line }) }
}

#[inline(always)]
fn divisor<I: Integer>(divisor: I, line: u32) -> Result<I, Fault> {
    if divisor == I::ZERO { Err(Fault { kind: FaultKind::DivisionByZero, line }) } else { Ok(divisor) }
}

/// `a / b`; `MIN / -1` is `MIN`.
#[inline(always)]
pub fn div<I: Integer>(a: I, b: I, line: u32) -> Result<I, Fault> {
    divisor(b, line).map(|b| a.wrapping_div(b))
}

/// `a % b`; `MIN % -1` is 0.
#[inline(always)]
pub fn rem<I: Integer>(a: I, b: I, line: u32) -> Result<I, Fault> {
    divisor(b, line).map(|b| a.wrapping_rem(b))
}

/// The quotient whose remainder is not negative.
#[inline(always)]
pub fn div_euclid<I: Integer>(a: I, b: I, line: u32) -> Result<I, Fault> {
    divisor(b, line).map(|b| a.wrapping_div_euclid(b))
}

/// The remainder that is not negative.
#[inline(always)]
pub fn rem_euclid<I: Integer>(a: I, b: I, line: u32) -> Result<I, Fault> {
    divisor(b, line).map(|b| a.wrapping_rem_euclid(b))
}

/// What `clamp` takes: integers, and floats that are compared by IEEE (a NaN stays one).
pub trait Clamp: Copy + PartialOrd {}
macro_rules! clamp {
    ($($type:ident)*) => {$(impl Clamp for $type {})*};
}
clamp!(i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);

/// `value` moved into `low..=high`; a fault if there is nothing in between.
#[inline(always)]
pub fn clamp<T: Clamp>(value: T, low: T, high: T, line: u32) -> Result<T, Fault> {
    if low <= high {
        Ok(clamp_ordered(value, low, high))
    } else {
        // Also where a bound is NaN, which compares with nothing.
        Err(Fault { kind: FaultKind::ClampBounds, line })
    }
}

/// The same with `low <= high` known.
#[inline(always)]
pub fn clamp_ordered<T: Clamp>(value: T, low: T, high: T) -> T {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// The floats of the subset.
pub trait Float: Copy + PartialOrd {
    type Bits;
    /// The bits, those of every NaN alike.
    fn canonical_bits(self) -> Self::Bits;
    /// The smaller one; a NaN loses to a number, and -0.0 is below 0.0.
    fn least(self, other: Self) -> Self;
    /// The larger one; a NaN loses to a number, and 0.0 is above -0.0.
    fn greatest(self, other: Self) -> Self;
}

macro_rules! float {
    ($($type:ident $bits:ident $nan:literal),*) => {$(
        impl Float for $type {
            type Bits = $bits;
            #[inline(always)]
            fn canonical_bits(self) -> $bits {
                if self.is_nan() { $nan } else { self.to_bits() }
            }
            #[inline(always)]
            fn least(self, other: $type) -> $type {
                if self < other || other.is_nan() || (self == other && self.is_sign_negative()) { self } else { other }
            }
            #[inline(always)]
            fn greatest(self, other: $type) -> $type {
                if self > other || other.is_nan() || (self == other && self.is_sign_positive()) { self } else { other }
            }
        }
    )*};
}
float!(f32 u32 0x7fc0_0000, f64 u64 0x7ff8_0000_0000_0000);

/// Whether two texts are the same, where only constants may be asked.
pub const fn same_text(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_value_is_a_fault_with_its_line() {
        let fault = |kind| Fault { kind, line: 7 };
        assert_eq!(div(1, 0, 7), Err(fault(FaultKind::DivisionByZero)));
        assert_eq!(rem_euclid(1u8, 0, 7), Err(fault(FaultKind::DivisionByZero)));
        assert_eq!(div(i64::MIN, -1, 7), Ok(i64::MIN));
        assert_eq!(rem(i64::MIN, -1, 7), Ok(0));
        assert_eq!(index(-1i8, 4, 7), Err(fault(FaultKind::IndexOutOfBounds)));
        assert_eq!(index(4u64, 4, 7), Err(fault(FaultKind::IndexOutOfBounds)));
        assert_eq!(index(3i16, 4, 7), Ok(3));
        assert_eq!(clamp(1.0, f64::NAN, 2.0, 7), Err(fault(FaultKind::ClampBounds)));
        assert_eq!(clamp(5, 3, 2, 7), Err(fault(FaultKind::ClampBounds)));
        assert_eq!(clamp(5, 1, 3, 7), Ok(3));
    }

    #[test]
    fn least_and_greatest_know_zeros_and_nans() {
        for (a, b) in [(-0.0f64, 0.0), (0.0, -0.0)] {
            assert!(a.least(b).is_sign_negative());
            assert!(a.greatest(b).is_sign_positive());
        }
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            assert_eq!((a.least(b), a.greatest(b)), (1.0, 1.0));
        }
        assert!(f32::NAN.least(f32::NAN).is_nan());
        assert_eq!((-f64::NAN).canonical_bits(), 0x7ff8_0000_0000_0000);
    }

    #[test]
    fn texts_are_the_same_or_not() {
        assert!(same_text("airport", "airport"));
        assert!(!same_text("airport", "airpors") && !same_text("airport", "air"));
    }
}
