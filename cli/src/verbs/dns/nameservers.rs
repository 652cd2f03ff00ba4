//! `sluice dns nameserver`.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::args::{Nameserver as Asked, NameserverFields};
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::{self, Terminal};
use crate::verbs::object::{Kind, Names, fields, given, on, set, set_groups, switch, text, texts};
use crate::verbs::on_off;

const PATH: &str = "/api/dns/nameservers";
const GROUP: Kind = Kind {
    word: "nameserver group",
    schema: "nameserver-group",
    names: &["name"],
    list: "sluice dns nameserver list",
};

pub(super) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Show { nameservers } => show(client, terminal, &nameservers).await,
        Asked::Create { name, what } => {
            let mut body = json!({ "name": name, "enabled": true });
            apply(client, &mut body, &what).await?;
            let made: Value = client.post(PATH, &body).await?;
            GROUP.done(terminal, "Made", &made)
        }
        Asked::Update { nameservers, name, what } => {
            let (path, _) = find(client, &nameservers).await?;
            let (mut body, version) = client.versioned(&path).await?;
            set(&mut body, "name", name);
            apply(client, &mut body, &what).await?;
            GROUP.done(terminal, "Changed", &client.replace(&path, &body, version).await?)
        }
        Asked::Delete { nameservers } => {
            let (path, group) = find(client, &nameservers).await?;
            GROUP.delete(client, terminal, &path, &group).await
        }
    }
}

async fn find(client: &Client, wanted: &str) -> Result<(String, Value), Failure> {
    let groups: Vec<Value> = client.get(PATH).await?;
    let found = GROUP.find(&groups, wanted)?;
    Ok((format!("{PATH}/{}", text(found, "id")), found.clone()))
}

async fn apply(client: &Client, body: &mut Value, what: &NameserverFields) -> Result<(), Failure> {
    if !what.servers.is_empty() {
        let server =
            |at: &SocketAddr| json!({ "ip": at.ip().to_string(), "ns_type": "udp", "port": at.port() });
        body["nameservers"] = what.servers.iter().map(server).collect();
    }
    if !what.domains.is_empty() {
        body["domains"] = given(&what.domains)?.into();
    }
    set_groups(client, body, "groups", &what.groups).await?;
    set(body, "description", what.description.as_deref());
    switch(body, "primary", what.primary);
    switch(body, "search_domains_enabled", what.search_domains);
    switch(body, "enabled", what.enabled);
    Ok(())
}

async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut groups: Vec<Value> = client.get(PATH).await?;
    groups.sort_by_key(|group| text(group, "name").to_owned());
    if terminal.is_json() {
        return terminal.json("nameserver-groups", json!({ "nameserver_groups": groups }));
    }
    let names = Names::load(client).await?;
    let rows = groups.iter().map(|group| {
        vec![
            terminal::text(text(group, "name")),
            terminal::text(servers(group)),
            terminal::text(answers(group)),
            terminal::text(names.list(&group["groups"])),
            on_off(group["enabled"] == true),
            terminal::text(text(group, "id")),
        ]
    });
    let nothing = "No nameserver groups. Make one with `sluice dns nameserver create NAME --server ADDRESS --group GROUP`.";
    terminal.table(&["NAME", "SERVERS", "ANSWER", "FOR", "ON", "~ID"], rows.collect(), nothing)
}

async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let (_, group) = find(client, wanted).await?;
    if terminal.is_json() {
        return terminal.json("nameserver-group", json!({ "nameserver_group": group }));
    }
    let names = Names::load(client).await?;
    fields(
        terminal,
        &[
            ("Name", text(&group, "name")),
            ("Id", text(&group, "id")),
            ("Description", text(&group, "description")),
            ("Servers", &servers(&group)),
            ("Answer", &answers(&group)),
            ("Searched", on(&group, "search_domains_enabled")),
            ("For", &names.list(&group["groups"])),
            ("Enabled", on(&group, "enabled")),
        ],
    )
}

fn answers(group: &Value) -> String {
    if group["primary"] == true { "every name".to_owned() } else { texts(&group["domains"]) }
}

/// Addresses, with a port where that is not 53.
fn servers(group: &Value) -> String {
    let servers = group["nameservers"].as_array().map_or(&[][..], Vec::as_slice);
    let shown = servers.iter().map(|server| {
        let port = server["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(53);
        match (text(server, "ip").parse::<IpAddr>(), port) {
            (Ok(ip), port) if port != 53 => SocketAddr::new(ip, port).to_string(),
            _ => text(server, "ip").to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shown_where_it_is_not_the_usual_one() {
        let group = json!({"nameservers": [{"ip": "9.9.9.9", "port": 53}, {"ip": "2620:fe::fe", "port": 5353},
            {"ip": "fd00::53", "port": 53}]});
        assert_eq!(servers(&group), "9.9.9.9, [2620:fe::fe]:5353, fd00::53");
    }
}
