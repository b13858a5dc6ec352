//! Eviction under a full limit: far more is pulled than it lets in, while clients ask for what is hot.

use std::fs;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::common::book::Goal;
use crate::common::process::{Server, free_address, run_when_idle};
use crate::common::transfer::{Connection, discard, verify};
use crate::common::{Item, MIB, Outcome, SplitMix, check, hex, next_request};
use crate::place::{Tails, beside};
use crate::rows::{Bench, Book, Side};

/// How many times as much there is as the limit lets in.
const TIMES: u64 = 8;
/// Bytes of what is pulled, and of what is hot.
const LARGE: u64 = MIB;
const SMALL: u64 = 4096;
/// Things that are hot.
const HOT: u64 = 200;
/// Connections that pull, and what each leaves between two pulls: together some 100 MiB a second.
const PULLERS: u64 = 4;
const GAP: Duration = Duration::from_millis(40);
/// Of so many pulls the bytes of one are compared.
const COMPARE: u64 = 16;

/// Files by their number: the first ones are hot, the others large.
#[derive(Debug)]
struct Files {
    noise: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let mut noise = vec![0; usize::try_from(LARGE).unwrap_or_default()];
        SplitMix(1).fill(&mut noise);
        Self { noise }
    }

    /// The number, and noise that all share.
    fn body(&self, number: u64) -> ([u8; 8], &[u8]) {
        let size = if number < HOT { SMALL } else { LARGE };
        let noise = self.noise.get(8..usize::try_from(size).unwrap_or_default()).unwrap_or_default();
        (number.to_le_bytes(), noise)
    }

    fn item(&self, number: u64) -> Item {
        let (first, rest) = self.body(number);
        let digest = Sha256::new().chain_update(first).chain_update(rest).finalize();
        let size = (first.len() + rest.len()) as u64;
        Item { path: format!("/generic/files/{number}"), size, digest: hex(&digest) }
    }

    /// Serves them; goes on until the process ends.
    fn serve(self: &Arc<Self>) -> Outcome<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let files = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = Arc::clone(&files);
                // A peer that goes away is its own affair.
                thread::spawn(move || files.converse(&stream));
            }
        });
        Ok(address)
    }

    fn converse(&self, mut stream: &TcpStream) -> Outcome<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some((method, path)) = next_request(&mut reader)? {
            let number = path.split('/').find_map(|word| word.parse::<u64>().ok()).unwrap_or_default();
            let (first, rest) = self.body(number);
            let size = first.len() + rest.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: \"{number}\"\r\n\
                 Cache-Control: max-age=86400\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            if method == "GET" {
                stream.write_all(&first)?;
                stream.write_all(rest)?;
            }
        }
        Ok(())
    }
}

/// How long as much is pulled without a limit: longer, and what is pulled would be there already.
const UNLIMITED: Duration = Duration::from_secs(15);

/// The rows.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let (limit, duration) = (bench.scale.limit, bench.scale.churn);
    let unlimited = churn(bench, None, duration.min(UNLIMITED))?;
    let seen = churn(bench, Some(limit), duration)?;

    let name = |what: &str| format!("eviction, {TIMES} times oversubscribed: {what}");
    // On a busy machine nobody may have looked at the right moment in the two seconds of the quick form.
    if bench.scale.judged && seen.most <= limit / 2 {
        let (most, limit, looks) = (mebibytes(seen.most), mebibytes(limit), seen.looks);
        return Err(
            format!("of {limit} MiB {most:.1} were seen at most in {looks} looks: no limit shows").into()
        );
    }
    let goal = Goal::Ceiling(mebibytes(limit));
    book.note(&name("most bytes"), "MiB", goal, Side::Repoxy, mebibytes(seen.most));
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let looks = seen.looks as f64;
    book.note(&name("looks at the bytes"), "", Goal::None, Side::Repoxy, looks);
    let goal = Goal::AtMost(2.0, Side::Reference);
    let bare = name("hits' p99 without a limit");
    for (name, goal, tails) in [(name("hits' p99"), goal, seen.tails), (bare, Goal::None, unlimited.tails)] {
        book.note(&name, "ms", goal, Side::Repoxy, tails.beside);
        book.note(&name, "ms", goal, Side::Reference, tails.alone);
    }
    let rate = mebibytes(seen.pulled) / duration.as_secs_f64();
    book.note(&name("pulled"), "MiB/s", Goal::None, Side::Repoxy, rate);
    book.note(&name("memory"), "MiB", Goal::None, Side::Repoxy, seen.memory);
    Ok(())
}

/// What was seen while much was pulled.
struct Churned {
    /// The most bytes that lay in the store, and how often it was looked.
    most: u64,
    looks: u64,
    /// Of hits.
    tails: Tails,
    /// Bytes that were pulled.
    pulled: u64,
    /// The most memory that the server took, in MiB.
    memory: f64,
}

/// Pulls for so long while clients ask for what is hot.
fn churn(bench: &Bench, limit: Option<u64>, duration: Duration) -> Outcome<Churned> {
    let files = Arc::new(Files::new());
    let directory = bench.directory.join("eviction");
    fs::create_dir_all(&directory)?;
    let server = start(&bench.binary, &directory, files.serve()?, limit, &files.item(0).path)?;
    let hot: Vec<_> = (0..HOT).map(|number| files.item(number)).collect();
    let cold = HOT..HOT + TIMES * bench.scale.limit / LARGE;
    let cold: Vec<_> = cold.map(|number| files.item(number)).collect();
    let watched = || watched_pull(server.address, &cold, duration, &directory.join("root/type/generic"));
    let ((pulled, (most, looks)), tails) = beside(&server, &hot, bench.scale.load, watched)?;
    check(server.address, &hot.iter().collect::<Vec<_>>())?;
    let memory = server.memory()?.peak;
    drop(server);
    fs::remove_dir_all(&directory)?;
    Ok(Churned { most, looks, tails, pulled, memory })
}

/// Pulls; how many bytes came, the most that lay below `store` meanwhile, and how often it was looked.
fn watched_pull(
    address: SocketAddr,
    items: &[Item],
    duration: Duration,
    store: &Path,
) -> Outcome<(u64, (u64, u64))> {
    let over = AtomicBool::new(false);
    let watch = || -> Outcome<(u64, u64)> {
        run_when_idle()?;
        let (mut most, mut looks) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            // In the order in which a file moves, turned round, so that none is seen twice.
            let bytes = ["trash", "blobs", "proxies/files/tmp"].map(|below| bytes_below(&store.join(below)));
            most = most.max(bytes.iter().sum());
            looks += 1;
            thread::sleep(Duration::from_millis(20));
        }
        Ok((most, looks))
    };
    thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        let pulled = pull(address, items, duration);
        over.store(true, Ordering::Relaxed);
        let seen = watcher.join().map_err(|_| "the watcher panicked")??;
        Ok((pulled?, seen))
    })
}

fn start(
    binary: &Path,
    directory: &Path,
    upstream: SocketAddr,
    limit: Option<u64>,
    path: &str,
) -> Outcome<Server> {
    let address = free_address()?;
    let config = directory.join("repoxy.toml");
    let limit = limit.map(|limit| format!("max_bytes = \"{limit}B\"\n")).unwrap_or_default();
    let text = format!(
        "root = \"file://{}/root\"\nlisten = \"{address}\"\n[gc]\nmin_free = \"1%\"\n{limit}\
         [log]\nlevel = \"error\"\n[[proxy]]\ntype = \"generic\"\nname = \"files\"\nupstream = \"http://{upstream}\"\n",
        directory.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(config);
    Server::start(&mut command, address, path, &directory.join("log"))
}

/// Pulls one after the other, in no order, for so long; how many bytes came.
fn pull(address: SocketAddr, items: &[Item], duration: Duration) -> Outcome<u64> {
    let puller = |seed: u64| -> Outcome<u64> {
        let (mut random, mut connection) = (SplitMix(seed), Connection::open(address)?);
        // Each begins elsewhere, so that they do not move in step.
        let step = GAP / u32::try_from(PULLERS)? * u32::try_from(seed)?;
        let (began, mut bytes) = (Instant::now() + step, 0);
        for number in 0_u32.. {
            let next = began + GAP * number;
            if next > began + duration {
                break;
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
            let chosen = random.next() % items.len() as u64;
            let Some(item) = usize::try_from(chosen).ok().and_then(|chosen| items.get(chosen)) else {
                continue;
            };
            if u64::from(number) % COMPARE == 0 {
                verify(&mut connection, item)?;
            } else {
                discard(&mut connection, item)?;
            }
            bytes += item.size;
        }
        Ok(bytes)
    };
    thread::scope(|scope| {
        let pullers: Vec<_> = (0..PULLERS).map(|seed| scope.spawn(move || puller(seed))).collect();
        pullers.into_iter().map(|puller| puller.join().map_err(|_| "a puller panicked")?).sum()
    })
}

/// Bytes of all files below a directory; what goes meanwhile is not there.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[expect(clippy::cast_precision_loss, reason = "for a table")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
