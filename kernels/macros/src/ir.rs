//! The typed form of an actor module: what the front end promises and both back ends rely on.
//!
//! The front end (`front`) turns the user's tokens into a [`Module`] or into errors at tokens; it has
//! resolved every name, inferred every type and refused everything outside the subset. The back ends
//! (`native`, `cuda`) therefore never fail, never guess, and never look at the user's tokens again.
//!
//! Promises of the front end, beyond the types below:
//! - every [`Expr`] has its final type; an integer literal fits its type;
//! - names of locals are unique in a function ([`Local`] indexes), so shadowing is already resolved;
//! - the call graph has no cycle, and `functions` is in callee-before-caller order;
//! - structs and enums are in used-before-user order, with no cycle;
//! - `match` is exhaustive, and a variant pattern names only fields that exist;
//! - constants are folded: a use of a constant is a literal (or an array of literals).

use proc_macro2::{Ident, Span};

/// One actor type: the module under `#[ringhold::actor]`.
pub struct Module {
    /// The module's name; also the actor type's name unless the attribute gives another.
    pub ident: Ident,
    /// The registered name of the actor type, e.g. `account`.
    pub name: String,
    /// Doc comments and visibility are kept as they stood.
    pub vis: syn::Visibility,
    pub docs: Vec<syn::Attribute>,
    pub threads_per_actor: u32,
    pub consts: Vec<Const>,
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
    pub functions: Vec<Function>,
    /// Index into `structs` of `State`.
    pub state: usize,
    /// Index into `enums` of `Message`.
    pub message: usize,
    /// Index into `enums` of `Reply`. A module without `enum Reply` gets an empty `None` variant named `Nothing`.
    pub reply: usize,
    /// Index into `functions` of `handle`.
    pub handle: usize,
    /// Other actor modules that this one sends to.
    pub foreign: Vec<Foreign>,
}

/// A module brought in with `use path::to::other_actor;`, whose messages this module may send.
pub struct Foreign {
    pub ident: Ident,
    /// The whole path as written, for the native back end.
    pub path: syn::Path,
}

pub struct Const {
    pub ident: Ident,
    pub vis: syn::Visibility,
    pub docs: Vec<syn::Attribute>,
    pub ty: Ty,
    pub value: Expr,
}

pub struct Struct {
    pub ident: Ident,
    pub vis: syn::Visibility,
    pub docs: Vec<syn::Attribute>,
    pub fields: Vec<Field>,
}

pub struct Field {
    pub ident: Ident,
    pub vis: syn::Visibility,
    pub docs: Vec<syn::Attribute>,
    pub ty: Ty,
}

pub struct Enum {
    pub ident: Ident,
    pub vis: syn::Visibility,
    pub docs: Vec<syn::Attribute>,
    /// The tag of a variant is its index.
    pub variants: Vec<Variant>,
}

pub struct Variant {
    pub ident: Ident,
    pub docs: Vec<syn::Attribute>,
    /// Empty for a unit variant.
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Int {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    F32,
    F64,
}

/// A type of the subset. Values of every type but `Unit` and `Never` are plain data with the C layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    Unit,
    /// The type of `return`, `break`, `continue` and of an endless `loop`; fits every type.
    Never,
    Bool,
    Int(Int),
    Float(Float),
    /// `ActorId`: 16 bytes, align 8: key u64 at 0, type u32 at 8, four zero bytes.
    ActorId,
    Array(Box<Ty>, u32),
    Struct(usize),
    Enum(usize),
    /// The message enum of `foreign[i]`; only ever the message argument of a send.
    ForeignMessage(usize),
}

/// How a parameter is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Value,
    Ref,
    RefMut,
}

pub struct Function {
    pub ident: Ident,
    pub docs: Vec<syn::Attribute>,
    /// For a method, the type it is defined on; `self` is then `params[0]`.
    pub owner: Option<Ty>,
    /// `State`, `Message` and `Context` in `handle` are ordinary parameters.
    pub params: Vec<Param>,
    pub result: Ty,
    pub body: Block,
    /// All locals, parameters first and in order.
    pub locals: Vec<LocalInfo>,
    /// Whether running it can end in a fault (division, index, clamp, or a call of such a function).
    pub can_fault: bool,
    /// The reference parameters that the threads of a loop reach: callers pass what lies in the actor's state.
    pub in_state: Vec<Local>,
}

pub struct Param {
    pub local: Local,
    pub pass: Pass,
    pub kind: ParamKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamKind {
    Plain,
    /// `ctx: &mut Context`; at most one in a function, always `RefMut`, and no other use of it than
    /// `Ctx*` expressions and passing it on as an argument (`Argument::Context`).
    Context,
}

/// Index into `Function::locals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local(pub usize);

pub struct LocalInfo {
    /// As the user wrote it (two locals may share it); `self` for a receiver.
    pub ident: Ident,
    /// Meaningless (`Unit`) for the context parameter.
    pub ty: Ty,
    /// Whether it was declared `mut`.
    pub mutable: bool,
}

pub struct Block {
    pub statements: Vec<Statement>,
    /// The block's value, if it has one.
    pub value: Option<Box<Expr>>,
    /// `Never` when control cannot reach the end.
    pub ty: Ty,
}

pub enum Statement {
    /// `let x: T = value;` or, without a value, `let x: T;` (assigned later; rustc checks that it was).
    Let {
        local: Local,
        value: Option<Expr>,
    },
    Expr(Expr),
}

pub struct Expr {
    pub ty: Ty,
    pub span: Span,
    pub kind: ExprKind,
}

pub enum ExprKind {
    Bool(bool),
    /// The value's two's complement bits, sign-extended to 128 bits.
    Int(i128),
    /// The bits as an f64; an f32 literal was rounded once, from the decimal text, to f32 and then widened.
    Float(f64),
    /// Reading a place.
    Place(Place),
    Array(Vec<Expr>),
    /// `[value; length]`; the value is evaluated once.
    Repeat(Box<Expr>, u32),
    /// Fields in the order written (the order of evaluation); every field exactly once.
    Struct {
        id: usize,
        fields: Vec<(usize, Expr)>,
    },
    /// Fields in the order written; every field exactly once.
    Variant {
        id: usize,
        variant: usize,
        fields: Vec<(usize, Expr)>,
    },
    /// A message of another actor module; rustc checks the fields natively, exact types in C++.
    ForeignVariant {
        foreign: usize,
        variant: Ident,
        fields: Vec<(Ident, Expr)>,
    },
    /// `id(key)` of this module (`None`) or of another actor module.
    MakeId {
        foreign: Option<usize>,
        key: Box<Expr>,
    },
    /// `-x` wraps; `!x` for bool and integers.
    Unary(UnOp, Box<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    /// `&&` and `||`.
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// `expr as T`: between integers, bool to integer, integer to float, float to integer (saturating,
    /// NaN is 0), float to float, unit-only enum to integer.
    Cast(Box<Expr>),
    /// `place = value`. The value is evaluated first, then the place's indexes (as in Rust).
    Assign(Place, Box<Expr>),
    /// `place op= value`. For primitive types Rust evaluates the value first, then the place.
    AssignOp(BinOp, Place, Box<Expr>),
    Call {
        function: usize,
        arguments: Vec<Argument>,
    },
    /// A built-in method of a number; see [`Builtin`] for arity and meaning.
    Builtin(Builtin, Vec<Expr>),
    If {
        condition: Box<Expr>,
        then: Block,
        otherwise: Option<Box<Expr>>,
    },
    Match {
        subject: Box<Expr>,
        arms: Vec<Arm>,
    },
    Block(Block),
    /// Labels are numbers, unique in the function.
    Loop {
        label: u32,
        body: Block,
    },
    While {
        label: u32,
        condition: Box<Expr>,
        body: Block,
    },
    /// `for local in from..to` or `..=`; both bounds are evaluated once, `from` first.
    For {
        label: u32,
        local: Local,
        from: Box<Expr>,
        to: Box<Expr>,
        inclusive: bool,
        body: Block,
    },
    /// `for local in ctx.threads(from..to)`: the iterations are dealt out to the actor's threads.
    Threads(Box<Threads>),
    /// `break` with the value of a `loop`.
    Break {
        label: u32,
        value: Option<Box<Expr>>,
    },
    Continue {
        label: u32,
    },
    Return(Option<Box<Expr>>),
    /// `ctx.id()`, `ctx.sender()`: `ActorId`.
    CtxId,
    CtxSender,
    /// `ctx.now()`: the HLC stamp as a u64.
    CtxNow,
    /// The argument has the type of this module's `Reply`.
    CtxReply(Box<Expr>),
    /// `ctx.send(id, message)`: the message is this module's `Message` or a `ForeignMessage`.
    CtxSend {
        to: Box<Expr>,
        message: Box<Expr>,
    },
    /// `ctx.send_after(delay_us: u64, id, message)`.
    CtxSendAfter {
        delay_us: Box<Expr>,
        to: Box<Expr>,
        message: Box<Expr>,
    },
    CtxStop,
    /// `id.key()`: u64; `id.type_id()`: u32.
    IdKey(Box<Expr>),
    IdType(Box<Expr>),
}

/// A data-parallel loop. No iteration sees what another one does, there is no way out of the body but its end and
/// `continue`, and nothing in it uses the context but to read `id`, `sender` and `now`.
pub struct Threads {
    pub label: u32,
    pub local: Local,
    /// Both bounds are evaluated once, `from` first.
    pub from: Expr,
    pub to: Expr,
    pub inclusive: bool,
    pub body: Block,
    /// The locals from outside of the body that it reads: reference parameters point into the actor's state, of
    /// others each thread has a copy.
    pub captures: Vec<Local>,
    /// Whether the body reads `ctx.id()`, `ctx.sender()`, `ctx.now()`.
    pub reads_id: bool,
    pub reads_sender: bool,
    pub reads_now: bool,
    pub reductions: Vec<Reduction>,
}

/// A local from outside of a data-parallel loop that its iterations combine into, and only that.
pub struct Reduction {
    pub local: Local,
    pub by: Combine,
    pub ty: Ty,
}

/// How two values become one. All but the sum of floats are exact, whatever the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// `x += e`
    Add,
    /// `x |= e`, also of bools, as the next two.
    Or,
    And,
    Xor,
    /// `x = x.min(e)`
    Min,
    Max,
}

pub enum Argument {
    Value(Expr),
    /// `&place`, or a `&T` parameter passed on.
    Ref(Place),
    /// `&mut place`, or a `&mut T` parameter passed on.
    RefMut(Place),
    /// The context parameter passed on.
    Context,
}

/// A path to storage: a local (or what a reference parameter points to) and projections into it.
pub struct Place {
    pub root: Local,
    /// True when `root` is a `&T` or `&mut T` parameter.
    pub deref: bool,
    pub projections: Vec<Projection>,
    /// The type of the whole place.
    pub ty: Ty,
    /// Its first and its last token.
    pub span: Span,
    pub end: Span,
}

pub enum Projection {
    /// Field `index` of struct `id`.
    Field { id: usize, index: usize },
    /// An index of any integer type; negative or past the end is a fault at `span`.
    Index { index: Expr, length: u32, span: Span },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnOp {
    Neg,
    Not,
}

/// Both operands have one type, but for the shifts, whose right operand may have any integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinOp {
    /// Wrapping for integers, as all integer arithmetic.
    Add,
    Sub,
    Mul,
    /// Integers: a zero divisor is a fault; `MIN / -1` is `MIN` and `MIN % -1` is 0. Floats: IEEE; `%` is fmod.
    Div,
    Rem,
    /// Also of bools (no short circuit).
    BitAnd,
    BitOr,
    BitXor,
    /// The shift count is masked to the width of the left operand. `>>` of a signed integer is arithmetic.
    Shl,
    Shr,
    /// `Eq` and `Ne` also of bools, `ActorId`s and unit-only enums; the others of numbers only.
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Methods of numbers. The receiver is argument 0; unless said otherwise all arguments and the result
/// have the receiver's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    // Integers.
    WrappingAdd,
    WrappingSub,
    WrappingMul,
    /// (self)
    WrappingNeg,
    /// (self, u32): the count is masked.
    WrappingShl,
    WrappingShr,
    SaturatingAdd,
    SaturatingSub,
    SaturatingMul,
    /// (self, u32): wraps.
    Pow,
    /// (self, u32): the count is taken modulo the width.
    RotateLeft,
    RotateRight,
    /// (self) -> u32
    LeadingZeros,
    TrailingZeros,
    CountOnes,
    CountZeros,
    SwapBytes,
    ReverseBits,
    /// Result is the unsigned type of the same width.
    AbsDiff,
    UnsignedAbs,
    /// Signed only; `MIN.abs()` is `MIN`.
    Abs,
    Signum,
    IsPositive,
    IsNegative,
    /// A zero divisor is a fault.
    DivEuclid,
    RemEuclid,
    /// Unsigned only, -> bool
    IsPowerOfTwo,
    // Integers and floats. Float min and max: a NaN loses to a number; of -0.0 and 0.0, min is -0.0.
    Min,
    Max,
    /// (self, low, high): low > high (or a NaN bound) is a fault.
    Clamp,
    // Floats.
    FloatAbs,
    Sqrt,
    Floor,
    Ceil,
    Trunc,
    /// Half away from zero.
    Round,
    /// (self, a, b): fused, rounded once.
    MulAdd,
    IsNan,
    IsFinite,
    IsInfinite,
    /// (self) -> u32 or u64. Every NaN has one pattern: 0x7fc00000, 0x7ff8000000000000.
    ToBits,
    /// `f32::from_bits(x)`, `f64::from_bits(x)`: the argument is u32 or u64, the result is the expression's type.
    FromBits,
}

pub struct Arm {
    pub pattern: Pattern,
    pub guard: Option<Expr>,
    pub body: Expr,
}

/// Patterns bind by copy. Every alternative of an `Or` binds the same locals.
pub enum Pattern {
    Wild,
    /// `name` or `name @ pattern`.
    Bind {
        local: Local,
        inner: Option<Box<Pattern>>,
    },
    Bool(bool),
    Int(i128),
    /// `low..=high` or `low..high` made inclusive; open ends are filled with the type's limits.
    Range {
        low: i128,
        high: i128,
    },
    /// Fields left out are not looked at.
    Variant {
        id: usize,
        variant: usize,
        fields: Vec<(usize, Pattern)>,
    },
    Struct {
        id: usize,
        fields: Vec<(usize, Pattern)>,
    },
    Or(Vec<Pattern>),
}
