//! Messages, replies and states as JSON: what people and scripts write and read.
//!
//! | schema | JSON |
//! |---|---|
//! | integers | a whole number in the type's range; every `u64` and `i64` exactly |
//! | `f32`, `f64` | a number, or `"NaN"`, `"inf"`, `"-inf"` |
//! | `bool` | `true`, `false` |
//! | array | an array of exactly its length |
//! | struct | an object with exactly its fields |
//! | enum | `{"Variant": {fields}}`; `"Variant"` where it has no fields |
//! | actor id | `{"type": "airport", "key": "JFK"}`; the type may be hex (`"0x1a2b3c4d"`), and `null` is no actor |

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Number, Value, json};

use crate::id::{ActorId, Key, TypeId};
use crate::plain::Plain;
use crate::schema::{Enum, Field, Schema, Struct, Type, Variant};
use crate::suggest;

/// Why JSON is no value of a type: the first place where it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Where: `Deposit.cents`, `legs[2].delay`; empty for the whole value.
    pub path: String,
    pub expected: String,
    pub found: String,
    /// What to write instead, where there is a good guess.
    pub hint: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "at {}: ", self.path)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// The actor types that ids may name. Empty knows none: then any name is taken, and ids print their type as hex.
#[derive(Clone, Debug, Default)]
pub struct TypeNames(Vec<String>);

impl TypeNames {
    pub fn new<T: Into<String>>(names: impl IntoIterator<Item = T>) -> TypeNames {
        TypeNames(names.into_iter().map(Into::into).collect())
    }

    pub fn of(schemas: &[Schema]) -> TypeNames {
        TypeNames::new(schemas.iter().map(|schema| schema.name.as_str()))
    }

    /// The registered name, else `0x` and eight hex digits.
    pub fn name(&self, type_id: TypeId) -> String {
        match self.0.iter().find(|name| TypeId::of(name) == type_id) {
            Some(name) => name.clone(),
            None => format!("0x{:08x}", type_id.0),
        }
    }

    /// Reads what [`TypeNames::name`] writes; the error is a hint.
    pub fn parse(&self, text: &str) -> Result<TypeId, String> {
        if let Some(hex) = text.strip_prefix("0x") {
            return u32::from_str_radix(hex, 16)
                .map(TypeId)
                .map_err(|_| "a type id is `0x` and up to eight hex digits".into());
        }
        if self.0.is_empty() || self.0.iter().any(|name| name == text) {
            return Ok(TypeId::of(text));
        }
        Err(suggest::hint(text, self.0.iter().map(String::as_str)))
    }
}

/// A key in the form that [`Key::parse`] reads back as the same key: a name where it packs one, else a number.
pub fn key_to_json(key: Key) -> Value {
    match key_text(key) {
        Some(text) => Value::String(text),
        None => json!(key.0),
    }
}

fn key_text(key: Key) -> Option<String> {
    let name = key.as_name()?;
    // `12` and `hash:x` are names that would be read as something else.
    Some(if Key::parse(&name) == Ok(key) { name } else { format!("name:{name}") })
}

/// The bytes of the value that the JSON describes; padding is zero.
pub fn to_bytes(ty: &Type, value: &Value, names: &TypeNames) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; ty.size()];
    Encoder { names, path: Vec::new() }.value(ty, value, &mut bytes)?;
    Ok(bytes)
}

/// The value as JSON, or `None` where the bytes are no value of the type (see [`Type::accepts`]).
pub fn from_bytes(ty: &Type, bytes: &[u8], names: &TypeNames) -> Option<Value> {
    ty.accepts(bytes).then(|| decode(ty, bytes, names))
}

struct Encoder<'a> {
    names: &'a TypeNames,
    path: Vec<Step<'a>>,
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Encoder<'a> {
    fn value(&mut self, ty: &'a Type, value: &'a Value, to: &mut [u8]) -> Result<(), Error> {
        match ty {
            Type::Bool => match value {
                Value::Bool(b) => to[0] = *b as u8,
                _ => return Err(self.mismatch("true or false", value)),
            },
            Type::U8 => self.integer::<u8>(value, to)?,
            Type::U16 => self.integer::<u16>(value, to)?,
            Type::U32 => self.integer::<u32>(value, to)?,
            Type::U64 => self.integer::<u64>(value, to)?,
            Type::I8 => self.integer::<i8>(value, to)?,
            Type::I16 => self.integer::<i16>(value, to)?,
            Type::I32 => self.integer::<i32>(value, to)?,
            Type::I64 => self.integer::<i64>(value, to)?,
            Type::F32 => self.f32(value, to)?,
            Type::F64 => put(self.float("f64", value)?, to),
            Type::ActorId => put(self.actor_id(value)?, to),
            Type::Array(item, length) => self.array(item, *length as usize, value, to)?,
            Type::Struct(s) => self.fields(&s.fields, &format!("an object, the struct {}", s.name), value, to)?,
            Type::Enum(e) => self.variant(e, value, to)?,
        }
        Ok(())
    }

    fn at<T>(&mut self, step: Step<'a>, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.path.push(step);
        let result = run(self);
        self.path.pop();
        result
    }

    fn integer<T: Integer>(&self, value: &Value, to: &mut [u8]) -> Result<(), Error> {
        let number = match value {
            Value::Number(n) => n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)),
            _ => None,
        };
        match number.and_then(|n| T::try_from(n).ok()) {
            Some(integer) => put(integer, to),
            None => {
                let error =
                    self.mismatch(&format!("a whole number from {} to {} ({})", T::MIN, T::MAX, T::NAME), value);
                let bare = value.as_str().filter(|text| text.parse().is_ok_and(|n: i128| T::try_from(n).is_ok()));
                return Err(match bare {
                    Some(text) => error.hint(format!("write {text} without quotes")),
                    None => error,
                });
            }
        }
        Ok(())
    }

    fn float(&self, name: &str, value: &Value) -> Result<f64, Error> {
        let float = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        };
        float.ok_or_else(|| self.mismatch(&format!("a number, \"NaN\", \"inf\" or \"-inf\" ({name})"), value))
    }

    fn f32(&self, value: &Value, to: &mut [u8]) -> Result<(), Error> {
        let wide = self.float("f32", value)?;
        let float = wide as f32;
        if float.is_infinite() && wide.is_finite() {
            return Err(self.mismatch(&format!("a number from {:e} to {:e} (f32)", f32::MIN, f32::MAX), value));
        }
        put(float, to);
        Ok(())
    }

    fn actor_id(&mut self, value: &'a Value) -> Result<ActorId, Error> {
        const EXPECTED: &str = "an actor id, {\"type\": …, \"key\": …}";
        let Value::Object(object) = value else {
            return if value.is_null() { Ok(ActorId::default()) } else { Err(self.mismatch(EXPECTED, value)) };
        };
        if let Some(name) = object.keys().find(|name| !["type", "key"].contains(&name.as_str())) {
            return Err(self.error(EXPECTED, format!("the field `{name}`")).hint(suggest::hint(name, ["type", "key"])));
        }
        let (Some(type_name), Some(key)) = (object.get("type"), object.get("key")) else {
            let missing = if object.contains_key("type") { "key" } else { "type" };
            return Err(self.error(EXPECTED, format!("no `{missing}`")));
        };
        let type_id = self.at(Step::Name("type"), |this| match type_name {
            Value::Null => Ok(TypeId::CLIENT),
            Value::String(text) => this.names.parse(text).map_err(|hint| {
                this.mismatch("an actor type's name, or its id as hex (\"0x1a2b3c4d\")", type_name).hint(hint)
            }),
            _ => Err(this.mismatch("an actor type's name, or its id as hex (\"0x1a2b3c4d\")", type_name)),
        })?;
        let key = self.at(Step::Name("key"), |this| {
            let expected = "a key: a whole number from 0, or text";
            match key {
                Value::Number(n) => n.as_u64().map(Key).ok_or_else(|| this.mismatch(expected, key)),
                Value::String(text) => Key::parse(text).map_err(|hint| this.mismatch(expected, key).hint(hint)),
                _ => Err(this.mismatch(expected, key)),
            }
        })?;
        Ok(ActorId::new(type_id, key))
    }

    fn array(&mut self, item: &'a Type, length: usize, value: &'a Value, to: &mut [u8]) -> Result<(), Error> {
        let items = match value {
            Value::Array(items) => items,
            _ => return Err(self.mismatch(&format!("an array of {length} items"), value)),
        };
        if items.len() != length {
            return Err(self.error(&format!("an array of {length} items"), format!("one of {}", items.len())));
        }
        for (i, value) in items.iter().enumerate() {
            let to = &mut to[i * item.size()..];
            self.at(Step::Index(i), |this| this.value(item, value, to))?;
        }
        Ok(())
    }

    fn fields(&mut self, fields: &'a [Field], what: &str, value: &'a Value, to: &mut [u8]) -> Result<(), Error> {
        let names = || fields.iter().map(|field| field.name.as_str());
        let Value::Object(object) = value else { return Err(self.mismatch(what, value)) };
        let missing = || names().filter(|name| !object.contains_key(*name));
        if let Some(name) = object.keys().find(|name| !names().any(|known| known == name.as_str())) {
            // A field that is there already is not what was meant.
            let hint = match missing().next() {
                Some(_) => suggest::hint(name, missing().collect::<Vec<_>>()),
                None => format!("known: {}", suggest::list(names())),
            };
            return Err(self.error(what, format!("the unknown field `{name}`")).hint(hint));
        }
        if let Some(name) = missing().next() {
            let also = missing().skip(1).map(|name| format!(", nor `{name}`")).collect::<String>();
            return Err(self.error(what, format!("no field `{name}`{also}")));
        }
        for field in fields {
            let to = &mut to[field.offset as usize..];
            self.at(Step::Name(&field.name), |this| this.value(&field.ty, &object[&field.name], to))?;
        }
        Ok(())
    }

    fn variant(&mut self, e: &'a Enum, value: &'a Value, to: &mut [u8]) -> Result<(), Error> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
        let what = format!("a {}: one of {}", e.name, suggest::list(e.variants.iter().map(|v| v.name.as_str())));
        let (name, fields) = match value {
            Value::String(name) => (name, None),
            Value::Object(object) => match object.iter().next() {
                Some((name, fields)) if object.len() == 1 => (name, Some(fields)),
                _ => return Err(self.error(&what, format!("an object with {} fields", object.len())).hint(example(e))),
            },
            _ => return Err(self.mismatch(&what, value).hint(example(e))),
        };
        let Some(tag) = e.variants.iter().position(|variant| variant.name == *name) else {
            let near = suggest::nearest(name, e.variants.iter().map(|v| v.name.as_str()));
            let error = self.error(&what, format!("`{name}`"));
            return Err(match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        };
        put(tag as u32, to);
        let variant = &e.variants[tag];
        if fields.is_none() && !variant.fields.is_empty() {
            let hint = format!("write {}", variant_example(variant));
            return Err(self.error(&format!("`{name}` with its fields"), format!("\"{name}\" alone")).hint(hint));
        }
        let what = match variant.fields.as_slice() {
            [] => format!("an empty object, {name} has no fields"),
            fields => format!("an object with {name}'s {}", suggest::list(fields.iter().map(|f| f.name.as_str()))),
        };
        self.at(Step::Name(&variant.name), |this| this.fields(&variant.fields, &what, fields.unwrap_or(&EMPTY), to))
    }

    fn mismatch(&self, expected: &str, found: &Value) -> Error {
        self.error(expected, shortened(found))
    }

    fn error(&self, expected: &str, found: String) -> Error {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) if path.is_empty() => path.push_str(name),
                Step::Name(name) => path.extend([".", name]),
                Step::Index(i) => path.push_str(&format!("[{i}]")),
            }
        }
        Error { path, expected: expected.into(), found, hint: None }
    }
}

impl Error {
    fn hint(self, hint: String) -> Error {
        Error { hint: Some(hint), ..self }
    }
}

/// What was found, short enough for a line.
fn shortened(value: &Value) -> String {
    match value {
        Value::Object(object) if object.is_empty() => "an empty object".into(),
        Value::Object(object) => format!("an object with {}", suggest::list(object.keys().map(String::as_str))),
        Value::Array(items) => format!("an array of {} items", items.len()),
        Value::String(text) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>())
        }
        other => other.to_string(),
    }
}

fn example(e: &Enum) -> String {
    e.variants.first().map_or(String::new(), |variant| format!("write, for example, {}", variant_example(variant)))
}

/// A value of the variant as someone would write it: what each field wants in place of its value.
fn variant_example(variant: &Variant) -> String {
    if variant.fields.is_empty() {
        return format!("\"{}\"", variant.name);
    }
    let fields: Vec<String> =
        variant.fields.iter().map(|f| format!("\"{}\": {}", f.name, placeholder(&f.ty))).collect();
    format!("{{\"{}\": {{{}}}}}", variant.name, fields.join(", "))
}

/// Every message of an enum type as JSON to copy and change, zeros for values.
pub fn examples(e: &Enum) -> Vec<String> {
    e.variants.iter().map(variant_example).collect()
}

fn placeholder(ty: &Type) -> String {
    match ty {
        Type::Bool => "false".into(),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 => "0".into(),
        Type::F32 | Type::F64 => "0.0".into(),
        Type::ActorId => "{\"type\": \"TYPE\", \"key\": 0}".into(),
        Type::Array(item, length) => format!("[{}]", vec![placeholder(item); *length as usize].join(", ")),
        Type::Struct(s) => {
            let fields: Vec<String> =
                s.fields.iter().map(|f| format!("\"{}\": {}", f.name, placeholder(&f.ty))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Type::Enum(e) => e.variants.first().map_or("null".into(), variant_example),
    }
}

fn decode(ty: &Type, bytes: &[u8], names: &TypeNames) -> Value {
    match ty {
        Type::Bool => Value::Bool(bytes[0] == 1),
        Type::U8 => json!(get::<u8>(bytes)),
        Type::U16 => json!(get::<u16>(bytes)),
        Type::U32 => json!(get::<u32>(bytes)),
        Type::U64 => json!(get::<u64>(bytes)),
        Type::I8 => json!(get::<i8>(bytes)),
        Type::I16 => json!(get::<i16>(bytes)),
        Type::I32 => json!(get::<i32>(bytes)),
        Type::I64 => json!(get::<i64>(bytes)),
        Type::F32 => decode_f32(get(bytes)),
        Type::F64 => decode_f64(get(bytes)),
        Type::ActorId => decode_actor_id(get(bytes), names),
        Type::Array(item, length) => {
            (0..*length as usize).map(|i| decode(item, &bytes[i * item.size()..], names)).collect()
        }
        Type::Struct(Struct { fields, .. }) => decode_fields(fields, bytes, names),
        Type::Enum(e) => {
            let variant = &e.variants[get::<u32>(bytes) as usize];
            match variant.fields.as_slice() {
                [] => Value::String(variant.name.clone()),
                fields => Value::Object(Map::from_iter([(variant.name.clone(), decode_fields(fields, bytes, names))])),
            }
        }
    }
}

fn decode_fields(fields: &[Field], bytes: &[u8], names: &TypeNames) -> Value {
    let field = |f: &Field| (f.name.clone(), decode(&f.ty, &bytes[f.offset as usize..], names));
    Value::Object(fields.iter().map(field).collect())
}

fn decode_actor_id(id: ActorId, names: &TypeNames) -> Value {
    if id == ActorId::default() {
        return Value::Null;
    }
    let type_name = if id.is_client() { Value::Null } else { Value::String(names.name(id.type_id)) };
    json!({"type": type_name, "key": key_to_json(id.key)})
}

fn decode_f64(float: f64) -> Value {
    match Number::from_f64(float) {
        Some(number) => Value::Number(number),
        None if float.is_nan() => json!("NaN"),
        None => json!(if float > 0.0 { "inf" } else { "-inf" }),
    }
}

/// 0.1 rather than 0.10000000149011612: the shortest decimal that is this f32.
fn decode_f32(float: f32) -> Value {
    let shortest: f64 = format!("{float:?}").parse().expect("a float prints as one");
    // Rounding twice (decimal to f64 to f32) can, rarely, miss by one.
    decode_f64(if shortest as f32 == float { shortest } else { f64::from(float) })
}

trait Integer: Plain + TryFrom<i128> + fmt::Display {
    const NAME: &str;
    const MIN: Self;
    const MAX: Self;
}

macro_rules! integer {
    ($($ty:ident)*) => {$(
        impl Integer for $ty {
            const NAME: &str = stringify!($ty);
            const MIN: $ty = $ty::MIN;
            const MAX: $ty = $ty::MAX;
        }
    )*};
}
integer!(u8 u16 u32 u64 i8 i16 i32 i64);

fn put<T: Plain>(value: T, to: &mut [u8]) {
    let to = &mut to[..T::SIZE];
    // SAFETY: the slice has SIZE bytes.
    unsafe { value.write(to.as_mut_ptr()) }
}

fn get<T: Plain>(from: &[u8]) -> T {
    T::from_bytes(from).expect("accepted bytes hold a value of every part")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, offset: u32, ty: Type) -> Field {
        Field { name: name.into(), offset, ty }
    }

    fn message() -> Type {
        let variant = |name: &str, fields| Variant { name: name.into(), fields };
        Type::Enum(Enum {
            name: "Message".into(),
            size: 32,
            align: 8,
            variants: vec![
                variant("Deposit", vec![field("cents", 8, Type::I64)]),
                variant("Link", vec![field("to", 8, Type::ActorId), field("weight", 24, Type::F32)]),
                variant("Read", vec![]),
                variant("Legs", vec![field("legs", 4, Type::Array(Box::new(Type::U8), 3))]),
            ],
        })
    }

    fn names() -> TypeNames {
        TypeNames::new(["airport", "carrier"])
    }

    fn encode(text: &str) -> Result<Vec<u8>, Error> {
        to_bytes(&message(), &serde_json::from_str(text).unwrap(), &names())
    }

    fn says(text: &str, error: &str) {
        assert_eq!(encode(text).unwrap_err().to_string(), error, "{text}");
    }

    #[test]
    fn messages_are_written_at_their_offsets() {
        let bytes = encode(r#"{"Deposit": {"cents": -5}}"#).unwrap();
        assert_eq!((&bytes[..4], &bytes[8..16]), (&[0u8; 4][..], &(-5i64).to_le_bytes()[..]));
        assert_eq!(encode("\"Read\"").unwrap()[0], 2);
        assert_eq!(encode("\"Read\""), encode("{\"Read\": {}}"));
        let link = encode(r#"{"Link": {"to": {"type": "airport", "key": "JFK"}, "weight": 0.1}}"#).unwrap();
        let to = ActorId::from_bytes(&link[8..]).unwrap();
        assert_eq!(to, ActorId::new(TypeId::of("airport"), Key::name("JFK").unwrap()));
        assert_eq!(link[24..28], 0.1f32.to_le_bytes());
        assert_eq!(encode(r#"{"Link": {"to": null, "weight": "NaN"}}"#).unwrap()[8..24], [0; 16]);
    }

    #[test]
    fn mistyped_json_is_told_where_what_and_how() {
        says(
            r#"{"Deposit": {"cents": "5"}}"#,
            "at Deposit.cents: expected a whole number from -9223372036854775808 to 9223372036854775807 (i64), \
             found \"5\"; write 5 without quotes",
        );
        says(
            r#"{"Deposit": {"cent": 5}}"#,
            "at Deposit: expected an object with Deposit's cents, found the unknown field `cent`; did you mean `cents`?",
        );
        says(
            r#"{"Deposit": {"cents": 5, "currency": 1}}"#,
            "at Deposit: expected an object with Deposit's cents, found the unknown field `currency`; known: cents",
        );
        says(
            r#"{"Link": {}}"#,
            "at Link: expected an object with Link's to, weight, found no field `to`, nor `weight`",
        );
        says(
            r#""Deposit""#,
            "expected `Deposit` with its fields, found \"Deposit\" alone; write {\"Deposit\": {\"cents\": 0}}",
        );
        says(
            r#"{"deposit": {"cents": 5}}"#,
            "expected a Message: one of Deposit, Link, Read, Legs, found `deposit`; did you mean `Deposit`?",
        );
        says(
            r#"{"Deposit": {}, "Read": {}}"#,
            "expected a Message: one of Deposit, Link, Read, Legs, found an object with 2 fields; \
             write, for example, {\"Deposit\": {\"cents\": 0}}",
        );
        says(
            r#"{"Read": {"x": 1}}"#,
            "at Read: expected an empty object, Read has no fields, found the unknown field `x`; known: none",
        );
        says(
            r#"{"Legs": {"legs": [1, 2, 256]}}"#,
            "at Legs.legs[2]: expected a whole number from 0 to 255 (u8), found 256",
        );
        says(r#"{"Legs": {"legs": [1, 2]}}"#, "at Legs.legs: expected an array of 3 items, found one of 2");
        says(
            r#"{"Link": {"to": {"type": "airprt", "key": 1}, "weight": 0}}"#,
            "at Link.to.type: expected an actor type's name, or its id as hex (\"0x1a2b3c4d\"), found \"airprt\"; \
             did you mean `airport`?",
        );
        says(
            r#"{"Link": {"to": null, "weight": 1e39}}"#,
            "at Link.weight: expected a number from -3.4028235e38 to 3.4028235e38 (f32), found 1e+39",
        );
    }

    #[test]
    fn the_ends_of_each_integer_fit_and_the_next_numbers_do_not() {
        let ends: [(Type, i128, i128); 8] = [
            (Type::U8, 0, u8::MAX.into()),
            (Type::U16, 0, u16::MAX.into()),
            (Type::U32, 0, u32::MAX.into()),
            (Type::U64, 0, u64::MAX.into()),
            (Type::I8, i8::MIN.into(), i8::MAX.into()),
            (Type::I16, i16::MIN.into(), i16::MAX.into()),
            (Type::I32, i32::MIN.into(), i32::MAX.into()),
            (Type::I64, i64::MIN.into(), i64::MAX.into()),
        ];
        for (ty, low, high) in ends {
            for (number, fits) in [(low, true), (high, true), (low - 1, false), (high + 1, false)] {
                let value: Value = serde_json::from_str(&number.to_string()).unwrap();
                let bytes = to_bytes(&ty, &value, &TypeNames::default());
                assert_eq!(bytes.is_ok(), fits, "{ty:?} {number}");
                if let Ok(bytes) = bytes {
                    assert_eq!(from_bytes(&ty, &bytes, &TypeNames::default()).unwrap().to_string(), number.to_string());
                }
            }
        }
    }

    #[test]
    fn keys_read_back_as_themselves() {
        for text in ["JFK", "12", "name:abc", "hash:abc", "7", "with sp"] {
            for key in Key::name(text).into_iter().chain([Key(0), Key(u64::MAX), Key::hashed(text)]) {
                let read = match key_to_json(key) {
                    Value::String(text) => Key::parse(&text).unwrap(),
                    number => Key(number.as_u64().unwrap()),
                };
                assert_eq!(read, key);
            }
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.next() % n
        }

        fn fields(&mut self, depth: u32, start: u32) -> (Vec<Field>, u32) {
            let mut end = start;
            let fields = (0..self.below(4)).map(|i| {
                let ty = self.ty(depth);
                // Gaps are padding: the values must not depend on how it is aligned.
                let offset = end + self.below(5) as u32;
                end = offset + ty.size() as u32;
                field(&format!("f{i}"), offset, ty)
            });
            (fields.collect(), end)
        }

        fn ty(&mut self, depth: u32) -> Type {
            use Type::*;
            match self.below(if depth == 0 { 12 } else { 15 }) {
                12 => Array(Box::new(self.ty(depth - 1)), self.below(4) as u32),
                13 => {
                    let (fields, size) = self.fields(depth - 1, 0);
                    Struct(self::Struct { name: "S".into(), size, align: 1, fields })
                }
                14 => {
                    let mut size = 4;
                    let variants = (0..=self.below(3)).map(|i| {
                        let (fields, end) = self.fields(depth - 1, 4);
                        size = size.max(end);
                        Variant { name: format!("V{i}"), fields }
                    });
                    let variants = variants.collect();
                    Enum(self::Enum { name: "E".into(), size, align: 1, variants })
                }
                n => [Bool, U8, U16, U32, U64, I8, I16, I32, I64, F32, F64, ActorId][n as usize].clone(),
            }
        }

        /// Any bits a value can have; floats are often NaN, infinite or subnormal.
        fn bytes(&mut self, ty: &Type, to: &mut [u8]) {
            let any = self.next();
            match ty {
                Type::Bool => to[0] = (any & 1) as u8,
                Type::F32 => put(f32::from_bits([any as u32, 0x7f80_0000, 1, 0x8000_0000][self.below(4) as usize]), to),
                Type::F64 => put(f64::from_bits([any, 0x7ff0 << 48, 1, 1 << 63][self.below(4) as usize]), to),
                Type::ActorId => {
                    let key = if any & 1 == 0 { Key(any) } else { Key::name(&(any % 10_000).to_string()).unwrap() };
                    let types = [TypeId::of("airport"), TypeId(any as u32), TypeId::CLIENT];
                    put(self::ActorId::new(types[self.below(3) as usize], key), to);
                }
                Type::Array(item, n) => (0..*n as usize).for_each(|i| self.bytes(item, &mut to[i * item.size()..])),
                Type::Struct(s) => s.fields.iter().for_each(|f| self.bytes(&f.ty, &mut to[f.offset as usize..])),
                Type::Enum(e) => {
                    let tag = self.below(e.variants.len() as u64);
                    put(tag as u32, to);
                    for f in &e.variants[tag as usize].fields {
                        self.bytes(&f.ty, &mut to[f.offset as usize..]);
                    }
                }
                _ => to[..ty.size()].copy_from_slice(&any.to_le_bytes()[..ty.size()]),
            }
        }
    }

    #[test]
    fn random_values_of_random_types_survive_json_text() {
        let mut random = Random(2013);
        for case in 0..5_000 {
            let ty = random.ty(3);
            let mut bytes = vec![0; ty.size()];
            random.bytes(&ty, &mut bytes);
            let text = from_bytes(&ty, &bytes, &names()).expect("a value").to_string();
            let back = to_bytes(&ty, &serde_json::from_str(&text).unwrap(), &names());
            assert_eq!(back.as_deref(), Ok(bytes.as_slice()), "case {case}: {text} of {ty:?}");
        }
    }

    #[test]
    fn random_json_never_panics_and_what_it_encodes_is_a_value() {
        fn any(random: &mut Random, depth: u32) -> Value {
            match random.below(if depth == 0 { 5 } else { 7 }) {
                0 => Value::Null,
                1 => json!(random.below(2) == 0),
                2 => json!(random.next() as i64),
                3 => json!(random.next() as f64 / 1e3),
                4 => json!(["V0", "V1", "NaN", "JFK", ""][random.below(5) as usize]),
                5 => (0..random.below(4)).map(|_| any(random, depth - 1)).collect(),
                _ => {
                    let mut object = serde_json::Map::new();
                    for name in ["f0", "f1", "f2", "V0", "type", "key"] {
                        if random.below(2) == 0 {
                            object.insert(name.into(), any(random, depth - 1));
                        }
                    }
                    Value::Object(object)
                }
            }
        }
        let mut random = Random(7);
        for _ in 0..20_000 {
            let ty = random.ty(2);
            let value = any(&mut random, 3);
            if let Ok(bytes) = to_bytes(&ty, &value, &names()) {
                assert!(ty.accepts(&bytes), "{value} of {ty:?}");
            }
        }
    }

    #[test]
    fn every_example_is_a_message() {
        let Type::Enum(e) = message() else { unreachable!("it is an enum") };
        for example in examples(&e) {
            let value = serde_json::from_str(&example).unwrap();
            to_bytes(&message(), &value, &TypeNames::default()).unwrap();
        }
    }
}
