//! Patterns of `match` and `if let`.

use proc_macro2::Ident;
use syn::{Expr, ExprRange, Lit, Member, Pat, PatIdent, PatStruct, Path, RangeLimits};

use super::body::{Checker, Origin};
use super::consts::Value;
use super::errors::{At, sketch};
use super::expr::{field_list, variant_names};
use super::infer::{Kind, Type, int_name, limits, primitive_named};
use super::refuse;
use super::tree::{Finish, PatternNode};
use super::world::Named;
use crate::ir::{Field, Local, Pattern, Ty};

/// The names that a pattern binds.
#[derive(Default)]
pub struct Bindings {
    bound: Vec<(String, Local)>,
    /// In the later alternatives of an or-pattern: the names of the first, which have to be bound again.
    again: Option<Vec<(String, Local)>>,
}

/// One end of a range.
enum End {
    Value(i128),
    Open,
}

impl Checker<'_, '_> {
    /// Checks a pattern for values of type `ty`, and brings its names into scope.
    pub fn pattern(&mut self, pattern: &Pat, ty: &Type, names: &mut Bindings) -> PatternNode {
        match pattern {
            Pat::Wild(_) => wild(),
            Pat::Paren(inner) => self.pattern(&inner.pat, ty, names),
            Pat::Ident(name) => self.name_pattern(name, ty, names),
            Pat::Lit(literal) => self.literal_pattern(pattern, &literal.lit, ty),
            Pat::Range(range) => self.range_pattern(range, ty),
            Pat::Path(path) => self.path_pattern(&path.path, ty),
            Pat::Struct(fields) => self.fields_pattern(fields, ty, names),
            Pat::Or(or) => self.or_pattern(or, ty, names),
            Pat::TupleStruct(tuple) => {
                self.refuse_tuple_struct(tuple);
                self.bring_in_refused(pattern);
                wild()
            }
            other => {
                refuse::pattern(other, self.world.errors);
                self.bring_in_refused(other);
                wild()
            }
        }
    }

    fn name_pattern(&mut self, name: &PatIdent, ty: &Type, names: &mut Bindings) -> PatternNode {
        if let Some(word) = &name.by_ref {
            self.error(word, "patterns copy: remove `ref`");
        }
        let plain = name.subpat.is_none() && name.mutability.is_none() && name.by_ref.is_none();
        if plain && self.world.consts.contains(&name.ident) {
            return self.constant_pattern(self.world.constant(&name.ident), ty, name);
        }
        if self.is_misread(&name.ident, ty) {
            return wild();
        }
        let local = self.bind(name, ty, names);
        let inner = name.subpat.as_ref().map(|(_, inner)| self.pattern(inner, ty, names));
        PatternNode::new(move |f| Pattern::Bind { local, inner: inner.map(|inner| Box::new(inner.finish(f))) })
    }

    /// A variant without its enum, or a constant that is not there, would bind a new name and match everything.
    fn is_misread(&mut self, ident: &Ident, ty: &Type) -> bool {
        let enumeration = match self.vars.shallow(ty) {
            Type::Enum(id) => Some(&self.world.enums[id]),
            _ => None,
        };
        let owner = enumeration.filter(|owner| owner.variants.iter().any(|variant| variant.ident == *ident));
        let message = match owner {
            Some(owner) => format!("write `{}::{ident}`: `{ident}` alone would be a new name", owner.ident),
            None if ident == "None" => refuse::type_name("Option").unwrap_or_default().to_owned(),
            None if ident.to_string().starts_with(|c: char| c.is_uppercase()) => {
                format!("no constant or variant `{ident}` here; a name for the value begins with a small letter")
            }
            None => return false,
        };
        self.error(ident, message);
        true
    }

    fn bind(&mut self, name: &PatIdent, ty: &Type, names: &mut Bindings) -> Local {
        let text = name.ident.to_string();
        if names.bound.iter().any(|(other, _)| *other == text) {
            self.error(&name.ident, format!("`{text}` is bound twice in this pattern: rename one"));
        }
        let again = names.again.as_ref().map(|first| first.iter().find(|(other, _)| *other == text).map(|(_, l)| *l));
        let local = match again {
            Some(Some(local)) => {
                let first = self.locals[local.0].ty.clone();
                self.same(ty, &first, &name.ident);
                local
            }
            Some(None) => {
                self.error(
                    &name.ident,
                    format!("the first alternative does not bind `{text}`: bind it in each, or in none"),
                );
                self.local(&name.ident, ty.clone(), name.mutability.is_some(), Origin::Let)
            }
            None => self.local(&name.ident, ty.clone(), name.mutability.is_some(), Origin::Let),
        };
        names.bound.push((text, local));
        local
    }

    fn or_pattern(&mut self, or: &syn::PatOr, ty: &Type, names: &mut Bindings) -> PatternNode {
        let before = names.bound.len();
        let mut cases = or.cases.iter();
        let mut alternatives = Vec::new();
        alternatives.extend(cases.next().map(|first| self.pattern(first, ty, names)));
        let first = names.bound[before..].to_vec();
        for case in cases {
            let mut again = first.clone();
            again.extend(names.again.iter().flatten().cloned());
            let mut inner = Bindings { bound: names.bound[..before].to_vec(), again: Some(again) };
            alternatives.push(self.pattern(case, ty, &mut inner));
            for (name, _) in &first {
                if !inner.bound.iter().any(|(other, _)| other == name) {
                    self.error(case, format!("this alternative does not bind `{name}`: bind it in each, or in none"));
                }
            }
        }
        PatternNode::new(|f| Pattern::Or(alternatives.into_iter().map(|node| node.finish(f)).collect()))
    }

    fn literal_pattern(&mut self, pattern: &Pat, literal: &Lit, ty: &Type) -> PatternNode {
        let at = At::of(pattern);
        match literal {
            Lit::Bool(value) => {
                self.same(&Type::Bool, ty, pattern);
                let value = value.value;
                PatternNode::new(move |_| Pattern::Bool(value))
            }
            Lit::Int(_) | Lit::Byte(_) => {
                let Some(value) = self.pattern_integer(literal, ty, at) else { return wild() };
                let ty = ty.clone();
                PatternNode::new(move |f| {
                    check_fits(f, value, &ty, at);
                    Pattern::Int(value)
                })
            }
            Lit::Float(_) => {
                self.error(pattern, "floats are not matched: write a guard, `x if x < 1.5 => ..`");
                wild()
            }
            _ => {
                self.error(pattern, "no text here: match on numbers or on an enum of your own");
                wild()
            }
        }
    }

    /// The value of an integer literal in a pattern, with the type it fixes.
    fn pattern_integer(&mut self, literal: &Lit, ty: &Type, at: At) -> Option<i128> {
        let (value, suffix) = match literal {
            Lit::Byte(byte) => (i128::from(byte.value()), "u8"),
            Lit::Int(number) => match number.base10_parse::<i128>() {
                Ok(value) => (value, number.suffix()),
                Err(_) => {
                    self.error(&at, "this number fits no type: write a smaller one");
                    return None;
                }
            },
            _ => return None,
        };
        let own = match suffix {
            "" => self.vars.integer(),
            suffix => primitive_named(suffix).unwrap_or_else(|| {
                self.error(&at, refuse::type_name(suffix).unwrap_or("no such type of number"));
                Type::Error
            }),
        };
        self.same(&own, ty, &at);
        Some(value)
    }

    fn range_pattern(&mut self, range: &ExprRange, ty: &Type) -> PatternNode {
        if self.vars.kind(ty) == Kind::Float {
            self.error(range, "floats are not matched: write a guard, `x if x < 1.5 => ..`");
            return wild();
        }
        let (Some(low), Some(high)) = (self.end(&range.start, ty), self.end(&range.end, ty)) else {
            return wild();
        };
        let exclusive = matches!(range.limits, RangeLimits::HalfOpen(_));
        let (at, ty) = (At::of(range), ty.clone());
        PatternNode::new(move |f| finish_range(f, (low, high), exclusive, &ty, at))
    }

    fn end(&mut self, e: &Option<Box<Expr>>, ty: &Type) -> Option<End> {
        let Some(e) = e else { return Some(End::Open) };
        let at = At::of(e);
        let value = match &**e {
            Expr::Lit(literal) if matches!(literal.lit, Lit::Int(_) | Lit::Byte(_)) => {
                self.pattern_integer(&literal.lit, ty, at)?
            }
            Expr::Path(path) => match self.pattern_constant(&path.path) {
                Some((constant, Value::Int(value))) => {
                    self.same(&Type::from(&constant), ty, e);
                    value
                }
                Some(_) => {
                    self.error(e, "a range in a pattern has integers for ends");
                    return None;
                }
                None => return None,
            },
            Expr::Lit(literal) if matches!(literal.lit, Lit::Float(_)) => {
                self.error(e, "floats are not matched: write a guard, `x if x < 1.5 => ..`");
                return None;
            }
            _ => {
                self.error(e, "a range in a pattern has integers or constants for ends");
                return None;
            }
        };
        Some(End::Value(value))
    }

    /// A constant of the module or of a number's type; reports where there is none.
    fn pattern_constant(&mut self, path: &Path) -> Option<(Ty, Value)> {
        if let Some(known) = self.constant_path(path) {
            return Some(known);
        }
        match path.get_ident() {
            Some(ident) if self.world.consts.contains(ident) => self.world.constant(ident),
            _ => {
                let text = sketch(path);
                self.error(path, format!("no constant or variant `{text}` here"));
                None
            }
        }
    }

    fn path_pattern(&mut self, path: &Path, ty: &Type) -> PatternNode {
        let Some((id, variant)) = self.variant_named(path) else {
            let owner = path.segments.first().and_then(|segment| self.owner_named(&segment.ident));
            if let Some(Named::Enum(id)) = owner {
                let (name, there_are) = (&self.world.enums[id].ident, variant_names(&self.world.enums[id]));
                let last = &path.segments[path.segments.len() - 1].ident;
                self.error(path, format!("no variant `{last}` in `{name}`: there are {there_are}"));
                return wild();
            }
            let constant = self.pattern_constant(path);
            return if constant.is_some() { self.constant_pattern(constant, ty, path) } else { wild() };
        };
        self.same(&Type::Enum(id), ty, path);
        let fields = &self.world.enums[id].variants[variant].fields;
        if !fields.is_empty() {
            let text = sketch(path);
            self.error(
                path,
                format!("`{text}` has fields: write `{text} {{ {} }}`, or `{text} {{ .. }}`", field_list(fields)),
            );
        }
        PatternNode::new(move |_| Pattern::Variant { id, variant, fields: Vec::new() })
    }

    fn constant_pattern(
        &mut self,
        constant: Option<(Ty, Value)>,
        ty: &Type,
        tokens: &impl quote::ToTokens,
    ) -> PatternNode {
        let Some((own, value)) = constant else { return wild() };
        match value {
            Value::Int(value) => {
                self.same(&Type::from(&own), ty, tokens);
                PatternNode::new(move |_| Pattern::Int(value))
            }
            Value::Bool(value) => {
                self.same(&Type::Bool, ty, tokens);
                PatternNode::new(move |_| Pattern::Bool(value))
            }
            Value::Float(_) => {
                self.error(tokens, "floats are not matched: write a guard, `x if x == LIMIT => ..`");
                wild()
            }
            Value::Array(_) => {
                self.error(tokens, "arrays are not matched: compare their items");
                wild()
            }
        }
    }

    fn fields_pattern(&mut self, pattern: &PatStruct, ty: &Type, names: &mut Bindings) -> PatternNode {
        if let Some(id) = self.struct_named(&pattern.path) {
            self.same(&Type::Struct(id), ty, &pattern.path);
            let types = field_types(&self.world.structs[id].fields);
            let fields = self.struct_pattern_fields(id, pattern);
            let fields = self.inner_patterns(fields, &types, names);
            return PatternNode::new(move |f| Pattern::Struct { id, fields: finish_fields(fields, f) });
        }
        let Some((id, variant)) = self.variant_named(&pattern.path) else {
            self.unknown_fields_path(&pattern.path);
            return wild();
        };
        self.same(&Type::Enum(id), ty, &pattern.path);
        let world = self.world;
        let declared = &world.enums[id].variants[variant].fields;
        let fields = self.named_fields(declared, pattern);
        let fields = self.inner_patterns(fields, &field_types(declared), names);
        PatternNode::new(move |f| Pattern::Variant { id, variant, fields: finish_fields(fields, f) })
    }

    fn unknown_fields_path(&mut self, path: &Path) {
        let text = sketch(path);
        let owner = path.segments.first().and_then(|segment| self.owner_named(&segment.ident));
        let message = match owner {
            Some(Named::Enum(id)) => {
                let there_are = variant_names(&self.world.enums[id]);
                format!("no variant `{text}`: `{}` has {there_are}", self.world.enums[id].ident)
            }
            _ => format!("no struct or variant `{text}` in this module"),
        };
        self.error(path, message);
    }

    pub fn struct_pattern_fields<'p>(&mut self, id: usize, pattern: &'p PatStruct) -> Vec<(usize, &'p Pat)> {
        let world = self.world;
        self.named_fields(&world.structs[id].fields, pattern)
    }

    /// The fields that a pattern names, and their patterns.
    fn named_fields<'p>(&mut self, declared: &[Field], pattern: &'p PatStruct) -> Vec<(usize, &'p Pat)> {
        let mut fields: Vec<(usize, &Pat)> = Vec::new();
        for field in &pattern.fields {
            let Some(index) = self.field_index(&field.member, declared, &sketch(&pattern.path)) else { continue };
            if fields.iter().any(|(other, _)| *other == index) {
                self.error(&field.member, "this field is named twice: keep one");
            }
            fields.push((index, &field.pat));
        }
        let missing: Vec<String> = (0..declared.len())
            .filter(|index| !fields.iter().any(|(named, _)| named == index))
            .map(|index| format!("`{}`", declared[index].ident))
            .collect();
        let misnamed = pattern.fields.iter().any(|field| matches!(field.member, Member::Unnamed(_)));
        if pattern.rest.is_none() && !missing.is_empty() && !misnamed && fields.len() == pattern.fields.len() {
            self.error(&pattern.path, format!("this leaves out {}: name them, or write `..`", missing.join(", ")));
        }
        fields
    }

    fn inner_patterns(
        &mut self,
        fields: Vec<(usize, &Pat)>,
        types: &[Type],
        names: &mut Bindings,
    ) -> Vec<(usize, PatternNode)> {
        let inner = |(index, inner): (usize, &Pat)| (index, self.pattern(inner, &types[index], names));
        fields.into_iter().map(inner).collect()
    }

    fn refuse_tuple_struct(&mut self, tuple: &syn::PatTupleStruct) {
        let text = sketch(&tuple.path);
        let advice = match text.as_str() {
            "Some" | "Option::Some" => refuse::type_name("Option").unwrap_or_default().to_owned(),
            "Ok" | "Err" => refuse::type_name("Result").unwrap_or_default().to_owned(),
            _ => match self.variant_named(&tuple.path) {
                Some((id, variant)) if !self.world.enums[id].variants[variant].fields.is_empty() => {
                    let fields = field_list(&self.world.enums[id].variants[variant].fields);
                    format!("fields have names: write `{text} {{ {fields} }}`")
                }
                Some(_) => format!("`{text}` has no fields: write `{text}`"),
                None => format!("fields have names: write `{text} {{ value }}`"),
            },
        };
        self.error(tuple, advice);
    }
}

fn wild() -> PatternNode {
    PatternNode::new(|_| Pattern::Wild)
}

fn field_types(fields: &[Field]) -> Vec<Type> {
    fields.iter().map(|field| Type::of_field(&field.ty)).collect()
}

fn finish_fields(fields: Vec<(usize, PatternNode)>, f: &mut Finish) -> Vec<(usize, Pattern)> {
    fields.into_iter().map(|(index, inner)| (index, inner.finish(f))).collect()
}

fn check_fits(f: &mut Finish, value: i128, ty: &Type, at: At) {
    if let Ty::Int(int) = f.ty(ty, at) {
        let (low, high) = limits(int);
        if !(low..=high).contains(&value) {
            let name = int_name(int);
            f.world.errors.at(&at, format!("{value} does not fit `{name}`, which goes from {low} to {high}"));
        }
    }
}

fn finish_range(f: &mut Finish, (low, high): (End, End), exclusive: bool, ty: &Type, at: At) -> Pattern {
    let Ty::Int(int) = f.ty(ty, at) else { return Pattern::Wild };
    let (smallest, largest) = limits(int);
    let low = match low {
        End::Value(value) => value,
        End::Open => smallest,
    };
    let (high, written_high) = match high {
        End::Value(value) if exclusive => (value - 1, value),
        End::Value(value) => (value, value),
        End::Open => (largest, largest),
    };
    check_fits(f, low, ty, at);
    check_fits(f, written_high, ty, at);
    if low > high {
        f.world.errors.at(&at, "no value is in this range: write the smaller end first");
    }
    Pattern::Range { low, high }
}
