//! The load of small answers: many kept connections, each asking for one path after the other.
//!
//! One thread a core, each with a runtime of its own, so that generating costs little beside serving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Item, Outcome, transfer};

/// Bytes read at a time.
const BUFFER: usize = 64 * 1024;
/// The longest that one answer may take.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What a load has shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Answers a second.
    pub(crate) per_second: f64,
    /// Milliseconds that 99 of 100 answers took at most.
    pub(crate) p99: f64,
}

/// How a load runs.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Connections that are kept busy.
    pub(crate) connections: usize,
    /// What each connection leaves between the beginnings of two requests; zero for as fast as it can.
    pub(crate) gap: Duration,
    /// How long it runs.
    pub(crate) duration: Duration,
    /// Ends it sooner.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Load {
    /// As fast as it can, for so long.
    pub(crate) fn flat_out(connections: usize, duration: Duration) -> Self {
        Self { connections, gap: Duration::ZERO, duration, stop: Arc::default() }
    }
}

/// Asks for the items in turn. Any answer that is not a 200 of the right length is an error.
pub(crate) fn run(address: SocketAddr, items: &[Item], load: &Load) -> Outcome<Shown> {
    let requests: Arc<[(Vec<u8>, u64)]> =
        items.iter().map(|item| (transfer::request(&item.path).into_bytes(), item.size)).collect();
    let threads = thread::available_parallelism()?.get().min(load.connections);
    let began = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let (requests, load) = (Arc::clone(&requests), load.clone());
            thread::spawn(move || worker_thread(address, &requests, worker, threads, &load, began))
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.join().map_err(|_| "a load thread panicked")??);
    }
    let seconds = began.elapsed().as_secs_f64();
    if latencies.is_empty() {
        return Err("not one answer in time".into());
    }
    latencies.sort_unstable();
    let p99 = latencies[(latencies.len() * 99 / 100).min(latencies.len() - 1)];
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok(Shown { per_second: latencies.len() as f64 / seconds, p99: f64::from(p99) / 1000.0 })
}

/// Runs every `threads`th connection; returns how many microseconds each answer took.
fn worker_thread(
    address: SocketAddr,
    requests: &Arc<[(Vec<u8>, u64)]>,
    worker: usize,
    threads: usize,
    load: &Load,
    began: Instant,
) -> Outcome<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (worker..load.connections)
        .step_by(threads)
        .map(|number| {
            let (requests, load) = (Arc::clone(requests), load.clone());
            local.spawn_local(async move {
                // Each connection begins elsewhere, so that they do not move in step.
                let start = number * requests.len() / load.connections;
                // One timer for all of it: one per request would cost more than some answers do.
                let patience = load.duration + SILENCE_LIMIT;
                tokio::time::timeout(patience, connection(address, &requests, start, &load, began)).await?
            })
        })
        .collect();
    runtime.block_on(local.run_until(async {
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        Ok(latencies)
    }))
}

/// Asks until the time is over.
async fn connection(
    address: SocketAddr,
    requests: &[(Vec<u8>, u64)],
    start: usize,
    load: &Load,
    began: Instant,
) -> Outcome<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    let mut latencies = Vec::with_capacity(1 << 16);
    let until = began + load.duration;
    let mut due = tokio::time::Instant::now();
    for (request, size) in requests.iter().cycle().skip(start) {
        if !load.gap.is_zero() {
            due = (due + load.gap).max(tokio::time::Instant::now());
            tokio::time::sleep_until(due).await;
        }
        let asked = Instant::now();
        if asked >= until || load.stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(request).await?;
        read_answer(&mut stream, &mut buffer, *size).await?;
        latencies.push(u32::try_from(asked.elapsed().as_micros())?);
    }
    Ok(latencies)
}

/// Reads one answer to its end and checks its status and length.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8], size: u64) -> Outcome<()> {
    let mut filled = 0;
    let (head_length, length) = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err("the connection ended in the middle of an answer".into());
        }
        filled += read;
        if let Some(head) = transfer::head(&buffer[..filled])? {
            break head;
        }
    };
    let mut bytes = (filled - head_length) as u64;
    while bytes < length {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err("the connection ended in the middle of an answer".into());
        }
        bytes += read as u64;
    }
    if (bytes, length) == (size, size) {
        Ok(())
    } else {
        Err(format!("{bytes} bytes, announced as {length}, instead of {size}").into())
    }
}
