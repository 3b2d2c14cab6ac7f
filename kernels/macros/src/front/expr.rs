//! Expressions: literals, names, structs and arrays, and the way to all others.

use proc_macro2::Ident;
use syn::{Expr, ExprStruct, Lit, Member, Path};

use super::body::{Checker, Hint};
use super::builtins;
use super::consts::Value;
use super::errors::{At, sketch};
use super::infer::{Kind, Type, float_named, int_name, is_signed, limits, primitive_named};
use super::refuse;
use super::tree::{Finish, Node};
use super::world::Named;
use crate::ir::{Enum, ExprKind, Field, Float, Ty, UnOp};

impl Checker<'_, '_> {
    /// Checks an expression. Where `hint` requires a type and the expression has branches, the branches
    /// are held to it; otherwise the caller is, by [`Checker::coerce`].
    pub fn expr(&mut self, e: &Expr, hint: Hint) -> Node {
        let node = match e {
            Expr::Paren(inner) => self.expr(&inner.expr, hint),
            Expr::Group(inner) => self.expr(&inner.expr, hint),
            Expr::Lit(literal) => self.literal(&literal.lit, false, At::of(e), hint),
            Expr::Path(path) if path.qself.is_none() => self.path(e, &path.path),
            Expr::Unary(unary) => self.unary(e, unary, hint),
            Expr::Binary(binary) => self.binary(e, binary),
            Expr::Cast(cast) => self.cast(e, cast),
            Expr::Assign(assign) => self.assign(e, assign),
            Expr::Field(_) | Expr::Index(_) => self.place(e).read(),
            Expr::Array(array) => self.array(e, array, hint),
            Expr::Repeat(repeat) => self.repeat(e, repeat, hint),
            Expr::Struct(literal) => self.struct_literal(e, literal),
            Expr::Call(call) => self.call(e, call),
            Expr::MethodCall(call) => self.method_call(e, call),
            Expr::If(branch) => self.branch(e, branch, hint),
            Expr::Match(choice) => self.choice(e, choice, hint),
            Expr::Block(block) => self.block_expression(e, block, hint),
            Expr::Loop(endless) => self.endless(e, endless, hint),
            Expr::While(conditional) => self.conditional(e, conditional),
            Expr::ForLoop(counted) => self.counted(e, counted),
            Expr::Break(exit) => self.exit(e, exit),
            Expr::Continue(next) => self.next(e, next),
            Expr::Return(exit) => self.give_back(e, exit),
            Expr::Let(condition) => self.misplaced_let(condition),
            other => {
                refuse::expression(other, self.world.errors);
                Node::error(At::of(e))
            }
        };
        self.diverges |= node.ty == Type::Never;
        node
    }

    /// Checks an expression that must be of type `ty`.
    pub fn expect(&mut self, e: &Expr, ty: &Type) -> Node {
        let mut node = self.expr(e, Hint::Is(ty));
        if node.ty == Type::Never && self.vars.shallow(ty) != Type::Unit {
            self.error(e, "this never gives a value: write it as a statement of its own");
            node.ty = Type::Error;
        }
        self.coerce(&node.ty, e, ty);
        node
    }

    /// Checks an expression whose value is used, whatever its type.
    pub fn operand(&mut self, e: &Expr, hint: Hint) -> Node {
        let mut node = self.expr(e, hint);
        if matches!(self.vars.shallow(&node.ty), Type::Unit | Type::Never) {
            self.error(e, "this gives no value to go on with");
            node.ty = Type::Error;
        }
        node
    }

    /// Makes the types one, or reports the mismatch at `e` with what to write.
    pub fn coerce(&mut self, found: &Type, e: &Expr, expected: &Type) {
        if *found == Type::Never || self.vars.unify(found, expected) {
            return;
        }
        let (want, have) = (self.world.quoted(&self.vars, expected), self.world.quoted(&self.vars, found));
        let advice = self.conversion(found, e, expected).map(|advice| format!(": write `{advice}`"));
        self.error(e, format!("expected {want}, found {have}{}", advice.unwrap_or_default()));
    }

    /// Makes the types one, or reports the mismatch at tokens that are no expression.
    pub fn same(&mut self, found: &Type, expected: &Type, tokens: &impl quote::ToTokens) {
        if !self.vars.unify(found, expected) {
            let (want, have) = (self.world.quoted(&self.vars, expected), self.world.quoted(&self.vars, found));
            self.error(tokens, format!("expected {want}, found {have}"));
        }
    }

    /// What to write to get from one type to the other.
    fn conversion(&self, found: &Type, e: &Expr, expected: &Type) -> Option<String> {
        let text = sketch(e);
        let simple = matches!(e, Expr::Path(_) | Expr::Lit(_) | Expr::Field(_) | Expr::Index(_) | Expr::Call(_))
            || matches!(e, Expr::MethodCall(_) | Expr::Paren(_));
        let operand = if simple { text.clone() } else { format!("({text})") };
        let (found, expected) = (self.vars.shallow(found), self.vars.shallow(expected));
        let target = self.world.describe(&self.vars, &expected);
        match (self.vars.kind(&found), self.vars.kind(&expected)) {
            (Kind::Integer, Kind::Float) if matches!(e, Expr::Lit(_)) => Some(format!("{text}.0")),
            (Kind::Integer | Kind::Float, Kind::Integer | Kind::Float) if !target.contains(' ') => {
                Some(format!("{operand} as {target}"))
            }
            (Kind::Other, Kind::Integer) if found == Type::Bool && !target.contains(' ') => {
                Some(format!("{operand} as {target}"))
            }
            _ if expected == Type::Unit => Some(format!("{text};")),
            (Kind::Integer, _) if expected == Type::Bool => Some(format!("{operand} != 0")),
            (Kind::Integer, _) if expected == Type::ActorId => Some(format!("id({text})")),
            (Kind::Other, Kind::Integer) if found == Type::ActorId => Some(format!("{operand}.key()")),
            _ => None,
        }
    }

    pub fn require_integer(&mut self, node: &Node, e: &Expr) {
        if !matches!(self.vars.kind(&node.ty), Kind::Integer) && node.ty != Type::Error {
            let found = self.world.quoted(&self.vars, &node.ty);
            self.error(e, format!("an integer is needed here, found {found}"));
        }
    }

    /// `let` in a condition with more to it: its names are known, so that their uses are not errors as well.
    fn misplaced_let(&mut self, condition: &syn::ExprLet) -> Node {
        let message = "`let` stands alone in an `if`: nest two, as in `if let .. = .. { if .. { } }`";
        self.error(&condition.let_token, message);
        self.operand(&condition.expr, Hint::None);
        self.bring_in_refused(&condition.pat);
        Node::error(At::of(condition))
    }

    pub fn literal(&mut self, literal: &Lit, negative: bool, at: At, hint: Hint) -> Node {
        match literal {
            Lit::Bool(value) => {
                let value = value.value;
                Node::new(Type::Bool, at, move |_| ExprKind::Bool(value))
            }
            Lit::Byte(value) if !negative => {
                let value = i128::from(value.value());
                Node::new(Type::Int(crate::ir::Int::U8), at, move |_| ExprKind::Int(value))
            }
            Lit::Int(number) if float_named(number.suffix()).is_none() => {
                let ty = self.literal_type(number.suffix(), &at, hint, Kind::Integer);
                let value = number.base10_parse::<u128>().ok().and_then(|value| i128::try_from(value).ok());
                integer_literal(ty, at, value.map(|value| if negative { -value } else { value }))
            }
            Lit::Int(number) => self.float_literal((number.base10_digits(), number.suffix()), negative, at, hint),
            Lit::Float(number) => self.float_literal((number.base10_digits(), number.suffix()), negative, at, hint),
            Lit::Char(_) => {
                self.refuse_literal(at, "no characters here: write a byte `b'a'`, or the number as a `u32`")
            }
            Lit::Str(_) | Lit::CStr(_) => {
                self.refuse_literal(at, "no text here: keep numbers or keys, and bytes in an array: `[b'a', b'b']`")
            }
            Lit::ByteStr(_) => self.refuse_literal(at, "no byte strings here: write the array: `[b'a', b'b']`"),
            _ => self.refuse_literal(at, "write a number, `true` or `false`"),
        }
    }

    fn refuse_literal(&mut self, at: At, message: &str) -> Node {
        self.error(&at, message);
        Node::error(at)
    }

    fn float_literal(&mut self, (digits, suffix): (&str, &str), negative: bool, at: At, hint: Hint) -> Node {
        let ty = self.literal_type(suffix, &at, hint, Kind::Float);
        let digits = digits.to_owned();
        let (own, inner) = (ty.clone(), ty.clone());
        let magnitude = move |f: &mut Finish<'_, '_>| float_value(f, &digits, &own, at);
        let number = Node::new(ty, at, magnitude);
        if negative {
            return Node::new(inner, at, |f| ExprKind::Unary(UnOp::Neg, number.boxed(f)));
        }
        number
    }

    /// The type of a number without a sign: its suffix, else what the context asks for, else open.
    fn literal_type(&mut self, suffix: &str, at: &At, hint: Hint, kind: Kind) -> Type {
        if !suffix.is_empty() {
            return primitive_named(suffix).unwrap_or_else(|| {
                let advice = refuse::type_name(suffix).unwrap_or("no such type of number");
                self.error(at, advice);
                Type::Error
            });
        }
        if let Hint::Is(ty) | Hint::Cast(ty) = hint {
            let ty = self.vars.shallow(ty);
            if matches!((&ty, kind), (Type::Int(_), Kind::Integer) | (Type::Float(_), Kind::Float)) {
                return ty;
            }
        }
        if kind == Kind::Integer { self.vars.integer() } else { self.vars.float() }
    }

    fn path(&mut self, e: &Expr, path: &Path) -> Node {
        let at = At::of(e);
        if let Some(ident) = path.get_ident() {
            return if self.find(ident).is_some() { self.place(e).read() } else { self.global(ident, at) };
        }
        if let Some((named, variant)) = self.variant_named(path) {
            return self.unit_variant(named, variant, path, at);
        }
        if let Some((ty, value)) = self.constant_path(path) {
            let span = at.start;
            return Node::new(Type::from(&ty), at, move |_| value.literal(&ty, span).kind);
        }
        self.unknown_path(path);
        Node::error(at)
    }

    /// A single name that is no local.
    fn global(&mut self, ident: &Ident, at: At) -> Node {
        if self.world.consts.contains(ident) {
            let Some((ty, value)) = self.world.constant(ident) else { return Node::error(at) };
            let span = at.start;
            return Node::new(Type::from(&ty), at, move |_| value.literal(&ty, span).kind);
        }
        if self.world.generics.contains(&ident.to_string()) {
            return Node::error(at);
        }
        let message = match ident.to_string().as_str() {
            "None" | "Some" => refuse::type_name("Option").unwrap_or_default().to_owned(),
            "Ok" | "Err" => refuse::type_name("Result").unwrap_or_default().to_owned(),
            "self" => "`self` is there in methods only, those with `self`, `&self` or `&mut self`".to_owned(),
            "id" => "`id` is a function: write `id(key)`".to_owned(),
            name if self.world.free_function(ident).is_some() => {
                format!(
                    "functions are only called here: write `{name}(..)`; to choose among several, an enum and a `match`"
                )
            }
            name => match self.world.types.get(name) {
                Some(_) => format!(
                    "`{name}` is a type, not a value: write a variant `{name}::..` or the fields `{name} {{ .. }}`"
                ),
                None if self.in_constant => {
                    format!("no constant `{name}`: constants and array lengths are made of numbers and other constants")
                }
                None => format!("nothing is named `{name}` here"),
            },
        };
        self.error(&at, message);
        Node::error(at)
    }

    fn unknown_path(&mut self, path: &Path) {
        let text = sketch(path);
        let (first, last) = (&path.segments[0].ident, &path.segments[path.segments.len() - 1].ident);
        let message = if self.world.foreign_named(first).is_some() {
            format!(
                "of `{first}` there are only its ids, `{first}::id(key)`, and its messages in `ctx.send(id, {first}::Message::..)`"
            )
        } else if let Some(Named::Enum(id)) = self.owner_named(first) {
            let enumeration = &self.world.enums[id];
            format!("no variant `{last}` in `{}`: there are {}", enumeration.ident, variant_names(enumeration))
        } else if self.owner_named(first).is_some() {
            format!("`{text}` is no value: functions of a type are called, `{text}(..)`")
        } else if refuse::type_name(&first.to_string()).is_some() {
            refuse::type_name(&first.to_string()).unwrap_or_default().to_owned()
        } else if primitive_named(&first.to_string()).is_some() {
            format!(
                "no constant `{text}` here: there are `MAX` and `MIN`, `BITS` of integers, and the usual ones of floats"
            )
        } else {
            format!(
                "nothing is named `{text}` here: an actor sees its own module, and the actor modules it names with `use`"
            )
        };
        self.error(path, message);
    }

    /// The module's type of this name; `Self` in an `impl`.
    pub fn owner_named(&self, ident: &Ident) -> Option<Named> {
        if ident == "Self" { self.owner } else { self.world.named(ident) }
    }

    pub fn struct_named(&self, path: &Path) -> Option<usize> {
        match self.owner_named(path.get_ident()?) {
            Some(Named::Struct(id)) => Some(id),
            _ => None,
        }
    }

    /// `Enum::Variant`.
    pub fn variant_named(&self, path: &Path) -> Option<(usize, usize)> {
        let [owner, variant] = [path.segments.first()?, path.segments.get(1)?];
        let Some(Named::Enum(id)) = self.owner_named(&owner.ident) else { return None };
        let index = self.world.enums[id].variants.iter().position(|other| other.ident == variant.ident)?;
        (path.segments.len() == 2).then_some((id, index))
    }

    /// `u32::MAX`, `std::f64::consts::PI`.
    pub fn constant_path(&self, path: &Path) -> Option<(Ty, Value)> {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names[..] {
            [ty, name] | ["std" | "core", ty, name] => builtins::constant(ty, name),
            ["std" | "core", ty, "consts", name] => builtins::math_constant(ty, name),
            _ => None,
        }
    }

    fn unit_variant(&mut self, id: usize, variant: usize, path: &Path, at: At) -> Node {
        let fields = &self.world.enums[id].variants[variant].fields;
        if !fields.is_empty() {
            let text = sketch(path);
            self.error(&at, format!("`{text}` has fields: write `{text} {{ {} }}`", field_list(fields)));
        }
        Node::new(Type::Enum(id), at, move |_| ExprKind::Variant { id, variant, fields: Vec::new() })
    }

    fn array(&mut self, e: &Expr, array: &syn::ExprArray, hint: Hint) -> Node {
        if array.elems.is_empty() {
            self.error(e, "an array has at least one item");
            return Node::error(At::of(e));
        }
        let item = self.item_type(hint);
        let items: Vec<Node> = array.elems.iter().map(|e| self.item(e, &item)).collect();
        let ty = Type::Array(Box::new(item), items.len() as u32);
        Node::new(ty, At::of(e), |f| ExprKind::Array(items.into_iter().map(|item| item.finish(f)).collect()))
    }

    fn repeat(&mut self, e: &Expr, repeat: &syn::ExprRepeat, hint: Hint) -> Node {
        let item = self.item_type(hint);
        let value = self.item(&repeat.expr, &item);
        let Some(length) = self.world.length(&repeat.len) else { return Node::error(At::of(e)) };
        let ty = Type::Array(Box::new(item), length);
        Node::new(ty, At::of(e), move |f| ExprKind::Repeat(value.boxed(f), length))
    }

    /// The type that an array's items have to be, or a new one.
    fn item_type(&mut self, hint: Hint) -> Type {
        match hint.required().map(|ty| self.vars.shallow(ty)) {
            Some(Type::Array(item, _)) => *item,
            _ => self.vars.any(),
        }
    }

    fn item(&mut self, e: &Expr, ty: &Type) -> Node {
        let node = self.operand(e, Hint::Is(ty));
        self.coerce(&node.ty, e, ty);
        node
    }

    fn struct_literal(&mut self, e: &Expr, literal: &ExprStruct) -> Node {
        let at = At::of(e);
        if let Some(dots) = &literal.dot2_token {
            self.error(dots, "write every field: nothing is taken over from another value");
        }
        if let Some(id) = self.struct_named(&literal.path) {
            let world = self.world;
            let fields = self.field_values(literal, &world.structs[id].fields);
            return Node::new(Type::Struct(id), at, move |f| ExprKind::Struct { id, fields: finish_fields(fields, f) });
        }
        if let Some((id, variant)) = self.variant_named(&literal.path) {
            let world = self.world;
            let fields = self.field_values(literal, &world.enums[id].variants[variant].fields);
            return Node::new(Type::Enum(id), at, move |f| ExprKind::Variant {
                id,
                variant,
                fields: finish_fields(fields, f),
            });
        }
        match literal.path.get_ident() {
            Some(name) if self.owner_named(name).is_some() => {
                self.error(
                    &literal.path,
                    format!("`{name}` is an enum: write one of its variants, `{name}::.. {{ .. }}`"),
                );
            }
            Some(name) => self.error(name, format!("no struct `{name}` in this module")),
            None => self.unknown_path(&literal.path),
        }
        Node::error(at)
    }

    /// The values of a literal's fields, as written, each given once.
    fn field_values(&mut self, literal: &ExprStruct, declared: &[Field]) -> Vec<(usize, Node)> {
        let mut values: Vec<(usize, Node)> = Vec::new();
        for field in &literal.fields {
            let Some(index) = self.field_index(&field.member, declared, &sketch(&literal.path)) else { continue };
            let value = self.expect(&field.expr, &Type::of_field(&declared[index].ty));
            if values.iter().any(|(other, _)| *other == index) {
                self.error(&field.member, "this field is given twice: keep one");
            } else {
                values.push((index, value));
            }
        }
        let missing: Vec<String> = (0..declared.len())
            .filter(|index| !values.iter().any(|(given, _)| given == index))
            .map(|index| format!("`{}`", declared[index].ident))
            .collect();
        if !missing.is_empty() && literal.dot2_token.is_none() && values.len() == literal.fields.len() {
            self.error(&literal.path, format!("write all fields: {} missing", missing.join(", ")));
        }
        values
    }

    pub fn field_index(&mut self, member: &Member, declared: &[Field], of: &str) -> Option<usize> {
        let index = match member {
            Member::Named(name) => declared.iter().position(|field| field.ident == *name),
            Member::Unnamed(_) => None,
        };
        if index.is_none() {
            let there_are = match declared.is_empty() {
                true => "it has none".to_owned(),
                false => format!("there are {}", field_list_quoted(declared)),
            };
            self.error(member, format!("no field `{}` in `{of}`: {there_are}", sketch(member)));
        }
        index
    }
}

/// The literal under parentheses.
pub fn literal_under(e: &Expr) -> Option<&Lit> {
    match e {
        Expr::Lit(literal) => Some(&literal.lit),
        Expr::Paren(inner) => literal_under(&inner.expr),
        Expr::Group(inner) => literal_under(&inner.expr),
        _ => None,
    }
}

pub fn is_unit_only(enumeration: &Enum) -> bool {
    enumeration.variants.iter().all(|variant| variant.fields.is_empty())
}

pub fn variant_names(enumeration: &Enum) -> String {
    let names: Vec<String> = enumeration.variants.iter().map(|variant| format!("`{}`", variant.ident)).collect();
    names.join(", ")
}

pub fn field_list(fields: &[Field]) -> String {
    let names: Vec<String> = fields.iter().map(|field| field.ident.to_string()).collect();
    names.join(", ")
}

fn field_list_quoted(fields: &[Field]) -> String {
    let names: Vec<String> = fields.iter().map(|field| format!("`{}`", field.ident)).collect();
    names.join(", ")
}

pub fn negative_unsigned(name: &str) -> String {
    format!("`{name}` has no negative values: write a signed type, or `x.wrapping_neg()`")
}

fn integer_literal(ty: Type, at: At, value: Option<i128>) -> Node {
    let own = ty.clone();
    Node::new(ty, at, move |f| {
        if let Ty::Int(int) = f.ty(&own, at) {
            let (low, high) = limits(int);
            let fits = value.is_some_and(|value| (low..=high).contains(&value));
            // A negative unsigned number has its own error.
            if !fits && (is_signed(int) || value.is_none_or(|value| value >= 0)) {
                let name = int_name(int);
                let text = value.map_or("this number".to_owned(), |value| value.to_string());
                f.world.errors.at(
                    &at,
                    format!("{text} does not fit `{name}`, which goes from {low} to {high}: write a wider type"),
                );
            } else if !fits && !f.quiet {
                f.world.errors.at(&at, negative_unsigned(int_name(int)));
            }
        }
        ExprKind::Int(value.unwrap_or_default())
    })
}

fn float_value(f: &mut Finish, digits: &str, ty: &Type, at: At) -> ExprKind {
    let value = match f.ty(ty, at) {
        Ty::Float(Float::F32) => digits.parse::<f32>().map(f64::from),
        _ => digits.parse::<f64>(),
    };
    let value = value.unwrap_or(f64::INFINITY);
    if value.is_infinite() {
        f.world.errors.at(&at, "this number is too large for its type: write `f64::INFINITY`, or a smaller one");
    }
    ExprKind::Float(value)
}

fn finish_fields(fields: Vec<(usize, Node)>, f: &mut Finish) -> Vec<(usize, crate::ir::Expr)> {
    fields.into_iter().map(|(index, value)| (index, value.finish(f))).collect()
}
