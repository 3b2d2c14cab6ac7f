//! What every function body can see: the module's types, constants, functions and the actors it sends to.

use std::collections::HashMap;

use proc_macro2::{Ident, Span};
use syn::{FnArg, Pat, ReturnType};

use super::consts::Consts;
use super::errors::Errors;
use super::infer::{Kind, Type, Vars, float_name, int_name};
use super::items::{Declared, FunctionItem};
use super::{layout, refuse};
use crate::ir::{Enum, Foreign, ParamKind, Pass, Struct, Ty};
use crate::layout::Types;

/// A struct or an enum of the module, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    Struct(usize),
    Enum(usize),
}

impl From<Named> for Type {
    fn from(named: Named) -> Type {
        match named {
            Named::Struct(id) => Type::Struct(id),
            Named::Enum(id) => Type::Enum(id),
        }
    }
}

/// The module, with all names resolved but those in function bodies.
pub struct World<'a> {
    pub errors: &'a Errors,
    pub consts: Consts<'a>,
    pub types: HashMap<String, Named>,
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
    pub functions: Vec<Signature<'a>>,
    pub foreign: Vec<Foreign>,
    /// Names of generic parameters that were refused.
    pub generics: Vec<String>,
    pub threads_per_actor: u32,
    free: HashMap<String, usize>,
    methods: HashMap<(Named, String), usize>,
}

/// A function as its callers see it.
pub struct Signature<'a> {
    pub item: &'a FunctionItem<'a>,
    pub owner: Option<Named>,
    pub params: Vec<Parameter>,
    pub result: Type,
}

pub struct Parameter {
    pub ident: Ident,
    pub mutable: bool,
    pub pass: Pass,
    pub kind: ParamKind,
    pub ty: Type,
}

impl Types for World<'_> {
    fn structs(&self) -> &[Struct] {
        &self.structs
    }

    fn enums(&self) -> &[Enum] {
        &self.enums
    }
}

impl<'a> World<'a> {
    pub fn new(declared: &'a mut Declared<'_>, threads_per_actor: u32, errors: &'a Errors) -> World<'a> {
        let foreign = std::mem::take(&mut declared.foreign);
        let declared = &*declared;
        let mut world = World {
            errors,
            consts: Consts::new(&declared.consts),
            types: HashMap::new(),
            structs: Vec::new(),
            enums: Vec::new(),
            functions: Vec::new(),
            foreign,
            generics: declared.generics.clone(),
            threads_per_actor,
            free: HashMap::new(),
            methods: HashMap::new(),
        };
        layout::declare(&mut world, declared);
        for item in &declared.functions {
            world.sign(item);
        }
        world
    }

    pub fn named(&self, name: &Ident) -> Option<Named> {
        self.types.get(&name.to_string()).copied()
    }

    pub fn free_function(&self, name: &Ident) -> Option<usize> {
        self.free.get(&name.to_string()).copied()
    }

    pub fn method(&self, owner: Named, name: &Ident) -> Option<usize> {
        self.methods.get(&(owner, name.to_string())).copied()
    }

    /// The names of the methods of a type, for a suggestion.
    pub fn methods_of(&self, owner: Named) -> Vec<String> {
        let mut names: Vec<String> =
            self.methods.keys().filter(|(named, _)| *named == owner).map(|(_, name)| format!("`{name}`")).collect();
        names.sort();
        names
    }

    pub fn foreign_named(&self, name: &Ident) -> Option<usize> {
        self.foreign.iter().position(|foreign| foreign.ident == *name)
    }

    pub fn name_of(&self, named: Named) -> &Ident {
        match named {
            Named::Struct(id) => &self.structs[id].ident,
            Named::Enum(id) => &self.enums[id].ident,
        }
    }

    /// `handle`, or `State::grow`.
    pub fn function_name(&self, function: usize) -> String {
        let signature = &self.functions[function];
        match signature.owner {
            Some(owner) => format!("{}::{}", self.name_of(owner), signature.item.sig.ident),
            None => signature.item.sig.ident.to_string(),
        }
    }

    /// The type as a person reads it.
    pub fn describe(&self, vars: &Vars, ty: &Type) -> String {
        match vars.shallow(ty) {
            Type::Array(item, length) => format!("[{}; {length}]", self.describe(vars, &item)),
            Type::Var(_) => match vars.kind(ty) {
                Kind::Integer => "an integer".to_owned(),
                Kind::Float => "a float".to_owned(),
                _ => "_".to_owned(),
            },
            Type::Unit => "()".to_owned(),
            Type::Never => "!".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Int(int) => int_name(int).to_owned(),
            Type::Float(float) => float_name(float).to_owned(),
            Type::ActorId => "ActorId".to_owned(),
            Type::Struct(id) => self.structs[id].ident.to_string(),
            Type::Enum(id) => self.enums[id].ident.to_string(),
            Type::Foreign(id) => format!("{}::Message", self.foreign[id].ident),
            Type::Error => "_".to_owned(),
        }
    }

    /// The type as it stands in a message: in backquotes where it is a name.
    pub fn quoted(&self, vars: &Vars, ty: &Type) -> String {
        let text = self.describe(vars, ty);
        if text.starts_with("a") && text.contains(' ') { text } else { format!("`{text}`") }
    }

    /// Final types in messages.
    pub fn describe_final(&self, ty: &Ty) -> String {
        self.describe(&Vars::default(), &Type::from(ty))
    }

    fn sign(&mut self, item: &'a FunctionItem<'a>) {
        let owner = match item.owner.map(|name| (name, self.named(name))) {
            Some((name, None)) => {
                let rule = format!("no struct or enum `{name}` in this module: methods go on the module's own types");
                return self.errors.at(name, rule);
            }
            Some((_, owner)) => owner,
            None => None,
        };
        let params: Vec<Parameter> = item.sig.inputs.iter().map(|input| self.parameter(input, owner)).collect();
        self.check_parameters(item, &params);
        let result = match &item.sig.output {
            ReturnType::Default => Type::Unit,
            ReturnType::Type(_, ty) => self.result_type(ty, owner),
        };
        let index = self.functions.len();
        let name = item.sig.ident.to_string();
        match owner {
            Some(owner) => self.methods.entry((owner, name)).or_insert(index),
            None => self.free.entry(name).or_insert(index),
        };
        self.functions.push(Signature { item, owner, params, result });
    }

    fn check_parameters(&self, item: &FunctionItem, params: &[Parameter]) {
        let contexts = params.iter().filter(|param| param.kind == ParamKind::Context).count();
        if contexts > 1 {
            self.errors.at(&item.sig.inputs, "one `ctx: &mut Context` is enough: remove the others");
        }
        for (index, param) in params.iter().enumerate() {
            if params[..index].iter().any(|other| other.ident == param.ident) && param.ident != "_" {
                self.errors.at(&param.ident, format!("a second parameter named `{}`: rename it", param.ident));
            }
        }
    }

    fn result_type(&self, ty: &syn::Type, owner: Option<Named>) -> Type {
        match ty {
            syn::Type::Tuple(tuple) if tuple.elems.is_empty() => Type::Unit,
            syn::Type::Reference(_) => {
                self.errors.at(ty, "a function gives a value, not a reference: write the type without `&`");
                Type::Error
            }
            _ => self.ty(ty, owner),
        }
    }

    fn parameter(&self, input: &FnArg, owner: Option<Named>) -> Parameter {
        match input {
            FnArg::Receiver(receiver) => self.receiver(receiver, owner),
            FnArg::Typed(param) => {
                let (ident, mutable) = self.parameter_name(&param.pat);
                let (pass, kind, ty) = self.parameter_type(&param.ty, owner);
                Parameter { ident, mutable, pass, kind, ty }
            }
        }
    }

    fn receiver(&self, receiver: &syn::Receiver, owner: Option<Named>) -> Parameter {
        if receiver.colon_token.is_some() {
            self.errors.at(receiver, "write `self`, `&self` or `&mut self`");
        }
        if let Some((_, Some(lifetime))) = &receiver.reference {
            self.errors.at(lifetime, "no lifetimes here: write `&self` or `&mut self`");
        }
        if owner.is_none() {
            self.errors.at(receiver, "`self` is for functions in an `impl` block: name the parameter and its type");
        }
        let by_reference = receiver.reference.is_some();
        let pass = match (by_reference, receiver.mutability.is_some()) {
            (false, _) => Pass::Value,
            (true, false) => Pass::Ref,
            (true, true) => Pass::RefMut,
        };
        Parameter {
            ident: Ident::new("self", receiver.self_token.span),
            mutable: !by_reference && receiver.mutability.is_some(),
            pass,
            kind: ParamKind::Plain,
            ty: owner.map_or(Type::Error, Type::from),
        }
    }

    fn parameter_name(&self, pattern: &Pat) -> (Ident, bool) {
        match pattern {
            Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => {
                if self.consts.contains(&name.ident) {
                    self.errors.at(name, format!("`{}` is a constant: choose another name", name.ident));
                }
                (name.ident.clone(), name.mutability.is_some())
            }
            Pat::Wild(_) => {
                self.errors.at(pattern, "a parameter needs a name: write `_unused`");
                (Ident::new("_unused", Span::call_site()), false)
            }
            _ => {
                self.errors.at(pattern, "a parameter is a name: take it apart in the body, with `let`");
                (Ident::new("_pattern", Span::call_site()), false)
            }
        }
    }

    fn parameter_type(&self, ty: &syn::Type, owner: Option<Named>) -> (Pass, ParamKind, Type) {
        let is_context = |ty: &syn::Type| match ty {
            syn::Type::Path(path) => path.path.segments.last().is_some_and(|segment| segment.ident == "Context"),
            _ => false,
        };
        match ty {
            syn::Type::Reference(reference) => {
                if let Some(lifetime) = &reference.lifetime {
                    self.errors.at(lifetime, "no lifetimes here: write `&T` or `&mut T`");
                }
                let pass = if reference.mutability.is_some() { Pass::RefMut } else { Pass::Ref };
                if is_context(&reference.elem) {
                    if pass == Pass::Ref || !is_plain_path(&reference.elem) {
                        self.errors.at(ty, "write `ctx: &mut Context`");
                    }
                    return (Pass::RefMut, ParamKind::Context, Type::Unit);
                }
                if let syn::Type::Slice(slice) = &*reference.elem {
                    self.errors.at(slice, refuse::type_form(&reference.elem));
                    return (pass, ParamKind::Plain, Type::Error);
                }
                (pass, ParamKind::Plain, self.ty(&reference.elem, owner))
            }
            _ if is_context(ty) => {
                self.errors.at(ty, "write `ctx: &mut Context`");
                (Pass::RefMut, ParamKind::Context, Type::Unit)
            }
            _ => (Pass::Value, ParamKind::Plain, self.ty(ty, owner)),
        }
    }
}

fn is_plain_path(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Path(path) if path.path.get_ident().is_some())
}
