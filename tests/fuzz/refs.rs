//! Digests, keys and ref files: what is read of them is written again as it was, and nothing else is read.

use proptest::collection::vec;
use proptest::prelude::*;
use repoxy::model::{Checksum, Digest, Ref, RefKey, RefPath};

use super::edit::{JSON, edited, edited_text};
use super::heads::HEX;

/// What readers of digests and keys stumble over.
const NAMES: &[&str] = &[
    ":",
    "sha256",
    "sha512",
    "SHA256:",
    "sha1:",
    "0",
    "A",
    "g",
    "é",
    "\0",
    "\n",
    " ",
    "/",
    "//",
    "/../",
    "..",
    ".",
    "%",
    "\\",
    "container/",
    "debian/",
    "/refs/",
    "/meta/",
    "/cache/",
    "/tmp/",
    "\u{7f}",
    "\u{200b}",
];

/// A ref file with everything that there can be in one.
const FULL: &str = r#"{"kind":"container.tag","targetDigest":"sha256:{hex}","mediaType":"a/b","size":7432,
    "upstream":"registry-1.docker.io","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800,"etag":"\"x\"",
    "lastModified":"Sat, 22 Nov 2025 10:00:00 GMT","links":["sha256:{hex}"],"linkSizes":[17],"headers":{"link":"<x>"},
    "http":{"status":404,"ageSeconds":3,"variant":"ab","variantsSince":"2025-11-09T12:34:56Z"},
    "validUntil":"2025-11-29T00:00:00Z","later":{"a":[1.50,null]}}
"#;

/// What a ref file of a provider has instead.
const PROVIDER: &str =
    r#"{"kind":"tf.provider","zipDigest":"sha256:{hex}","size":1,"fetchedAt":"2025-11-09T12:34:56Z"}"#;

fn with_hex(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.replace("{hex}", HEX)).collect()
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn a_digest_is_written_as_it_was_read(text in edited_text(with_hex(&["sha256:{hex}", "sha512:{hex}{hex}", "{hex}"]), NAMES)) {
        if let Ok(checksum) = text.parse::<Checksum>() {
            prop_assert_eq!(checksum.to_string(), &*text);
            prop_assert_eq!(text.parse::<Digest>().ok(), checksum.digest());
        }
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), &*text);
        }
        if let Ok(digest) = Digest::from_hex(&text) {
            prop_assert_eq!(digest.hex(), text);
        }
    }

    #[test]
    fn a_key_is_written_as_it_was_read(
        text in edited_text(vec!["container/hub/refs/library/alpine/tags/3.20", "debian/deb/cache/dists/stable/Release"], NAMES),
    ) {
        if let Ok(key) = text.parse::<RefKey>() {
            prop_assert_eq!(key.to_string(), &*text);
        }
        if let Ok(path) = text.parse::<RefPath>() {
            prop_assert_eq!(path.as_str(), &*text);
            prop_assert!(path.segments().all(|segment| !matches!(segment, "" | "." | "..")), "{}", path);
        }
    }

    #[test]
    fn a_ref_that_can_be_read_is_the_same_when_it_was_written_again(
        json in prop_oneof![12 => edited(with_hex(&[FULL, PROVIDER]), JSON), 1 => vec(any::<u8>(), 0..200)],
    ) {
        let Ok(reference) = Ref::parse(&json) else { return Ok(()) };
        let written = reference.to_json();
        let read = Ref::parse(&written);
        prop_assert_eq!(read.ok(), Some(reference), "{}", String::from_utf8_lossy(&written));
    }
}
