//! Random places, and calls, whose references are places.

use super::{Generator, Pass, Type};

impl Generator {
    /// A place of that type, its indexes written out.
    pub(super) fn place(&mut self, ty: &Type, mutable: bool, depth: usize) -> Option<String> {
        let mut found = Vec::new();
        for variable in &self.scope {
            if variable.mutable || !mutable {
                let bare = if variable.reference { format!("(*{})", variable.name) } else { variable.name.clone() };
                self.collect(&bare, &variable.name, &variable.ty, ty, &mut found);
            }
        }
        if found.is_empty() {
            return None;
        }
        let mut place = self.random.pick(&found).clone();
        while let Some(at) = place.find('#') {
            let length: usize = place[at + 1..at + 2].parse().expect("a length of one digit");
            let index = self.index(length, depth);
            place.replace_range(at..at + 2, &index);
        }
        Some(place)
    }

    /// `path` is how a projection starts, `bare` the place alone. Indexes are `#` and the length.
    pub(super) fn collect(&self, bare: &str, path: &str, ty: &Type, wanted: &Type, found: &mut Vec<String>) {
        if ty == wanted {
            found.push(bare.into());
        }
        match ty {
            Type::Struct(id) => {
                for (field, ty) in &self.structs[*id].fields {
                    let place = format!("{path}.{field}");
                    self.collect(&place, &place, ty, wanted, found);
                }
            }
            Type::Array(item, length) => {
                let place = format!("{path}[#{length}]");
                self.collect(&place, &place, item, wanted, found);
            }
            _ => {}
        }
    }

    pub(super) fn index(&mut self, length: usize, depth: usize) -> String {
        if depth == 0 || self.random.chance(40) {
            let suffix = if self.random.chance(50) { self.int() } else { "" };
            return format!("{}{suffix}", self.random.below(length));
        }
        let int = self.int();
        // Now and then it may be out of bounds; written out, that would be refused.
        let may_be_outside = if self.random.chance(15) { self.place(&Type::Int(int), false, 0) } else { None };
        match may_be_outside {
            Some(place) if self.random.chance(50) => place,
            Some(place) => format!("({place} & 15{int})"),
            None => format!("{}.rem_euclid({length}{int})", self.expr(&Type::Int(int), depth - 1)),
        }
    }

    /// A call of a function, or nothing where its reference cannot be given here.
    pub(super) fn call(&mut self, id: usize, depth: usize) -> Option<String> {
        let function = &self.functions[id];
        if (self.pure && function.has_effects()) || (function.context && (!self.context || self.parallel.is_some())) {
            return None;
        }
        let (name, owner, params, reference, context) = (
            function.name.clone(),
            function.owner.clone(),
            function.params.clone(),
            function.reference.clone(),
            function.context,
        );
        let inner = depth.saturating_sub(1);
        if let Some((ty, pass)) = &owner {
            self.note("method");
            let receiver = self.place(ty, *pass == Pass::RefMut, 0)?;
            // `self` is borrowed while the arguments are evaluated: they may look, but not change.
            let before = std::mem::replace(&mut self.pure, true);
            let mut arguments: Vec<String> = params.iter().map(|ty| self.expr(ty, inner)).collect();
            self.pure = before;
            if context {
                arguments.push("ctx".into());
            }
            return Some(format!("{receiver}.{name}({})", arguments.join(", ")));
        }
        self.note("call");
        let mut arguments: Vec<String> = params.iter().map(|ty| self.expr(ty, inner)).collect();
        if let Some((ty, pass)) = &reference {
            self.note("reference");
            let place = self.place(ty, *pass == Pass::RefMut, inner.min(1))?;
            let sign = if *pass == Pass::RefMut { "&mut " } else { "&" };
            let bare = place.strip_prefix("(*").and_then(|rest| rest.strip_suffix(')'));
            arguments.push(match bare {
                // What is a reference already is passed on as it is, if it is of the same kind.
                Some(bare) if self.scope.iter().any(|v| v.name == bare && v.mutable == (*pass == Pass::RefMut)) => {
                    bare.into()
                }
                Some(_) => return None,
                None => format!("{sign}{place}"),
            });
        }
        if context {
            arguments.push("ctx".into());
        }
        Some(format!("{name}({})", arguments.join(", ")))
    }
}
