//! `if`, `match`, loops and the ways out of them.

use syn::{
    Expr, ExprBreak, ExprContinue, ExprForLoop, ExprIf, ExprLoop, ExprMatch, ExprReturn, ExprWhile, Label, Lifetime,
    Pat,
};

use super::body::{Checker, Frame, Hint, Origin};
use super::errors::{At, sketch};
use super::exhaustive;
use super::infer::{Kind, Type};
use super::patterns::Bindings;
use super::tree::{BlockNode, Node};
use crate::ir::{Arm, Block, ExprKind, Local, Pattern, Statement, Ty};

/// The common type of branches, while they are being checked.
struct Join {
    ty: Option<Type>,
    all_diverge: bool,
}

impl Checker<'_, '_> {
    fn join(&mut self, hint: Hint) -> Join {
        Join { ty: hint.required().cloned(), all_diverge: true }
    }

    fn join_expr(&mut self, join: &mut Join, node: &Node, e: &Expr) {
        self.join_type(join, &node.ty);
        if let Some(ty) = join.ty.clone() {
            self.coerce(&node.ty, e, &ty);
        }
    }

    fn join_block(&mut self, join: &mut Join, node: &BlockNode, block: &syn::Block) {
        self.join_type(join, &node.ty);
        if let Some(ty) = join.ty.clone() {
            self.coerce_block(node, block, &ty, &proc_macro2::TokenStream::new());
        }
    }

    /// The first branch that ends gives the type, where nothing else did.
    fn join_type(&mut self, join: &mut Join, ty: &Type) {
        if *ty != Type::Never {
            join.all_diverge = false;
            join.ty.get_or_insert_with(|| ty.clone());
        }
    }

    pub fn branch(&mut self, e: &Expr, branch: &ExprIf, hint: Hint) -> Node {
        if let Expr::Let(condition) = &*branch.cond {
            return self.branch_on_pattern(e, branch, condition, hint);
        }
        let condition = self.expect(&branch.cond, &Type::Bool);
        let before = self.diverges;
        let Some((_, otherwise)) = &branch.else_branch else {
            let (then, ty) = self.then_only(branch, hint);
            self.diverges = before;
            return Node::new(ty, At::of(e), |f| ExprKind::If {
                condition: condition.boxed(f),
                then: then.finish(f),
                otherwise: None,
            });
        };
        let mut join = self.join(hint);
        let then = self.block(&branch.then_branch, hint_of(&join));
        self.join_block(&mut join, &then, &branch.then_branch);
        let then_diverges = std::mem::replace(&mut self.diverges, before);
        let other = self.expr(otherwise, hint_of(&join));
        self.join_otherwise(&mut join, &other, otherwise);
        self.diverges = before || (then_diverges && self.diverges);
        Node::new(joined(join), At::of(e), |f| ExprKind::If {
            condition: condition.boxed(f),
            then: then.finish(f),
            otherwise: Some(other.boxed(f)),
        })
    }

    /// An `else` block's mismatch is at its value, not at its braces.
    fn join_otherwise(&mut self, join: &mut Join, node: &Node, e: &Expr) {
        let tail = match e {
            Expr::Block(block) => match block.block.stmts.last() {
                Some(syn::Stmt::Expr(tail, None)) => tail,
                _ => e,
            },
            _ => e,
        };
        self.join_expr(join, node, tail);
    }

    /// The block of an `if` without `else`, which must not have a value, and the type of the whole.
    fn then_only(&mut self, branch: &ExprIf, hint: Hint) -> (BlockNode, Type) {
        let wanted = hint.required().map(|ty| self.vars.shallow(ty));
        if wanted.is_some_and(|ty| !matches!(ty, Type::Unit | Type::Error | Type::Var(_))) {
            self.error(&branch.if_token, "an `if` without `else` gives no value: add `else { .. }`");
            return (self.block(&branch.then_branch, hint), Type::Error);
        }
        let then = self.block(&branch.then_branch, Hint::Is(&Type::Unit));
        if let Some(value) = &then.value
            && value.ty != Type::Never
            && !self.vars.unify(&value.ty, &Type::Unit)
        {
            let advice = "an `if` without `else` gives no value: add `else { .. }`, or a `;` in its block";
            self.error(&branch.if_token, advice);
            return (then, Type::Error);
        }
        (then, Type::Unit)
    }

    /// `if let PATTERN = value { .. } else { .. }`, as a `match` of two arms.
    fn branch_on_pattern(&mut self, e: &Expr, branch: &ExprIf, condition: &syn::ExprLet, hint: Hint) -> Node {
        let subject = self.operand(&condition.expr, Hint::None);
        let before = self.diverges;
        let mut join = self.join(if branch.else_branch.is_some() { hint } else { Hint::Is(&Type::Unit) });
        let (pattern, then, alone) = self.scoped(|this| {
            let mut bindings = Bindings::default();
            let pattern = this.pattern(&condition.pat, &subject.ty, &mut bindings);
            if branch.else_branch.is_some() {
                let then = this.block(&branch.then_branch, hint_of(&join));
                this.join_block(&mut join, &then, &branch.then_branch);
                (pattern, then, Type::Unit)
            } else {
                let (then, ty) = this.then_only(branch, hint);
                (pattern, then, ty)
            }
        });
        let then_diverges = std::mem::replace(&mut self.diverges, before);
        let other = branch.else_branch.as_ref().map(|(_, otherwise)| {
            let other = self.expr(otherwise, hint_of(&join));
            self.join_otherwise(&mut join, &other, otherwise);
            other
        });
        self.diverges = before || (other.is_some() && then_diverges && self.diverges);
        let ty = if other.is_some() { joined(join) } else { alone };
        let at = At::of(e);
        let then = then.into_node(At::of(&branch.then_branch));
        let other = other.unwrap_or_else(|| {
            let nothing = BlockNode { statements: Vec::new(), value: None, ty: Type::Unit };
            nothing.into_node(at)
        });
        Node::new(ty, at, |f| {
            let subject = subject.boxed(f);
            let taken = Arm { pattern: pattern.finish(f), guard: None, body: then.finish(f) };
            let left = Arm { pattern: Pattern::Wild, guard: None, body: other.finish(f) };
            ExprKind::Match { subject, arms: vec![taken, left] }
        })
    }

    pub fn choice(&mut self, e: &Expr, choice: &ExprMatch, hint: Hint) -> Node {
        let subject = self.operand(&choice.expr, Hint::None);
        self.refuse_subject(&subject.ty, &choice.expr);
        let before = self.diverges;
        let mut all_diverge = true;
        let mut join = self.join(hint);
        let mut arms = Vec::new();
        for arm in &choice.arms {
            self.diverges = before;
            arms.push(self.scoped(|this| {
                let mut bindings = Bindings::default();
                let pattern = this.pattern(&arm.pat, &subject.ty, &mut bindings);
                let guard = arm.guard.as_ref().map(|(_, guard)| this.expect(guard, &Type::Bool));
                this.diverges = before;
                let body = this.expr(&arm.body, hint_of(&join));
                this.join_otherwise(&mut join, &body, &arm.body);
                (pattern, guard, body)
            }));
            all_diverge &= self.diverges;
        }
        self.diverges = before || all_diverge;
        let at = At::from(choice.match_token.span);
        Node::new(joined(join), At::of(e), move |f| {
            let subject = subject.boxed(f);
            let arms: Vec<Arm> = arms
                .into_iter()
                .map(|(pattern, guard, body)| Arm {
                    pattern: pattern.finish(f),
                    guard: guard.map(|guard| guard.finish(f)),
                    body: body.finish(f),
                })
                .collect();
            let patterns = arms.iter().filter(|arm| arm.guard.is_none()).map(|arm| &arm.pattern);
            if !f.quiet
                && let Some(missing) = exhaustive::missing(f.world, patterns, &subject.ty)
            {
                f.world
                    .errors
                    .at(&at, format!("not every value has an arm: `{missing}` is missing; add it, or `_ => ..`"));
            }
            ExprKind::Match { subject, arms }
        })
    }

    /// Matching is for what patterns can tell apart.
    fn refuse_subject(&mut self, ty: &Type, e: &Expr) {
        if self.vars.kind(ty) == Kind::Float {
            self.error(e, "floats are not matched: write `if` with `<`, `>` and `==`");
        } else if matches!(self.vars.shallow(ty), Type::Var(_)) && self.vars.kind(ty) == Kind::Unknown {
            self.error(e, "nothing says what type this has: write it where the value is made, `let x: u32 = ..`");
        }
    }

    pub fn block_expression(&mut self, e: &Expr, block: &syn::ExprBlock, hint: Hint) -> Node {
        if let Some(label) = &block.label {
            self.error(label, "labels are for loops: write `'name: loop { .. break 'name; }`");
        }
        let node = self.block(&block.block, hint);
        let at = At::of(e);
        match hint.required().cloned() {
            Some(required) if node.ty != Type::Never => {
                self.coerce_block(&node, &block.block, &required, &proc_macro2::TokenStream::new());
                node.into_node(at).retyped(required)
            }
            _ => node.into_node(at),
        }
    }

    fn enter_loop(&mut self, label: &Option<Label>, result: Option<Type>) -> u32 {
        self.labels += 1;
        let name = label.as_ref().map(|label| label.name.ident.to_string());
        self.loops.push(Frame { name, label: self.labels, result, broken: false });
        self.labels
    }

    /// Checks a loop's body, which gives no value.
    fn loop_body(&mut self, body: &syn::Block) -> BlockNode {
        let node = self.block(body, Hint::Is(&Type::Unit));
        self.coerce_block(&node, body, &Type::Unit, &proc_macro2::TokenStream::new());
        node
    }

    pub fn endless(&mut self, e: &Expr, endless: &ExprLoop, hint: Hint) -> Node {
        let before = self.diverges;
        let result = hint.required().cloned().unwrap_or_else(|| self.vars.any());
        let label = self.enter_loop(&endless.label, Some(result.clone()));
        let body = self.loop_body(&endless.body);
        let frame = self.loops.pop().expect("the frame of this loop");
        self.diverges = before || !frame.broken;
        let ty = if frame.broken { result } else { Type::Never };
        Node::new(ty, At::of(e), move |f| ExprKind::Loop { label, body: body.finish(f) })
    }

    pub fn conditional(&mut self, e: &Expr, conditional: &ExprWhile) -> Node {
        if let Expr::Let(condition) = &*conditional.cond {
            self.error(&condition.let_token, "no `while let` here: write `loop { match .. { .. => .., _ => break } }`");
            return Node::error(At::of(e));
        }
        let condition = self.expect(&conditional.cond, &Type::Bool);
        let before = self.diverges;
        let label = self.enter_loop(&conditional.label, None);
        let body = self.loop_body(&conditional.body);
        self.loops.pop();
        self.diverges = before;
        Node::new(Type::Unit, At::of(e), move |f| ExprKind::While {
            label,
            condition: condition.boxed(f),
            body: body.finish(f),
        })
    }

    pub fn counted(&mut self, e: &Expr, counted: &ExprForLoop) -> Node {
        let at = At::of(e);
        if let Some(call) = self.threads_call(&counted.expr) {
            return self.data_parallel(e, counted, call);
        }
        let Some((from, to, inclusive)) = self.range(&counted.expr) else { return Node::error(at) };
        let (label, local, body) = self.counted_body(counted, from.ty.clone(), Origin::Let);
        Node::new(Type::Unit, at, move |f| ExprKind::For {
            label,
            local,
            from: from.boxed(f),
            to: to.boxed(f),
            inclusive,
            body: body.finish(f),
        })
    }

    /// The label, the counter and the body of a `for` loop over integers of type `ty`.
    pub fn counted_body(&mut self, counted: &ExprForLoop, ty: Type, origin: Origin) -> (u32, Local, BlockNode) {
        let before = self.diverges;
        let label = self.enter_loop(&counted.label, None);
        let (local, body) = self.scoped(|this| {
            let local = this.counter(&counted.pat, ty, origin);
            (local, this.loop_body(&counted.body))
        });
        self.loops.pop();
        self.diverges = before;
        (label, local, body)
    }

    fn counter(&mut self, pattern: &Pat, ty: Type, origin: Origin) -> Local {
        match pattern {
            Pat::Ident(name) => {
                let ident = self.plain_name(name).unwrap_or_else(|| name.ident.clone());
                self.local(&ident, ty, name.mutability.is_some(), origin)
            }
            Pat::Wild(underscore) => self.unused(ty, underscore.underscore_token.span),
            other => {
                self.error(other, "a range counts integers: write a name, as in `for i in 0..10`");
                self.bring_in_refused(other);
                self.temporary(Type::Error, At::of(other).start)
            }
        }
    }

    /// The two ends of a `for` loop's range, and whether the last belongs to it.
    pub fn range(&mut self, e: &Expr) -> Option<(Node, Node, bool)> {
        let range = match e {
            Expr::Paren(inner) => return self.range(&inner.expr),
            Expr::Group(inner) => return self.range(&inner.expr),
            Expr::Range(range) => range,
            _ => {
                self.refuse_iterator(e);
                return None;
            }
        };
        let (Some(from), Some(to)) = (&range.start, &range.end) else {
            self.error(range, "a `for` loop needs both ends: `0..10`, or `loop` with a `break`");
            return None;
        };
        let low = self.operand(from, Hint::None);
        let high = self.operand(to, Hint::Is(&low.ty));
        self.require_integer(&low, from);
        self.coerce(&high.ty, to, &low.ty);
        Some((low, high, matches!(range.limits, syn::RangeLimits::Closed(_))))
    }

    fn refuse_iterator(&mut self, e: &Expr) {
        let message = match e {
            Expr::MethodCall(call) if call.method == "rev" => {
                let (from, to) = match range_under(&call.receiver) {
                    Some((from, to)) => (from, to),
                    None => ("0".to_owned(), "LENGTH".to_owned()),
                };
                format!(
                    "ranges only count up: write `for up in {from}..{to} {{ let i = {to} - 1 - (up - {from}); .. }}`"
                )
            }
            Expr::MethodCall(call) if call.method == "step_by" => {
                "ranges count by one: write `while` with the step, or multiply in the body".to_owned()
            }
            _ => "a `for` loop counts over integers: write `for i in 0..LENGTH { let item = items[i]; .. }`".to_owned(),
        };
        self.error(e, message);
    }

    /// The frame that a `break` or `continue` names: its index in `self.loops`.
    fn frame(&mut self, label: &Option<Lifetime>, token: &impl quote::ToTokens) -> Option<usize> {
        let found = match label {
            None => self.loops.len().checked_sub(1),
            Some(label) => {
                let name = label.ident.to_string();
                self.loops.iter().rposition(|frame| frame.name.as_deref() == Some(name.as_str()))
            }
        };
        if found.is_none() {
            match label {
                Some(label) => self.error(label, format!("no loop here is labelled `{label}`")),
                None => self.error(token, "this stands outside of any loop: write `return`, or remove it"),
            }
        }
        found
    }

    pub fn exit(&mut self, e: &Expr, exit: &ExprBreak) -> Node {
        let at = At::of(e);
        let Some(index) = self.frame(&exit.label, &exit.break_token) else { return Node::error(at) };
        let label = self.loops[index].label;
        let result = self.loops[index].result.clone();
        let value = match (&exit.expr, &result) {
            (Some(value), Some(result)) => Some(self.expect(value, result)),
            (Some(value), None) => {
                self.error(value, "only `loop` gives a value: write `loop`, or set a variable before `break`");
                None
            }
            (None, Some(result)) => {
                if !self.vars.unify(result, &Type::Unit) {
                    let expected = self.world.quoted(&self.vars, result);
                    self.error(
                        &exit.break_token,
                        format!("this loop gives a value of type {expected}: write `break value`"),
                    );
                }
                None
            }
            (None, None) => None,
        };
        self.loops[index].broken = true;
        Node::new(Type::Never, at, move |f| {
            let value = value.map(|value| value.boxed(f));
            match value {
                Some(value) if value.ty == Ty::Unit => last_words(*value, ExprKind::Break { label, value: None }),
                value => ExprKind::Break { label, value },
            }
        })
    }

    pub fn next(&mut self, e: &Expr, next: &ExprContinue) -> Node {
        let at = At::of(e);
        let Some(index) = self.frame(&next.label, &next.continue_token) else { return Node::error(at) };
        let label = self.loops[index].label;
        Node::new(Type::Never, at, move |_| ExprKind::Continue { label })
    }

    pub fn give_back(&mut self, e: &Expr, exit: &ExprReturn) -> Node {
        let result = self.result.clone();
        let value = match &exit.expr {
            Some(value) if result == Type::Unit => {
                let node = self.expr(value, Hint::None);
                if node.ty != Type::Never && !self.vars.unify(&node.ty, &Type::Unit) {
                    let advice = "this function gives nothing back: write `return;`, or give it a result, `-> T`";
                    self.error(value, advice);
                }
                return Node::new(Type::Never, At::of(e), |f| last_words(node.finish(f), ExprKind::Return(None)));
            }
            Some(value) => Some(self.expect(value, &result)),
            None => {
                if !self.vars.unify(&Type::Unit, &result) {
                    let expected = self.world.quoted(&self.vars, &result);
                    self.error(&exit.return_token, format!("this function gives {expected}: write `return value;`"));
                }
                None
            }
        };
        Node::new(Type::Never, At::of(e), |f| {
            let value = value.map(|value| value.boxed(f));
            ExprKind::Return(value)
        })
    }
}

fn hint_of(join: &Join) -> Hint<'_> {
    join.ty.as_ref().map_or(Hint::None, Hint::Is)
}

fn joined(join: Join) -> Type {
    match join.ty {
        Some(ty) if !join.all_diverge => ty,
        _ => Type::Never,
    }
}

/// `return value` or `break value` where the value is nothing: it is run, then control leaves.
fn last_words(value: crate::ir::Expr, exit: ExprKind) -> ExprKind {
    let exit = crate::ir::Expr { ty: Ty::Never, span: value.span, kind: exit };
    let statements = vec![Statement::Expr(value), Statement::Expr(exit)];
    ExprKind::Block(Block { statements, value: None, ty: Ty::Never })
}

fn range_under(e: &Expr) -> Option<(String, String)> {
    match e {
        Expr::Paren(inner) => range_under(&inner.expr),
        Expr::Range(range) => Some((sketch(range.start.as_ref()?), sketch(range.end.as_ref()?))),
        _ => None,
    }
}
