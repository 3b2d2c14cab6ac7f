//! Types while they are being inferred, and what makes two of them one.
//!
//! Inference is by unification within one function body, as in Rust: a literal without a suffix has a
//! variable for a type until something fixes it; what nothing fixes becomes `i32` or `f64`.

use crate::ir::{Float, Int, Ty};

/// A type that may still be unknown.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Unit,
    Never,
    Bool,
    Int(Int),
    Float(Float),
    ActorId,
    Array(Box<Type>, u32),
    Struct(usize),
    Enum(usize),
    Foreign(usize),
    Var(usize),
    /// An error was reported where this type came from: it goes with everything, in silence.
    Error,
}

impl From<&Ty> for Type {
    fn from(ty: &Ty) -> Type {
        match ty {
            Ty::Unit => Type::Unit,
            Ty::Never => Type::Never,
            Ty::Bool => Type::Bool,
            Ty::Int(int) => Type::Int(*int),
            Ty::Float(float) => Type::Float(*float),
            Ty::ActorId => Type::ActorId,
            Ty::Array(item, length) => Type::Array(Box::new(Type::from(&**item)), *length),
            Ty::Struct(id) => Type::Struct(*id),
            Ty::Enum(id) => Type::Enum(*id),
            Ty::ForeignMessage(id) => Type::Foreign(*id),
        }
    }
}

impl Type {
    /// The type of a field, whose `Unit` stands for a type that was refused.
    pub fn of_field(ty: &Ty) -> Type {
        if *ty == Ty::Unit { Type::Error } else { Type::from(ty) }
    }
}

#[derive(Clone, Debug)]
enum Slot {
    Any,
    Integer,
    Float,
    Bound(Type),
}

/// What is known of one type, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Float,
    Other,
    Unknown,
}

/// The type variables of one function.
#[derive(Default)]
pub struct Vars {
    slots: Vec<Slot>,
}

impl Vars {
    pub fn any(&mut self) -> Type {
        self.fresh(Slot::Any)
    }

    pub fn integer(&mut self) -> Type {
        self.fresh(Slot::Integer)
    }

    pub fn float(&mut self) -> Type {
        self.fresh(Slot::Float)
    }

    fn fresh(&mut self, slot: Slot) -> Type {
        self.slots.push(slot);
        Type::Var(self.slots.len() - 1)
    }

    /// The type with what is known of its outermost layer.
    pub fn shallow(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Type::Var(var) = ty {
            match &self.slots[*var] {
                Slot::Bound(known) => ty = known,
                _ => break,
            }
        }
        ty.clone()
    }

    /// Whether it is a number, and of which sort.
    pub fn kind(&self, ty: &Type) -> Kind {
        match self.shallow(ty) {
            Type::Int(_) => Kind::Integer,
            Type::Float(_) => Kind::Float,
            Type::Var(var) => match self.slots[var] {
                Slot::Integer => Kind::Integer,
                Slot::Float => Kind::Float,
                _ => Kind::Unknown,
            },
            _ => Kind::Other,
        }
    }

    /// Makes the two types one; `false`, with nothing changed at the top, where they cannot be.
    pub fn unify(&mut self, a: &Type, b: &Type) -> bool {
        match (self.shallow(a), self.shallow(b)) {
            (Type::Error, _) | (_, Type::Error) => true,
            (Type::Var(a), Type::Var(b)) => a == b || self.join(a, b),
            (Type::Var(var), ty) | (ty, Type::Var(var)) => self.bind(var, ty),
            (Type::Array(a, n), Type::Array(b, m)) => n == m && self.unify(&a, &b),
            (a, b) => a == b,
        }
    }

    fn join(&mut self, a: usize, b: usize) -> bool {
        match (&self.slots[a], &self.slots[b]) {
            (Slot::Integer, Slot::Float) | (Slot::Float, Slot::Integer) => return false,
            (Slot::Any, _) => self.slots[a] = Slot::Bound(Type::Var(b)),
            _ => self.slots[b] = Slot::Bound(Type::Var(a)),
        }
        true
    }

    fn bind(&mut self, var: usize, ty: Type) -> bool {
        let fits = match self.slots[var] {
            Slot::Integer => matches!(ty, Type::Int(_)),
            Slot::Float => matches!(ty, Type::Float(_)),
            _ => !self.occurs(var, &ty),
        };
        if fits {
            self.slots[var] = Slot::Bound(ty);
        }
        fits
    }

    fn occurs(&self, var: usize, ty: &Type) -> bool {
        match self.shallow(ty) {
            Type::Var(other) => var == other,
            Type::Array(item, _) => self.occurs(var, &item),
            _ => false,
        }
    }

    /// Whether it is still an integer of unknown width or a float of unknown width.
    pub fn is_open_number(&self, ty: &Type) -> bool {
        match self.shallow(ty) {
            Type::Var(var) => !matches!(self.slots[var], Slot::Any),
            Type::Array(item, _) => self.is_open_number(&item),
            _ => false,
        }
    }

    /// The final type: open integers are `i32`, open floats `f64`. `Err(true)` where nothing fixed it,
    /// `Err(false)` where an error was reported before.
    pub fn settle(&self, ty: &Type) -> Result<Ty, bool> {
        Ok(match self.shallow(ty) {
            Type::Unit => Ty::Unit,
            Type::Never => Ty::Never,
            Type::Bool => Ty::Bool,
            Type::Int(int) => Ty::Int(int),
            Type::Float(float) => Ty::Float(float),
            Type::ActorId => Ty::ActorId,
            Type::Array(item, length) => Ty::Array(Box::new(self.settle(&item)?), length),
            Type::Struct(id) => Ty::Struct(id),
            Type::Enum(id) => Ty::Enum(id),
            Type::Foreign(id) => Ty::ForeignMessage(id),
            Type::Var(var) => match self.slots[var] {
                Slot::Integer => Ty::Int(Int::I32),
                Slot::Float => Ty::Float(Float::F64),
                _ => return Err(true),
            },
            Type::Error => return Err(false),
        })
    }
}

pub fn int_named(name: &str) -> Option<Int> {
    Some(match name {
        "i8" => Int::I8,
        "i16" => Int::I16,
        "i32" => Int::I32,
        "i64" => Int::I64,
        "u8" => Int::U8,
        "u16" => Int::U16,
        "u32" => Int::U32,
        "u64" => Int::U64,
        _ => return None,
    })
}

pub fn float_named(name: &str) -> Option<Float> {
    match name {
        "f32" => Some(Float::F32),
        "f64" => Some(Float::F64),
        _ => None,
    }
}

/// The type that a primitive name stands for.
pub fn primitive_named(name: &str) -> Option<Type> {
    let int = || int_named(name).map(Type::Int);
    let float = || float_named(name).map(Type::Float);
    int().or_else(float).or_else(|| (name == "bool").then_some(Type::Bool))
}

pub fn int_name(int: Int) -> &'static str {
    match int {
        Int::I8 => "i8",
        Int::I16 => "i16",
        Int::I32 => "i32",
        Int::I64 => "i64",
        Int::U8 => "u8",
        Int::U16 => "u16",
        Int::U32 => "u32",
        Int::U64 => "u64",
    }
}

pub fn float_name(float: Float) -> &'static str {
    match float {
        Float::F32 => "f32",
        Float::F64 => "f64",
    }
}

pub fn bits(int: Int) -> u32 {
    match int {
        Int::I8 | Int::U8 => 8,
        Int::I16 | Int::U16 => 16,
        Int::I32 | Int::U32 => 32,
        Int::I64 | Int::U64 => 64,
    }
}

pub fn is_signed(int: Int) -> bool {
    matches!(int, Int::I8 | Int::I16 | Int::I32 | Int::I64)
}

/// The smallest and the largest value.
pub fn limits(int: Int) -> (i128, i128) {
    let bits = bits(int);
    if is_signed(int) { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

pub fn unsigned(int: Int) -> Int {
    match bits(int) {
        8 => Int::U8,
        16 => Int::U16,
        32 => Int::U32,
        _ => Int::U64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_integer_takes_the_type_it_meets_and_i32_when_it_meets_none() {
        let mut vars = Vars::default();
        let (a, b) = (vars.integer(), vars.integer());
        assert_eq!(vars.settle(&a), Ok(Ty::Int(Int::I32)));
        assert!(vars.unify(&a, &b));
        assert!(vars.unify(&b, &Type::Int(Int::U8)));
        assert_eq!(vars.settle(&a), Ok(Ty::Int(Int::U8)));
        assert!(!vars.unify(&a, &Type::Int(Int::U16)));
        assert!(!vars.unify(&a, &Type::Bool));
    }

    #[test]
    fn integers_and_floats_never_become_one() {
        let mut vars = Vars::default();
        let (integer, float) = (vars.integer(), vars.float());
        assert!(!vars.unify(&integer, &float));
        assert!(!vars.unify(&integer, &Type::Float(Float::F32)));
        assert_eq!(vars.settle(&float), Ok(Ty::Float(Float::F64)));
    }

    #[test]
    fn arrays_are_one_when_their_items_and_lengths_are() {
        let mut vars = Vars::default();
        let item = vars.integer();
        let array = Type::Array(Box::new(item.clone()), 4);
        assert!(!vars.unify(&array, &Type::Array(Box::new(Type::Int(Int::U8)), 5)));
        assert!(vars.unify(&array, &Type::Array(Box::new(Type::Int(Int::U8)), 4)));
        assert_eq!(vars.settle(&item), Ok(Ty::Int(Int::U8)));
    }

    #[test]
    fn a_type_is_never_part_of_itself() {
        let mut vars = Vars::default();
        let any = vars.any();
        assert!(!vars.unify(&any, &Type::Array(Box::new(any.clone()), 2)));
        assert_eq!(vars.settle(&any), Err(true));
    }

    #[test]
    fn limits_are_those_of_two_s_complement() {
        assert_eq!(limits(Int::I8), (-128, 127));
        assert_eq!(limits(Int::U64), (0, u64::MAX as i128));
        assert_eq!(limits(Int::I64), (i64::MIN as i128, i64::MAX as i128));
    }
}
