//! Patterns, taken apart: what to test and what to bind, in the order in which Rust tries them.

use super::names;
use crate::ir::{Field, Int, Local, Module, Pattern, Ty};

/// One way for a value to match: all tests hold, then the names are bound.
#[derive(Clone, Default)]
pub struct Alternative {
    pub tests: Vec<String>,
    pub binds: Vec<Bind>,
}

#[derive(Clone)]
pub struct Bind {
    pub local: Local,
    /// What it is a copy of.
    pub from: String,
}

impl Alternative {
    /// The tests as one condition, or nothing where it always matches.
    pub fn condition(&self) -> Option<String> {
        (!self.tests.is_empty()).then(|| self.tests.join(" && "))
    }
}

/// The ways in which `subject`, an expression without effects, can match. An or-pattern is several, for Rust
/// tries its arm's guard on each.
pub fn alternatives(module: &Module, pattern: &Pattern, subject: &str, ty: &Ty) -> Vec<Alternative> {
    let test = |test: String| vec![Alternative { tests: vec![test], binds: Vec::new() }];
    match pattern {
        Pattern::Wild => vec![Alternative::default()],
        Pattern::Bind { local, inner } => {
            let mut inner = match inner {
                Some(inner) => alternatives(module, inner, subject, ty),
                None => vec![Alternative::default()],
            };
            for alternative in &mut inner {
                alternative.binds.insert(0, Bind { local: *local, from: subject.into() });
            }
            inner
        }
        Pattern::Bool(true) => test(subject.into()),
        Pattern::Bool(false) => test(format!("!{subject}")),
        Pattern::Int(value) => test(format!("rh::eq({subject}, {})", names::int_literal(*value, int(ty)))),
        Pattern::Range { low, high } => {
            let (low, high) = (names::int_literal(*low, int(ty)), names::int_literal(*high, int(ty)));
            test(format!("rh::within({subject}, {low}, {high})"))
        }
        Pattern::Variant { id, variant, fields } => {
            let definition = &module.enums[*id];
            let variant_definition = &definition.variants[*variant];
            let member = format!("{subject}.{}", names::variant(&variant_definition.ident));
            let mut all = each_field(module, &variant_definition.fields, fields, &member);
            if definition.variants.len() > 1 {
                let name = names::named_type(&definition.ident);
                let test = format!("{subject}.tag == {name}::{}", names::tag(&variant_definition.ident));
                all.iter_mut().for_each(|alternative| alternative.tests.insert(0, test.clone()));
            }
            all
        }
        Pattern::Struct { id, fields } => each_field(module, &module.structs[*id].fields, fields, subject),
        Pattern::Or(several) => several.iter().flat_map(|pattern| alternatives(module, pattern, subject, ty)).collect(),
    }
}

/// The alternatives of all fields with each other, those of the first field slowest.
fn each_field(module: &Module, of: &[Field], fields: &[(usize, Pattern)], subject: &str) -> Vec<Alternative> {
    let mut all = vec![Alternative::default()];
    for (index, pattern) in fields {
        let field = &of[*index];
        let place = format!("{subject}.{}", names::field(&field.ident));
        let more = alternatives(module, pattern, &place, &field.ty);
        let joined = all.iter().flat_map(|left| {
            more.iter().map(|right| {
                let mut both = left.clone();
                both.tests.extend(right.tests.iter().cloned());
                both.binds.extend(right.binds.iter().cloned());
                both
            })
        });
        all = joined.collect();
    }
    all
}

fn int(ty: &Ty) -> Int {
    match ty {
        Ty::Int(int) => *int,
        _ => unreachable!("only integers are matched with numbers"),
    }
}
