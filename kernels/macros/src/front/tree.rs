//! Checked code that waits for its final types.
//!
//! Checking an expression gives a [`Node`]: its type, perhaps still a variable, and a closure that makes
//! the IR once inference is over. So each construct is written down in one place: how it is checked, and
//! what it becomes.

use proc_macro2::Span;

use super::errors::At;
use super::infer::{Type, Vars, limits};
use super::world::World;
use crate::faults;
use crate::ir::{Argument, Block, Expr, ExprKind, Function, Local, Pattern, Place, Projection, Statement, Ty};

/// Makes a piece of IR, once types are final.
pub type Build<T> = Box<dyn FnOnce(&mut Finish<'_, '_>) -> T>;

/// A checked expression.
pub struct Node {
    pub ty: Type,
    pub at: At,
    /// What a fault or an error of the compiler points at.
    pub span: Span,
    build: Build<ExprKind>,
}

pub struct BlockNode {
    pub statements: Vec<StatementNode>,
    pub value: Option<Box<Node>>,
    pub ty: Type,
}

pub enum StatementNode {
    Let { local: Local, value: Option<Node> },
    Expr(Node),
}

pub struct PatternNode(pub Build<Pattern>);

pub struct PlaceNode {
    pub root: Local,
    pub deref: bool,
    /// The name of a reference parameter, not yet gone through with `*`, a field, an index or a method.
    pub bare: bool,
    pub projections: Vec<ProjectionNode>,
    pub ty: Type,
    pub at: At,
    /// The value to put into `root` first, where the user wrote a value and not a place.
    pub temporary: Option<Box<Node>>,
}

pub enum ProjectionNode {
    Field { id: usize, index: usize },
    Index { index: Box<Node>, length: u32, span: Span },
}

pub enum ArgumentNode {
    Value(Node),
    Ref(PlaceNode),
    RefMut(PlaceNode),
    Context,
}

/// The end of inference for one function.
pub struct Finish<'f, 'a> {
    pub world: &'f World<'a>,
    pub vars: &'f Vars,
    /// Where each function of the world comes in the module's order.
    pub order: &'f [usize],
    /// In the module's order, as far as they are finished.
    pub functions: &'f [Function],
    pub can_fault: bool,
    /// As in [`Function`].
    pub in_state: Vec<Local>,
    /// Errors were reported already: unknown types are likely their consequence.
    pub quiet: bool,
}

impl<'f, 'a> Finish<'f, 'a> {
    /// Where nothing is called.
    pub fn new(world: &'f World<'a>, vars: &'f Vars) -> Finish<'f, 'a> {
        Finish { world, vars, order: &[], functions: &[], can_fault: false, in_state: Vec::new(), quiet: false }
    }

    /// The final type, or an error where nothing says what it is.
    pub fn ty(&mut self, ty: &Type, at: At) -> Ty {
        self.vars.settle(ty).unwrap_or_else(|unknown| {
            if unknown && !self.quiet {
                self.quiet = true;
                self.world.errors.at(&at, "nothing says what type this has: write it, as in `let x: u32 = ..`");
            }
            Ty::Unit
        })
    }

    /// The function's place in the module's order. What its threads reach has to be in the state.
    pub fn call(&mut self, function: usize, arguments: &[Argument]) -> usize {
        let index = self.order[function];
        // There is none where functions call each other in a circle, which was reported.
        let Some(callee) = self.functions.get(index) else { return index };
        self.can_fault |= callee.can_fault;
        for (param, argument) in callee.params.iter().zip(arguments) {
            let (Argument::Ref(place) | Argument::RefMut(place)) = argument else { continue };
            if callee.in_state.contains(&param.local) && place.deref {
                self.in_state.push(place.root);
            } else if callee.in_state.contains(&param.local) {
                let name = &callee.ident;
                let rule = format!("the threads in `{name}` reach into this, which is a local: pass a part of `state`");
                self.world.errors.at(&At { start: place.span, end: place.end }, rule);
            }
        }
        index
    }
}

impl Node {
    pub fn new(ty: Type, at: At, build: impl FnOnce(&mut Finish<'_, '_>) -> ExprKind + 'static) -> Node {
        Node { ty, at, span: at.start, build: Box::new(build) }
    }

    /// What stands where an error was reported.
    pub fn error(at: At) -> Node {
        Node::new(Type::Error, at, |_| ExprKind::Bool(false))
    }

    /// The same, pointing at another token.
    pub fn pointing_at(self, span: Span) -> Node {
        Node { span, ..self }
    }

    /// The same, held to have this type: a mismatch inside was reported there.
    pub fn retyped(self, ty: Type) -> Node {
        Node { ty, ..self }
    }

    pub fn finish(self, f: &mut Finish) -> Expr {
        let ty = f.ty(&self.ty, self.at);
        let kind = (self.build)(f);
        Expr { ty, span: self.span, kind }
    }

    pub fn boxed(self, f: &mut Finish) -> Box<Expr> {
        Box::new(self.finish(f))
    }
}

impl BlockNode {
    pub fn finish(self, f: &mut Finish) -> Block {
        let mut statements: Vec<Statement> = self.statements.into_iter().map(|statement| statement.finish(f)).collect();
        let mut value = self.value.map(|value| value.boxed(f));
        if value.as_ref().is_some_and(|value| matches!(value.ty, Ty::Unit | Ty::Never)) {
            statements.extend(value.take().map(|value| Statement::Expr(*value)));
        }
        let ty = match &value {
            Some(value) => value.ty.clone(),
            None if self.ty == Type::Never => Ty::Never,
            None => Ty::Unit,
        };
        Block { statements, value, ty }
    }

    pub fn into_node(self, at: At) -> Node {
        Node::new(self.ty.clone(), at, |f| ExprKind::Block(self.finish(f)))
    }
}

impl StatementNode {
    fn finish(self, f: &mut Finish) -> Statement {
        match self {
            StatementNode::Let { local, value } => Statement::Let { local, value: value.map(|value| value.finish(f)) },
            StatementNode::Expr(node) => Statement::Expr(node.finish(f)),
        }
    }
}

impl PatternNode {
    pub fn new(build: impl FnOnce(&mut Finish<'_, '_>) -> Pattern + 'static) -> PatternNode {
        PatternNode(Box::new(build))
    }

    pub fn finish(self, f: &mut Finish) -> Pattern {
        (self.0)(f)
    }
}

impl PlaceNode {
    /// A whole local.
    pub fn local(root: Local, ty: Type, at: At) -> PlaceNode {
        PlaceNode { root, deref: false, bare: false, projections: Vec::new(), ty, at, temporary: None }
    }

    /// The place itself; a temporary must have been taken out before.
    pub fn finish(self, f: &mut Finish) -> Place {
        let ty = f.ty(&self.ty, self.at);
        let projections = self.projections.into_iter().map(|projection| projection.finish(f)).collect();
        Place { root: self.root, deref: self.deref, projections, ty, span: self.at.start, end: self.at.end }
    }

    /// Whether the two may share storage, as far as rustc can tell: any two items of an array may.
    pub fn overlaps(&self, other: &PlaceNode) -> bool {
        let apart = |pair: (&ProjectionNode, &ProjectionNode)| match pair {
            (ProjectionNode::Field { index: a, .. }, ProjectionNode::Field { index: b, .. }) => a != b,
            _ => false,
        };
        self.root == other.root && !self.projections.iter().zip(&other.projections).any(apart)
    }

    /// Reads the place.
    pub fn read(mut self) -> Node {
        let temporary = self.take_temporary();
        let node = Node::new(self.ty.clone(), self.at, |f| ExprKind::Place(self.finish(f)));
        with_temporary(temporary, node)
    }

    pub fn take_temporary(&mut self) -> Option<(Local, Node)> {
        self.temporary.take().map(|value| (self.root, *value))
    }
}

/// `{ let temporary = value; node }`.
pub fn with_temporary(temporary: Option<(Local, Node)>, node: Node) -> Node {
    let Some((local, value)) = temporary else { return node };
    let (ty, at) = (node.ty.clone(), node.at);
    let statements = vec![StatementNode::Let { local, value: Some(value) }];
    BlockNode { statements, value: Some(Box::new(node)), ty }.into_node(at)
}

impl ProjectionNode {
    fn finish(self, f: &mut Finish) -> Projection {
        match self {
            ProjectionNode::Field { id, index } => Projection::Field { id, index },
            ProjectionNode::Index { index, length, span } => {
                let index = index.finish(f);
                let known = faults::known_index(&index, length);
                f.can_fault |= known.is_none();
                if known.is_none() && fits_its_type(&index) {
                    let last = length - 1;
                    f.world
                        .errors
                        .at(&At::from(index.span), format!("the array has {length} items: write 0 to {last}"));
                }
                Projection::Index { index, length, span }
            }
        }
    }
}

/// Whether it is a literal in its type's limits: others have an error of their own.
fn fits_its_type(literal: &Expr) -> bool {
    match (&literal.kind, &literal.ty) {
        (ExprKind::Int(value), Ty::Int(int)) => (limits(*int).0..=limits(*int).1).contains(value),
        _ => false,
    }
}

impl ArgumentNode {
    pub fn finish(self, f: &mut Finish) -> Argument {
        match self {
            ArgumentNode::Value(node) => Argument::Value(node.finish(f)),
            ArgumentNode::Ref(place) => Argument::Ref(place.finish(f)),
            ArgumentNode::RefMut(place) => Argument::RefMut(place.finish(f)),
            ArgumentNode::Context => Argument::Context,
        }
    }
}
