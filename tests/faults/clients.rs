//! B: clients that are many, rude or gone, and a process that is told to stop or is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Blob, Gate, Origin, Repoxy, eventually, proxy};

const MIB: usize = 1 << 20;

async fn connect(repoxy: &Repoxy) -> TcpStream {
    TcpStream::connect(repoxy.address()).await.expect("it listens")
}

/// The processor time that a server has used, in hundredths of a second.
fn ticks(repoxy: &Repoxy) -> u64 {
    let stat = repoxy.proc("stat");
    let fields: Vec<_> = stat.rsplit(')').next().expect("a name").split_ascii_whitespace().collect();
    // utime and stime, counted from the state, which is field 3 (proc(5)).
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

/// The longest of all but the worst hundredth.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Asks for a warm path again and again.
async fn warm(repoxy: &Repoxy, path: &str, times: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
        took.push(began.elapsed());
    }
    took
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: heads are waited for ten seconds"]
async fn b1_heads_that_never_end_are_given_up_and_disturb_nobody() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    let began = Instant::now();
    let mut slow = JoinSet::new();
    for _ in 0..500 {
        let mut stream = connect(&repoxy).await;
        slow.spawn(async move {
            let _ = stream.write_all(b"GET /-/health HTTP/1.1\r\nx-a: ").await;
            let (mut reader, mut writer) = stream.split();
            let mut sink = Vec::new();
            tokio::select! {
                _ = reader.read_to_end(&mut sink) => {}
                () = async { while writer.write_all(b"a").await.is_ok() { tokio::time::sleep(Duration::from_secs(1)).await } } => {}
            }
        });
    }
    let took = p99(warm(&repoxy, &image.path, 300).await);
    assert!(took < Duration::from_millis(500), "{took:?}");
    slow.join_all().await;
    assert!((8..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: idle connections are kept for more than a minute"]
async fn b3_ten_thousand_idle_connections_slow_nobody_down_and_are_let_go() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    let before = repoxy.own_memory();
    // As many as there is room for have asked something and stay; the others are not let in.
    let mut idle = Vec::new();
    for n in 0..10_000 {
        let mut stream = connect(&repoxy).await;
        if n < 8000 {
            stream.write_all(b"GET /-/health HTTP/1.1\r\nhost: c\r\n\r\n").await.expect("sent");
            let mut some = [0; 1024];
            assert!(stream.read(&mut some).await.expect("an answer") > 0);
        }
        idle.push(stream);
    }
    let took = p99(warm(&repoxy, &image.path, 500).await);
    assert!(took < Duration::from_millis(500), "{took:?}");
    let grown = repoxy.own_memory().saturating_sub(before);
    assert!(grown <= 200 << 20, "{grown}");
    let began = Instant::now();
    for mut stream in idle.into_iter().take(8000) {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(200), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "idle for {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_with_few_files_allowed_it_serves_on_and_recovers() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100_000);
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"0s\""));
    repoxy.run_under(&["prlimit", "--nofile=256"]);
    repoxy.start();
    // This connection is kept by the client, and has room for store and upstream behind it.
    repoxy.get(&image.path).await;
    let mut held = Vec::new();
    for _ in 0..400 {
        if let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(repoxy.address())).await
        {
            held.push(stream);
        }
    }
    assert!(held.len() > 128, "{}", held.len());
    let before = ticks(&repoxy);
    let span = Duration::from_secs(2);
    tokio::time::sleep(span).await;
    let busy = ticks(&repoxy) - before;
    assert!(busy < 40, "{busy} hundredths of a second in {span:?}");
    assert!(repoxy.open_files() <= 256 - 32, "{} files for connections", repoxy.open_files());
    assert_eq!(
        repoxy.get(&image.blobs[1].path).await.bytes(),
        &image.blobs[1].bytes,
        "a fill has files left"
    );
    drop(held);
    let mut fresh = connect(&repoxy).await;
    fresh.write_all(b"GET /-/health HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    fresh.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    repoxy.stored(2).await;
    repoxy.assert_sound().await;
}

/// Downloads under way: each has headers, and waits for the gate.
async fn downloads(
    repoxy: &Repoxy,
    origin: &Origin,
    count: usize,
) -> (Gate, Vec<Blob>, Vec<JoinHandle<Option<Bytes>>>) {
    let gate = Gate::closed();
    let blobs: Vec<_> = (0..count).map(|_| origin.blob("library/app", MIB / 2)).collect();
    origin.on("/v2/library/app/blobs/*").hold_after(MIB as u64 / 4, &gate).always();
    let mut running = Vec::new();
    for blob in &blobs {
        let response = repoxy.open(Method::GET, &blob.path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        running.push(tokio::spawn(async move { response.bytes().await.ok() }));
    }
    (gate, blobs, running)
}

/// A signal that asks to stop lets downloads finish, and closes the door at once.
async fn downloads_finish_after(signal: Signal) {
    let origin = Origin::start().await;
    // Upstream is asked for that many at a time.
    let mut repoxy = Repoxy::with(&proxy(&origin, "max_connections = 128"));
    let (gate, blobs, running) = downloads(&repoxy, &origin, 100).await;
    let door = repoxy.address();
    repoxy.signal(signal);
    eventually("the door is closed", || std::net::TcpStream::connect(door).is_err()).await;
    gate.open();
    for (download, blob) in running.into_iter().zip(&blobs) {
        assert_eq!(download.await.expect("no panic").as_ref(), Some(&blob.bytes));
    }
    assert_eq!(repoxy.wait().code(), Some(0));
    repoxy.start();
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_sigterm_lets_a_hundred_downloads_finish_and_takes_no_new_connection() {
    downloads_finish_after(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_sigint_lets_a_hundred_downloads_finish_and_takes_no_new_connection() {
    downloads_finish_after(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_second_sigterm_ends_it_and_leaves_no_wrong_byte() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let (gate, blobs, running) = downloads(&repoxy, &origin, 20).await;
    let door = repoxy.address();
    repoxy.signal(Signal::TERM);
    eventually("the door is closed", || std::net::TcpStream::connect(door).is_err()).await;
    let began = Instant::now();
    assert_eq!(repoxy.terminate().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for download in running {
        assert_eq!(download.await.expect("no panic"), None, "half of a blob is no blob");
    }
    gate.open();
    repoxy.start();
    repoxy.assert_sound().await;
    for blob in &blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_what_had_come_when_it_was_stopped_is_not_fetched_again() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let gate = Gate::closed();
    let blob = origin.blob("library/app", 4 * MIB);
    origin.on(&blob.path).hold_after(3 * MIB as u64, &gate).always();
    let mut answer = repoxy.open(Method::GET, &blob.path, &[]).await;
    let mut received = 0;
    while received < 2 * MIB {
        received += answer.chunk().await.expect("not broken").expect("not the end").len();
    }
    repoxy.signal(Signal::TERM);
    let door = repoxy.address();
    eventually("the door is closed", || std::net::TcpStream::connect(door).is_err()).await;
    assert_eq!(repoxy.terminate().code(), Some(0));
    gate.open();
    let partial = repoxy.files("type/container/proxies/hub/tmp/partial");
    assert_eq!(partial.len(), 1, "{partial:?}");
    let kept = partial[0].metadata().expect("there").len();
    assert!(kept >= 2 * MIB as u64, "{kept}");
    repoxy.start();
    repoxy.assert_sound().await;
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    let last = origin.seen("GET", &blob.path).pop().expect("seen");
    assert_eq!(last.header("range"), Some(&*format!("bytes={kept}-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_no_connection_misses_that_it_is_to_end() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::with(&proxy(&origin, ""));
    let mut busy = JoinSet::new();
    for _ in 0..200 {
        let mut stream = connect(&repoxy).await;
        busy.spawn(async move {
            let mut answer = [0; 1024];
            while stream.write_all(b"GET /-/health HTTP/1.1\r\nhost: c\r\n\r\n").await.is_ok()
                && stream.read(&mut answer).await.is_ok_and(|read| read > 0)
            {
                // Some are just being polled when the order comes, and none of them asks again.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    assert_eq!(repoxy.terminate().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    busy.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: what is under way has half a minute"]
async fn b5_what_is_not_done_half_a_minute_after_sigterm_is_cut() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let (_gate, _, running) = downloads(&repoxy, &origin, 5).await;
    let began = Instant::now();
    assert_eq!(repoxy.terminate().code(), Some(0));
    assert!((25..120).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    for download in running {
        assert_eq!(download.await.expect("no panic"), None);
    }
}

/// Kills a server in the middle of many downloads, again and again: when some of them are done and the others are
/// on their way, from the first to the last.
async fn killed(rounds: u64) {
    const DOWNLOADS: u64 = 100;
    let origin = Origin::start().await;
    let blobs: Vec<_> = (0..DOWNLOADS).map(|_| origin.blob("library/app", MIB / 4)).collect();
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let mut cut = 0;
    for round in 0..rounds {
        let client = repoxy.client().clone();
        let done = Arc::new(AtomicU64::new(0));
        let running: Vec<_> = blobs
            .iter()
            .map(|blob| {
                let request = client.get(format!("{}{}", repoxy.url(), blob.path)).send();
                let done = Arc::clone(&done);
                tokio::spawn(async move {
                    let bytes = request.await.ok()?.error_for_status().ok()?.bytes().await.ok();
                    done.fetch_add(1, Ordering::SeqCst);
                    bytes
                })
            })
            .collect();
        // Not at random, so that a failure can be had again; spread over a pull of all, and between two of them.
        let so_many = round * 37 % DOWNLOADS;
        while done.load(Ordering::SeqCst) < so_many {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(round * 371 % 5000)).await;
        repoxy.kill();
        for (download, blob) in running.into_iter().zip(&blobs) {
            let got = download.await.expect("no panic");
            cut += u64::from(got.is_none());
            assert!(got.is_none_or(|bytes| bytes == blob.bytes), "round {round}");
        }
        let began = Instant::now();
        repoxy.start();
        assert_eq!(repoxy.get("/-/ready").await.status, StatusCode::OK);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        repoxy.assert_sound().await;
        assert!(repoxy.run(&["gc", "--force"]).status.success());
        let partial = repoxy.files("type/container/proxies/hub/tmp");
        assert!(partial.iter().all(|file| file.ends_with(".alive")), "round {round}: {partial:?}");
        // What is stored is no load: the next round begins with nothing of it.
        repoxy.kill();
        for below in ["type/container/blobs", "type/container/proxies/hub/refs", "index"] {
            let _ = std::fs::remove_dir_all(repoxy.root().join(below));
        }
        repoxy.start();
    }
    assert!(cut >= rounds, "{cut} downloads were cut in {rounds} rounds");
    for blob in &blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_kill_9_in_the_middle_of_a_hundred_pulls_leaves_a_clean_store() {
    killed(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: two hundred crashes"]
async fn b6_two_hundred_times_kill_9_leave_a_clean_store() {
    killed(200).await;
}

/// The address that a process listens on, as the kernel tells it.
fn listening(pid: u32) -> Option<String> {
    let sockets: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let port = table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        // 0A is LISTEN; the inode is the tenth field.
        let own = fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]);
        own.then(|| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok()).flatten()
    })?;
    Some(format!("http://127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_an_output_that_takes_nothing_stops_nobody() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    for output in ["2>/dev/full >/dev/full", "2>&- >&-", "2>&1 | true"] {
        let repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"0s\""));
        let plain = repoxy.command(&["serve", "--log-level", "trace"]);
        let words: Vec<_> = plain.get_args().map(|word| word.to_str().expect("text")).collect();
        // The server keeps the process id that is started, but for the pipe's.
        let program = plain.get_program().to_str().expect("text");
        let piped = output.ends_with("true");
        let line = if piped { "\"$@\" 2>&1 | true".to_owned() } else { format!("exec \"$@\" {output}") };
        let pid_file = repoxy.dir().join("pid");
        let line = format!("echo $$ > \"$0\"; {line}");
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(if piped {
            line.replace("\"$@\"", "sh -c 'echo $$ > \"$0\"; exec \"$@\"' \"$0\" \"$@\"")
        } else {
            line
        });
        shell.arg(&pid_file).arg(program).args(words).stdin(std::process::Stdio::null());
        let mut shell = shell.spawn().expect("a shell");
        let mut base = None;
        let mut pid = 0;
        eventually("it listens", || {
            pid = std::fs::read_to_string(&pid_file)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            base = listening(pid);
            base.is_some()
        })
        .await;
        let base = base.expect("it listens");
        for _ in 0..20 {
            let got = repoxy.client().get(format!("{base}{}", image.path)).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("whole"), image.bytes, "{output}");
        }
        let metrics = repoxy.client().get(format!("{base}/-/metrics")).send().await.expect("an answer");
        let metrics = metrics.text().await.expect("whole");
        assert!(
            !metrics.lines().any(|line| line.starts_with("repoxy_panics_total ") && !line.ends_with(" 0")),
            "{metrics}"
        );
        let pid =
            rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
        rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
        let ended =
            tokio::task::spawn_blocking(move || shell.wait().expect("it ends")).await.expect("no panic");
        assert!(ended.success(), "{output}: {ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_heads_beyond_all_measure_are_refused() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, ""));
    let fields = (0..200).map(|n| format!("x-{n}: a\r\n")).collect::<Vec<_>>().concat();
    for (status, head) in [
        (431, format!("GET / HTTP/1.1\r\nhost: c\r\n{fields}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nhost: c\r\nx-a: {}\r\n\r\n", "a".repeat(500_000))),
        (414, format!("GET /{} HTTP/1.1\r\nhost: c\r\n\r\n", "a".repeat(10_000))),
    ] {
        let answer = String::from_utf8_lossy(&repoxy.raw(head.as_bytes()).await).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    assert_eq!(repoxy.get("/-/health").await.status, StatusCode::OK);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of `GET /-/health`: indexed method and scheme, literal path and authority (RFC 7541).
const HEALTH: &[u8] = b"\x82\x86\x04\x09/-/health\x01\x01c";

/// Sends frames after the preface until they are all sent or the server ends the connection; whether
/// it ended it.
async fn flood(repoxy: &Repoxy, frames: impl Iterator<Item = Vec<u8>>) -> bool {
    let mut stream = connect(repoxy).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    stream.write_all(&frame(4, 0, 0, &[])).await.expect("sent");
    let (mut reader, mut writer) = stream.into_split();
    // The server's answers are read away, so that it is never it that waits.
    let drained = tokio::spawn(async move {
        let mut sink = vec![0; 65_536];
        while reader.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    let mut batch = Vec::new();
    let mut sent = true;
    for frame in frames {
        batch.extend_from_slice(&frame);
        if batch.len() > 16_384 {
            sent &= writer.write_all(&batch).await.is_ok();
            batch.clear();
            if !sent {
                break;
            }
        }
    }
    sent &= writer.write_all(&batch).await.is_ok();
    tokio::time::timeout(Duration::from_secs(30), drained).await.is_ok() || !sent
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_floods_of_http2_frames_end_the_connection_and_cost_little() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, ""));
    repoxy.get("/-/health").await;
    let before = repoxy.own_memory();
    let reset = 0x8_u32.to_be_bytes();
    let rapid =
        (0..10_000_u32).flat_map(|n| [frame(1, 5, 2 * n + 1, HEALTH), frame(3, 0, 2 * n + 1, &reset)]);
    assert!(flood(&repoxy, rapid).await, "rapid reset");
    // A head that is continued for ever.
    let literal = [b"\x00\x04x-aa\x7f\x01".as_slice(), &[b'a'; 128]].concat();
    let head = std::iter::once(frame(1, 1, 1, HEALTH));
    let continued = head.chain((0..20_000).map(|_| frame(9, 0, 1, &literal)));
    assert!(flood(&repoxy, continued).await, "continuation");
    // A body of nothing, without end.
    let head = std::iter::once(frame(1, 4, 1, HEALTH));
    let empty = head.chain((0..1_000_000).map(|_| frame(0, 0, 1, &[])));
    assert!(flood(&repoxy, empty).await, "empty data");
    let grown = repoxy.own_memory().saturating_sub(before);
    assert!(grown <= 50 << 20, "{grown}");
    assert_eq!(repoxy.get("/-/health").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_ten_thousand_ranges_are_no_more_work_than_one_answer() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", MIB);
    let repoxy = Repoxy::with(&proxy(&origin, ""));
    repoxy.get(&blob.path).await;
    repoxy.stored(1).await;
    let many: Vec<_> = (0..10_000).map(|n| format!("{n}-{n}")).collect();
    for ranges in
        [many.join(","), vec!["0-"; 100].join(","), "0-99,50-149".to_owned(), "-1,-2,0-0".to_owned()]
    {
        let got = repoxy.request(Method::GET, &blob.path, &[("range", &format!("bytes={ranges}"))]).await;
        match got.status.as_u16() {
            200 => assert_eq!(got.bytes(), &blob.bytes),
            // A header of that size may be too large as such.
            416 | 431 => {}
            other => panic!("{other} for {} bytes of ranges", ranges.len()),
        }
    }
    assert_eq!(origin.count("GET", &blob.path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_files_that_are_opened_are_closed_again() {
    let origin = Origin::start().await;
    let images: Vec<_> = (0..20).map(|n| origin.image("library/app", &format!("v{n}"), 1, 200_000)).collect();
    // Ready answers may keep up to 256 blobs open: they are not what is counted here.
    let repoxy = Arc::new(Repoxy::with(&format!("hot_bytes = \"0B\"\n{}", proxy(&origin, "ttl = \"0s\""))));
    let churn = async |rounds: usize| {
        for _ in 0..rounds {
            let mut clients = JoinSet::new();
            for image in images.clone() {
                let repoxy = Arc::clone(&repoxy);
                clients.spawn(async move {
                    let blob = &image.blobs[1];
                    repoxy.get(&image.path).await;
                    repoxy.get("/v2/library/app/manifests/missing").await;
                    repoxy.request(Method::GET, &blob.path, &[("range", "bytes=5-9")]).await;
                    // One that leaves, and one that stays.
                    drop(repoxy.open(Method::GET, &blob.path, &[]).await.chunk().await);
                    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
                });
            }
            clients.join_all().await;
        }
    };
    churn(2).await;
    repoxy.stored(40).await;
    let before = repoxy.open_files();
    churn(10).await;
    // Connections of clients that have left are noticed a moment later.
    eventually("files are closed", || repoxy.open_files() <= before + 10).await;
}
