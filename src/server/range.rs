//! Which bytes a `Range` header asks for (RFC 9110 section 14). Pure.
//!
//! What is not one well-formed byte range is ignored, as section 14.2 allows: the answer is then the
//! whole. So is a list of ranges, which also takes the sting out of a list of ten thousand.

use std::ops::Range;

/// What a `Range` header comes to for content of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slice {
    /// The whole: there is nothing that must be honoured.
    Whole,
    /// These bytes; never empty, always within the content.
    Part(Range<u64>),
    /// No byte of the content is meant: 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for content of `size` bytes.
///
/// An end past the content is clamped (regctl asks for one byte more than there is); a start past it
/// is unsatisfiable (apt takes that as "already complete").
pub(super) fn slice(value: &[u8], size: u64) -> Slice {
    let Ok((first, last)) = parse(value) else {
        return Slice::Whole;
    };
    let part = match (first, last) {
        (Some(first), Some(last)) if first > last => return Slice::Whole,
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        // A suffix of an empty content is satisfiable but has no `Content-Range`.
        (None, Some(suffix)) if size == 0 && suffix > 0 => return Slice::Whole,
        (None, Some(suffix)) => size.saturating_sub(suffix)..size,
        (None, None) => return Slice::Whole,
    };
    if part.start < part.end { Slice::Part(part) } else { Slice::Unsatisfiable }
}

/// Not one well-formed byte range.
struct Malformed;

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`.
fn parse(value: &[u8]) -> Result<(Option<u64>, Option<u64>), Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
    let (unit, set) = text.split_once('=').ok_or(Malformed)?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Err(Malformed);
    }
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-').ok_or(Malformed)?;
    Ok((position(first)?, position(last)?))
}

/// Digits or nothing; a number too large for 64 bits is as good as the largest.
fn position(digits: &str) -> Result<Option<u64>, Malformed> {
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_range_is_clamped_to_the_content() {
        for (value, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=0-10", 0..10),
            ("bytes=5-", 5..10),
            ("bytes=9-", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("BYTES=2-3", 2..4),
            ("bytes= 2-3 ", 2..4),
            ("bytes=2-18446744073709551615", 2..10),
            ("bytes=2-99999999999999999999999", 2..10),
        ] {
            assert_eq!(slice(value.as_bytes(), 10), Slice::Part(part), "{value}");
        }
    }

    #[test]
    fn a_range_that_means_no_byte_is_unsatisfiable() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(slice(value.as_bytes(), 10), Slice::Unsatisfiable, "{value}");
        }
        assert_eq!(slice(b"bytes=0-", 0), Slice::Unsatisfiable);
        assert_eq!(slice(b"bytes=-0", 0), Slice::Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_byte_range_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(10_000));
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=3-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes=0-1,3-4",
            "bytes=0-1-2",
            "items=0-1",
            "bytes 0-1",
            "bytes=٣-",
            &many,
        ] {
            assert_eq!(slice(value.as_bytes(), 10), Slice::Whole, "{value}");
        }
        assert_eq!(slice(b"bytes=\xff-1", 10), Slice::Whole);
        assert_eq!(slice(b"bytes=-5", 0), Slice::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_always_within(value in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", size: u64) {
            if let Slice::Part(part) = slice(value.as_bytes(), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn a_range_within_the_content_is_taken_as_it_is(first in 0..1000_u64, len in 1..1000_u64, rest in 0..1000_u64) {
            let last = first + len - 1;
            let value = format!("bytes={first}-{last}");
            prop_assert_eq!(slice(value.as_bytes(), last + 1 + rest), Slice::Part(first..last + 1));
        }

        #[test]
        fn no_bytes_make_it_fail(value: Vec<u8>, size: u64) {
            slice(&value, size);
        }
    }
}
