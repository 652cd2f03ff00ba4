//! `/api/policy-file`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sluicegate_policy::file::{self, Prune};
use sluicegate_policy::reach::Checked;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::plan::Plan;
use super::queue::Turn;
use super::{Bounds, Carried, Files, Refusal, Wish, asked};
use crate::rest::auth::Caller;
use crate::rest::body::Body;
use crate::rest::error::{ApiError, ApiResult};
use crate::rest::rfc3339;
use crate::store::PolicyRevision;

/// Largest request, in bytes: a file of some ten thousand rules.
const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// Revisions in an answer, when nothing is said about it.
const PAGE: i64 = 50;

/// A policy file and what is to be done with it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileRequest {
    /// The file, YAML.
    pub file: String,
    /// What happens to what it does not name: `nothing` (default) leaves it, `policies` deletes policies and tests,
    /// `everything` deletes groups, posture checks (where the file has a section of them), networks, resources and routers as well.
    pub prune: String,
    /// The version it was planned for; another one is refused with 412.
    pub expected_version: Option<String>,
    /// What is said about it in the history.
    pub message: String,
}

/// A revision to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackRequest {
    /// Its number.
    pub revision: i64,
    /// The version it was planned for; another one is refused with 412.
    pub expected_version: Option<String>,
    /// What is said about it in the history.
    pub message: String,
    /// Plan only: nothing is written.
    pub dry_run: bool,
    /// Whether tests that fail are only reported.
    pub despite_tests: bool,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppliedFile {
    /// The number under which the outcome is kept; none when there was nothing to do.
    pub revision: Option<i64>,
    /// What it did.
    pub plan: Plan,
}

/// The account as a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedFile {
    /// Of what it describes.
    pub version: String,
    /// YAML.
    pub file: String,
}

/// What came of tests.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestReport {
    /// Whether all of them hold.
    pub hold: bool,
    /// Each of them.
    #[schema(value_type = Vec<Object>)]
    pub tests: Vec<Checked>,
}

/// A revision.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revision {
    /// From 1.
    pub number: i64,
    /// When.
    pub timestamp: String,
    /// `apply`, `rollback`, or `elsewhere` for what was changed by other means before the next one.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// What was said about it.
    pub message: String,
    /// All of it as a file; only when one is asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// A page of revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RevisionsQuery {
    /// Only those before this number.
    before: Option<i64>,
    /// At most so many, 1 to 1000; 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Routes for users who have shown their token.
pub fn routes() -> OpenApiRouter<Files> {
    OpenApiRouter::default()
        .routes(routes!(export))
        .routes(routes!(plan))
        .routes(routes!(apply))
        .routes(routes!(test))
        .routes(routes!(test_now))
        .routes(routes!(revisions))
        .routes(routes!(revision))
        .routes(routes!(rollback))
        .merge(super::suggest::routes())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// The schema, for editors: they send no token.
pub fn open_routes() -> OpenApiRouter<Files> {
    OpenApiRouter::default().routes(routes!(schema))
}

/// The JSON Schema of policy files.
#[utoipa::path(get, path = "/api/policy-file/schema", tag = "Policy files",
    responses((status = 200, description = "A JSON Schema", content_type = "application/schema+json", body = Object)))]
async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], file::schema()).into_response()
}

/// Groups, posture checks, networks, policies and the tests kept last, as a policy file in canonical form.
#[utoipa::path(get, path = "/api/policy-file", tag = "Policy files", responses((status = 200, body = ExportedFile)))]
async fn export(State(files): State<Files>) -> ApiResult<ExportedFile> {
    let (file, version) = files.export().await.map_err(refused)?;
    Ok(Json(ExportedFile { version, file }))
}

/// What applying a file would do: who reaches what, which gateways get what, and whether its tests would hold. Nothing is
/// written.
#[utoipa::path(post, path = "/api/policy-file/plan", tag = "Policy files", request_body = FileRequest,
    responses((status = 200, body = Plan), (status = 412, description = "Planned for another version"),
        (status = 503, description = "Too many plans are worked out already, or the store's database does not answer"),
        (status = 422, description = "The file makes no sense, or names what is not there")))]
async fn plan(State(files): State<Files>, caller: Caller, Body(request): Body<FileRequest>) -> Response {
    let wish = match wish(&request) {
        Ok(wish) => wish,
        Err(error) => return error.into_response(),
    };
    answer(planned(&files, &caller, &wish).await.map(|planned| planned.plan))
}

/// Applies a file as one transaction: all of it and its tests hold, or nothing is written.
#[utoipa::path(post, path = "/api/policy-file/apply", tag = "Policy files", request_body = FileRequest,
    responses((status = 200, body = AppliedFile), (status = 412, description = "Planned for another version"),
        (status = 422, description = "The file makes no sense, names what is not there, or a test fails")))]
async fn apply(State(files): State<Files>, caller: Caller, Body(request): Body<FileRequest>) -> Response {
    let wish = match wish(&request) {
        Ok(wish) => wish,
        Err(error) => return error.into_response(),
    };
    let bounds =
        Bounds { expected: request.expected_version, message: request.message, despite_tests: false };
    let done = files.apply(&caller.actor(), &wish, &bounds).await;
    answer(applied(&files, done).await)
}

/// The tests of a file, with the file applied; nothing is written.
#[utoipa::path(post, path = "/api/policy-file/test", tag = "Policy files", request_body = FileRequest,
    responses((status = 200, body = TestReport),
        (status = 422, description = "The file makes no sense, or names what is not there")))]
async fn test(State(files): State<Files>, caller: Caller, Body(request): Body<FileRequest>) -> Response {
    let wish = match wish(&request) {
        Ok(wish) => wish,
        Err(error) => return error.into_response(),
    };
    let tried = files.try_out(&caller.actor(), &wish).await;
    answer(tried.map(|carried| report(carried.checked)))
}

/// The tests kept last, as things are now.
#[utoipa::path(get, path = "/api/policy-file/test", tag = "Policy files", responses((status = 200, body = TestReport)))]
async fn test_now(State(files): State<Files>) -> Response {
    answer(files.check().await.map(report))
}

/// What policy files described, newest first.
#[utoipa::path(get, path = "/api/policy-file/revisions", tag = "Policy files", params(RevisionsQuery),
    responses((status = 200, body = Vec<Revision>)))]
async fn revisions(
    State(files): State<Files>,
    Query(query): Query<RevisionsQuery>,
) -> ApiResult<Vec<Revision>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::bad_request("limit must be between 1 and 1000"));
    }
    let revisions = files.store.policy_revisions(query.before, limit).await?;
    Ok(Json(revisions.into_iter().map(Revision::from).collect()))
}

/// One revision with its file.
#[utoipa::path(get, path = "/api/policy-file/revisions/{number}", tag = "Policy files",
    params(("number" = i64, Path, description = "Its number")),
    responses((status = 200, body = Revision), (status = 404, description = "No such revision")))]
async fn revision(State(files): State<Files>, Path(number): Path<i64>) -> ApiResult<Revision> {
    Ok(Json(files.store.policy_revision(number).await?.into()))
}

/// Makes everything that policy files describe as it was at a revision, as one transaction.
#[utoipa::path(post, path = "/api/policy-file/rollback", tag = "Policy files", request_body = RollbackRequest,
    responses((status = 200, body = AppliedFile), (status = 404, description = "No such revision"),
        (status = 412, description = "Planned for another version"),
        (status = 422, description = "It names what is not there any more, or a test of it fails")))]
async fn rollback(
    State(files): State<Files>,
    caller: Caller,
    Body(request): Body<RollbackRequest>,
) -> Response {
    let wish = Wish::Revision(request.revision);
    if request.dry_run {
        return answer(planned(&files, &caller, &wish).await);
    }
    let message = match request.message.trim() {
        "" => format!("back to revision {}", request.revision),
        said => said.to_owned(),
    };
    let bounds = Bounds { expected: request.expected_version, message, despite_tests: request.despite_tests };
    answer(applied(&files, files.apply(&caller.actor(), &wish, &bounds).await).await)
}

fn wish(request: &FileRequest) -> Result<Wish, ApiError> {
    let prune = match request.prune.as_str() {
        "" | "nothing" => Prune::Nothing,
        "policies" => Prune::Policies,
        "everything" => Prune::Everything,
        other => {
            return Err(ApiError::invalid(format!(
                "prune: {other:?} is not nothing, policies or everything"
            )));
        }
    };
    Ok(Wish::File { text: request.file.clone(), prune })
}

/// What a change would do, in its turn, and which flows gateways would cut. Nothing is written.
async fn planned(files: &Files, caller: &Caller, wish: &Wish) -> Result<AppliedFile, Refusal> {
    let turn = files.plans.question().await?;
    let carried = files.try_out(&caller.actor(), wish).await?;
    let (plan, _) = work_out(files, carried, true, turn).await?;
    Ok(AppliedFile { revision: None, plan })
}

async fn applied(files: &Files, done: Result<Carried, Refusal>) -> Result<AppliedFile, Refusal> {
    let done = done?;
    let turn = files.plans.made().await;
    let (plan, carried) = work_out(files, done, false, turn).await?;
    Ok(AppliedFile { revision: carried.revision, plan })
}

/// The plan of a change. `ask`: gateways are asked which flows they have; once it is made, they have cut them.
async fn work_out(
    files: &Files,
    carried: Carried,
    ask: bool,
    turn: Turn,
) -> Result<(Plan, Carried), Refusal> {
    let now = files.now();
    // Who asked may go away; the work is done all the same, and the turn lasts as long as that.
    let held = turn.clone();
    let work = move || {
        let _held = held;
        let (plan, compilers) = Plan::new(&carried, &now)?;
        Ok((plan, compilers, carried, now))
    };
    let (mut plan, [before, after], carried, now) = blocking(work).await?;
    if !ask || plan.gateways.is_empty() {
        return Ok((plan, carried));
    }
    let answers = files.ask(&plan.gateways).await;
    blocking(move || {
        let _held = turn;
        plan.flows = asked::judge(&plan.gateways, &answers, &now, &before, &after);
        Ok((plan, carried))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Refusal::Compile(error.to_string())))
}

fn report(tests: Vec<Checked>) -> TestReport {
    TestReport { hold: tests.iter().all(|test| test.holds), tests }
}

fn answer<T: Serialize>(done: Result<T, Refusal>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

/// A refusal with what a program can use beside the message: places in the file, and tests.
pub(super) fn refuse(refusal: Refusal) -> Response {
    let mut more = BTreeMap::new();
    match &refusal {
        Refusal::File(error) => {
            let problem = |p: &file::Problem| serde_json::json!({ "line": p.line, "column": p.column, "message": p.message });
            more.insert("problems", error.problems.iter().map(problem).collect());
        }
        Refusal::Tests(tests) => {
            more.insert("tests", serde_json::to_value(tests).unwrap_or_default());
        }
        _ => {}
    }
    let (status, message) = refused(refusal).into_parts();
    let mut body = serde_json::json!({ "message": message, "code": status.as_u16() });
    for (name, value) in more {
        body[name] = value;
    }
    (status, Json(body)).into_response()
}

fn refused(refusal: Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::File(_) | Refusal::Tests(_) | Refusal::Unwritable(_) | Refusal::Images(_) => {
            ApiError::invalid(message)
        }
        Refusal::Moved { .. } | Refusal::FlowsOff => ApiError::new(StatusCode::PRECONDITION_FAILED, message),
        Refusal::Stopped { cause, .. } => {
            let (status, _) = ApiError::from(cause).into_parts();
            ApiError::new(status, message)
        }
        Refusal::Compile(_) | Refusal::Unreadable { .. } => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        Refusal::Busy => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message),
        Refusal::Store(cause) => cause.into(),
    }
}

impl From<PolicyRevision> for Revision {
    fn from(revision: PolicyRevision) -> Self {
        let PolicyRevision { number, at, kind, actor, message, file } = revision;
        Self { number, timestamp: rfc3339(at), kind, actor, message, file }
    }
}
