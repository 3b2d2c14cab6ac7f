//! Operators and casts.

use proc_macro2::Span;
use syn::{Expr, ExprBinary, ExprUnary, Lit, UnOp as Sign};

use super::body::{Checker, Hint};
use super::errors::{At, sketch};
use super::expr::{is_unit_only, literal_under, negative_unsigned};
use super::infer::{Kind, Type, int_name, is_signed};
use super::tree::{Finish, Node};
use crate::faults;
use crate::ir::{BinOp, ExprKind, Ty, UnOp};

impl Checker<'_, '_> {
    pub fn unary(&mut self, e: &Expr, unary: &ExprUnary, hint: Hint) -> Node {
        let at = At::of(e);
        match unary.op {
            Sign::Deref(_) => self.place(e).read(),
            Sign::Neg(_) => match literal_under(&unary.expr) {
                Some(literal @ (Lit::Int(_) | Lit::Float(_))) => {
                    let node = self.literal(literal, true, at, hint);
                    self.refuse_negative_unsigned(&node.ty, unary);
                    node
                }
                _ => self.negated(unary, at, hint),
            },
            Sign::Not(_) => {
                let operand = self.operand(&unary.expr, hint);
                let ty = self.vars.shallow(&operand.ty);
                if !matches!(ty, Type::Bool | Type::Error) && self.vars.kind(&ty) != Kind::Integer {
                    let found = self.world.quoted(&self.vars, &ty);
                    self.error(unary, format!("`!` is for `bool` and integers, found {found}"));
                }
                Node::new(ty, at, |f| ExprKind::Unary(UnOp::Not, operand.boxed(f)))
            }
            _ => Node::error(at),
        }
    }

    fn negated(&mut self, unary: &ExprUnary, at: At, hint: Hint) -> Node {
        let operand = self.operand(&unary.expr, hint);
        let ty = self.vars.shallow(&operand.ty);
        if !matches!(self.vars.kind(&ty), Kind::Integer | Kind::Float) && ty != Type::Error {
            let found = self.world.quoted(&self.vars, &ty);
            self.error(unary, format!("`-` is for numbers, found {found}"));
        }
        self.refuse_negative_unsigned(&ty, unary);
        Node::new(ty, at, move |f| {
            let operand = operand.boxed(f);
            if let Ty::Int(int) = operand.ty
                && !is_signed(int)
                && !f.quiet
            {
                f.world.errors.at(&at, negative_unsigned(int_name(int)));
            }
            ExprKind::Unary(UnOp::Neg, operand)
        })
    }

    /// Where the type is known already; what is known only later is caught when types are final.
    fn refuse_negative_unsigned(&mut self, ty: &Type, unary: &ExprUnary) {
        if let Type::Int(int) = self.vars.shallow(ty)
            && !is_signed(int)
        {
            self.error(unary, negative_unsigned(int_name(int)));
        }
    }

    pub fn binary(&mut self, e: &Expr, binary: &ExprBinary) -> Node {
        use syn::BinOp as Op;
        let (op, assigns) = match &binary.op {
            Op::And(_) | Op::Or(_) => return self.logical(e, binary),
            Op::Add(_) => (BinOp::Add, false),
            Op::Sub(_) => (BinOp::Sub, false),
            Op::Mul(_) => (BinOp::Mul, false),
            Op::Div(_) => (BinOp::Div, false),
            Op::Rem(_) => (BinOp::Rem, false),
            Op::BitAnd(_) => (BinOp::BitAnd, false),
            Op::BitOr(_) => (BinOp::BitOr, false),
            Op::BitXor(_) => (BinOp::BitXor, false),
            Op::Shl(_) => (BinOp::Shl, false),
            Op::Shr(_) => (BinOp::Shr, false),
            Op::Eq(_) => (BinOp::Eq, false),
            Op::Ne(_) => (BinOp::Ne, false),
            Op::Lt(_) => (BinOp::Lt, false),
            Op::Le(_) => (BinOp::Le, false),
            Op::Gt(_) => (BinOp::Gt, false),
            Op::Ge(_) => (BinOp::Ge, false),
            Op::AddAssign(_) => (BinOp::Add, true),
            Op::SubAssign(_) => (BinOp::Sub, true),
            Op::MulAssign(_) => (BinOp::Mul, true),
            Op::DivAssign(_) => (BinOp::Div, true),
            Op::RemAssign(_) => (BinOp::Rem, true),
            Op::BitAndAssign(_) => (BinOp::BitAnd, true),
            Op::BitOrAssign(_) => (BinOp::BitOr, true),
            Op::BitXorAssign(_) => (BinOp::BitXor, true),
            Op::ShlAssign(_) => (BinOp::Shl, true),
            Op::ShrAssign(_) => (BinOp::Shr, true),
            _ => {
                self.error(&binary.op, "not an operator of the subset");
                return Node::error(At::of(e));
            }
        };
        if assigns { self.assign_op(e, binary, op) } else { self.arithmetic(e, binary, op) }
    }

    fn logical(&mut self, e: &Expr, binary: &ExprBinary) -> Node {
        let left = self.expect(&binary.left, &Type::Bool);
        let diverges = self.diverges;
        let right = self.expect(&binary.right, &Type::Bool);
        self.diverges = diverges;
        let both = matches!(binary.op, syn::BinOp::And(_));
        Node::new(Type::Bool, At::of(e), move |f| {
            let (left, right) = (left.boxed(f), right.boxed(f));
            if both { ExprKind::And(left, right) } else { ExprKind::Or(left, right) }
        })
    }

    fn arithmetic(&mut self, e: &Expr, binary: &ExprBinary, op: BinOp) -> Node {
        let left = self.operand(&binary.left, Hint::None);
        let right = self.operand(&binary.right, Hint::None);
        self.operator_fits(op, &left.ty, (&right, &binary.right), binary);
        let compares = matches!(op, BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge);
        let ty = if compares { Type::Bool } else { left.ty.clone() };
        let node = Node::new(ty, At::of(e), move |f| {
            let (left, right) = (left.boxed(f), right.boxed(f));
            note_division(f, op, &right);
            ExprKind::Binary(op, left, right)
        });
        node.pointing_at(operator_span(binary))
    }

    /// Requires that the operator is there for these operands, and that they have one type.
    pub fn operator_fits(&mut self, op: BinOp, left: &Type, (right, e): (&Node, &Expr), binary: &ExprBinary) {
        if *left == Type::Error || right.ty == Type::Error {
            return;
        }
        if matches!(op, BinOp::Shl | BinOp::Shr) {
            self.require_integer(right, e);
        } else {
            self.coerce(&right.ty, e, left);
        }
        let ty = self.vars.shallow(left);
        let kind = self.vars.kind(&ty);
        let number = matches!(kind, Kind::Integer | Kind::Float);
        let fits = match op {
            BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Rem => number,
            BinOp::BitAnd | BinOp::BitOr | BinOp::BitXor => kind == Kind::Integer || ty == Type::Bool,
            BinOp::Shl | BinOp::Shr => kind == Kind::Integer,
            BinOp::Eq | BinOp::Ne => number || self.is_comparable(&ty),
            BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge => number,
        };
        if !fits && ty != Type::Error {
            self.refuse_operator(op, &ty, binary);
        }
    }

    fn is_comparable(&self, ty: &Type) -> bool {
        match ty {
            Type::Bool | Type::ActorId => true,
            Type::Enum(id) => is_unit_only(&self.world.enums[*id]),
            _ => false,
        }
    }

    fn refuse_operator(&mut self, op: BinOp, ty: &Type, binary: &ExprBinary) {
        let found = self.world.quoted(&self.vars, ty);
        let way_out = match (op, ty) {
            (_, Type::Var(_)) if self.vars.kind(ty) == Kind::Unknown => {
                "write the type where the value is made: `let x: u32 = ..`"
            }
            (BinOp::Eq | BinOp::Ne, Type::Enum(_)) => "its variants have fields: write a `match`",
            (BinOp::Eq | BinOp::Ne, Type::Struct(_)) => "compare its fields",
            (BinOp::Eq | BinOp::Ne, Type::Array(..)) => "compare its items in a loop",
            (_, Type::Enum(_)) => "cast its variants to numbers, or write a `match`",
            (_, Type::ActorId) => "compare the keys: `a.key() < b.key()`",
            (_, Type::Bool) => "cast to a number: `flag as u32`",
            (_, Type::Float(_) | Type::Var(_)) => "use integers, or `to_bits()`",
            _ => "use its fields or items",
        };
        let sign = sketch(&binary.op);
        self.error(binary, format!("`{sign}` is not there for {found}: {way_out}"));
    }

    pub fn cast(&mut self, e: &Expr, cast: &syn::ExprCast) -> Node {
        let at = At::of(e);
        let to = self.world.ty(&cast.ty, self.owner);
        let operand = self.operand(&cast.expr, Hint::Cast(&to));
        if !matches!(to, Type::Int(_) | Type::Float(_) | Type::Error) {
            let advice = match to {
                Type::Bool => "write `value != 0`",
                Type::ActorId => "write `id(key)`",
                Type::Enum(_) => "write a `match` that gives the variants",
                _ => "only numbers are cast: build the value from its parts",
            };
            self.error(&cast.ty, format!("`as` gives numbers: {advice}"));
            return Node::error(at);
        }
        let operand_at = At::of(&cast.expr);
        let target = to.clone();
        Node::new(to, at, move |f| {
            let operand = operand.boxed(f);
            check_cast(f, &operand.ty, &target, operand_at);
            ExprKind::Cast(operand)
        })
    }
}

/// Where a fault of this operator is.
pub fn operator_span(binary: &ExprBinary) -> Span {
    At::of(&binary.op).start
}

/// Division of integers can fault, but for a divisor that is known.
pub fn note_division(f: &mut Finish, op: BinOp, divisor: &crate::ir::Expr) {
    let divides = matches!((op, &divisor.ty), (BinOp::Div | BinOp::Rem, Ty::Int(_)));
    if divides && matches!(divisor.kind, ExprKind::Int(0)) {
        f.world.errors.at(&At::from(divisor.span), "this divides by zero, which is a fault: write another number");
    }
    f.can_fault |= divides && !faults::known_divisor(divisor);
}

fn check_cast(f: &mut Finish, from: &Ty, to: &Type, at: At) {
    let advice = match (from, to) {
        (Ty::Int(_) | Ty::Float(_), _) | (Ty::Bool, Type::Int(_)) | (Ty::Unit | Ty::Never, _) | (_, Type::Error) => {
            return;
        }
        (Ty::Enum(id), Type::Int(_)) if is_unit_only(&f.world.enums[*id]) => return,
        (Ty::Bool, _) => "cast to an integer first: `flag as u32 as f64`",
        (Ty::Enum(id), _) if is_unit_only(&f.world.enums[*id]) => "cast to an integer first: `kind as u32 as f64`",
        (Ty::Enum(_), _) => "its variants have fields: write a `match`",
        (Ty::ActorId, _) => "write `actor.key()` or `actor.type_id()`",
        (Ty::Struct(_), _) => "cast one of its fields",
        (Ty::Array(..), _) => "cast its items one by one",
        (Ty::ForeignMessage(_), _) => "it is a message of another actor",
    };
    let found = f.world.describe_final(from);
    f.world.errors.at(&at, format!("`{found}` cannot be cast: {advice}"));
}
