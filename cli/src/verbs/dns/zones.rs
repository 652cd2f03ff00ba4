//! `sluice dns zone` and `sluice dns record`.

use serde_json::{Value, json};

use crate::args::{Record, Zone as Asked, ZoneFields};
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::{self, Terminal};
use crate::verbs::object::{Kind, Names, fields, on, set, set_groups, switch, text};
use crate::verbs::on_off;

const PATH: &str = "/api/dns/zones";
const ZONE: Kind =
    Kind { word: "zone", schema: "dns-zone", names: &["domain", "name"], list: "sluice dns zone list" };
const RECORD: Kind =
    Kind { word: "record", schema: "dns-record", names: &["name"], list: "sluice dns record list ZONE" };

pub(super) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Show { zone } => show(client, terminal, &zone).await,
        Asked::Create { domain, what } => {
            let mut body = json!({ "name": domain, "domain": domain, "enabled": true });
            apply(client, &mut body, &what).await?;
            let made: Value = client.post(PATH, &body).await?;
            ZONE.done(terminal, "Made", &made)
        }
        Asked::Update { zone, what } => {
            let (path, _) = find(client, &zone).await?;
            let (mut body, version) = client.versioned(&path).await?;
            apply(client, &mut body, &what).await?;
            ZONE.done(terminal, "Changed", &client.replace(&path, &body, version).await?)
        }
        Asked::Delete { zone } => {
            let (path, zone) = find(client, &zone).await?;
            ZONE.delete(client, terminal, &path, &zone).await
        }
    }
}

/// What is asked of records.
pub(super) async fn records(
    client: &Client,
    terminal: &mut Terminal<'_>,
    asked: Record,
) -> Result<(), Failure> {
    match asked {
        Record::List { zone } => {
            let (_, zone) = find(client, &zone).await?;
            if terminal.is_json() {
                return terminal.json("dns-records", json!({ "dns_records": zone["records"] }));
            }
            table(terminal, &zone)
        }
        Record::Create { zone, name, kind, content, ttl } => {
            let (zone, _) = find(client, &zone).await?;
            let body = json!({ "name": name, "type": kind.name(), "content": content, "ttl": ttl });
            let made: Value = client.post(&format!("{zone}/records"), &body).await?;
            RECORD.done(terminal, "Made", &made)
        }
        Record::Update { zone, record, name, content, ttl } => {
            let (path, _) = find_record(client, &zone, &record).await?;
            let (mut body, version) = client.versioned(&path).await?;
            set(&mut body, "name", name);
            set(&mut body, "content", content);
            set(&mut body, "ttl", ttl);
            RECORD.done(terminal, "Changed", &client.replace(&path, &body, version).await?)
        }
        Record::Delete { zone, record } => {
            let (path, record) = find_record(client, &zone, &record).await?;
            RECORD.delete(client, terminal, &path, &record).await
        }
    }
}

async fn find(client: &Client, wanted: &str) -> Result<(String, Value), Failure> {
    let zones: Vec<Value> = client.get(PATH).await?;
    let found = ZONE.find(&zones, wanted)?;
    Ok((format!("{PATH}/{}", text(found, "id")), found.clone()))
}

async fn find_record(client: &Client, zone: &str, wanted: &str) -> Result<(String, Value), Failure> {
    let (path, zone) = find(client, zone).await?;
    let found = RECORD.find(zone["records"].as_array().map_or(&[][..], Vec::as_slice), wanted)?;
    Ok((format!("{path}/records/{}", text(found, "id")), found.clone()))
}

async fn apply(client: &Client, body: &mut Value, what: &ZoneFields) -> Result<(), Failure> {
    set_groups(client, body, "distribution_groups", &what.groups).await?;
    set(body, "name", what.name.as_deref());
    switch(body, "enable_search_domain", what.search);
    switch(body, "enabled", what.enabled);
    Ok(())
}

async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut zones: Vec<Value> = client.get(PATH).await?;
    zones.sort_by_key(|zone| text(zone, "domain").to_owned());
    if terminal.is_json() {
        return terminal.json("dns-zones", json!({ "dns_zones": zones }));
    }
    let names = Names::load(client).await?;
    let rows = zones.iter().map(|zone| {
        vec![
            terminal::text(text(zone, "domain")),
            terminal::text(text(zone, "name")),
            terminal::text(zone["records"].as_array().map_or(0, Vec::len).to_string()),
            terminal::text(names.list(&zone["distribution_groups"])),
            on_off(zone["enabled"] == true),
            terminal::text(text(zone, "id")),
        ]
    });
    let nothing = "No zones. Make one with `sluice dns zone create DOMAIN --group GROUP`.";
    terminal.table(&["DOMAIN", "NAME", ">RECORDS", "FOR", "ON", "~ID"], rows.collect(), nothing)
}

async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let (_, zone) = find(client, wanted).await?;
    if terminal.is_json() {
        return terminal.json("dns-zone", json!({ "dns_zone": zone }));
    }
    let names = Names::load(client).await?;
    fields(
        terminal,
        &[
            ("Domain", text(&zone, "domain")),
            ("Name", text(&zone, "name")),
            ("Id", text(&zone, "id")),
            ("Searched", on(&zone, "enable_search_domain")),
            ("For", &names.list(&zone["distribution_groups"])),
            ("Enabled", on(&zone, "enabled")),
        ],
    )?;
    terminal.line("")?;
    table(terminal, &zone)
}

fn table(terminal: &mut Terminal<'_>, zone: &Value) -> Result<(), Failure> {
    let records = zone["records"].as_array().map_or(&[][..], Vec::as_slice);
    let mut records: Vec<&Value> = records.iter().collect();
    records.sort_by_key(|record| (text(record, "name"), text(record, "type"), text(record, "content")));
    let rows = records.into_iter().map(|record| {
        vec![
            terminal::text(text(record, "name")),
            terminal::text(text(record, "type")),
            terminal::text(text(record, "content")),
            terminal::text(record["ttl"].to_string()),
            terminal::text(text(record, "id")),
        ]
    });
    terminal.table(&["NAME", "TYPE", "CONTENT", ">TTL", "~ID"], rows.collect(), "No records.")
}
