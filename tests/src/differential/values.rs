//! Random values of any type, as bytes; more often than not at the edges, where things go wrong.

use ringhold_kernels::id::TypeId;
use ringhold_kernels::schema::{Field, Type};

use super::random::Random;

/// A random value of the type, as `Plain::write` would write it. Ids are of `types`, or of none.
pub fn value(ty: &Type, types: &[TypeId], random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; ty.size()];
    fill(ty, types, random, &mut bytes);
    bytes
}

fn fill(ty: &Type, types: &[TypeId], random: &mut Random, to: &mut [u8]) {
    match ty {
        Type::Bool => to[0] = random.chance(50) as u8,
        Type::U8 | Type::I8 => put(to, integer(8, random), 1),
        Type::U16 | Type::I16 => put(to, integer(16, random), 2),
        Type::U32 | Type::I32 => put(to, integer(32, random), 4),
        Type::U64 | Type::I64 => put(to, integer(64, random), 8),
        Type::F32 => put(to, u64::from(single(random)), 4),
        Type::F64 => put(to, double(random), 8),
        Type::ActorId => {
            put(to, integer(64, random), 8);
            let type_id = if random.chance(10) { TypeId::CLIENT } else { *random.pick(types) };
            put(&mut to[8..], u64::from(type_id.0), 4);
        }
        Type::Array(item, length) => {
            for i in 0..*length as usize {
                fill(item, types, random, &mut to[i * item.size()..][..item.size()]);
            }
        }
        Type::Struct(of) => fill_fields(&of.fields, types, random, to),
        Type::Enum(of) => {
            let tag = random.below(of.variants.len());
            put(to, tag as u64, 4);
            fill_fields(&of.variants[tag].fields, types, random, to);
        }
    }
}

fn fill_fields(fields: &[Field], types: &[TypeId], random: &mut Random, to: &mut [u8]) {
    for field in fields {
        let at = field.offset as usize;
        fill(&field.ty, types, random, &mut to[at..at + field.ty.size()]);
    }
}

fn put(to: &mut [u8], value: u64, size: usize) {
    to[..size].copy_from_slice(&value.to_le_bytes()[..size]);
}

fn integer(bits: u32, random: &mut Random) -> u64 {
    let power = 1u64 << random.below(bits as usize);
    match random.below(8) {
        0 => 0,
        1 => (random.below(16) as u64).wrapping_neg(),
        2 => power,
        3 => power.wrapping_sub(1),
        4 => power.wrapping_neg(),
        5 => random.bits(),
        _ => random.below(20) as u64,
    }
}

/// The bits of an f32. A NaN has its one pattern: what else a message holds is made so before a handler sees it.
fn single(random: &mut Random) -> u32 {
    const EDGES: [f32; 14] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.5,
        -3.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        2_147_483_648.0,
        -9_223_372_036_854_775_808.0,
        18_446_744_073_709_551_616.0,
    ];
    let value = match random.below(6) {
        0 => f32::NAN,
        1 => f32::from_bits(random.below(1 << 23) as u32),
        2 => f32::from_bits(random.bits() as u32),
        3 => random.below(2000) as f32 / 8.0 - 100.0,
        _ => *random.pick(&EDGES),
    };
    if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }
}

fn double(random: &mut Random) -> u64 {
    const EDGES: [f64; 15] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.5,
        -3.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
        2_147_483_647.5,
        -9_223_372_036_854_775_808.0,
        18_446_744_073_709_551_616.0,
        1e-310,
    ];
    let value = match random.below(6) {
        0 => f64::NAN,
        1 => f64::from_bits(random.bits() >> 12),
        2 => f64::from_bits(random.bits()),
        3 => random.below(2000) as f64 / 8.0 - 100.0,
        _ => *random.pick(&EDGES),
    };
    if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() }
}
