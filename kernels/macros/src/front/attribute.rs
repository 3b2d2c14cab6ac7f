//! The arguments of `#[ringhold::actor(..)]`.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, Lit, MetaNameValue, Token};

use super::errors::Errors;

/// Longest registered name, in bytes.
const NAME_MAX: usize = 64;
/// A lane, a warp, and blocks whose threads are whole warps that halve evenly.
const THREADS: [u32; 7] = [1, 32, 64, 128, 256, 512, 1024];

/// What the attribute says; `None` where it says nothing.
#[derive(Default)]
pub struct Options {
    pub name: Option<String>,
    pub threads_per_actor: Option<u32>,
}

pub fn parse(arguments: TokenStream, errors: &Errors) -> Options {
    let mut options = Options::default();
    let parser = Punctuated::<MetaNameValue, Token![,]>::parse_terminated;
    let pairs = match parser.parse2(arguments.clone()) {
        Ok(pairs) => pairs,
        Err(_) => {
            errors.at(
                &arguments,
                "write `#[ringhold::actor]`, or options as in `#[ringhold::actor(name = \"bank.account\")]`",
            );
            return options;
        }
    };
    for pair in &pairs {
        option(pair, &mut options, errors);
    }
    options
}

fn option(pair: &MetaNameValue, options: &mut Options, errors: &Errors) {
    let twice = || errors.at(&pair.path, "given twice: keep one");
    if pair.path.is_ident("name") {
        let name = registered_name(&pair.value, errors);
        if options.name.is_some() {
            twice();
        }
        options.name = options.name.take().or(name);
    } else if pair.path.is_ident("threads_per_actor") {
        let threads = threads_per_actor(&pair.value, errors);
        if options.threads_per_actor.is_some() {
            twice();
        }
        options.threads_per_actor = options.threads_per_actor.or(threads);
    } else {
        errors.at(&pair.path, "no such option: there are `name = \"bank.account\"` and `threads_per_actor = 32`");
    }
}

fn registered_name(value: &Expr, errors: &Errors) -> Option<String> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value else {
        errors.at(value, "the name is a text: write `name = \"bank.account\"`");
        return None;
    };
    let name = text.value();
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let goes_on_well = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !starts_well || !goes_on_well || name.len() > NAME_MAX {
        let rule =
            format!("not a name for an actor type: up to {NAME_MAX} letters, digits, `_`, `.` and `-`, a letter first");
        errors.at(text, rule);
        return None;
    }
    Some(name)
}

fn threads_per_actor(value: &Expr, errors: &Errors) -> Option<u32> {
    let number = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse::<u32>().ok(),
        _ => None,
    };
    if !number.is_some_and(|number| THREADS.contains(&number)) {
        let rule =
            "an actor is run by one thread, by a warp of 32, or by a block: write 1, 32, 64, 128, 256, 512 or 1024";
        errors.at(value, rule);
        // As if it were wide, so that nothing is said of its loops.
        return Some(THREADS[1]);
    }
    number
}
