//! Random matches: subjects, arms, guards and patterns of every kind.

use super::{Generator, Type, Variable, signed};

impl Generator {
    /// What to match on: a place or a value.
    pub(super) fn subject(&mut self, depth: usize) -> (String, Type) {
        let ty = match self.random.below(6) {
            0 => Type::Bool,
            1 => Type::Enum(0),
            2 | 3 => Type::Enum(1),
            4 => Type::Struct(0),
            _ => Type::Int(self.int()),
        };
        let place = if self.random.chance(60) { self.place(&ty, false, 0) } else { None };
        let subject = match place {
            Some(place) => place,
            None => self.expr(&ty, depth - 1),
        };
        (subject, ty)
    }

    /// `{ arms }`, each with what `body` writes.
    pub(super) fn arms(&mut self, subject: &str, ty: &Type, mut body: impl FnMut(&mut Self) -> String) -> String {
        let mut arms = Vec::new();
        let outside = self.scope.clone();
        // A guard must not change what is matched, so where that is a place, it changes nothing.
        let is_place = subject.chars().all(|c| c.is_alphanumeric() || "._*()[]".contains(c));
        match ty {
            Type::Bool => {
                arms.push(format!("true => {},", body(self)));
                arms.push(format!("false => {},", body(self)));
            }
            Type::Int(int) => {
                self.note(format!("match {int}"));
                for _ in 0..1 + self.random.below(3) {
                    let pattern = self.int_pattern(int);
                    let guard = self.guard(is_place);
                    arms.push(format!("{pattern}{guard} => {},", body(self)));
                    self.scope = outside.clone();
                }
                if self.random.chance(40) {
                    let name = self.fresh();
                    self.scope.push(Variable { name: name.clone(), ty: ty.clone(), mutable: false, reference: false });
                    arms.push(format!("{name} => {},", body(self)));
                } else {
                    arms.push(format!("_ => {},", body(self)));
                }
            }
            Type::Enum(id) => {
                self.note(if self.enums[*id].is_plain() { "match enum" } else { "match fields" });
                let count = self.enums[*id].variants.len();
                let mut left = count;
                let mut variant = 0;
                while variant < count {
                    if variant > 0 && self.random.chance(15) {
                        break;
                    }
                    if self.random.chance(30) {
                        let pattern = self.variant_pattern(*id, variant, true);
                        let guard = self.guard(is_place);
                        arms.push(format!("{pattern}{guard} => {},", body(self)));
                        self.scope = outside.clone();
                    }
                    if self.random.chance(25) && variant + 1 < count {
                        self.note("or-pattern");
                        let either = self.either_pattern(*id, variant);
                        arms.push(format!("{either} => {},", body(self)));
                        variant += 2;
                        left -= 2;
                    } else {
                        let pattern = self.variant_pattern(*id, variant, false);
                        arms.push(format!("{pattern} => {},", body(self)));
                        variant += 1;
                        left -= 1;
                    }
                    self.scope = outside.clone();
                }
                if left > 0 {
                    arms.push(format!("_ => {},", body(self)));
                }
            }
            Type::Struct(id) => {
                let pattern = self.struct_pattern(*id, true);
                let guard = self.guard(is_place);
                arms.push(format!("{pattern}{guard} => {},", body(self)));
                self.scope = outside.clone();
                let pattern = self.struct_pattern(*id, false);
                arms.push(format!("{pattern} => {},", body(self)));
            }
            _ => unreachable!("only these types are matched"),
        }
        self.scope = outside;
        format!("{{\n{}\n}}", arms.join("\n"))
    }

    pub(super) fn guard(&mut self, of_place: bool) -> String {
        if !self.random.chance(35) {
            return String::new();
        }
        self.note("guard");
        let before = (self.pure, self.scope.clone());
        self.pure |= of_place;
        // Rust lets no guard change what its own pattern binds.
        self.scope.iter_mut().filter(|variable| variable.name.starts_with('v')).for_each(|v| v.mutable = false);
        let guard = format!(" if {}", self.expr(&Type::Bool, 2));
        (self.pure, self.scope) = before;
        guard
    }

    pub(super) fn int_pattern(&mut self, int: &'static str) -> String {
        let small = |this: &mut Self| this.random.below(20) as i64 - if signed(int) { 10 } else { 0 };
        match self.random.below(6) {
            0 => format!("{int}::MIN..={}", small(self)),
            1 => format!("{}..", small(self)),
            2 => {
                let low = small(self);
                format!("{low}..={}", low + self.random.below(30) as i64)
            }
            3 => {
                self.note("or-pattern");
                let low = small(self);
                format!("{low} | {}..={} | {}", low + 1, low + 9, low + 20)
            }
            4 => {
                let name = self.fresh();
                let low = small(self);
                let ty = Type::Int(int);
                self.scope.push(Variable { name: name.clone(), ty, mutable: false, reference: false });
                format!("{name} @ ({low}..{} | {})", low + 5, low + 40)
            }
            _ => small(self).to_string(),
        }
    }

    /// Binds some fields; with `narrow`, some fields are tested too, so that it need not match.
    pub(super) fn variant_pattern(&mut self, id: usize, variant: usize, narrow: bool) -> String {
        let (name, fields) = self.enums[id].variants[variant].clone();
        let head = format!("{}::{name}", self.enums[id].name);
        if fields.is_empty() {
            return head;
        }
        let fields = self.field_patterns(&fields, narrow);
        format!("{head} {{ {fields} }}")
    }

    pub(super) fn struct_pattern(&mut self, id: usize, narrow: bool) -> String {
        let fields = self.structs[id].fields.clone();
        let fields = self.field_patterns(&fields, narrow);
        format!("{} {{ {fields} }}", self.structs[id].name)
    }

    pub(super) fn field_patterns(&mut self, fields: &[(String, Type)], narrow: bool) -> String {
        let mut patterns = Vec::new();
        let mut left_out = false;
        for (field, ty) in fields {
            match (ty, self.random.below(10)) {
                (Type::Int(int), 0..=4) if narrow => {
                    let pattern = self.int_pattern(int);
                    // Several alternatives of one field stand in parentheses.
                    let pattern = if pattern.contains('@') { pattern } else { format!("({pattern})") };
                    patterns.push(format!("{field}: {pattern}"));
                }
                (Type::Bool, 0..=4) if narrow => {
                    let value = self.random.chance(50);
                    patterns.push(format!("{field}: {value}"));
                }
                (Type::Struct(id), 0..=4) => {
                    let pattern = self.struct_pattern(*id, narrow);
                    patterns.push(format!("{field}: {pattern}"));
                }
                (_, 8) => patterns.push(format!("{field}: _")),
                (_, 9) => left_out = true,
                _ => {
                    let name = self.fresh();
                    let mutable = self.random.chance(20);
                    let text = if mutable { format!("{field}: mut {name}") } else { format!("{field}: {name}") };
                    patterns.push(text);
                    self.scope.push(Variable { name, ty: ty.clone(), mutable, reference: false });
                }
            }
        }
        if left_out {
            patterns.push("..".into());
        }
        patterns.join(", ")
    }

    /// Two variants in one arm; where both have a field of one type, it is bound in both.
    pub(super) fn either_pattern(&mut self, id: usize, variant: usize) -> String {
        let name = self.enums[id].name.clone();
        let (a, a_fields) = self.enums[id].variants[variant].clone();
        let (b, b_fields) = self.enums[id].variants[variant + 1].clone();
        let shared = a_fields.iter().find_map(|(field, ty)| {
            b_fields.iter().find(|(_, other)| other == ty).map(|(other, _)| (field.clone(), other.clone(), ty.clone()))
        });
        let whole = |variant: &str, fields: &[(String, Type)]| {
            if fields.is_empty() { format!("{name}::{variant}") } else { format!("{name}::{variant} {{ .. }}") }
        };
        match shared {
            Some((in_a, in_b, ty)) => {
                let bound = self.fresh();
                let text = format!("{name}::{a} {{ {in_a}: {bound}, .. }} | {name}::{b} {{ {in_b}: {bound}, .. }}");
                self.scope.push(Variable { name: bound, ty, mutable: false, reference: false });
                text
            }
            None => format!("{} | {}", whole(&a, &a_fields), whole(&b, &b_fields)),
        }
    }
}
