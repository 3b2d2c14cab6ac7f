//! The functions of a module as Rust.
//!
//! The shape of the user's code is kept; only what may differ between devices or between debug and release
//! is written out: wrapping arithmetic, masked shifts, and faults. A function that can fault returns a
//! `Result` and is called with `?`.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::types::{int_ident, ty};
use crate::faults;
use crate::ir::{
    Argument, Arm, BinOp, Block, Builtin, Expr, ExprKind, Float, Function, Int, Local, Module, ParamKind, Pass,
    Pattern, Place, Projection, Statement, Threads, Ty, UnOp,
};

pub fn emit(module: &Module) -> TokenStream {
    let functions = module.functions.iter().map(|function| Emitter { module, function: Some(function) }.function());
    quote!(#(#functions)*)
}

/// The value of a constant: literals and what holds them.
pub fn constant(module: &Module, value: &Expr) -> TokenStream {
    Emitter { module, function: None }.expr(value)
}

struct Emitter<'a> {
    module: &'a Module,
    /// `None` for the value of a constant, which has no locals.
    function: Option<&'a Function>,
}

impl Emitter<'_> {
    fn function(&self) -> TokenStream {
        let function = self.function.expect("only constants are emitted without a function");
        let Function { ident, docs, params, result, body, .. } = function;
        let params = params.iter().map(|param| {
            let local = &function.locals[param.local.0];
            let (name, of) = (&local.ident, ty(self.module, &local.ty));
            let mutable = local.mutable.then(|| quote!(mut));
            match (param.kind, param.pass, name == "self") {
                (ParamKind::Context, ..) => quote!(#name: &mut ::ringhold::rt::Context<'_>),
                (_, Pass::Value, true) => quote!(#mutable #name),
                (_, Pass::Ref, true) => quote!(&#name),
                (_, Pass::RefMut, true) => quote!(&mut #name),
                (_, Pass::Value, false) => quote!(#mutable #name: #of),
                (_, Pass::Ref, false) => quote!(#name: &#of),
                (_, Pass::RefMut, false) => quote!(#name: &mut #of),
            }
        });
        let (result, body) = if function.can_fault {
            let (of, body) = (ty(self.module, result), self.block(body));
            let result = quote!(::core::result::Result<#of, ::ringhold::rt::Fault>);
            (Some(quote!(-> #result)), quote!({ ::core::result::Result::Ok(#body) }))
        } else {
            let of = ty(self.module, result);
            ((*result != Ty::Unit).then(|| quote!(-> #of)), self.block(body))
        };
        let definition = quote! {
            #(#docs)*
            #[inline]
            fn #ident(#(#params),*) #result #body
        };
        match &function.owner {
            Some(owner) => {
                let owner = ty(self.module, owner);
                quote!(impl #owner { #definition })
            }
            None => definition,
        }
    }

    fn block(&self, block: &Block) -> TokenStream {
        let statements = block.statements.iter().map(|statement| self.statement(statement));
        let value = block.value.as_ref().map(|value| self.expr(value));
        quote!({ #(#statements)* #value })
    }

    fn statement(&self, statement: &Statement) -> TokenStream {
        match statement {
            Statement::Let { local, value } => {
                let info = &self.locals()[local.0];
                let (name, of) = (&info.ident, ty(self.module, &info.ty));
                let mutable = info.mutable.then(|| quote!(mut));
                let annotation = (info.ty != Ty::Never).then(|| quote!(: #of));
                let value = value.as_ref().map(|value| {
                    let value = self.expr(value);
                    quote!(= #value)
                });
                quote!(let #mutable #name #annotation #value;)
            }
            Statement::Expr(expr) => {
                let value = self.expr(expr);
                match expr.ty {
                    Ty::Unit | Ty::Never => quote!(#value;),
                    _ => quote!(let _ = #value;),
                }
            }
        }
    }

    fn expr(&self, expr: &Expr) -> TokenStream {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Bool(value) => quote_spanned!(span=> #value),
            ExprKind::Int(value) => int_literal(*value, &expr.ty, span),
            ExprKind::Float(value) => float_literal(*value, &expr.ty, span),
            ExprKind::Place(place) => self.place(place),
            ExprKind::Array(items) => {
                let items = items.iter().map(|item| self.expr(item));
                quote_spanned!(span=> [#(#items),*])
            }
            ExprKind::Repeat(value, length) => {
                let (value, length) = (self.expr(value), Literal::u32_unsuffixed(*length));
                quote_spanned!(span=> [#value; #length])
            }
            ExprKind::Struct { id, fields } => {
                let definition = &self.module.structs[*id];
                let name = respan(&definition.ident, span);
                let fields = fields.iter().map(|(index, value)| {
                    let (field, value) = (&definition.fields[*index].ident, self.expr(value));
                    quote!(#field: #value)
                });
                quote_spanned!(span=> #name { #(#fields),* })
            }
            ExprKind::Variant { id, variant, fields } => {
                let definition = &self.module.enums[*id];
                let (name, variant) = (respan(&definition.ident, span), &definition.variants[*variant]);
                let variant_name = respan(&variant.ident, span);
                if variant.fields.is_empty() {
                    return quote_spanned!(span=> #name::#variant_name);
                }
                let fields = fields.iter().map(|(index, value)| {
                    let (field, value) = (&variant.fields[*index].ident, self.expr(value));
                    quote!(#field: #value)
                });
                quote_spanned!(span=> #name::#variant_name { #(#fields),* })
            }
            ExprKind::ForeignVariant { foreign, variant, fields } => {
                let path = &self.module.foreign[*foreign].path;
                let fields = fields.iter().map(|(field, value)| {
                    let value = self.expr(value);
                    quote!(#field: #value)
                });
                quote_spanned!(span=> #path::Message::#variant { #(#fields),* })
            }
            ExprKind::MakeId { foreign, key } => {
                let key = self.expr(key);
                let actor = match foreign {
                    Some(foreign) => {
                        let path = &self.module.foreign[*foreign].path;
                        quote!(#path::Actor)
                    }
                    None => quote!(Actor),
                };
                quote_spanned! {span=>
                    ::ringhold::rt::ActorId::new(
                        <#actor as ::ringhold::rt::Actor>::TYPE,
                        ::ringhold::rt::Key(#key)
                    )
                }
            }
            ExprKind::Unary(op, value) => {
                let operand = self.operand(value);
                match (op, &expr.ty) {
                    (UnOp::Neg, Ty::Int(int)) => method(*int, "wrapping_neg", [self.expr(value)], span),
                    (UnOp::Neg, _) => quote_spanned!(span=> -#operand),
                    (UnOp::Not, _) => quote_spanned!(span=> !#operand),
                }
            }
            ExprKind::Binary(op, left, right) => {
                let (a, b) = (self.expr(left), self.expr(right));
                self.binary(*op, &left.ty, a, b, right, span)
            }
            ExprKind::And(left, right) => {
                let (a, b) = (self.operand(left), self.operand(right));
                quote_spanned!(span=> #a && #b)
            }
            ExprKind::Or(left, right) => {
                let (a, b) = (self.operand(left), self.operand(right));
                quote_spanned!(span=> #a || #b)
            }
            ExprKind::Cast(value) => {
                let (value, to) = (self.operand(value), ty(self.module, &expr.ty));
                quote_spanned!(span=> #value as #to)
            }
            ExprKind::Assign(place, value) => {
                let (place, value) = (self.place(place), self.expr(value));
                quote_spanned!(span=> #place = #value)
            }
            ExprKind::AssignOp(op, place, value) => self.assign_op(*op, place, value, span),
            ExprKind::Call { function, arguments } => self.call(*function, arguments, span),
            ExprKind::Builtin(builtin, arguments) => self.builtin(*builtin, arguments, span),
            ExprKind::If { condition, then, otherwise } => {
                let (condition, then) = (self.operand(condition), self.block(then));
                let otherwise = otherwise.as_ref().map(|otherwise| {
                    let inner = self.expr(otherwise);
                    match otherwise.kind {
                        ExprKind::Block(_) | ExprKind::If { .. } => quote!(else #inner),
                        _ => quote!(else { #inner }),
                    }
                });
                quote_spanned!(span=> if #condition #then #otherwise)
            }
            ExprKind::Match { subject, arms } => {
                let subject = self.operand(subject);
                let arms = arms.iter().map(|arm| self.arm(arm));
                quote_spanned!(span=> match #subject { #(#arms)* })
            }
            ExprKind::Block(block) => self.block(block),
            ExprKind::Loop { label, body } => {
                let (label, body) = (lifetime(*label), self.block(body));
                quote_spanned!(span=> #label: loop #body)
            }
            ExprKind::While { label, condition, body } => {
                let (label, condition, body) = (lifetime(*label), self.operand(condition), self.block(body));
                quote_spanned!(span=> #label: while #condition #body)
            }
            ExprKind::For { label, local, from, to, inclusive, body } => {
                let (label, info, body) = (lifetime(*label), &self.locals()[local.0], self.block(body));
                let (name, mutable) = (&info.ident, info.mutable.then(|| quote!(mut)));
                let (from, to) = (self.operand(from), self.operand(to));
                let range = if *inclusive { quote!(#from..=#to) } else { quote!(#from..#to) };
                quote_spanned!(span=> #label: for #mutable #name in #range #body)
            }
            // One thread: a plain loop. The context is used, as far as rustc can tell.
            ExprKind::Threads(threads) => {
                let Threads { label, local, from, to, inclusive, body, .. } = &**threads;
                let (label, name, body) = (lifetime(*label), &self.locals()[local.0].ident, self.block(body));
                let (from, to) = (self.operand(from), self.operand(to));
                let range = if *inclusive { quote!(#from..=#to) } else { quote!(#from..#to) };
                let context = self.context();
                quote_spanned!(span=> { let _ = &#context; #label: for #name in #range #body })
            }
            ExprKind::Break { label, value } => {
                let (label, value) = (lifetime(*label), value.as_ref().map(|value| self.expr(value)));
                quote_spanned!(span=> break #label #value)
            }
            ExprKind::Continue { label } => {
                let label = lifetime(*label);
                quote_spanned!(span=> continue #label)
            }
            ExprKind::Return(value) => {
                let value = value.as_ref().map(|value| self.expr(value));
                let can_fault = self.function.is_some_and(|function| function.can_fault);
                match (can_fault, value) {
                    (true, Some(value)) => quote_spanned!(span=> return ::core::result::Result::Ok(#value)),
                    (true, None) => quote_spanned!(span=> return ::core::result::Result::Ok(())),
                    (false, value) => quote_spanned!(span=> return #value),
                }
            }
            ExprKind::CtxId => self.context_method("id", [], span),
            ExprKind::CtxSender => self.context_method("sender", [], span),
            ExprKind::CtxNow => self.context_method("now", [], span),
            ExprKind::CtxReply(reply) => self.context_method("reply", [&**reply], span),
            ExprKind::CtxSend { to, message } => self.context_method("send", [&**to, message], span),
            ExprKind::CtxSendAfter { delay_us, to, message } => {
                self.context_method("send_after", [&**delay_us, to, message], span)
            }
            ExprKind::CtxStop => self.context_method("stop", [], span),
            ExprKind::IdKey(id) => {
                let id = self.operand(id);
                quote_spanned!(span=> #id.key.0)
            }
            ExprKind::IdType(id) => {
                let id = self.operand(id);
                quote_spanned!(span=> #id.type_id.0)
            }
        }
    }

    /// The expression where an operator, a method or a brace follows.
    fn operand(&self, expr: &Expr) -> TokenStream {
        let inner = self.expr(expr);
        let atomic = match &expr.kind {
            ExprKind::Bool(_) => true,
            ExprKind::Int(value) => *value >= 0,
            ExprKind::Place(place) => !place.deref || !place.projections.is_empty(),
            _ => false,
        };
        if atomic { inner } else { quote!((#inner)) }
    }

    fn place(&self, place: &Place) -> TokenStream {
        let mut tokens = {
            let root = respan(&self.locals()[place.root.0].ident, place.span);
            if place.deref && place.projections.is_empty() { quote!(*#root) } else { quote!(#root) }
        };
        for projection in &place.projections {
            tokens = match projection {
                Projection::Field { id, index } => {
                    let field = respan(&self.module.structs[*id].fields[*index].ident, place.span);
                    quote_spanned!(place.span=> #tokens.#field)
                }
                Projection::Index { index, length, span } => {
                    let index = self.index(index, *length, *span);
                    quote_spanned!(place.span=> #tokens[#index])
                }
            };
        }
        tokens
    }

    fn index(&self, index: &Expr, length: u32, span: Span) -> TokenStream {
        if let Some(known) = faults::known_index(index, length) {
            let mut literal = Literal::u32_unsuffixed(known);
            literal.set_span(index.span);
            return quote!(#literal);
        }
        let (index, line) = (self.expr(index), line(span));
        quote_spanned!(span=> ::ringhold::rt::arith::index(#index, #length, #line)?)
    }

    /// `a op b`, both of type `of` (but for the right side of shifts).
    fn binary(&self, op: BinOp, of: &Ty, a: TokenStream, b: TokenStream, right: &Expr, span: Span) -> TokenStream {
        let plain = |operator: TokenStream| quote_spanned!(span=> (#a) #operator (#b));
        match (op, of) {
            (BinOp::Add, Ty::Int(int)) => method(*int, "wrapping_add", [a, b], span),
            (BinOp::Sub, Ty::Int(int)) => method(*int, "wrapping_sub", [a, b], span),
            (BinOp::Mul, Ty::Int(int)) => method(*int, "wrapping_mul", [a, b], span),
            (BinOp::Div, Ty::Int(int)) => self.division(*int, "div", a, b, right, span),
            (BinOp::Rem, Ty::Int(int)) => self.division(*int, "rem", a, b, right, span),
            (BinOp::Shl, Ty::Int(int)) => method(*int, "wrapping_shl", [a, quote!((#b) as u32)], span),
            (BinOp::Shr, Ty::Int(int)) => method(*int, "wrapping_shr", [a, quote!((#b) as u32)], span),
            (BinOp::Add, _) => plain(quote!(+)),
            (BinOp::Sub, _) => plain(quote!(-)),
            (BinOp::Mul, _) => plain(quote!(*)),
            (BinOp::Div, _) => plain(quote!(/)),
            (BinOp::Rem, _) => plain(quote!(%)),
            (BinOp::BitAnd, _) => plain(quote!(&)),
            (BinOp::BitOr, _) => plain(quote!(|)),
            (BinOp::BitXor, _) => plain(quote!(^)),
            (BinOp::Shl | BinOp::Shr, _) => unreachable!("only integers are shifted"),
            (BinOp::Eq, _) => plain(quote!(==)),
            (BinOp::Ne, _) => plain(quote!(!=)),
            (BinOp::Lt, _) => plain(quote!(<)),
            (BinOp::Le, _) => plain(quote!(<=)),
            (BinOp::Gt, _) => plain(quote!(>)),
            (BinOp::Ge, _) => plain(quote!(>=)),
        }
    }

    fn division(&self, int: Int, name: &str, a: TokenStream, b: TokenStream, right: &Expr, span: Span) -> TokenStream {
        if faults::known_divisor(right) {
            return method(int, &format!("wrapping_{name}"), [a, b], span);
        }
        let (name, line) = (Ident::new(name, span), line(span));
        quote_spanned!(span=> ::ringhold::rt::arith::#name(#a, #b, #line)?)
    }

    /// The value first, then the place, and the place once.
    fn assign_op(&self, op: BinOp, place: &Place, value: &Expr, span: Span) -> TokenStream {
        let of = &place.ty;
        let (place_tokens, value_tokens) = (self.place(place), self.expr(value));
        let held = Ident::new("value", Span::mixed_site());
        let simple = matches!(value.kind, ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_));
        let indexed = place.projections.iter().any(|projection| matches!(projection, Projection::Index { .. }));
        if !indexed && simple {
            let result = self.binary(op, of, quote!(#place_tokens), value_tokens, value, span);
            return quote_spanned!(span=> #place_tokens = #result);
        }
        if !indexed {
            let result = self.binary(op, of, quote!(#place_tokens), quote!(#held), value, span);
            return quote_spanned!(span=> { let #held = #value_tokens; #place_tokens = #result; });
        }
        let target = Ident::new("target", Span::mixed_site());
        let result = self.binary(op, of, quote!(*#target), quote!(#held), value, span);
        quote_spanned! {span=>
            { let #held = #value_tokens; let #target = &mut #place_tokens; *#target = #result; }
        }
    }

    fn call(&self, id: usize, arguments: &[Argument], span: Span) -> TokenStream {
        let function = &self.module.functions[id];
        let name = respan(&function.ident, span);
        let question = function.can_fault.then(|| quote_spanned!(span=> ?));
        let is_method = function.params.first().is_some_and(|param| function.locals[param.local.0].ident == "self");
        if is_method {
            // As a method call, so that `&mut self` is borrowed only after the arguments, as Rust has it.
            let receiver = match &arguments[0] {
                Argument::Value(value) => self.operand(value),
                Argument::Ref(place) | Argument::RefMut(place) => {
                    let inner = self.place(place);
                    if place.deref && place.projections.is_empty() { quote!((#inner)) } else { inner }
                }
                Argument::Context => unreachable!("a context is no receiver"),
            };
            let rest = arguments[1..].iter().map(|argument| self.argument(argument));
            return quote_spanned!(span=> #receiver.#name(#(#rest),*) #question);
        }
        let arguments = arguments.iter().map(|argument| self.argument(argument));
        match &function.owner {
            Some(owner) => {
                let owner = ty(self.module, owner);
                quote_spanned!(span=> <#owner>::#name(#(#arguments),*) #question)
            }
            None => quote_spanned!(span=> #name(#(#arguments),*) #question),
        }
    }

    fn argument(&self, argument: &Argument) -> TokenStream {
        match argument {
            Argument::Value(value) => self.expr(value),
            Argument::Ref(place) => {
                let place = self.place(place);
                quote!(&#place)
            }
            Argument::RefMut(place) => {
                let place = self.place(place);
                quote!(&mut #place)
            }
            Argument::Context => {
                let context = self.context();
                quote!(&mut *#context)
            }
        }
    }

    fn builtin(&self, builtin: Builtin, arguments: &[Expr], span: Span) -> TokenStream {
        use Builtin::*;
        let receiver = &arguments[0].ty;
        let values: Vec<_> = arguments.iter().map(|argument| self.expr(argument)).collect();
        let inherent = |name: &str| {
            let (of, name) = (ty(self.module, receiver), Ident::new(name, span));
            quote_spanned!(span=> <#of>::#name(#(#values),*))
        };
        let own = |name: &str| {
            let name = Ident::new(name, span);
            quote_spanned!(span=> ::ringhold::rt::arith::Float::#name(#(#values),*))
        };
        let is_float = matches!(receiver, Ty::Float(_));
        match builtin {
            WrappingAdd => inherent("wrapping_add"),
            WrappingSub => inherent("wrapping_sub"),
            WrappingMul => inherent("wrapping_mul"),
            WrappingNeg => inherent("wrapping_neg"),
            WrappingShl => inherent("wrapping_shl"),
            WrappingShr => inherent("wrapping_shr"),
            SaturatingAdd => inherent("saturating_add"),
            SaturatingSub => inherent("saturating_sub"),
            SaturatingMul => inherent("saturating_mul"),
            Pow => inherent("wrapping_pow"),
            RotateLeft => inherent("rotate_left"),
            RotateRight => inherent("rotate_right"),
            LeadingZeros => inherent("leading_zeros"),
            TrailingZeros => inherent("trailing_zeros"),
            CountOnes => inherent("count_ones"),
            CountZeros => inherent("count_zeros"),
            SwapBytes => inherent("swap_bytes"),
            ReverseBits => inherent("reverse_bits"),
            AbsDiff => inherent("abs_diff"),
            UnsignedAbs => inherent("unsigned_abs"),
            Abs => inherent("wrapping_abs"),
            Signum => inherent("signum"),
            IsPositive => inherent("is_positive"),
            IsNegative => inherent("is_negative"),
            DivEuclid | RemEuclid => {
                let (Ty::Int(int), [a, b]) = (receiver, &values[..]) else {
                    unreachable!("only integers are divided so, by one divisor")
                };
                let name = if builtin == DivEuclid { "div_euclid" } else { "rem_euclid" };
                self.division(*int, name, a.clone(), b.clone(), &arguments[1], span)
            }
            IsPowerOfTwo => inherent("is_power_of_two"),
            Min if is_float => own("least"),
            Max if is_float => own("greatest"),
            Min => quote_spanned!(span=> ::core::cmp::Ord::min(#(#values),*)),
            Max => quote_spanned!(span=> ::core::cmp::Ord::max(#(#values),*)),
            Clamp if faults::known_bounds(&arguments[1], &arguments[2]) => {
                quote_spanned!(span=> ::ringhold::rt::arith::clamp_ordered(#(#values),*))
            }
            Clamp => {
                let line = line(span);
                quote_spanned!(span=> ::ringhold::rt::arith::clamp(#(#values,)* #line)?)
            }
            FloatAbs => inherent("abs"),
            Sqrt => inherent("sqrt"),
            Floor => inherent("floor"),
            Ceil => inherent("ceil"),
            Trunc => inherent("trunc"),
            Round => inherent("round"),
            MulAdd => inherent("mul_add"),
            IsNan => inherent("is_nan"),
            IsFinite => inherent("is_finite"),
            IsInfinite => inherent("is_infinite"),
            ToBits => own("canonical_bits"),
            FromBits => {
                let of = match receiver {
                    Ty::Int(Int::U32) => quote!(f32),
                    _ => quote!(f64),
                };
                quote_spanned!(span=> #of::from_bits(#(#values),*))
            }
        }
    }

    fn arm(&self, arm: &Arm) -> TokenStream {
        let (pattern, body) = (self.pattern(&arm.pattern), self.expr(&arm.body));
        let guard = arm.guard.as_ref().map(|guard| {
            let guard = self.expr(guard);
            quote!(if #guard)
        });
        quote!(#pattern #guard => #body,)
    }

    fn pattern(&self, pattern: &Pattern) -> TokenStream {
        match pattern {
            Pattern::Wild => quote!(_),
            Pattern::Bind { local, inner } => {
                let info = &self.locals()[local.0];
                let (name, mutable) = (&info.ident, info.mutable.then(|| quote!(mut)));
                let inner = inner.as_ref().map(|inner| {
                    let inner = self.pattern(inner);
                    quote!(@ (#inner))
                });
                quote!(#mutable #name #inner)
            }
            Pattern::Bool(value) => quote!(#value),
            Pattern::Int(value) => pattern_int(*value),
            Pattern::Range { low, high } => {
                let (low, high) = (pattern_int(*low), pattern_int(*high));
                quote!(#low..=#high)
            }
            Pattern::Variant { id, variant, fields } => {
                let definition = &self.module.enums[*id];
                let (name, variant) = (&definition.ident, &definition.variants[*variant]);
                let (variant_name, rest) = (&variant.ident, fields.len() < variant.fields.len());
                if variant.fields.is_empty() {
                    return quote!(#name::#variant_name);
                }
                let fields = self.field_patterns(&variant.fields, fields);
                let rest = rest.then(|| quote!(..));
                quote!(#name::#variant_name { #(#fields,)* #rest })
            }
            Pattern::Struct { id, fields } => {
                let definition = &self.module.structs[*id];
                let (name, rest) = (&definition.ident, fields.len() < definition.fields.len());
                let fields = self.field_patterns(&definition.fields, fields);
                let rest = rest.then(|| quote!(..));
                quote!(#name { #(#fields,)* #rest })
            }
            Pattern::Or(alternatives) => {
                let alternatives = alternatives.iter().map(|alternative| self.pattern(alternative));
                quote!((#(#alternatives)|*))
            }
        }
    }

    fn field_patterns(&self, of: &[crate::ir::Field], fields: &[(usize, Pattern)]) -> Vec<TokenStream> {
        let fields = fields.iter().map(|(index, pattern)| {
            let (field, inner) = (&of[*index].ident, self.pattern(pattern));
            match pattern {
                // Written short where the user did, so that the hints of lints on it are right.
                Pattern::Bind { local, inner: None } if self.locals()[local.0].ident == *field => inner,
                _ => quote!(#field: #inner),
            }
        });
        fields.collect()
    }

    fn context_method<'e>(&self, name: &str, arguments: impl IntoIterator<Item = &'e Expr>, span: Span) -> TokenStream {
        let (context, name) = (self.context(), Ident::new(name, span));
        let arguments = arguments.into_iter().map(|argument| self.expr(argument));
        quote_spanned!(span=> #context.#name(#(#arguments),*))
    }

    fn context(&self) -> &Ident {
        let params = self.function.map(|function| &function.params[..]).unwrap_or_default();
        let param = params.iter().find(|param| param.kind == ParamKind::Context);
        let Local(local) = param.expect("a function that uses the context has it as a parameter").local;
        &self.locals()[local].ident
    }

    fn locals(&self) -> &[crate::ir::LocalInfo] {
        self.function.map(|function| &function.locals[..]).unwrap_or_default()
    }
}

fn method<const N: usize>(int: Int, name: &str, arguments: [TokenStream; N], span: Span) -> TokenStream {
    let (int, name) = (int_ident(int), Ident::new(name, span));
    quote_spanned!(span=> #int::#name(#(#arguments),*))
}

/// The line of the user's file, by which faults are reported.
pub fn line(span: Span) -> u32 {
    span.start().line as u32
}

/// The same name at another place of the source.
fn respan(ident: &Ident, span: Span) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(span.resolved_at(ident.span()));
    ident
}

fn lifetime(label: u32) -> syn::Lifetime {
    syn::Lifetime::new(&format!("'l{label}"), Span::mixed_site())
}

fn int_literal(value: i128, of: &Ty, span: Span) -> TokenStream {
    let suffix = match of {
        Ty::Int(int) => int_ident(*int).to_string(),
        _ => unreachable!("an integer literal has an integer type"),
    };
    let text = format!("{}{suffix}", value.unsigned_abs());
    let mut literal: Literal = text.parse().expect("digits and a suffix are a literal");
    literal.set_span(span);
    if value < 0 { quote_spanned!(span=> -#literal) } else { quote!(#literal) }
}

fn pattern_int(value: i128) -> TokenStream {
    let literal = Literal::u128_unsuffixed(value.unsigned_abs());
    if value < 0 { quote!(-#literal) } else { quote!(#literal) }
}

fn float_literal(value: f64, of: &Ty, span: Span) -> TokenStream {
    let is_f32 = *of == Ty::Float(Float::F32);
    if !value.is_finite() {
        // A folded constant; Rust has no literal for it.
        return if is_f32 {
            let bits = Literal::u32_suffixed((value as f32).to_bits());
            quote_spanned!(span=> f32::from_bits(#bits))
        } else {
            let bits = Literal::u64_suffixed(value.to_bits());
            quote_spanned!(span=> f64::from_bits(#bits))
        };
    }
    let magnitude = value.abs();
    let mut literal = if is_f32 { Literal::f32_suffixed(magnitude as f32) } else { Literal::f64_suffixed(magnitude) };
    literal.set_span(span);
    if value.is_sign_negative() { quote_spanned!(span=> (-#literal)) } else { quote!(#literal) }
}
