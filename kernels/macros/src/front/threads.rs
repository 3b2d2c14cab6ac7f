//! `for i in ctx.threads(LOW..HIGH)`: a loop whose iterations are dealt out to the actor's threads.
//!
//! The threads run at the same time and in any order, and the result has to be that of a plain loop. So an
//! iteration may change its own locals, its own item of arrays in the state (`state.cells[i]`), and locals that all
//! iterations only combine into (`sum += e`); what one iteration writes no other reads. The rules are checked on the
//! finished body, where every name is resolved.

use std::collections::HashSet;

use proc_macro2::{Ident, Span};
use syn::{Expr, ExprForLoop, ExprMethodCall};

use super::body::{Checker, Hint, Origin};
use super::errors::At;
use super::infer::Type;
use super::tree::{Finish, Node};
use crate::ir::{
    self, Argument, BinOp, Block, Builtin, Combine, ExprKind, Int, Local, Pattern, Place, Projection, Reduction,
    Statement, Threads, Ty,
};
use crate::layout;

/// What a loop may take along of the locals outside: each thread gets a copy. As in `kernels/cuda/context.cuh`.
const LOOP_BYTES_MAX: u64 = 512;
/// Locals that one loop combines into: eight numbers of eight bytes, as in `kernels/cuda/context.cuh`.
const REDUCTIONS_MAX: usize = 8;

const HOW_TO_COMBINE: &str = "`+=`, `|=`, `&=`, `^=`, `x = x.min(..)` or `x = x.max(..)`";

impl Checker<'_, '_> {
    /// The call of `threads`, where a `for` loop is over one.
    pub fn threads_call<'e>(&self, over: &'e Expr) -> Option<&'e ExprMethodCall> {
        match over {
            Expr::Paren(inner) => self.threads_call(&inner.expr),
            Expr::Group(inner) => self.threads_call(&inner.expr),
            Expr::MethodCall(call) if call.method == "threads" => self.context_named(&call.receiver).map(|_| call),
            _ => None,
        }
    }

    pub fn data_parallel(&mut self, e: &Expr, counted: &ExprForLoop, call: &ExprMethodCall) -> Node {
        let at = At::of(e);
        let is_wide = self.world.threads_per_actor > 1;
        if !is_wide {
            let advice = "one thread runs this actor: write a plain range, `for i in 0..LENGTH`, or let more run it, \
                          `#[ringhold::actor(threads_per_actor = 32)]`";
            self.error(&call.method, advice);
        }
        if let syn::Pat::Ident(syn::PatIdent { mutability: Some(word), .. }) = &*counted.pat {
            self.error(word, "the number of an iteration is what tells its thread from the others: remove `mut`");
        }
        let [Expr::Range(range)] = &call.args.iter().collect::<Vec<_>>()[..] else {
            self.error(&call.method, "`threads` takes the loop's range: write `for i in ctx.threads(0..LENGTH)`");
            return Node::error(at);
        };
        let Some((from, to, inclusive)) = self.range(&Expr::Range(range.clone())) else { return Node::error(at) };
        let (label, local, body) = self.counted_body(counted, from.ty.clone(), Origin::Iteration);
        let mut locals: Vec<(Ident, Type)> =
            self.locals.iter().map(|local| (local.ident.clone(), local.ty.clone())).collect();
        if matches!(*counted.pat, syn::Pat::Wild(_)) {
            // What the advice calls it.
            locals[local.0].0 = Ident::new("i", at.start);
        }
        Node::new(Type::Unit, at, move |f| {
            let (from, to, body) = (from.finish(f), to.finish(f), body.finish(f));
            if !is_wide {
                return ExprKind::For { label, local, from: from.into(), to: to.into(), inclusive, body };
            }
            let found = Rules::check(f, &locals, label, local, &body);
            if layout_bytes(f, &locals, &found, &from.ty) > LOOP_BYTES_MAX {
                let rule = format!(
                    "each thread gets a copy of the locals that this loop reads, more than {LOOP_BYTES_MAX} bytes: keep \
                     what is large in `State`"
                );
                f.world.errors.at(&At::from(at.start), rule);
            }
            ExprKind::Threads(Box::new(Threads {
                label,
                local,
                from,
                to,
                inclusive,
                body,
                captures: found.captures,
                reads_id: found.reads_id,
                reads_sender: found.reads_sender,
                reads_now: found.reads_now,
                reductions: found.reductions,
            }))
        })
    }

    /// `ctx.threads(..)` that is no loop's range.
    pub fn refuse_threads(&mut self, call: &ExprMethodCall, at: At) -> Node {
        self.error(&call.method, "`threads` deals out a loop: write `for i in ctx.threads(0..LENGTH) { .. }`");
        for argument in &call.args {
            if !matches!(argument, Expr::Range(_)) {
                self.expr(argument, Hint::None);
            }
        }
        Node::error(at)
    }
}

/// The size of what the C++ copies to each thread.
fn layout_bytes(f: &mut Finish, locals: &[(Ident, Type)], found: &Found, counter: &Ty) -> u64 {
    let mut parts = vec![layout::of(f.world, counter)];
    for local in &found.captures {
        parts.push(match found.in_state.contains(local) {
            true => layout::of(f.world, &Ty::Int(Int::U64)),
            false => {
                let (ident, ty) = &locals[local.0];
                layout::of(f.world, &f.ty(ty, At::from(ident.span())))
            }
        });
    }
    let ids = usize::from(found.reads_id) + usize::from(found.reads_sender) + usize::from(found.reads_now);
    parts.extend((0..ids).map(|_| layout::of(f.world, &Ty::ActorId)));
    parts.iter().fold(0, |offset: u64, part| offset.next_multiple_of(part.align) + part.size)
}

/// What a body uses of what is outside of it.
#[derive(Default)]
struct Found {
    captures: Vec<Local>,
    /// Of those, the reference parameters.
    in_state: Vec<Local>,
    reads_id: bool,
    reads_sender: bool,
    reads_now: bool,
    reductions: Vec<Reduction>,
}

/// A place in the state that an iteration uses.
struct Access<'b> {
    place: &'b Place,
    writes: bool,
}

struct Rules<'b, 'f, 'w, 'a> {
    f: &'b Finish<'w, 'a>,
    locals: &'f [(Ident, Type)],
    counter: Local,
    /// Declared in the body, with the counter.
    inside: HashSet<Local>,
    /// Of the loop itself, and of the loops in its body.
    label: u32,
    labels: HashSet<u32>,
    accesses: Vec<Access<'b>>,
    /// Reads of locals from outside.
    reads: Vec<(Local, At)>,
    found: Found,
}

impl<'b, 'f, 'w, 'a> Rules<'b, 'f, 'w, 'a> {
    /// Reports what breaks a rule in the body.
    fn check(
        f: &mut Finish<'w, 'a>,
        locals: &'f [(Ident, Type)],
        label: u32,
        counter: Local,
        body: &'b Block,
    ) -> Found {
        let mut rules = Rules {
            f: &*f,
            locals,
            counter,
            inside: HashSet::from([counter]),
            label,
            labels: HashSet::new(),
            accesses: Vec::new(),
            reads: Vec::new(),
            found: Found::default(),
        };
        rules.block(body);
        rules.no_item_is_shared();
        rules.reductions_are_not_read();
        let found = rules.found;
        f.in_state.extend(&found.in_state);
        found
    }

    fn error(&self, at: At, message: impl std::fmt::Display) {
        self.f.world.errors.at(&at, message);
    }

    fn name(&self, local: Local) -> String {
        self.locals[local.0].0.to_string()
    }

    fn block(&mut self, block: &'b Block) {
        for statement in &block.statements {
            match statement {
                Statement::Let { local, value } => {
                    self.all(value);
                    self.inside.insert(*local);
                }
                Statement::Expr(expr) => self.expr(expr),
            }
        }
        self.all(block.value.as_deref());
    }

    fn all(&mut self, exprs: impl IntoIterator<Item = &'b ir::Expr>) {
        exprs.into_iter().for_each(|expr| self.expr(expr));
    }

    fn expr(&mut self, expr: &'b ir::Expr) {
        let at = At::from(expr.span);
        match &expr.kind {
            ExprKind::Bool(_) | ExprKind::Int(_) | ExprKind::Float(_) => {}
            ExprKind::Place(place) => self.read(place),
            ExprKind::Array(items) | ExprKind::Builtin(_, items) => self.all(items),
            ExprKind::Struct { fields, .. } | ExprKind::Variant { fields, .. } => {
                self.all(fields.iter().map(|(_, value)| value));
            }
            ExprKind::ForeignVariant { fields, .. } => self.all(fields.iter().map(|(_, value)| value)),
            ExprKind::Repeat(inner, _)
            | ExprKind::MakeId { key: inner, .. }
            | ExprKind::Unary(_, inner)
            | ExprKind::Cast(inner)
            | ExprKind::IdKey(inner)
            | ExprKind::IdType(inner) => self.expr(inner),
            ExprKind::Binary(_, a, b) | ExprKind::And(a, b) | ExprKind::Or(a, b) => self.all([&**a, b]),
            ExprKind::Assign(place, value) => self.assign(place, value),
            ExprKind::AssignOp(op, place, value) => self.assign_op(*op, place, value, at),
            ExprKind::Call { arguments, .. } => arguments.iter().for_each(|argument| self.argument(argument, at)),
            ExprKind::If { condition, then, otherwise } => {
                self.expr(condition);
                self.block(then);
                self.all(otherwise.as_deref());
            }
            ExprKind::Match { subject, arms } => {
                self.expr(subject);
                for arm in arms {
                    self.bind(&arm.pattern);
                    self.all(&arm.guard);
                    self.expr(&arm.body);
                }
            }
            ExprKind::Block(block) => self.block(block),
            ExprKind::Loop { label, body } => {
                self.labels.insert(*label);
                self.block(body);
            }
            ExprKind::While { label, condition, body } => {
                self.labels.insert(*label);
                self.expr(condition);
                self.block(body);
            }
            ExprKind::For { label, local, from, to, body, .. } => {
                self.labels.insert(*label);
                self.all([&**from, to]);
                self.inside.insert(*local);
                self.block(body);
            }
            ExprKind::Threads(_) => {
                self.error(at, "the threads run one loop at a time: make this one plain, `for j in 0..LENGTH`");
            }
            ExprKind::Break { label, value } => {
                self.all(value.as_deref());
                if !self.labels.contains(label) {
                    let advice = "all iterations run, in any order: write `continue` to end this one";
                    self.error(at, advice);
                }
            }
            ExprKind::Continue { label } => {
                if *label != self.label && !self.labels.contains(label) {
                    self.error(at, "the threads cannot leave their loop: write `continue` to end this iteration");
                }
            }
            ExprKind::Return(value) => {
                self.all(value.as_deref());
                let advice = "the threads cannot leave the function: combine what they find, as in `found |= ..`, and \
                              return behind the loop";
                self.error(at, advice);
            }
            ExprKind::CtxId => self.found.reads_id = true,
            ExprKind::CtxSender => self.found.reads_sender = true,
            ExprKind::CtxNow => self.found.reads_now = true,
            ExprKind::CtxReply(reply) => {
                self.expr(reply);
                self.acts(at);
            }
            ExprKind::CtxSend { to, message } => {
                self.all([&**to, message]);
                self.acts(at);
            }
            ExprKind::CtxSendAfter { delay_us, to, message } => {
                self.all([&**delay_us, to, message]);
                self.acts(at);
            }
            ExprKind::CtxStop => self.acts(at),
        }
    }

    fn acts(&self, at: At) {
        let advice = "the threads only read `ctx`: keep what to send in the state or in a local, and do this behind \
                      the loop";
        self.error(at, advice);
    }

    fn bind(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Wild | Pattern::Bool(_) | Pattern::Int(_) | Pattern::Range { .. } => {}
            Pattern::Bind { local, inner } => {
                self.inside.insert(*local);
                inner.iter().for_each(|inner| self.bind(inner));
            }
            Pattern::Variant { fields, .. } | Pattern::Struct { fields, .. } => {
                fields.iter().for_each(|(_, pattern)| self.bind(pattern));
            }
            Pattern::Or(several) => several.iter().for_each(|pattern| self.bind(pattern)),
        }
    }

    fn argument(&mut self, argument: &'b Argument, call: At) {
        match argument {
            Argument::Value(value) => self.expr(value),
            Argument::Ref(place) => self.read(place),
            Argument::RefMut(place) => self.write(place),
            Argument::Context => {
                self.error(call, "the threads only read `ctx`: call what takes it before or behind the loop");
            }
        }
    }

    // ---- Places.

    fn is_inside(&self, place: &Place) -> bool {
        !place.deref && self.inside.contains(&place.root)
    }

    /// Whether it is a whole local from outside.
    fn is_whole_local(&self, place: &Place) -> bool {
        !place.deref && !self.is_inside(place) && place.projections.is_empty()
    }

    fn is_counter(&self, index: &ir::Expr) -> bool {
        matches!(&index.kind, ExprKind::Place(place) if place.root == self.counter)
    }

    fn indexes(&mut self, place: &'b Place) {
        for projection in &place.projections {
            if let Projection::Index { index, .. } = projection {
                self.expr(index);
            }
        }
    }

    fn capture(&mut self, place: &Place) {
        if !self.found.captures.contains(&place.root) {
            self.found.captures.push(place.root);
            if place.deref {
                self.found.in_state.push(place.root);
            }
        }
    }

    fn read(&mut self, place: &'b Place) {
        self.indexes(place);
        if self.is_inside(place) {
            return;
        }
        self.capture(place);
        if place.deref {
            self.accesses.push(Access { place, writes: false });
        } else {
            self.reads.push((place.root, at(place)));
        }
    }

    fn write(&mut self, place: &'b Place) {
        self.indexes(place);
        if self.is_inside(place) {
            return;
        }
        if !place.deref {
            let name = self.name(place.root);
            let number = if place.projections.is_empty() { "it" } else { "a number beside it" };
            let advice = format!(
                "every thread has its own copy of `{name}`: declare it in the body, or combine into {number} with \
                 {HOW_TO_COMBINE}"
            );
            return self.error(at(place), advice);
        }
        let (text, counter) = (self.text(place), self.name(self.counter));
        let indexes = || place.projections.iter().filter(|projection| matches!(projection, Projection::Index { .. }));
        if indexes().any(|projection| matches!(projection, Projection::Index { index, .. } if self.is_counter(index))) {
            self.capture(place);
            return self.accesses.push(Access { place, writes: true });
        }
        let advice = if indexes().next().is_some() {
            format!(
                "an iteration writes its own item only, that at `[{counter}]`: loop over the items to write, and work \
                 out the indexes of those to read"
            )
        } else if matches!(place.ty, Ty::Array(..)) {
            format!("an iteration writes its own item only: write `{text}[{counter}] = ..`")
        } else {
            format!(
                "every thread would change `{text}` at once: combine into a local with {HOW_TO_COMBINE}, and put that \
                 into `{text}` behind the loop"
            )
        };
        self.error(at(place), advice);
    }

    /// The place as a person writes it, without its indexes.
    fn text(&self, place: &Place) -> String {
        let fields = place.projections.iter().filter_map(|projection| match projection {
            Projection::Field { id, index } => Some(format!(".{}", self.f.world.structs[*id].fields[*index].ident)),
            Projection::Index { .. } => None,
        });
        fields.fold(self.name(place.root), |text, field| text + &field)
    }

    // ---- Combining.

    fn assign(&mut self, place: &'b Place, value: &'b ir::Expr) {
        if let ExprKind::Builtin(builtin @ (Builtin::Min | Builtin::Max), arguments) = &value.kind
            && let ExprKind::Place(receiver) = &arguments[0].kind
            && receiver.root == place.root
            && self.is_whole_local(place)
            && self.is_whole_local(receiver)
        {
            self.expr(&arguments[1]);
            let by = if *builtin == Builtin::Min { Combine::Min } else { Combine::Max };
            return self.combine(place, by, at(place));
        }
        self.expr(value);
        self.write(place);
    }

    fn assign_op(&mut self, op: BinOp, place: &'b Place, value: &'b ir::Expr, operator: At) {
        self.expr(value);
        if !self.is_whole_local(place) {
            return self.write(place);
        }
        let by = match op {
            BinOp::Add => Combine::Add,
            BinOp::BitOr => Combine::Or,
            BinOp::BitAnd => Combine::And,
            BinOp::BitXor => Combine::Xor,
            BinOp::Sub => {
                return self.error(operator, "the threads add up: write `+=`, and subtract the sum behind the loop");
            }
            _ => {
                let advice = format!("the threads combine in any order: there are {HOW_TO_COMBINE}");
                return self.error(operator, advice);
            }
        };
        self.combine(place, by, operator);
    }

    fn combine(&mut self, place: &Place, by: Combine, at: At) {
        let local = place.root;
        match self.found.reductions.iter().find(|reduction| reduction.local == local) {
            Some(other) if other.by != by => {
                let advice = format!("`{}` is combined in another way above: use one local for each", self.name(local));
                self.error(at, advice);
            }
            Some(_) => {}
            None => {
                self.found.reductions.push(Reduction { local, by, ty: place.ty.clone() });
                if self.found.reductions.len() == REDUCTIONS_MAX + 1 {
                    let rule = format!("a loop combines into {REDUCTIONS_MAX} locals at most: write a second loop");
                    self.error(at, rule);
                }
            }
        }
    }

    fn reductions_are_not_read(&self) {
        for (local, at) in &self.reads {
            if self.found.reductions.iter().any(|reduction| reduction.local == *local) {
                let name = self.name(*local);
                self.error(*at, format!("`{name}` is whole only behind the loop that combines into it: read it there"));
            }
        }
    }

    // ---- What one iteration writes no other uses.

    fn no_item_is_shared(&self) {
        for (position, access) in self.accesses.iter().enumerate() {
            let others = self.accesses.iter().enumerate().filter(|(other, _)| *other != position);
            // Of two writes the later one is told.
            let mut clashing = others.filter(|(other, with)| with.writes && (!access.writes || *other < position));
            if clashing.any(|(_, with)| !self.apart(access.place, with.place)) {
                let (text, counter) = (self.text(access.place), self.name(self.counter));
                let advice = format!(
                    "other iterations write here: of `{text}` this one uses its own item, `[{counter}]`; to use others, \
                     write into another array in this loop and copy it back in a second one"
                );
                self.error(at(access.place), advice);
            }
        }
    }

    /// Whether two iterations never mean the same storage by the two places.
    fn apart(&self, a: &Place, b: &Place) -> bool {
        let pairs = a.projections.iter().zip(&b.projections);
        a.root != b.root
            || pairs.into_iter().any(|pair| match pair {
                (Projection::Field { index: a, .. }, Projection::Field { index: b, .. }) => a != b,
                (Projection::Index { index: a, .. }, Projection::Index { index: b, .. }) => {
                    let literals = matches!((&a.kind, &b.kind), (ExprKind::Int(a), ExprKind::Int(b)) if a != b);
                    literals || (self.is_counter(a) && self.is_counter(b))
                }
                _ => false,
            })
    }
}

fn at(place: &Place) -> At {
    let (start, end): (Span, Span) = (place.span, place.end);
    At { start, end }
}
