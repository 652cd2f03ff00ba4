//! `sluice setup-key`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{read, read_all};
use crate::args::SetupKeyCreate;
use crate::client::Client;
use crate::config::write_private;
use crate::error::Failure;
use crate::human::ago;
use crate::rest::{Group, SetupKey};
use crate::terminal::{Terminal, Tone, cell, text};

/// Prints all keys; the keys themselves are masked by control.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/setup-keys").await?;
    if terminal.is_json() {
        return terminal.json("setup-keys", json!({ "setup_keys": items }));
    }
    let mut keys: Vec<SetupKey> = read_all(&items, "a setup key")?;
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    let groups: Vec<Group> = client.get("/api/groups").await?;
    let groups: BTreeMap<String, String> = groups.into_iter().map(|group| (group.id, group.name)).collect();
    let now = terminal.now;
    let rows = keys.iter().map(|key| {
        let tone = if key.state == "valid" { Tone::Good } else { Tone::Bad };
        let limit = if key.usage_limit == 0 { "any number".to_owned() } else { key.usage_limit.to_string() };
        let names: Vec<&str> =
            key.auto_groups.iter().map(|id| groups.get(id).unwrap_or(id).as_str()).collect();
        let expires = if key.expires.is_empty() { "never".to_owned() } else { ago(&key.expires, now) };
        vec![
            text(&key.name),
            cell(tone, &key.state),
            text(&key.r#type),
            text(format!("{} of {limit}", key.used_times)),
            text(expires),
            text(ago(&key.last_used, now)),
            text(names.join(", ")),
            text(masked(&key.key)),
            text(&key.id),
        ]
    });
    let headers = ["NAME", "STATE", "TYPE", "USED", "EXPIRES", "~LAST USED", "GROUPS", "~KEY", "~ID"];
    terminal.table(
        &headers,
        rows.collect(),
        "No setup keys. Make one with `sluice setup-key create --name NAME`.",
    )
}

/// The authority that agents are to pin, as control tells it with a new key.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Authority {
    /// SHA-256 of its certificate, hex.
    control_fingerprint: String,
}

/// Makes a key, and prints or writes the content of a key file.
pub(crate) async fn create(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &SetupKeyCreate,
) -> Result<(), Failure> {
    if let Some(file) = &options.key_file {
        // The key is shown only once: find out before it is made.
        check_writable(file)?;
    }
    let body = json!({
        "name": options.name,
        "type": if options.reusable { "reusable" } else { "one-off" },
        "expires_in": options.expires_in.as_secs(),
        "usage_limit": if options.reusable { options.usage_limit } else { 1 },
        "auto_groups": group_ids(client, &options.groups).await?,
        "ephemeral": options.ephemeral,
        "allow_extra_dns_labels": options.allow_dns_labels,
    });
    let created: Value = client.post("/api/setup-keys", &body).await?;
    let key: SetupKey = read(&created, "a setup key")?;
    let authority: Authority = read(&created, "a setup key")?;
    let content = match authority.control_fingerprint.as_str() {
        "" => key.key.clone(),
        fingerprint => format!("{}#sha256:{}", key.key, fingerprint.trim_start_matches("sha256:")),
    };
    if let Some(file) = &options.key_file {
        write_private(file, &format!("{content}\n")).map_err(|error| {
            // Lost it would be useless: say how to get rid of it.
            Failure::failed(format!("the key was made, but {} could not be written", file.display()))
                .why(error)
                .next(format!("revoke the key with id {} and make another", key.id))
        })?;
    }
    if terminal.is_json() {
        let file_content = options.key_file.is_none().then_some(&content);
        let mut shown = created;
        if options.key_file.is_some() {
            shown["key"] = Value::Null;
        }
        return terminal.json(
            "setup-key",
            json!({ "setup_key": shown, "key_file": options.key_file, "key_file_content": file_content }),
        );
    }
    match &options.key_file {
        Some(file) => {
            terminal.line(format!("Wrote the key '{}' to {} (mode 0600).", key.name, file.display()))?
        }
        None => terminal.line(&content)?,
    }
    let with = match authority.control_fingerprint.as_str() {
        "" => " --ca-file CA.pem",
        _ => "",
    };
    let (once, file) = match &options.key_file {
        Some(file) => ("", file.display().to_string()),
        None => ("The key is shown only now: keep that line in a file. ", "FILE".to_owned()),
    };
    terminal.note(format!(
        "{once}Join a machine with it (a gateway with --role gateway):\n  \
         sluicegate-gateway join --control https://HOST:PORT --role peer --setup-key-file {file}{with}"
    ));
    Ok(())
}

/// The letters of a masked key, and that there are more.
fn masked(key: &str) -> String {
    format!("{}...", key.trim_end_matches('*'))
}

/// Group ids from names or ids.
pub(super) async fn group_ids(client: &Client, wanted: &[String]) -> Result<Vec<String>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let groups: Vec<Group> = client.get("/api/groups").await?;
    wanted
        .iter()
        .map(|name| {
            groups
                .iter()
                .find(|group| group.name == *name || group.id == *name)
                .map(|group| group.id.clone())
                .ok_or_else(|| {
                    Failure::usage(format!("there is no group '{name}'"))
                        .next("see `sluice group list`, or make it with `sluice policy apply`")
                })
        })
        .collect()
}

fn check_writable(file: &Path) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::usage(format!("cannot write {}", file.display()))
            .why(format!("there is no folder {}", folder.display()))
            .next("make the folder first; no key was made"));
    }
    Ok(())
}
