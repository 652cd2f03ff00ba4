//! Where control is.

use std::fmt;

use anyhow::{Context as _, bail};
use tonic::transport::Uri;

/// `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// Reads a URL; scheme and port must be there, a path must not.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is not the URL of a control; write it as https://HOST:PORT");
        let uri: Uri = text.parse().with_context(wrong)?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            bail!(wrong());
        }
        let host = uri.host().filter(|h| !h.is_empty()).with_context(wrong)?;
        let port = uri.port_u16().with_context(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port })
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_families_are_read_and_written_alike() {
        for text in ["https://control.example:443", "https://192.0.2.1:8443", "https://[2001:db8::1]:8443"] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse("https://[2001:db8::1]:1").unwrap().host(), "2001:db8::1");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["http://c:1", "https://c", "c:1", "https://:1", "https://c:1/path", "https://c:99999", ""]
        {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }
}
