//! `sluice dns`.

mod nameservers;
mod zones;

use serde_json::{Value, json};

use super::object::{Names, set_groups};
use crate::args::{Dns as Asked, DnsSettings};
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::Terminal;

const SETTINGS: &str = "/api/dns/settings";
const UNMANAGED: &str = "disabled_management_groups";

pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::Nameserver(asked) => nameservers::run(client, terminal, asked).await,
        Asked::Zone(asked) => zones::run(client, terminal, asked).await,
        Asked::Record(asked) => zones::records(client, terminal, asked).await,
        Asked::Settings(DnsSettings::Show) => {
            let settings: Value = client.get(SETTINGS).await?;
            settings_shown(client, terminal, &settings).await
        }
        Asked::Settings(DnsSettings::Set { unmanaged_groups }) => {
            let (mut settings, version) = client.versioned(SETTINGS).await?;
            set_groups(client, &mut settings, UNMANAGED, &unmanaged_groups).await?;
            let settings = client.replace(SETTINGS, &settings, version).await?;
            settings_shown(client, terminal, &settings).await
        }
    }
}

async fn settings_shown(
    client: &Client,
    terminal: &mut Terminal<'_>,
    settings: &Value,
) -> Result<(), Failure> {
    if terminal.is_json() {
        return terminal.json("dns-settings", json!({ "dns_settings": settings }));
    }
    let groups = Names::load(client).await?.list(&settings[UNMANAGED]);
    terminal.line(match groups.as_str() {
        "" => "Every peer gets the nameservers and zones of its groups.".to_owned(),
        groups => format!("Peers of these groups get neither nameservers nor zones: {groups}"),
    })
}
