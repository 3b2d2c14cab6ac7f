//! The native back end: an actor module as Rust.
//!
//! What comes out is what a person would write by hand: plain types with the C layout, plain functions, and
//! a unit struct `Actor` that ties them to the runtime. Identifiers and expressions keep the spans of the
//! user's tokens, so that what only rustc finds (an unassigned local, a wrong field of another actor's
//! message, two borrows at once) is reported where the user wrote it.

mod code;
mod types;

pub use code::line;

use proc_macro2::{Ident, Literal, TokenStream};
use quote::{quote, quote_spanned};

use crate::cuda;
use crate::ir::{Function, Module, ParamKind, Pass, Ty};

/// The module as Rust, the device's C++ in two constants of it.
pub fn emit(module: &Module) -> TokenStream {
    let Module { ident, vis, docs, .. } = module;
    let types = types::emit(module);
    let functions = code::emit(module);
    let actor = actor(module);
    let foreign = foreign(module);
    quote! {
        #(#docs)*
        #[allow(
            unused_parens, unused_braces, unused_labels, unreachable_code, redundant_semicolons, while_true,
            unsafe_code, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
        )]
        #vis mod #ident {
            #types
            #functions
            #actor
            #foreign
        }
    }
}

/// The number by which devices know an actor type: the same hash as `TypeId::of`, which is asserted.
pub fn type_number(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ((hash ^ (hash >> 32)) as u32).max(1)
}

fn actor(module: &Module) -> TokenStream {
    let Module { name, threads_per_actor, .. } = module;
    let module_name = plain_name(&module.ident);
    let state = &module.structs[module.state].ident;
    let message = &module.enums[module.message].ident;
    let reply = &module.enums[module.reply].ident;
    let handle = &module.functions[module.handle];
    let can_fault = handle.can_fault;
    let call = call_of_handle(module, handle);
    let about = types::about(&module.docs);
    let source = cuda::emit(module);
    let (cuda_types, cuda_functions) = (source.types, source.functions);
    let number = Literal::u32_suffixed(type_number(name));
    quote! {
        /// The actor type of this module, for the registry, the client and the device.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Actor;

        impl ::ringhold::rt::Actor for Actor {
            type State = #state;
            type Message = #message;
            type Reply = #reply;
            const NAME: &'static str = #name;
            const MODULE: &'static str = #module_name;
            const CAN_FAULT: bool = #can_fault;
            const THREADS_PER_ACTOR: u32 = #threads_per_actor;
            const CUDA_TYPES: &'static str = #cuda_types;
            const CUDA_FUNCTIONS: &'static str = #cuda_functions;

            fn schema() -> ::ringhold::rt::schema::Schema {
                ::ringhold::rt::schema::Schema {
                    name: ::std::string::String::from(#name),
                    about: ::std::string::String::from(#about),
                    threads_per_actor: #threads_per_actor,
                    state: <#state as ::ringhold::rt::Plain>::describe(),
                    message: <#message as ::ringhold::rt::Plain>::describe(),
                    reply: <#reply as ::ringhold::rt::Plain>::describe(),
                }
            }

            #[inline(always)]
            fn handle(
                state: &mut #state,
                message: #message,
                ctx: &mut ::ringhold::rt::Context<'_>,
            ) -> ::ringhold::rt::Handled {
                #call
            }
        }

        // The device's C++ holds this number; it was worked out by the macro.
        const _: () = assert!(<Actor as ::ringhold::rt::Actor>::TYPE.0 == #number);

        impl ::ringhold::rt::MessageOf for #message {
            type Actor = Actor;
        }

        /// The actor of this type with that key.
        #[inline]
        pub fn id(key: impl ::core::convert::Into<::ringhold::rt::Key>) -> ::ringhold::rt::ActorId {
            ::ringhold::rt::ActorId::new(<Actor as ::ringhold::rt::Actor>::TYPE, ::core::convert::Into::into(key))
        }
    }
}

/// The call of the user's `handle` with what the trait's method is given.
fn call_of_handle(module: &Module, handle: &Function) -> TokenStream {
    let arguments = handle.params.iter().map(|param| {
        let ty = &handle.locals[param.local.0].ty;
        match (param.kind, param.pass) {
            (ParamKind::Context, _) => quote!(ctx),
            (ParamKind::Plain, Pass::RefMut) if *ty == Ty::Struct(module.state) => quote!(state),
            (ParamKind::Plain, Pass::Ref) if *ty == Ty::Struct(module.state) => quote!(&*state),
            (ParamKind::Plain, Pass::Ref) => quote!(&message),
            (ParamKind::Plain, _) => quote!(message),
        }
    });
    let ident = &handle.ident;
    if handle.can_fault {
        quote!(#ident(#(#arguments),*))
    } else {
        quote! {
            #ident(#(#arguments),*);
            ::core::result::Result::Ok(())
        }
    }
}

/// The device's C++ calls another actor's types by the last segment of the path in `use`: it must be the
/// module's own name, and not that of a re-export.
fn foreign(module: &Module) -> TokenStream {
    let asserts = module.foreign.iter().map(|foreign| {
        let path = &foreign.path;
        let segment = path.segments.last().map(|segment| plain_name(&segment.ident)).unwrap_or_default();
        let complaint =
            format!("`{segment}` is not the actor module's own name: `use` it from where it is defined, by that name");
        quote_spanned! {foreign.ident.span()=>
            const _: () = assert!(
                ::ringhold::rt::arith::same_text(<#path::Actor as ::ringhold::rt::Actor>::MODULE, #segment),
                #complaint
            );
        }
    });
    quote!(#(#asserts)*)
}

/// An identifier's text without `r#`.
pub fn plain_name(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}
