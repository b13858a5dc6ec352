//! Connections over TLS.

use std::path::Path;
use std::sync::Arc;

use super::super::listen::{Server, Settings};
use super::super::{Limits, ServerError, TlsFiles};
use super::{Fake, Running, SOON};

/// Puts a fresh certificate for 127.0.0.1 into a directory and returns it as a root to trust.
pub(super) fn certify(directory: &Path) -> (TlsFiles, reqwest::Certificate) {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let files = TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.certificate, issued.cert.pem()).expect("writes");
    std::fs::write(&files.key, issued.signing_key.serialize_pem()).expect("writes");
    let root = reqwest::Certificate::from_pem(issued.cert.pem().as_bytes()).expect("a certificate");
    (files, root)
}

pub(super) fn install_provider() {
    // Another test may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(super) fn trusting(root: &reqwest::Certificate) -> reqwest::ClientBuilder {
    install_provider();
    reqwest::Client::builder().tls_certs_only([root.clone()]).no_proxy()
}

pub(super) fn tls(files: TlsFiles) -> Running {
    let listen_tls = vec!["127.0.0.1:0".parse().expect("an address")];
    Running::start(Settings { listen_tls, tls: Some(files), ..Settings::default() })
}

#[tokio::test]
async fn tls_speaks_http2_and_http1() {
    let directory = tempfile::tempdir().expect("a directory");
    let (files, root) = certify(directory.path());
    let server = tls(files);
    let url = format!("https://{}/ten", server.address);
    for (client, version) in
        [(trusting(&root), http::Version::HTTP_2), (trusting(&root).http1_only(), http::Version::HTTP_11)]
    {
        let answer = client.build().expect("a client").get(&url).send().await.expect("answers");
        assert_eq!(answer.version(), version);
        assert_eq!(answer.bytes().await.expect("a body"), "0123456789");
    }
}

#[tokio::test]
async fn a_reloaded_certificate_is_used_for_new_connections_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let (files, old) = certify(directory.path());
    let server = tls(files.clone());
    let url = format!("https://{}/ten", server.address);
    let (_, new) = certify(directory.path());
    let works = async |root| trusting(root).build().expect("a client").get(&url).send().await.is_ok();
    assert!(works(&old).await && !works(&new).await);
    server.reload.reload().expect("reloads");
    assert!(works(&new).await && !works(&old).await);

    std::fs::write(&files.key, "not a key").expect("writes");
    let error = server.reload.reload().expect_err("not a key").to_string();
    assert!(error.contains("key.pem"), "{error}");
    assert!(works(&new).await);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_in_its_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (files, _) = certify(directory.path());
    let server = Running::start(Settings {
        listen_tls: vec!["127.0.0.1:0".parse().expect("an address")],
        tls: Some(files),
        limits: Limits { handshake_timeout: SOON, ..Limits::default() },
        ..Settings::default()
    });
    assert_eq!(server.ask("").await, "");
}

#[tokio::test]
async fn an_address_for_https_needs_a_certificate() {
    let settings =
        Settings { listen_tls: vec!["127.0.0.1:0".parse().expect("an address")], ..Settings::default() };
    let bound = Server::with(settings, Arc::new(Fake::default()), Arc::default());
    assert!(matches!(bound, Err(ServerError::NoCertificate)));
}
