//! What `sluice login` remembers, and which control and token a command uses.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::error::{Failure, Kind};

/// Longest token file that is read, bytes: tokens have 40, JSON web tokens a few thousand.
const TOKEN_FILE_MAX: u64 = 65_536;

/// The file `sluice login` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Control's address.
    pub url: String,
    /// The personal access token for it.
    pub token: String,
}

/// A control and the token to speak to it with.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Base address without a trailing slash.
    pub url: Url,
    /// The token.
    pub token: String,
}

impl Target {
    /// What the flags say, and the stored login for the rest.
    pub fn resolve(global: &Global) -> Result<(Self, Option<String>), Failure> {
        let stored = match (&global.url, &global.token_file) {
            (Some(_), Some(_)) => None,
            _ => Config::read(&Config::path(global)?)?,
        };
        let (config, warning) = stored.unzip();
        let Some(url) = global.url.as_deref().or(config.as_ref().map(|c| c.url.as_str())) else {
            return Err(not_logged_in(
                "no control is known: there is no --url, no SLUICE_URL and no stored login",
            ));
        };
        let url = parse_url(url)?;
        if let Some(file) = &global.token_file {
            return Ok((Target { url, token: read_token(file)? }, None));
        }
        // A token must not travel to another control than the one that gave it out.
        match config {
            Some(config) if parse_url(&config.url)? == url => {
                Ok((Target { url, token: config.token }, warning.flatten()))
            }
            Some(config) => Err(not_logged_in(format!("no token for {}", shown(&url)))
                .why(format!("the stored login is for {}, and its token is sent nowhere else", config.url))),
            None => Err(not_logged_in(format!("no token for {}", shown(&url)))),
        }
    }
}

impl Config {
    /// Where the file is: `--config`, else `$XDG_CONFIG_HOME` or `~/.config`.
    pub fn path(global: &Global) -> Result<PathBuf, Failure> {
        if let Some(path) = &global.config {
            return Ok(path.clone());
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The base directory specification: a relative path is to be ignored.
        let base = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let base = base.or_else(|| variable("HOME").map(|home| home.join(".config"))).ok_or_else(|| {
            Failure::usage("there is no place for the login: neither XDG_CONFIG_HOME nor HOME is set")
                .next("give --config FILE, or --url and --token-file")
        })?;
        Ok(base.join("sluicegate").join("cli.toml"))
    }

    /// Reads the file, with a remark when others may read it too; none when there is no file.
    pub fn read(path: &Path) -> Result<Option<(Self, Option<String>)>, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(
                    Failure::failed(format!("cannot read the login in {}", path.display())).why(error)
                );
            }
        };
        let config = toml::from_str(&text).map_err(|error| {
            Failure::failed(format!("the login in {} makes no sense", path.display()))
                .why(error.message())
                .next("write it anew with `sluice login --url URL --token-file FILE`")
        })?;
        let open = fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o077 != 0);
        let remark = open.then(|| {
            format!("warning: other users can read the token in {0}; run `chmod 600 {0}`", path.display())
        });
        Ok(Some((config, remark)))
    }

    /// Writes the file (mode 0600, replaced as a whole) and the folders above it (mode 0700).
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::failed(format!("cannot store the login in {}", path.display()))
                .why(error)
                .next("give another place with --config FILE")
        };
        let text = toml::to_string(self).map_err(|error| failed(std::io::Error::other(error)))?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        write_private(path, &text).map_err(failed)
    }
}

/// Writes a file that only its owner may read, in one step: readers see the old content or the new.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().ok_or_else(|| std::io::Error::other("that is no file name"))?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The error worth telling is the one above.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Reads a token: the first line of a file.
pub fn read_token(file: &Path) -> Result<String, Failure> {
    let what = || format!("cannot take a token from {}", file.display());
    let opened = fs::File::open(file).map_err(|error| Failure::new(Kind::NotConnected, what()).why(error))?;
    token_from(opened).map_err(|why| Failure::new(Kind::NotConnected, what()).why(why))
}

/// Reads a token from the first line of `reader`.
pub fn token_from(reader: impl std::io::Read) -> Result<String, String> {
    let mut text = String::new();
    let mut reader = reader.take(TOKEN_FILE_MAX);
    std::io::Read::read_to_string(&mut reader, &mut text).map_err(|error| error.to_string())?;
    let token = text.lines().next().unwrap_or_default().trim();
    match token {
        "" => Err("the first line is empty".into()),
        _ if !token.chars().all(|c| c.is_ascii_graphic()) => {
            Err("the first line has characters no token has".into())
        }
        _ => Ok(token.to_owned()),
    }
}

/// Takes control's address as people write it: a trailing slash or `/api` goes, `http` or `https` must be there.
pub fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("'{text}' is no address of a control"))
            .why(why)
            .next("write it like http://127.0.0.1:8080")
    };
    let mut url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(format!("'{}' is neither http nor https", url.scheme())));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(wrong("it may have host, port and path only".into()));
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

/// An address for messages, without the slash that an empty path has.
pub fn shown(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn not_logged_in(what: impl Into<String>) -> Failure {
    Failure::new(Kind::NotConnected, what).next("run `sluice login --url URL --token-file FILE`")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn global(config: &Path, extra: &[&str]) -> Global {
        let config = config.display().to_string();
        let words = ["sluice", "status", "--config", &config].into_iter().chain(extra.iter().copied());
        Cli::parse_from(words).global
    }

    #[test]
    fn a_login_is_private_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/cli.toml");
        let config = Config { url: "http://127.0.0.1:8080".into(), token: "nbp_abc".into() };
        config.write(&path).unwrap();
        config.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no leftovers");
        assert_eq!(Config::read(&path).unwrap(), Some((config, None)));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (_, remark) = Config::read(&path).unwrap().unwrap();
        assert!(remark.unwrap().contains("chmod 600"));
    }

    #[test]
    fn the_stored_token_goes_to_no_other_control() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cli.toml");
        Config { url: "http://one:1".into(), token: "nbp_one".into() }.write(&path).unwrap();
        let resolve = |extra: &[&str]| Target::resolve(&global(&path, extra));

        assert_eq!(resolve(&[]).ok().map(|(target, _)| target.token).as_deref(), Some("nbp_one"));
        assert!(resolve(&["--url", "http://one:1/"]).is_ok(), "the same control, written otherwise");
        let error = resolve(&["--url", "http://two:1"]).err().unwrap();
        assert_eq!(error.kind, Kind::NotConnected);
        assert!(error.why.unwrap().contains("http://one:1"));

        let token = dir.path().join("token");
        fs::write(&token, "nbp_two\n").unwrap();
        let (target, _) =
            resolve(&["--url", "http://two:1", "--token-file", token.to_str().unwrap()]).ok().unwrap();
        assert_eq!((shown(&target.url), target.token.as_str()), ("http://two:1", "nbp_two"));
    }

    #[test]
    fn without_a_login_the_next_step_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Target::resolve(&global(&dir.path().join("none.toml"), &[])).err().unwrap();
        assert_eq!(error.kind, Kind::NotConnected);
        assert!(error.next.unwrap().contains("sluice login"));
    }

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (text, meant) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://Control.example/api/", "https://control.example"),
            ("https://example/sluice/api", "https://example/sluice"),
        ] {
            assert_eq!(shown(&parse_url(text).unwrap()), meant);
        }
        for wrong in ["127.0.0.1:8080", "control", "ftp://x", "http://user:secret@x", "http://x/?a=b"] {
            assert_eq!(parse_url(wrong).unwrap_err().kind, Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn tokens_are_one_clean_line() {
        assert_eq!(token_from(&b"  nbp_x \nmore"[..]), Ok("nbp_x".into()));
        assert!(token_from(&b"\nnbp_x"[..]).is_err());
        assert!(token_from(&b"nbp x"[..]).is_err());
        assert!(token_from(&b"nbp_\x01"[..]).is_err());
    }
}
