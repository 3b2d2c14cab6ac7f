//! Whole modules through the front end, where an error's absence or an inferred type is the point.

use proc_macro2::TokenStream;
use quote::quote;

use super::compile;
use crate::ir::{ExprKind, Float, Function, Int, Module, Statement, Ty};

fn module(helpers: TokenStream, body: TokenStream) -> syn::Result<Module> {
    compile(
        TokenStream::new(),
        quote! {
            pub mod probe {
                pub struct State { pub total: i64, pub items: [u16; 8] }
                pub enum Message { Add { value: i64 }, Read }
                #helpers
                pub fn handle(state: &mut State, message: Message, ctx: &mut Context) { #body }
            }
        },
    )
}

fn accepted(helpers: TokenStream, body: TokenStream) -> Module {
    module(helpers, body).unwrap_or_else(|errors| panic!("refused: {}", messages(&errors).join("; ")))
}

fn messages(errors: &syn::Error) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

fn handle(module: &Module) -> &Function {
    &module.functions[module.handle]
}

/// The type inferred for the local of this name.
fn type_of(module: &Module, name: &str) -> Ty {
    let local = handle(module).locals.iter().find(|local| local.ident == name);
    local.unwrap_or_else(|| panic!("no local {name}")).ty.clone()
}

#[test]
fn literals_take_the_type_of_what_they_meet() {
    let module = accepted(
        quote!(),
        quote! {
            let a = 1;
            let b = 2;
            let c = 2.5;
            let mut d = 3;
            let sum = state.total + b;
            if d < 10 { d = state.items[0]; }
            let halves = c * 0.5;
        },
    );
    assert_eq!(type_of(&module, "a"), Ty::Int(Int::I32));
    assert_eq!(type_of(&module, "b"), Ty::Int(Int::I64));
    assert_eq!(type_of(&module, "c"), Ty::Float(Float::F64));
    assert_eq!(type_of(&module, "d"), Ty::Int(Int::U16));
    assert_eq!(type_of(&module, "sum"), Ty::Int(Int::I64));
    assert_eq!(type_of(&module, "halves"), Ty::Float(Float::F64));
}

#[test]
fn an_index_that_nothing_else_fixes_is_a_u32() {
    let module = accepted(
        quote!(),
        quote! {
            let mut i = 0;
            while i < 8 { state.items[i] += 1; i += 1; }
            for j in 0..8 { state.items[j] = 0; }
            let k = 2;
            state.items[k as u8] = 5;
        },
    );
    assert_eq!(type_of(&module, "i"), Ty::Int(Int::U32));
    assert_eq!(type_of(&module, "j"), Ty::Int(Int::U32));
    assert_eq!(type_of(&module, "k"), Ty::Int(Int::I32));
}

#[test]
fn later_uses_fix_earlier_variables() {
    let module = accepted(quote!(), quote! { let x; let list = [0; 4]; x = list[1]; state.total = x; });
    assert_eq!(type_of(&module, "x"), Ty::Int(Int::I64));
    assert_eq!(type_of(&module, "list"), Ty::Array(Box::new(Ty::Int(Int::I64)), 4));
}

#[test]
fn constants_are_folded_where_they_are_used() {
    let module = accepted(
        quote! {
            const LENGTH: u32 = BASE * 2;
            const BASE: u32 = 1 << 2;
            const TABLE: [u8; LENGTH] = [b'a'; LENGTH];
            const THIRD: u8 = TABLE[2];
            pub struct Padded { pub bytes: [u8; LENGTH - 1] }
        },
        quote! { let x = LENGTH; let y = THIRD; },
    );
    let padded = module.structs.iter().find(|item| item.ident == "Padded").unwrap();
    assert_eq!(padded.fields[0].ty, Ty::Array(Box::new(Ty::Int(Int::U8)), 7));
    let values: Vec<i128> = handle(&module)
        .body
        .statements
        .iter()
        .map(|statement| match statement {
            Statement::Let { value: Some(value), .. } => match value.kind {
                ExprKind::Int(value) => value,
                _ => panic!("not folded"),
            },
            _ => panic!("not a let"),
        })
        .collect();
    assert_eq!(values, [8, b'a' as i128]);
}

#[test]
fn callees_come_before_callers_and_tell_of_their_faults() {
    let module = accepted(
        quote! {
            fn outer(x: i64) -> i64 { inner(x) + 1 }
            fn inner(x: i64) -> i64 { x / (x - 1) }
            fn pure(x: i64) -> i64 { x * 3 }
        },
        quote! { state.total = pure(outer(1)); },
    );
    let names: Vec<String> = module.functions.iter().map(|function| function.ident.to_string()).collect();
    let position = |name: &str| names.iter().position(|other| other == name).unwrap();
    assert!(position("inner") < position("outer") && position("outer") < position("handle"));
    let faults = |name: &str| module.functions[position(name)].can_fault;
    assert!(faults("inner") && faults("outer") && faults("handle") && !faults("pure"));
    assert_eq!(module.handle, position("handle"));
}

#[test]
fn literals_that_rule_a_fault_out_do_not_count_as_one() {
    let faults = |body| handle(&accepted(quote!(), body)).can_fault;
    assert!(!faults(quote! { state.total = state.total / 60 + state.items[7] as i64; }));
    assert!(!faults(quote! { state.total %= 7; state.total = state.total.clamp(-5, 5).div_euclid(3); }));
    assert!(faults(quote! { state.total /= state.total; }));
    assert!(faults(quote! { state.items[state.total] = 1; }));
    assert!(faults(quote! { state.total = state.total.clamp(5, state.total); }));
}

#[test]
fn types_come_before_what_holds_them() {
    let module = accepted(
        quote! {
            pub struct Outer { pub inner: [Inner; 2], pub kind: Kind }
            pub enum Kind { Small { inner: Inner }, Large }
            pub struct Inner { pub x: u8 }
        },
        quote!(),
    );
    let position = |name: &str| module.structs.iter().position(|item| item.ident == name).unwrap();
    assert!(position("Inner") < position("Outer"));
}

#[test]
fn a_module_without_replies_can_say_nothing() {
    let module = accepted(quote!(), quote! { ctx.reply(Reply::Nothing); });
    assert_eq!(module.enums[module.reply].variants[0].ident, "Nothing");
}

#[test]
fn all_errors_of_a_module_come_at_once() {
    let helpers = quote! {
        pub struct Text { pub text: String, pub count: usize }
        fn one(x: u32) -> i64 { x }
    };
    let Err(errors) = module(helpers, quote! { state.total = 1u8; state.nothing = 2; panic!("no"); }) else {
        panic!("accepted");
    };
    assert_eq!(messages(&errors).len(), 6, "{:#?}", messages(&errors));
}

#[test]
fn a_shadowed_name_is_a_local_of_its_own() {
    let module = accepted(quote!(), quote! { let x = 1u8; let x = x as i64; state.total = x; });
    let named_x: Vec<&Ty> =
        handle(&module).locals.iter().filter(|local| local.ident == "x").map(|local| &local.ty).collect();
    assert_eq!(named_x, [&Ty::Int(Int::U8), &Ty::Int(Int::I64)]);
}

#[test]
fn a_field_of_a_value_goes_through_a_temporary() {
    let module = accepted(
        quote! {
            pub struct Point { pub x: i64, pub y: i64 }
            impl Point { pub fn new(x: i64) -> Point { Self { x, y: x } } fn sum(&self) -> i64 { self.x + self.y } }
        },
        quote! { state.total = Point::new(1).x + Point::new(2).sum(); },
    );
    assert_eq!(handle(&module).locals.iter().filter(|local| local.ident == "temporary").count(), 2);
}
