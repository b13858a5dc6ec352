//! A server that speaks just enough HTTP/2 over TLS to end a stream in the middle.
//!
//! It does not read what is asked for (that takes HPACK): the first stream is answered with a part of
//! the content and then ended as told, every later one with all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How the first stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `RST_STREAM` with `INTERNAL_ERROR`.
    Reset,
    /// `GOAWAY` that has not processed it, then the end of the connection.
    GoAway,
}

/// A running server; stops with its runtime.
#[derive(Debug)]
pub struct Http2 {
    /// Its port on `localhost`.
    pub port: u16,
    /// Its certificate, in PEM form.
    pub certificate: String,
    streams: Arc<AtomicUsize>,
}

impl Http2 {
    /// How many requests arrived.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }
}

/// Frame types of RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// The flag of the last frame of a stream, or of an acknowledgement.
const END_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The most bytes of a frame that every peer takes.
const PIECE: usize = 16_384;

/// Starts a server with this content, at most 65,535 bytes, so that no window has to be minded.
pub async fn start(content: Bytes, first: usize, end: End) -> Http2 {
    assert!(content.len() < 65_536, "beyond the first window");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(repoxy::upstream::crypto::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let streams = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, content, counted) = (acceptor.clone(), content.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    // An error is a client that has left.
                    let _ = converse(stream, content, first, end, &counted).await;
                }
            });
        }
    });
    Http2 { port, certificate: made.cert.pem(), streams }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    content: Bytes,
    first: usize,
    end: End,
    streams: &AtomicUsize,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    frame(&mut stream, SETTINGS, 0, 0, &[]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match head[3] {
            SETTINGS if head[4] & END_OR_ACK == 0 => frame(&mut stream, SETTINGS, END_OR_ACK, 0, &[]).await?,
            PING if head[4] & END_OR_ACK == 0 => frame(&mut stream, PING, END_OR_ACK, 0, &payload).await?,
            HEADERS => {
                let is_first = streams.fetch_add(1, Ordering::SeqCst) == 0;
                frame(&mut stream, HEADERS, END_HEADERS, id, &fields(content.len())).await?;
                let body = if is_first { content.slice(..first) } else { content.clone() };
                for piece in body.chunks(PIECE) {
                    frame(&mut stream, DATA, 0, id, piece).await?;
                }
                match end {
                    _ if !is_first => frame(&mut stream, DATA, END_OR_ACK, id, &[]).await?,
                    // INTERNAL_ERROR, section 7.
                    End::Reset => frame(&mut stream, RST_STREAM, 0, id, &2_u32.to_be_bytes()).await?,
                    End::GoAway => {
                        frame(&mut stream, GOAWAY, 0, 0, &[0; 8]).await?;
                        stream.shutdown().await?;
                        return Ok(());
                    }
                }
            }
            _ => {}
        }
    }
}

/// `:status: 200` and `content-length`, without compression (RFC 7541, sections 6.1 and 6.2.2).
fn fields(length: usize) -> Vec<u8> {
    let digits = length.to_string();
    let mut block = vec![0x88, 0x00, 14];
    block.extend_from_slice(b"content-length");
    block.push(u8::try_from(digits.len()).expect("few digits"));
    block.extend_from_slice(digits.as_bytes());
    block
}

async fn frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    kind: u8,
    flags: u8,
    id: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes).await?;
    stream.flush().await
}
