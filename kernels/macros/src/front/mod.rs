//! The front end: from a user's module to [`Module`], or to errors at tokens that say what to write.
//!
//! It reads in stages, each of which knows only what the stages before it found out:
//! [`attribute`] and [`items`] sort what is written; [`world`] resolves types, constants and signatures
//! (with [`layout`], [`types`] and [`consts`]); [`body`] checks each function (with [`expr`], [`operators`],
//! [`places`], [`calls`], [`control`] and [`patterns`]) by the unification of [`infer`], giving a [`tree`]; [`order`]
//! sorts the functions; and the trees are finished into the IR, the bodies of data-parallel loops held to the rules of
//! [`threads`]. [`refuse`] holds what is outside of the
//! subset. Every stage goes on after an error, so that all errors of a module are reported at once.

mod attribute;
mod body;
mod builtins;
mod calls;
mod consts;
mod control;
mod errors;
mod exhaustive;
mod expr;
mod infer;
mod items;
mod layout;
mod operators;
mod order;
mod patterns;
mod places;
mod refuse;
mod threads;
mod tree;
mod types;
mod world;

#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use syn::{ItemMod, Visibility};

use self::body::Checked;
use self::errors::Errors;
use self::infer::Type;
use self::items::kept;
use self::world::{Named, World};
use crate::ir::{Const, Function, Module, ParamKind, Pass};

/// Checks the module under `#[ringhold::actor(attribute)]`.
pub fn compile(attribute: TokenStream, item: TokenStream) -> syn::Result<Module> {
    let module: ItemMod = syn::parse2(item)?;
    let errors = Errors::default();
    let compiled = compile_module(attribute, &module, &errors);
    errors.into_result()?;
    Ok(compiled.expect("without errors there is a module"))
}

const HANDLE: &str = "`pub fn handle(state: &mut State, message: Message, ctx: &mut Context)`";

fn compile_module(attribute: TokenStream, module: &ItemMod, errors: &Errors) -> Option<Module> {
    let options = attribute::parse(attribute, errors);
    refuse::attributes(module, errors);
    if let Some(word) = &module.unsafety {
        errors.at(word, "nothing is unsafe here: remove `unsafe`");
    }
    let Some((_, items)) = &module.content else {
        errors.at(&module.ident, "the macro has to see the actor: write its items here, `mod name { .. }`");
        return None;
    };
    let mut declared = items::collect(items, errors);
    let consts = declared.consts.clone();
    let threads_per_actor = options.threads_per_actor.unwrap_or(1);
    let world = World::new(&mut declared, threads_per_actor, errors);
    let roles = Roles::find(&world, module);
    let consts = consts.iter().filter_map(|item| constant(&world, item)).collect();
    let (functions, order) = functions(&world);
    let roles = roles?;
    let name = options.name.unwrap_or_else(|| module.ident.to_string().trim_start_matches("r#").to_owned());
    Some(Module {
        ident: module.ident.clone(),
        name,
        vis: module.vis.clone(),
        docs: kept(&module.attrs),
        threads_per_actor,
        consts,
        functions,
        state: roles.state,
        message: roles.message,
        reply: roles.reply,
        handle: order[roles.handle],
        structs: world.structs,
        enums: world.enums,
        foreign: world.foreign,
    })
}

fn constant(world: &World, item: &syn::ItemConst) -> Option<Const> {
    let (ty, value) = world.constant(&item.ident)?;
    let value = value.literal(&ty, item.ident.span());
    Some(Const { ident: item.ident.clone(), vis: item.vis.clone(), docs: kept(&item.attrs), ty, value })
}

/// The functions, callees first, and where each of the world's functions is among them.
fn functions(world: &World) -> (Vec<Function>, Vec<usize>) {
    let checked: Vec<Checked> = (0..world.functions.len()).map(|index| body::check(world, index)).collect();
    let callees_first = order::callees_first(world, &checked);
    let mut order = vec![0; checked.len()];
    for (position, function) in callees_first.iter().enumerate() {
        order[*function] = position;
    }
    let mut checked: Vec<Option<Checked>> = checked.into_iter().map(Some).collect();
    let mut functions: Vec<Function> = Vec::new();
    for index in callees_first {
        let body = checked[index].take().expect("each function comes once in the order");
        let function = body.finish(world, index, &order, &functions);
        functions.push(function);
    }
    (functions, order)
}

/// The items that every actor has.
struct Roles {
    state: usize,
    message: usize,
    reply: usize,
    handle: usize,
}

impl Roles {
    /// Finds them by their names, and reports what is missing or of another kind.
    fn find(world: &World, module: &ItemMod) -> Option<Roles> {
        let public = |vis: &Visibility, named: Named, what: &str| {
            if !matches!(vis, Visibility::Public(_)) {
                world.errors.at(
                    world.name_of(named),
                    format!("others send to this actor: write `pub {what} {}`", world.name_of(named)),
                );
            }
        };
        for name in ["State", "Message", "Reply"] {
            match world.types.get(name) {
                Some(named @ Named::Struct(id)) => public(&world.structs[*id].vis, *named, "struct"),
                Some(named @ Named::Enum(id)) => public(&world.enums[*id].vis, *named, "enum"),
                None => {}
            }
        }
        let missing = |what: &str| {
            world.errors.at(&module.ident, format!("an actor needs {what} in its module"));
            None
        };
        let other_kind = |named: Named, what: &str| {
            world.errors.at(world.name_of(named), format!("this has to be {what}"));
            None
        };
        let state = match world.types.get("State") {
            Some(Named::Struct(id)) => Some(*id),
            Some(named) => other_kind(*named, "`pub struct State { .. }`"),
            None => missing("`pub struct State { .. }`"),
        };
        let message = match world.types.get("Message") {
            Some(Named::Enum(id)) => Some(*id),
            Some(named) => other_kind(*named, "`pub enum Message { .. }`"),
            None => missing("`pub enum Message { .. }`"),
        };
        let reply = match world.types.get("Reply") {
            Some(Named::Enum(id)) => Some(*id),
            Some(named) => other_kind(*named, "`pub enum Reply { .. }`"),
            None => None,
        };
        let handle = match world.free_function(&syn::parse_quote!(handle)) {
            Some(handle) => handles(world, handle).then_some(handle),
            None => missing(HANDLE),
        };
        Some(Roles { state: state?, message: message?, reply: reply?, handle: handle? })
    }
}

/// Whether this is the signature that `handle` must have.
fn handles(world: &World, handle: usize) -> bool {
    let signature = &world.functions[handle];
    let named = |name: &str| world.types.get(name).copied().map_or(Type::Error, Type::from);
    let is = |index: usize, pass: Pass, kind: ParamKind, ty: Type| {
        signature.params.get(index).is_some_and(|param| {
            let same = kind == ParamKind::Context || param.ty == ty || param.ty == Type::Error || ty == Type::Error;
            param.pass == pass && param.kind == kind && same
        })
    };
    let fits = signature.params.len() == 3
        && is(0, Pass::RefMut, ParamKind::Plain, named("State"))
        && is(1, Pass::Value, ParamKind::Plain, named("Message"))
        && is(2, Pass::RefMut, ParamKind::Context, Type::Unit)
        && signature.result == Type::Unit;
    if !fits {
        world.errors.at(&signature.item.sig, format!("write {HANDLE}"));
    }
    fits
}
