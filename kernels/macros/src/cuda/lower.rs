//! The functions of a module as C++ statements.
//!
//! An expression is lowered to statements that are written at once, and a [`Value`]: C++ text without effects.
//! When lowering a later operand writes statements, the values of the operands before it are first kept in
//! constants, so that nothing is read later than Rust would read it. Where control does not come back from an
//! expression there is no value, and nothing more is written.
//!
//! A function that can fault returns an `rh::Fault` and gives its result through its first parameter; its
//! callers return the fault at once.

use super::names;
use super::patterns::{self, Alternative};
use super::threads::Inside;
use crate::faults;
use crate::ir::{
    Argument, Arm, BinOp, Block, Builtin, Expr, ExprKind, Float, Function, Local, Module, ParamKind, Pass, Place,
    Projection, Statement, Ty, UnOp,
};
use crate::native::line;

pub fn emit(module: &Module) -> String {
    let namespace = names::namespace(&module.ident);
    let functions: Vec<_> = (0..module.functions.len()).map(|id| Lower::new(module, id).function()).collect();
    format!("namespace {namespace} {{\n{}{}}}  // namespace {namespace}\n", functions.concat(), actor(module))
}

/// What a device's worker is a template over.
fn actor(module: &Module) -> String {
    let handle = &module.functions[module.handle];
    let arguments = handle.params.iter().map(|param| match (param.kind, param.pass) {
        (ParamKind::Context, _) => "&context",
        (_, Pass::Value) if handle.locals[param.local.0].ty == Ty::Enum(module.message) => "message",
        (_, Pass::Value) => "state",
        _ if handle.locals[param.local.0].ty == Ty::Enum(module.message) => "&message",
        _ => "&state",
    });
    let call =
        format!("{}({})", names::function(module.handle, &handle.ident), arguments.collect::<Vec<_>>().join(", "));
    let wide = if module.threads_per_actor > 1 { "\n        rh::check_wide_context(context);" } else { "" };
    let run = if handle.can_fault { format!("return {call};") } else { format!("{call};\n        return 0;") };
    format!(
        "struct Actor {{
    typedef {} State;
    typedef {} Message;
    typedef {} Reply;
    static constexpr rh::u32 type = type_id;
    static constexpr rh::u32 threads_per_actor = {};
    static constexpr bool can_fault = {};
    template <class Context>
    RH_FN_MEMBER rh::Fault handle(State& state, const Message& message, Context& context) {{
        rh::check_context<Message, Reply>(context, context);{wide}
        {run}
    }}
}};
",
        names::ty(module, &Ty::Struct(module.state)),
        names::ty(module, &Ty::Enum(module.message)),
        names::ty(module, &Ty::Enum(module.reply)),
        module.threads_per_actor,
        handle.can_fault,
    )
}

/// What an expression came to: text without effects.
#[derive(Clone)]
pub struct Value {
    pub text: String,
    /// Whether the text means the same later on.
    stable: bool,
}

impl Value {
    pub fn stable(text: impl Into<String>) -> Value {
        Value { text: text.into(), stable: true }
    }

    fn now(text: impl Into<String>) -> Value {
        Value { text: text.into(), stable: false }
    }

    pub fn unit() -> Value {
        Value::stable("")
    }
}

/// A loop around the code being written.
pub struct Around {
    label: u32,
    /// The number of its C++ labels: one Rust loop may be written twice, in the guard of an or-pattern.
    number: u32,
    breaks_from_inside: bool,
    continues_from_inside: bool,
    has_break: bool,
    result: Option<String>,
}

/// What the operand of a call or an operator is.
enum Operand<'a> {
    Expr(&'a Expr),
    Argument(&'a Argument),
}

pub struct Lower<'a> {
    module: &'a Module,
    pub function: &'a Function,
    pub id: usize,
    lines: Vec<String>,
    pub indent: usize,
    numbers: u32,
    pub around: Vec<Around>,
    /// The line of the source that was last named in a comment.
    pub line: u32,
    /// In the body of a data-parallel loop.
    pub inside: Option<Inside>,
    /// The structs of the function's data-parallel loops.
    pub loops: Vec<String>,
}

impl<'a> Lower<'a> {
    fn new(module: &'a Module, id: usize) -> Lower<'a> {
        Lower {
            module,
            function: &module.functions[id],
            id,
            lines: Vec::new(),
            indent: 1,
            numbers: 0,
            around: Vec::new(),
            line: 0,
            inside: None,
            loops: Vec::new(),
        }
    }

    fn function(mut self) -> String {
        let (id, function) = (self.id, self.function);
        let mut params = Vec::new();
        if function.can_fault && function.result != Ty::Unit {
            params.push(format!("{}* out", self.ty(&function.result)));
        }
        for param in &function.params {
            let local = &function.locals[param.local.0];
            let (name, ty) = (names::local(function, param.local), self.ty(&local.ty));
            match (param.kind, param.pass) {
                (ParamKind::Context, _) => params.push(format!("Context* {name}")),
                _ if local.ty == Ty::Unit => {}
                (_, Pass::Value) => params.push(format!("{ty} {name}")),
                (_, Pass::Ref) => params.push(format!("const {ty}* {name}")),
                (_, Pass::RefMut) => params.push(format!("{ty}* {name}")),
            }
        }
        if let Some(value) = self.block(&function.body) {
            self.return_value(value);
        }
        let template = if self.context().is_some() { "template <class Context>\n" } else { "" };
        let result = if function.can_fault { "rh::Fault".into() } else { self.ty(&function.result) };
        let name = names::function(id, &function.ident);
        let mut text = self.loops.concat();
        text.push_str(&format!("{template}RH_FN {result} {name}({}) {{\n", params.join(", ")));
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("}\n");
        text
    }

    // ---- Writing.

    pub fn put(&mut self, line: impl AsRef<str>) {
        self.lines.push(format!("{:width$}{}", "", line.as_ref(), width = self.indent * 4));
    }

    pub fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    /// A comment that maps what follows to its line of Rust.
    fn mark(&mut self, line: u32) {
        if line != 0 && line != self.line {
            self.line = line;
            self.put(format!("// line {line}"));
        }
    }

    /// Writes what `inner` does into lines of its own, one level deeper.
    pub fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> (Vec<String>, T) {
        let outside = std::mem::take(&mut self.lines);
        self.indent += 1;
        let result = inner(self);
        self.indent -= 1;
        (std::mem::replace(&mut self.lines, outside), result)
    }

    /// A constant that holds the value from here on.
    fn hold(&mut self, value: Value, ty: &Ty) -> Value {
        // What is held is used twice: a stable value too is worked out once, unless it is a name or a number.
        let is_work = ["::", "?", "&&", "||"].iter().any(|sign| value.text.contains(sign));
        if *ty == Ty::Unit || (value.stable && !is_work) {
            return value;
        }
        let name = format!("t{}", self.number());
        self.put(format!("const {} {name} = {};", self.ty(ty), value.text));
        Value::stable(name)
    }

    pub fn ty(&self, ty: &Ty) -> String {
        names::ty(self.module, ty)
    }

    pub fn local(&self, local: Local) -> String {
        let name = names::local(self.function, local);
        match &self.inside {
            Some(inside) if inside.reduced.contains(&local) => format!("partial.{name}"),
            _ => name,
        }
    }

    fn context(&self) -> Option<String> {
        let mut params = self.function.params.iter();
        params.find(|param| param.kind == ParamKind::Context).map(|param| self.local(param.local))
    }

    fn return_value(&mut self, value: Value) {
        match (self.function.can_fault, self.function.result == Ty::Unit) {
            (true, true) => self.put("return 0;"),
            (true, false) => {
                self.put(format!("*out = {};", value.text));
                self.put("return 0;");
            }
            (false, true) => self.put("return;"),
            (false, false) => self.put(format!("return {};", value.text)),
        }
    }

    fn fault_if(&mut self, condition: String, kind: &str, line: u32) {
        self.put(format!("if ({condition}) return rh::fault(rh::{kind}, {line}u);"));
    }

    // ---- Statements.

    /// In the same C++ scope: the names of locals are unique in their function.
    pub fn block(&mut self, block: &Block) -> Option<Value> {
        for statement in &block.statements {
            match statement {
                Statement::Let { local, value } => self.declare(*local, value.as_ref())?,
                Statement::Expr(expr) => {
                    self.mark(line(expr.span));
                    self.expr(expr)?;
                }
            }
        }
        match &block.value {
            Some(value) => {
                self.mark(line(value.span));
                self.expr(value)
            }
            None if block.ty == Ty::Never => None,
            None => Some(Value::unit()),
        }
    }

    fn declare(&mut self, local: Local, value: Option<&Expr>) -> Option<()> {
        let info = &self.function.locals[local.0];
        if let Some(value) = value {
            self.mark(line(value.span));
        }
        let value = match value {
            Some(value) => Some(self.expr(value)?),
            None => None,
        };
        if info.ty == Ty::Unit {
            return Some(());
        }
        let (ty, name) = (self.ty(&info.ty), self.local(local));
        match value {
            Some(value) if info.mutable => self.put(format!("{ty} {name} = {};", value.text)),
            Some(value) => self.put(format!("const {ty} {name} = {};", value.text)),
            None => self.put(format!("{ty} {name};")),
        }
        Some(())
    }

    // ---- Expressions.

    fn expr(&mut self, expr: &Expr) -> Option<Value> {
        let ty = &expr.ty;
        Some(match &expr.kind {
            ExprKind::Bool(value) => Value::stable(value.to_string()),
            ExprKind::Int(value) => match ty {
                Ty::Int(int) => Value::stable(names::int_literal(*value, *int)),
                _ => unreachable!("an integer literal has an integer type"),
            },
            ExprKind::Float(value) => {
                let float = if *ty == Ty::Float(Float::F32) { Float::F32 } else { Float::F64 };
                Value::stable(names::float_literal(*value, float))
            }
            ExprKind::Place(place) => self.read(place)?,
            ExprKind::Array(items) => {
                let values = self.exprs(items)?;
                Value {
                    stable: values.iter().all(|value| value.stable),
                    text: format!("{}{{{{{}}}}}", self.ty(ty), texts(&values).join(", ")),
                }
            }
            ExprKind::Repeat(value, length) => {
                let item = self.ty(&value.ty);
                let value = self.expr(value)?;
                Value { text: format!("rh::repeat<{item}, {length}>({})", value.text), ..value }
            }
            ExprKind::Struct { fields, .. } => {
                let values = self.operands(fields.iter().map(|(_, value)| Operand::Expr(value)))?;
                let declared = in_declared_order(fields, &values);
                Value {
                    stable: values.iter().all(|value| value.stable),
                    text: format!("{}{{{}}}", self.ty(ty), declared.join(", ")),
                }
            }
            ExprKind::Variant { id, variant, fields } => {
                let definition = &self.module.enums[*id].variants[*variant];
                let values = self.operands(fields.iter().map(|(_, value)| Operand::Expr(value)))?;
                let declared = in_declared_order(fields, &values);
                Value {
                    stable: values.iter().all(|value| value.stable),
                    text: format!("{}({})", names::make(*id, &definition.ident), declared.join(", ")),
                }
            }
            ExprKind::ForeignVariant { foreign, variant, fields } => {
                let values = self.operands(fields.iter().map(|(_, value)| Operand::Expr(value)))?;
                let message = names::foreign_message(self.module, *foreign);
                let name = format!("t{}", self.number());
                self.put(format!("{message} {name};"));
                self.put(format!("{name}.tag = {message}::{};", names::tag(variant)));
                for ((field, _), value) in fields.iter().zip(&values) {
                    let member = format!("{name}.{}.{}", names::variant(variant), names::field(field));
                    self.put(format!("rh::set({member}, {});", value.text));
                }
                Value::stable(name)
            }
            ExprKind::MakeId { foreign, key } => {
                let number = match foreign {
                    Some(foreign) => format!("{}::type_id", names::foreign_namespace(self.module, *foreign)),
                    None => "type_id".into(),
                };
                let key = self.expr(key)?;
                Value { text: format!("rh::make_id({number}, {})", key.text), ..key }
            }
            ExprKind::Unary(op, value) => {
                let function = if *op == UnOp::Neg { "neg" } else { "bit_not" };
                self.pure(function, [&**value])?
            }
            ExprKind::Binary(op, left, right) => {
                let values = self.exprs([&**left, right])?;
                self.binary(*op, &left.ty, [values[0].clone(), values[1].clone()], right, line(expr.span))
            }
            ExprKind::And(left, right) => self.short_circuit(left, right, "&&")?,
            ExprKind::Or(left, right) => self.short_circuit(left, right, "||")?,
            ExprKind::Cast(value) => {
                let from_enum = matches!(value.ty, Ty::Enum(_));
                let value = self.expr(value)?;
                let tag = if from_enum { ".tag" } else { "" };
                Value { text: format!("rh::cast<{}>({}{tag})", self.ty(ty), value.text), ..value }
            }
            ExprKind::Assign(place, value) => {
                let value_type = &value.ty;
                let (value, place) = self.value_then_place(value, place)?;
                if *value_type != Ty::Unit {
                    self.put(format!("{} = {};", place.text, value.text));
                }
                Value::unit()
            }
            ExprKind::AssignOp(op, place, value) => {
                let (right, target) = self.value_then_place(value, place)?;
                let left = Value::now(target.text.clone());
                let result = self.binary(*op, &place.ty, [left, right], value, line(expr.span));
                self.put(format!("{} = {};", target.text, result.text));
                Value::unit()
            }
            ExprKind::Call { function, arguments } => self.call(*function, arguments)?,
            ExprKind::Builtin(builtin, arguments) => self.builtin(*builtin, arguments, ty, line(expr.span))?,
            ExprKind::If { condition, then, otherwise } => self.branch(condition, then, otherwise.as_deref(), ty)?,
            ExprKind::Match { subject, arms } => self.select(subject, arms, ty)?,
            ExprKind::Block(block) => self.block(block)?,
            ExprKind::Loop { label, body } => self.endless(*label, body, ty)?,
            ExprKind::While { label, condition, body } => self.while_loop(*label, condition, body)?,
            ExprKind::For { label, local, from, to, inclusive, body } => {
                self.for_loop(*label, *local, [&**from, to], *inclusive, body)?
            }
            ExprKind::Threads(threads) => self.threads(threads)?,
            ExprKind::Break { label, value } => {
                let value = match value {
                    Some(value) => Some(self.expr(value)?),
                    None => None,
                };
                self.leave(*label, value);
                return None;
            }
            ExprKind::Continue { label } => {
                self.repeat_loop(*label);
                return None;
            }
            ExprKind::Return(value) => {
                let value = match value {
                    Some(value) => self.expr(value)?,
                    None => Value::unit(),
                };
                self.return_value(value);
                return None;
            }
            ExprKind::CtxId if self.inside.is_some() => Value::stable("self_id"),
            ExprKind::CtxSender if self.inside.is_some() => Value::stable("sender_id"),
            ExprKind::CtxNow if self.inside.is_some() => Value::stable("stamp"),
            ExprKind::CtxId => Value::stable(format!("{}->id()", self.the_context())),
            ExprKind::CtxSender => Value::stable(format!("{}->sender()", self.the_context())),
            ExprKind::CtxNow => Value::stable(format!("{}->now()", self.the_context())),
            ExprKind::CtxReply(reply) => {
                let reply = self.expr(reply)?;
                self.put(format!("{}->reply({});", self.the_context(), reply.text));
                Value::unit()
            }
            ExprKind::CtxSend { to, message } => {
                let values = self.exprs([&**to, message])?;
                let context = self.the_context();
                self.put(format!("{context}->send(0ull, {}, {});", values[0].text, values[1].text));
                Value::unit()
            }
            ExprKind::CtxSendAfter { delay_us, to, message } => {
                let values = self.exprs([&**delay_us, to, message])?;
                self.put(format!("{}->send({});", self.the_context(), texts(&values).join(", ")));
                Value::unit()
            }
            ExprKind::CtxStop => {
                self.put(format!("{}->stop();", self.the_context()));
                Value::unit()
            }
            ExprKind::IdKey(id) => {
                let id = self.expr(id)?;
                Value { text: format!("{}.key", id.text), ..id }
            }
            ExprKind::IdType(id) => {
                let id = self.expr(id)?;
                Value { text: format!("{}.type", id.text), ..id }
            }
        })
    }

    pub fn the_context(&self) -> String {
        self.context().expect("a function that uses the context has it as a parameter")
    }

    /// A function of `rh` over operands, without effects.
    fn pure<'e>(&mut self, function: &str, operands: impl IntoIterator<Item = &'e Expr>) -> Option<Value> {
        let values = self.exprs(operands)?;
        Some(apply(function, &values))
    }

    pub fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Option<Vec<Value>> {
        self.operands(exprs.into_iter().map(Operand::Expr))
    }

    /// The values of operands evaluated one after another.
    fn operands<'e>(&mut self, operands: impl IntoIterator<Item = Operand<'e>>) -> Option<Vec<Value>> {
        // Where each value was had, and its type.
        let mut values: Vec<(Value, Ty, usize)> = Vec::new();
        for operand in operands {
            let (value, ty) = match operand {
                Operand::Expr(expr) => (self.expr(expr)?, expr.ty.clone()),
                Operand::Argument(Argument::Value(expr)) => (self.expr(expr)?, expr.ty.clone()),
                Operand::Argument(Argument::Ref(place) | Argument::RefMut(place)) => {
                    (self.address(place)?, place.ty.clone())
                }
                Operand::Argument(Argument::Context) => (Value::stable(self.the_context()), Ty::Unit),
            };
            values.push((value, ty, self.lines.len()));
        }
        let end = self.lines.len();
        for (value, ty, at) in values.iter_mut().rev() {
            if *at == end || value.stable {
                continue;
            }
            // Something was written after this value was had: keep it from before.
            let after = self.lines.split_off(*at);
            *value = self.hold(value.clone(), ty);
            self.lines.extend(after);
        }
        Some(values.into_iter().map(|(value, ..)| value).collect())
    }

    /// For an assignment: the value, then the place's indexes.
    fn value_then_place(&mut self, value: &Expr, place: &Place) -> Option<(Value, Value)> {
        let had = self.expr(value)?;
        let at = self.lines.len();
        let place = self.place(place)?;
        if self.lines.len() == at || had.stable {
            return Some((had, place));
        }
        let after = self.lines.split_off(at);
        let had = self.hold(had, &value.ty);
        self.lines.extend(after);
        Some((had, place))
    }

    // ---- Places.

    /// The text of a place, its indexes evaluated and checked.
    fn place(&mut self, place: &Place) -> Option<Value> {
        let root = self.local(place.root);
        let mut text = if place.deref { format!("(*{root})") } else { root.clone() };
        for (position, projection) in place.projections.iter().enumerate() {
            match projection {
                Projection::Field { id, index } => {
                    let field = names::field(&self.module.structs[*id].fields[*index].ident);
                    text = match position {
                        0 if place.deref => format!("{root}->{field}"),
                        _ => format!("{text}.{field}"),
                    };
                }
                Projection::Index { index, length, span } => {
                    let index = self.index(index, *length, line(*span))?;
                    text = format!("{text}.v[{index}]");
                }
            }
        }
        Some(Value { text, stable: !place.deref && !self.function.locals[place.root.0].mutable })
    }

    fn index(&mut self, index: &Expr, length: u32, line: u32) -> Option<String> {
        if let Some(known) = faults::known_index(index, length) {
            return Some(format!("{known}u"));
        }
        let value = self.expr(index)?;
        let value = self.hold(value, &index.ty);
        self.fault_if(format!("rh::outside({}, {length}u)", value.text), "index_out_of_bounds", line);
        Some(value.text)
    }

    fn read(&mut self, place: &Place) -> Option<Value> {
        let value = self.place(place)?;
        Some(if place.ty == Ty::Unit { Value::unit() } else { value })
    }

    fn address(&mut self, place: &Place) -> Option<Value> {
        if place.deref && place.projections.is_empty() {
            return Some(Value::stable(self.local(place.root)));
        }
        let value = self.place(place)?;
        // The indexes are constants by now, so the address is one too.
        Some(Value::stable(format!("&{}", value.text)))
    }

    // ---- Operators and calls.

    fn binary(&mut self, op: BinOp, of: &Ty, [a, b]: [Value; 2], right: &Expr, line: u32) -> Value {
        let is_int = matches!(of, Ty::Int(_));
        let [a, b] = match of {
            Ty::Enum(_) => [a, b].map(|value| Value { text: format!("{}.tag", value.text), ..value }),
            _ => [a, b],
        };
        let function = match op {
            BinOp::Add => "add",
            BinOp::Sub => "sub",
            BinOp::Mul => "mul",
            BinOp::Div | BinOp::Rem => {
                let function = if op == BinOp::Div { "div" } else { "rem" };
                if is_int && !faults::known_divisor(right) {
                    return self.checked_division(function, [a, b], &right.ty, line);
                }
                function
            }
            BinOp::BitAnd => "bit_and",
            BinOp::BitOr => "bit_or",
            BinOp::BitXor => "bit_xor",
            BinOp::Shl | BinOp::Shr => {
                let function = if op == BinOp::Shl { "shl" } else { "shr" };
                let count = Value { text: format!("rh::cast<rh::u32>({})", b.text), ..b };
                return apply(function, &[a, count]);
            }
            BinOp::Eq => "eq",
            BinOp::Ne => "ne",
            BinOp::Lt => "lt",
            BinOp::Le => "le",
            BinOp::Gt => "gt",
            BinOp::Ge => "ge",
        };
        apply(function, &[a, b])
    }

    fn checked_division(&mut self, function: &str, [a, b]: [Value; 2], ty: &Ty, line: u32) -> Value {
        let b = self.hold(b, ty);
        self.fault_if(format!("rh::is_zero({})", b.text), "division_by_zero", line);
        apply(function, &[a, b])
    }

    fn short_circuit(&mut self, left: &Expr, right: &Expr, operator: &str) -> Option<Value> {
        let left = self.expr(left)?;
        let (lines, value) = self.nested(|inner| inner.expr(right));
        if let (true, Some(right)) = (is_quiet(&lines), &value) {
            let text = format!("({} {operator} {})", left.text, right.text);
            return Some(Value { text, stable: left.stable && right.stable });
        }
        let name = format!("t{}", self.number());
        self.put(format!("bool {name} = {};", left.text));
        self.put(if operator == "&&" { format!("if ({name}) {{") } else { format!("if (!{name}) {{") });
        self.lines.extend(lines);
        if let Some(value) = value {
            self.put(format!("    {name} = {};", value.text));
        }
        self.put("}");
        Some(Value::stable(name))
    }

    fn call(&mut self, id: usize, arguments: &[Argument]) -> Option<Value> {
        let function = &self.module.functions[id];
        let values = self.operands(arguments.iter().map(Operand::Argument))?;
        let mut texts = texts(&values);
        // A unit has no parameter in C++.
        texts.retain(|text| !text.is_empty());
        let name = names::function(id, &function.ident);
        let has_result = function.result != Ty::Unit;
        let result = format!("t{}", self.number());
        if !function.can_fault {
            let call = format!("{name}({});", texts.join(", "));
            self.put(if has_result { format!("const {} {result} = {call}", self.ty(&function.result)) } else { call });
        } else {
            if has_result {
                self.put(format!("{} {result};", self.ty(&function.result)));
                texts.insert(0, format!("&{result}"));
            }
            self.put(format!("if (const rh::Fault fault = {name}({})) return fault;", texts.join(", ")));
        }
        Some(if has_result { Value::stable(result) } else { Value::unit() })
    }

    fn builtin(&mut self, builtin: Builtin, arguments: &[Expr], result: &Ty, line: u32) -> Option<Value> {
        use Builtin::*;
        let values = self.exprs(arguments)?;
        let function = match builtin {
            WrappingAdd => "add",
            WrappingSub => "sub",
            WrappingMul => "mul",
            WrappingNeg => "neg",
            WrappingShl => "shl",
            WrappingShr => "shr",
            SaturatingAdd => "saturating_add",
            SaturatingSub => "saturating_sub",
            SaturatingMul => "saturating_mul",
            Pow => "pow",
            RotateLeft => "rotate_left",
            RotateRight => "rotate_right",
            LeadingZeros => "leading_zeros",
            TrailingZeros => "trailing_zeros",
            CountOnes => "count_ones",
            CountZeros => "count_zeros",
            SwapBytes => "swap_bytes",
            ReverseBits => "reverse_bits",
            AbsDiff => "abs_diff",
            UnsignedAbs => "unsigned_abs",
            Abs | FloatAbs => "abs",
            Signum => "signum",
            IsPositive => "is_positive",
            IsNegative => "is_negative",
            DivEuclid | RemEuclid => {
                let function = if builtin == DivEuclid { "div_euclid" } else { "rem_euclid" };
                if !faults::known_divisor(&arguments[1]) {
                    let values = [values[0].clone(), values[1].clone()];
                    return Some(self.checked_division(function, values, result, line));
                }
                function
            }
            IsPowerOfTwo => "is_power_of_two",
            Min => "min",
            Max => "max",
            Clamp => {
                if faults::known_bounds(&arguments[1], &arguments[2]) {
                    return Some(apply("clamp", &values));
                }
                let low = self.hold(values[1].clone(), result);
                let high = self.hold(values[2].clone(), result);
                self.fault_if(format!("rh::bounds_crossed({}, {})", low.text, high.text), "clamp_bounds", line);
                return Some(apply("clamp", &[values[0].clone(), low, high]));
            }
            Sqrt => "sqrt",
            Floor => "floor",
            Ceil => "ceil",
            Trunc => "trunc",
            Round => "round",
            MulAdd => "mul_add",
            IsNan => "is_nan",
            IsFinite => "is_finite",
            IsInfinite => "is_infinite",
            ToBits => "to_bits",
            FromBits => "from_bits",
        };
        Some(apply(function, &values))
    }

    // ---- Branches.

    fn branch(&mut self, condition: &Expr, then: &Block, otherwise: Option<&Expr>, ty: &Ty) -> Option<Value> {
        let condition = self.expr(condition)?;
        let (then_lines, then_value) = self.nested(|inner| inner.block(then));
        let (else_lines, else_value) = self.nested(|inner| match otherwise {
            Some(otherwise) => inner.expr(otherwise),
            None => Some(Value::unit()),
        });
        if let (Some(a), Some(b)) = (&then_value, &else_value)
            && has_value(ty)
            && is_quiet(&then_lines)
            && is_quiet(&else_lines)
        {
            let text = format!("({} ? {} : {})", condition.text, a.text, b.text);
            return Some(Value { text, stable: condition.stable && a.stable && b.stable });
        }
        let result = self.result(ty);
        let comes_back = then_value.is_some() || else_value.is_some();
        self.put(format!("if ({}) {{", condition.text));
        self.lines.extend(then_lines);
        self.give(&result, then_value);
        let is_empty = else_lines.is_empty() && (result.is_none() || else_value.is_none());
        if !is_empty {
            self.put("} else {");
            self.lines.extend(else_lines);
            self.give(&result, else_value);
        }
        self.put("}");
        comes_back.then(|| Value::stable(result.unwrap_or_default()))
    }

    /// Declares what the branches leave their value in.
    fn result(&mut self, ty: &Ty) -> Option<String> {
        if !has_value(ty) {
            return None;
        }
        let name = format!("t{}", self.number());
        self.put(format!("{} {name};", self.ty(ty)));
        Some(name)
    }

    /// At the end of a branch, one level deeper.
    fn give(&mut self, result: &Option<String>, value: Option<Value>) {
        if let (Some(result), Some(value)) = (result, value) {
            self.put(format!("    {result} = {};", value.text));
        }
    }

    fn select(&mut self, subject: &Expr, arms: &[Arm], ty: &Ty) -> Option<Value> {
        let value = match &subject.kind {
            // Rust matches on the place itself; nothing can change it before an arm is chosen.
            ExprKind::Place(place) => self.read(place)?,
            _ => {
                let value = self.expr(subject)?;
                self.hold(value, &subject.ty)
            }
        };
        let result = self.result(ty);
        let done = format!("matched_{}", self.number());
        let guarded = arms.iter().any(|arm| arm.guard.is_some());
        let mut comes_back = false;
        let mut jumps = false;
        let mut chain = String::new();
        for (position, arm) in arms.iter().enumerate() {
            let is_last = position + 1 == arms.len();
            let alternatives = patterns::alternatives(self.module, &arm.pattern, &value.text, &subject.ty);
            if guarded {
                let back = self.jumping_arm(arm, &alternatives, &result, &done, is_last, &mut jumps);
                comes_back |= back;
                continue;
            }
            // The last arm takes what is left: the front end has checked that nothing is missing.
            let condition = if is_last { None } else { either(&alternatives) };
            let (lines, body) = self.nested(|inner| {
                inner.bind(&alternatives);
                inner.mark(line(arm.body.span));
                inner.expr(&arm.body)
            });
            comes_back |= body.is_some();
            match &condition {
                Some(condition) => self.put(format!("{chain}if ({condition}) {{")),
                None => self.put(format!("{chain}{{")),
            }
            self.lines.extend(lines);
            self.give(&result, body);
            chain = "} else ".into();
            if condition.is_none() {
                break;
            }
        }
        if !guarded {
            self.put("}");
        }
        if jumps {
            self.put(format!("{done}:;"));
        }
        comes_back.then(|| Value::stable(result.unwrap_or_default()))
    }

    /// An arm of a match in which some arm has a guard: it jumps behind the match when it was taken.
    fn jumping_arm(
        &mut self,
        arm: &Arm,
        alternatives: &[Alternative],
        result: &Option<String>,
        done: &str,
        is_last: bool,
        jumps: &mut bool,
    ) -> bool {
        let mut comes_back = false;
        let mut body = |inner: &mut Self| {
            inner.mark(line(arm.body.span));
            let value = inner.expr(&arm.body);
            if let Some(value) = value {
                comes_back = true;
                if let Some(result) = result {
                    inner.put(format!("{result} = {};", value.text));
                }
                if !is_last {
                    *jumps = true;
                    inner.put(format!("goto {done};"));
                }
            }
        };
        let opening = |condition: Option<String>| match condition {
            Some(condition) => format!("if ({condition}) {{"),
            None => "{".into(),
        };
        let Some(guard) = &arm.guard else {
            let condition = if is_last { None } else { either(alternatives) };
            let (lines, ()) = self.nested(|inner| {
                inner.bind(alternatives);
                body(inner);
            });
            self.put(opening(condition));
            self.lines.extend(lines);
            self.put("}");
            return comes_back;
        };
        if let [alternative] = alternatives {
            let (lines, ()) = self.nested(|inner| {
                inner.bind(alternatives);
                if let Some(holds) = inner.expr(guard) {
                    let (lines, ()) = inner.nested(&mut body);
                    inner.put(format!("if ({}) {{", holds.text));
                    inner.lines.extend(lines);
                    inner.put("}");
                }
            });
            self.put(opening(alternative.condition()));
            self.lines.extend(lines);
            self.put("}");
            return comes_back;
        }
        // Rust tries the guard on each alternative that matches.
        let (lines, ()) = self.nested(|inner| {
            let taken = format!("t{}", inner.number());
            inner.put(format!("bool {taken} = false;"));
            inner.declare_bound(&alternatives[0]);
            for alternative in alternatives {
                let (lines, holds) = inner.nested(|inner| {
                    inner.assign_bound(alternative);
                    inner.expr(guard)
                });
                let tests = alternative.condition().map(|tests| format!(" && {tests}")).unwrap_or_default();
                inner.put(format!("if (!{taken}{tests}) {{"));
                inner.lines.extend(lines);
                inner.give(&Some(taken.clone()), holds);
                inner.put("}");
            }
            let (lines, ()) = inner.nested(&mut body);
            inner.put(format!("if ({taken}) {{"));
            inner.lines.extend(lines);
            inner.put("}");
        });
        self.put("{");
        self.lines.extend(lines);
        self.put("}");
        comes_back
    }

    /// Binds the names of a pattern that has matched.
    fn bind(&mut self, alternatives: &[Alternative]) {
        if let [alternative] = alternatives {
            for bind in &alternative.binds {
                let info = &self.function.locals[bind.local.0];
                if info.ty != Ty::Unit {
                    let constant = if info.mutable { "" } else { "const " };
                    let (ty, name) = (self.ty(&info.ty), self.local(bind.local));
                    self.put(format!("{constant}{ty} {name} = {};", bind.from));
                }
            }
            return;
        }
        if alternatives[0].binds.is_empty() {
            return;
        }
        self.declare_bound(&alternatives[0]);
        let mut chain = "";
        for (position, alternative) in alternatives.iter().enumerate() {
            let is_last = position + 1 == alternatives.len();
            match alternative.condition() {
                Some(condition) if !is_last => self.put(format!("{chain}if ({condition}) {{")),
                _ => self.put(format!("{chain}{{")),
            }
            let (lines, ()) = self.nested(|inner| inner.assign_bound(alternative));
            self.lines.extend(lines);
            chain = "} else ";
            if alternative.condition().is_none() {
                break;
            }
        }
        self.put("}");
    }

    fn declare_bound(&mut self, alternative: &Alternative) {
        for bind in &alternative.binds {
            let ty = self.ty(&self.function.locals[bind.local.0].ty);
            let name = self.local(bind.local);
            self.put(format!("{ty} {name};"));
        }
    }

    fn assign_bound(&mut self, alternative: &Alternative) {
        for bind in &alternative.binds {
            let name = self.local(bind.local);
            self.put(format!("{name} = {};", bind.from));
        }
    }

    // ---- Loops.

    fn around<T>(&mut self, label: u32, result: Option<String>, inner: impl FnOnce(&mut Self) -> T) -> (T, Around) {
        let number = self.number();
        self.around.push(Around {
            label,
            number,
            breaks_from_inside: false,
            continues_from_inside: false,
            has_break: false,
            result,
        });
        let written = inner(self);
        let around = self.around.pop().expect("it was pushed above");
        (written, around)
    }

    fn endless(&mut self, label: u32, body: &Block, ty: &Ty) -> Option<Value> {
        let result = self.result(ty);
        let ((lines, _), around) = self.around(label, result.clone(), |inner| inner.nested(|inner| inner.block(body)));
        self.put_loop("while (true) {", lines, &around);
        around.has_break.then(|| Value::stable(result.unwrap_or_default()))
    }

    fn while_loop(&mut self, label: u32, condition: &Expr, body: &Block) -> Option<Value> {
        // The condition too is inside the C++ loop: from there, an outer loop is left by its label.
        let (((condition_lines, condition), (lines, _)), around) = self.around(label, None, |inner| {
            let condition = inner.nested(|inner| inner.expr(condition));
            (condition, inner.nested(|inner| inner.block(body)))
        });
        let Some(condition) = condition else {
            self.put("{");
            self.lines.extend(condition_lines);
            self.put("}");
            return None;
        };
        if is_quiet(&condition_lines) {
            self.put_loop(&format!("while ({}) {{", condition.text), lines, &around);
        } else {
            let mut whole = condition_lines;
            whole.push(format!("{:w$}if (!({})) break;", "", condition.text, w = self.indent * 4 + 4));
            whole.extend(lines);
            self.put_loop("while (true) {", whole, &around);
        }
        Some(Value::unit())
    }

    fn for_loop(
        &mut self,
        label: u32,
        local: Local,
        bounds: [&Expr; 2],
        inclusive: bool,
        body: &Block,
    ) -> Option<Value> {
        let bound_type = &bounds[0].ty;
        let ty = self.ty(bound_type);
        let values = self.exprs(bounds)?;
        let number = self.number();
        let (count, end) = (format!("i{number}"), format!("end{number}"));
        let first = &values[0].text;
        let one = match bound_type {
            Ty::Int(int) => names::int_literal(1, *int),
            _ => unreachable!("a range is of integers"),
        };
        let info = &self.function.locals[local.0];
        let constant = if info.mutable { "" } else { "const " };
        let name = self.local(local);
        let ((lines, _), around) = self.around(label, None, |inner| {
            inner.nested(|inner| {
                inner.put(format!("{constant}{ty} {name} = {count};"));
                inner.block(body)
            })
        });
        // `first` is read before `end` is declared, as Rust evaluates it first; neither has effects.
        self.put(format!("const {ty} first{number} = {first};"));
        self.put(format!("const {ty} {end} = {};", values[1].text));
        let head = if inclusive {
            // The last number may be the type's largest, so the count stops before it would wrap.
            self.put(format!("bool more{number} = rh::le(first{number}, {end});"));
            format!(
                "for ({ty} {count} = first{number}; more{number}; \
                 more{number} = rh::lt({count}, {end}), {count} = rh::add({count}, {one})) {{"
            )
        } else {
            format!("for ({ty} {count} = first{number}; rh::lt({count}, {end}); {count} = rh::add({count}, {one})) {{")
        };
        self.put_loop(&head, lines, &around);
        Some(Value::unit())
    }

    /// Writes a loop, with labels where an inner loop leaves or repeats it.
    fn put_loop(&mut self, head: &str, lines: Vec<String>, around: &Around) {
        self.put(head);
        if around.continues_from_inside {
            self.put("    {");
            self.lines.extend(lines);
            self.put("    }");
            self.put(format!("    next_{}:;", around.number));
        } else {
            self.lines.extend(lines);
        }
        self.put("}");
        if around.breaks_from_inside {
            self.put(format!("done_{}:;", around.number));
        }
    }

    fn leave(&mut self, label: u32, value: Option<Value>) {
        let (around, is_innermost) = self.find(label);
        around.has_break = true;
        around.breaks_from_inside |= !is_innermost;
        let (result, number) = (around.result.clone(), around.number);
        if let (Some(result), Some(value)) = (result, value) {
            self.put(format!("{result} = {};", value.text));
        }
        self.put(if is_innermost { "break;".into() } else { format!("goto done_{number};") });
    }

    fn repeat_loop(&mut self, label: u32) {
        if self.inside.as_ref().is_some_and(|inside| inside.label == label) {
            return self.put("return 0;");
        }
        let (around, is_innermost) = self.find(label);
        around.continues_from_inside |= !is_innermost;
        let number = around.number;
        self.put(if is_innermost { "continue;".into() } else { format!("goto next_{number};") });
    }

    fn find(&mut self, label: u32) -> (&mut Around, bool) {
        let position = self.around.iter().rposition(|around| around.label == label).expect("labels are resolved");
        let is_innermost = position + 1 == self.around.len();
        (&mut self.around[position], is_innermost)
    }
}

/// Whether nothing but comments was written.
fn is_quiet(lines: &[String]) -> bool {
    lines.iter().all(|line| line.trim_start().starts_with("//"))
}

fn has_value(ty: &Ty) -> bool {
    !matches!(ty, Ty::Unit | Ty::Never)
}

fn apply(function: &str, values: &[Value]) -> Value {
    Value {
        text: format!("rh::{function}({})", texts(values).join(", ")),
        stable: values.iter().all(|value| value.stable),
    }
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().map(|value| value.text.clone()).collect()
}

/// The values of fields that were written in any order.
fn in_declared_order(fields: &[(usize, Expr)], values: &[Value]) -> Vec<String> {
    let mut ordered: Vec<_> = fields.iter().zip(values).map(|((index, _), value)| (*index, value)).collect();
    ordered.sort_by_key(|(index, _)| *index);
    ordered.into_iter().map(|(_, value)| value.text.clone()).collect()
}

/// Whether any alternative matches; nothing where one always does.
fn either(alternatives: &[Alternative]) -> Option<String> {
    let conditions: Option<Vec<_>> = alternatives.iter().map(Alternative::condition).collect();
    let conditions = conditions?;
    match &conditions[..] {
        [only] => Some(only.clone()),
        _ => Some(conditions.iter().map(|condition| format!("({condition})")).collect::<Vec<_>>().join(" || ")),
    }
}
