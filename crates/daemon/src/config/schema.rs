//! The config file as a JSON schema, for editors that complete and check TOML: what [`super::keys`] says, in JSON.
//!
//! A test holds `configs/schema.json` to it.

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::keys::{Absent, INTERFACE, Key, KeyTable, Shape, TOP, tables};

/// The JSON schema of the config file. Ends in a newline.
pub fn schema() -> String {
    let mut schema = object(&TOP);
    let definitions: Map<_, _> = tables().map(|(key, table)| (definition(key), object(table).into())).collect();
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "overlay config",
        "description": "The config of one overlay interface.",
        "$defs": definitions,
    });
    schema.extend(members(head));
    schema.extend(members(modes()));
    // In the order that people read schemas in.
    let mut text = serde_json::to_string_pretty(&Schema::from(schema)).expect("a schema is JSON");
    text.push('\n');
    text
}

/// What static mode requires and agent mode refuses: the keys of `[interface]` that come from the identity there.
fn modes() -> Value {
    let of_static_mode = |table: &KeyTable| {
        let keys = table.keys.iter().filter(|key| matches!(key.default, Absent::RequiredInStaticMode(_)));
        keys.map(|key| key.name).collect::<Vec<_>>()
    };
    let keys = of_static_mode(&INTERFACE);
    let any: Vec<_> = keys.iter().map(|key| json!({ "required": [key] })).collect();
    json!({
        "if": { "required": ["agent"] },
        "then": { "properties": { "interface": { "not": { "anyOf": any } } } },
        "else": {
            "required": of_static_mode(&TOP),
            "properties": { "interface": { "required": keys }, "trust": false },
        },
    })
}

fn object(table: &KeyTable) -> Map<String, Value> {
    let properties: Map<_, _> = table.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> =
        table.keys.iter().filter(|key| matches!(key.default, Absent::Required(_))).map(|key| key.name).collect();
    let mut object = members(json!({ "type": "object", "properties": properties, "additionalProperties": false }));
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = shape(key);
    let words = match key.default {
        Absent::Required(_) => String::new(),
        Absent::RequiredInStaticMode(_) => " Required in static mode.".to_owned(),
        Absent::Means(words, _) if key.shape.is_a_table() => format!(" Without it: {words}."),
        Absent::Value(words) | Absent::Means(words, _) => format!(" Default: {words}."),
    };
    let values = if key.shape.is_a_table() { String::new() } else { format!(" Values: {}.", key.values) };
    property.insert("description".to_owned(), format!("{}{values}{words}", key.meaning).into());
    property.into()
}

fn shape(key: &Key) -> Map<String, Value> {
    let text = |pattern: Option<&str>| match pattern {
        Some(pattern) => json!({ "type": "string", "pattern": pattern }),
        None => json!({ "type": "string" }),
    };
    let number = |min: u32, max: u32| json!({ "type": "integer", "minimum": min, "maximum": max });
    let words = |words: &[&str]| json!({ "type": "string", "enum": words });
    let reference = || json!({ "$ref": format!("#/$defs/{}", definition(key)) });
    members(match key.shape {
        Shape::Text(pattern) => text(pattern),
        Shape::PublicKey => json!({ "type": "string", "minLength": 44, "maxLength": 44 }),
        Shape::Identity => json!({ "type": "string", "pattern": "^[a-z2-7]{52}$" }),
        // TOML's own dates are not strings, and JSON has no word for them.
        Shape::Moment => json!({}),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number(min, max) => number(min, max),
        Shape::Words(choice) => words(choice),
        Shape::WordsOrNumber(choice, min, max) => json!({ "anyOf": [words(choice), number(min, max)] }),
        Shape::Texts(0, pattern) => json!({ "type": "array", "items": text(pattern) }),
        Shape::Texts(least, pattern) => json!({ "type": "array", "items": text(pattern), "minItems": least }),
        Shape::Table(_) => reference(),
        Shape::Tables(_) => json!({ "type": "array", "items": reference() }),
    })
}

/// The name of a table under `$defs`: `InterfaceTable`.
fn definition(key: &Key) -> String {
    let (initial, rest) = key.name.split_at(1);
    format!("{}{rest}Table", initial.to_ascii_uppercase())
}

/// Those of an object.
fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
