//! B2: clients that read slowly, or not at all for a while.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Blob, Gate, Origin, Repoxy, eventually, proxy};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a reader is judged over a minute"]
async fn b2_readers_that_take_a_byte_a_second_are_dropped_and_cost_little() {
    const READERS: u32 = 200;
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 32 * MIB);
    let cold = origin.blob("library/app", 8 * MIB);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&blob.path).await;
    repoxy.stored(1).await;
    let (before, open) = (repoxy.own_memory(), repoxy.open_files());
    let mut slow = JoinSet::new();
    let request = Bytes::from(format!("GET {} HTTP/1.1\r\nhost: cache\r\n\r\n", blob.path));
    for _ in 0..READERS {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small one");
        let mut stream = socket.connect(repoxy.address()).await.expect("it listens");
        let request = request.clone();
        slow.spawn(async move {
            stream.write_all(&request).await.expect("sent");
            let mut byte = [0];
            // After the cut there is for hours what the kernel holds on the way.
            while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    assert_eq!(repoxy.get(&cold.path).await.bytes(), &cold.bytes, "a fill beside them");
    let grown = repoxy.own_memory().saturating_sub(before);
    assert!(grown <= u64::from(READERS) * (256 << 10), "{} for each", grown / u64::from(READERS));
    assert!(repoxy.open_files() >= open + READERS as usize, "all of them are being served");
    let began = Instant::now();
    while repoxy.open_files() > open + 10 {
        assert!(began.elapsed() < Duration::from_secs(240), "they are served for ever");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    slow.abort_all();
}

/// A client that reads when it is told to.
struct Reader {
    stream: TcpStream,
    blob: Blob,
    /// How much of the body it has read and found right.
    read: usize,
}

impl Reader {
    /// Asks for a blob, and reads the head of the answer.
    async fn ask(repoxy: &Repoxy, blob: &Blob) -> Self {
        let mut stream = TcpStream::connect(repoxy.address()).await.expect("it listens");
        let request = format!("GET {} HTTP/1.1\r\nhost: cache\r\n\r\n", blob.path);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        Self { stream, blob: blob.clone(), read: 0 }
    }

    /// Reads on up to this offset of the body, and compares.
    async fn read_to(&mut self, end: usize) {
        let mut buffer = vec![0; 256 << 10];
        while self.read < end {
            let most = buffer.len().min(end - self.read);
            let count = self.stream.read(&mut buffer[..most]).await.expect("not cut");
            assert!(count > 0, "ended after {} bytes", self.read);
            assert!(buffer[..count] == self.blob.bytes[self.read..self.read + count], "after {}", self.read);
            self.read += count;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_readers_that_stop_in_a_cold_blob_hold_no_memory_and_no_fill() {
    const BLOBS: usize = 8;
    const READERS: usize = 64;
    /// For what a reader has in hand: the frame that is being sent and the one behind it.
    const EACH: u64 = 512 << 10;
    /// For what all fills hold, and what the allocator does not give back.
    const SHARED: u64 = 32 << 20;
    let origin = Origin::start().await;
    let blobs: Vec<_> = (0..BLOBS).map(|_| origin.blob("library/app", 24 * MIB)).collect();
    let gate = Gate::closed();
    origin.on("/v2/library/app/blobs/*").hold_after(MIB as u64, &gate).always();
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get("/-/health").await;
    let before = repoxy.own_memory();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut reader = Reader::ask(&repoxy, &blobs[number % BLOBS]).await;
        reader.read_to(MIB / 4).await;
        readers.push(reader);
    }

    // All of them follow, none of them reads, and upstream sends what is left as fast as it can.
    gate.open();
    let mut most = 0;
    let done = || {
        most = most.max(repoxy.own_memory());
        repoxy.files("type/container/blobs").len() == BLOBS
    };
    eventually("the blobs are stored", done).await;
    let grown = most.saturating_sub(before);
    assert!(grown <= READERS as u64 * EACH + SHARED, "{grown} bytes for {READERS} readers");

    let mut reading = JoinSet::new();
    for mut reader in readers {
        reading.spawn(async move { reader.read_to(reader.blob.bytes.len()).await });
    }
    reading.join_all().await;
    assert_eq!(origin.count("GET", "/v2/library/app/blobs/*"), BLOBS);
}
