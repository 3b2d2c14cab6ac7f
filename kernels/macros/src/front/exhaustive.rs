//! Whether the arms of a `match` cover every value.
//!
//! The usefulness algorithm of Luc Maranget, "Warnings for pattern matching" (Journal of Functional
//! Programming, 2007): a value is missing when a row of wildcards is still useful after all arms. Integers
//! are split at the ends of the ranges that occur; what is found missing is returned as a pattern.

use super::infer::{int_name, limits};
use super::world::World;
use crate::ir::{Enum, Field, Int, Pattern, Struct, Ty};

/// The types that patterns speak of.
trait Types {
    fn structure(&self, id: usize) -> &Struct;
    fn enumeration(&self, id: usize) -> &Enum;
}

impl Types for World<'_> {
    fn structure(&self, id: usize) -> &Struct {
        &self.structs[id]
    }

    fn enumeration(&self, id: usize) -> &Enum {
        &self.enums[id]
    }
}

/// A pattern for values that none of `patterns` matches, or `None` where they match every value of `ty`.
pub fn missing<'p>(world: &World, patterns: impl Iterator<Item = &'p Pattern>, ty: &Ty) -> Option<String> {
    missing_in(world, patterns, ty)
}

fn missing_in<'p>(types: &dyn Types, patterns: impl Iterator<Item = &'p Pattern>, ty: &Ty) -> Option<String> {
    let rows: Vec<Row> = patterns.flat_map(|pattern| expand(vec![pattern])).collect();
    let witness = useful(types, &rows, &[ty])?;
    witness.into_iter().next()
}

/// What a row says of each of the values looked at; it has no or-pattern and no binding at its head.
type Row<'p> = Vec<&'p Pattern>;

const WILD: &Pattern = &Pattern::Wild;

/// Splits or-patterns at the head of a row, and looks through bindings.
fn expand(row: Row) -> Vec<Row> {
    let Some((head, rest)) = row.split_first() else { return vec![row] };
    match head {
        Pattern::Or(cases) => cases.iter().flat_map(|case| expand([&[case], rest].concat())).collect(),
        Pattern::Bind { inner: Some(inner), .. } => expand([&[&**inner], rest].concat()),
        Pattern::Bind { inner: None, .. } => vec![[&[WILD], rest].concat()],
        _ => vec![row],
    }
}

/// One pattern for each of `tys` that together match values no row matches, if there are any.
fn useful(types: &dyn Types, rows: &[Row], tys: &[&Ty]) -> Option<Vec<String>> {
    let Some((head, rest)) = tys.split_first() else {
        return rows.is_empty().then(Vec::new);
    };
    if rows.iter().all(|row| matches!(row[0], Pattern::Wild)) {
        let rows: Vec<Row> = rows.iter().flat_map(|row| expand(row[1..].to_vec())).collect();
        return prefixed("_".to_owned(), useful(types, &rows, rest));
    }
    match head {
        Ty::Bool => [false, true].into_iter().find_map(|value| {
            let matches = |pattern: &Pattern| matches!(pattern, Pattern::Bool(other) if *other == value);
            prefixed(value.to_string(), useful(types, &leaf_rows(rows, matches), rest))
        }),
        Ty::Int(int) => segments(rows, *int).into_iter().find_map(|(low, high)| {
            let matches = |pattern: &Pattern| match pattern {
                Pattern::Int(value) => *value == low && *value == high,
                Pattern::Range { low: from, high: to } => *from <= low && high <= *to,
                _ => false,
            };
            prefixed(range_text(low, high, *int), useful(types, &leaf_rows(rows, matches), rest))
        }),
        Ty::Struct(id) => {
            let structure = types.structure(*id);
            useful_fields(
                types,
                rows,
                (&structure.fields, &structure.ident.to_string()),
                rest,
                &|pattern| match pattern {
                    Pattern::Struct { fields, .. } => Some(fields),
                    _ => None,
                },
            )
        }
        Ty::Enum(id) => {
            let enumeration = types.enumeration(*id);
            enumeration.variants.iter().enumerate().find_map(|(index, variant)| {
                let name = format!("{}::{}", enumeration.ident, variant.ident);
                useful_fields(types, rows, (&variant.fields, &name), rest, &|pattern| match pattern {
                    Pattern::Variant { variant, fields, .. } if *variant == index => Some(fields),
                    _ => None,
                })
            })
        }
        // Nothing but wildcards matches other types, and that case is above.
        _ => None,
    }
}

fn prefixed(first: String, rest: Option<Vec<String>>) -> Option<Vec<String>> {
    rest.map(|mut rest| {
        rest.insert(0, first);
        rest
    })
}

/// The rows whose head is a wildcard or `matches`, without their head.
fn leaf_rows<'p>(rows: &[Row<'p>], matches: impl Fn(&Pattern) -> bool) -> Vec<Row<'p>> {
    let kept = rows.iter().filter(|row| matches!(row[0], Pattern::Wild) || matches(row[0]));
    kept.flat_map(|row| expand(row[1..].to_vec())).collect()
}

/// The fields that a head pattern names, where it is of the constructor looked at.
type Select<'s> = &'s dyn for<'p> Fn(&'p Pattern) -> Option<&'p Vec<(usize, Pattern)>>;

/// Looks into the fields of a struct or of one variant.
fn useful_fields(
    types: &dyn Types,
    rows: &[Row],
    (declared, name): (&[Field], &str),
    rest: &[&Ty],
    select: Select,
) -> Option<Vec<String>> {
    let inner_rows: Vec<Row> =
        rows.iter().filter_map(|row| with_fields(row, declared.len(), select)).flat_map(expand).collect();
    let tys: Vec<&Ty> = declared.iter().map(|field| &field.ty).chain(rest.iter().copied()).collect();
    let mut witness = useful(types, &inner_rows, &tys)?;
    let after = witness.split_off(declared.len());
    let named = declared.iter().zip(&witness).filter(|(_, pattern)| *pattern != "_");
    let fields: Vec<String> = named.map(|(field, pattern)| format!("{}: {pattern}", field.ident)).collect();
    let text = match (declared.len(), fields.len()) {
        (0, _) => name.to_owned(),
        (all, shown) if all == shown => format!("{name} {{ {} }}", fields.join(", ")),
        (_, 0) => format!("{name} {{ .. }}"),
        _ => format!("{name} {{ {}, .. }}", fields.join(", ")),
    };
    prefixed(text, Some(after))
}

/// The row with its head replaced by the patterns of all `count` fields.
fn with_fields<'p>(row: &Row<'p>, count: usize, select: Select) -> Option<Row<'p>> {
    let mut fields = vec![WILD; count];
    if !matches!(row[0], Pattern::Wild) {
        for (index, pattern) in select(row[0])? {
            fields[*index] = pattern;
        }
    }
    fields.extend(&row[1..]);
    Some(fields)
}

/// The type's values, cut wherever a pattern begins or ends: within a segment, all values match alike.
fn segments(rows: &[Row], int: Int) -> Vec<(i128, i128)> {
    let (smallest, largest) = limits(int);
    let mut starts = vec![smallest];
    for row in rows {
        let (low, high) = match row[0] {
            Pattern::Int(value) => (*value, *value),
            Pattern::Range { low, high } => (*low, *high),
            _ => continue,
        };
        starts.extend([low, high + 1]);
    }
    starts.retain(|start| (smallest..=largest).contains(start));
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([largest]);
    starts.iter().copied().zip(ends).collect()
}

fn range_text(low: i128, high: i128, int: Int) -> String {
    let (smallest, largest) = limits(int);
    let name = int_name(int);
    let low_text = if low == smallest && low != 0 { format!("{name}::MIN") } else { low.to_string() };
    let high_text = if high == largest { format!("{name}::MAX") } else { high.to_string() };
    if low == high { low_text } else { format!("{low_text}..={high_text}") }
}

#[cfg(test)]
mod tests {
    use proc_macro2::{Ident, Span};

    use super::*;
    use crate::ir::{Local, Variant};

    /// `struct Pair { a: bool, b: u8 }` and `enum Shape { Dot, Line { length: u8 }, Box { pair: Pair } }`.
    struct Known {
        pair: Struct,
        shape: Enum,
    }

    impl Types for Known {
        fn structure(&self, _: usize) -> &Struct {
            &self.pair
        }

        fn enumeration(&self, _: usize) -> &Enum {
            &self.shape
        }
    }

    fn ident(name: &str) -> Ident {
        Ident::new(name, Span::call_site())
    }

    fn field(name: &str, ty: Ty) -> Field {
        Field { ident: ident(name), vis: syn::Visibility::Inherited, docs: Vec::new(), ty }
    }

    fn known() -> Known {
        let byte = || Ty::Int(Int::U8);
        let variant = |name: &str, fields| Variant { ident: ident(name), docs: Vec::new(), fields };
        let pair_fields = vec![field("a", Ty::Bool), field("b", byte())];
        let variants = vec![
            variant("Dot", vec![]),
            variant("Line", vec![field("length", byte())]),
            variant("Box", vec![field("pair", Ty::Struct(0))]),
        ];
        let vis = syn::Visibility::Inherited;
        Known {
            pair: Struct { ident: ident("Pair"), vis: vis.clone(), docs: Vec::new(), fields: pair_fields },
            shape: Enum { ident: ident("Shape"), vis, docs: Vec::new(), variants },
        }
    }

    fn check(patterns: &[Pattern], ty: Ty) -> Option<String> {
        missing_in(&known(), patterns.iter(), &ty)
    }

    fn dot() -> Pattern {
        Pattern::Variant { id: 0, variant: 0, fields: vec![] }
    }

    fn line(length: Pattern) -> Pattern {
        Pattern::Variant { id: 0, variant: 1, fields: vec![(0, length)] }
    }

    fn boxed(a: Pattern, b: Pattern) -> Pattern {
        let pair = Pattern::Struct { id: 0, fields: vec![(0, a), (1, b)] };
        Pattern::Variant { id: 0, variant: 2, fields: vec![(0, pair)] }
    }

    #[test]
    fn integer_ranges_leave_the_gap_between_them() {
        let ranges = |second: i128| [Pattern::Range { low: 0, high: 9 }, Pattern::Range { low: second, high: 255 }];
        assert_eq!(check(&ranges(10), Ty::Int(Int::U8)), None);
        assert_eq!(check(&ranges(9), Ty::Int(Int::U8)), None);
        assert_eq!(check(&ranges(11), Ty::Int(Int::U8)).as_deref(), Some("10"));
        assert_eq!(check(&ranges(13), Ty::Int(Int::U8)).as_deref(), Some("10..=12"));
        assert_eq!(check(&ranges(10), Ty::Int(Int::I16)).as_deref(), Some("i16::MIN..=-1"));
        assert_eq!(check(&[Pattern::Int(0)], Ty::Int(Int::U64)).as_deref(), Some("1..=u64::MAX"));
    }

    #[test]
    fn every_variant_must_be_matched() {
        assert_eq!(check(&[dot(), line(Pattern::Wild)], Ty::Enum(0)).as_deref(), Some("Shape::Box { .. }"));
        assert_eq!(check(&[line(Pattern::Wild)], Ty::Enum(0)).as_deref(), Some("Shape::Dot"));
        let all = [dot(), line(Pattern::Wild), boxed(Pattern::Wild, Pattern::Wild)];
        assert_eq!(check(&all, Ty::Enum(0)), None);
        assert_eq!(check(&[dot(), Pattern::Wild], Ty::Enum(0)), None);
    }

    #[test]
    fn nested_fields_are_looked_into() {
        let with = |b: Pattern| {
            [dot(), line(Pattern::Wild), boxed(Pattern::Bool(true), Pattern::Wild), boxed(Pattern::Bool(false), b)]
        };
        assert_eq!(check(&with(Pattern::Wild), Ty::Enum(0)), None);
        let missing = check(&with(Pattern::Range { low: 1, high: 255 }), Ty::Enum(0));
        assert_eq!(missing.as_deref(), Some("Shape::Box { pair: Pair { a: false, b: 0 } }"));
    }

    #[test]
    fn or_patterns_and_bindings_are_looked_through() {
        let bind = |inner| Pattern::Bind { local: Local(0), inner: Some(Box::new(inner)) };
        let small = Pattern::Or(vec![Pattern::Int(0), bind(Pattern::Range { low: 1, high: 9 })]);
        let large = bind(Pattern::Or(vec![Pattern::Range { low: 10, high: 255 }]));
        assert_eq!(check(&[line(small), dot()], Ty::Enum(0)).as_deref(), Some("Shape::Line { length: 10..=u8::MAX }"));
        let small = Pattern::Or(vec![Pattern::Int(0), bind(Pattern::Range { low: 1, high: 9 })]);
        let boxes = Pattern::Bind { local: Local(1), inner: None };
        assert_eq!(check(&[line(small), line(large), boxes], Ty::Enum(0)), None);
    }

    #[test]
    fn an_arm_less_match_misses_everything() {
        assert_eq!(check(&[], Ty::Enum(0)).as_deref(), Some("_"));
        assert_eq!(check(&[Pattern::Bool(true)], Ty::Bool).as_deref(), Some("false"));
    }
}
