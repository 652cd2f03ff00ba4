//! Revisions of objects as entity tags (RFC 9110 8.8.3), and `If-Match` (13.1.1).

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ApiError;

/// Fields that say what an object does, not what it is: nobody's change is lost when they differ.
const LIVE: [&str; 13] = [
    "accessible_peers_count",
    "connected",
    "connection_ip",
    "geoname_id",
    "city_name",
    "country_code",
    "last_login",
    "last_seen",
    "last_used",
    "posture_failures",
    "state",
    "used_times",
    "valid",
];
/// Counts of what others hold, wherever a group or a network is told in short: a machine that joins changes no policy.
const COUNTS: [&str; 3] = ["peers_count", "resources_count", "routing_peers_count"];
/// Where there are such fields.
const LIVELY: [&str; 4] = ["/api/peers/", "/api/setup-keys/", "/api/users/", "/api/gateways/"];

/// Whether a path is that of one object, which others may change meanwhile.
pub(crate) fn is_object(path: &str) -> bool {
    path.ends_with('}') || path.ends_with("/settings")
}

/// The entity tag of what `path` shows: 128 bits of SHA-256 in quotes.
pub(super) fn of(path: &str, body: &[u8]) -> String {
    let lively = LIVELY.iter().any(|prefix| path.starts_with(prefix));
    let digest = match serde_json::from_slice(body) {
        Ok(mut shown) => {
            if let Value::Object(object) = &mut shown
                && lively
            {
                object.retain(|name, _| !LIVE.contains(&name.as_str()));
            }
            drop_counts(&mut shown);
            Sha256::digest(shown.to_string())
        }
        Err(_) => Sha256::digest(body),
    };
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn drop_counts(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| !COUNTS.contains(&name.as_str()));
            object.values_mut().for_each(drop_counts);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_counts),
        _ => {}
    }
}

/// Which revisions a change is meant for.
pub(super) enum Wanted {
    /// Any there is.
    Any,
    Tags(Vec<String>),
}

impl Wanted {
    /// The condition of a request, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut tags = Vec::new();
        for value in headers.get_all(IF_MATCH) {
            let value = value.to_str().unwrap_or_default().trim();
            if value == "*" {
                return Ok(Some(Wanted::Any));
            }
            for tag in value.split(',').map(str::trim) {
                // A weak one never matches here, but it is one.
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                if strong.len() < 2 || !strong.starts_with('"') || !strong.ends_with('"') {
                    let message =
                        "If-Match is no list of entity tags: send the ETag of the object, with its quotes";
                    return Err(ApiError::bad_request(message));
                }
                tags.push(tag.to_owned());
            }
        }
        Ok((!tags.is_empty()).then_some(Wanted::Tags(tags)))
    }

    pub(super) fn includes(&self, tag: &str) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Tags(tags) => tags.iter().any(|wanted| wanted == tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn wanted(value: &'static str) -> Result<Option<Wanted>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_static(value));
        Wanted::of(&headers)
    }

    #[test]
    fn a_condition_is_a_list_of_tags_or_any() {
        let includes = |value, tag: &str| wanted(value).unwrap().unwrap().includes(tag);
        assert!(includes("*", "\"a\"") && includes("\"a\"", "\"a\"") && includes("\"b\" , \"a\"", "\"a\""));
        assert!(!includes("\"b\"", "\"a\"") && !includes("W/\"a\"", "\"a\""));
        for wrong in ["a", "\"", "\"a\", b", ""] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
        assert!(Wanted::of(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_peer_that_comes_and_goes_stays_the_same_revision() {
        let here = of("/api/peers/{peerId}", br#"{"name":"a","connected":true,"last_seen":"x"}"#);
        assert_eq!(here, of("/api/peers/{peerId}", br#"{"name":"a","connected":false,"last_seen":"y"}"#));
        assert_ne!(here, of("/api/peers/{peerId}", br#"{"name":"b","connected":true,"last_seen":"x"}"#));
        assert_ne!(
            of("/api/groups/{groupId}", b"{\"state\":1}"),
            of("/api/groups/{groupId}", b"{\"state\":2}")
        );
        assert_eq!(here.len(), 34);
    }
}
