//! Nothing is taken for signed but what was signed, however keys, signatures and texts are bent.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use repoxy::model::{Area, ArtifactType, Delivery, Descriptor, Freshness, ProxyId, RefKey, Resource, Source};
use repoxy::protocol::debian::Debian;
use repoxy::protocol::openpgp::Keyring;
use repoxy::protocol::{Gathered, Protocol as _};

use super::documents::{MESSAGE, RING, SIGNATURE, SIGNED, SUMS, SUMS_KEY, SUMS_SIGNATURE};
use super::edit::edited;

/// What readers of signed texts, and of the packets and the armor around them, stumble over.
const PIECES: &[&str] = &[
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\n \n",
    "\n\t\n",
    " ",
    "\t",
    "\0",
    "- ",
    "-- ",
    "-----",
    "=",
    "==",
    "-----BEGIN PGP SIGNED MESSAGE-----\n",
    "-----BEGIN PGP SIGNATURE-----\n",
    "-----END PGP SIGNATURE-----\n",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
    "-----END PGP PUBLIC KEY BLOCK-----\n",
    "Hash: SHA512\n",
    "Hash: SHA1\n",
    "Comment: x\n",
    "Version: 1\n\n",
    "Origin: Evil\n",
    "Date: Sun, 23 Nov 2025 10:00:00 UTC\n",
    "SHA256:\n",
    "é",
    "\u{1}",
    "\u{7f}",
    "AAAA",
    "a",
    "\u{85}",
    "\u{2028}",
    "\u{b}",
    "\u{c}",
    "\r",
];

/// Armored and binary keyrings.
const RINGS: [&[u8]; 3] = [RING, include_bytes!("../../fixtures/openpgp/ring.asc"), SUMS_KEY.as_bytes()];
/// Armored and binary signatures.
const SIGNATURES: [&[u8]; 3] =
    [SIGNATURE, include_bytes!("../../fixtures/openpgp/archive.asc"), SUMS_SIGNATURE];

/// An `InRelease` that must be signed by a key of the ring.
static RELEASE: LazyLock<Resource> = LazyLock::new(|| {
    let proxy = ProxyId { artifact_type: ArtifactType::Debian, name: "deb".parse().expect("a name") };
    let path = "dists/stable/InRelease".parse().expect("a path");
    let key = RefKey { proxy, area: Area::Cache, path };
    let source = Source::Path("/dists/stable/InRelease".to_owned());
    let delivery = Delivery::Whole { limit: 1 << 20 };
    let resource = Resource::new(key, "debian.release", source, Freshness::Immutable, delivery);
    Resource { context: bytes::Bytes::from_static(RING), ..resource }
});

/// The signed text with something in front of some of its lines, or at their ends: much of that is no part
/// of what was signed, and may be anybody's.
fn edited_by_line() -> impl Strategy<Value = Vec<u8>> {
    let places = vec((any::<Index>(), any::<bool>(), select(PIECES)), 1..4);
    places.prop_map(|places| {
        let text = str::from_utf8(SIGNED).expect("text");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (line, in_front, piece) in places {
            let line = line.get_mut(&mut lines);
            line.insert_str(if in_front { 0 } else { line.len() }, piece);
        }
        (lines.join("\n") + "\n").into_bytes()
    })
}

/// What a dialect learns of a Release, if it trusts it.
fn learned(document: &[u8]) -> Option<Vec<Descriptor>> {
    Debian.vet(&RELEASE, document, &Gathered::default()).ok()
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn keys_and_signatures_may_be_anything(
        ring in edited(RINGS.to_vec(), PIECES), signature in edited(SIGNATURES.to_vec(), PIECES), text in select(vec![MESSAGE, SUMS]),
    ) {
        let Ok(ring) = Keyring::read(&ring) else { return Ok(()) };
        prop_assert!(!ring.ids().is_empty());
        let _ = ring.verify_detached(&signature, text);
    }

    #[test]
    fn a_signature_holds_for_no_other_content(data in edited(vec![SUMS], PIECES)) {
        static RING: LazyLock<Keyring> = LazyLock::new(|| Keyring::read(SUMS_KEY.as_bytes()).expect("a key"));
        prop_assert_eq!(RING.verify_detached(SUMS_SIGNATURE, &data).is_ok(), data == SUMS);
    }

    #[test]
    fn of_a_signed_text_only_what_was_signed_is_read(document in prop_oneof![edited(vec![SIGNED], PIECES), edited_by_line()]) {
        static ORIGINAL: LazyLock<Option<Vec<Descriptor>>> = LazyLock::new(|| learned(SIGNED));
        let learned = learned(&document);
        prop_assert!(ORIGINAL.is_some() && (learned.is_none() || learned == *ORIGINAL), "{:?}", learned);
    }
}
