//! What verbs about single objects share: finding them, changing them, showing them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::setup_key::group_ids;
use crate::args::Switch;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Group, Peer};
use crate::terminal::Terminal;

/// A kind of object.
pub(crate) struct Kind {
    /// For people: `route`.
    pub(crate) word: &'static str,
    /// Name in JSON: `route`.
    pub(crate) schema: &'static str,
    /// The fields it may be named by, beside `id`.
    pub(crate) names: &'static [&'static str],
    /// The command that lists them.
    pub(crate) list: &'static str,
}

impl Kind {
    /// The one of `items` with this id, or else the only one of this name.
    pub(crate) fn find<'v>(&self, items: &'v [Value], wanted: &str) -> Result<&'v Value, Failure> {
        let word = self.word;
        if let Some(found) = items.iter().find(|item| item["id"] == wanted) {
            return Ok(found);
        }
        let named: Vec<&Value> =
            items.iter().filter(|item| self.names.iter().any(|name| item[*name] == wanted)).collect();
        match named[..] {
            [found] => Ok(found),
            [] => {
                Err(Failure::usage(format!("there is no {word} '{wanted}'"))
                    .next(format!("see `{}`", self.list)))
            }
            _ => {
                let ids: Vec<&str> = named.iter().filter_map(|item| item["id"].as_str()).collect();
                Err(Failure::usage(format!(
                    "{} objects are called '{wanted}': each is a {word}",
                    named.len()
                ))
                .next(format!("name one by its id: {}", ids.join(", "))))
            }
        }
    }

    /// Says that an object was made or changed: `did` is "Made" or "Changed".
    pub(crate) fn done(&self, terminal: &mut Terminal<'_>, did: &str, object: &Value) -> Result<(), Failure> {
        if terminal.is_json() {
            return terminal.json(self.schema, json!({ self.schema.replace('-', "_"): object }));
        }
        terminal.line(format!("{did} the {} {} ({}).", self.word, self.name_of(object), text(object, "id")))
    }

    /// Deletes what is at `path`, and says so.
    pub(crate) async fn delete(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
        path: &str,
        object: &Value,
    ) -> Result<(), Failure> {
        let _: Value = client.delete(path).await?;
        if terminal.is_json() {
            return terminal.json(
                "deleted",
                json!({ "deleted": { "kind": self.schema, "id": object["id"],
                "name": self.name_of(object) } }),
            );
        }
        terminal.line(format!("Deleted the {} {} ({}).", self.word, self.name_of(object), text(object, "id")))
    }

    fn name_of<'v>(&self, object: &'v Value) -> &'v str {
        self.names
            .iter()
            .filter_map(|name| object[*name].as_str())
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }
}

/// The names of groups and peers by id.
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Of groups and peers.
    pub(crate) async fn load(client: &Client) -> Result<Self, Failure> {
        let groups: Vec<Group> = client.get("/api/groups").await?;
        let peers: Vec<Peer> = client.get("/api/peers").await?;
        let groups = groups.into_iter().map(|group| (group.id, group.name));
        Ok(Self(groups.chain(peers.into_iter().map(|peer| (peer.id, peer.name))).collect()))
    }

    /// One, or the id of what is not there any more.
    pub(crate) fn of<'n>(&'n self, id: &'n str) -> &'n str {
        self.0.get(id).map_or(id, String::as_str)
    }

    /// Those of a list of ids, in order of the names.
    pub(crate) fn list(&self, ids: &Value) -> String {
        let ids = ids.as_array().map_or(&[][..], Vec::as_slice);
        let mut names: Vec<&str> = ids.iter().filter_map(Value::as_str).map(|id| self.of(id)).collect();
        names.sort_unstable();
        names.join(", ")
    }
}

/// The id of a peer, named by id or name.
pub(crate) async fn peer_id(client: &Client, wanted: &str) -> Result<String, Failure> {
    let peers: Vec<Value> = client.get("/api/peers").await?;
    let kind = Kind { word: "peer", schema: "peer", names: &["name"], list: "sluice peer list" };
    Ok(text(kind.find(&peers, wanted)?, "id").to_owned())
}

/// Sets a list of groups where any is named; the empty name alone stands for none.
pub(crate) async fn set_groups(
    client: &Client,
    object: &mut Value,
    field: &str,
    named: &[String],
) -> Result<(), Failure> {
    if !named.is_empty() {
        object[field] = group_ids(client, given(named)?).await?.into();
    }
    Ok(())
}

/// What was named in a list that is replaced; nothing where only the empty name was. Beside others it is refused.
pub(crate) fn given(named: &[String]) -> Result<&[String], Failure> {
    match named {
        [only] if only.is_empty() => Ok(&[]),
        _ if named.iter().any(String::is_empty) => {
            Err(Failure::usage("a name in a list of several is empty: nothing was changed")
                .why("'' empties a list alone; beside other names it may be a shell variable that is not set")
                .next("leave the empty one out, or give it its name"))
        }
        _ => Ok(named),
    }
}

/// Sets a field where a value is named.
pub(crate) fn set<T: Into<Value>>(object: &mut Value, field: &str, value: Option<T>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}

/// Sets a switch where it is named.
pub(crate) fn switch(object: &mut Value, field: &str, value: Option<Switch>) {
    set(object, field, value.map(Switch::is_on));
}

/// A field as text; empty where it is none.
pub(crate) fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object[field].as_str().unwrap_or_default()
}

/// A list of texts.
pub(crate) fn texts(list: &Value) -> String {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// `on` or `off`.
pub(crate) fn on(object: &Value, field: &str) -> &'static str {
    if object[field] == true { "on" } else { "off" }
}

/// Prints an object's fields, one on each line; those without a value as `-`.
pub(crate) fn fields(terminal: &mut Terminal<'_>, fields: &[(&str, &str)]) -> Result<(), Failure> {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in fields {
        let value = if value.is_empty() { crate::human::NONE } else { value };
        terminal.line(format!("{name:<width$}  {value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Kind =
        Kind { word: "route", schema: "route", names: &["network_id"], list: "sluice route list" };

    #[test]
    fn an_id_goes_before_a_name_and_a_name_must_be_the_only_one() {
        let items = [
            json!({"id": "a", "network_id": "one"}),
            json!({"id": "b", "network_id": "a"}),
            json!({"id": "c", "network_id": "two"}),
            json!({"id": "d", "network_id": "two"}),
        ];
        let id = |wanted: &str| ROUTE.find(&items, wanted).map(|item| text(item, "id").to_owned());
        assert_eq!(id("one"), Ok("a".into()));
        assert_eq!(id("a"), Ok("a".into()));
        let none = id("three").unwrap_err();
        assert_eq!((none.kind.exit_code(), none.next.as_deref()), (2, Some("see `sluice route list`")));
        let both = id("two").unwrap_err();
        assert!(both.next.unwrap().ends_with("c, d"));
    }

    #[test]
    fn an_empty_name_empties_a_list_and_nothing_leaves_it() {
        assert_eq!(given(&["".into()]).unwrap(), Vec::<String>::new());
        assert_eq!(given(&["a".into(), "b".into()]).unwrap(), ["a", "b"]);
        let mut object = json!({"x": 1, "on": true});
        set(&mut object, "x", None::<u16>);
        switch(&mut object, "on", Some(Switch::Off));
        assert_eq!(object, json!({"x": 1, "on": false}));
    }

    #[test]
    fn an_empty_name_beside_others_is_refused() {
        for named in [["", "a"], ["a", ""], ["", ""]] {
            let failure = given(&named.map(str::to_owned)).unwrap_err();
            assert!(failure.kind.exit_code() == 2 && failure.why.is_some() && failure.next.is_some());
        }
    }
}
