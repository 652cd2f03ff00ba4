//! `sluice route`.

use serde_json::{Value, json};

use super::object::{Kind, Names, fields, on, peer_id, set, set_groups, switch, text};
use super::on_off;
use crate::args::{Route as Asked, RouteFields};
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::{self, Terminal};

const ROUTES: &str = "/api/routes";
const ROUTE: Kind =
    Kind { word: "route", schema: "route", names: &["network_id"], list: "sluice route list" };

pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Show { route } => show(client, terminal, &route).await,
        Asked::Create { name, network, what } => {
            named(&what.access_control_groups)?;
            let mut body = json!({ "network_id": name, "network": network, "metric": 100, "masquerade": true,
                "enabled": true });
            apply(client, &mut body, &what).await?;
            let made: Value = client.post(ROUTES, &body).await?;
            ROUTE.done(terminal, "Made", &made)
        }
        Asked::Update { route, name, network, open, what } => {
            named(&what.access_control_groups)?;
            let path = path(client, &route).await?.0;
            let (mut body, version) = client.versioned(&path).await?;
            set(&mut body, "network_id", name);
            set(&mut body, "network", network);
            apply(client, &mut body, &what).await?;
            if open {
                body["access_control_groups"] = json!([]);
            }
            ROUTE.done(terminal, "Changed", &client.replace(&path, &body, version).await?)
        }
        Asked::Delete { route } => {
            let (path, route) = path(client, &route).await?;
            ROUTE.delete(client, terminal, &path, &route).await
        }
    }
}

async fn path(client: &Client, wanted: &str) -> Result<(String, Value), Failure> {
    let routes: Vec<Value> = client.get(ROUTES).await?;
    let found = ROUTE.find(&routes, wanted)?;
    Ok((format!("{ROUTES}/{}", text(found, "id")), found.clone()))
}

/// Refuses an access control group without a name: where none is left, the route is open to everybody who gets it.
fn named(groups: &[String]) -> Result<(), Failure> {
    if !groups.iter().any(String::is_empty) {
        return Ok(());
    }
    Err(Failure::usage("--access-control-group has no name: nothing was changed")
        .why(
            "without access control groups a route is open to everybody who gets it, for everything,\n\
             and '' may be a shell variable that is not set",
        )
        .next(
            "name a group; to open a route, leave the flag out of `sluice route create`,\n\
             or run `sluice route update ROUTE --open`",
        ))
}

/// Takes over what was named.
async fn apply(client: &Client, body: &mut Value, what: &RouteFields) -> Result<(), Failure> {
    if let Some(peer) = &what.peer {
        body["peer"] = peer_id(client, peer).await?.into();
        body["peer_groups"] = json!([]);
    }
    if !what.peer_groups.is_empty() {
        body["peer"] = Value::Null;
    }
    set_groups(client, body, "peer_groups", &what.peer_groups).await?;
    set_groups(client, body, "groups", &what.groups).await?;
    set_groups(client, body, "access_control_groups", &what.access_control_groups).await?;
    set(body, "metric", what.metric);
    set(body, "description", what.description.as_deref());
    switch(body, "masquerade", what.masquerade);
    switch(body, "skip_auto_apply", what.skip_auto_apply);
    switch(body, "enabled", what.enabled);
    Ok(())
}

async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut routes: Vec<Value> = client.get(ROUTES).await?;
    routes.sort_by_key(|route| (text(route, "network_id").to_owned(), route["metric"].as_i64()));
    if terminal.is_json() {
        return terminal.json("routes", json!({ "routes": routes }));
    }
    let names = Names::load(client).await?;
    let rows = routes.iter().map(|route| {
        vec![
            terminal::text(text(route, "network_id")),
            terminal::text(text(route, "network")),
            terminal::text(by(route, &names)),
            terminal::text(route["metric"].to_string()),
            terminal::text(names.list(&route["groups"])),
            terminal::text(names.list(&route["access_control_groups"])),
            on_off(route["enabled"] == true),
            terminal::text(text(route, "id")),
        ]
    });
    let headings = ["NAME", "PREFIX", "BY", ">METRIC", "FOR", "~ACCESS CONTROL", "ON", "~ID"];
    terminal.table(
        &headings,
        rows.collect(),
        "No routes. Make one with `sluice route create NAME PREFIX --peer PEER --group GROUP`.",
    )
}

async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let (_, route) = path(client, wanted).await?;
    if terminal.is_json() {
        return terminal.json("route", json!({ "route": route }));
    }
    let names = Names::load(client).await?;
    let open = match names.list(&route["access_control_groups"]) {
        none if none.is_empty() => "everybody who gets it, for everything".to_owned(),
        groups => format!("what policies say of {groups}"),
    };
    fields(
        terminal,
        &[
            ("Name", text(&route, "network_id")),
            ("Id", text(&route, "id")),
            ("Prefix", text(&route, "network")),
            ("Description", text(&route, "description")),
            ("By", &by(&route, &names)),
            ("Metric", &route["metric"].to_string()),
            ("For", &names.list(&route["groups"])),
            ("Open to", &open),
            ("Masquerade", on(&route, "masquerade")),
            ("Only by choice", on(&route, "skip_auto_apply")),
            ("Enabled", on(&route, "enabled")),
        ],
    )
}

/// Who routes.
fn by(route: &Value, names: &Names) -> String {
    match route["peer"].as_str() {
        Some(peer) if !peer.is_empty() => names.of(peer).to_owned(),
        _ => format!("group {}", names.list(&route["peer_groups"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_control_group_without_a_name_opens_no_route() {
        assert_eq!((named(&[]), named(&["guards".into()])), (Ok(()), Ok(())));
        for groups in [&[""][..], &["guards", ""]] {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let failure = named(&groups).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            let (why, next) = (failure.why.unwrap(), failure.next.unwrap());
            assert!(why.contains("open to everybody") && next.contains("--open"));
        }
    }
}
