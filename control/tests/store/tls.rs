//! A database elsewhere is believed by its certificate alone.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sluicegate_control::store::{Actor, Location, Store};

use crate::postgres;
use crate::world::{group, open};

/// Writes an authority, and a certificate of it for the addresses of loopback.
fn certificates(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("ca.pem"), root.pem()).unwrap();
    std::fs::write(directory.join("server.pem"), leaf.pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(directory.join("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
}

/// A port that nothing listens on, of both families.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_servers_certificate_must_be_of_the_authority_and_of_the_name() {
    let port = free_port();
    let server = postgres::start(port, |directory| {
        certificates(directory);
        let setting =
            |name: &str, file: &str| ["-c".to_owned(), format!("{name}={}", directory.join(file).display())];
        let fixed = ["-c", "ssl=on", "-c", "listen_addresses=127.0.0.1,::1"].map(str::to_owned);
        fixed
            .into_iter()
            .chain(setting("ssl_cert_file", "server.pem"))
            .chain(setting("ssl_key_file", "server.key"))
            .collect()
    });
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let url = |host: &str, ca: &Path| {
        let ca = ca.join("ca.pem");
        format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={}", ca.display())
    };
    for host in ["127.0.0.1", "[::1]"] {
        let directory = tempfile::tempdir().unwrap();
        let store =
            open(&Location::parse(&url(host, &server.directory), None).unwrap(), directory.path()).await;
        store.create_group(&Actor::system(), group(host)).await.unwrap();
        store.close().await;
    }
    for (host, ca, said) in
        [("127.0.0.1", other.path(), "UnknownIssuer"), ("localhost", &server.directory, "NotValidForName")]
    {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::parse(&url(host, ca), None).unwrap();
        let error = Store::open_at(&location, directory.path()).await.err().unwrap().to_string();
        assert!(
            error.contains("cannot be reached") && (error.contains(said) || error.contains("certificate")),
            "{error}"
        );
    }
}
