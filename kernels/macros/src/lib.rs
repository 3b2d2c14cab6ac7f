//! `#[ringhold::actor]`: one Rust module as an actor type, for the CPU and for CUDA.
//!
//! [`front`] checks the module and types it, giving the [`ir`]; the back ends write it out for each target.

#[allow(dead_code)]
mod front;
#[allow(dead_code)]
mod ir;

use proc_macro::TokenStream;

/// Makes the module an actor type.
#[proc_macro_attribute]
pub fn actor(attribute: TokenStream, item: TokenStream) -> TokenStream {
    match front::compile(attribute.into(), item.into()) {
        Ok(_) => TokenStream::new(),
        Err(errors) => errors.into_compile_error().into(),
    }
}
