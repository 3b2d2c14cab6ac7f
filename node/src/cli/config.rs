//! `config default`, `config check`.

use std::path::Path;

use serde_json::{Value, json};

use super::Globals;
use super::exit::{self, Failure};
use super::output::Output;
use crate::config::{Config, Error, Overrides};

pub fn default(output: Output) -> Result<u8, Failure> {
    let text = Config::default().to_toml();
    let table: Value = toml::from_str(&text).expect("the printed default is TOML");
    output.result(table, || text);
    Ok(exit::OK)
}

pub fn check(file: Option<&Path>, globals: &Globals, output: Output) -> Result<u8, Failure> {
    let name = file.map(|file| file.display().to_string());
    match Config::load(file, &overrides(globals)) {
        Ok(_) => {
            output.result(json!({"valid": true, "file": name, "problems": []}), || match &name {
                Some(name) => format!("{name}: no errors\n"),
                None => "no file was given; the defaults have no errors on this machine\n".into(),
            });
            Ok(exit::OK)
        }
        // For programs the list is the result, not a failure to make one.
        Err(Error::Invalid(invalid)) if output.json => {
            output.result(json!({"valid": false, "file": name, "problems": invalid.problems}), String::new);
            eprintln!("error: {invalid}");
            Ok(exit::USAGE)
        }
        Err(error) => Err(error.into()),
    }
}

pub fn overrides(globals: &Globals) -> Overrides {
    Overrides { data_dir: globals.data_dir.clone(), listen: None, join: Vec::new() }
}
