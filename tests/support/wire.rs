//! HTTP/1.1 by hand, so that it can be done wrong: heads in, answers out.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::script::{Cut, Faults, Framing, Gate};

const MAX_HEAD: usize = 256 * 1024;
const PIECE: usize = 64 * 1024;

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer before its faults.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// Reads one request; `None` when the client has left.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let length =
        headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.drain(..length).collect::<Vec<u8>>().into();
    Ok(Some(Request { method, path: path.to_owned(), query, headers, body }))
}

/// Writes an answer with its faults; `sent` hears of body bytes as they go.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    head_only: bool,
    response: Response,
    faults: &Faults,
    sent: impl Fn(u64),
) -> io::Result<After> {
    if let Some(delay) = faults.delay {
        tokio::time::sleep(delay).await;
    }
    if let Some(gate) = &faults.gate_before {
        tokio::select! {
            () = gate.pass() => {}
            _ = until_gone(stream) => return Ok(After::Close),
        }
    }
    if faults.hang {
        until_gone(stream).await?;
        return Ok(After::Close);
    }
    if faults.hang_up {
        return Ok(After::Close);
    }
    if let Some(raw) = &faults.raw {
        stream.write_all(raw).await?;
        stream.flush().await?;
        return Ok(After::Close);
    }
    let mut body = response.body.to_vec();
    stream.write_all(head(&response, body.len(), faults).as_bytes()).await?;
    stream.flush().await?;
    if head_only || matches!(response.status, 204 | 304) {
        return Ok(After::KeepAlive);
    }
    body.resize(body.len() + usize::try_from(faults.extra).unwrap_or(0), b'+');
    write_body(stream, &body, faults, sent).await
}

fn head(response: &Response, length: usize, faults: &Faults) -> String {
    let mut lines = vec![format!("HTTP/1.1 {} Scripted", response.status)];
    for (name, value) in &response.headers {
        lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    if !response.headers.contains_key("content-length") {
        lines.push(match faults.framing {
            Framing::Length => format!("content-length: {length}"),
            Framing::Chunked => "transfer-encoding: chunked".to_owned(),
            Framing::Close => "connection: close".to_owned(),
        });
    }
    lines.join("\r\n") + "\r\n\r\n"
}

/// Where sending stops for something to happen.
enum Stop<'f> {
    Gate(&'f Gate),
    Stall,
    Cut(Cut),
}

async fn write_body<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    body: &[u8],
    faults: &Faults,
    sent: impl Fn(u64),
) -> io::Result<After> {
    let mut stops: Vec<(u64, Stop<'_>)> = Vec::new();
    stops.extend(faults.gate_at.as_ref().map(|(at, gate)| (*at, Stop::Gate(gate))));
    stops.extend(faults.stall_after.map(|at| (at, Stop::Stall)));
    stops.extend(faults.cut_after.map(|(at, cut)| (at, Stop::Cut(cut))));
    stops.sort_by_key(|(at, _)| *at);
    let mut at = 0;
    for (stop_at, stop) in stops {
        let until = usize::try_from(stop_at).unwrap_or(usize::MAX).min(body.len());
        write_span(stream, &body[at..until], faults, &sent).await?;
        at = until;
        match stop {
            Stop::Gate(gate) => tokio::select! {
                () = gate.pass() => {}
                _ = until_gone(stream) => return Ok(After::Close),
            },
            Stop::Stall => {
                until_gone(stream).await?;
                return Ok(After::Close);
            }
            Stop::Cut(Cut::Fin) => return Ok(After::Close),
            Stop::Cut(Cut::Reset) => return Ok(After::Reset),
        }
    }
    write_span(stream, &body[at..], faults, &sent).await?;
    if faults.framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.flush().await?;
    let orderly = faults.framing != Framing::Close && faults.extra == 0;
    Ok(if orderly { After::KeepAlive } else { After::Close })
}

async fn write_span<S: AsyncWrite + Unpin>(
    stream: &mut S,
    span: &[u8],
    faults: &Faults,
    sent: &impl Fn(u64),
) -> io::Result<()> {
    let (piece, pause) = faults.trickle.unwrap_or((PIECE, Duration::ZERO));
    for part in span.chunks(piece) {
        if faults.framing == Framing::Chunked {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
            stream.write_all(part).await?;
            stream.write_all(b"\r\n").await?;
        } else {
            stream.write_all(part).await?;
        }
        stream.flush().await?;
        sent(part.len() as u64);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Waits until the client closes the connection.
async fn until_gone<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
