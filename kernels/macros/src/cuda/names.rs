//! What things are called in the C++: every user's name behind a prefix, so that none is a keyword, a macro or
//! a name of ours, and two things never share one.

use proc_macro2::Ident;

use crate::ir::{Float, Function, Int, Local, Module, Ty};
use crate::native::plain_name;

/// The name as C++ can have it: what is not ASCII is written out.
fn ascii(ident: &Ident) -> String {
    let mut text = String::new();
    for c in plain_name(ident).chars() {
        if c.is_ascii() { text.push(c) } else { text.push_str(&format!("_u{:x}_", c as u32)) }
    }
    text
}

pub fn namespace(module: &Ident) -> String {
    format!("rh_{}", ascii(module))
}

pub fn named_type(ident: &Ident) -> String {
    format!("T_{}", ascii(ident))
}

pub fn field(ident: &Ident) -> String {
    format!("m_{}", ascii(ident))
}

/// The member of the union, and with `tag_` the number.
pub fn variant(ident: &Ident) -> String {
    format!("v_{}", ascii(ident))
}

pub fn tag(ident: &Ident) -> String {
    format!("tag_{}", ascii(ident))
}

/// The function that makes a variant.
pub fn make(enumeration: usize, variant: &Ident) -> String {
    format!("make{enumeration}_{}", ascii(variant))
}

pub fn function(id: usize, ident: &Ident) -> String {
    format!("f{id}_{}", ascii(ident))
}

pub fn local(function: &Function, local: Local) -> String {
    format!("x{}_{}", local.0, ascii(&function.locals[local.0].ident))
}

pub fn ty(module: &Module, of: &Ty) -> String {
    match of {
        Ty::Unit | Ty::Never => "void".into(),
        Ty::Bool => "bool".into(),
        Ty::Int(int) => int_type(*int).into(),
        Ty::Float(Float::F32) => "float".into(),
        Ty::Float(Float::F64) => "double".into(),
        Ty::ActorId => "rh::ActorId".into(),
        Ty::Array(item, length) => format!("rh::Array<{}, {length}>", ty(module, item)),
        Ty::Struct(id) => named_type(&module.structs[*id].ident),
        Ty::Enum(id) => named_type(&module.enums[*id].ident),
        Ty::ForeignMessage(id) => foreign_message(module, *id),
    }
}

pub fn foreign_namespace(module: &Module, id: usize) -> String {
    let foreign = &module.foreign[id];
    namespace(foreign.path.segments.last().map_or(&foreign.ident, |segment| &segment.ident))
}

pub fn foreign_message(module: &Module, id: usize) -> String {
    format!("{}::T_Message", foreign_namespace(module, id))
}

pub fn int_type(int: Int) -> &'static str {
    match int {
        Int::I8 => "rh::i8",
        Int::I16 => "rh::i16",
        Int::I32 => "rh::i32",
        Int::I64 => "rh::i64",
        Int::U8 => "rh::u8",
        Int::U16 => "rh::u16",
        Int::U32 => "rh::u32",
        Int::U64 => "rh::u64",
    }
}

/// A literal of exactly that type.
pub fn int_literal(value: i128, int: Int) -> String {
    match int {
        Int::I8 | Int::I16 | Int::U8 | Int::U16 => format!("{}({value})", int_type(int)),
        Int::U32 => format!("{value}u"),
        Int::U64 => format!("{value}ull"),
        // C++ has no negative literals, so the smallest number has none.
        Int::I32 if value == i128::from(i32::MIN) => "(-2147483647 - 1)".into(),
        Int::I64 if value == i128::from(i64::MIN) => "(-9223372036854775807ll - 1)".into(),
        Int::I32 if value < 0 => format!("({value})"),
        Int::I64 if value < 0 => format!("({value}ll)"),
        Int::I32 => value.to_string(),
        Int::I64 => format!("{value}ll"),
    }
}

/// The bits, exactly, with what a person reads beside them.
pub fn float_literal(value: f64, float: Float) -> String {
    let bits = value.to_bits();
    if !value.is_finite() {
        return match float {
            Float::F32 => format!("rh::from_bits({:#x}u)", (value as f32).to_bits()),
            Float::F64 => format!("rh::from_bits({bits:#x}ull)"),
        };
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let suffix = if float == Float::F32 { "f" } else { "" };
    if value == 0.0 {
        return format!("({sign}0.0{suffix})");
    }
    let (exponent, mantissa) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
    let (lead, exponent) = if exponent == 0 { (0, -1022) } else { (1, exponent - 1023) };
    let digits = format!("{mantissa:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("({sign}0x{lead}{point}{digits}p{exponent:+}{suffix} /* {value:?} */)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_literal_is_exact() {
        assert_eq!(float_literal(1.5, Float::F64), "(0x1.8p+0 /* 1.5 */)");
        assert_eq!(float_literal(-0.0, Float::F32), "(-0.0f)");
        assert_eq!(float_literal(f64::from(0.1f32), Float::F32), "(0x1.99999ap-4f /* 0.10000000149011612 */)");
        assert_eq!(float_literal(5e-324, Float::F64), "(0x0.0000000000001p-1022 /* 5e-324 */)");
        assert_eq!(float_literal(f64::INFINITY, Float::F32), "rh::from_bits(0x7f800000u)");
    }
}
