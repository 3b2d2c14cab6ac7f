//! What a module declares: its items, sorted by kind, and an error at each item that may not be there.

use std::collections::HashMap;

use proc_macro2::Ident;
use syn::{
    Attribute, Block, Fields, GenericParam, Generics, ImplItem, Item, ItemConst, ItemEnum, ItemFn, ItemImpl,
    ItemStruct, ItemUse, Signature, UseTree,
};

use super::errors::Errors;
use super::refuse;
use crate::ir::Foreign;

/// The items of a module as written.
#[derive(Default)]
pub struct Declared<'a> {
    pub consts: Vec<&'a ItemConst>,
    pub structs: Vec<&'a ItemStruct>,
    pub enums: Vec<&'a ItemEnum>,
    pub functions: Vec<FunctionItem<'a>>,
    pub foreign: Vec<Foreign>,
    /// Names of generic parameters, which were refused: their uses are not errors as well.
    pub generics: Vec<String>,
}

/// A free function, a method or an associated function.
pub struct FunctionItem<'a> {
    /// The type of the `impl` block.
    pub owner: Option<&'a Ident>,
    pub attrs: &'a [Attribute],
    pub sig: &'a Signature,
    pub block: &'a Block,
}

/// Names that mean something else in every actor module.
const TAKEN: &[&str] = &[
    "Actor", "ActorId", "Box", "Context", "Err", "Fault", "Key", "None", "Ok", "Option", "Result", "Schema", "Self",
    "Some", "String", "TypeId", "Vec", "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str",
    "u128", "u16", "u32", "u64", "u8", "usize",
];

pub fn collect<'a>(items: &'a [Item], errors: &Errors) -> Declared<'a> {
    let mut declared = Declared::default();
    for item in items {
        match item {
            Item::Const(item) => constant(item, &mut declared, errors),
            Item::Struct(item) => structure(item, &mut declared, errors),
            Item::Enum(item) => enumeration(item, &mut declared, errors),
            Item::Fn(item) => function(item, &mut declared, errors),
            Item::Impl(item) => implementation(item, &mut declared, errors),
            Item::Use(item) => import(item, &mut declared, errors),
            other => refuse::item(other, errors),
        }
    }
    names_are_free_and_unique(&declared, errors);
    declared
}

/// The attributes that stay: documentation and lint levels.
pub fn kept(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|attr| refuse::is_kept(attr)).cloned().collect()
}

fn constant<'a>(item: &'a ItemConst, declared: &mut Declared<'a>, errors: &Errors) {
    no_generics(&item.generics, declared, errors);
    if item.ident == "_" {
        errors.at(&item.ident, "a constant needs a name here");
    } else {
        declared.consts.push(item);
    }
}

fn structure<'a>(item: &'a ItemStruct, declared: &mut Declared<'a>, errors: &Errors) {
    no_generics(&item.generics, declared, errors);
    match &item.fields {
        Fields::Named(fields) => unique_names(fields.named.iter().filter_map(|f| f.ident.as_ref()), "field", errors),
        Fields::Unnamed(fields) => {
            let example = format!("name the fields: `struct {} {{ value: i64 }}`", item.ident);
            errors.at(fields, example);
        }
        Fields::Unit => {
            errors.at(&item.ident, format!("write it with its fields, even without any: `struct {} {{}}`", item.ident))
        }
    }
    declared.structs.push(item);
}

fn enumeration<'a>(item: &'a ItemEnum, declared: &mut Declared<'a>, errors: &Errors) {
    no_generics(&item.generics, declared, errors);
    if item.variants.is_empty() {
        errors.at(&item.ident, "an enum needs at least one variant");
    }
    unique_names(item.variants.iter().map(|variant| &variant.ident), "variant", errors);
    for variant in &item.variants {
        match &variant.fields {
            Fields::Named(fields) => {
                unique_names(fields.named.iter().filter_map(|f| f.ident.as_ref()), "field", errors)
            }
            Fields::Unnamed(fields) => {
                errors.at(fields, format!("name the fields: `{} {{ value: i64 }}`", variant.ident));
            }
            Fields::Unit => {}
        }
        if let Some((_, value)) = &variant.discriminant {
            errors.at(value, "a variant's number is its position, counted from 0: remove this");
        }
    }
    declared.enums.push(item);
}

fn function<'a>(item: &'a ItemFn, declared: &mut Declared<'a>, errors: &Errors) {
    plain_signature(&item.sig, declared, errors);
    declared.functions.push(FunctionItem { owner: None, attrs: &item.attrs, sig: &item.sig, block: &item.block });
}

fn implementation<'a>(item: &'a ItemImpl, declared: &mut Declared<'a>, errors: &Errors) {
    no_generics(&item.generics, declared, errors);
    if let Some((_, path, _)) = &item.trait_ {
        errors.at(path, "traits are not implemented here: write `impl Type { .. }` with the methods in it");
        return;
    }
    if let Some(word) = &item.unsafety {
        errors.at(word, "nothing is unsafe here: remove `unsafe`");
    }
    let owner = match &*item.self_ty {
        syn::Type::Path(path) if path.qself.is_none() => path.path.get_ident(),
        _ => None,
    };
    let Some(owner) = owner else {
        errors.at(&item.self_ty, "methods go on the structs and enums of this module: write `impl State { .. }`");
        return;
    };
    for part in &item.items {
        match part {
            ImplItem::Fn(method) => {
                plain_signature(&method.sig, declared, errors);
                let (attrs, sig, block) = (&method.attrs, &method.sig, &method.block);
                declared.functions.push(FunctionItem { owner: Some(owner), attrs, sig, block });
            }
            ImplItem::Const(part) => {
                errors.at(&part.ident, format!("move it out of the `impl` block: `const {}: ..`", part.ident))
            }
            other => errors.at(other, "only functions go into an `impl` block"),
        }
    }
}

fn import(item: &ItemUse, declared: &mut Declared, errors: &Errors) {
    let mut path: Vec<&Ident> = Vec::new();
    let mut tree = &item.tree;
    let name = loop {
        match tree {
            UseTree::Path(part) => {
                path.push(&part.ident);
                tree = &part.tree;
            }
            UseTree::Name(name) => break &name.ident,
            UseTree::Rename(rename) => {
                let plain = format!("an actor module keeps its name: write `use ..::{};`", rename.ident);
                return errors.at(rename, plain);
            }
            UseTree::Glob(star) => {
                return errors.at(star, "name the actor module that this one sends to: `use super::account;`");
            }
            UseTree::Group(group) => {
                return errors.at(group, "one `use` for each actor module: `use super::account;`");
            }
        }
    };
    let library = path.first().is_some_and(|first| ["std", "core", "alloc"].contains(&first.to_string().as_str()));
    let is_type = name.to_string().starts_with(|c: char| c.is_uppercase());
    if library || is_type || path.is_empty() || name == "self" {
        return errors.at(
            &item.tree,
            "only other actor modules are brought in, to send to: `use super::account;`; `Context`, `ActorId` and \
             the numbers are there without",
        );
    }
    if let Some(colons) = &item.leading_colon {
        return errors.at(colons, "write the path from here: `use super::account;` or `use crate::account;`");
    }
    let segments = path.into_iter().chain([name]).cloned().map(syn::PathSegment::from);
    let path = syn::Path { leading_colon: None, segments: segments.collect() };
    declared.foreign.push(Foreign { ident: name.clone(), path });
}

fn no_generics(generics: &Generics, declared: &mut Declared, errors: &Errors) {
    for param in &generics.params {
        match param {
            GenericParam::Type(param) => {
                errors.at(param, "no generics here: write the type itself, once for each type you need");
                declared.generics.push(param.ident.to_string());
            }
            GenericParam::Lifetime(param) => errors.at(param, "no lifetimes here: remove it"),
            GenericParam::Const(param) => {
                errors.at(param, "no generics here: write a `const` of the module");
                declared.generics.push(param.ident.to_string());
            }
        }
    }
    if let Some(clause) = &generics.where_clause {
        errors.at(clause, "no generics here: remove the `where` clause");
    }
}

fn plain_signature(sig: &Signature, declared: &mut Declared, errors: &Errors) {
    no_generics(&sig.generics, declared, errors);
    if let Some(word) = &sig.constness {
        errors.at(word, "write a plain `fn`, or a `const` with the value");
    }
    if let Some(word) = &sig.asyncness {
        errors.at(word, "a handler never waits: remove `async`; send a message and handle the answer as a message");
    }
    if let Some(word) = &sig.unsafety {
        errors.at(word, "nothing is unsafe here: remove `unsafe`");
    }
    if let Some(word) = &sig.abi {
        errors.at(word, "functions of an actor are called by the actor only: remove `extern`");
    }
    if let Some(dots) = &sig.variadic {
        errors.at(dots, "write the parameters out");
    }
}

fn names_are_free_and_unique(declared: &Declared, errors: &Errors) {
    let types = declared.structs.iter().map(|item| &item.ident).chain(declared.enums.iter().map(|item| &item.ident));
    let free_functions = declared.functions.iter().filter(|f| f.owner.is_none()).map(|f| &f.sig.ident);
    let constants = declared.consts.iter().map(|item| &item.ident);
    for name in types.clone().chain(constants.clone()) {
        if TAKEN.contains(&name.to_string().as_str()) {
            errors.at(name, format!("`{name}` has a meaning of its own in an actor module: choose another name"));
        }
    }
    for name in free_functions.clone().filter(|name| *name == "id") {
        errors.at(name, "`id(key)` names actors of this type: choose another name");
    }
    unique_names(types.chain(declared.foreign.iter().map(|f| &f.ident)), "type or module", errors);
    unique_names(free_functions.chain(constants), "function or constant", errors);
    methods_are_unique(declared, errors);
}

fn methods_are_unique(declared: &Declared, errors: &Errors) {
    let mut owners: HashMap<&Ident, Vec<&Ident>> = HashMap::new();
    for function in &declared.functions {
        if let Some(owner) = function.owner {
            owners.entry(owner).or_default().push(&function.sig.ident);
        }
    }
    for names in owners.into_values() {
        unique_names(names.into_iter(), "method", errors);
    }
}

fn unique_names<'a>(names: impl Iterator<Item = &'a Ident>, what: &str, errors: &Errors) {
    let mut seen: Vec<&Ident> = Vec::new();
    for name in names {
        if seen.contains(&name) {
            errors.at(name, format!("a second {what} named `{name}`: choose another name"));
        }
        seen.push(name);
    }
}
