//! `actor types`, `actor tell`, `actor ask`, `actor inspect`.

use std::fmt;
use std::io::Read;

use ringhold_cluster::wire::{ActorState, ActorType};
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::json::{self, TypeNames};
use ringhold_kernels::message::payload_bytes_max;
use ringhold_kernels::schema::{Enum, Field, Schema, Type};
use ringhold_kernels::suggest;
use serde_json::{Value, json};

use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table, number};
use super::{ActorArgs, Globals, MessageArgs};

pub fn types(globals: &Globals, name: Option<&str>, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        match name {
            Some(name) => {
                let found = find(&types, name)?;
                output.result(type_json(found), || type_text(found));
            }
            None => output.result(types.iter().map(type_json).collect::<Vec<_>>(), || types_text(&types)),
        }
        Ok(exit::OK)
    })
}

pub fn tell(globals: &Globals, args: &MessageArgs, output: Output) -> Result<u8, Failure> {
    // Before anything is asked of a node: what is wrong with the arguments is wrong without one.
    let (key, message) = (key(&args.actor)?, message(&args.message)?);
    connect::run_with_actors(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let (to, payload) = encode(node, &types, &args.actor, key, &message)?;
        node.tell(to, &payload).await?;
        let sent = json!({"sent": {"type": args.actor.type_name, "key": json::key_to_json(key)}});
        output.result(sent, || format!("sent to {}\n", args.actor));
        Ok(exit::OK)
    })
}

pub fn ask(globals: &Globals, args: &MessageArgs, output: Output) -> Result<u8, Failure> {
    let (key, message) = (key(&args.actor)?, message(&args.message)?);
    connect::run_with_actors(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let (to, payload) = encode(node, &types, &args.actor, key, &message)?;
        let names = names(&types);
        let reply = node.ask(to, &payload, &args.actor.to_string()).await?;
        let schema = &find(&types, &args.actor.type_name)?.schema;
        let reply = json::from_bytes(&schema.reply, &reply, &names).ok_or_else(|| {
            Failure::new(exit::FAILED, format!("the reply's {} bytes are no reply of {}", reply.len(), schema.name))
        })?;
        output.result(&reply, || format!("{reply}\n"));
        Ok(exit::OK)
    })
}

pub fn inspect(globals: &Globals, args: &ActorArgs, output: Output) -> Result<u8, Failure> {
    let key = key(args)?;
    connect::run(globals, async |node: &Connection| {
        let types = node.actor_types().await?;
        let found = find(&types, &args.type_name)?;
        let actor = node.inspect(found.type_id, key).await?;
        let names = names(&types);
        let state = json::from_bytes(&found.schema.state, &actor.state, &names).ok_or_else(|| {
            Failure::new(exit::FAILED, format!("the actor's {} bytes are no state of its type", actor.state.len()))
        })?;
        let value = json!({
            "type": found.schema.name,
            "key": json::key_to_json(key),
            "device": actor.device,
            "worker": actor.worker,
            "handled": actor.handled,
            "faults": actor.faults,
            "state": state,
        });
        output.result(value, || state_text(args, &actor, &state));
        Ok(exit::OK)
    })
}

/// As the user wrote it.
impl fmt::Display for ActorArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.type_name, self.key)
    }
}

fn key(args: &ActorArgs) -> Result<Key, Failure> {
    Key::parse(&args.key).map_err(|why| Failure::usage(format!("the key is none: {why}")))
}

/// The JSON that the argument, or stdin, holds. A bare word is a message without fields.
fn message(argument: &str) -> Result<Value, Failure> {
    let mut text = argument.to_string();
    if argument == "-" {
        text.clear();
        std::io::stdin()
            .take(MESSAGE_TEXT_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|why| Failure::usage(format!("the message cannot be read from stdin: {why}")))?;
    }
    let word = text.trim();
    if word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        return Ok(Value::String(word.into()));
    }
    serde_json::from_str(&text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before: String = line.chars().take(error.column().saturating_sub(1)).map(|_| ' ').collect();
        let hint = "in a shell, put single quotes around it: '{\"Deposit\": {\"cents\": 5}}'";
        Failure::usage(format!("the message is no JSON: {error}\n  {line}\n  {before}^\n{hint}"))
    })
}

/// No message's JSON is longer: it has at most 3,036 bytes in binary.
const MESSAGE_TEXT_BYTES_MAX: u64 = 1 << 20;

pub fn find<'a>(types: &'a [ActorType], name: &str) -> Result<&'a ActorType, Failure> {
    types.iter().find(|t| t.schema.name == name).ok_or_else(|| {
        let known: Vec<&str> = types.iter().map(|t| t.schema.name.as_str()).collect();
        let near = suggest::nearest(name, known.iter().copied());
        let near = near.map_or(".".to_owned(), |near| format!("; did you mean `{near}`?"));
        Failure::usage(format!("the node has no actor type `{name}`{near} It has {}", suggest::list(known)))
    })
}

fn names(types: &[ActorType]) -> TypeNames {
    TypeNames::new(types.iter().map(|t| t.schema.name.as_str()))
}

/// Whom the arguments mean, and the message's bytes.
fn encode(
    node: &Connection,
    types: &[ActorType],
    args: &ActorArgs,
    key: Key,
    message: &Value,
) -> Result<(ActorId, Vec<u8>), Failure> {
    let found = find(types, &args.type_name)?;
    let payload = json::to_bytes(&found.schema.message, message, &names(types)).map_err(|error| {
        let name = &found.schema.name;
        let mut failure = Failure::usage(format!(
            "the message is none of `{name}`: {error}\n`ringhold actor types {name}` shows them"
        ));
        failure.details = Some(json!({
            "path": error.path, "expected": error.expected, "found": error.found, "hint": error.hint,
        }));
        failure
    })?;
    let max = node.payload_bytes_max() as usize;
    if payload.len() > max {
        return Err(Failure::usage(too_large(&found.schema.name, payload.len(), max)));
    }
    Ok((ActorId::new(found.type_id, key), payload))
}

fn too_large(name: &str, bytes: usize, max: usize) -> String {
    let fix = match (6..=12).map(|log2| 1usize << log2).find(|slot| payload_bytes_max(*slot) >= bytes) {
        Some(slot) => format!("set queues.slot_bytes to {slot} in the node's configuration and restart it"),
        None => "no slot is large enough: make the message smaller".into(),
    };
    format!("a message of `{name}` takes {bytes} bytes, and the node's slots take at most {max}: {fix}")
}

fn types_text(types: &[ActorType]) -> String {
    let mut table = Table::new(["TYPE", "ID", "LAYOUT", ">STATE BYTES", ">ACTORS", ">HANDLED", ">FAULTS", "ABOUT"]);
    for found in types {
        table.row([
            found.schema.name.clone(),
            format!("0x{:08x}", found.type_id.0),
            format!("{:016x}", found.layout_hash),
            number(found.schema.state.size() as u64),
            number(found.actors),
            number(found.handled),
            number(found.faults),
            found.schema.about.clone(),
        ]);
    }
    if table.is_empty() { "the node has no actor types: register some in its `main`\n".into() } else { table.text() }
}

fn type_text(found: &ActorType) -> String {
    let schema = &found.schema;
    let mut text = format!("{}: {}\n\nstate, {} bytes\n", schema.name, schema.about, schema.state.size());
    if let Type::Struct(state) = &schema.state {
        text.push_str(&fields_text(&state.fields));
    }
    for (title, ty) in [("messages", &schema.message), ("replies", &schema.reply)] {
        let Type::Enum(e) = ty else { continue };
        text.push_str(&format!("\n{title}, {} bytes\n", e.size));
        for variant in &e.variants {
            text.push_str(&format!("  {}\n", variant.name));
            text.extend(fields_text(&variant.fields).lines().map(|line| format!("  {line}\n")));
        }
    }
    text.push_str("\nto try\n");
    text.extend(
        examples(schema).iter().map(|message| format!("  ringhold actor ask {} KEY '{message}'\n", schema.name)),
    );
    text
}

fn fields_text(fields: &[Field]) -> String {
    fields.iter().map(|field| format!("  {}: {}\n", field.name, type_name(&field.ty))).collect()
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Array(item, length) => format!("[{}; {length}]", type_name(item)),
        Type::Struct(s) => s.name.clone(),
        Type::Enum(Enum { name, .. }) => name.clone(),
        Type::ActorId => "ActorId".into(),
        plain => format!("{plain:?}").to_lowercase(),
    }
}

fn examples(schema: &Schema) -> Vec<String> {
    match &schema.message {
        Type::Enum(messages) => json::examples(messages),
        _ => Vec::new(),
    }
}

fn type_json(found: &ActorType) -> Value {
    let schema = &found.schema;
    json!({
        "name": schema.name,
        "about": schema.about,
        "type_id": format!("0x{:08x}", found.type_id.0),
        "layout_hash": format!("{:016x}", found.layout_hash),
        "state_bytes": schema.state.size(),
        "message_bytes": schema.message.size(),
        "reply_bytes": schema.reply.size(),
        "threads_per_actor": schema.threads_per_actor,
        "actors": found.actors,
        "handled": found.handled,
        "faults": found.faults,
        "state": schema.state,
        "message": schema.message,
        "reply": schema.reply,
        "examples": examples(schema).iter().filter_map(|text| serde_json::from_str(text).ok()).collect::<Vec<Value>>(),
    })
}

fn state_text(args: &ActorArgs, actor: &ActorState, state: &Value) -> String {
    let (handled, faults) = (number(actor.handled), number(actor.faults.into()));
    let head =
        format!("{args} on {} worker {}: {handled} messages handled, {faults} faults\n", actor.device, actor.worker);
    let fields = fields(state);
    if fields.is_empty() { head } else { format!("{head}\n{fields}") }
}

/// A state's fields, one a line; nothing where it has none.
pub fn fields(state: &Value) -> String {
    let mut table = Table::new(["FIELD", "VALUE"]);
    for (name, value) in state.as_object().into_iter().flatten() {
        table.row([name.clone(), value.to_string()]);
    }
    if table.is_empty() { String::new() } else { table.text() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json_or_a_bare_word() {
        assert_eq!(message("Read").unwrap(), json!("Read"));
        assert_eq!(message("\"Read\"").unwrap(), json!("Read"));
        assert_eq!(message(" {\"Add\": {\"n\": 1}} ").unwrap(), json!({"Add": {"n": 1}}));
        let failure = message("{\"Add\": {\"n\": }}").unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
        assert!(failure.message.contains("line 1 column 15"), "{}", failure.message);
        assert!(failure.message.contains("\n                ^\n"), "{}", failure.message);
    }

    #[test]
    fn a_message_too_large_is_told_which_slots_would_take_it() {
        let text = too_large("a.b", 61, 60);
        assert!(text.contains("takes 61 bytes") && text.contains("at most 60"), "{text}");
        assert!(text.contains("queues.slot_bytes to 256"), "{text}");
        assert!(too_large("a.b", 4_000, 60).contains("smaller"));
    }
}
