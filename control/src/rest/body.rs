//! Request bodies: JSON, read as NetBird's server reads it.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// A JSON body. Unknown fields are ignored, `null` is the same as leaving a field out (Go's clients write empty lists
/// so), and whatever does not parse, is nested more than 127 deep, or is of another type, is a 400.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse(&whole(request, state).await?).map(Body)
    }
}

/// A JSON body that NetBird's clients leave out where they have nothing to say; then it is as an empty object.
pub struct BodyIfAny<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for BodyIfAny<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = whole(request, state).await?;
        parse(if bytes.is_empty() { b"{}" } else { &bytes }).map(BodyIfAny)
    }
}

async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let status = rejection.into_response().status();
        let message = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the request body is larger than 1 MiB",
            _ => "the request body could not be read",
        };
        ApiError::new(status, message)
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let wrong =
        |error: serde_json::Error| ApiError::bad_request(format!("couldn't parse JSON request: {error}"));
    let mut value: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    if !value.is_object() {
        return Err(ApiError::bad_request("couldn't parse JSON request: it is no object"));
    }
    drop_nulls(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        match path.as_str() {
            "." => wrong(error),
            _ => ApiError::bad_request(format!("couldn't parse JSON request: {path}: {error}")),
        }
    })
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Sample {
        name: String,
        list: Vec<u32>,
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_ignored() {
        let sample: Sample = parse(br#"{"name":null,"list":null,"more":{"a":1}}"#).unwrap();
        assert_eq!(sample, Sample::default());
        let sample: Sample = parse(br#"{"name":"x","list":[1,2]}"#).unwrap();
        assert_eq!(sample, Sample { name: "x".into(), list: vec![1, 2] });
    }

    #[test]
    fn a_refusal_names_the_field_and_nesting_has_an_end() {
        let message = |text: &str| format!("{:?}", parse::<Sample>(text.as_bytes()).unwrap_err());
        assert!(message(r#"{"list":[1,"x"]}"#).contains("list[1]: invalid type: string"));
        let nested = |depth: usize| format!("{{\"more\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        parse::<Sample>(nested(126).as_bytes()).unwrap();
        assert!(message(&nested(127)).contains("recursion limit exceeded"));
        assert!(message(&nested(500_000)).contains("recursion limit exceeded"));
    }

    #[test]
    fn what_does_not_parse_is_a_bad_request() {
        for text in ["", "{", "[]", "7", "null", r#"{"name":1}"#, r#"{"list":[-1]}"#, "{\"name\":\"a\"} x"] {
            assert!(parse::<Sample>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
