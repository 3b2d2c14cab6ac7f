//! Random statements, as text.

use super::{BINARY, Generator, Type, Variable, signed};

impl Generator {
    /// Statements written straight into the output; their variables stay in scope.
    pub(super) fn block_lines(&mut self, count: usize, depth: usize) {
        self.indent += 1;
        for _ in 0..count {
            let statement = self.statement(depth);
            for line in statement.lines() {
                self.line(line);
            }
        }
        self.indent -= 1;
    }

    /// `{ statements }`
    pub(super) fn block(&mut self, count: usize, depth: usize) -> String {
        let outside = self.scope.clone();
        let mut statements: Vec<String> = (0..count).map(|_| self.statement(depth)).collect();
        if depth > 0 && !self.loops.is_empty() && self.random.chance(30) {
            let way_out = self.way_out(depth);
            statements.push(way_out);
        }
        self.scope = outside;
        format!("{{\n{}\n}}", statements.join("\n"))
    }

    pub(super) fn statement(&mut self, depth: usize) -> String {
        if depth == 0 || self.budget == 0 {
            return self.assignment(1);
        }
        if self.wide && self.random.chance(10) {
            return self.threads_loop(depth);
        }
        match self.random.below(16) {
            0..=2 => self.declaration(depth),
            3..=6 => self.assignment(depth),
            7 | 8 => {
                let condition = self.expr(&Type::Bool, depth);
                let then = self.block(1, depth - 1);
                let otherwise =
                    if self.random.chance(50) { format!(" else {}", self.block(1, depth - 1)) } else { String::new() };
                format!("if {condition} {then}{otherwise}")
            }
            9 => {
                let (subject, ty) = self.subject(depth);
                let arms = self.arms(&subject, &ty, |this| this.block(1, depth - 1));
                format!("match {subject} {arms}")
            }
            10 => self.for_loop(depth),
            11 => self.while_loop(depth),
            12 => self.call_statement(depth),
            13 => self.effect(depth),
            14 => self.way_out(depth),
            _ => self.later(depth),
        }
    }

    pub(super) fn declaration(&mut self, depth: usize) -> String {
        let ty = self.any_type();
        let value = self.expr(&ty, depth);
        let mutable = self.random.chance(60);
        // Sometimes a name that is taken: the value was still written with the old one.
        let taken: Vec<String> =
            self.scope.iter().filter(|v| v.name.starts_with('v')).map(|v| v.name.clone()).collect();
        let name = if !taken.is_empty() && self.random.chance(20) {
            let name = self.random.pick(&taken).clone();
            self.scope.retain(|variable| variable.name != name);
            name
        } else {
            self.fresh()
        };
        let annotation = if self.random.chance(50) { format!(": {}", self.name(&ty)) } else { String::new() };
        self.scope.push(Variable { name: name.clone(), ty, mutable, reference: false });
        format!("let {}{name}{annotation} = {value};", if mutable { "mut " } else { "" })
    }

    /// `let x; if c { x = a; } else { x = b; }`
    pub(super) fn later(&mut self, depth: usize) -> String {
        let ty = self.scalar();
        let condition = self.expr(&Type::Bool, depth - 1);
        let (a, b) = (self.expr(&ty, depth - 1), self.expr(&ty, depth - 1));
        let name = self.fresh();
        let text =
            format!("let {name}: {};\nif {condition} {{ {name} = {a}; }} else {{ {name} = {b}; }}", self.name(&ty));
        self.scope.push(Variable { name, ty, mutable: false, reference: false });
        text
    }

    pub(super) fn assignment(&mut self, depth: usize) -> String {
        if self.pure {
            return self.declaration(1.min(depth));
        }
        let ty = self.any_type();
        let Some(place) = self.place(&ty, true, depth.saturating_sub(1)) else {
            return self.declaration(1.min(depth));
        };
        let inner = depth.saturating_sub(1).max(1);
        match &ty {
            Type::Int(int) if self.random.chance(60) => {
                let op = *self.random.pick(&BINARY);
                self.note(format!("{op} {int}"));
                let value = match op {
                    "<<" | ">>" => {
                        let count = Type::Int(self.int());
                        self.expr(&count, inner)
                    }
                    "/" | "%" => self.divisor(int, inner),
                    _ => self.expr(&ty, inner),
                };
                format!("{place} {op}= {value};")
            }
            Type::Float(float) if self.random.chance(60) => {
                let op = *self.random.pick(&["+", "-", "*", "/", "%"]);
                self.note(format!("{op} {float}"));
                format!("{place} {op}= {};", self.expr(&ty, inner))
            }
            Type::Bool if self.random.chance(60) => {
                let op = *self.random.pick(&["&", "|", "^"]);
                format!("{place} {op}= {};", self.expr(&ty, inner))
            }
            _ => format!("{place} = {};", self.expr(&ty, inner)),
        }
    }

    pub(super) fn for_loop(&mut self, depth: usize) -> String {
        if self.loops.len() == 2 {
            return self.assignment(depth);
        }
        let int = self.int();
        self.note(format!("for {int}"));
        let ty = Type::Int(int);
        let (from, to, inclusive) = self.bounds(int, depth);
        let label = format!("'a{}", self.names);
        self.names += 1;
        let name = self.fresh();
        let outside = self.scope.clone();
        let mutable = self.random.chance(20);
        self.scope.push(Variable { name: name.clone(), ty, mutable, reference: false });
        self.loops.push((label.clone(), None));
        let body = self.block(2, depth - 1);
        self.loops.pop();
        self.scope = outside;
        let mutable = if mutable { "mut " } else { "" };
        format!("{label}: for {mutable}{name} in {from}{}{to} {body}", if inclusive { "..=" } else { ".." })
    }

    /// Two ends of a range of at most eight numbers, some of them at the edges of the type.
    pub(super) fn bounds(&mut self, int: &'static str, depth: usize) -> (String, String, bool) {
        let inclusive = self.random.chance(50);
        let ty = Type::Int(int);
        match self.random.below(4) {
            0 if inclusive => (format!("({int}::MAX - 2)"), format!("{int}::MAX"), true),
            1 if signed(int) => (format!("{int}::MIN"), format!("({int}::MIN + 3{int})"), inclusive),
            2 => {
                let (from, to) = (self.expr(&ty, depth - 1), self.expr(&ty, depth - 1));
                (format!("({from} & 3{int})"), format!("({to} & 7{int})"), inclusive)
            }
            _ => {
                let to = self.random.below(5);
                (format!("{}{int}", self.random.below(3)), format!("{to}{int}"), inclusive)
            }
        }
    }

    pub(super) fn while_loop(&mut self, depth: usize) -> String {
        if self.loops.len() == 2 {
            return self.assignment(depth);
        }
        self.note("while");
        let count = self.fresh();
        let label = format!("'a{}", self.names);
        self.names += 1;
        let condition = self.expr(&Type::Bool, depth - 1);
        let outside = self.scope.clone();
        self.loops.push((label.clone(), None));
        let body = self.block(2, depth - 1);
        self.loops.pop();
        self.scope = outside;
        format!(
            "let mut {count} = 0u32;\n{label}: while {count} < {}u32 && {condition} {{ {count} += 1u32; {body} }}",
            1 + self.random.below(4)
        )
    }

    pub(super) fn call_statement(&mut self, depth: usize) -> String {
        let callable: Vec<usize> = (0..self.functions.len()).collect();
        if callable.is_empty() {
            return self.assignment(depth);
        }
        let function = *self.random.pick(&callable);
        match self.call(function, depth) {
            Some(call) => format!("{call};"),
            None => self.assignment(depth),
        }
    }

    /// Something done through the context.
    pub(super) fn effect(&mut self, depth: usize) -> String {
        if !self.context || self.pure || self.parallel.is_some() {
            return self.assignment(depth);
        }
        match self.random.below(10) {
            0..=2 => self.reply(),
            3..=5 => {
                self.note("send");
                self.in_context_argument(|this| {
                    let to = if this.random.chance(80) {
                        format!("id({})", this.expr(&Type::Int("u64"), depth - 1))
                    } else {
                        this.expr(&Type::Id, depth - 1)
                    };
                    let message = this.expr(&Type::Enum(2), depth);
                    format!("ctx.send({to}, {message});")
                })
            }
            6 | 7 => {
                self.note("send other");
                self.in_context_argument(|this| {
                    let to = format!("sink::id({})", this.expr(&Type::Int("u64"), depth - 1));
                    let message = this.sink_message(depth);
                    if this.random.chance(50) {
                        format!("ctx.send({to}, {message});")
                    } else {
                        let delay = this.expr(&Type::Int("u64"), depth - 1);
                        format!("ctx.send_after({delay}, {to}, {message});")
                    }
                })
            }
            8 => {
                self.note("stop");
                "ctx.stop();".into()
            }
            _ => self.call_statement(depth),
        }
    }

    pub(super) fn reply(&mut self) -> String {
        self.note("reply");
        self.in_context_argument(|this| format!("ctx.reply({});", this.expr(&Type::Enum(3), 3)))
    }

    pub(super) fn sink_message(&mut self, depth: usize) -> String {
        let inner = depth - 1;
        let field = |this: &mut Generator, name: &str, ty: Type| format!("{name}: {}", this.expr(&ty, inner));
        let int = |name| Type::Int(name);
        let (variant, mut fields) = match self.random.below(4) {
            0 => (
                "Whole",
                vec![
                    field(self, "a", int("i8")),
                    field(self, "b", int("u16")),
                    field(self, "c", int("i32")),
                    field(self, "d", int("u64")),
                ],
            ),
            1 => ("Real", vec![field(self, "single", Type::Float("f32")), field(self, "double", Type::Float("f64"))]),
            2 => (
                "Other",
                vec![
                    field(self, "flag", Type::Bool),
                    field(self, "who", Type::Id),
                    field(self, "items", Type::Array(Box::new(int("u16")), 3)),
                ],
            ),
            _ => return "sink::Message::Nothing".into(),
        };
        // Fields are evaluated as written, whatever order they are declared in.
        fields.reverse();
        format!("sink::Message::{variant} {{ {} }}", fields.join(", "))
    }

    /// While the arguments of a method of `ctx` are written, `ctx` cannot be used to change anything.
    pub(super) fn in_context_argument<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.pure, true);
        let result = inner(self);
        self.pure = before;
        result
    }

    pub(super) fn way_out(&mut self, depth: usize) -> String {
        let condition = self.expr(&Type::Bool, depth - 1);
        let in_loop = self.loops.len();
        if let Some(label) = self.parallel.clone()
            && (in_loop == 0 || self.random.chance(30))
        {
            return format!("if {condition} {{ continue {label}; }}");
        }
        if in_loop > 0 && (self.parallel.is_some() || self.random.chance(80)) {
            let outer = in_loop == 2 && self.random.chance(60);
            let (label, _) = self.loops[if outer { 0 } else { in_loop - 1 }].clone();
            let word = *self.random.pick(&["break", "continue"]);
            if outer {
                self.note(format!("{word} outer"));
            }
            let (_, value) = self.loops[if outer { 0 } else { in_loop - 1 }].clone();
            let label = if outer || self.random.chance(30) { format!(" {label}") } else { String::new() };
            let value = match value {
                Some(ty) if word == "break" => format!(" {}", self.expr(&ty, 1)),
                _ => String::new(),
            };
            return format!("if {condition} {{ {word}{label}{value}; }}");
        }
        self.note("return");
        match self.result.clone() {
            Some(ty) => format!("if {condition} {{ return {}; }}", self.expr(&ty, depth - 1)),
            None => format!("if {condition} {{ return; }}"),
        }
    }
}
