//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the answer to a creation is kept with what it created.
//!
//! Answers can hold secrets, as that to a new setup key does: they are sealed with a key made from the caller's token and the
//! idempotency key, neither of which the store holds.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::{ApiError, Caller};
use crate::store::KeptAnswer;

/// The request's header.
const HEADER: &str = "idempotency-key";
/// Says that an answer is one that was given before.
const REPLAYED: &str = "idempotent-replayed";
/// Longest key, in characters.
const LONGEST: usize = 255;

/// A caller's name for one request, which it sends again with it.
pub(super) struct Key {
    id: [u8; 32],
    seal: [u8; 32],
}

impl Key {
    /// The key of a request, if it has one.
    pub(super) fn of(request: &Request, caller: &Caller) -> Result<Option<Self>, ApiError> {
        let mut values = request.headers().get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.as_bytes();
        if values.next().is_some()
            || !(1..=LONGEST).contains(&text.len())
            || !text.iter().all(u8::is_ascii_graphic)
        {
            let message = format!("Idempotency-Key is one text of 1 to {LONGEST} visible ASCII characters");
            return Err(ApiError::bad_request(message));
        }
        let token = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        Ok(Some(Key {
            id: digest([b"answer of", caller.user.id.as_bytes(), text]),
            seal: digest([b"answer sealed for", token, text]),
        }))
    }

    /// What the answer is kept under.
    pub(super) fn id(&self) -> [u8; 32] {
        self.id
    }

    /// What to keep of an answer.
    pub(super) fn keep(
        &self,
        asked: &[u8; 32],
        status: StatusCode,
        body: &Bytes,
    ) -> Result<KeptAnswer, ApiError> {
        let mut sealed = body.to_vec();
        let nonce = self
            .cipher()
            .and_then(|cipher| cipher.seal_in_place_append_tag(Aad::from(asked), &mut sealed).ok())
            .ok_or_else(failed)?;
        sealed.splice(..0, nonce.as_ref().iter().copied());
        Ok(KeptAnswer { request: asked.to_vec(), status: status.as_u16().into(), body: sealed })
    }

    /// The answer to a request that was done before.
    pub(super) fn replay(&self, asked: &[u8; 32], kept: KeptAnswer) -> Result<Response, ApiError> {
        if kept.request != asked {
            return Err(ApiError::invalid(
                "this Idempotency-Key was used for another request: send each new request with a new key",
            ));
        }
        let Some(body) = self.open(asked, kept.body) else {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "this request was done, by another token of the same user, and only that is shown the answer",
            ));
        };
        let status = u16::try_from(kept.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status.ok_or_else(failed)?;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

    fn open(&self, asked: &[u8; 32], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        if sealed.len() < NONCE_LEN {
            return None;
        }
        let mut text = sealed.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
        let length = self.cipher()?.open_in_place(nonce, Aad::from(asked), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.seal).ok()
    }
}

/// What was asked: the path with its parameters, and the body byte by byte.
pub(super) fn fingerprint(parts: &Parts, body: &Bytes) -> [u8; 32] {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    digest([parts.method.as_str().as_bytes(), target.as_bytes(), body])
}

/// SHA-256 of texts, each with its length.
fn digest(parts: [&[u8]; 3]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn failed() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be kept; nothing was changed")
}
