//! The API as an OpenAPI document, made from the types that it is written with.

use super::api::{
    ActionView, CheckpointView, CurveView, EventPage, EventView, LawsView, RefusalView, RunStatus,
    StepsView, TrialDetail,
};
use crate::diagnose::Diagnosis;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = "\
What the page of `coordinator launch --web` and `coordinator web RUN` is made from. The commands that read a run print \
the same with `--json`: `status` a RunStatus, `replay` an EventPage, `diagnose` a Diagnosis, `checkpoint list` a list of \
CheckpointView. On an address that other hosts can reach, everything takes `Authorization: Bearer TOKEN`. Fields may be \
added; none gets another meaning.";

struct Document {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Document {
    /// A path that answers with a `T`.
    fn get<T: JsonSchema>(&mut self, path: &str, summary: &str) {
        let content =
            json!({ "application/json": { "schema": self.generator.subschema_for::<T>() } });
        self.add(path, "get", summary, content);
    }

    /// A path that does something.
    fn post(&mut self, path: &str, summary: &str) {
        let content = json!({ "application/json": { "schema": self.generator.subschema_for::<ActionView>() } });
        self.add(path, "post", summary, content);
    }

    fn add(&mut self, path: &str, method: &str, summary: &str, content: Value) {
        let status = if method == "post" { "202" } else { "200" };
        let refusal = self.generator.subschema_for::<RefusalView>();
        let named = path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        });
        let mut parameters: Vec<Value> = named.collect();
        if method == "post" {
            parameters.push(json!({
                "name": "x-polestar-csrf", "in": "header", "required": true, "schema": { "type": "string" },
                "description": "What the page's `csrf` meta element holds.",
            }));
        }
        let operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                status: { "description": summary, "content": content },
                "default": {
                    "description": "Why there is no answer.",
                    "content": { "application/json": { "schema": refusal } },
                },
            },
        });
        self.paths
            .insert(path.to_owned(), json!({ method: operation }));
    }
}

/// The document.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
    let mut document = Document {
        generator: settings.into_generator(),
        paths: Map::new(),
    };
    document.get::<RunStatus>("/api/status", "The run, its pool and its trials");
    document.get::<EventPage>("/api/events", "The newest entries of the event journal");
    document.get::<Diagnosis>("/api/incidents", "What went wrong, first causes first");
    document.get::<Vec<CurveView>>("/api/curves", "A curve of each trial that has begun");
    document.get::<TrialDetail>(
        "/api/trials/{trial}",
        "A trial, its curve and its checkpoints",
    );
    document.get::<LawsView>("/api/laws", "The scaling laws as far as trials are done");
    let svg = json!({ "image/svg+xml": { "schema": { "type": "string" } } });
    document.add("/api/figures/{name}", "get", "A figure of the laws", svg);
    let stream = json!({ "text/event-stream": { "schema": { "oneOf": [
        document.generator.subschema_for::<RunStatus>(),
        document.generator.subschema_for::<EventView>(),
        document.generator.subschema_for::<Vec<StepsView>>(),
    ] } } });
    let summary = "What happens from now on: events `status` (a RunStatus), `entry` (an EventView), `steps` (a list of \
                   StepsView), and `end` when the coordinator ends. A client that doesn't keep up is cut off and comes back";
    document.add("/api/stream", "get", summary, stream);
    document.post(
        "/api/drain",
        "Save a checkpoint of whatever trains, then stop",
    );
    document.post("/api/stop", "Stop at once; what is committed stays");
    let summary = "Try a trial again that was abandoned, with those that start from it";
    document.post("/api/trials/{trial}/retry", summary);
    // Printed by a command, and not asked for by the page.
    document.generator.subschema_for::<CheckpointView>();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Polestar run", "version": "1", "description": DESCRIPTION },
        "paths": document.paths,
        "components": {
            "schemas": document.generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "token": [] }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere_and_every_field_has_a_sentence() {
        let document = openapi();
        let text = document.to_string();
        let references = text.split("\"$ref\":\"").skip(1);
        for reference in references {
            let pointer = reference.split('"').next().unwrap();
            let pointer = pointer.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas.iter().filter(|(name, _)| name.ends_with("View")) {
            for (field, entry) in schema["properties"].as_object().into_iter().flatten() {
                assert!(entry["description"].is_string(), "{name}.{field}");
            }
        }
        assert!(schemas.contains_key("RunStatus") && schemas.contains_key("Cause"));
    }
}
