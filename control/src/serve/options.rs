//! Where control finds its data and listens: flag before environment before file before default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;

const DATA_DIR: &str = "/var/lib/sluicegate/control";
const HTTP: &str = "127.0.0.1:8080";
const GRPC: &str = "[::]:8443";
/// Read when `--config` names no other file; it need not be there.
const CONFIG: &str = "/etc/sluicegate/control.toml";

/// Flags of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Directory of the store, the authority's key and the bootstrap token [default: /var/lib/sluicegate/control]
    #[arg(long, value_name = "DIR", env = "SLUICEGATE_CONTROL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the REST API, plain HTTP: put TLS in front of it beyond this host [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SLUICEGATE_CONTROL_HTTP")]
    pub http: Option<SocketAddr>,
    /// Address of the agents' service, TLS by control's own authority [default: port 8443 of every address]
    #[arg(long, value_name = "ADDR", env = "SLUICEGATE_CONTROL_GRPC")]
    pub grpc: Option<SocketAddr>,
    /// File with `data_dir`, `http` and `grpc` [default: /etc/sluicegate/control.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SLUICEGATE_CONTROL_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What `serve` goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory of everything control keeps.
    pub data_dir: PathBuf,
    /// Address of the REST API.
    pub http: SocketAddr,
    /// Address of the agents' service.
    pub grpc: SocketAddr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
}

impl Options {
    /// The flags with what file and defaults add.
    pub fn resolve(args: ServeArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None if Path::new(CONFIG).exists() => read(Path::new(CONFIG))?,
            None => ConfigFile::default(),
        };
        let address = |flag: Option<SocketAddr>, file: Option<SocketAddr>, default: &str| match flag.or(file)
        {
            Some(address) => Ok(address),
            None => default.parse().with_context(|| format!("{default} is no address")),
        };
        Ok(Options {
            data_dir: args.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            http: address(args.http, file.http, HTTP)?,
            grpc: address(args.grpc, file.grpc, GRPC)?,
        })
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
        ServeArgs { config: Some(config.to_owned()), ..ServeArgs::default() }
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.toml");
        std::fs::write(&path, "data_dir = \"/srv/x\"\nhttp = \"127.0.0.1:1\"\n").unwrap();
        let http = Some("127.0.0.1:2".parse().unwrap());
        let options = Options::resolve(ServeArgs { http, ..args(&path) }).unwrap();
        assert_eq!(options.data_dir, Path::new("/srv/x"));
        assert_eq!(options.http, "127.0.0.1:2".parse().unwrap());
        assert_eq!(options.grpc, GRPC.parse().unwrap());
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
