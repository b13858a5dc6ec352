//! Content digests: the names of blobs, and the checksums that upstreams claim.
//!
//! A [`Digest`] is always sha256 and names a blob. A [`Checksum`] is what somebody else says about
//! bytes, in any algorithm we can check; it never becomes a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The sha256 of a blob, which is its name.
///
/// Written `sha256:<64 lower-case hex digits>` (OCI image specification, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a string is not a digest or checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:` in front, or it is one that cannot be checked here.
    #[error("unknown digest algorithm, expected `sha256:` or `sha512:`")]
    Algorithm,
    /// The part after the colon is not lower-case hex of the algorithm's length.
    #[error("digest is not lower-case hex of the right length")]
    Encoding,
}

impl Digest {
    /// Hashes bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes the 32 raw bytes of a sha256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses the 64 lower-case hex digits, without the `sha256:` in front.
    ///
    /// # Errors
    /// [`DigestError::Encoding`] for anything else.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        decode_hex(hex, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        encode_hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(DigestError::Algorithm)?)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

/// Parses where the text stands: a million refs name some millions of digests.
struct Text;

impl serde::de::Visitor<'_> for Text {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest, `sha256:` and 64 hex digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

/// A hash algorithm that can be checked while bytes stream by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// The algorithm that names blobs.
    Sha256,
    /// Used by some OCI content (OCI image specification, "Registered algorithms").
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// What somebody claims the bytes hash to, in an algorithm of their choice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum {
    algorithm: Algorithm,
    value: Box<[u8]>,
}

impl Checksum {
    /// The algorithm of the claim.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hex digits of the value.
    pub fn hex(&self) -> String {
        encode_hex(&self.value)
    }

    /// The blob's name, if the claim is a sha256.
    pub fn digest(&self) -> Option<Digest> {
        <[u8; 32]>::try_from(&*self.value).ok().map(Digest)
    }
}

impl From<Digest> for Checksum {
    fn from(digest: Digest) -> Self {
        Self { algorithm: Algorithm::Sha256, value: digest.0.into() }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Checksum {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = match text.split_once(':') {
            Some(("sha256", hex)) => (Algorithm::Sha256, hex),
            Some(("sha512", hex)) => (Algorithm::Sha512, hex),
            _ => return Err(DigestError::Algorithm),
        };
        let mut value = vec![0; algorithm.len()].into_boxed_slice();
        decode_hex(hex, &mut value)?;
        Ok(Self { algorithm, value })
    }
}

/// Hashes and counts bytes as they stream by: always sha256, and the claimed algorithm beside it
/// when that is another one.
#[derive(Debug, Clone)]
pub struct Hasher {
    sha256: Sha256,
    sha512: Option<Sha512>,
    size: u64,
}

/// What a [`Hasher`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// The blob's name.
    pub digest: Digest,
    /// Bytes counted.
    pub size: u64,
    sha512: Option<[u8; 64]>,
}

impl Hasher {
    /// Starts a hash that can later be compared with `expect`.
    pub fn new(expect: Option<&Checksum>) -> Self {
        let sha512 = expect.is_some_and(|claim| claim.algorithm == Algorithm::Sha512);
        Self { sha256: Sha256::new(), sha512: sha512.then(Sha512::new), size: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
        self.size += bytes.len() as u64;
    }

    /// Bytes taken so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Ends the hash.
    pub fn finish(self) -> Hashed {
        Hashed {
            digest: Digest(self.sha256.finalize().into()),
            size: self.size,
            sha512: self.sha512.map(|hash| hash.finalize().into()),
        }
    }
}

impl Hashed {
    /// Whether the bytes are the ones claimed. False when the claim's algorithm was not computed.
    pub fn satisfies(&self, claim: &Checksum) -> bool {
        match claim.algorithm {
            Algorithm::Sha256 => self.digest.0[..] == *claim.value,
            Algorithm::Sha512 => self.sha512.is_some_and(|value| value[..] == *claim.value),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn encode_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(HEX[usize::from(byte >> 4)]));
        hex.push(char::from(HEX[usize::from(byte & 15)]));
    }
    hex
}

fn decode_hex(hex: &str, into: &mut [u8]) -> Result<(), DigestError> {
    const fn nibble(digit: u8) -> Result<u8, DigestError> {
        match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(DigestError::Encoding),
        }
    }
    let hex = hex.as_bytes();
    if hex.len() != into.len() * 2 {
        return Err(DigestError::Encoding);
    }
    for (byte, pair) in into.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
    }

    #[test]
    fn anything_but_lower_case_hex_of_the_right_length_is_refused() {
        let hex = &EMPTY[7..];
        for (text, error) in [
            (format!("sha256:{}", hex.to_uppercase()), DigestError::Encoding),
            (format!("sha256:{}", &hex[1..]), DigestError::Encoding),
            (format!("sha256:{hex}0"), DigestError::Encoding),
            (format!("sha256:../{}", &hex[3..]), DigestError::Encoding),
            ("sha256:".to_owned(), DigestError::Encoding),
            (format!("md5:{hex}"), DigestError::Algorithm),
            (hex.to_owned(), DigestError::Algorithm),
            (String::new(), DigestError::Algorithm),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
            assert_eq!(text.parse::<Checksum>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_hash_is_compared_in_the_algorithm_of_the_claim() {
        let sha512: Checksum =
            format!("sha512:{}", encode_hex(&Sha512::digest(b"abc"))).parse().expect("valid");
        let mut hasher = Hasher::new(Some(&sha512));
        hasher.update(b"a");
        hasher.update(b"bc");
        let hashed = hasher.finish();
        assert_eq!(hashed.size, 3);
        assert!(hashed.satisfies(&sha512));
        assert!(hashed.satisfies(&Digest::of(b"abc").into()));
        assert!(!hashed.satisfies(&Digest::of(b"abd").into()));
        let mut plain = Hasher::new(None);
        plain.update(b"abc");
        assert!(!plain.finish().satisfies(&sha512), "not computed, so not confirmed");
    }
}
