//! Constants: checked like any expression, then folded to a value before anything uses them.
//!
//! Here, and only here, arithmetic that overflows is an error, as it is in a `const` of Rust.

use std::cell::RefCell;
use std::collections::HashMap;

use proc_macro2::{Ident, Span};
use syn::ItemConst;

use super::body::Checker;
use super::errors::{At, Errors};
use super::infer::{Type, bits, is_signed, limits};
use super::world::World;
use crate::ir::{BinOp, Block, Builtin, Expr, ExprKind, Float, Int, Local, Place, Projection, Statement, Ty, UnOp};

/// The value of a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i128),
    Float(f64),
    Array(Vec<Value>),
}

impl Value {
    /// The literal for this value.
    pub fn literal(&self, ty: &Ty, span: Span) -> Expr {
        let kind = match (self, ty) {
            (Value::Bool(value), _) => ExprKind::Bool(*value),
            (Value::Int(value), _) => ExprKind::Int(*value),
            (Value::Float(value), _) => ExprKind::Float(*value),
            (Value::Array(items), Ty::Array(item, _)) => {
                ExprKind::Array(items.iter().map(|value| value.literal(item, span)).collect())
            }
            (Value::Array(_), _) => unreachable!("an array has an array's type"),
        };
        Expr { ty: ty.clone(), span, kind }
    }
}

/// The module's constants, evaluated when first used, so that their order does not matter.
pub struct Consts<'a> {
    entries: RefCell<HashMap<String, Entry<'a>>>,
}

#[derive(Clone)]
enum Entry<'a> {
    Waiting(&'a ItemConst),
    Evaluating,
    Known(Ty, Value),
    /// Its error was reported.
    Broken,
}

impl<'a> Consts<'a> {
    pub fn new(items: &[&'a ItemConst]) -> Consts<'a> {
        let entries = items.iter().map(|item| (item.ident.to_string(), Entry::Waiting(item))).collect();
        Consts { entries: RefCell::new(entries) }
    }

    pub fn contains(&self, name: &Ident) -> bool {
        self.entries.borrow().contains_key(&name.to_string())
    }
}

impl World<'_> {
    /// The type and value of a constant; `None` where an error was reported for it.
    pub fn constant(&self, used: &Ident) -> Option<(Ty, Value)> {
        let name = used.to_string();
        let entry = self.consts.entries.borrow().get(&name).cloned();
        let item = match entry {
            Some(Entry::Waiting(item)) => item,
            Some(Entry::Known(ty, value)) => return Some((ty, value)),
            Some(Entry::Evaluating) => {
                self.errors.at(used, format!("the constant `{name}` is computed from itself: write its value"));
                return None;
            }
            Some(Entry::Broken) | None => return None,
        };
        self.consts.entries.borrow_mut().insert(name.clone(), Entry::Evaluating);
        let known = self.evaluate(item);
        let entry = known.clone().map_or(Entry::Broken, |(ty, value)| Entry::Known(ty, value));
        self.consts.entries.borrow_mut().insert(name, entry);
        known
    }

    fn evaluate(&self, item: &ItemConst) -> Option<(Ty, Value)> {
        let ty = self.ty(&item.ty, None);
        if !is_constant_type(&ty) {
            self.errors.at(
                &item.ty,
                "a constant is a number, a `bool` or an array of them: write a function that gives the value",
            );
            return None;
        }
        let value = Checker::constant(self, &item.expr, &ty)?;
        Some((value.ty.clone(), Evaluator::new(self.errors).expr(&value)?))
    }

    /// An array's length, from any integer constant.
    pub fn length(&self, e: &syn::Expr) -> Option<u32> {
        let errors = self.errors.count();
        let value = Checker::length(self, e)?;
        let Value::Int(length) = Evaluator::new(self.errors).expr(&value)? else { return None };
        match u32::try_from(length) {
            Ok(length) if length > 0 => Some(length),
            _ => {
                if self.errors.count() == errors {
                    self.errors.at(e, "an array has at least one item: write a length from 1");
                }
                None
            }
        }
    }
}

fn is_constant_type(ty: &Type) -> bool {
    match ty {
        Type::Array(item, _) => is_constant_type(item),
        Type::Bool | Type::Int(_) | Type::Float(_) | Type::Error => true,
        _ => false,
    }
}

/// Computes checked expressions. What it cannot compute is an error at its place.
struct Evaluator<'e> {
    errors: &'e Errors,
    locals: HashMap<Local, Value>,
}

impl Evaluator<'_> {
    fn new(errors: &Errors) -> Evaluator<'_> {
        Evaluator { errors, locals: HashMap::new() }
    }

    fn refuse<T>(&self, e: &Expr, message: &str) -> Option<T> {
        self.errors.at(&At::from(e.span), message);
        None
    }

    fn expr(&mut self, e: &Expr) -> Option<Value> {
        match &e.kind {
            ExprKind::Bool(value) => Some(Value::Bool(*value)),
            ExprKind::Int(value) => Some(Value::Int(*value)),
            ExprKind::Float(value) => Some(Value::Float(*value)),
            ExprKind::Array(items) => items.iter().map(|item| self.expr(item)).collect::<Option<_>>().map(Value::Array),
            ExprKind::Repeat(item, length) => Some(Value::Array(vec![self.expr(item)?; *length as usize])),
            ExprKind::Unary(op, operand) => {
                let operand = self.expr(operand)?;
                self.unary(e, *op, operand)
            }
            ExprKind::Binary(op, left, right) => {
                let (a, b) = (self.expr(left)?, self.expr(right)?);
                self.binary(e, *op, (&left.ty, a), b)
            }
            ExprKind::And(left, right) => self.shortcut(left, right, false),
            ExprKind::Or(left, right) => self.shortcut(left, right, true),
            ExprKind::Cast(operand) => self.expr(operand).map(|value| cast(value, &e.ty)),
            ExprKind::If { condition, then, otherwise: Some(otherwise) } => match self.expr(condition)? {
                Value::Bool(true) => self.block(e, then),
                _ => self.expr(otherwise),
            },
            ExprKind::Block(block) => self.block(e, block),
            ExprKind::Place(place) => self.place(e, place),
            ExprKind::Builtin(builtin, arguments) => self.builtin(e, *builtin, arguments),
            _ => self.refuse(e, "a constant is computed from numbers, operators and other constants: write the value"),
        }
    }

    fn block(&mut self, e: &Expr, block: &Block) -> Option<Value> {
        for statement in &block.statements {
            match statement {
                Statement::Let { local, value: Some(value) } => {
                    let value = self.expr(value)?;
                    self.locals.insert(*local, value);
                }
                _ => return self.refuse(e, "statements have no place in a constant: write the value"),
            }
        }
        match &block.value {
            Some(value) => self.expr(value),
            None => self.refuse(e, "this gives no value for the constant"),
        }
    }

    fn place(&mut self, e: &Expr, place: &Place) -> Option<Value> {
        let mut value = self.locals.get(&place.root).cloned();
        for projection in &place.projections {
            let (Projection::Index { index, .. }, Some(Value::Array(items))) = (projection, value) else {
                return self.refuse(e, "a constant is computed from numbers and arrays: write the value");
            };
            let Value::Int(at) = self.expr(index)? else { return None };
            value = usize::try_from(at).ok().and_then(|at| items.get(at).cloned());
            if value.is_none() {
                return self.refuse(index, &format!("index {at} is outside of the array's {} items", items.len()));
            }
        }
        value
    }

    fn shortcut(&mut self, left: &Expr, right: &Expr, stop: bool) -> Option<Value> {
        match self.expr(left)? {
            Value::Bool(value) if value == stop => Some(Value::Bool(stop)),
            _ => self.expr(right),
        }
    }

    fn unary(&self, e: &Expr, op: UnOp, operand: Value) -> Option<Value> {
        match (op, operand, &e.ty) {
            (UnOp::Neg, Value::Int(value), Ty::Int(int)) => self.fitted(e, *int, -value),
            (UnOp::Neg, Value::Float(value), _) => Some(Value::Float(-value)),
            (UnOp::Not, Value::Bool(value), _) => Some(Value::Bool(!value)),
            (UnOp::Not, Value::Int(value), Ty::Int(int)) => Some(Value::Int(wrap(!value, *int))),
            _ => None,
        }
    }

    fn fitted(&self, e: &Expr, int: Int, value: i128) -> Option<Value> {
        let (low, high) = limits(int);
        if (low..=high).contains(&value) {
            return Some(Value::Int(value));
        }
        self.refuse(e, &format!("{value} does not fit `{}`: choose a wider type", super::infer::int_name(int)))
    }

    fn binary(&self, e: &Expr, op: BinOp, (ty, a): (&Ty, Value), b: Value) -> Option<Value> {
        match (a, b, ty) {
            (Value::Int(a), Value::Int(b), Ty::Int(int)) => self.integers(e, op, *int, a, b),
            (Value::Float(a), Value::Float(b), Ty::Float(float)) => Some(floats(op, *float, a, b)),
            (Value::Bool(a), Value::Bool(b), _) => Some(Value::Bool(match op {
                BinOp::BitAnd => a & b,
                BinOp::BitOr => a | b,
                BinOp::BitXor | BinOp::Ne => a != b,
                BinOp::Eq => a == b,
                BinOp::Lt => !a & b,
                BinOp::Le => a <= b,
                BinOp::Gt => a & !b,
                BinOp::Ge => a >= b,
                _ => return None,
            })),
            _ => self.refuse(e, "a constant is computed from numbers: write the value"),
        }
    }

    fn integers(&self, e: &Expr, op: BinOp, int: Int, a: i128, b: i128) -> Option<Value> {
        let shift = || u32::try_from(b).ok().filter(|count| *count < bits(int));
        let value = match op {
            BinOp::Add => a + b,
            BinOp::Sub => a - b,
            // Both are below 2^64 in size, so that the product fits or is out of every type's limits.
            BinOp::Mul => a.checked_mul(b).unwrap_or(i128::MAX),
            BinOp::Div | BinOp::Rem if b == 0 => return self.refuse(e, "this divides by zero"),
            BinOp::Div => a / b,
            BinOp::Rem => a % b,
            BinOp::BitAnd => a & b,
            BinOp::BitOr => a | b,
            BinOp::BitXor => a ^ b,
            BinOp::Shl | BinOp::Shr => match shift() {
                Some(count) if op == BinOp::Shl => return Some(Value::Int(wrap(a << count, int))),
                Some(count) => a >> count,
                None => return self.refuse(e, &format!("a shift by {b} is outside of the type's {} bits", bits(int))),
            },
            _ => return Some(Value::Bool(compare(op, &a, &b))),
        };
        self.fitted(e, int, value)
    }

    fn builtin(&mut self, e: &Expr, builtin: Builtin, arguments: &[Expr]) -> Option<Value> {
        let values = arguments.iter().map(|argument| self.expr(argument)).collect::<Option<Vec<_>>>()?;
        match (builtin, &values[..], &arguments[0].ty) {
            (Builtin::Pow, [Value::Int(base), Value::Int(exponent)], Ty::Int(int)) => {
                let power = u32::try_from(*exponent).ok().and_then(|exponent| base.checked_pow(exponent));
                self.fitted(e, *int, power.unwrap_or(i128::MAX))
            }
            (Builtin::Min, [Value::Int(a), Value::Int(b)], _) => Some(Value::Int(*a.min(b))),
            (Builtin::Max, [Value::Int(a), Value::Int(b)], _) => Some(Value::Int(*a.max(b))),
            _ => self.refuse(e, "this method is not computed in a constant: write the value"),
        }
    }
}

fn compare<T: PartialOrd>(op: BinOp, a: &T, b: &T) -> bool {
    match op {
        BinOp::Eq => a == b,
        BinOp::Ne => a != b,
        BinOp::Lt => a < b,
        BinOp::Le => a <= b,
        BinOp::Gt => a > b,
        _ => a >= b,
    }
}

fn floats(op: BinOp, float: Float, a: f64, b: f64) -> Value {
    // An f32 sum, product or quotient rounded from f64 is the same as one computed in f32 (double rounding
    // is innocent here, as 53 >= 2 * 24 + 2); the remainder is exact in both.
    let value = match op {
        BinOp::Add => a + b,
        BinOp::Sub => a - b,
        BinOp::Mul => a * b,
        BinOp::Div => a / b,
        BinOp::Rem => a % b,
        _ => return Value::Bool(compare(op, &a, &b)),
    };
    Value::Float(round_to(float, value))
}

fn round_to(float: Float, value: f64) -> f64 {
    match float {
        Float::F32 => f64::from(value as f32),
        Float::F64 => value,
    }
}

/// The value's low bits, as the type reads them.
fn wrap(value: i128, int: Int) -> i128 {
    let unused = 128 - bits(int);
    if is_signed(int) { value << unused >> unused } else { ((value << unused) as u128 >> unused) as i128 }
}

fn cast(value: Value, to: &Ty) -> Value {
    match (value, to) {
        (Value::Bool(value), Ty::Int(_)) => Value::Int(i128::from(value)),
        (Value::Int(value), Ty::Int(int)) => Value::Int(wrap(value, *int)),
        (Value::Int(value), Ty::Float(Float::F32)) => Value::Float(f64::from(value as f32)),
        (Value::Int(value), Ty::Float(Float::F64)) => Value::Float(value as f64),
        (Value::Float(value), Ty::Float(float)) => Value::Float(round_to(*float, value)),
        (Value::Float(value), Ty::Int(int)) => {
            let (low, high) = limits(*int);
            Value::Int((value as i128).clamp(low, high))
        }
        (value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_wrap_between_integers_and_saturate_from_floats() {
        assert_eq!(cast(Value::Int(-1), &Ty::Int(Int::U8)), Value::Int(255));
        assert_eq!(cast(Value::Int(200), &Ty::Int(Int::I8)), Value::Int(-56));
        assert_eq!(cast(Value::Float(1e30), &Ty::Int(Int::U32)), Value::Int(u32::MAX as i128));
        assert_eq!(cast(Value::Float(f64::NAN), &Ty::Int(Int::I32)), Value::Int(0));
        assert_eq!(cast(Value::Float(0.1), &Ty::Float(Float::F32)), Value::Float(0.1f32 as f64));
    }

    #[test]
    fn a_product_of_f32_is_rounded_as_f32() {
        let (a, b) = (0.1f32, 0.7f32);
        assert_eq!(floats(BinOp::Mul, Float::F32, a as f64, b as f64), Value::Float((a * b) as f64));
    }
}
