//! Where control finds its data and listens: flag before environment before file before default. Secrets are in no flag:
//! those are shown to every user of the host.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;

use crate::identity::oidc::OidcOptions;
use crate::identity::{IdentityOptions, LocalUsers};
use crate::rest::cors::Origins;
use crate::rest::limits::{BURST, Rates};
use crate::store::Location;

const DATA_DIR: &str = "/var/lib/sluicegate/control";
const HTTP: &str = "127.0.0.1:8080";
const GRPC: &str = "[::]:8443";
/// Read when `--config` names no other file; it need not be there.
const CONFIG: &str = "/etc/sluicegate/control.toml";
/// For how many days before today sums of flows are kept where nothing is said, and at most.
const FLOW_DAYS: u32 = 30;
const FLOW_DAYS_MAX: u32 = 366;
/// The password of the store's database.
const PASSWORD: &str = "SLUICEGATE_CONTROL_STORE_PASSWORD";

/// Flags of every verb: where the data is.
#[derive(Args, Clone, Debug, Default)]
pub struct DataArgs {
    /// Directory of the store, the authority's key and the bootstrap token [default: /var/lib/sluicegate/control]
    #[arg(long, value_name = "DIR", env = "SLUICEGATE_CONTROL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The store: sqlite:/PATH, or postgres://USER@HOST/DATABASE [default: control.db in the data directory]
    #[arg(long, value_name = "URL", env = "SLUICEGATE_CONTROL_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// File with the password of the store's database [default: SLUICEGATE_CONTROL_STORE_PASSWORD of the environment]
    #[arg(long, value_name = "FILE", env = "SLUICEGATE_CONTROL_STORE_PASSWORD_FILE")]
    pub store_password_file: Option<PathBuf>,
    /// File with `data_dir`, `http`, `grpc`, `[store]`, `[audit]`, `[flows]`, `[geo]`, `[rest]`, `[oidc]` and `[local_users]` [default: /etc/sluicegate/control.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SLUICEGATE_CONTROL_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Flags of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data: DataArgs,
    /// Address of the REST API, plain HTTP: put TLS in front of it beyond this host [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SLUICEGATE_CONTROL_HTTP")]
    pub http: Option<SocketAddr>,
    /// Address of the agents' service, TLS by control's own authority [default: port 8443 of every address]
    #[arg(long, value_name = "ADDR", env = "SLUICEGATE_CONTROL_GRPC")]
    pub grpc: Option<SocketAddr>,
    /// Geo database of MaxMind's format (GeoLite2 or GeoIP2, Country or City), for posture checks that name places
    #[arg(long, value_name = "FILE", env = "SLUICEGATE_CONTROL_GEO_DATABASE")]
    pub geo_database: Option<PathBuf>,
}

/// Where the data is.
#[derive(Clone, Debug)]
pub struct Data {
    /// Directory of the authority's key and the bootstrap token, and of the store where that is not elsewhere.
    pub directory: PathBuf,
    /// The store.
    pub store: Location,
}

/// What `serve` goes by.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the data is.
    pub data: Data,
    /// Address of the REST API.
    pub http: SocketAddr,
    /// Address of the agents' service.
    pub grpc: SocketAddr,
    /// For how many days audit events are kept; 0 keeps them all.
    pub retention_days: u32,
    /// For how many days before today sums of flows are kept.
    pub flow_days: u32,
    /// Where addresses are.
    pub geo_database: Option<PathBuf>,
    /// How much each caller may ask of the REST API.
    pub rates: Rates,
    /// Pages of other origins that may ask the REST API.
    pub origins: Origins,
    /// How people prove who they are.
    pub identity: IdentityOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    #[serde(default)]
    store: StoreSection,
    #[serde(default)]
    audit: AuditSection,
    #[serde(default)]
    flows: FlowsSection,
    #[serde(default)]
    rest: RestSection,
    #[serde(default)]
    geo: GeoSection,
    #[serde(default)]
    oidc: Option<OidcOptions>,
    #[serde(default)]
    local_users: LocalUsers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreSection {
    url: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditSection {
    #[serde(default)]
    retention_days: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowsSection {
    retention_days: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestSection {
    burst: Option<u32>,
    #[serde(default)]
    trusted_proxies: Vec<IpNet>,
    #[serde(default)]
    origins: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GeoSection {
    database: Option<PathBuf>,
}

impl Data {
    /// The flags with what file and defaults add.
    pub fn resolve(args: DataArgs) -> anyhow::Result<Self> {
        let file = ConfigFile::of(&args)?;
        Self::with(args, &file)
    }

    fn with(args: DataArgs, file: &ConfigFile) -> anyhow::Result<Self> {
        let directory = args.data_dir.or(file.data_dir.clone()).unwrap_or_else(|| DATA_DIR.into());
        let password = match args.store_password_file.as_ref().or(file.store.password_file.as_ref()) {
            Some(path) => Some(secret(path)?),
            None => std::env::var(PASSWORD).ok(),
        };
        let store = match args.store.as_ref().or(file.store.url.as_ref()) {
            Some(url) => Location::parse(url, password.as_deref())?,
            None if password.is_some() => {
                bail!(
                    "a password of the store's database is given, and no database: add `url` to [store], or --store"
                )
            }
            None => Location::file_in(&directory),
        };
        Ok(Data { directory, store })
    }
}

impl Options {
    /// The flags with what file and defaults add.
    pub fn resolve(args: ServeArgs) -> anyhow::Result<Self> {
        let file = ConfigFile::of(&args.data)?;
        let address = |flag: Option<SocketAddr>, file: Option<SocketAddr>, default: &str| match flag.or(file)
        {
            Some(address) => Ok(address),
            None => default.parse().with_context(|| format!("{default} is no address")),
        };
        Ok(Options {
            http: address(args.http, file.http, HTTP)?,
            grpc: address(args.grpc, file.grpc, GRPC)?,
            retention_days: file.audit.retention_days,
            flow_days: flow_days(&file.flows)?,
            rates: Rates {
                burst: file.rest.burst.unwrap_or(BURST),
                trusted_proxies: file.rest.trusted_proxies.clone(),
            },
            origins: Origins::parse(&file.rest.origins).map_err(anyhow::Error::msg)?,
            geo_database: args.geo_database.or_else(|| file.geo.database.clone()),
            identity: IdentityOptions { oidc: file.oidc.clone(), local_users: file.local_users },
            data: Data::with(args.data, &file)?,
        })
    }
}

impl ConfigFile {
    fn of(args: &DataArgs) -> anyhow::Result<Self> {
        match &args.config {
            Some(path) => read(path),
            None if Path::new(CONFIG).exists() => read(Path::new(CONFIG)),
            None => Ok(ConfigFile::default()),
        }
    }
}

/// For how many days sums of flows are kept.
fn flow_days(section: &FlowsSection) -> anyhow::Result<u32> {
    let days = section.retention_days.unwrap_or(FLOW_DAYS);
    if !(1..=FLOW_DAYS_MAX).contains(&days) {
        bail!("[flows] retention_days is {days}, and can be 1 to {FLOW_DAYS_MAX}");
    }
    Ok(days)
}

/// The first line of a file: whoever writes one leaves a line break at its end.
fn secret(path: &Path) -> anyhow::Result<String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::InvalidData => bail!("{} is no text", path.display()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the password file {}", path.display()));
        }
    };
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("the password file {} is empty: its first line is the password", path.display()),
    }
}

fn read(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the configuration {} is wrong", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Path) -> ServeArgs {
        let data = DataArgs { config: Some(config.to_owned()), ..DataArgs::default() };
        ServeArgs { data, ..ServeArgs::default() }
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        std::fs::write(&path, "data_dir = \"/srv/x\"\nhttp = \"127.0.0.1:1\"\n").unwrap();
        let http = Some("127.0.0.1:2".parse().unwrap());
        let options = Options::resolve(ServeArgs { http, ..args(&path) }).unwrap();
        assert_eq!(options.data.directory, Path::new("/srv/x"));
        assert_eq!(options.data.store.name(), "/srv/x/control.db");
        assert_eq!(options.http, "127.0.0.1:2".parse().unwrap());
        assert_eq!(options.grpc, GRPC.parse().unwrap());
    }

    #[test]
    fn a_store_elsewhere_is_named_by_its_url_and_the_password_comes_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, password) = (directory.path().join("control.toml"), directory.path().join("password"));
        let text = format!("[store]\nurl = \"postgres://u@db/x\"\npassword_file = {password:?}\n");
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", Options::resolve(args(&path)).unwrap_err());
        assert!(error.contains("cannot read the password file"), "{error}");
        std::fs::write(&password, "\n").unwrap();
        let error = format!("{:#}", Options::resolve(args(&path)).unwrap_err());
        assert!(error.contains("is empty"), "{error}");
        std::fs::write(&password, "secret\n").unwrap();
        let options = Options::resolve(args(&path)).unwrap();
        assert_eq!(options.data.store.name(), "postgres://u@db:5432/x");
        let store = Some("sqlite:/srv/y.db".to_owned());
        let data = DataArgs { store, ..args(&path).data };
        assert!(Data::resolve(data).unwrap_err().to_string().contains("password"));
    }

    #[test]
    fn audit_events_are_kept_for_ever_unless_the_file_says_how_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        for (text, days) in [("", 0), ("[audit]\n", 0), ("[audit]\nretention_days = 90\n", 90)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Options::resolve(args(&path)).unwrap().retention_days, days);
        }
        std::fs::write(&path, "[audit]\nretention_days = -1\n").unwrap();
        assert!(format!("{:#}", Options::resolve(args(&path)).unwrap_err()).contains("retention_days"));
    }

    #[test]
    fn sums_of_flows_are_kept_for_a_month_unless_the_file_says_how_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        for (text, days) in [("", 30), ("[flows]\n", 30), ("[flows]\nretention_days = 366\n", 366)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Options::resolve(args(&path)).unwrap().flow_days, days);
        }
        for wrong in [0, 367] {
            std::fs::write(&path, format!("[flows]\nretention_days = {wrong}\n")).unwrap();
            let error = format!("{:#}", Options::resolve(args(&path)).unwrap_err());
            assert!(error.contains("can be 1 to 366"), "{error}");
        }
    }

    #[test]
    fn callers_are_limited_unless_the_file_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        let proxies = "[rest]\nburst = 0\ntrusted_proxies = [\"127.0.0.0/8\", \"::1/128\"]\n";
        for (text, burst, count) in [("", BURST, 0), ("[rest]\nburst = 9\n", 9, 0), (proxies, 0, 2)] {
            std::fs::write(&path, text).unwrap();
            let rates = Options::resolve(args(&path)).unwrap().rates;
            assert_eq!((rates.burst, rates.trusted_proxies.len()), (burst, count));
        }
    }

    #[test]
    fn pages_of_other_origins_are_named_exactly_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        std::fs::write(&path, "").unwrap();
        assert!(Options::resolve(args(&path)).unwrap().origins.is_empty());
        std::fs::write(&path, "[rest]\norigins = [\"https://dash.example\", \"http://[::1]:3000\"]\n")
            .unwrap();
        assert!(!Options::resolve(args(&path)).unwrap().origins.is_empty());
        for wrong in
            ["*", "null", "https://dash.example/", "https://*.example", "dash.example", "http://dash.example"]
        {
            std::fs::write(&path, format!("[rest]\norigins = [{wrong:?}]\n")).unwrap();
            let error = format!("{:#}", Options::resolve(args(&path)).unwrap_err());
            assert!(error.contains("[rest] origins") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_geo_database_is_named_by_flag_or_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        std::fs::write(&path, "[geo]\ndatabase = \"/srv/a.mmdb\"\n").unwrap();
        let of = |args| Options::resolve(args).unwrap().geo_database;
        assert_eq!(of(args(&path)).as_deref(), Some(Path::new("/srv/a.mmdb")));
        let flag = Some("/srv/b.mmdb".into());
        assert_eq!(of(ServeArgs { geo_database: flag.clone(), ..args(&path) }), flag);
        std::fs::write(&path, "").unwrap();
        assert_eq!(of(args(&path)), None);
    }

    #[test]
    fn there_are_no_built_in_users_unless_the_file_says_so_and_set_up_is_open_only_where_it_says_that_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        for (text, enabled, open) in [
            ("", false, false),
            ("[local_users]\n", false, false),
            ("[local_users]\nenabled = true\n", true, false),
            ("[local_users]\nenabled = true\nopen_setup = true\n", true, true),
        ] {
            std::fs::write(&path, text).unwrap();
            let local = Options::resolve(args(&path)).unwrap().identity.local_users;
            assert_eq!((local.enabled, local.open_setup), (enabled, open), "{text}");
        }
        std::fs::write(&path, "[local_users]\nenable = true\n").unwrap();
        assert!(format!("{:#}", Options::resolve(args(&path)).unwrap_err()).contains("enable"));
    }

    #[test]
    fn a_wrong_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        std::fs::write(&path, "htpp = \"127.0.0.1:1\"\n").unwrap();
        let error = format!("{:#}", Options::resolve(args(&path)).unwrap_err());
        assert!(error.contains("control.toml") && error.contains("htpp"), "{error}");
        let error = format!("{:#}", Options::resolve(args(&path.with_extension("gone"))).unwrap_err());
        assert!(error.contains("control.gone"), "{error}");
    }
}
