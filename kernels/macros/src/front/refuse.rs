//! What is outside the subset, and what to write instead.

use proc_macro2::TokenStream;
use syn::visit::Visit;
use syn::{Attribute, Expr, Ident, Item, ItemMod, Pat, Path};

use super::errors::{Errors, sketch};

/// Reports every attribute of the module that does not stay.
pub fn attributes(module: &ItemMod, errors: &Errors) {
    Attributes { errors, in_body: false }.visit_item_mod(module);
}

/// Whether it is documentation or a lint level.
pub fn is_kept(attr: &Attribute) -> bool {
    is_lint_level(attr) || attr.path().is_ident("doc")
}

fn is_lint_level(attr: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid"].iter().any(|name| attr.path().is_ident(name))
}

struct Attributes<'e> {
    errors: &'e Errors,
    in_body: bool,
}

impl<'s> Visit<'s> for Attributes<'_> {
    fn visit_block(&mut self, block: &'s syn::Block) {
        let around = std::mem::replace(&mut self.in_body, true);
        syn::visit::visit_block(self, block);
        self.in_body = around;
    }

    fn visit_attribute(&mut self, attr: &'s Attribute) {
        if self.in_body && is_lint_level(attr) {
            return self.errors.at(attr, "lint levels stand above the function, not in it");
        }
        if is_kept(attr) {
            return;
        }
        let path = attr.path();
        let name = sketch(path);
        self.errors.at(
            attr,
            match name.as_str() {
                "derive" => "remove it: Ringhold derives Clone, Copy, Debug and PartialEq by itself".to_owned(),
                "repr" => "remove it: Ringhold lays every type out as C does".to_owned(),
                "cfg" | "cfg_attr" => {
                    "an actor is the same on every device: remove it, or put it above `#[ringhold::actor]`".to_owned()
                }
                "test" => "tests go outside of the actor's module".to_owned(),
                "inline" | "cold" => format!("remove it: the compilers of both targets decide about `{name}`"),
                _ => format!("`{name}` has no meaning in an actor: remove it"),
            },
        );
    }
}

/// An item that may not stand in an actor's module.
pub fn item(item: &Item, errors: &Errors) {
    let say = |tokens: &dyn quote::ToTokens, message: &str| errors.at(&tokens.to_token_stream(), message);
    match item {
        Item::Mod(item) => say(&item.ident, "no modules inside an actor's module: put the items here, or outside"),
        Item::Static(item) => say(&item.static_token, "actors share nothing: write a `const`, or a field of `State`"),
        Item::Type(item) => say(&item.type_token, "write the type itself where you need it"),
        Item::Trait(item) => say(&item.trait_token, "no traits here: write the methods in `impl Type { .. }`"),
        Item::TraitAlias(item) => say(&item.trait_token, "no traits here"),
        Item::Union(item) => say(&item.union_token, "write an enum whose variants have the fields"),
        Item::ExternCrate(item) => say(&item.extern_token, "an actor uses nothing from outside its module: remove it"),
        Item::ForeignMod(item) => say(&item.abi, "an actor calls nothing from outside its module: remove it"),
        Item::Macro(item) if item.mac.path.is_ident("macro_rules") => {
            say(&item.mac.path, "no macros here: write a function, or the code itself");
        }
        Item::Macro(item) => say(&item.mac.path, "no macros here: write the items themselves"),
        other => say(other, "not an item of an actor: there are structs, enums, consts, functions and `impl` blocks"),
    }
}

/// Why a type of this name is not there, and what to use.
pub fn type_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "usize" => "`usize` differs between devices: write `u32` or `u64`; an index may have any integer type",
        "isize" => "`isize` differs between devices: write `i32` or `i64`; an index may have any integer type",
        "u128" => "no 128-bit integers: write `u64`, or a struct of two",
        "i128" => "no 128-bit integers: write `i64`, or a struct of two",
        "char" => "no text here: store the number of the character as a `u32`, or bytes as `u8`",
        "str" | "String" | "OsString" | "CString" => {
            "no text here: store a key (a `u64`), or a fixed array of bytes such as `[u8; 32]`"
        }
        "Vec" | "VecDeque" | "BinaryHeap" | "LinkedList" => {
            "no memory is allocated here: write a fixed array such as `[u32; 16]` and a count"
        }
        "HashMap" | "BTreeMap" | "HashSet" | "BTreeSet" => {
            "no memory is allocated here: write a fixed array, or make each entry an actor of its own"
        }
        "Box" | "Rc" | "Arc" | "Cow" | "Cell" | "RefCell" | "Mutex" | "RwLock" => {
            "values are plain data here: write the type itself"
        }
        "Option" => "write an enum of your own: `enum Maybe { Nothing, Just { value: u32 } }`",
        "Result" => "write an enum of your own: `enum Outcome { Done { value: u32 }, Failed { code: u32 } }`",
        "Duration" | "Instant" | "SystemTime" => "write time as microseconds in a `u64`; `ctx.now()` gives a stamp",
        "Key" => "write the key as a `u64`",
        "TypeId" => "write the type's id as a `u32`",
        "Range" => "write two fields, `from` and `to`",
        _ => return None,
    })
}

/// Why there is no reference to this type where a value's type stands.
pub fn reference_type(to: &syn::Type) -> &'static str {
    match to {
        syn::Type::Path(path) if path.path.is_ident("str") => type_name("str").unwrap_or_default(),
        syn::Type::Slice(_) => type_form(to),
        _ => "references are for parameters only (`value: &T` or `&mut T`): hold the value itself, or an `ActorId`",
    }
}

/// Why there is no type of this form.
pub fn type_form(ty: &syn::Type) -> &'static str {
    match ty {
        syn::Type::Slice(_) => "no slices here: write a fixed array such as `[u32; 16]`",
        syn::Type::Tuple(_) => "no tuples here: write a struct with named fields",
        syn::Type::Ptr(_) => "no pointers here: hold the value itself, or an `ActorId`",
        syn::Type::BareFn(_) => "no function types here: write an enum and a `match`",
        syn::Type::ImplTrait(_) | syn::Type::TraitObject(_) => "no traits here: write the type itself",
        syn::Type::Never(_) => "leave the result out: a function here always returns",
        syn::Type::Infer(_) => "write the type out, or leave the whole annotation away",
        syn::Type::Macro(_) => "no macros here: write the type itself",
        _ => "not a type of the subset: numbers, `bool`, `ActorId`, arrays, and this module's structs and enums",
    }
}

/// What to write instead of this macro.
pub fn macro_call(path: &Path, errors: &Errors) {
    let name = path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
    let advice = match name.as_str() {
        "panic" | "todo" | "unimplemented" | "unreachable" => {
            "handlers do not panic: reply with a variant that tells of the error, and `return`"
        }
        "assert" | "assert_eq" | "assert_ne" | "debug_assert" | "debug_assert_eq" | "debug_assert_ne" => {
            "handlers do not panic: write `if .. { ctx.reply(..); return; }` with a reply that tells of the error"
        }
        "println" | "print" | "eprintln" | "eprint" | "dbg" | "write" | "writeln" => {
            "nothing is printed from a device: reply, or count in a field of `State`"
        }
        "format" | "concat" | "stringify" | "env" | "include_str" => {
            "no text here: keep numbers, and format them outside"
        }
        "vec" => "no memory is allocated here: write an array such as `[0u32; 16]`",
        "matches" => "write `match value { PATTERN => true, _ => false }`",
        _ => "no macros here: write a function, or the code itself",
    };
    errors.at(path, format!("`{name}!`: {advice}"));
}

/// An expression that may not stand in a function.
pub fn expression(e: &Expr, errors: &Errors) {
    let say = |tokens: &dyn quote::ToTokens, message: &str| errors.at(&tokens.to_token_stream(), message);
    match e {
        Expr::Async(e) => {
            say(&e.async_token, "a handler never waits: send a message and handle the answer as a message")
        }
        Expr::Await(e) => {
            say(&e.await_token, "a handler never waits: send a message and handle the answer as a message")
        }
        Expr::Closure(e) => say(&closure_head(e), "no closures here: write a function and pass it what it needs"),
        Expr::Try(e) => say(&e.question_token, "no `?` here: write a `match` and `return`"),
        Expr::TryBlock(e) => say(&e.try_token, "no `try` here: write a function and a `match`"),
        Expr::Unsafe(e) => say(&e.unsafe_token, "nothing is unsafe here: remove `unsafe`"),
        Expr::Tuple(e) if e.elems.is_empty() => say(e, "`()` is no value here: leave it out, or write `{}`"),
        Expr::Tuple(e) => say(e, "no tuples here: write a struct with named fields"),
        Expr::Range(e) => say(e, "a range stands in a `for` loop or a pattern only: keep its two ends"),
        Expr::Reference(e) => say(
            e,
            "a reference is made for an argument only: `change(&mut state.total)`; elsewhere use the value itself",
        ),
        Expr::RawAddr(e) => say(e, "no pointers here: pass `&value` or `&mut value` as an argument"),
        Expr::Const(e) => say(&e.const_token, "write a `const` of the module"),
        Expr::Infer(e) => say(e, "`_` is no value: write one"),
        Expr::Yield(e) => say(&e.yield_token, "a handler runs to its end: send a message to go on later"),
        Expr::Macro(e) => macro_call(&e.mac.path, errors),
        other => say(other, "not an expression of the subset: write it with plain calls, `if`, `match` and loops"),
    }
}

fn closure_head(e: &syn::ExprClosure) -> TokenStream {
    let (open, inputs, close) = (&e.or1_token, &e.inputs, &e.or2_token);
    quote::quote!(#open #inputs #close)
}

/// A pattern that is never allowed, wherever it stands.
pub fn pattern(pattern: &Pat, errors: &Errors) {
    let message = match pattern {
        Pat::Reference(_) => "patterns copy here: match on the value (`match *x`), and leave `&` away",
        Pat::Tuple(_) => "no tuples here: match one value in the other's arm, or put them into a struct",
        Pat::Slice(_) => "no slice patterns: compare the items, as in `if items[0] == 1`",
        Pat::Macro(_) => "no macros here: write the pattern itself",
        Pat::Type(_) => "write the type at the `let`, or in the function's parameters",
        Pat::Const(_) => "write a `const` of the module, and its name here",
        Pat::Rest(_) => "`..` stands among a variant's fields: `Variant { field, .. }`",
        _ => "not a pattern of the subset: names, `_`, numbers, ranges, variants and structs with named fields",
    };
    errors.at(pattern, message);
}

/// The names in a refused pattern: they are known, so that their uses are not errors as well.
pub fn names_in(pattern: &Pat) -> Vec<&Ident> {
    struct Names<'p>(Vec<&'p Ident>);
    impl<'p> Visit<'p> for Names<'p> {
        fn visit_pat_ident(&mut self, name: &'p syn::PatIdent) {
            self.0.push(&name.ident);
            syn::visit::visit_pat_ident(self, name);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_pat(pattern);
    names.0
}

/// What to write instead of a method that numbers do not have here.
pub fn method(name: &str) -> &'static str {
    match name {
        "clone" | "to_owned" | "copied" | "cloned" => "every value here is copied: leave the call away",
        "into" | "try_into" | "from" | "try_from" => "write `as`, as in `x as i64`",
        "unwrap" | "expect" | "unwrap_or" | "is_some" | "is_none" | "is_ok" | "is_err" | "ok" | "map" => {
            "there is no `Option` and no `Result` here: write an enum of your own and a `match`"
        }
        "to_string" | "as_str" | "chars" | "bytes" | "as_bytes" => {
            "no text here: keep numbers, and format them outside"
        }
        "iter" | "iter_mut" | "into_iter" => {
            "no iterators here: write `for i in 0..LENGTH { .. items[i] .. }` with the array's length"
        }
        "len" => "an array's length is fixed: write the number, or the `const` you gave it",
        "push" | "pop" | "insert" | "remove" | "get" | "get_mut" | "first" | "last" | "contains" | "fill" | "swap" => {
            "arrays have no methods here: index them, and loop with `for i in 0..LENGTH`"
        }
        "rev" | "step_by" => "ranges only count up by one: compute the index from the loop's variable",
        "powi" | "powf" | "exp" | "exp2" | "ln" | "log" | "log2" | "log10" | "sin" | "cos" | "tan" | "asin"
        | "acos" | "atan" | "atan2" | "sinh" | "cosh" | "tanh" | "cbrt" | "hypot" | "sin_cos" | "exp_m1" | "ln_1p" => {
            "its last bit differs between devices: multiply out what you need, or compute it outside"
        }
        _ if name.starts_with("checked_") => {
            "there is no `Option` here: compare before, or use a `saturating_` or `wrapping_` method"
        }
        _ if name.starts_with("overflowing_") => "no tuples here: use a `wrapping_` method and compare",
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "cmp" | "partial_cmp" | "total_cmp" => {
            "write the operator: `==`, `!=`, `<`, `<=`, `>` or `>=`"
        }
        "add" | "sub" | "mul" | "div" | "rem" | "neg" | "not" => "write the operator",
        _ => "",
    }
}
