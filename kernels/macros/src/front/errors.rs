//! Errors at tokens: every one of a module is collected, so that the user sees them all at once.

use std::cell::RefCell;
use std::fmt::Display;

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;

/// Where something stands in the user's source: its first and its last token.
#[derive(Clone, Copy)]
pub struct At {
    pub start: Span,
    pub end: Span,
}

impl At {
    pub fn of(tokens: &impl ToTokens) -> At {
        let mut trees = tokens.to_token_stream().into_iter();
        let Some(first) = trees.next() else {
            return At::from(Span::call_site());
        };
        let last = trees.last().unwrap_or_else(|| first.clone());
        let start = if let TokenTree::Group(group) = &first { group.span_open() } else { first.span() };
        let end = if let TokenTree::Group(group) = &last { group.span_close() } else { last.span() };
        At { start, end }
    }
}

impl From<Span> for At {
    fn from(span: Span) -> At {
        At { start: span, end: span }
    }
}

/// `syn::Error::new_spanned` underlines from the first token to the last: two tokens carry the place.
impl ToTokens for At {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend([Ident::new("_start", self.start), Ident::new("_end", self.end)]);
    }
}

/// The errors found so far.
#[derive(Default)]
pub struct Errors {
    list: RefCell<Vec<syn::Error>>,
}

impl Errors {
    /// Reports an error at these tokens.
    pub fn at(&self, tokens: &impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(At::of(tokens), message));
    }

    pub fn push(&self, error: syn::Error) {
        self.list.borrow_mut().push(error);
    }

    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// All errors as one, or nothing.
    pub fn into_result(self) -> syn::Result<()> {
        let combined = self.list.into_inner().into_iter().reduce(|mut all, next| {
            all.combine(next);
            all
        });
        combined.map_or(Ok(()), Err)
    }
}

/// The user's tokens as text for a suggestion, spaced as a person would; `..` where they are long.
pub fn sketch(tokens: &impl ToTokens) -> String {
    let mut text = String::new();
    spell(tokens.to_token_stream(), &mut text);
    if text.chars().count() > 40 { "..".to_owned() } else { text }
}

fn spell(tokens: TokenStream, text: &mut String) {
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{ ", " }"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                if group.delimiter() == Delimiter::Brace {
                    text.push(' ');
                }
                text.push_str(open);
                spell(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => {
                let mark = punct.as_char();
                let tight = matches!(mark, '.' | ':' | '!' | '&' | '*' | ',' | ';' | '?');
                if !tight && text.ends_with(|c: char| c.is_alphanumeric() || ")]".contains(c)) {
                    text.push(' ');
                }
                text.push(mark);
                if matches!(mark, ',' | ';') {
                    text.push(' ');
                }
            }
            word => {
                let word = word.to_string();
                let apart = text.ends_with(|c: char| !"([{.:!&* -".contains(c)) && !text.ends_with(' ');
                if apart && !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(&word);
            }
        }
    }
}
