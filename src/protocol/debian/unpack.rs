//! Index files as archives compress them (Debian repository format, "Compression of indices"), told apart
//! by what they begin with.
//!
//! Unpacking takes bounded memory whatever the bytes; how much text comes out is the reader's to bound.

use std::io::{self, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder as Lz4;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// The memory that unpacking may take, in bytes. `xz -9` asks for 65 MiB, `zstd --long` for 128 MiB; bzip2 and
/// lz4 never take more than some 8 MiB.
const MEMORY: u32 = 128 << 20;

const XZ: &[u8] = b"\xfd7zXZ\0";
const GZIP: &[u8] = b"\x1f\x8b";
const BZIP2: &[u8] = b"BZh";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const LZ4: &[u8] = b"\x04\x22\x4d\x18";

/// The text of a document. An error while it is read says that the document is damaged, or takes too much memory.
pub(super) fn unpack<'d>(document: &'d [u8]) -> Box<dyn Read + 'd> {
    let is = |magic| document.starts_with(magic);
    if is(XZ) {
        Box::new(XzReader::new_mem_limit(document, true, MEMORY >> 10))
    } else if is(GZIP) {
        Box::new(MultiGzDecoder::new(document))
    } else if is(BZIP2) {
        Box::new(MultiBzDecoder::new(document))
    } else if is(ZSTD) {
        Box::new(Frames::new(document, zstd, |frame| *frame.get_ref()))
    } else if is(LZ4) {
        Box::new(Frames::new(document, |rest| Ok(Lz4::new(rest)), |frame| *frame.get_ref()))
    } else {
        Box::new(document)
    }
}

fn zstd(rest: &[u8]) -> io::Result<StreamingDecoder<&[u8], FrameDecoder>> {
    StreamingDecoder::new_with_max_window_size(rest, MEMORY.into()).map_err(io::Error::other)
}

/// Frames one after another, as compressors write them that work in parallel.
struct Frames<'d, F> {
    /// The one that is being read.
    frame: Option<F>,
    /// What comes after those that were read.
    left: &'d [u8],
    begin: fn(&'d [u8]) -> io::Result<F>,
    /// What a frame has left over.
    rest: fn(&F) -> &'d [u8],
}

impl<'d, F> Frames<'d, F> {
    fn new(left: &'d [u8], begin: fn(&'d [u8]) -> io::Result<F>, rest: fn(&F) -> &'d [u8]) -> Self {
        Self { frame: None, left, begin, rest }
    }
}

impl<F: Read> Read for Frames<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None if self.left.is_empty() => return Ok(0),
                none => none.insert((self.begin)(self.left)?),
            };
            match frame.read(buffer)? {
                // Each frame takes at least what it begins with, so that this comes to an end.
                0 => (self.left, self.frame) = ((self.rest)(frame), None),
                read => return Ok(read),
            }
        }
    }
}
