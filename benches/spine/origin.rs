//! The upstream of the cold rows: serves the content over a link as slow as asked for, and counts. For the
//! rows on outages it can be told to do otherwise.
//!
//! Runs in the benchmark's own process, one thread a connection. Without a limit bodies go by
//! `sendfile`, so that the origin is not what is measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::common::{Outcome, hex, next_request};
use crate::content::MANIFEST;

/// Bytes that pass the link at a time when it is limited.
const PIECE: usize = 64 * 1024;

/// What a link has queued, as a network card has: it goes on at its rate while the thread that feeds it is late.
const QUEUED: Duration = Duration::from_millis(5);

/// A link to upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Added before each answer.
    pub(crate) delay: Duration,
    /// What all connections share.
    pub(crate) bytes_per_second: Option<f64>,
}

impl Link {
    /// As quick as loopback is.
    pub(crate) const QUICK: Self = Self { delay: Duration::ZERO, bytes_per_second: None };
    /// 50 ms away, no limit to the rate.
    pub(crate) const FAR: Self = Self { delay: Duration::from_millis(50), bytes_per_second: None };
    /// 50 ms away, 1 Gbit/s.
    pub(crate) const FAR_AND_NARROW: Self =
        Self { delay: Duration::from_millis(50), bytes_per_second: Some(125e6) };
}

/// What upstream does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers them.
    Well,
    /// Takes them and says nothing.
    Silent,
    /// Answers that there are too many of them.
    Limiting,
    /// Nobody listens any more.
    Gone,
}

/// A running origin. Goes on until the process ends, or until it is told to be gone.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    link: Link,
    mood: Mutex<Mood>,
    /// When the link will have passed all that was given to it.
    busy_until: Mutex<Instant>,
    gets: Mutex<BTreeMap<String, u64>>,
}

impl Origin {
    /// Starts serving the files below `directory`.
    pub(crate) fn start(directory: PathBuf, link: Link) -> Outcome<Self> {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            directory,
            link,
            mood: Mutex::new(Mood::Well),
            busy_until: Mutex::new(Instant::now()),
            gets: Mutex::default(),
        });
        let origin = Self { address, listener: Arc::clone(&listener), shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    if *lock(&shared.mood) == Mood::Gone {
                        break;
                    }
                    continue;
                };
                let shared = Arc::clone(&shared);
                // A peer that goes away is its own affair.
                thread::spawn(move || shared.converse(&stream));
            }
        });
        Ok(origin)
    }

    /// Changes its mind from the next request on. Who is gone does not come back.
    pub(crate) fn turn(&self, mood: Mood) -> Outcome<()> {
        *lock(&self.shared.mood) = mood;
        if mood == Mood::Gone {
            rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both)?;
        }
        Ok(())
    }

    /// How many GETs of `path` have arrived since this was last asked.
    pub(crate) fn take_gets(&self, path: &str) -> u64 {
        lock(&self.shared.gets).remove(path).unwrap_or_default()
    }
}

/// What a poisoned lock guards is still a number or a date.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Answers requests until the connection ends. Ranges are not known here: all answers are whole.
    fn converse(&self, stream: &TcpStream) -> Outcome<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some((method, path)) = next_request(&mut reader)? {
            let mood = *lock(&self.mood);
            match mood {
                Mood::Well => {}
                Mood::Silent => {
                    // Until the other side has had enough.
                    let _ = reader.read(&mut [0])?;
                    return Ok(());
                }
                Mood::Limiting => {
                    let refusal =
                        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n";
                    (&*stream).write_all(refusal.as_bytes())?;
                    continue;
                }
                Mood::Gone => return Ok(()),
            }
            thread::sleep(self.link.delay);
            if method == "GET" {
                *lock(&self.gets).entry(path.clone()).or_default() += 1;
            }
            self.answer(stream, &path, method == "GET")?;
        }
        Ok(())
    }

    /// Sends one answer, with its body or without.
    fn answer(&self, mut stream: &TcpStream, path: &str, with_body: bool) -> Outcome<()> {
        if path == "/v2/" {
            return Ok(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?);
        }
        let Ok(mut file) = File::open(self.directory.join(path.trim_start_matches('/'))) else {
            return Ok(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?);
        };
        let size = file.metadata()?.len();
        let (media_type, digest) = if let Some((_, digest)) = path.rsplit_once("/blobs/") {
            ("application/octet-stream", digest.to_owned())
        } else {
            let mut body = Vec::new();
            file.read_to_end(&mut body)?;
            file.seek(SeekFrom::Start(0))?;
            (MANIFEST, format!("sha256:{}", hex(&Sha256::digest(&body))))
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {size}\r\n\
             Docker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        match self.link.bytes_per_second {
            _ if !with_body => {}
            None => {
                std::io::copy(&mut file, &mut stream)?;
            }
            Some(rate) => {
                let mut piece = vec![0; PIECE];
                loop {
                    let read = file.read(&mut piece)?;
                    if read == 0 {
                        break;
                    }
                    self.pass(read, rate);
                    stream.write_all(&piece[..read])?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the link, which all connections share, has passed `bytes`.
    fn pass(&self, bytes: usize, rate: f64) {
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a piece is far below 2^52 bytes")]
        let takes = Duration::from_secs_f64(bytes as f64 / rate);
        let until = {
            let mut busy_until = lock(&self.busy_until);
            *busy_until = (*busy_until).max(now.checked_sub(QUEUED).unwrap_or(now)) + takes;
            *busy_until
        };
        thread::sleep(until.saturating_duration_since(now));
    }
}
