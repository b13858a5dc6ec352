//! Loads over TLS, by HTTP/1.1 and HTTP/2.
//!
//! The client is reqwest, which takes more of the machine than a server does: what a server needs for an
//! answer says more than how many there were.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::{Client, Version};
use sha2::{Digest as _, Sha256};

use crate::common::process::free_address;
use crate::common::{Item, Outcome, hex};

/// The longest that one answer may take.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Where a server listens for TLS, and with what.
#[derive(Debug)]
pub(crate) struct Door {
    /// Where.
    pub(crate) address: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
}

impl Door {
    /// A free address, and a certificate made for it, below `directory`.
    pub(crate) fn new(directory: &Path) -> Outcome<Self> {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        fs::write(&certificate, issued.cert.pem())?;
        fs::write(&key, issued.signing_key.serialize_pem())?;
        Ok(Self { address: free_address()?, certificate, key })
    }

    /// What repoxy is told.
    pub(crate) fn for_repoxy(&self) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!("[tls]\nlisten = \"{}\"\ncert = \"{certificate}\"\nkey = \"{key}\"\n", self.address)
    }

    /// What nginx is told, within a server.
    pub(crate) fn for_nginx(&self) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!(
            "listen {} ssl http2 backlog=4096; keepalive_timeout 1h;\n\
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;",
            self.address
        )
    }
}

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    /// HTTP/1.1 or HTTP/2.
    pub(crate) version: Version,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests at a time on each; one for HTTP/1.1.
    pub(crate) streams: usize,
    /// How long; each asks once at least.
    pub(crate) duration: Duration,
}

/// What they got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Got {
    /// Answers.
    pub(crate) answers: f64,
    /// Seconds from the first request to the last answer.
    pub(crate) seconds: f64,
}

/// Asks for the item until the time is over. The first answer on each connection is compared byte by byte,
/// the others' lengths are.
pub(crate) fn run(door: &Door, item: &Item, clients: Clients) -> Outcome<Got> {
    // An error means that it is done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url: Arc<str> = format!("https://{}{}", door.address, item.path).into();
    let threads = thread::available_parallelism()?.get().min(clients.connections);
    let began = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let (url, item) = (Arc::clone(&url), item.clone());
            thread::spawn(move || -> Outcome<u64> {
                let connections = (worker..clients.connections).step_by(threads).count();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(tokio::task::LocalSet::new().run_until(connections_of_a_thread(
                    url,
                    item,
                    clients,
                    connections,
                )))
            })
        })
        .collect();
    let mut answers = 0;
    for worker in workers {
        answers += worker.join().map_err(|_| "a load thread panicked")??;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok(Got { answers: answers as f64, seconds: began.elapsed().as_secs_f64() })
}

/// Some of the connections, on one thread.
async fn connections_of_a_thread(
    url: Arc<str>,
    item: Item,
    clients: Clients,
    connections: usize,
) -> Outcome<u64> {
    let until = Instant::now() + clients.duration;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let builder = Client::builder().no_proxy().danger_accept_invalid_certs(true).timeout(SILENCE_LIMIT);
        let client =
            if clients.version == Version::HTTP_2 { builder } else { builder.http1_only() }.build()?;
        let mut state = Sha256::new();
        fetch(&client, &url, &item, clients.version, |bytes| state.update(bytes)).await?;
        if hex(&state.finalize()) != item.digest {
            return Err(format!("wrong bytes: {url}").into());
        }
        for _ in 0..clients.streams {
            let (client, url, item) = (client.clone(), Arc::clone(&url), item.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let mut answers = 0;
                while Instant::now() < until {
                    fetch(&client, &url, &item, clients.version, |_| {}).await?;
                    answers += 1;
                }
                Ok::<u64, String>(answers)
            }));
        }
    }
    let mut answers = connections as u64;
    for task in tasks {
        answers += task.await??;
    }
    Ok(answers)
}

/// One answer, of the right version, status and length; `see` gets its body piece by piece.
async fn fetch(
    client: &Client,
    url: &str,
    item: &Item,
    version: Version,
    mut see: impl FnMut(&[u8]),
) -> Result<(), String> {
    let asked = async {
        let mut response = client.get(url).send().await?.error_for_status()?;
        let mut bytes = 0;
        while let Some(piece) = response.chunk().await? {
            see(&piece);
            bytes += piece.len() as u64;
        }
        Ok::<_, reqwest::Error>((response.version(), bytes))
    };
    let (spoken, bytes) = asked.await.map_err(|error| format!("{url}: {error:?}"))?;
    if (spoken, bytes) == (version, item.size) {
        Ok(())
    } else {
        Err(format!("{url}: {bytes} bytes by {spoken:?}, instead of {} by {version:?}", item.size))
    }
}
