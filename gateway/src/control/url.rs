//! Where control is, or its replicas are.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

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

/// The replicas of one control: all of them have the same policies, and any of them will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls(Vec<Url>);

impl Urls {
    /// Reads URLs with commas between them; there must be one.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(Self(text.split(',').map(|url| Url::parse(url.trim())).collect::<Result<_, _>>()?))
    }

    /// All of them, in the order they were given.
    pub fn all(&self) -> &[Url] {
        &self.0
    }

    /// Where an agent begins: anywhere, so that a thousand agents do not all begin with the first.
    pub(super) fn any(&self) -> usize {
        // The standard library seeds each of these from the system's random numbers.
        let random = RandomState::new().build_hasher().finish();
        usize::try_from(random % self.0.len() as u64).unwrap_or_default()
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
    fn several_are_separated_by_commas_and_none_may_be_wrong() {
        let urls = Urls::parse("https://a:1, https://[2001:db8::1]:2").unwrap();
        let texts: Vec<String> = urls.all().iter().map(Url::to_string).collect();
        assert_eq!(texts, ["https://a:1", "https://[2001:db8::1]:2"]);
        assert!(urls.any() < 2);
        for text in ["", ",", "https://a:1,", "https://a:1 https://b:1", "https://a:1,b:1"] {
            assert!(Urls::parse(text).is_err(), "{text:?}");
        }
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
