//! Holds answers against two OpenAPI documents: our own, which says everything that is served, and NetBird's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::{Draft, Validator};
use reqwest::Method;
use serde_json::{Value, json};

/// What is served.
pub(crate) static OURS: LazyLock<Document> = LazyLock::new(|| Document::read("openapi.json"));
/// What NetBird serves.
pub(crate) static NETBIRD: LazyLock<Document> =
    LazyLock::new(|| Document::read("tests/netbird/openapi.json"));

/// An operation with its path's parameters left blank: `GET /api/groups/{}`.
pub(crate) type Operation = (String, String);

/// One document, and a validator for each answer in it that was needed.
pub(crate) struct Document {
    name: &'static str,
    text: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// Fails unless an answer is as both documents say; the operation of ours that it is an answer to.
pub(crate) fn check(method: &Method, target: &str, status: u16, answer: &Value) -> Option<Operation> {
    let path = target.split('?').next().unwrap();
    // HEAD is GET without a body, and health speaks for itself.
    if !path.starts_with("/api/") || method == Method::HEAD {
        return None;
    }
    let Some((template, item)) = OURS.find(path, method) else {
        assert_eq!(status, 404, "{method} {target} is in no document and answers {status}: {answer}");
        return None;
    };
    if item.get(verb(method)).is_none() {
        assert!(
            [405, 429].contains(&status),
            "{method} {target} is not documented and answers {status}: {answer}"
        );
        return None;
    }
    OURS.hold(template, method, status, answer);
    if status == 200
        && let Some((template, item)) = NETBIRD.find(path, method)
        && item.get(verb(method)).is_some()
    {
        NETBIRD.hold(template, method, status, answer);
    }
    Some((method.to_string(), blank(template)))
}

impl Document {
    fn read(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Document { name, text, validators: Mutex::default() }
    }

    /// Every operation, and what the document says of it.
    pub(crate) fn operations(&self) -> BTreeMap<Operation, &Value> {
        let methods = ["get", "post", "put", "delete"];
        let paths = self.paths().filter(|(path, _)| path.starts_with("/api/"));
        paths
            .flat_map(|(path, item)| {
                methods.iter().filter_map(move |method| Some((method, path, item.get(method)?)))
            })
            .map(|(method, path, operation)| ((method.to_uppercase(), blank(path)), operation))
            .collect()
    }

    /// Every path as it is written, by its blank form.
    pub(crate) fn written(&self) -> BTreeMap<String, &str> {
        self.paths().map(|(path, _)| (blank(path), path)).collect()
    }

    /// Whether a path is there, by whatever method.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.paths().any(|(template, _)| fits(template, path))
    }

    fn paths(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.text["paths"].as_object().unwrap().iter().map(|(path, item)| (path.as_str(), item))
    }

    /// The path's entry: the one with the fewest parameters, and among those one that knows the method.
    fn find(&self, path: &str, method: &Method) -> Option<(&str, &Value)> {
        self.paths()
            .filter(|(template, _)| fits(template, path))
            .min_by_key(|(template, item)| (template.matches('{').count(), item.get(verb(method)).is_none()))
    }

    fn hold(&self, template: &str, method: &Method, status: u16, answer: &Value) {
        let response = &self.text["paths"][template][verb(method)]["responses"][status.to_string()];
        let what = format!("{method} {template} {status} of {}", self.name);
        assert!(response.is_object(), "{what} is not documented: {answer}");
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return;
        }
        let validator = self.validator(&what, schema);
        let errors: BTreeSet<String> = validator
            .iter_errors(answer)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{answer:#}");
    }

    fn validator(&self, what: &str, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let made = || {
            let schema = json!({"allOf": [schema], "components": self.text["components"]});
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            Arc::new(options.build(&schema).unwrap_or_else(|error| panic!("{what}: {error}")))
        };
        validators.entry(what.to_owned()).or_insert_with(made).clone()
    }
}

fn verb(method: &Method) -> String {
    method.as_str().to_lowercase()
}

fn blank(template: &str) -> String {
    let parts = template.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(known, asked)| known.starts_with('{') && !asked.is_empty() || *known == asked)
}
