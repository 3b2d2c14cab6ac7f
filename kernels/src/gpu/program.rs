//! What a GPU runs, as text: the device's C++ with that of every registered actor type.

use std::fmt;
use std::ops::Range;

use crate::cuda::Source;

/// The whole text of a device's program. What is compiled is one of these and nothing else, and it holds nothing that
/// was not in this binary when it was built.
#[derive(Clone, Debug)]
pub struct Program {
    text: String,
    parts: Vec<Part>,
}

/// Lines that came from one actor type.
#[derive(Clone, Debug)]
struct Part {
    actor: String,
    /// Counted from 1.
    lines: Range<usize>,
}

/// Where in the user's Rust a line of the text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The name of the actor type.
    pub actor: String,
    /// The line of the actor's Rust file, from 1, where the text tells.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "actor type `{}`, line {line} of its Rust file", self.actor),
            None => write!(f, "actor type `{}`", self.actor),
        }
    }
}

impl Program {
    /// A text that holds the C++ of these actor types, each with its name.
    pub fn new(text: String, actors: &[(&str, Source)]) -> Program {
        let mut parts = Vec::new();
        for (name, source) in actors {
            for part in [source.types, source.functions] {
                if let Some(at) = text.find(part).filter(|_| !part.is_empty()) {
                    let first = text[..at].matches('\n').count() + 1;
                    let lines = first..first + part.lines().count();
                    parts.push(Part { actor: name.to_string(), lines });
                }
            }
        }
        Program { text, parts }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where line `number` of the text, counted from 1, comes from. `None` if it is the device's own.
    pub fn place(&self, number: usize) -> Option<Place> {
        let part = self.parts.iter().find(|part| part.lines.contains(&number))?;
        // The macro writes `// line 12` before the statements of that line; functions start in the first column.
        let lines: Vec<&str> =
            self.text.lines().skip(part.lines.start - 1).take(number + 1 - part.lines.start).collect();
        let of_the_function = lines.iter().rev().take_while(|line| line.starts_with(' '));
        let line = of_the_function.filter_map(|line| line.trim().strip_prefix("// line ")?.parse().ok()).next();
        Some(Place { actor: part.actor.clone(), line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::translation_unit;

    #[test]
    fn a_line_is_traced_to_its_actor_type_and_its_line_of_rust() {
        let bank = Source { module: "bank", types: "struct Bank {\n};\n", functions: BANK };
        let shop = Source { module: "shop", types: "struct Shop {};\n", functions: "int shop() {\n    return 1;\n}\n" };
        let program = Program::new(translation_unit(&[bank, shop]), &[("bank.account", bank), ("shop", shop)]);
        let place = |text: &str| {
            let number = program.text().lines().position(|line| line.contains(text)).unwrap() + 1;
            program.place(number)
        };
        let bank = |line| Some(Place { actor: "bank.account".into(), line });
        assert_eq!(place("struct Bank"), bank(None));
        assert_eq!(place("int first = 1"), bank(Some(12)));
        assert_eq!(place("int second = 2"), bank(Some(14)));
        assert_eq!(place("int other()"), bank(None), "what is before the first marked line has none");
        assert_eq!(place("int third = 3"), bank(None));
        assert_eq!(place("return 1"), Some(Place { actor: "shop".into(), line: None }));
        assert_eq!(program.place(1), None, "the prelude is nobody's");
        assert_eq!(program.place(0), None);
        assert_eq!(program.place(usize::MAX), None);
        assert_eq!(bank(Some(12)).unwrap().to_string(), "actor type `bank.account`, line 12 of its Rust file");
    }

    const BANK: &str = "namespace rh_bank {
int bank() {
    // line 12
    int first = 1;
    // line 14
    if (first) {
        int second = 2;
    }
}
int other() {
    int third = 3;
}
}
";
}
