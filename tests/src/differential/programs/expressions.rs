//! Random expressions, as text that stands as an operand.

use super::{
    BINARY, COMPARE, FLOAT_METHODS, Generator, METHODS_1, METHODS_2, METHODS_U32, Type, bits, signed, unsigned,
};

impl Generator {
    pub(super) fn expr(&mut self, ty: &Type, depth: usize) -> String {
        self.budget = self.budget.saturating_sub(1);
        if depth == 0 || self.budget == 0 {
            return self.leaf(ty);
        }
        match self.random.below(15) {
            0 => return self.choice(ty, depth),
            1 => {
                let callable: Vec<usize> =
                    (0..self.functions.len()).filter(|id| self.functions[*id].result.as_ref() == Some(ty)).collect();
                if !callable.is_empty() {
                    let id = *self.random.pick(&callable);
                    if let Some(call) = self.call(id, depth) {
                        return call;
                    }
                }
            }
            2 if !self.pure => return self.with_effect(ty, depth),
            5 if !self.pure => {
                if let Some(text) = self.order(ty, depth) {
                    return text;
                }
            }
            3 | 4 => return self.leaf(ty),
            _ => {}
        }
        match ty {
            Type::Bool => self.bool_expr(depth - 1),
            Type::Int(int) => self.int_expr(int, depth - 1),
            Type::Float(float) => self.float_expr(float, depth - 1),
            Type::Id => self.id_expr(depth - 1),
            _ => self.made(ty, depth - 1),
        }
    }

    /// A branch, or a loop with a value.
    pub(super) fn choice(&mut self, ty: &Type, depth: usize) -> String {
        match self.random.below(4) {
            0 | 1 => {
                self.note("if");
                let (condition, a, b) =
                    (self.expr(&Type::Bool, depth - 1), self.expr(ty, depth - 1), self.expr(ty, depth - 1));
                format!("(if {condition} {{ {a} }} else {{ {b} }})")
            }
            2 => {
                let (subject, of) = self.subject(depth);
                let arms = self.arms(&subject, &of, |this| this.expr(ty, depth - 1));
                format!("(match {subject} {arms})")
            }
            _ if self.loops.len() < 2 => {
                self.note("loop");
                let count = self.fresh();
                let label = format!("'a{}", self.names);
                self.names += 1;
                let outside = self.scope.clone();
                let start = self.expr(ty, depth - 1);
                self.loops.push((label.clone(), Some(ty.clone())));
                let body = if self.pure { String::new() } else { self.block(1, depth - 1) };
                self.loops.pop();
                self.scope = outside;
                let value = self.expr(ty, depth - 1);
                let times = self.random.below(4);
                let held = self.fresh();
                format!(
                    "({{ let {held} = {start}; let mut {count} = 0u8; {label}: loop {{ if {count} == {times}u8 {{ break {label} {}; }} \
                     {count} += 1u8; {body} }} }})",
                    if self.random.chance(50) { held.clone() } else { value }
                )
            }
            _ => self.leaf(ty),
        }
    }

    /// A block that changes something on the way: its place among the operands matters.
    pub(super) fn with_effect(&mut self, ty: &Type, depth: usize) -> String {
        self.note("effect inside");
        let outside = self.scope.clone();
        let statement = self.assignment(depth - 1);
        let value = self.expr(ty, depth - 1);
        self.scope = outside;
        format!("({{ {statement} {value} }})")
    }

    /// A place read, changed and read again in one expression: what comes out tells the order.
    pub(super) fn order(&mut self, ty: &Type, depth: usize) -> Option<String> {
        let (Type::Int(name) | Type::Float(name)) = ty else { return None };
        let place = self.place(ty, true, 0)?;
        self.note("order");
        let change = self.expr(ty, depth - 1);
        let changed = format!("({{ {place} = {change}; {place} }})");
        let op = *self.random.pick(&["+", "-", "*"]);
        Some(match self.random.below(4) {
            0 => format!("({place} {op} {changed})"),
            1 => format!("({changed} {op} {place})"),
            2 => format!("[{place}, {changed}, {place}][{}]", self.random.below(3)),
            _ if name.starts_with('f') => format!("{place}.max({changed})"),
            _ => format!("{place}.wrapping_sub({changed})"),
        })
    }

    pub(super) fn leaf(&mut self, ty: &Type) -> String {
        if self.random.chance(85)
            && let Some(place) = self.place(ty, false, 0)
        {
            return place;
        }
        let consts: Vec<String> = self.consts.iter().filter(|(_, of)| of == ty).map(|(name, _)| name.clone()).collect();
        if !consts.is_empty() && self.random.chance(30) {
            return self.random.pick(&consts).clone();
        }
        if *ty == Type::Bool && self.random.chance(80) {
            // A comparison rather than a literal, which would make all behind it plain.
            let int = Type::Int(self.int());
            if let Some(place) = self.place(&int, false, 0) {
                let op = *self.random.pick(&COMPARE);
                return format!("({place} {op} {})", self.literal(&int));
            }
        }
        match ty {
            Type::Bool | Type::Int(_) | Type::Float(_) => self.literal(ty),
            Type::Id if self.context && self.random.chance(70) => {
                if self.random.chance(50) {
                    "ctx.id()".into()
                } else {
                    "ctx.sender()".into()
                }
            }
            Type::Id => format!("id({}u64)", self.random.below(100)),
            _ => self.made(ty, 0),
        }
    }

    pub(super) fn literal(&mut self, ty: &Type) -> String {
        match ty {
            Type::Bool => self.random.chance(50).to_string(),
            Type::Int(int) => {
                let width = bits(int);
                match self.random.below(10) {
                    0 => format!("{int}::MIN"),
                    1 => format!("{int}::MAX"),
                    2 => format!("{}{int}", (1u64 << self.random.below(width as usize - 1)) - 1),
                    3 => format!("{}{int}", 1u64 << self.random.below(width as usize - 1)),
                    4 => {
                        // Half of the type's values, so that it fits with a sign.
                        let value = self.random.bits() >> (64 - width + 1);
                        if signed(int) && self.random.chance(50) {
                            format!("(-{value}{int})")
                        } else {
                            format!("{value}{int}")
                        }
                    }
                    5 | 6 if signed(int) => format!("(-{}{int})", self.random.below(10)),
                    _ => format!("{}{int}", self.random.below(10)),
                }
            }
            Type::Float(float) => {
                let text = *self.random.pick(&[
                    "0.0",
                    "1.0",
                    "0.5",
                    "1.5",
                    "2.5",
                    "3.0",
                    "0.1",
                    "1e-3",
                    "1e10",
                    "123456.789",
                    "2147483648.0",
                    "9223372036854775808.0",
                    "1e-40",
                    "16777217.0",
                    "1e30",
                    "0.3333333333333333",
                ]);
                match self.random.below(10) {
                    0 => format!(
                        "{float}::{}",
                        self.random.pick(&["NAN", "INFINITY", "NEG_INFINITY", "EPSILON", "MIN_POSITIVE", "MAX"])
                    ),
                    1..=3 => format!("(-{text}{float})"),
                    _ => format!("{text}{float}"),
                }
            }
            _ => unreachable!("only scalars have literals"),
        }
    }

    /// A struct, enum or array made in place.
    pub(super) fn made(&mut self, ty: &Type, depth: usize) -> String {
        match ty {
            Type::Struct(id) => {
                let (name, fields) = (self.structs[*id].name.clone(), self.structs[*id].fields.clone());
                let fields = self.field_values(&fields, depth);
                // In parentheses, or a brace would be taken for a block's.
                format!("({name} {{ {fields} }})")
            }
            Type::Enum(id) => {
                let of = self.enums[*id].name.clone();
                let variants = self.enums[*id].variants.clone();
                let (name, fields) = self.random.pick(&variants);
                if fields.is_empty() {
                    return format!("{of}::{name}");
                }
                let fields = self.field_values(fields, depth);
                format!("({of}::{name} {{ {fields} }})")
            }
            Type::Array(item, length) => {
                if self.random.chance(30) {
                    return format!("[{}; {length}]", self.expr(item, depth));
                }
                let items: Vec<String> = (0..*length).map(|_| self.expr(item, depth)).collect();
                format!("[{}]", items.join(", "))
            }
            _ => self.leaf(ty),
        }
    }

    pub(super) fn field_values(&mut self, fields: &[(String, Type)], depth: usize) -> String {
        let mut values: Vec<String> = fields
            .iter()
            .map(|(name, ty)| (name.clone(), self.expr(ty, depth)))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        if self.random.chance(50) {
            values.reverse();
        }
        values.join(", ")
    }

    pub(super) fn bool_expr(&mut self, depth: usize) -> String {
        match self.random.below(12) {
            0 | 1 => {
                let op = *self.random.pick(&["&&", "||"]);
                format!("({} {op} {})", self.expr(&Type::Bool, depth), self.expr(&Type::Bool, depth))
            }
            2 => {
                let op = *self.random.pick(&["&", "|", "^", "==", "!="]);
                format!("({} {op} {})", self.expr(&Type::Bool, depth), self.expr(&Type::Bool, depth))
            }
            3 => format!("!{}", self.expr(&Type::Bool, depth)),
            4 | 5 => {
                let float = *self.random.pick(&["f32", "f64"]);
                let ty = Type::Float(float);
                if self.random.chance(25) {
                    let method = *self.random.pick(&["is_nan", "is_finite", "is_infinite"]);
                    self.note(format!("{method} {float}"));
                    return format!("{}.{method}()", self.expr(&ty, depth));
                }
                let op = *self.random.pick(&COMPARE);
                self.note(format!("{op} {float}"));
                format!("({} {op} {})", self.expr(&ty, depth), self.expr(&ty, depth))
            }
            6 => {
                let ty = if self.random.chance(50) { Type::Id } else { Type::Enum(0) };
                let op = *self.random.pick(&["==", "!="]);
                let left = self.expr(&ty, depth);
                // Rust compares these by reference: the left one is borrowed.
                let before = std::mem::replace(&mut self.pure, true);
                let right = self.expr(&ty, depth);
                self.pure = before;
                format!("({left} {op} {right})")
            }
            7 => {
                let int = self.int();
                let method =
                    if signed(int) { *self.random.pick(&["is_positive", "is_negative"]) } else { "is_power_of_two" };
                self.note(format!("{method} {int}"));
                format!("{}.{method}()", self.expr(&Type::Int(int), depth))
            }
            _ => {
                let int = self.int();
                let op = *self.random.pick(&COMPARE);
                self.note(format!("{op} {int}"));
                format!("({} {op} {})", self.expr(&Type::Int(int), depth), self.expr(&Type::Int(int), depth))
            }
        }
    }

    /// What is hardly ever zero.
    pub(super) fn divisor(&mut self, int: &'static str, depth: usize) -> String {
        let ty = Type::Int(int);
        // Now and then it may be zero; written out, that would be refused.
        let may_be_zero = if self.random.chance(12) { self.place(&ty, false, 0) } else { None };
        if let Some(place) = may_be_zero {
            return place;
        }
        match self.random.below(9) {
            0..=2 => format!("{}{int}", 1 + self.random.below(9)),
            3 if signed(int) => format!("(-1{int})"),
            _ => format!("({} | 1{int})", self.expr(&ty, depth)),
        }
    }

    pub(super) fn int_expr(&mut self, int: &'static str, depth: usize) -> String {
        let ty = Type::Int(int);
        match self.random.below(20) {
            0..=6 => {
                let op = *self.random.pick(&BINARY);
                self.note(format!("{op} {int}"));
                let left = self.expr(&ty, depth);
                let right = match op {
                    "<<" | ">>" => {
                        let count = Type::Int(self.int());
                        self.expr(&count, depth)
                    }
                    "/" | "%" => self.divisor(int, depth),
                    _ => self.expr(&ty, depth),
                };
                format!("({left} {op} {right})")
            }
            7 => {
                if signed(int) && self.random.chance(50) {
                    self.note(format!("- {int}"));
                    return format!("(-{})", self.expr(&ty, depth));
                }
                self.note(format!("! {int}"));
                format!("(!{})", self.expr(&ty, depth))
            }
            8 | 9 => {
                let method = *self.random.pick(&METHODS_2);
                self.note(format!("{method} {int}"));
                let receiver = self.expr(&ty, depth);
                let argument =
                    if method.ends_with("euclid") { self.divisor(int, depth) } else { self.expr(&ty, depth) };
                format!("{receiver}.{method}({argument})")
            }
            10 => {
                let method = *self.random.pick(&METHODS_U32);
                self.note(format!("{method} {int}"));
                format!("{}.{method}({})", self.expr(&ty, depth), self.expr(&Type::Int("u32"), depth))
            }
            11 | 12 => self.int_method(int, depth),
            13 => {
                self.note(format!("clamp {int}"));
                let value = self.expr(&ty, depth);
                let (low, high) = if self.random.chance(20) {
                    (self.expr(&ty, depth), self.expr(&ty, depth))
                } else {
                    (format!("{}{int}", self.random.below(5)), format!("{}{int}", 5 + self.random.below(50)))
                };
                format!("{value}.clamp({low}, {high})")
            }
            14..=16 => {
                let from = match self.random.below(12) {
                    0 => Type::Bool,
                    1 => Type::Enum(0),
                    2 | 3 => Type::Float("f32"),
                    4 | 5 => Type::Float("f64"),
                    _ => Type::Int(self.int()),
                };
                match from {
                    Type::Int(from) => self.note(format!("as {int} {from}")),
                    Type::Float(from) => self.note(format!("from {from} {int}")),
                    _ => {}
                }
                format!("({} as {int})", self.expr(&from, depth))
            }
            17 if int == "u64" => {
                if self.context && self.random.chance(40) {
                    return "ctx.now()".into();
                }
                format!("{}.key()", self.expr(&Type::Id, depth))
            }
            17 if int == "u32" => {
                if self.random.chance(30) {
                    return format!("{}.type_id()", self.expr(&Type::Id, depth));
                }
                self.note("to_bits f32");
                format!("{}.to_bits()", self.expr(&Type::Float("f32"), depth))
            }
            18 if int == "u64" => {
                self.note("to_bits f64");
                format!("{}.to_bits()", self.expr(&Type::Float("f64"), depth))
            }
            _ => self.leaf(&ty),
        }
    }

    /// A method whose result may be of another type: cast to this one, if it is.
    pub(super) fn int_method(&mut self, int: &'static str, depth: usize) -> String {
        let from = self.int();
        let mut methods: Vec<&str> = METHODS_1.to_vec();
        if signed(from) {
            methods.extend(["abs", "signum", "unsigned_abs"]);
        }
        let method = *self.random.pick(&methods);
        self.note(format!("{method} {from}"));
        let receiver = self.expr(&Type::Int(from), depth);
        let gives = match method {
            "leading_zeros" | "trailing_zeros" | "count_ones" | "count_zeros" => "u32",
            "abs_diff" | "unsigned_abs" => unsigned(from),
            _ => from,
        };
        let argument = if method == "abs_diff" { self.expr(&Type::Int(from), depth) } else { String::new() };
        let call = format!("{receiver}.{method}({argument})");
        if gives == int {
            return call;
        }
        self.note(format!("as {int} {gives}"));
        format!("({call} as {int})")
    }

    pub(super) fn float_expr(&mut self, float: &'static str, depth: usize) -> String {
        let ty = Type::Float(float);
        match self.random.below(14) {
            0..=5 => {
                let op = *self.random.pick(&["+", "-", "*", "/", "%"]);
                self.note(format!("{op} {float}"));
                format!("({} {op} {})", self.expr(&ty, depth), self.expr(&ty, depth))
            }
            6 | 7 => {
                let method = *self.random.pick(&FLOAT_METHODS);
                self.note(format!("{method} {float}"));
                let value = self.expr(&ty, depth);
                if method == "-" { format!("(-{value})") } else { format!("{value}.{method}()") }
            }
            8 => {
                let method = *self.random.pick(&["min", "max"]);
                self.note(format!("{method} {float}"));
                format!("{}.{method}({})", self.expr(&ty, depth), self.expr(&ty, depth))
            }
            9 => {
                if self.random.chance(60) {
                    self.note(format!("mul_add {float}"));
                    let (a, b, c) = (self.expr(&ty, depth), self.expr(&ty, depth), self.expr(&ty, depth));
                    return format!("{a}.mul_add({b}, {c})");
                }
                self.note(format!("clamp {float}"));
                let value = self.expr(&ty, depth);
                let high = if self.random.chance(20) { self.expr(&ty, depth) } else { format!("100.5{float}") };
                format!("{value}.clamp(-3.0{float}, {high})")
            }
            10 | 11 => {
                let int = self.int();
                self.note(format!("as {float} {int}"));
                format!("({} as {float})", self.expr(&Type::Int(int), depth))
            }
            12 => {
                let other = if float == "f32" { "f64" } else { "f32" };
                format!("({} as {float})", self.expr(&Type::Float(other), depth))
            }
            _ => {
                self.note(format!("from_bits {float}"));
                let int = if float == "f32" { "u32" } else { "u64" };
                format!("{float}::from_bits({})", self.expr(&Type::Int(int), depth))
            }
        }
    }

    pub(super) fn id_expr(&mut self, depth: usize) -> String {
        match self.random.below(4) {
            0 => format!("id({})", self.expr(&Type::Int("u64"), depth)),
            1 => format!("sink::id({})", self.expr(&Type::Int("u64"), depth)),
            _ => self.leaf(&Type::Id),
        }
    }
}
