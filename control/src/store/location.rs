//! Where the store is: a file, or a PostgreSQL database.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The store's place.
#[derive(Clone, Debug)]
pub enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PgConnectOptions>),
}

/// Why a URL names no store. The URL is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// Another scheme.
    #[error("the store's URL begins with {0:?}: it must be sqlite:/PATH or postgres://USER@HOST/DATABASE")]
    Scheme(String),
    /// A path that depends on where the process was started.
    #[error(
        "the store's URL names the file {0:?}: an SQLite store needs an absolute path, as in sqlite:/var/lib/sluicegate/control/control.db"
    )]
    Relative(String),
    /// PostgreSQL's part of it is wrong.
    #[error(
        "the store's URL cannot be read: {0}; it is to look like postgres://USER@HOST:5432/DATABASE?sslmode=verify-full"
    )]
    Postgres(sqlx::Error),
    /// No database is named; PostgreSQL would take the user's name.
    #[error("the store's URL names no database: add it, as in postgres://USER@HOST:5432/DATABASE")]
    NoDatabase,
    /// A password for a file.
    #[error(
        "a password is given, and the store is a file: remove the password, or name a PostgreSQL database"
    )]
    Password,
}

impl Location {
    /// The file in `directory` that is the store where nothing else is said.
    pub fn file_in(directory: &Path) -> Self {
        Location::Sqlite(directory.join(super::FILE))
    }

    /// Reads `url`; `password` counts before one that is in it.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, LocationError> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !path.starts_with('/') || path.ends_with('/') {
                    return Err(LocationError::Relative(path.to_owned()));
                }
                match password {
                    Some(_) => Err(LocationError::Password),
                    None => Ok(Location::Sqlite(path.into())),
                }
            }
            "postgres" | "postgresql" => postgres(url, password),
            other => Err(LocationError::Scheme(other.chars().take(20).collect())),
        }
    }

    /// How messages name it: never with a password.
    pub fn name(&self) -> String {
        match self {
            Location::Sqlite(path) => path.display().to_string(),
            Location::Postgres(options) => {
                let host = match options.get_socket() {
                    Some(socket) => socket.display().to_string(),
                    None if options.get_host().contains(':') => format!("[{}]", options.get_host()),
                    None => options.get_host().to_owned(),
                };
                let database = options.get_database().unwrap_or_default();
                format!("postgres://{}@{host}:{}/{database}", options.get_username(), options.get_port())
            }
        }
    }
}

fn postgres(url: &str, password: Option<&str>) -> Result<Location, LocationError> {
    let mut options = PgConnectOptions::from_str(url).map_err(LocationError::Postgres)?;
    if let Some(password) = password {
        options = options.password(password);
    }
    // A URL has an IPv6 address in brackets, a certificate has it without.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    options = options.host(&host);
    if options.get_database().is_none_or(str::is_empty) {
        return Err(LocationError::NoDatabase);
    }
    // Groups, keys and policies travel here: beyond this host only to whom the certificate shows to be the database.
    let said = url.contains("sslmode=") || url.contains("ssl-mode=");
    if !said && !is_local(&options) {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(Location::Postgres(Box::new(options.application_name("sluicegate-control"))))
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    options.get_socket().is_some() || host.starts_with('/') || host == "localhost" || loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> PgSslMode {
        match Location::parse(url, None).unwrap() {
            Location::Postgres(options) => options.get_ssl_mode(),
            Location::Sqlite(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn urls_of_both_kinds_are_read_and_others_are_refused_without_being_repeated() {
        for url in ["sqlite:/srv/a.db", "sqlite:///srv/a.db"] {
            assert_eq!(Location::parse(url, None).unwrap().name(), "/srv/a.db");
        }
        let secret = Location::parse("postgres://u:secret@db.example:6432/x", None).unwrap();
        assert_eq!(secret.name(), "postgres://u@db.example:6432/x");
        let socket =
            Location::parse("postgres://u@localhost/x?host=/run/postgresql", Some("secret")).unwrap();
        assert_eq!(socket.name(), "postgres://u@/run/postgresql:5432/x");
        for (url, said) in [
            ("mysql://u:secret@h/x", "mysql"),
            ("sqlite:a.db", "absolute"),
            ("sqlite:", "absolute"),
            ("postgres://u:secret@h", "names no database"),
            ("postgres://u:secret@h/x?sslmode=maybe", "cannot be read"),
        ] {
            let error = Location::parse(url, None).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
        assert!(Location::parse("sqlite:/a", Some("secret")).is_err());
    }

    #[test]
    fn a_database_elsewhere_must_show_who_it_is_unless_the_url_says_otherwise() {
        assert!(matches!(mode("postgres://u@192.0.2.7/x"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://u@[2001:db8::7]/x"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://u@db.example/x?sslmode=require"), PgSslMode::Require));
        for local in ["127.0.0.1", "[::1]", "localhost"] {
            assert!(matches!(mode(&format!("postgres://u@{local}/x")), PgSslMode::Prefer), "{local}");
        }
        assert!(matches!(mode("postgres://u@localhost/x?host=/run/postgresql"), PgSslMode::Prefer));
    }
}
