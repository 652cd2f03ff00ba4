//! The OpenAPI document of what is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, Info, License, OpenApi, PathItem, Ref, RefOr, Required, Response,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rest;
use crate::rest::error::ErrorResponse;

/// The refusals any request that needs a token can meet.
const REFUSALS: [(&str, &str); 10] = [
    ("400", "The request cannot be read, or what it deletes is in use"),
    ("401", "No token, or one that opens nothing"),
    ("403", "The user's role has no right to this"),
    ("404", "No such object"),
    ("409", "Another object has this name"),
    ("412", "`If-Match` names another revision: somebody else changed the object"),
    ("413", "The request body is larger than 1 MiB"),
    ("422", "The request contradicts the model"),
    ("500", "The store failed; nothing was changed"),
    ("503", "The store's database does not answer"),
];

/// What a change may be bound to, by a header of its request.
const CONDITIONS: [(&str, &str, &str); 3] = [
    ("put", "If-Match", "`ETag` of the object as the caller knows it; 412 when it was changed since"),
    ("delete", "If-Match", "`ETag` of the object as the caller knows it; 412 when it was changed since"),
    (
        "post",
        "Idempotency-Key",
        "A text of the caller's own; repeated within a day with the same body, the answer is the one \
        that was given, and nothing is done again",
    ),
];

/// Says of every route that it may be asked too often.
pub fn limit(document: &mut OpenApi) {
    let paths = document.paths.paths.iter_mut().filter(|(path, _)| path.starts_with("/api/"));
    for operation in paths.flat_map(|(_, item)| operations(item)) {
        let text = "Too many requests; `Retry-After` says for how many seconds to wait";
        operation.responses.responses.insert("429".into(), RefOr::T(refusal(text)));
    }
}

/// What successful answers tell beside their body: the method, the header, and what it says.
const TOLD: [(&str, &str, &str); 3] = [
    ("get", "ETag", "Revision of the object, for `If-Match`"),
    ("put", "ETag", "Revision of the object after the change, for `If-Match`"),
    (
        "post",
        "Idempotent-Replayed",
        "`true` for an answer that was given before to the same `Idempotency-Key`",
    ),
];

/// Says of every route so far that it needs a token, what a change may be bound to, and what it may be refused with.
pub fn protect(document: &mut OpenApi) {
    let requirements = vec![
        SecurityRequirement::new("TokenAuth", NO_SCOPES),
        SecurityRequirement::new("BearerAuth", NO_SCOPES),
    ];
    for (path, item) in &mut document.paths.paths {
        for (method, header, text) in CONDITIONS {
            if let Some(operation) = operation(item, method) {
                operation.parameters.get_or_insert_default().push(RefOr::T(condition(header, text)));
            }
        }
        let is_object = rest::is_object(path);
        for (method, header, text) in TOLD {
            let operation = operation(item, method).filter(|_| method == "post" || is_object);
            let answer = operation.and_then(|operation| operation.responses.responses.get_mut("200"));
            if let Some(RefOr::T(answer)) = answer {
                let told =
                    HeaderBuilder::new().schema(Some(String::schema())).description(Some(text)).build();
                answer.headers.insert(header.into(), RefOr::T(told));
            }
        }
    }
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(requirements.clone());
        for (status, text) in REFUSALS {
            operation.responses.responses.entry(status.into()).or_insert_with(|| RefOr::T(refusal(text)));
        }
    }
}

/// Says of every change that needs no token, a login for example, what it may be refused with.
pub fn refuse(document: &mut OpenApi) {
    for operation in document.paths.paths.values_mut().filter_map(|item| item.post.as_mut()) {
        for (status, text) in REFUSALS {
            operation.responses.responses.entry(status.into()).or_insert_with(|| RefOr::T(refusal(text)));
        }
    }
}

/// The document with its title, its schemes of authentication and the body of refusals.
pub fn finish(mut document: OpenApi) -> OpenApi {
    document.info = info();
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(ErrorResponse::name().into(), ErrorResponse::schema());
    components.add_security_scheme("TokenAuth", token_scheme());
    components.add_security_scheme("BearerAuth", bearer_scheme());
    document
}

/// The route of the document itself, open to anyone: it says nothing of the account.
pub fn routes() -> OpenApiRouter<Arc<OpenApi>> {
    OpenApiRouter::default().routes(routes!(show))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "Instance",
    responses((status = 200, description = "OpenAPI 3.1 of everything that is served", content_type = "application/json")))]
async fn show(State(document): State<Arc<OpenApi>>) -> Json<OpenApi> {
    Json(OpenApi::clone(&document))
}

const NO_SCOPES: [&str; 0] = [];

fn info() -> Info {
    let mut info = Info::new("Sluicegate control", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("Groups, policies, networks, peers and gateways, in the shapes of NetBird's API.".into());
    info.license = Some(License::new("MIT OR Apache-2.0"));
    info
}

fn token_scheme() -> SecurityScheme {
    let text = "`Token <personal access token>`";
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("Authorization", text)))
}

fn bearer_scheme() -> SecurityScheme {
    let text = "`Bearer <personal access token>`, the same as TokenAuth";
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build())
}

fn condition(header: &str, text: &str) -> Parameter {
    ParameterBuilder::new()
        .name(header)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(String::schema()))
        .build()
}

fn refusal(text: &str) -> Response {
    let schema = Ref::from_schema_name(ErrorResponse::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(text).content("application/json", content).build()
}

fn operation<'a>(item: &'a mut PathItem, method: &str) -> Option<&'a mut Operation> {
    match method {
        "get" => item.get.as_mut(),
        "put" => item.put.as_mut(),
        "delete" => item.delete.as_mut(),
        _ => item.post.as_mut(),
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}
