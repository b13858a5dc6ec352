//! The grammar of names, versions and platforms (Terraform's "Provider Registry Protocol", "Module
//! Registry Protocol" and "Provider Network Mirror Protocol").
//!
//! Everything of a request that becomes part of a key or of a question to upstream passes through
//! here once. What comes out is ASCII without slashes, percent signs, or a segment that climbs.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::protocol::{Part, Refusal};

/// The longest namespace, provider type, module name or target system, in bytes (Terraform, "Module
/// Registry Protocol": 64 characters).
const PART_MAX_LEN: usize = 64;
/// The longest version, in bytes. Semantic Versioning has no limit; this is far more than is used.
const VERSION_MAX_LEN: usize = 128;
/// The longest operating system or architecture, in bytes.
const PLATFORM_MAX_LEN: usize = 32;
/// The longest path as sent, in bytes: that of a zip with everything at its longest and every byte
/// percent-encoded is shorter.
const PATH_MAX_LEN: usize = 2048;

/// The segments of a path, each decoded once. A slash that was encoded separates nothing.
///
/// # Errors
/// [`Refusal::Invalid`] for a path that is too long or not UTF-8.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let invalid = |why| Refusal::Invalid { what: Part::Path, why };
    if path.len() > PATH_MAX_LEN {
        return Err(invalid("it is too long"));
    }
    let decode = |segment| match percent_decode_str(segment).decode_utf8() {
        Ok(segment) => Ok(segment.into_owned()),
        Err(_) => Err(invalid("it is not UTF-8")),
    };
    path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect()
}

/// Whether this is a namespace, a provider's type, a module's name or its target system.
pub(super) fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.len() <= PART_MAX_LEN
        && text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || matches!(c, '-' | '_'))
}

/// Whether this is a version: digits first, so that `v1.0.0` is none; then what Semantic Versioning
/// allows, pre-release and build included.
pub(super) fn is_version(text: &str) -> bool {
    text.len() <= VERSION_MAX_LEN
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))
        && !text.contains("..")
        && !text.ends_with('.')
}

/// What a provider's package runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Platform {
    /// The operating system, such as `linux`.
    pub(super) os: String,
    /// The architecture, such as `amd64`.
    pub(super) arch: String,
}

impl Platform {
    /// A platform of these two, if each is 1 to 32 lower-case letters and digits.
    pub(super) fn new(os: &str, arch: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid = |text: &str| (1..=PLATFORM_MAX_LEN).contains(&text.len()) && text.chars().all(plain);
        (valid(os) && valid(arch)).then(|| Self { os: os.to_owned(), arch: arch.to_owned() })
    }

    /// Reads `linux_amd64`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (os, arch) = text.split_once('_')?;
        Self::new(os, arch)
    }
}

/// Written `linux_amd64`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.os, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_and_digits_joined_by_dashes_and_underscores() {
        for good in
            ["a", "hashicorp", "aws", "Azure", "terraform-aws-modules", "my_module", "0x", &"a".repeat(64)]
        {
            assert!(is_part(good), "{good}");
        }
        for bad in ["", "-a", "a-", "_", ".", "..", "a.b", "a b", "a/b", "a%2f", "ä", &"a".repeat(65)] {
            assert!(!is_part(bad), "{bad}");
        }
    }

    #[test]
    fn platforms_are_two_words() {
        assert_eq!(Platform::parse("linux_amd64").expect("valid").to_string(), "linux_amd64");
        for bad in ["", "linux", "linux_", "_amd64", "linux_x86_64", "Linux_amd64", "linux/amd64", "../.._x"]
        {
            assert_eq!(Platform::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_segment_is_decoded_once_and_an_encoded_slash_separates_nothing() {
        assert_eq!(segments("/tf/a%2Fb/1.0%2Bx").expect("valid"), ["tf", "a/b", "1.0+x"]);
        assert_eq!(segments("/a/%252e").expect("valid"), ["a", "%2e"]);
        assert!(segments("/%ff").is_err());
        assert!(segments(&"/a".repeat(2000)).is_err());
    }
}
