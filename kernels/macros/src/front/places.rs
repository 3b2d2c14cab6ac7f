//! Places: locals, fields and indexes, `*x`, and assignment to them.

use syn::spanned::Spanned;
use syn::{Expr, ExprAssign, ExprBinary, Member, UnOp as Sign};

use super::body::{Checker, Hint, Origin};
use super::errors::{At, sketch};
use super::infer::Type;
use super::operators::{note_division, operator_span};
use super::tree::{Node, PlaceNode, ProjectionNode};
use crate::ir::{BinOp, ExprKind, Pass};

impl Checker<'_, '_> {
    /// The place that `e` names and that is read: a reference must have been gone through with `*`.
    pub fn place(&mut self, e: &Expr) -> PlaceNode {
        let mut place = self.place_or_reference(e);
        if place.bare {
            let name = sketch(e);
            self.error(e, format!("`{name}` is a reference here: write `*{name}` for the value"));
            place.ty = Type::Error;
        }
        place
    }

    /// The place that `e` names, or the reference that it is. A value becomes a place of its own.
    pub fn place_or_reference(&mut self, e: &Expr) -> PlaceNode {
        match e {
            Expr::Paren(inner) => self.place_or_reference(&inner.expr),
            Expr::Group(inner) => self.place_or_reference(&inner.expr),
            Expr::Path(path) if path.path.get_ident().is_some_and(|ident| self.find(ident).is_some()) => {
                self.local_place(e)
            }
            Expr::Field(field) => self.field(e, field),
            Expr::Index(index) => self.index(e, index),
            Expr::Unary(unary) if matches!(unary.op, Sign::Deref(_)) => self.dereferenced(e, &unary.expr),
            _ => self.value_as_place(e),
        }
    }

    fn local_place(&mut self, e: &Expr) -> PlaceNode {
        let at = At::of(e);
        let Expr::Path(path) = e else { return self.value_as_place(e) };
        let ident = &path.path.segments[0].ident;
        let local = self.find(ident).expect("the caller found this local");
        let data = &self.locals[local.0];
        let (origin, ty) = (data.origin, data.ty.clone());
        let mut place = PlaceNode::local(local, ty, at);
        place.deref = matches!(origin, Origin::Param(Pass::Ref | Pass::RefMut));
        place.bare = place.deref;
        if origin == Origin::Context {
            self.error(e, format!("`{ident}` is for its methods, and to be passed on to a function as it is"));
            place.ty = Type::Error;
        }
        place
    }

    fn value_as_place(&mut self, e: &Expr) -> PlaceNode {
        let at = At::of(e);
        let value = self.operand(e, Hint::None);
        let root = self.temporary(value.ty.clone(), at.start);
        let mut place = PlaceNode::local(root, value.ty.clone(), at);
        place.temporary = Some(Box::new(value));
        place
    }

    fn dereferenced(&mut self, e: &Expr, inner: &Expr) -> PlaceNode {
        let mut place = self.place_or_reference(inner);
        if !place.bare && place.ty != Type::Error {
            self.error(e, "only a parameter of type `&T` or `&mut T` is a reference: remove `*`");
            place.ty = Type::Error;
        }
        place.bare = false;
        place.at = At::of(e);
        place
    }

    fn field(&mut self, e: &Expr, field: &syn::ExprField) -> PlaceNode {
        let mut place = self.place_or_reference(&field.base);
        place.at = At::of(e);
        place.bare = false;
        let ty = self.vars.shallow(&place.ty);
        place.ty = match ty {
            Type::Struct(id) => {
                let world = self.world;
                let (fields, name) = (&world.structs[id].fields, world.structs[id].ident.to_string());
                match self.field_index(&field.member, fields, &name) {
                    Some(index) => {
                        place.projections.push(ProjectionNode::Field { id, index });
                        Type::of_field(&fields[index].ty)
                    }
                    None => Type::Error,
                }
            }
            Type::Error => Type::Error,
            ty => {
                self.refuse_field(&ty, &field.member);
                Type::Error
            }
        };
        place
    }

    fn refuse_field(&mut self, ty: &Type, member: &Member) {
        let found = self.world.quoted(&self.vars, ty);
        let name = sketch(member);
        let advice = match ty {
            Type::ActorId if name == "key" || name == "type_id" => format!("write `{name}()`"),
            Type::Enum(_) => "its fields are those of its variants: write a `match`".to_owned(),
            Type::Var(_) => "write the type where the value is made: `let x: Point = ..`".to_owned(),
            Type::Array(..) => "write an index: `items[0]`".to_owned(),
            _ => "only structs have fields".to_owned(),
        };
        self.error(member, format!("{found} has no field `{name}`: {advice}"));
    }

    fn index(&mut self, e: &Expr, index: &syn::ExprIndex) -> PlaceNode {
        let mut place = self.place_or_reference(&index.expr);
        place.at = At::of(e);
        place.bare = false;
        if let Expr::Range(range) = &*index.index {
            self.error(range, "no slices here: pass the whole array, and the two ends as numbers");
            place.ty = Type::Error;
            return place;
        }
        let at = self.operand(&index.index, Hint::None);
        self.require_integer(&at, &index.index);
        self.indexes.push(at.ty.clone());
        let ty = self.vars.shallow(&place.ty);
        place.ty = match ty {
            Type::Array(item, length) => {
                let span = index.index.span();
                place.projections.push(ProjectionNode::Index { index: Box::new(at), length, span });
                *item
            }
            Type::Error => Type::Error,
            ty => {
                let found = self.world.quoted(&self.vars, &ty);
                self.error(&index.expr, format!("only arrays are indexed, found {found}"));
                Type::Error
            }
        };
        place
    }

    /// Requires that the place may be changed.
    pub fn require_mutable(&mut self, place: &PlaceNode) {
        let data = &self.locals[place.root.0];
        let name = &data.ident;
        let refusal = match data.origin {
            Origin::Param(Pass::RefMut) | Origin::Context => None,
            Origin::Param(Pass::Ref) if name == "self" => {
                Some("`self` is read only here: write `&mut self`".to_owned())
            }
            Origin::Param(Pass::Ref) => Some(format!("`{name}` is read only: make its parameter `&mut`")),
            Origin::Temporary => Some("this is a value and not a place: put it into a `let mut` first".to_owned()),
            Origin::Iteration => {
                Some(format!("`{name}` is the number of this iteration: copy it, `let mut n = {name};`, to change it"))
            }
            Origin::LetLater if place.projections.is_empty() => None,
            _ if data.mutable => None,
            Origin::Param(_) => Some(format!("`{name}` is not `mut`: write `mut {name}` among the parameters")),
            _ => Some(format!("`{name}` is not `mut`: write `let mut {name}`, or `mut {name}` in the pattern")),
        };
        if let Some(refusal) = refusal.filter(|_| place.ty != Type::Error) {
            self.error(&place.at, refusal);
        }
    }

    /// The place on the left of `=` or of `op=`.
    fn target(&mut self, e: &Expr) -> Option<PlaceNode> {
        match e {
            Expr::Paren(inner) => self.target(&inner.expr),
            Expr::Group(inner) => self.target(&inner.expr),
            Expr::Path(path) => {
                let ident = path.path.get_ident().filter(|ident| self.find(ident).is_some());
                if ident.is_none() {
                    self.refuse_target(e);
                    return None;
                }
                Some(self.checked_target(e))
            }
            Expr::Field(_) | Expr::Index(_) => Some(self.checked_target(e)),
            Expr::Unary(unary) if matches!(unary.op, Sign::Deref(_)) => Some(self.checked_target(e)),
            Expr::Infer(_) => {
                self.error(e, "write `let _ = ..;`, or the expression alone");
                None
            }
            Expr::Tuple(_) | Expr::Struct(_) | Expr::Array(_) => {
                self.error(e, "one place at a time: write an assignment for each");
                None
            }
            _ => {
                self.error(e, "only places are assigned to: locals, fields, items of arrays");
                None
            }
        }
    }

    fn refuse_target(&mut self, e: &Expr) {
        let name = sketch(e);
        let constant = matches!(e, Expr::Path(path)
            if path.path.get_ident().is_some_and(|ident| self.world.consts.contains(ident)));
        let message = match constant {
            true => format!("`{name}` is a constant: keep what changes in a field of `State`"),
            false => format!("no local named `{name}` here: write `let mut {name} = ..;` first"),
        };
        self.error(e, message);
    }

    fn checked_target(&mut self, e: &Expr) -> PlaceNode {
        let place = self.place(e);
        self.require_mutable(&place);
        place
    }

    pub fn assign(&mut self, e: &Expr, assign: &ExprAssign) -> Node {
        let at = At::of(e);
        let Some(place) = self.target(&assign.left) else {
            self.expr(&assign.right, Hint::None);
            return Node::error(at);
        };
        let value = self.expect(&assign.right, &place.ty.clone());
        Node::new(Type::Unit, at, move |f| {
            let place = place.finish(f);
            ExprKind::Assign(place, value.boxed(f))
        })
    }

    pub fn assign_op(&mut self, e: &Expr, binary: &ExprBinary, op: BinOp) -> Node {
        let at = At::of(e);
        let Some(place) = self.target(&binary.left) else {
            self.expr(&binary.right, Hint::None);
            return Node::error(at);
        };
        let value = self.operand(&binary.right, Hint::None);
        self.operator_fits(op, &place.ty.clone(), (&value, &binary.right), binary);
        let node = Node::new(Type::Unit, at, move |f| {
            let (place, value) = (place.finish(f), value.boxed(f));
            note_division(f, op, &value);
            ExprKind::AssignOp(op, place, value)
        });
        node.pointing_at(operator_span(binary))
    }
}
