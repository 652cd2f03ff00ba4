//! What a token says of its user.

use serde_json::{Map, Value};
use sluicegate_policy::file::not_a_group;

use super::{OidcOptions, TokenError};
use crate::store::Person;

/// Longest claim that is kept, in characters.
const TEXT_MAX: usize = 255;
/// Most groups of one user that are looked at.
const GROUPS_MAX: usize = 1000;

/// What a verified token says of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who it is.
    pub person: Person,
    /// `nonce`, of a login whose beginner named one.
    pub nonce: Option<String>,
    /// Everything there is.
    all: Map<String, Value>,
}

impl Claims {
    /// Reads what the configuration names.
    pub(super) fn read(all: &Map<String, Value>, options: &OidcOptions) -> Result<Self, TokenError> {
        let subject = match find(all, &options.user_id_claim) {
            Some(Value::String(text)) if !text.is_empty() && text.chars().count() <= TEXT_MAX => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(TokenError::Claim(options.user_id_claim.clone())),
        };
        let text = |claim: &str| find(all, claim).and_then(Value::as_str).map(short).unwrap_or_default();
        let mut names = [&options.name_claim, "preferred_username"].into_iter().map(text);
        let person = Person {
            issuer: options.issuer.clone(),
            subject,
            name: names.find(|name| !name.is_empty()).unwrap_or_default(),
            email: text(&options.email_claim),
            email_verified: options.trust_email || is_true(all.get("email_verified")),
            at: all.get("iat").and_then(Value::as_f64).map_or(0, |seconds| (seconds * 1000.0) as i64),
        };
        Ok(Claims {
            person,
            nonce: all.get("nonce").and_then(Value::as_str).map(str::to_owned),
            all: all.clone(),
        })
    }

    /// The texts in a claim that holds a list, or the one text that it is; none when the claim is not there.
    pub fn groups(&self, claim: &str) -> Option<Vec<String>> {
        let texts = match find(&self.all, claim)? {
            Value::String(text) => vec![text.as_str()],
            Value::Array(list) => list.iter().filter_map(Value::as_str).take(GROUPS_MAX).collect(),
            // Zitadel has an object whose keys are the roles.
            Value::Object(map) => map.keys().take(GROUPS_MAX).map(String::as_str).collect(),
            _ => return None,
        };
        // A name with something in it that is not seen is not mended: it would be another group's name then.
        // Nor is one that is a peer or a resource in a policy file.
        let whole = texts
            .into_iter()
            .filter(|text| !text.is_empty() && short(text) == *text && not_a_group(text).is_none());
        Some(whole.map(str::to_owned).collect())
    }

    /// The same of the token that a login is made of: providers (Keycloak for one) leave a claim out that would be empty, so that
    /// one which is not there says that there are no groups. It says nothing where the provider has put the list elsewhere, as
    /// Entra does with more groups than fit a token.
    pub fn groups_at_login(&self, claim: &str) -> Option<Vec<String>> {
        let elsewhere = self.all.contains_key("_claim_names") || is_true(self.all.get("hasgroups"));
        match find(&self.all, claim) {
            None | Some(Value::Null) if !elsewhere => Some(Vec::new()),
            _ => self.groups(claim),
        }
    }
}

/// A claim by its name, or by its way through objects with dots between: `realm_access.roles`.
fn find<'a>(all: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    // A name with dots in it, a URL for example, comes before a way.
    if let Some(value) = all.get(claim) {
        return Some(value);
    }
    let (first, rest) = claim.split_once('.')?;
    find(all.get(first)?.as_object()?, rest)
}

fn short(text: &str) -> String {
    crate::text::printable(text, TEXT_MAX).trim().to_owned()
}

/// Some providers write it as a text.
fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.as_bool() == Some(true) || value.as_str() == Some("true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: Value) -> Result<Claims, TokenError> {
        let options = OidcOptions::new("https://idp.example", "c");
        Claims::read(claims.as_object().unwrap(), &options)
    }

    #[test]
    fn claims_are_found_by_name_or_by_their_way() {
        let claims = read(json!({"sub": "u", "name": "Ann\u{1b}[31m", "email": "a@example.org", "iat": 7,
            "email_verified": "true", "groups": ["a", 5, "b", "", "a\u{200e}", "peer:a", "resource:b"], "realm_access": {"roles": ["x"]},
            "https://x.example/groups": "one", "urn:roles": {"admin": {"1": "o"}}}))
        .unwrap();
        assert_eq!(
            (claims.person.name.as_str(), claims.person.email_verified, claims.person.at),
            ("Ann[31m", true, 7000)
        );
        let groups = |claim: &str| claims.groups(claim);
        assert_eq!(groups("groups").unwrap(), ["a", "b"]);
        assert_eq!(groups("realm_access.roles").unwrap(), ["x"]);
        assert_eq!(groups("https://x.example/groups").unwrap(), ["one"]);
        assert_eq!(groups("urn:roles").unwrap(), ["admin"]);
        assert_eq!(groups("nothing"), None);
        assert_eq!(groups("iat"), None);
    }

    #[test]
    fn at_a_login_a_claim_that_is_left_out_is_an_empty_list_unless_it_is_elsewhere() {
        let at_login = |claims: Value, claim: &str| read(claims).unwrap().groups_at_login(claim);
        let none = Some(Vec::new());
        assert_eq!(at_login(json!({"sub": "u"}), "groups"), none);
        assert_eq!(at_login(json!({"sub": "u", "groups": null, "hasgroups": false}), "groups"), none);
        assert_eq!(at_login(json!({"sub": "u", "realm_access": {}}), "realm_access.roles"), none);
        assert_eq!(at_login(json!({"sub": "u", "groups": ["a"]}), "groups").unwrap(), ["a"]);
        assert_eq!(at_login(json!({"sub": "u", "groups": 5}), "groups"), None, "there, and not to be read");
        for marker in [
            json!({"sub": "u", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}}),
            json!({"sub": "u", "hasgroups": true}),
            json!({"sub": "u", "hasgroups": "true"}),
        ] {
            assert_eq!(at_login(marker.clone(), "groups"), None, "{marker}");
        }
    }

    #[test]
    fn without_a_subject_there_is_nobody_and_an_address_counts_only_when_verified() {
        for wrong in [json!({}), json!({"sub": ""}), json!({"sub": ["a"]}), json!({"sub": "x".repeat(256)})] {
            assert!(matches!(read(wrong), Err(TokenError::Claim(_))));
        }
        let claims = read(json!({"sub": "u", "email": "a@b", "preferred_username": "ann"})).unwrap();
        assert_eq!((claims.person.name.as_str(), claims.person.email_verified), ("ann", false));
    }
}
