//! Printing: a file that documents every field and holds these values.

use std::fmt::Write;

use super::rule::Rule;
use super::{Config, Visitor};

const WIDTH: usize = 96;

pub fn print(config: &Config) -> String {
    let mut printer = Printer(String::new());
    printer.comment(
        "The configuration of a Ringhold node. Every field is optional; here each has its default, and those \
         that have none are commented out. Check a file with `ringhold config check FILE`, use it with \
         `ringhold node start --config FILE`.",
    );
    config.clone().visit(&mut printer);
    printer.0
}

struct Printer(String);

impl Printer {
    fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split_whitespace() {
            if line.len() + word.len() >= WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }
}

impl Visitor for Printer {
    fn section(&mut self, name: &'static str, about: &'static str) {
        self.line("");
        self.comment(about);
        self.line(&format!("[{name}]"));
    }

    fn sections<T: Default>(
        &mut self,
        name: &'static str,
        about: &'static str,
        items: &mut Vec<T>,
        each: fn(&mut T, &mut Self),
    ) {
        self.line("");
        self.comment(about);
        for item in items {
            self.line(&format!("[[{name}]]"));
            each(item, self);
        }
    }

    fn field<T, R: Rule<T>>(&mut self, name: &'static str, value: &mut T, rule: R, about: &'static str) {
        self.line("");
        self.comment(about);
        self.comment(&format!("Must be {}.", rule.text()));
        match rule.write(value) {
            Some(value) => self.line(&format!("{name} = {value}")),
            None => self.line(&format!("# {name} = {}", rule.shown())),
        }
    }
}
