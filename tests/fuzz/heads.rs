//! Request heads: targets of every dialect and what is nearly one, with every method and many headers.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use repoxy::protocol::Head;

use super::edit::edited_text;

/// A sha256 that occurs in targets.
pub(crate) const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// What `http` does not take in a target.
const NOT_IN_URIS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`');

/// What a client asks.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) authority: Option<&'static str>,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl Ask {
    /// A GET of a target without more.
    pub(crate) fn get(target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self { method: Method::GET, authority: None, path: path.to_owned(), query, headers: HeaderMap::new() }
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            authority: self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

/// Targets that every dialect takes, of all its sorts; `{hex}` stands for [`HEX`].
const TARGETS: &[&str] = &[
    "/v2/",
    "/v2/_catalog?n=5&last=hub/library/alpine",
    "/v2/hub/_catalog",
    "/v2/library/alpine/manifests/3.20",
    "/v2/hub/library/alpine/manifests/sha256:{hex}",
    "/v2/ghcr/owner/app/blobs/sha256:{hex}",
    "/v2/owner/app/blobs/sha512:{hex}{hex}?ns=ghcr.io",
    "/v2/alpine/tags/list?n=10&last=3.19",
    "/v2/library/tags/tags/list",
    "/v2/owner/app/referrers/sha256:{hex}?artifactType=application/vnd.example%2Bjson",
    "/.well-known/terraform.json",
    "/tf/acme/.well-known/terraform.json",
    "/tf/acme/v1/providers/acme/demo/versions",
    "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64",
    "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_linux_amd64.zip",
    "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS",
    "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS.sig",
    "/tf/other/mirror/registry.acme.example/acme/demo/index.json",
    "/tf/acme/mirror/registry.acme.example/acme/demo/1.1.0.json",
    "/tf/acme/mirror/registry.acme.example/acme/demo/terraform-provider-demo_1.1.0_linux_amd64.zip",
    "/tf/acme/v1/modules/acme/net/aws/versions",
    "/tf/acme/v1/modules/acme/net/aws/1.2.0/download",
    "/tf/acme/v1/modules/acme/net/aws/1.2.0/archive.tar.gz",
    "/debian/deb/dists/stable/InRelease",
    "/debian/deb/dists/stable/updates/Release",
    "/debian/deb/dists/stable/Release.gpg",
    "/debian/deb/dists/stable/main/binary-amd64/Packages.xz",
    "/debian/deb/dists/stable/main/binary-amd64/by-hash/SHA256/{hex}",
    "/debian/flat/by-hash/SHA512/{hex}{hex}",
    "/debian/flat/./Packages.gz",
    "/debian/deb/dists/stable/main/binary-amd64/Packages.diff/Index",
    "/debian/deb/pool/main/a/a/a_1.0-1%2bb1_amd64.deb",
    "/debian/HTTPS///deb.example/debian/dists/stable/InRelease",
    "/HTTPS///deb.example/debian/pool/main/b/b.dsc",
    "/debian/dists/stable/InRelease",
    "/generic/files/releases/v1.0/app.tar.gz?download=1",
    "/generic/files/checked/app.zip",
    "/generic/files/checked/app.zip.sha256",
    "/generic/files/never/secret",
    "/generic/plain/a%2Fb/100%/",
    "/generic/plain/",
    "/-/healthz",
];

/// What paths are made of, and what must not lead anywhere.
const PIECES: &[&str] = &[
    "/",
    "//",
    "/./",
    "/../",
    "..",
    ".",
    "\\",
    "\\..\\",
    "%",
    "%2",
    "%2e%2e",
    "%2E%2E%2F",
    "%2f",
    "%5c",
    "%00",
    "%0a",
    "%0d%0a",
    "%25",
    "%252e",
    "%c3%a9",
    "%c3%28",
    "%ff",
    "%zz",
    "?",
    "&",
    "=",
    "#",
    ";",
    ":",
    "@",
    "+",
    "~",
    "*",
    " ",
    "\t",
    "\n",
    "\0",
    "\u{7f}",
    "é",
    "\u{202e}",
    "A",
    "_",
    "-",
    "v2",
    "tags",
    "list",
    "manifests",
    "blobs",
    "referrers",
    "_catalog",
    "sha256:",
    "sha512:",
    "sha256",
    "versions",
    "download",
    "index.json",
    ".json",
    "providers",
    "modules",
    "mirror",
    "dists",
    "pool",
    "by-hash",
    "SHA256",
    "InRelease",
    "Release",
    "Release.gpg",
    "Packages",
    ".gz",
    ".deb",
    "HTTPS",
    "deb.example",
    "hub",
    "acme",
    "deb",
    "files",
    "%vary",
    "%s",
    "con",
    "nul",
    ".part",
    "ns=",
    "n=",
    "last=",
    "00000000000000000000000000000000000000000000000000000000000000000000000000",
];

/// The authorities of other servers that get as far as a dialect, and some that should not.
const AUTHORITIES: &[&str] = &[
    "deb.example",
    "DEB.example:80",
    "flat.example:8080",
    "HTTPS",
    "elsewhere.example",
    "",
    ":",
    "[::1]:80",
];

/// Targets that are as they should be, of all sorts there are.
pub(crate) fn right() -> Vec<String> {
    TARGETS.iter().map(|target| target.replace("{hex}", HEX)).collect()
}

fn target() -> impl Strategy<Value = String> {
    let mounts =
        vec!["/v2/", "/v2/hub/", "/tf/acme/v1/", "/debian/deb/", "/generic/files/", "/generic/plain/", "/"];
    let soup = (select(mounts), vec(select(PIECES), 0..12), vec(any::<bool>(), 12)).prop_map(
        |(mount, pieces, slashes)| {
            let with_slash =
                |(piece, slash): (&&str, &bool)| format!("{piece}{}", if *slash { "/" } else { "" });
            mount.to_owned() + &pieces.iter().zip(&slashes).map(with_slash).collect::<String>()
        },
    );
    prop_oneof![
        8 => edited_text(right(), PIECES),
        2 => soup,
        1 => vec(any::<char>(), 0..60).prop_map(|text| text.into_iter().collect()),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    const NAMES: &[&str] = &[
        "accept",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "host",
        "if-none-match",
        "pragma",
        "range",
        "x-forwarded-host",
        "x-original-url",
        "x-thing",
    ];
    const VALUES: &[&str] = &[
        "",
        "*/*",
        "no-cache, no-store",
        "max-age=0",
        "max-age=99999999999999999999",
        "x-thing, close",
        "bytes=0-0",
        "Basic bWU6cHc=",
        "\"a\"",
        "application/json",
    ];
    vec((select(NAMES), select(VALUES)), 0..4).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    })
}

/// Any request that a dialect may be asked about.
pub(crate) fn asks() -> impl Strategy<Value = Ask> {
    let method = prop_oneof![
        12 => Just(Method::GET),
        2 => Just(Method::HEAD),
        2 => select(vec![Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE]),
    ];
    let authority = prop_oneof![8 => Just(None), 1 => option::of(select(AUTHORITIES))];
    (method, authority, target(), headers()).prop_map(|(method, authority, target, headers)| Ask {
        method,
        authority,
        headers,
        ..Ask::get(&as_served(&target))
    })
}

/// A target as the server hands it on: from a slash to the fragment, of what a URI may hold. Where it
/// holds something else, which the server refuses, that is encoded.
fn as_served(target: &str) -> String {
    let rooted = format!("/{}", target.strip_prefix('/').unwrap_or(target));
    let encoded = || utf8_percent_encode(&rooted, NOT_IN_URIS).to_string();
    let served = PathAndQuery::try_from(&rooted).or_else(|_| PathAndQuery::try_from(encoded()));
    served.expect("a target, once it is encoded").as_str().to_owned()
}
