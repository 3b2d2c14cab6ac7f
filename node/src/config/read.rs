//! Reading: TOML into fields, with every unknown name and wrong type noted and its line.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use ringhold_kernels::suggest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rule::Rule;
use super::{Config, Problem, Visitor};

/// On which line each field is set.
#[derive(Default)]
pub struct Lines(HashMap<String, usize>);

impl Lines {
    /// The problem with the line of its field, or where that is not set, of the section it is missing from.
    pub fn place(&self, problem: Problem) -> Problem {
        let section = problem.field.split(['.', '[']).next().unwrap_or_default();
        let unset = problem.value.is_empty().then(|| self.0.get(section)).flatten();
        let line = problem.line.or_else(|| self.0.get(&problem.field).or(unset).copied());
        Problem { line, ..problem }
    }

    /// A flag has replaced what the file said.
    pub fn forget(&mut self, field: &str) {
        self.0.remove(field);
    }
}

/// Sets what the text sets. What cannot be read keeps its value and is a problem.
pub fn read(text: &str, config: &mut Config, problems: &mut Vec<Problem>) -> Lines {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map(|span| line_at(text, span.start));
        problems.push(Problem {
            field: "syntax".into(),
            line,
            value: line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default().trim().into(),
            rule: error.message().into(),
            fix: "write TOML (https://toml.io): `field = value` lines under `[section]` lines".into(),
        });
    }
    let mut known = Known::default();
    Config::default().visit(&mut known);
    let mut reader = Reader {
        text,
        document: document.get_ref(),
        table: None,
        prefix: String::new(),
        seen: BTreeSet::new(),
        sections: BTreeSet::new(),
        known,
        lines: Lines::default(),
        problems,
    };
    config.visit(&mut reader);
    reader.finish_table();
    reader.unknown_sections();
    reader.lines
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
    document: &'a DeTable<'a>,
    /// The table of the current section, if the file has it.
    table: Option<&'a DeTable<'a>>,
    /// `queues`, `devices[0]`
    prefix: String,
    /// Fields of the current section.
    seen: BTreeSet<&'static str>,
    sections: BTreeSet<&'static str>,
    known: Known,
    lines: Lines,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn enter(&mut self, prefix: String, table: Option<&'a DeTable<'a>>) {
        self.finish_table();
        self.prefix = prefix;
        self.table = table;
        self.seen.clear();
    }

    /// Once all fields of a table have been visited, what is left over is unknown.
    fn finish_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        for (name, value) in table {
            if !self.seen.contains(name.get_ref().as_ref()) {
                self.unknown_field(name, value);
            }
        }
    }

    fn unknown_field(&mut self, name: &Spanned<std::borrow::Cow<'a, str>>, value: &Spanned<DeValue<'a>>) {
        let section = self.prefix.split('[').next().unwrap_or_default().to_string();
        let fields = self.known.fields_of(&section);
        let fix = match suggest::nearest(name.get_ref(), fields.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match self.known.section_with(name.get_ref()) {
                Some(other) => format!("`{}` belongs in [{other}]", name.get_ref()),
                None => format!("remove it; [{section}] has {}", suggest::list(fields.iter().copied())),
            },
        };
        let field = format!("{}.{}", self.prefix, name.get_ref());
        let value = self.source(value.span());
        self.problem(field, name.span(), value, "the name of a field of this section".into(), fix);
    }

    fn unknown_sections(&mut self) {
        for (name, value) in self.document {
            if self.sections.contains(name.get_ref().as_ref()) {
                continue;
            }
            let sections = self.known.sections();
            let fix = match self.known.section_with(name.get_ref()) {
                Some(section) if !value.get_ref().is_table() => format!("move it under [{section}]"),
                _ => match suggest::nearest(name.get_ref(), sections.iter().copied()) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("remove it; there are {}", suggest::list(sections.iter().copied())),
                },
            };
            let value = if value.get_ref().is_table() { String::new() } else { self.source(value.span()) };
            self.problem(name.get_ref().to_string(), name.span(), value, "the name of a section".into(), fix);
        }
    }

    /// The table under a name; anything else there is a problem.
    fn table_at(&mut self, name: &'static str) -> Option<&'a DeTable<'a>> {
        self.sections.insert(name);
        let value = self.document.get(name)?;
        self.lines.0.insert(name.into(), line_at(self.text, value.span().start));
        let table = value.get_ref().as_table();
        if table.is_none() {
            let fix = format!("write [{name}], and its fields on the lines below");
            let source = self.source(value.span());
            self.problem(name.into(), value.span(), source, "a section".into(), fix);
        }
        table
    }

    fn problem(&mut self, field: String, span: Range<usize>, value: String, rule: String, fix: String) {
        let line = Some(line_at(self.text, span.start));
        self.problems.push(Problem { field, line, value, rule, fix });
    }

    /// As it stands in the file, its first line.
    fn source(&self, span: Range<usize>) -> String {
        let source = self.text.get(span).unwrap_or_default();
        match source.lines().next() {
            Some(first) if first.len() < source.len() => format!("{first} …"),
            _ => source.into(),
        }
    }
}

impl Visitor for Reader<'_> {
    fn section(&mut self, name: &'static str, _: &'static str) {
        let table = self.table_at(name);
        self.enter(name.into(), table);
    }

    fn sections<T: Default>(
        &mut self,
        name: &'static str,
        _: &'static str,
        items: &mut Vec<T>,
        each: fn(&mut T, &mut Self),
    ) {
        self.sections.insert(name);
        let Some(value) = self.document.get(name) else { return };
        self.lines.0.insert(name.into(), line_at(self.text, value.span().start));
        if value.get_ref().as_str() == Some("auto") {
            *items = vec![T::default()];
            return;
        }
        let tables: Option<Vec<_>> =
            value.get_ref().as_array().and_then(|array| array.iter().map(|item| item.get_ref().as_table()).collect());
        let Some(tables) = tables else {
            let source = if value.get_ref().is_table() { String::new() } else { self.source(value.span()) };
            let fix = format!("write [[{name}]] before the fields of each");
            return self.problem(name.into(), value.span(), source, format!("one or more [[{name}]] tables"), fix);
        };
        items.clear();
        for (index, table) in tables.into_iter().enumerate() {
            self.enter(format!("{name}[{index}]"), Some(table));
            let mut item = T::default();
            each(&mut item, self);
            items.push(item);
        }
        self.enter(String::new(), None);
    }

    fn field<T, R: Rule<T>>(&mut self, name: &'static str, value: &mut T, rule: R, _: &'static str) {
        self.seen.insert(name);
        let Some(found) = self.table.and_then(|table| table.get(name)) else { return };
        let field = format!("{}.{name}", self.prefix);
        self.lines.0.insert(field.clone(), line_at(self.text, found.span().start));
        match rule.read(found.get_ref()) {
            Ok(read) => *value = read,
            Err(fix) => {
                let example = rule.write(value).unwrap_or_else(|| rule.shown());
                let fix = fix.unwrap_or_else(|| format!("write, for example, {example}"));
                self.problem(field, found.span(), self.source(found.span()), rule.text(), fix);
            }
        }
    }
}

/// The names of all sections and fields.
#[derive(Default)]
struct Known(Vec<(&'static str, Vec<&'static str>)>);

impl Known {
    fn sections(&self) -> Vec<&'static str> {
        self.0.iter().map(|(section, _)| *section).collect()
    }

    fn fields_of(&self, section: &str) -> Vec<&'static str> {
        self.0.iter().find(|(name, _)| *name == section).map(|(_, fields)| fields.clone()).unwrap_or_default()
    }

    fn section_with(&self, field: &str) -> Option<&'static str> {
        self.0.iter().find(|(_, fields)| fields.contains(&field)).map(|(section, _)| *section)
    }
}

impl Visitor for Known {
    fn section(&mut self, name: &'static str, _: &'static str) {
        self.0.push((name, Vec::new()));
    }

    fn sections<T: Default>(
        &mut self,
        name: &'static str,
        about: &'static str,
        _: &mut Vec<T>,
        each: fn(&mut T, &mut Self),
    ) {
        self.section(name, about);
        each(&mut T::default(), self);
    }

    fn field<T, R: Rule<T>>(&mut self, name: &'static str, _: &mut T, _: R, _: &'static str) {
        self.0.last_mut().expect("a field follows its section").1.push(name);
    }
}
