//! The local API as an OpenAPI 3.1 document, for authors of clients: `configs/openapi.json`.
//!
//! The schemas come from the types that are serialised. Which path answers with which type, and what it is for, is not
//! in any type. That is in the table here, and a test requests every row of it from a served API.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::agent::{
    AgentAnswer, AgentsAnswer, ConfirmedAnswer, DecidedAnswer, DecisionsAnswer, HealthAnswer, JoinedAnswer,
    PendingAnswer, RotatedAnswer, VerifiedAnswer,
};
use super::events::MEDIA_TYPE;
use super::explain::{ExplainedAnswer, RulesAnswer};
use super::{Down, GROUP, Reloaded, Version, status_code};
use crate::agent::request::{AgentEvent, Approve, Handshake, Join, Named, RotateKey};
use crate::failure::{ExitKind, FailureBody};
use crate::view::metrics;
use crate::view::{PathStatus, Status};

/// All operations of the API.
pub(super) static OPERATIONS: [Operation; 24] = [
    Operation {
        path: "/v1/status",
        method: "get",
        id: "status",
        takes: Takes::Nothing,
        summary: "The interface, its peers, every drop reason and every counter.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<Status>()),
    },
    Operation {
        path: "/v1/version",
        method: "get",
        id: "version",
        takes: Takes::Nothing,
        summary: "Which version the daemon is.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<Version>()),
    },
    Operation {
        path: "/metrics",
        method: "get",
        id: "metrics",
        takes: Takes::Nothing,
        summary: "What Prometheus scrapes.",
        answer: Answer::Text(metrics::CONTENT_TYPE),
    },
    Operation {
        path: "/v1/reload",
        method: "post",
        id: "reload",
        takes: Takes::Nothing,
        summary: "Reads the config again and applies what changed; a config that is wrong changes nothing.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<Reloaded>()),
    },
    Operation {
        path: "/v1/down",
        method: "post",
        id: "down",
        takes: Takes::Nothing,
        summary: "Takes everything away and ends the daemon. Answered when that has begun.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<Down>()),
    },
    Operation {
        path: "/v1/agent/handshake",
        method: "post",
        id: "handshake",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Handshake>()),
        summary: "Asks a peer for trust.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecidedAnswer>()),
    },
    Operation {
        path: "/v1/agent/approve",
        method: "post",
        id: "approve",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Approve>()),
        summary: "Approves a request, or changes what a trusted peer may open.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecidedAnswer>()),
    },
    Operation {
        path: "/v1/agent/reject",
        method: "post",
        id: "reject",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Named>()),
        summary: "Refuses a request. What a trusted peer has stays.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecidedAnswer>()),
    },
    Operation {
        path: "/v1/agent/untrust",
        method: "post",
        id: "untrust",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Named>()),
        summary: "Takes trust back, or refuses a request.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecidedAnswer>()),
    },
    Operation {
        path: "/v1/agent/key/rotate",
        method: "post",
        id: "rotateKey",
        takes: Takes::Body(|schemas| schemas.subschema_for::<RotateKey>()),
        summary: "Replaces the tunnel key. Answered when the new one is on disk and in force.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<RotatedAnswer>()),
    },
    Operation {
        path: "/v1/agent/join",
        method: "post",
        id: "join",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Join>()),
        summary: "Takes a join token that was bound to this agent. Answered when it is on disk; the record with it is registered then.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<JoinedAnswer>()),
    },
    Operation {
        path: "/v1/agent/pending",
        method: "get",
        id: "pending",
        takes: Takes::Nothing,
        summary: "The requests that wait for a decision. A reason may hold any character.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<PendingAnswer>()),
    },
    Operation {
        path: "/v1/agent/peers",
        method: "get",
        id: "peers",
        takes: Takes::Nothing,
        summary: "This agent and its peers.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<AgentAnswer>()),
    },
    Operation {
        path: "/v1/agent/health",
        method: "get",
        id: "health",
        takes: Takes::Nothing,
        summary: "The connection, the clock, and why there is no tunnel to a peer: what `overlay doctor` judges.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<HealthAnswer>()),
    },
    Operation {
        path: "/v1/agent/find",
        method: "get",
        id: "find",
        takes: Takes::Query(&[
            ("name", false, "Only agents with this name."),
            ("tag", false, "Only agents that claim this tag."),
        ]),
        summary: "Looks for agents at the rendezvous.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<AgentsAnswer>()),
    },
    Operation {
        path: "/v1/agent/whois",
        method: "get",
        id: "whois",
        takes: Takes::Query(&[("agent", true, "A virtual IP, a name or a key.")]),
        summary: "The agent with this virtual IP, name or key.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<AgentsAnswer>()),
    },
    Operation {
        path: "/v1/agent/confirm",
        method: "post",
        id: "confirm",
        takes: Takes::Nothing,
        summary: "Says that a state which was restored is the newest one, so that what it has granted counts.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<ConfirmedAnswer>()),
    },
    Operation {
        path: "/v1/agent/trust",
        method: "post",
        id: "trust",
        takes: Takes::Body(|schemas| schemas.subschema_for::<Approve>()),
        summary: "Grants something to an agent before it asks. The peer is named by its whole key.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecidedAnswer>()),
    },
    Operation {
        path: "/v1/agent/verify",
        method: "get",
        id: "verify",
        takes: Takes::Query(&[("peer", true, "A name or a key.")]),
        summary: "The code by which two people check that each has the other's key.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<VerifiedAnswer>()),
    },
    Operation {
        path: "/v1/agent/decisions",
        method: "get",
        id: "decisions",
        takes: Takes::Query(&[
            ("peer", false, "Only decisions about this peer."),
            ("last", false, "How many, at most 1,000."),
        ]),
        summary: "The newest decisions about trust, and who made them.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecisionsAnswer>()),
    },
    Operation {
        path: "/v1/agent/events",
        method: "get",
        id: "events",
        takes: Takes::Nothing,
        summary: "The requests that wait, and every event from now on, one a line. A slow reader is dropped.",
        answer: Answer::Lines(MEDIA_TYPE, |schemas| schemas.subschema_for::<AgentEvent>()),
    },
    Operation {
        path: "/v1/explain",
        method: "get",
        id: "explain",
        takes: Takes::Query(&[
            ("from", true, "The agent that opens: a name, a key, a virtual IP, or `self`."),
            ("to", true, "The agent at which it opens. One of both is this agent."),
            ("what", true, "`icmp`, `tcp/22`, `udp/53` or the number of an IP protocol."),
        ]),
        summary: "Which rule of which side decides whether something may be opened.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<ExplainedAnswer>()),
    },
    Operation {
        path: "/v1/rules",
        method: "get",
        id: "rules",
        takes: Takes::Query(&[("peer", true, "A name, a key or a virtual IP.")]),
        summary: "What a peer may open here, and what may be opened there.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<RulesAnswer>()),
    },
    Operation {
        path: "/v1/peers/{peer}/path",
        method: "get",
        id: "path",
        takes: Takes::Path("peer", "A name, a key, at least 16 characters of one, or a virtual IP."),
        summary: "How a peer is reached, all pairs of addresses that are known, and why it is not reached directly.",
        answer: Answer::Json(|schemas| schemas.subschema_for::<PathStatus>()),
    },
];

/// One method of one path.
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    id: &'static str,
    pub(super) takes: Takes,
    summary: &'static str,
    pub(super) answer: Answer,
}

/// What a request carries besides its path.
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// A type of ours as JSON.
    Body(fn(&mut SchemaGenerator) -> Schema),
    /// Texts in the query: the name, whether it is required, and what it means.
    Query(&'static [(&'static str, bool, &'static str)]),
    /// A text in the path: its name, and what it means.
    Path(&'static str, &'static str),
}

/// The body of a successful answer (200).
pub(super) enum Answer {
    /// A type of ours.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Lines of a media type, each of them a type of ours.
    Lines(&'static str, fn(&mut SchemaGenerator) -> Schema),
    /// Text of this media type.
    Text(&'static str),
}

/// The fields, in the order in which people read them.
#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    paths: BTreeMap<&'static str, Map<String, Value>>,
    components: Components,
}

#[derive(Serialize)]
struct Components {
    responses: Value,
    schemas: BTreeMap<String, Schema>,
}

/// Returns the document as JSON that ends in a newline.
pub fn document() -> String {
    // Schemas describe what is sent: a field that may be left out is not required.
    let settings = SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
    let mut schemas = settings.clone().for_serialize().into_generator();
    let mut bodies = settings.for_deserialize().into_generator();
    let mut paths: BTreeMap<_, Map<_, _>> = BTreeMap::new();
    for operation in &OPERATIONS {
        let described = operation.describe(&mut schemas, &mut bodies);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described);
    }
    let failure = schemas.subschema_for::<FailureBody>();
    let codes = ExitKind::ALL.map(|kind| format!("{} {}", kind.code_name(), status_code(kind).as_u16()));
    let mut shapes = schemas.take_definitions(true);
    shapes.extend(bodies.take_definitions(true));
    without_null(shapes.values_mut());
    let shapes = shapes.into_iter().map(|(name, shape)| (name, Schema::try_from(shape).expect("a shape is an object")));
    let document = Document {
        openapi: "3.1.0",
        info: json!({
            "title": "overlay local API",
            "version": "1",
            "description": format!(
                "HTTP over a unix socket. Looking is for root, the user that the daemon runs as and the group {GROUP}; \
                 changing is for root and that user alone. The kernel names the caller, and there is no token. \
                 Fields are only ever added."
            ),
        }),
        servers: json!([{ "url": "http://localhost", "description": "the unix socket /run/overlay/NAME.sock" }]),
        paths,
        components: Components {
            responses: json!({ "Failure": {
                "description": format!("Why not. The status follows the `code`: {}.", codes.join(", ")),
                "content": { "application/json": { "schema": failure } },
            } }),
            schemas: shapes.collect(),
        },
    };
    let mut text = serde_json::to_string_pretty(&document).expect("the document is plain data");
    text.push('\n');
    text
}

impl Operation {
    fn describe(&self, schemas: &mut SchemaGenerator, bodies: &mut SchemaGenerator) -> Value {
        let (media, shape) = match self.answer {
            Answer::Json(shape) => ("application/json", json!(shape(schemas))),
            Answer::Lines(media, shape) => (media, json!(shape(schemas))),
            Answer::Text(media) => (media, json!({ "type": "string" })),
        };
        let mut described = json!({
            "operationId": self.id,
            "summary": self.summary,
            "responses": {
                "200": { "description": "It was done.", "content": { media: { "schema": shape } } },
                "default": { "$ref": "#/components/responses/Failure" },
            },
        });
        match self.takes {
            Takes::Nothing => {}
            Takes::Body(shape) => {
                let content = json!({ "application/json": { "schema": shape(bodies) } });
                described["requestBody"] = json!({ "required": true, "content": content });
            }
            Takes::Query(parameters) => {
                let parameter = |(name, is_required, meaning): &(&str, bool, &str)| {
                    let text = json!({ "type": "string" });
                    json!({ "name": name, "in": "query", "required": is_required, "description": meaning, "schema": text })
                };
                described["parameters"] = parameters.iter().map(parameter).collect();
            }
            Takes::Path(name, meaning) => {
                let text = json!({ "type": "string" });
                let parameter =
                    json!({ "name": name, "in": "path", "required": true, "description": meaning, "schema": text });
                described["parameters"] = json!([parameter]);
            }
        }
        described
    }
}

/// Removes null from the types of values: a field that is not known is left out, and never null.
fn without_null<'a>(values: impl Iterator<Item = &'a mut Value>) {
    for value in values {
        match value {
            Value::Array(entries) => {
                entries.retain(|entry| !entry.is_null() && *entry != "null" && *entry != json!({ "type": "null" }));
                without_null(entries.iter_mut());
            }
            Value::Object(members) => {
                members.retain(|name, value| name != "default" || !value.is_null());
                without_null(members.values_mut());
                collapse(members);
            }
            _ => {}
        }
    }
}

/// A single alternative stands for itself: `{"anyOf": [X]}` is X, and `{"type": ["string"]}` is a string.
fn collapse(members: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = members.get_mut("type")
        && let [only] = types.as_mut_slice()
    {
        let only = only.take();
        members.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf")
        && let [Value::Object(only)] = choices.as_mut_slice()
    {
        let only = std::mem::take(only);
        members.remove("anyOf");
        members.extend(only);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::view::tests::{bob, nameless, view};

    #[test]
    fn the_committed_document_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/openapi.json");
        if std::env::var_os("OVERLAY_BLESS").is_some() {
            std::fs::write(&path, document()).expect("our own file");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == document(), "run `OVERLAY_BLESS=1 cargo test -p overlay-daemon openapi`");
    }

    #[test]
    fn what_is_sent_has_every_field_that_is_promised_and_no_other() {
        let document: Value = serde_json::from_str(&document()).expect("JSON");
        let schemas = &document["components"]["schemas"];
        let status = serde_json::to_value(view([bob(), nameless()]).status()).expect("plain data");
        let mut sent = vec![("Status", &status), ("InterfaceStatus", &status["interface"])];
        sent.extend(status["peers"].as_array().expect("peers").iter().map(|peer| ("PeerStatus", peer)));
        for (name, value) in sent {
            let fields: Vec<_> = value.as_object().expect("an object").keys().collect();
            let properties = schemas[name]["properties"].as_object().expect("properties");
            assert!(fields.iter().all(|field| properties.contains_key(*field)), "{name} sends {fields:?}");
            let required = schemas[name]["required"].as_array().expect("required fields");
            assert!(required.iter().all(|field| value.get(field.as_str().expect("a name")).is_some()), "{name}");
        }
        assert!(!document.to_string().contains("null"), "what is not known is left out");
    }
}
