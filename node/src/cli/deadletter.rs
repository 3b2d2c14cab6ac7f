//! `deadletter`: what a node could not deliver.

use ringhold_cluster::wire::{ActorType, DeadLetter, LetterFilter, LettersDone};
use ringhold_kernels::id::{ActorId, TypeId};
use ringhold_kernels::json::{self, TypeNames};
use ringhold_kernels::message::Reason;
use ringhold_kernels::schema::Schema;
use ringhold_kernels::suggest;
use serde_json::{Value, json};

use super::actor::find;
use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table, counted, number, utc};
use super::status::{reason_text, reason_word};
use super::{DeadLetterCommand, Globals, LetterArgs, WhichLetters};

pub fn run(command: &DeadLetterCommand, globals: &Globals, output: Output) -> Result<u8, Failure> {
    match command {
        DeadLetterCommand::List { which, limit } => list(globals, which, *limit, output),
        DeadLetterCommand::Show { number } => show(globals, *number, output),
        DeadLetterCommand::Retry(args) => handle(globals, args, Do::Retry, output),
        DeadLetterCommand::Drop(args) => handle(globals, args, Do::Drop, output),
    }
}

fn list(globals: &Globals, which: &WhichLetters, limit: u32, output: Output) -> Result<u8, Failure> {
    let reason = reason(which)?;
    connect::run(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let found = node.dead_letters(filter(which, reason, &types)?, limit).await?;
        let letters: Vec<Letter> = found.letters.iter().map(|letter| Letter::new(letter, &types)).collect();
        let json: Vec<&Value> = letters.iter().map(|letter| &letter.json).collect();
        output.result(json!({"matching": found.matching, "letters": json}), || list_text(&letters, found.matching));
        Ok(exit::OK)
    })
}

fn show(globals: &Globals, number: u64, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let filter = LetterFilter { numbers: Some(vec![number]), ..LetterFilter::default() };
        let found = node.dead_letters(filter, 1).await?;
        let Some(letter) = found.letters.first() else {
            return Err(Failure::new(
                exit::FAILED,
                format!("no dead letter {number} is kept: see `ringhold deadletter list`"),
            ));
        };
        let shown = Letter::new(letter, &types);
        output.result(&shown.json, || shown.text(letter));
        Ok(exit::OK)
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Do {
    Retry,
    Drop,
}

fn handle(globals: &Globals, args: &LetterArgs, what: Do, output: Output) -> Result<u8, Failure> {
    let which = &args.which;
    if args.numbers.is_empty() && which.to_type.is_none() && which.reason.is_none() && !args.all {
        return Err(Failure::usage("say which: their numbers, --type, --reason, or --all of them"));
    }
    let reason = reason(which)?;
    connect::run(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let mut filter = filter(which, reason, &types)?;
        if !args.numbers.is_empty() {
            let mut numbers = args.numbers.clone();
            numbers.sort_unstable();
            numbers.dedup();
            filter.numbers = Some(numbers);
        }
        let found = node.dead_letters(filter.clone(), 0).await?;
        // What comes after the look has not been asked about.
        let Some(newest) = found.newest else {
            return Err(Failure::new(exit::FAILED, "no such dead letter is kept: see `ringhold deadletter list`"));
        };
        filter.newest = Some(newest);
        let wanted = filter.numbers.as_ref().map_or(found.matching, |numbers| numbers.len() as u64);
        if !args.yes {
            let letters = counted(found.matching, "dead letter");
            match what {
                Do::Retry => output.confirm(&format!("{letters} would be sent again"), "Send them?")?,
                Do::Drop => output.confirm(&format!("{letters} would be forgotten for good"), "Drop them?")?,
            }
        }
        let done = match what {
            Do::Retry => node.retry_dead_letters(filter).await?,
            Do::Drop => node.drop_dead_letters(filter).await?,
        };
        let missing = wanted - found.matching.min(wanted);
        let left: u64 = done.left.iter().map(|(_, count)| count).sum();
        let reasons = done.left.iter().map(|(reason, count)| (reason_word(*reason), json!(count)));
        let word = if what == Do::Retry { "retried" } else { "dropped" };
        let json = json!({
            word: done.done,
            "matching": done.matching,
            "not_kept": missing,
            "left": Value::Object(reasons.collect()),
        });
        output.result(json, || done_text(word, &done, missing));
        Ok(if left + missing == 0 { exit::OK } else { exit::FAILED })
    })
}

fn done_text(word: &str, done: &LettersDone, missing: u64) -> String {
    let mut text = format!("{} {word}\n", counted(done.done, "dead letter"));
    for (reason, count) in &done.left {
        text.push_str(&format!("{} left where they were: {}\n", number(*count), reason_text(*reason)));
    }
    if missing > 0 {
        text.push_str(&format!("{} of those numbers not kept\n", number(missing)));
    }
    text
}

/// The reason by its word.
fn reason(which: &WhichLetters) -> Result<Option<u8>, Failure> {
    let Some(word) = &which.reason else { return Ok(None) };
    let words: Vec<(u8, String)> = Reason::ALL.map(|reason| (reason as u8, reason_word(reason as u8))).into();
    let asked = word.to_ascii_lowercase().replace('-', "_");
    match words.iter().find(|(_, known)| *known == asked) {
        Some((number, _)) => Ok(Some(*number)),
        None => {
            let words = words.iter().map(|(_, word)| word.as_str());
            let near = suggest::nearest(&asked, words.clone());
            let near = near.map_or(".".to_owned(), |near| format!("; did you mean `{near}`?"));
            Err(Failure::usage(format!("there is no reason `{word}`{near} There are {}", suggest::list(words))))
        }
    }
}

fn filter(which: &WhichLetters, reason: Option<u8>, types: &[ActorType]) -> Result<LetterFilter, Failure> {
    let to_type = match &which.to_type {
        None => None,
        // As a type is called that nobody knows the name of.
        Some(name) => Some(match name.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
            Some(id) => TypeId(id),
            None => find(types, name)?.type_id,
        }),
    };
    Ok(LetterFilter { to_type, reason, ..LetterFilter::default() })
}

/// A dead letter as far as its actor type's schema tells.
struct Letter {
    json: Value,
    from: String,
    to: String,
    /// The message, or how many bytes it has.
    message: String,
    row: [String; 6],
}

impl Letter {
    fn new(letter: &DeadLetter, types: &[ActorType]) -> Letter {
        let names = TypeNames::new(types.iter().map(|t| t.schema.name.as_str()));
        let schema: Option<&Schema> = types.iter().map(|t| &t.schema).find(|s| s.type_id() == letter.to_type);
        let message = schema.and_then(|schema| json::from_bytes(&schema.message, &letter.payload, &names));
        let hex: String = letter.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = |id: ActorId| match id.is_client() {
            true => "a client".into(),
            false => format!("{} {}", names.name(id.type_id), id.key),
        };
        let json_id = |id: ActorId| match id.is_client() {
            true => Value::Null,
            false => json!({"type": names.name(id.type_id), "key": json::key_to_json(id.key)}),
        };
        let text = message.as_ref().map_or_else(|| counted(letter.payload.len() as u64, "byte"), Value::to_string);
        let history = letter.history.iter().map(|s| json!({"at_us": s.at_us, "host": s.term, "how": s.how}));
        let (from, to) = (id(letter.from()), id(letter.to()));
        Letter {
            json: json!({
                "number": letter.number,
                "at_us": letter.at_us,
                "sent_us": letter.hlc.us(),
                "reason": reason_word(letter.reason),
                "device": letter.device,
                "to": json_id(letter.to()),
                "from": json_id(letter.from()),
                "message": message,
                "payload": hex,
                "history": history.collect::<Vec<Value>>(),
            }),
            row: [
                letter.number.to_string(),
                utc(letter.at_us),
                from.clone(),
                to.clone(),
                text.clone(),
                reason_text(letter.reason),
            ],
            from,
            to,
            message: text,
        }
    }

    fn text(&self, letter: &DeadLetter) -> String {
        let mut facts = Table::new(["", ""]);
        let mut fact = |name: &str, value: String| facts.row([name.into(), value]);
        fact("number", letter.number.to_string());
        fact("to", self.to.clone());
        fact("from", self.from.clone());
        fact("why", reason_text(letter.reason));
        fact("given up", format!("{} UTC{}", utc(letter.at_us), on(&letter.device)));
        fact("admitted", format!("{} UTC", utc(letter.hlc.us())));
        fact("message", self.message.clone());
        fact("payload", self.json["payload"].as_str().unwrap_or_default().into());
        let facts = facts.text();
        let mut text = facts.split_once('\n').map_or(String::new(), |(_, rows)| rows.into());
        if !letter.history.is_empty() {
            let mut table = Table::new(["TIME (UTC)", ">HOST", "WHAT IT CAME TO"]);
            for strike in &letter.history {
                table.row([utc(strike.at_us), strike.term.to_string(), strike.how.clone()]);
            }
            text.push_str(&format!("\nthe device hosts that it ended\n{}", table.text()));
        }
        text
    }
}

fn on(device: &str) -> String {
    if device.is_empty() { String::new() } else { format!(", by {device}") }
}

fn list_text(letters: &[Letter], matching: u64) -> String {
    if matching == 0 {
        return "no dead letters are kept\n".into();
    }
    let mut table = Table::new([">NUMBER", "TIME (UTC)", "FROM", "TO", "MESSAGE", "WHY"]);
    for letter in letters {
        table.row(letter.row.clone());
    }
    let more = matching.saturating_sub(letters.len() as u64);
    let more = if more == 0 { String::new() } else { format!("… and {} older ones\n", number(more)) };
    format!("{}{more}", table.text())
}
