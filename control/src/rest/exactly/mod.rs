//! Requests that ask for more than their change: that the object is still the one the caller knows (`If-Match`), or that a
//! request which is sent again is not done again (`Idempotency-Key`). Either runs as one transaction with the change.

mod kept;
mod tag;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::BODY_LIMIT;
use super::auth::Caller;
use super::error::ApiError;
use super::roles::{is_question, only_asks};
use crate::app::App;
use crate::store::Unit;
use kept::Key;
use tag::Wanted;
pub(crate) use tag::is_object;

/// What [`exactly`] works with.
#[derive(Clone)]
pub(super) struct Exactly {
    /// Where transactions begin.
    pub(super) app: App,
    /// The routes without this layer and without authentication: whoever changes an object may see it.
    pub(super) routes: Router,
}

/// Holds a change to the caller's conditions, and tells the revision of an object that is shown.
pub(super) async fn exactly(
    State(exactly): State<Exactly>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let method = request.method().clone();
    if method.is_safe() {
        let path = template(&request);
        return tagged(&path, next.run(request).await).await;
    }
    let wanted = Wanted::of(request.headers())?;
    let path = template(&request);
    // To replace or delete twice is to do it once; and an answer to a question is no change that could be done again.
    let key = match method {
        Method::POST if !is_question(&method, &path) => Key::of(&request, &caller)?,
        _ => None,
    };
    if wanted.is_none() && key.is_none() {
        let response = next.run(request).await;
        return if method == Method::PUT { tagged(&path, response).await } else { Ok(response) };
    }

    // Read before the transaction begins: everybody waits for that, and clients may be slow.
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than 1 MiB"));
    };
    if wanted.is_none() && only_asks(&path, &body) {
        // Nothing is changed, and gateways are waited for: nobody else is to wait for that.
        return Ok(next.run(Request::from_parts(parts, Body::from(body))).await);
    }
    let asked = kept::fingerprint(&parts, &body);
    let unit = exactly.app.store.unit().await?;
    if let Some(key) = &key
        && let Some(answer) = unit.kept_answer(&key.id()).await?
    {
        return key.replay(&asked, answer);
    }
    if let Some(wanted) = wanted {
        let shown = shown(&exactly, &unit, &caller, parts.uri.path()).await?;
        match shown.status() {
            StatusCode::OK => {}
            StatusCode::METHOD_NOT_ALLOWED => {
                let message =
                    "nothing is shown at this path, so it has no revision: send the request without If-Match";
                return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, message));
            }
            _ => return Ok(shown),
        }
        let (_, current) = split(&path, shown).await?;
        if !wanted.includes(&current.tag) {
            return Err(ApiError::new(
                StatusCode::PRECONDITION_FAILED,
                format!(
                    "this was changed by another: it is now revision {}; read it again, then repeat the change on that",
                    current.tag
                ),
            ));
        }
    }
    let response = unit.run(next.run(Request::from_parts(parts, Body::from(body)))).await;
    if !response.status().is_success() {
        // The unit is dropped, and with it whatever the request had begun.
        return Ok(response);
    }
    let (mut head, shown) = split(&path, response).await?;
    if let Some(key) = &key {
        unit.keep_answer(&key.id(), &key.keep(&asked, head.status, &shown.body)?).await?;
    }
    unit.commit().await?;
    if method == Method::PUT {
        head.headers.insert(ETAG, shown.header()?);
    }
    Ok(Response::from_parts(head, Body::from(shown.body)))
}

/// What GET answers on the path of a change, in its transaction.
async fn shown(exactly: &Exactly, unit: &Unit, caller: &Caller, path: &str) -> Result<Response, ApiError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| ApiError::bad_request("the path cannot be read"))?;
    request.extensions_mut().insert(caller.clone());
    let routes = exactly.routes.clone();
    Ok(unit.run(async { routes.oneshot(request).await.into_response() }).await)
}

/// Adds the revision of the one object that is shown.
async fn tagged(path: &str, response: Response) -> Result<Response, ApiError> {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status() != StatusCode::OK || !is_json || !tag::is_object(path) {
        return Ok(response);
    }
    let (mut head, shown) = split(path, response).await?;
    head.headers.insert(ETAG, shown.header()?);
    Ok(Response::from_parts(head, Body::from(shown.body)))
}

/// An answer's body and its revision.
struct Shown {
    body: axum::body::Bytes,
    tag: String,
}

impl Shown {
    fn header(&self) -> Result<HeaderValue, ApiError> {
        // Hexadecimal digits in quotes.
        HeaderValue::from_str(&self.tag).map_err(|_| unreadable())
    }
}

async fn split(path: &str, response: Response) -> Result<(axum::http::response::Parts, Shown), ApiError> {
    let (head, body) = response.into_parts();
    // Made by this process, in its memory.
    let body = to_bytes(body, usize::MAX).await.map_err(|_| unreadable())?;
    let tag = tag::of(path, &body);
    Ok((head, Shown { body, tag }))
}

fn unreadable() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be read; nothing was changed")
}

fn template(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned()
}
