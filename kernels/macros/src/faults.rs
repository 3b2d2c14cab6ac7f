//! Which operations are known not to fault, by the literals in them.
//!
//! The front end asks when it works out `can_fault`, the back ends when they write the operation: they have
//! to agree, since a function that cannot fault has no way to report one.

use crate::ir::{Expr, ExprKind};

/// The index, if it is a literal inside the array.
pub fn known_index(index: &Expr, length: u32) -> Option<u32> {
    match index.kind {
        ExprKind::Int(value) if (0..i128::from(length)).contains(&value) => Some(value as u32),
        _ => None,
    }
}

/// Whether the divisor is a literal other than zero.
pub fn known_divisor(divisor: &Expr) -> bool {
    matches!(divisor.kind, ExprKind::Int(value) if value != 0)
}

/// Whether both bounds of a `clamp` are literals in order.
pub fn known_bounds(low: &Expr, high: &Expr) -> bool {
    match (&low.kind, &high.kind) {
        (ExprKind::Int(low), ExprKind::Int(high)) => low <= high,
        (ExprKind::Float(low), ExprKind::Float(high)) => low <= high,
        _ => false,
    }
}
