//! Documents that upstreams send, right and nearly right, and what holds for whatever is read of them.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use repoxy::model::{ArtifactType, Claim, Digest, RefPath, Resource};
use repoxy::protocol::debian::Debian;
use repoxy::protocol::oci::Oci;
use repoxy::protocol::{self, Protocol, Route};
use serde_json::{Value, json};

use super::edit::{JSON, edited, edited_text};
use super::engine::worlds;
use super::heads::{Ask, HEX};

/// The keys that `fixtures/openpgp` is signed with.
pub(crate) const RING: &[u8] = include_bytes!("../../fixtures/openpgp/ring.gpg");
/// A text, the same signed within, and its signature apart.
pub(crate) const MESSAGE: &[u8] = include_bytes!("../../fixtures/openpgp/message");
pub(crate) const SIGNED: &[u8] = include_bytes!("../../fixtures/openpgp/archive.inrelease");
pub(crate) const SIGNATURE: &[u8] = include_bytes!("../../fixtures/openpgp/archive.sig");
/// A registry's sums, their signature, and its key.
pub(crate) const SUMS: &[u8] = include_bytes!("../../fixtures/tf/terraform-provider-demo_1.1.0_SHA256SUMS");
pub(crate) const SUMS_SIGNATURE: &[u8] = include_bytes!("../../fixtures/tf/ed25519.sig");
pub(crate) const SUMS_KEY: &str = include_str!("../../fixtures/tf/ed25519.asc");
const ZIP: &[u8] = include_bytes!("../../fixtures/tf/terraform-provider-demo_1.1.0_linux_amd64.zip");

/// What readers of Debian's documents stumble over.
const STANZAS: &[&str] = &[
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\n \n",
    " ",
    "\t",
    ":",
    "- ",
    "-----BEGIN PGP SIGNED MESSAGE-----",
    "-----BEGIN PGP SIGNATURE-----",
    "-----END PGP SIGNATURE-----",
    "\nSHA256:\n",
    "\nSHA512:\n",
    "\nFilename: ",
    "\nSize: ",
    "\nDirectory: ",
    "\nDate: ",
    "\nAcquire-By-Hash: yes",
    "\nPackage: ",
    "..",
    "../",
    "/",
    "//",
    "./",
    "\0",
    "é",
    "-1",
    "18446744073709551616",
    "0",
    "Sat, 22 Nov 2025 10:00:00 UTC",
    "main/binary-amd64/Packages",
    "\nOrigin: Evil\n",
    "\nHash: SHA512\n\n",
    "Hash: SHA1",
];

/// What upstream may say of where something is, beside a document.
const PLACES: &[&str] = &[
    "/m/net.tar.gz//sub?checksum=sha256:00",
    "./net.zip",
    "https://files.example/net.tgz?X-Signature=a%2Fb&archive=tgz",
    "git::https://git.example/net?ref=v1",
    "</v2/library/alpine/tags/list?last=3.20&n=10>; rel=\"next\"",
    "<?last=a>; rel=next, <x>; rel=\"prev\"",
];

/// One document of each form that is as it should be.
pub(crate) static RIGHT: LazyLock<Vec<(&'static str, Bytes)>> = LazyLock::new(|| {
    let versions = json!({"versions": [
        {"version": "1.1.0", "protocols": ["5.0"], "platforms": [{"os": "linux", "arch": "amd64"}]},
        {"version": "1.0.0+build.7", "platforms": null},
    ]});
    let download = json!({
        "protocols": ["5.0"], "filename": "terraform-provider-demo_1.1.0_linux_amd64.zip",
        "download_url": "https://files.example/demo.zip?X-Signature=a%2Fb", "shasums_url": "../../../SUMS",
        "shasums_signature_url": "/SUMS.sig", "shasum": Digest::of(ZIP).hex(),
        "signing_keys": {"gpg_public_keys": [{"ascii_armor": SUMS_KEY}]},
        "packages": {"linux_amd64": {"hashes": ["zh:00", "h1:abc="]}},
    });
    let release = release();
    let signed = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{release}-----BEGIN PGP SIGNATURE-----\n\nx\n\
         -----END PGP SIGNATURE-----\n"
    );
    let forms: Vec<(_, Vec<u8>)> = vec![
        ("tf.services", br#"{"providers.v1":"/p/","modules.v1":"https://files.example/m"}"#.to_vec()),
        ("tf.versions", versions.to_string().into()),
        ("tf.download", download.to_string().into()),
        ("tf.sums", SUMS.to_vec()),
        ("tf.signature", SUMS_SIGNATURE.to_vec()),
        ("tf.moduleVersions", br#"{"modules":[{"versions":[{"version":"1.2.0"}]}]}"#.to_vec()),
        ("tf.moduleDownload", br#"{"location":"/m/net.tar.gz//sub?checksum=sha256:00"}"#.to_vec()),
        ("debian.release", release.into()),
        ("debian.release, signed", signed.into()),
        ("debian.release, verified", MESSAGE.to_vec()),
        ("debian.release, signed, verified", SIGNED.to_vec()),
        ("debian.signature", SIGNATURE.to_vec()),
        ("generic.file", format!("{HEX}  app.zip\n").into()),
    ];
    forms.into_iter().map(|(form, document)| (form, document.into())).collect()
});

/// A Release that names index files.
fn release() -> String {
    format!(
        "Origin: Test\nSuite: stable\nDate: Sat, 22 Nov 2025 10:00:00 UTC\nAcquire-By-Hash: yes\nSHA256:\n \
         {HEX} 17 main/binary-amd64/Packages.xz\n {HEX} 18 Packages.gz\nSHA512:\n {HEX}{HEX} 18 Packages.gz\n"
    )
}

/// The form that a resource's document should have.
pub(crate) fn form_of(resource: &Resource) -> &'static str {
    if resource.kind != "debian.release" {
        return resource.kind;
    }
    match (resource.key.path.as_str().ends_with("InRelease"), resource.context.is_empty()) {
        (false, true) => "debian.release",
        (true, true) => "debian.release, signed",
        (false, false) => "debian.release, verified",
        (true, false) => "debian.release, signed, verified",
    }
}

/// Every form there is.
pub(crate) fn kinds() -> Vec<&'static str> {
    RIGHT.iter().map(|(kind, _)| *kind).collect()
}

/// A form, and a document that is nearly of it or nothing at all.
pub(crate) fn edited_of_any_kind() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    select(RIGHT.clone()).prop_flat_map(|(kind, right)| {
        let pieces = if kind.starts_with("tf.") { JSON } else { STANZAS };
        let document = prop_oneof![12 => edited(vec![right], pieces), 1 => vec(any::<u8>(), 0..200)];
        (Just(kind), document)
    })
}

/// What upstream says of places in its headers.
pub(crate) fn places() -> impl Strategy<Value = String> {
    edited_text(PLACES.to_vec(), JSON)
}

/// Every manifest of the fixtures, but for those that are as good as each other.
fn manifests() -> impl Strategy<Value = Vec<u8>> {
    let right: Vec<&[u8]> = vec![
        include_bytes!("../../fixtures/oci/image.json"),
        include_bytes!("../../fixtures/oci/index.json"),
        include_bytes!("../../fixtures/oci/list-docker.json"),
        include_bytes!("../../fixtures/oci/image-windows.json"),
        include_bytes!("../../fixtures/oci/artifact-manifest.json"),
        include_bytes!("../../fixtures/oci/schema1.json"),
    ];
    edited(right, JSON)
}

/// Packages, Sources and Releases, plain and compressed, edited before or after.
fn catalogues() -> impl Strategy<Value = (RefPath, Vec<u8>)> {
    let packages = format!(
        "Package: a\nFilename: pool/a_1.deb\nSize: 5\nSHA256: {HEX}\n\nPackage: b\nDirectory: pool/b\n\
         Checksums-Sha256:\n {HEX} 7 b_1.dsc\n {HEX} 9 b_1.tar.xz\n"
    );
    let path = |path: &str| Just(path.replace("{hex}", HEX).parse::<RefPath>().expect("a path"));
    let gzipped = |text: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).expect("memory");
        gzip.finish().expect("memory")
    };
    let xz = include_bytes!("../../fixtures/debian/Packages.xz").to_vec();
    let compressed = vec![gzipped(packages.as_bytes()), xz];
    let text = edited(vec![packages], STANZAS);
    let indexes = prop_oneof![
        4 => text.prop_flat_map(move |text| select(vec![gzipped(&text), text])),
        2 => edited(compressed, STANZAS),
    ];
    let at_suite = path("dists/stable/main/binary-amd64/by-hash/SHA256/{hex}");
    let releases = edited(vec![release()], STANZAS);
    prop_oneof![
        4 => (prop_oneof![at_suite, path("flat/by-hash/SHA256/{hex}")], indexes),
        1 => (path("dists/stable/Release"), releases),
        1 => (path("dists/stable/InRelease"), edited(vec![SIGNED], STANZAS)),
    ]
}

fn is_below(path: &str) -> bool {
    path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn a_manifest_links_only_what_it_names_and_each_once(
        document in prop_oneof![12 => manifests(), 1 => vec(any::<u8>(), 0..200)],
        kind in select(vec!["container.tag", "container.manifest"]),
        media_type in option::of(select(vec![
            "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json", "text/html", "",
        ])),
    ) {
        use repoxy::model::RefRules as _;
        let links = Oci.links(kind, media_type, &document).unwrap_or_default();
        let text = String::from_utf8_lossy(&document);
        for Claim { digest, .. } in &links {
            prop_assert!(text.contains(&digest.hex()), "{}", digest);
        }
        let different: HashSet<_> = links.iter().map(|link| link.digest).collect();
        prop_assert_eq!(different.len(), links.len());
    }

    #[test]
    fn a_catalogue_names_only_paths_below_its_archive((path, document) in catalogues()) {
        use repoxy::model::RefRules as _;
        let mut named = Vec::new();
        let whole = Debian.catalogue(&path, &document, &mut |name, _| named.push(name.to_owned()));
        prop_assert!(named.iter().all(|name| is_below(name)), "{:?}", named);
        // Content is taken for missing by what a catalogue names: reading is no matter of luck.
        let mut again = Vec::new();
        prop_assert_eq!(Debian.catalogue(&path, &document, &mut |name, _| again.push(name.to_owned())), whole);
        prop_assert_eq!(again, named);
    }

    #[test]
    fn a_list_that_is_rewritten_is_json_under_the_clients_own_name(
        (target, document) in prop_oneof![
            edited(vec![r#"{"name":"x","tags":["3.20","latest","3.19"]}"#], JSON)
                .prop_map(|document| ("/v2/alpine/tags/list?n=2&last=3.19", document)),
            edited(vec![include_bytes!("../../fixtures/oci/referrers.json").as_slice()], JSON)
                .prop_map(|document| ("/v2/a/referrers/sha256:{hex}?artifactType=application/x", document)),
            edited(vec![RIGHT[2].1.clone()], JSON)
                .prop_map(|document| ("/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64", document)),
        ],
        world in worlds(),
    ) {
        let ask = Ask::get(&target.replace("{hex}", HEX));
        let artifact_type = if target.starts_with("/v2") { ArtifactType::Container } else { ArtifactType::Tf };
        let dialect = dialect(artifact_type);
        let Ok(Route::Fetch(fetch)) = world.route(dialect, &ask.head()) else { return Ok(()) };
        prop_assert!(fetch.rewrite);
        let mut reference = repoxy::model::Ref::new(
            fetch.resource.kind.to_owned(), Digest::of(&document), 0, repoxy::model::Timestamp::UNIX_EPOCH,
        );
        reference.headers.extend(world.header().map(|link| ("link".to_owned(), link.to_owned())));
        let Ok(rewritten) = dialect.rewrite(&ask.head(), &reference, &document) else { return Ok(()) };
        // What is not looked at stays as upstream wrote it.
        let is_json = |text: &[u8]| serde_json::from_slice::<Value>(text).is_ok();
        prop_assert!(is_json(&rewritten.body) || !is_json(&document));
        let body: Value = serde_json::from_slice(&rewritten.body).unwrap_or_default();
        if let Some(tags) = body.get("tags").and_then(Value::as_array) {
            prop_assert_eq!(&body["name"], "alpine");
            prop_assert!(tags.len() <= 2 && tags.is_sorted_by_key(Value::to_string), "{}", body);
        }
        if let Some(place) = body.get("download_url") {
            prop_assert_eq!(place, "amd64/terraform-provider-demo_1.1.0_linux_amd64.zip");
        }
        for (_, link) in &rewritten.headers {
            let link = link.to_str().expect("text");
            prop_assert!(!link.starts_with('<') || link.starts_with("</v2/a"), "{}", link);
        }
    }
}

/// The dialect of a type.
pub(crate) fn dialect(artifact_type: ArtifactType) -> &'static dyn Protocol {
    *protocol::ALL
        .iter()
        .find(|dialect| dialect.artifact_type() == artifact_type)
        .expect("every type has one")
}
