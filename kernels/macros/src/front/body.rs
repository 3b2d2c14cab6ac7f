//! Function bodies: locals, scopes, blocks and statements.

use proc_macro2::{Ident, Span};
use syn::spanned::Spanned;
use syn::{Expr, FnArg, Pat, Stmt};

use super::errors::{At, sketch};
use super::infer::{Kind, Type, Vars};
use super::items::kept;
use super::refuse;
use super::tree::{BlockNode, Finish, Node, PlaceNode, ProjectionNode, StatementNode};
use super::world::{Named, World};
use crate::ir::{self, Function, Int, Local, LocalInfo, Param, ParamKind, Pass};

const MAY_NOT_MATCH: &str =
    "this pattern may not match: write a `match`, or a name or a struct's fields, as in `let Point { x, y } = point;`";

/// What is known of an expression's type before it is looked at.
#[derive(Clone, Copy)]
pub enum Hint<'h> {
    None,
    /// It will have to be this type.
    Is(&'h Type),
    /// It is about to be cast to this type.
    Cast(&'h Type),
}

impl<'h> Hint<'h> {
    /// The type it will have to be.
    pub fn required(self) -> Option<&'h Type> {
        match self {
            Hint::Is(ty) => Some(ty),
            _ => None,
        }
    }
}

/// Checks one function body, or the value of one constant.
pub struct Checker<'w, 'a> {
    pub world: &'w World<'a>,
    pub vars: Vars,
    pub locals: Vec<LocalData>,
    scopes: Vec<Vec<(String, Local)>>,
    pub loops: Vec<Frame>,
    pub labels: u32,
    /// Whether control cannot reach the point that is being checked.
    pub diverges: bool,
    pub result: Type,
    pub owner: Option<Named>,
    /// Types of indexes, which are `u32` where nothing else fixes them.
    pub indexes: Vec<Type>,
    /// Fields of other modules' messages, whose types nothing here may guess.
    pub foreign_fields: Vec<(At, Type)>,
    pub calls: Vec<(usize, At)>,
    /// The name of the call that is being checked, for errors without tokens of their own.
    pub call_span: Span,
    pub in_constant: bool,
}

pub struct LocalData {
    pub ident: Ident,
    pub ty: Type,
    pub mutable: bool,
    pub origin: Origin,
}

/// Where a local comes from, which says how it may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Param(Pass),
    Context,
    Let,
    /// `let x;`: the one assignment that gives it its value needs no `mut`.
    LetLater,
    /// The number of a data-parallel loop's iteration.
    Iteration,
    Temporary,
}

/// A loop that `break` and `continue` can name.
pub struct Frame {
    pub name: Option<String>,
    pub label: u32,
    /// The type of a `loop`'s value; other loops have none.
    pub result: Option<Type>,
    pub broken: bool,
}

/// A function whose body was checked, before its types are final.
pub struct Checked {
    pub calls: Vec<(usize, At)>,
    vars: Vars,
    locals: Vec<LocalData>,
    params: Vec<Param>,
    body: BlockNode,
    quiet: bool,
}

/// Checks the body of the `index`th function.
pub fn check(world: &World, index: usize) -> Checked {
    let errors = world.errors.count();
    let signature = &world.functions[index];
    let mut checker = Checker::new(world, signature.result.clone(), signature.owner);
    let mut params = Vec::new();
    for param in &signature.params {
        let origin = match param.kind {
            ParamKind::Plain => Origin::Param(param.pass),
            ParamKind::Context => Origin::Context,
        };
        let local = checker.local(&param.ident, param.ty.clone(), param.mutable, origin);
        params.push(Param { local, pass: param.pass, kind: param.kind });
    }
    for input in &signature.item.sig.inputs {
        match input {
            FnArg::Typed(param) if !matches!(*param.pat, Pat::Ident(_)) => checker.bring_in_refused(&param.pat),
            _ => {}
        }
    }
    let result = signature.result.clone();
    let block = signature.item.block;
    let body = checker.block(block, Hint::Is(&result));
    checker.coerce_block(&body, block, &result, &signature.item.sig.output);
    checker.settle_open_numbers();
    Checked {
        calls: checker.calls,
        vars: checker.vars,
        locals: checker.locals,
        params,
        body,
        quiet: world.errors.count() > errors,
    }
}

impl Checked {
    /// The function with its final types. `order` and `functions` are as in [`Finish`].
    pub fn finish(self, world: &World, index: usize, order: &[usize], functions: &[Function]) -> Function {
        let vars = &self.vars;
        let mut f = Finish { order, functions, quiet: self.quiet, ..Finish::new(world, vars) };
        let locals = self.locals.iter().map(|local| LocalInfo {
            ident: local.ident.clone(),
            ty: f.ty(&local.ty, At::from(local.ident.span())),
            mutable: local.mutable,
        });
        let locals = locals.collect();
        let body = self.body.finish(&mut f);
        let Finish { can_fault, in_state, .. } = f;
        let signature = &world.functions[index];
        Function {
            ident: signature.item.sig.ident.clone(),
            docs: kept(signature.item.attrs),
            owner: signature.owner.map(|owner| match owner {
                Named::Struct(id) => ir::Ty::Struct(id),
                Named::Enum(id) => ir::Ty::Enum(id),
            }),
            params: self.params,
            result: vars.settle(&signature.result).unwrap_or(ir::Ty::Unit),
            body,
            locals,
            can_fault,
            in_state,
        }
    }
}

impl<'w, 'a> Checker<'w, 'a> {
    fn new(world: &'w World<'a>, result: Type, owner: Option<Named>) -> Checker<'w, 'a> {
        Checker {
            world,
            vars: Vars::default(),
            locals: Vec::new(),
            scopes: vec![Vec::new()],
            loops: Vec::new(),
            labels: 0,
            diverges: false,
            result,
            owner,
            indexes: Vec::new(),
            foreign_fields: Vec::new(),
            calls: Vec::new(),
            call_span: Span::call_site(),
            in_constant: false,
        }
    }

    /// The checked value of a constant of type `ty`; `None` where errors were reported.
    pub fn constant(world: &World, e: &Expr, ty: &Type) -> Option<ir::Expr> {
        let mut checker = Checker::new(world, Type::Unit, None);
        checker.in_constant = true;
        let errors = world.errors.count();
        let node = checker.expect(e, ty);
        checker.settle_open_numbers();
        let mut f = Finish::new(world, &checker.vars);
        let value = (world.errors.count() == errors).then(|| node.finish(&mut f))?;
        (world.errors.count() == errors).then_some(value)
    }

    /// The checked length of an array, of any integer type.
    pub fn length(world: &World, e: &Expr) -> Option<ir::Expr> {
        let mut checker = Checker::new(world, Type::Unit, None);
        checker.in_constant = true;
        let errors = world.errors.count();
        let node = checker.operand(e, Hint::None);
        checker.require_integer(&node, e);
        checker.indexes.push(node.ty.clone());
        checker.settle_open_numbers();
        let mut f = Finish::new(world, &checker.vars);
        let value = (world.errors.count() == errors).then(|| node.finish(&mut f))?;
        (world.errors.count() == errors).then_some(value)
    }

    /// Reports an error at tokens.
    pub fn error(&self, tokens: &impl quote::ToTokens, message: impl std::fmt::Display) {
        self.world.errors.at(tokens, message);
    }

    /// Indexes that nothing fixed are `u32`; numbers for other modules' messages must have been fixed.
    fn settle_open_numbers(&mut self) {
        for (at, ty) in std::mem::take(&mut self.foreign_fields) {
            if self.vars.is_open_number(&ty) {
                let example = if self.vars.kind(&ty) == Kind::Float { "5.0f64" } else { "5u32" };
                self.error(&at, format!("this number's type is in another module: write `{example}`"));
            }
        }
        for ty in std::mem::take(&mut self.indexes) {
            if self.vars.is_open_number(&ty) {
                self.vars.unify(&ty, &Type::Int(Int::U32));
            }
        }
    }

    /// A new local, visible from here to the end of the scope.
    pub fn local(&mut self, ident: &Ident, ty: Type, mutable: bool, origin: Origin) -> Local {
        let local = Local(self.locals.len());
        self.locals.push(LocalData { ident: ident.clone(), ty, mutable, origin });
        self.bring_in(ident.to_string(), local);
        local
    }

    /// A local that the user did not write.
    pub fn temporary(&mut self, ty: Type, span: Span) -> Local {
        let local = Local(self.locals.len());
        let ident = Ident::new("temporary", span);
        self.locals.push(LocalData { ident, ty, mutable: true, origin: Origin::Temporary });
        local
    }

    /// A local that stands for `_`.
    pub fn unused(&mut self, ty: Type, span: Span) -> Local {
        let local = self.temporary(ty, span);
        let data = self.locals.last_mut().expect("it was just made");
        (data.ident, data.mutable) = (Ident::new("_unused", span), false);
        local
    }

    pub fn bring_in(&mut self, name: String, local: Local) {
        self.scopes.last_mut().expect("a function has a scope").push((name, local));
    }

    /// Knows the names in a pattern that was refused, as of unknown types.
    pub fn bring_in_refused(&mut self, pattern: &Pat) {
        for name in refuse::names_in(pattern) {
            self.local(name, Type::Error, true, Origin::Let);
        }
    }

    pub fn find(&self, ident: &Ident) -> Option<Local> {
        let name = ident.to_string();
        let visible = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev());
        visible.into_iter().find(|(other, _)| *other == name).map(|(_, local)| *local)
    }

    pub fn scoped<T>(&mut self, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(Vec::new());
        let result = inside(self);
        self.scopes.pop();
        result
    }

    pub fn block(&mut self, block: &syn::Block, hint: Hint) -> BlockNode {
        self.scoped(|this| {
            let mut statements = Vec::new();
            let mut value = None;
            for (index, statement) in block.stmts.iter().enumerate() {
                let last = index + 1 == block.stmts.len();
                match statement {
                    Stmt::Local(local) => this.let_statement(local, &mut statements),
                    Stmt::Expr(e, None) if last => value = Some(Box::new(this.expr(e, hint))),
                    Stmt::Expr(e, None) => statements.push(StatementNode::Expr(this.expect(e, &Type::Unit))),
                    Stmt::Expr(e, Some(_)) => statements.push(StatementNode::Expr(this.expr(e, Hint::None))),
                    Stmt::Item(item) => {
                        this.error(&At::from(item.span()), "items go into the module: move it out of the function")
                    }
                    Stmt::Macro(call) => {
                        refuse::macro_call(&call.mac.path, this.world.errors);
                        // A macro that never returns was meant to end the block: say nothing more.
                        value = last.then(|| Box::new(Node::error(At::of(call))));
                    }
                }
            }
            let ty = match &value {
                Some(value) => value.ty.clone(),
                None if this.diverges => Type::Never,
                None => Type::Unit,
            };
            BlockNode { statements, value, ty }
        })
    }

    /// Requires that a block gives `ty`; `promise` is what says so.
    pub fn coerce_block(&mut self, node: &BlockNode, block: &syn::Block, ty: &Type, promise: &impl quote::ToTokens) {
        match (&node.value, block.stmts.last()) {
            (Some(value), Some(Stmt::Expr(e, _))) => self.coerce(&value.ty, e, ty),
            (Some(_), _) => {}
            (None, _) if node.ty == Type::Never || self.vars.unify(&Type::Unit, ty) => {}
            (None, Some(Stmt::Expr(e, Some(semicolon)))) if !matches!(e, Expr::Assign(_) | Expr::Binary(_)) => {
                let expected = self.world.quoted(&self.vars, ty);
                let advice =
                    format!("expected {expected} at the end of this block: remove this semicolon, or add a value");
                self.error(semicolon, advice);
            }
            _ => {
                let expected = self.world.quoted(&self.vars, ty);
                let at = At::of(promise);
                let empty = promise.to_token_stream().is_empty();
                let at = if empty { At::from(block.brace_token.span.close()) } else { at };
                self.error(&at, format!("the block ends without a value: end it with one of type {expected}"));
            }
        }
    }

    fn let_statement(&mut self, statement: &syn::Local, out: &mut Vec<StatementNode>) {
        let (pattern, annotation) = match &statement.pat {
            Pat::Type(typed) => (&*typed.pat, Some(&*typed.ty)),
            pattern => (pattern, None),
        };
        let ty = annotation.map(|ty| self.annotation(ty));
        let Some(init) = &statement.init else {
            return self.let_later(pattern, ty, out);
        };
        if let Some((word, _)) = &init.diverge {
            self.error(word, "no `let .. else` here: write a `match` that returns in its other arms");
            self.operand(&init.expr, Hint::None);
            return self.bring_in_refused(pattern);
        }
        let value = match &ty {
            Some(ty) => self.expect(&init.expr, ty),
            None => self.operand(&init.expr, Hint::None),
        };
        let ty = ty.unwrap_or_else(|| value.ty.clone());
        self.bind_irrefutable(pattern, ty, value, out);
    }

    fn annotation(&mut self, ty: &syn::Type) -> Type {
        match ty {
            syn::Type::Reference(_) => {
                self.error(
                    ty,
                    "no references in `let`: use the place itself, or pass it to a function as `&mut place`",
                );
                Type::Error
            }
            _ => self.world.ty(ty, self.owner),
        }
    }

    fn let_later(&mut self, pattern: &Pat, ty: Option<Type>, out: &mut Vec<StatementNode>) {
        let Pat::Ident(name) = pattern else {
            return self.error(pattern, "give it a value: `let name = value;`");
        };
        let ty = ty.unwrap_or_else(|| self.vars.any());
        let Some(ident) = self.plain_name(name) else { return };
        let local = self.local(&ident, ty, name.mutability.is_some(), Origin::LetLater);
        out.push(StatementNode::Let { local, value: None });
    }

    /// The name of a simple binding; reports what else it might be.
    pub fn plain_name(&mut self, name: &syn::PatIdent) -> Option<Ident> {
        if let Some(word) = &name.by_ref {
            self.error(word, "patterns copy: remove `ref`");
        }
        if self.world.consts.contains(&name.ident) {
            self.error(&name.ident, format!("`{}` is a constant: choose another name", name.ident));
            return None;
        }
        if let Some((_, inner)) = &name.subpat {
            self.error(inner, "a `let` takes a name, or a struct's fields: `let Point { x, y } = point;`");
        }
        Some(name.ident.clone())
    }

    /// `let pattern = value`, as one `let` for each name.
    fn bind_irrefutable(&mut self, pattern: &Pat, ty: Type, value: Node, out: &mut Vec<StatementNode>) {
        match pattern {
            Pat::Ident(name) => {
                let Some(ident) = self.plain_name(name) else { return };
                let local = self.local(&ident, ty, name.mutability.is_some(), Origin::Let);
                out.push(StatementNode::Let { local, value: Some(value) });
            }
            Pat::Wild(_) => out.push(StatementNode::Expr(value)),
            Pat::Paren(inner) => self.bind_irrefutable(&inner.pat, ty, value, out),
            Pat::Struct(fields) => {
                let local = self.temporary(ty.clone(), pattern.span());
                out.push(StatementNode::Let { local, value: Some(value) });
                self.bind_fields(fields, local, ty, &[], out);
            }
            other => {
                match other {
                    Pat::Tuple(_) => self.error(other, "no tuples here: write a `let` for each name"),
                    Pat::Slice(_) => self.error(other, "no slice patterns: write `let a = items[0];` for each item"),
                    Pat::TupleStruct(_) | Pat::Reference(_) | Pat::Macro(_) => {
                        refuse::pattern(other, self.world.errors)
                    }
                    _ => self.error(other, MAY_NOT_MATCH),
                }
                self.bring_in_refused(other);
            }
        }
    }

    /// `let` for each name in a struct pattern; `path` leads to the struct from `root`.
    fn bind_fields(
        &mut self,
        pattern: &syn::PatStruct,
        root: Local,
        ty: Type,
        path: &[(usize, usize)],
        out: &mut Vec<StatementNode>,
    ) {
        let Some(id) = self.struct_named(&pattern.path) else {
            let what = sketch(&pattern.path);
            self.error(&pattern.path, format!("`{what}` is no struct: an enum is taken apart by a `match`"));
            return pattern.fields.iter().for_each(|field| self.bring_in_refused(&field.pat));
        };
        self.same(&Type::Struct(id), &ty, &pattern.path);
        for (index, inner) in self.struct_pattern_fields(id, pattern) {
            let field = Type::of_field(&self.world.structs[id].fields[index].ty);
            let path = [path, &[(id, index)]].concat();
            match inner {
                Pat::Struct(inner) => self.bind_fields(inner, root, field, &path, out),
                Pat::Wild(_) => {}
                _ => {
                    let mut place = PlaceNode::local(root, field.clone(), At::of(inner));
                    place.projections =
                        path.iter().map(|(id, index)| ProjectionNode::Field { id: *id, index: *index }).collect();
                    self.bind_irrefutable(inner, field, place.read(), out);
                }
            }
        }
    }
}
