//! Whole transfers over one connection: to check bytes, and to time large bodies.
//!
//! Blocking sockets and one large buffer, so that the client is not what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{Item, Outcome, hex};

/// What the request says it takes: what a container client sends.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, application/octet-stream";
/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// The longest silence.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// When things happened, counted from before the request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Until the first byte of the body.
    pub(crate) first_byte: Duration,
    /// Until the last byte.
    pub(crate) whole: Duration,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

/// How a client takes what it asked for: [`discard`] where it is timed, [`verify`] where bytes are compared.
pub(crate) type Take = fn(&mut Connection, &Item) -> Outcome<Timing>;

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The bytes of a request.
pub(crate) fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {ACCEPT}\r\n\r\n")
}

/// Splits the head of a 200: its length with the blank line, and the length of its body.
/// `None` if the head is not all there.
pub(crate) fn head(bytes: &[u8]) -> Outcome<Option<(usize, u64)>> {
    let Some(head) = any_head(bytes)? else { return Ok(None) };
    if head.status != 200 {
        return Err(format!("not a 200: {}", String::from_utf8_lossy(&bytes[..head.length])).into());
    }
    Ok(Some((head.length, head.body)))
}

/// What an answer's head says.
struct Head {
    status: u16,
    /// With the blank line.
    length: usize,
    /// The length of the body.
    body: u64,
}

/// The head of any answer; `None` if it is not all there.
fn any_head(bytes: &[u8]) -> Outcome<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() < MAX_HEAD { Ok(None) } else { Err("the head is too long".into()) };
    };
    let text = std::str::from_utf8(&bytes[..end])?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let (Some(status), Some(body)) = (status, body) else {
        return Err(format!("no status or no content-length: {text}").into());
    };
    Ok(Some(Head { status, length: end + 4, body }))
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_LIMIT))?;
        Ok(Self { stream, buffer: vec![0; BUFFER] })
    }

    /// Fetches one body to the end that its own head tells; `see` gets it piece by piece.
    fn fetch(&mut self, path: &str, mut see: impl FnMut(&[u8])) -> Outcome<Timing> {
        let began = Instant::now();
        self.stream.write_all(request(path).as_bytes())?;
        let mut filled = 0;
        let (head_length, length) = loop {
            filled += self.read(filled)?;
            if let Some(head) = head(&self.buffer[..filled]).map_err(|error| format!("{path}: {error}"))? {
                break head;
            }
        };
        let mut bytes = (filled - head_length) as u64;
        see(&self.buffer[head_length..filled]);
        let mut first_byte = (bytes > 0 || length == 0).then(|| began.elapsed());
        while bytes < length {
            let read = self.read(0)?;
            first_byte.get_or_insert_with(|| began.elapsed());
            see(&self.buffer[..read]);
            bytes += read as u64;
        }
        if bytes != length {
            return Err(format!("{path}: {bytes} bytes instead of {length}").into());
        }
        let whole = began.elapsed();
        Ok(Timing { first_byte: first_byte.unwrap_or(whole), whole, bytes })
    }

    /// Asks for something that is refused, with this status and a short text. How long that took.
    pub(crate) fn refused(&mut self, path: &str, status: u16) -> Outcome<Duration> {
        let began = Instant::now();
        self.stream.write_all(request(path).as_bytes())?;
        let mut filled = 0;
        let found = loop {
            filled += self.read(filled)?;
            match any_head(&self.buffer[..filled])? {
                Some(head) if (filled - head.length) as u64 >= head.body => break head.status,
                _ => {}
            }
        };
        if found == status {
            Ok(began.elapsed())
        } else {
            Err(format!("{path}: {found}, not {status}").into())
        }
    }

    /// Reads once, to `from` in the buffer; the end of the stream is an error.
    fn read(&mut self, from: usize) -> Outcome<usize> {
        loop {
            match self.stream.read(&mut self.buffer[from..]) {
                Ok(0) => return Err("the connection ended in the middle of an answer".into()),
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a 200 comes for this, on a connection of its own. Whatever it says is thrown away.
pub(crate) fn answers(address: SocketAddr, path: &str) -> bool {
    Connection::open(address).and_then(|mut connection| connection.fetch(path, |_| {})).is_ok()
}

/// Fetches one body, compares its length, and throws it away.
pub(crate) fn discard(connection: &mut Connection, item: &Item) -> Outcome<Timing> {
    let Item { path, size, .. } = item;
    let timing = connection.fetch(path, |_| {})?;
    if timing.bytes == *size {
        Ok(timing)
    } else {
        Err(format!("wrong length: {path} has {} bytes, not {size}", timing.bytes).into())
    }
}

/// Fetches one body and compares length and sha256.
pub(crate) fn verify(connection: &mut Connection, item: &Item) -> Outcome<Timing> {
    let Item { path, size, digest } = item;
    let mut state = Sha256::new();
    let timing = connection.fetch(path, |piece| state.update(piece))?;
    let found = hex(&state.finalize());
    if (timing.bytes, &found) == (*size, digest) {
        Ok(timing)
    } else {
        Err(format!("wrong bytes: {path} is {found} of {} bytes, not {digest} of {size}", timing.bytes)
            .into())
    }
}
