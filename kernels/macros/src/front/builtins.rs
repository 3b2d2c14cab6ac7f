//! The methods and constants of numbers.

use super::consts::Value;
use super::infer::{Kind, Type, bits, float_named, int_named, is_signed, limits, unsigned};
use crate::ir::{Builtin, Float, Int, Ty};

/// A method of a number: what it becomes, what it takes besides its receiver, and what it gives.
pub struct Method {
    pub builtin: Builtin,
    pub arguments: Vec<Type>,
    pub result: Type,
}

/// Looks up a method for a receiver whose type is final.
pub fn method(name: &str, receiver: &Type) -> Option<Method> {
    let same = || receiver.clone();
    let u32 = || Type::Int(Int::U32);
    let found = |builtin, arguments, result| Some(Method { builtin, arguments, result });
    if let Some((builtin, arguments)) = of_any_number(name) {
        return found(builtin, vec![same(); arguments], same());
    }
    match receiver {
        Type::Int(int) => {
            if let Some(builtin) = of_two_integers(name) {
                return found(builtin, vec![same()], same());
            }
            if let Some(builtin) = counted(name) {
                return found(builtin, vec![u32()], same());
            }
            if let Some((builtin, gives)) = of_integer(name, is_signed(*int)) {
                let result = match gives {
                    Gives::Same => same(),
                    Gives::U32 => u32(),
                    Gives::Bool => Type::Bool,
                    Gives::Unsigned => Type::Int(unsigned(*int)),
                };
                let arguments = if builtin == Builtin::AbsDiff { vec![same()] } else { Vec::new() };
                return found(builtin, arguments, result);
            }
            None
        }
        Type::Float(float) => {
            let (builtin, arguments) = of_float(name)?;
            let result = match builtin {
                Builtin::IsNan | Builtin::IsFinite | Builtin::IsInfinite => Type::Bool,
                Builtin::ToBits => bits_type(*float),
                _ => same(),
            };
            found(builtin, vec![same(); arguments], result)
        }
        _ => None,
    }
}

/// The integer that holds a float's bits.
pub fn bits_type(float: Float) -> Type {
    match float {
        Float::F32 => Type::Int(Int::U32),
        Float::F64 => Type::Int(Int::U64),
    }
}

enum Gives {
    Same,
    U32,
    Bool,
    Unsigned,
}

fn of_any_number(name: &str) -> Option<(Builtin, usize)> {
    Some(match name {
        "min" => (Builtin::Min, 1),
        "max" => (Builtin::Max, 1),
        "clamp" => (Builtin::Clamp, 2),
        _ => return None,
    })
}

fn of_two_integers(name: &str) -> Option<Builtin> {
    Some(match name {
        "wrapping_add" => Builtin::WrappingAdd,
        "wrapping_sub" => Builtin::WrappingSub,
        "wrapping_mul" => Builtin::WrappingMul,
        "saturating_add" => Builtin::SaturatingAdd,
        "saturating_sub" => Builtin::SaturatingSub,
        "saturating_mul" => Builtin::SaturatingMul,
        "div_euclid" => Builtin::DivEuclid,
        "rem_euclid" => Builtin::RemEuclid,
        _ => return None,
    })
}

fn counted(name: &str) -> Option<Builtin> {
    Some(match name {
        "wrapping_shl" => Builtin::WrappingShl,
        "wrapping_shr" => Builtin::WrappingShr,
        // Arithmetic wraps on every device, so that the two are one.
        "pow" | "wrapping_pow" => Builtin::Pow,
        "rotate_left" => Builtin::RotateLeft,
        "rotate_right" => Builtin::RotateRight,
        _ => return None,
    })
}

fn of_integer(name: &str, signed: bool) -> Option<(Builtin, Gives)> {
    Some(match (name, signed) {
        ("wrapping_neg", _) => (Builtin::WrappingNeg, Gives::Same),
        ("leading_zeros", _) => (Builtin::LeadingZeros, Gives::U32),
        ("trailing_zeros", _) => (Builtin::TrailingZeros, Gives::U32),
        ("count_ones", _) => (Builtin::CountOnes, Gives::U32),
        ("count_zeros", _) => (Builtin::CountZeros, Gives::U32),
        ("swap_bytes", _) => (Builtin::SwapBytes, Gives::Same),
        ("reverse_bits", _) => (Builtin::ReverseBits, Gives::Same),
        ("abs_diff", _) => (Builtin::AbsDiff, Gives::Unsigned),
        ("unsigned_abs", true) => (Builtin::UnsignedAbs, Gives::Unsigned),
        ("abs" | "wrapping_abs", true) => (Builtin::Abs, Gives::Same),
        ("signum", true) => (Builtin::Signum, Gives::Same),
        ("is_positive", true) => (Builtin::IsPositive, Gives::Bool),
        ("is_negative", true) => (Builtin::IsNegative, Gives::Bool),
        ("is_power_of_two", false) => (Builtin::IsPowerOfTwo, Gives::Bool),
        _ => return None,
    })
}

fn of_float(name: &str) -> Option<(Builtin, usize)> {
    Some(match name {
        "abs" => (Builtin::FloatAbs, 0),
        "sqrt" => (Builtin::Sqrt, 0),
        "floor" => (Builtin::Floor, 0),
        "ceil" => (Builtin::Ceil, 0),
        "trunc" => (Builtin::Trunc, 0),
        "round" => (Builtin::Round, 0),
        "mul_add" => (Builtin::MulAdd, 2),
        "is_nan" => (Builtin::IsNan, 0),
        "is_finite" => (Builtin::IsFinite, 0),
        "is_infinite" => (Builtin::IsInfinite, 0),
        "to_bits" => (Builtin::ToBits, 0),
        _ => return None,
    })
}

/// The methods there are for a kind of number, for a message.
pub fn method_names(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => {
            "`min`, `max`, `clamp`, `pow`, `abs_diff`, `div_euclid`, `rem_euclid`, `wrapping_add` and the like, \
             `saturating_add` and the like, `rotate_left`, `leading_zeros`, `count_ones`; signed: `abs`, `signum`, \
             `is_negative`, `unsigned_abs`; unsigned: `is_power_of_two`"
        }
        _ => {
            "`min`, `max`, `clamp`, `abs`, `sqrt`, `floor`, `ceil`, `trunc`, `round`, `mul_add`, `is_nan`, \
             `is_finite`, `is_infinite`, `to_bits`"
        }
    }
}

/// `u32::MAX` and its like.
pub fn constant(ty: &str, name: &str) -> Option<(Ty, Value)> {
    if let Some(int) = int_named(ty) {
        let (low, high) = limits(int);
        return Some(match name {
            "MIN" => (Ty::Int(int), Value::Int(low)),
            "MAX" => (Ty::Int(int), Value::Int(high)),
            "BITS" => (Ty::Int(Int::U32), Value::Int(i128::from(bits(int)))),
            _ => return None,
        });
    }
    let float = float_named(ty)?;
    let pick = |single: f32, double: f64| match float {
        Float::F32 => f64::from(single),
        Float::F64 => double,
    };
    let value = match name {
        "MIN" => pick(f32::MIN, f64::MIN),
        "MAX" => pick(f32::MAX, f64::MAX),
        "EPSILON" => pick(f32::EPSILON, f64::EPSILON),
        "MIN_POSITIVE" => pick(f32::MIN_POSITIVE, f64::MIN_POSITIVE),
        "INFINITY" => f64::INFINITY,
        "NEG_INFINITY" => f64::NEG_INFINITY,
        "NAN" => f64::NAN,
        _ => return None,
    };
    Some((Ty::Float(float), Value::Float(value)))
}

/// `std::f64::consts::PI` and its like.
pub fn math_constant(ty: &str, name: &str) -> Option<(Ty, Value)> {
    use std::f64::consts as double;
    let float = float_named(ty)?;
    let value = match name {
        "PI" => double::PI,
        "TAU" => double::TAU,
        "E" => double::E,
        "SQRT_2" => double::SQRT_2,
        "LN_2" => double::LN_2,
        "LN_10" => double::LN_10,
        "FRAC_PI_2" => double::FRAC_PI_2,
        "FRAC_PI_3" => double::FRAC_PI_3,
        "FRAC_PI_4" => double::FRAC_PI_4,
        "FRAC_PI_6" => double::FRAC_PI_6,
        "FRAC_PI_8" => double::FRAC_PI_8,
        "FRAC_1_PI" => double::FRAC_1_PI,
        "FRAC_2_PI" => double::FRAC_2_PI,
        "FRAC_1_SQRT_2" => double::FRAC_1_SQRT_2,
        _ => return None,
    };
    let value = if float == Float::F32 { f64::from(value as f32) } else { value };
    Some((Ty::Float(float), Value::Float(value)))
}
