//! `#[ringhold::actor]`: one Rust module as an actor type, for the CPU and for CUDA.
//!
//! `front` checks the module and types it, giving the `ir`; `native` writes that as Rust, `cuda` as C++.

mod cuda;
mod faults;
mod front;
mod ir;
mod layout;
mod native;

use proc_macro::TokenStream;

/// Makes the module an actor type.
#[proc_macro_attribute]
pub fn actor(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    match front::compile(attribute.into(), item.clone()) {
        Ok(module) => native::emit(&module).into(),
        Err(errors) => refused(item, errors).into(),
    }
}

/// The errors, and an empty module: so that rustc speaks of nothing that follows from them.
fn refused(item: proc_macro2::TokenStream, errors: syn::Error) -> proc_macro2::TokenStream {
    let errors = errors.into_compile_error();
    let module = syn::parse2::<syn::ItemMod>(item).ok().map(|module| {
        let (vis, ident) = (module.vis, module.ident);
        quote::quote!(#vis mod #ident {})
    });
    quote::quote!(#errors #module)
}
