//! Random actors in the subset, as Rust source: the same seed gives the same text.
//!
//! Each has a state, messages and replies of random shape, helper functions and methods, and a handler. What
//! the generator writes is always a legal program that ends: loops count to small numbers, functions call only
//! functions written before them. Faults are legal and happen, but rarely enough that most runs get far.
//!
//! The build script writes the programs that the tests compile, with this file.

mod drills;
mod expressions;
mod matches;
mod places;
mod statements;
mod threads;

use super::random::Random;

pub struct Program {
    /// The module, `p_` and the seed.
    pub module: String,
    pub source: String,
    /// Which operators it has at which types, as in `add i8`.
    pub features: Vec<String>,
}

/// Another actor, to which the programs send: a field of every number.
pub const SINK: &str = "\
#[ringhold::actor]
pub mod sink {
    pub struct State { pub messages: u64 }
    pub enum Message {
        Whole { a: i8, b: u16, c: i32, d: u64 },
        Real { single: f32, double: f64 },
        Other { flag: bool, who: ActorId, items: [u16; 3] },
        Nothing,
    }
    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Whole { d, .. } => state.messages += d,
            _ => state.messages += 1,
        }
    }
}
";

/// One in so many programs is an actor of many threads.
const WIDE: u64 = 4;

pub fn program(seed: u64) -> Program {
    // Neighbouring seeds must not give programs alike.
    let random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5bd1_e995);
    let mut generator = Generator {
        random,
        out: String::new(),
        indent: 1,
        structs: Vec::new(),
        enums: Vec::new(),
        functions: Vec::new(),
        consts: Vec::new(),
        scope: Vec::new(),
        names: 0,
        loops: Vec::new(),
        result: None,
        pure: false,
        context: false,
        budget: 0,
        wide: seed.is_multiple_of(WIDE),
        rows: Vec::new(),
        parallel: None,
        features: Vec::new(),
    };
    let module = format!("p_{seed}");
    let options = if generator.wide { "(threads_per_actor = 32)" } else { "" };
    generator.module(seed);
    let source =
        format!("#[ringhold::actor{options}]\npub mod {module} {{\n    use super::sink;\n\n{}}}\n", generator.out);
    generator.features.sort();
    generator.features.dedup();
    Program { module, source, features: generator.features }
}

const INTS: [&str; 8] = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];

/// Every feature that a large enough set of programs is expected to have.
pub fn all_features() -> Vec<String> {
    let mut all = Vec::new();
    for int in INTS {
        all.extend(BINARY.iter().chain(&COMPARE).map(|op| format!("{op} {int}")));
        all.extend(METHODS_2.iter().chain(&METHODS_U32).chain(&METHODS_1).map(|name| format!("{name} {int}")));
        all.extend(
            ["!", "as f32", "as f64", "from f32", "from f64", "clamp", "match", "for"].map(|op| format!("{op} {int}")),
        );
        all.extend(INTS.map(|to| format!("as {to} {int}")));
        let of_sign: &[&str] = if signed(int) { &METHODS_SIGNED } else { &["is_power_of_two"] };
        all.extend(of_sign.iter().map(|name| format!("{name} {int}")));
    }
    for float in ["f32", "f64"] {
        all.extend(["+", "-", "*", "/", "%"].iter().chain(&COMPARE).map(|op| format!("{op} {float}")));
        all.extend(FLOAT_METHODS.iter().map(|name| format!("{name} {float}")));
        all.extend(
            ["min", "max", "clamp", "mul_add", "from_bits", "to_bits", "is_nan"].map(|op| format!("{op} {float}")),
        );
    }
    all.extend(
        [
            "if",
            "match enum",
            "match fields",
            "guard",
            "or-pattern",
            "loop",
            "while",
            "break outer",
            "continue outer",
            "effect inside",
            "order",
            "call",
            "method",
            "reference",
            "return",
            "send",
            "send other",
            "reply",
            "stop",
            "threads",
        ]
        .map(String::from),
    );
    all.extend(threads::COMBINE.map(|by| format!("threads {by}")));
    all.sort();
    all.dedup();
    all
}

const BINARY: [&str; 10] = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"];
const COMPARE: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const METHODS_2: [&str; 10] = [
    "wrapping_add",
    "wrapping_sub",
    "wrapping_mul",
    "saturating_add",
    "saturating_sub",
    "saturating_mul",
    "div_euclid",
    "rem_euclid",
    "min",
    "max",
];
const METHODS_U32: [&str; 5] = ["wrapping_shl", "wrapping_shr", "pow", "rotate_left", "rotate_right"];
const METHODS_1: [&str; 8] = [
    "wrapping_neg",
    "leading_zeros",
    "trailing_zeros",
    "count_ones",
    "count_zeros",
    "swap_bytes",
    "reverse_bits",
    "abs_diff",
];
const METHODS_SIGNED: [&str; 6] = ["-", "abs", "signum", "unsigned_abs", "is_positive", "is_negative"];
const FLOAT_METHODS: [&str; 7] = ["-", "abs", "sqrt", "floor", "ceil", "trunc", "round"];

fn signed(int: &str) -> bool {
    int.starts_with('i')
}

fn bits(int: &str) -> u32 {
    int[1..].parse().expect("a width follows the letter")
}

fn unsigned(int: &str) -> &'static str {
    INTS[4 + INTS.iter().position(|name| name[1..] == int[1..]).expect("a known width")]
}

#[derive(Clone, Debug, PartialEq)]
enum Type {
    Bool,
    Int(&'static str),
    Float(&'static str),
    Id,
    Array(Box<Type>, usize),
    Struct(usize),
    Enum(usize),
}

struct Struct {
    name: String,
    fields: Vec<(String, Type)>,
}

struct Enum {
    name: String,
    variants: Vec<(String, Vec<(String, Type)>)>,
}

impl Enum {
    fn is_plain(&self) -> bool {
        self.variants.iter().all(|(_, fields)| fields.is_empty())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Value,
    Ref,
    RefMut,
}

struct Function {
    name: String,
    /// The type of `self`, and how it is passed.
    owner: Option<(Type, Pass)>,
    params: Vec<Type>,
    /// One parameter by reference, after the values.
    reference: Option<(Type, Pass)>,
    context: bool,
    result: Option<Type>,
}

impl Function {
    fn has_effects(&self) -> bool {
        let changes = |passed: &Option<(Type, Pass)>| matches!(passed, Some((_, Pass::RefMut)));
        self.context || changes(&self.owner) || changes(&self.reference)
    }
}

#[derive(Clone)]
struct Variable {
    name: String,
    ty: Type,
    mutable: bool,
    /// The name stands for a reference.
    reference: bool,
}

struct Generator {
    random: Random,
    out: String,
    indent: usize,
    structs: Vec<Struct>,
    enums: Vec<Enum>,
    functions: Vec<Function>,
    consts: Vec<(String, Type)>,
    scope: Vec<Variable>,
    names: usize,
    /// Labels of the loops around, innermost last, and whether a `break` takes a value.
    loops: Vec<(String, Option<Type>)>,
    /// What the function gives; `None` for nothing.
    result: Option<Type>,
    /// Where nothing may be changed: a borrow is alive.
    pure: bool,
    /// Whether `ctx` is there.
    context: bool,
    /// Whether it is an actor of many threads, and the items of its state that their loops write, which are arrays.
    wide: bool,
    rows: Vec<(String, Type)>,
    /// In the body of a loop over threads: its label.
    parallel: Option<String>,
    /// How many more expressions this function may have.
    budget: usize,
    features: Vec<String>,
}

impl Generator {
    fn module(&mut self, seed: u64) {
        self.types();
        for index in 0..1 + self.random.below(2) {
            let ty = self.scalar();
            let value = self.literal(&ty);
            let name = format!("C{index}");
            self.line(&format!("const {name}: {} = {value};", self.name(&ty)));
            self.consts.push((name, ty));
        }
        for index in 0..2 + self.random.below(3) {
            self.function(index);
        }
        self.handle(seed);
    }

    fn types(&mut self) {
        let plain = (0..2 + self.random.below(3)).map(|i| (format!("V{i}"), Vec::new())).collect();
        self.enums.push(Enum { name: "Mode".into(), variants: plain });
        let fields = self.fields("s", 2, 3);
        self.structs.push(Struct { name: "Inner".into(), fields });
        let variants = self.variants(2, 2);
        self.enums.push(Enum { name: "Shape".into(), variants });
        let mut fields = self.fields("f", 2, 4);
        // Of every scalar there is one to read and to change: what is made of literals alone proves little.
        let scalars = INTS.map(Type::Int).into_iter().chain([Type::Bool, Type::Float("f32"), Type::Float("f64")]);
        for ty in scalars {
            let at = self.random.below(fields.len() + 1);
            fields.insert(at, (format!("of_{}", self.name(&ty)), ty));
        }
        fields.push(("mode".into(), Type::Enum(0)));
        fields.push(("inner".into(), Type::Struct(0)));
        fields.push(("shape".into(), Type::Enum(1)));
        fields.push(("items".into(), Type::Array(Box::new(self.scalar()), 4)));
        self.structs.push(Struct { name: "State".into(), fields });
        let variants = self.variants(2, 2);
        self.enums.push(Enum { name: "Message".into(), variants });
        let variants = self.variants(1, 2);
        self.enums.push(Enum { name: "Reply".into(), variants });

        if self.wide {
            self.rows = self.rows();
        }
        for index in 0..self.structs.len() {
            let Struct { name, fields } = &self.structs[index];
            let mut fields: Vec<_> = fields.iter().map(|(name, ty)| format!("pub {name}: {}", self.name(ty))).collect();
            if name == "State" {
                fields.extend(self.row_fields());
            }
            let text = format!("pub struct {name} {{ {} }}", fields.join(", "));
            self.line(&text);
        }
        for index in 0..self.enums.len() {
            let Enum { name, variants } = &self.enums[index];
            let variants = variants.iter().map(|(name, fields)| {
                let fields: Vec<_> = fields.iter().map(|(name, ty)| format!("{name}: {}", self.name(ty))).collect();
                if fields.is_empty() { name.clone() } else { format!("{name} {{ {} }}", fields.join(", ")) }
            });
            let text = format!("pub enum {name} {{ {} }}", variants.collect::<Vec<_>>().join(", "));
            self.line(&text);
        }
    }

    fn fields(&mut self, prefix: &str, least: usize, more: usize) -> Vec<(String, Type)> {
        (0..least + self.random.below(more)).map(|i| (format!("{prefix}{i}"), self.field_type())).collect()
    }

    fn variants(&mut self, least: usize, more: usize) -> Vec<(String, Vec<(String, Type)>)> {
        let mut variants: Vec<_> =
            (0..least + self.random.below(more)).map(|i| (format!("W{i}"), self.fields("a", 1, 3))).collect();
        variants.push(("Unit".into(), Vec::new()));
        variants
    }

    /// A type made of those declared so far.
    fn field_type(&mut self) -> Type {
        match self.random.below(12) {
            0 => Type::Id,
            1 => Type::Array(Box::new(self.scalar()), *self.random.pick(&[2, 3, 4, 8])),
            2 => Type::Enum(0),
            3 if !self.structs.is_empty() => Type::Struct(0),
            4 if self.enums.len() > 1 => Type::Enum(1),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Type {
        match self.random.below(12) {
            0 => Type::Bool,
            1 => Type::Float("f32"),
            2 => Type::Float("f64"),
            _ => Type::Int(self.int()),
        }
    }

    fn int(&mut self) -> &'static str {
        INTS[self.random.below(INTS.len())]
    }

    fn any_type(&mut self) -> Type {
        match self.random.below(8) {
            0 => Type::Struct(0),
            1 => Type::Enum(self.random.below(2)),
            2 => Type::Id,
            _ => self.scalar(),
        }
    }

    fn name(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "bool".into(),
            Type::Int(name) | Type::Float(name) => (*name).into(),
            Type::Id => "ActorId".into(),
            Type::Array(item, length) => format!("[{}; {length}]", self.name(item)),
            Type::Struct(id) => self.structs[*id].name.clone(),
            Type::Enum(id) => self.enums[*id].name.clone(),
        }
    }

    fn function(&mut self, index: usize) {
        let name = format!("h{index}");
        let state = Type::Struct(1);
        let params: Vec<Type> = (0..1 + self.random.below(3)).map(|_| self.any_type()).collect();
        let (owner, reference) = match self.random.below(7) {
            0 => (Some((state, Pass::RefMut)), None),
            1 => (Some((Type::Struct(0), *self.random.pick(&[Pass::Value, Pass::Ref, Pass::RefMut]))), None),
            2 => (Some((Type::Enum(0), Pass::Value)), None),
            3 => (None, Some((state, Pass::RefMut))),
            4 => (None, Some((Type::Struct(0), *self.random.pick(&[Pass::Ref, Pass::RefMut])))),
            5 => (None, Some((self.scalar(), Pass::RefMut))),
            _ => (None, None),
        };
        let context = self.random.chance(30);
        let result = self.random.chance(85).then(|| self.any_type());

        self.scope.clear();
        let mut signature = Vec::new();
        let bring = |this: &mut Generator, name: String, ty: &Type, pass: Pass, signature: &mut Vec<String>| {
            let of = this.name(ty);
            let mutable = pass == Pass::RefMut || (pass == Pass::Value && this.random.chance(30));
            signature.push(match (name.as_str(), pass) {
                ("self", Pass::Value) if mutable => "mut self".into(),
                ("self", Pass::Value) => "self".into(),
                ("self", Pass::Ref) => "&self".into(),
                ("self", Pass::RefMut) => "&mut self".into(),
                (_, Pass::Value) if mutable => format!("mut {name}: {of}"),
                (_, Pass::Value) => format!("{name}: {of}"),
                (_, Pass::Ref) => format!("{name}: &{of}"),
                (_, Pass::RefMut) => format!("{name}: &mut {of}"),
            });
            this.scope.push(Variable { name, ty: ty.clone(), mutable, reference: pass != Pass::Value });
        };
        if let Some((ty, pass)) = &owner {
            bring(self, "self".into(), ty, *pass, &mut signature);
        }
        for (i, ty) in params.iter().enumerate() {
            bring(self, format!("p{i}"), ty, Pass::Value, &mut signature);
        }
        if let Some((ty, pass)) = &reference {
            let name = if *ty == Type::Struct(1) { "state" } else { "r" };
            bring(self, name.into(), ty, *pass, &mut signature);
        }
        if context {
            signature.push("ctx: &mut Context".into());
        }
        let gives = result.as_ref().map(|ty| format!(" -> {}", self.name(ty))).unwrap_or_default();
        let head = format!("fn {name}({}){gives} {{", signature.join(", "));
        if let Some((ty, _)) = &owner {
            let head = format!("impl {} {{ {head}", self.name(ty));
            self.line(&head);
        } else {
            self.line(&head);
        }
        self.begin(context, result.clone(), 35);
        let count = 1 + self.random.below(3);
        self.block_lines(count, 2);
        if let Some(ty) = &result {
            let value = self.expr(ty, 3);
            self.indent += 1;
            self.line(&value);
            self.indent -= 1;
        }
        self.line(if owner.is_some() { "} }" } else { "}" });
        self.functions.push(Function { name, owner, params, reference, context, result });
    }

    fn handle(&mut self, seed: u64) {
        self.line("pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {");
        self.scope.clear();
        let state = Variable { name: "state".into(), ty: Type::Struct(1), mutable: true, reference: true };
        self.scope.push(state);
        self.begin(true, None, 90);
        self.block_lines(1, 2);
        self.indent += 1;
        if self.wide {
            let threads = self.threads_loop(3);
            threads.lines().for_each(|line| self.line(line));
        }
        for drill in self.drills(seed) {
            for line in drill.lines() {
                self.line(line);
            }
        }
        let message = Variable { name: "message".into(), ty: Type::Enum(2), mutable: false, reference: false };
        self.scope.push(message);
        let arms = self.arms("message", &Type::Enum(2), |this| {
            let count = 1 + this.random.below(3);
            this.block(count, 3)
        });
        for line in format!("match message {arms}").lines() {
            self.line(line);
        }
        self.indent -= 1;
        self.block_lines(2, 3);
        self.indent += 1;
        let statement = self.reply();
        self.line(&statement);
        self.indent -= 1;
        self.line("}");
    }

    fn begin(&mut self, context: bool, result: Option<Type>, budget: usize) {
        self.context = context;
        self.result = result;
        self.budget = budget;
        self.pure = false;
        self.loops.clear();
    }

    fn line(&mut self, text: &str) {
        for _ in 0..self.indent {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn note(&mut self, feature: impl Into<String>) {
        self.features.push(feature.into());
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }
}
