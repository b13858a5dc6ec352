//! The ref: one reading of upstream, written as a JSON file that people can read and write by hand.
//!
//! Fields may be added over time, never renamed; fields that this version does not know survive a
//! rewrite. A `tf.provider` calls its target `zipDigest`, everything else `targetDigest`; either is
//! read anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Claim, Digest, Timestamp};

/// What a name pointed at when upstream was last asked, and what is needed to ask again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Ref {
    /// What sort of thing the name is, such as `container.tag`.
    pub kind: String,
    /// The blob that holds the content.
    pub target_digest: Digest,
    /// The content's media type as upstream gave it.
    pub media_type: Option<String>,
    /// The content's size in bytes.
    pub size: u64,
    /// The host that was asked.
    pub upstream: Option<String>,
    /// When upstream last confirmed this.
    pub fetched_at: Timestamp,
    /// How long it may be used without asking again; absent means for ever.
    pub ttl_seconds: Option<u64>,
    /// Upstream's entity tag, as sent, quotes included.
    pub etag: Option<String>,
    /// Upstream's `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// The blobs that this content needs beside itself; absent if nobody has looked yet.
    pub links: Option<Vec<Claim>>,
    /// Further upstream response headers that the dialect wants kept, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// What else HTTP says of an answer that is kept as upstream gave it; absent for plain content.
    pub http: Option<Http>,
    /// Fields this version does not know.
    pub unknown: Map<String, Value>,
}

/// What HTTP says of a stored answer beside its header fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http {
    /// Its status.
    pub status: u16,
    /// How old it was when it came, in seconds (RFC 9111, section 4.2.3).
    pub age_seconds: u64,
    /// Which of several answers to its address it is; absent if there is but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Since when the variants of its address count; older ones do not belong to it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variants_since: Option<Timestamp>,
}

impl Default for Http {
    fn default() -> Self {
        Self { status: 200, age_seconds: 0, variant: None, variants_since: None }
    }
}

/// A file that is not a ref.
#[derive(Debug, thiserror::Error)]
#[error("not a ref")]
pub struct RefError(#[from] serde_json::Error);

impl Ref {
    /// The largest ref file that is read, in bytes.
    pub const MAX_LEN: u64 = 4 << 20;

    /// The name of the fact that says until when the content is valid, an RFC 3339 moment.
    pub const VALID_UNTIL: &'static str = "validUntil";

    /// A ref with nothing but what every ref has: it holds for ever and links are not known.
    pub fn new(kind: String, target_digest: Digest, size: u64, fetched_at: Timestamp) -> Self {
        Self {
            kind,
            target_digest,
            media_type: None,
            size,
            upstream: None,
            fetched_at,
            ttl_seconds: None,
            etag: None,
            last_modified: None,
            links: None,
            headers: BTreeMap::new(),
            http: None,
            unknown: Map::new(),
        }
    }

    /// The status that it was answered with.
    pub fn status(&self) -> u16 {
        self.http.as_ref().map_or(200, |http| http.status)
    }

    /// Time since it was made, as far as is known: what it was old when it came, and what has passed.
    pub fn current_age(&self, now: Timestamp) -> Duration {
        let when_it_came = self.http.as_ref().map_or(0, |http| http.age_seconds);
        self.age(now).saturating_add(Duration::from_secs(when_it_came))
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`RefError`] if it is not JSON, or lacks `kind`, a digest, `size` or `fetchedAt`, or has one
    /// of a wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, RefError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes the JSON form, one line with a newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        // Serialising strings, numbers and maps with string keys into memory cannot fail.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Until when the content says of itself that it is valid, if it does: a fact that a dialect noted.
    /// It is served all the same; clients decide.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.unknown.get(Self::VALID_UNTIL)?.as_str()?.parse().ok()
    }

    /// Time since upstream confirmed this; zero if the clock has gone back.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.fetched_at)).unwrap_or_default()
    }

    /// Whether it may be used without asking upstream. A confirmation from the future is not
    /// believed: the clock was wrong then or is wrong now.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        match self.ttl_seconds {
            None => true,
            Some(ttl) => self.fetched_at <= now && self.age(now) < Duration::from_secs(ttl),
        }
    }
}

/// The JSON as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zip_digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    fetched_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    links: Option<Vec<Digest>>,
    /// Sizes of the links, in the same order. A list of another length belongs to other links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_sizes: Option<Vec<Option<u64>>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<Http>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

const ZIP_KIND: &str = "tf.provider";

impl TryFrom<Wire> for Ref {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        Ok(Self {
            kind: wire.kind,
            target_digest: wire.target_digest.or(wire.zip_digest).ok_or("missing field `targetDigest`")?,
            media_type: wire.media_type,
            size: wire.size,
            upstream: wire.upstream,
            fetched_at: wire.fetched_at,
            ttl_seconds: wire.ttl_seconds,
            etag: wire.etag,
            last_modified: wire.last_modified,
            links: wire.links.map(|links| claims(&links, wire.link_sizes.as_deref().unwrap_or_default())),
            headers: wire.headers,
            http: wire.http,
            unknown: wire.unknown,
        })
    }
}

fn claims(links: &[Digest], sizes: &[Option<u64>]) -> Vec<Claim> {
    let sizes = if sizes.len() == links.len() { sizes } else { &[] };
    let sizes = sizes.iter().copied().chain(std::iter::repeat(None));
    links.iter().zip(sizes).map(|(digest, size)| Claim { digest: *digest, size }).collect()
}

impl From<Ref> for Wire {
    fn from(reference: Ref) -> Self {
        let (digest, is_zip) = (Some(reference.target_digest), reference.kind == ZIP_KIND);
        let links = reference.links.as_deref();
        let sizes = links.filter(|links| links.iter().any(|link| link.size.is_some()));
        Self {
            target_digest: digest.filter(|_| !is_zip),
            zip_digest: digest.filter(|_| is_zip),
            kind: reference.kind,
            media_type: reference.media_type,
            size: reference.size,
            upstream: reference.upstream,
            fetched_at: reference.fetched_at,
            ttl_seconds: reference.ttl_seconds,
            etag: reference.etag,
            last_modified: reference.last_modified,
            links: links.map(|links| links.iter().map(|link| link.digest).collect()),
            link_sizes: sizes.map(|links| links.iter().map(|link| link.size).collect()),
            headers: reference.headers,
            http: reference.http,
            unknown: reference.unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn tag() -> String {
        format!(
            r#"{{"kind":"container.tag","targetDigest":"{DIGEST}","mediaType":"application/vnd.oci.image.index.v1+json","size":7432,"upstream":"registry-1.docker.io","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800}}"#
        )
    }

    #[test]
    fn the_two_normative_forms_are_read_and_written_back_unchanged() {
        let provider = format!(
            r#"{{"kind":"tf.provider","zipDigest":"{DIGEST}","size":12345678,"upstream":"registry.terraform.io","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800}}"#
        );
        for text in [tag(), provider] {
            let reference = Ref::parse(text.as_bytes()).expect("valid");
            assert_eq!(String::from_utf8(reference.to_json()).expect("text"), format!("{text}\n"));
        }
    }

    #[test]
    fn fields_of_a_later_version_survive_a_rewrite() {
        let text = tag().replace("\"size\"", "\"flavour\":{\"x\":[1]},\"size\"");
        let reference = Ref::parse(text.as_bytes()).expect("valid");
        assert_eq!(reference.unknown["flavour"]["x"][0], 1);
        assert_eq!(Ref::parse(&reference.to_json()).expect("valid"), reference);
    }

    #[test]
    fn numbers_of_a_later_version_stay_the_same_numbers() {
        // A quick way of reading them is off by one in the last place.
        for number in ["118446744073709551616.50", "184467440737095516.14", "0.1", "1e-300", "-0.0"] {
            let text = tag().replace("\"size\"", &format!("\"flavour\":{number},\"size\""));
            let reference = Ref::parse(text.as_bytes()).expect("valid");
            assert_eq!(reference.unknown["flavour"].as_f64(), number.parse().ok(), "{number}");
            assert_eq!(Ref::parse(&reference.to_json()).expect("valid"), reference, "{number}");
        }
    }

    #[test]
    fn links_have_the_sizes_that_are_noted_beside_them() {
        let with = |sizes: &str| {
            let text = tag().replace("\"size\"", &format!("\"links\":[\"{DIGEST}\"]{sizes},\"size\""));
            Ref::parse(text.as_bytes()).expect("valid")
        };
        for (sizes, expected) in [
            ("", None),
            (",\"linkSizes\":[7]", Some(7)),
            (",\"linkSizes\":[null]", None),
            (",\"linkSizes\":[7,8]", None),
            (",\"linkSizes\":[]", None),
        ] {
            let reference = with(sizes);
            let links = reference.links.clone().expect("links");
            assert_eq!(links, [Claim { digest: DIGEST.parse().expect("valid"), size: expected }], "{sizes}");
            assert_eq!(Ref::parse(&reference.to_json()).expect("valid"), reference);
            let written = String::from_utf8(reference.to_json()).expect("text");
            assert_eq!(written.contains("linkSizes"), expected.is_some(), "{written}");
        }
    }

    #[test]
    fn an_answer_that_is_kept_as_it_was_has_its_status_and_age() {
        let plain = Ref::parse(tag().as_bytes()).expect("valid");
        assert_eq!((plain.status(), plain.current_age(plain.fetched_at)), (200, Duration::ZERO));
        let http =
            r#""http":{"status":404,"ageSeconds":30,"variant":"a","variantsSince":"2025-11-09T12:34:56Z"}"#;
        let text = tag().replace("\"size\"", &format!("{http},\"size\""));
        let reference = Ref::parse(text.as_bytes()).expect("valid");
        assert_eq!(reference.status(), 404);
        let later = reference.fetched_at + jiff::SignedDuration::from_secs(5);
        assert_eq!(reference.current_age(later), Duration::from_secs(35));
        assert_eq!(Ref::parse(&reference.to_json()).expect("valid"), reference);
        let sparse = tag().replace("\"size\"", "\"http\":{},\"size\"");
        assert_eq!(Ref::parse(sparse.as_bytes()).expect("valid").http, Some(Http::default()));
    }

    #[test]
    fn content_may_say_until_when_it_is_valid() {
        let noted = |value: &str| {
            let text = tag().replace("\"size\"", &format!("\"validUntil\":{value},\"size\""));
            Ref::parse(text.as_bytes()).expect("valid").valid_until()
        };
        assert_eq!(noted("\"2025-11-30T10:00:00Z\""), "2025-11-30T10:00:00Z".parse().ok());
        assert_eq!((noted("\"soon\""), noted("5")), (None, None));
        assert_eq!(Ref::parse(tag().as_bytes()).expect("valid").valid_until(), None);
    }

    #[test]
    fn what_is_not_a_ref_is_an_error() {
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            "null",
            &tag().replace("7432", "\"7432\""),
            &tag().replace("sha256:e3", "sha256:zz"),
        ] {
            assert!(Ref::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn freshness_ends_with_the_ttl_and_the_future_is_not_believed() {
        let reference = Ref::parse(tag().as_bytes()).expect("valid");
        let at = |seconds: i64| reference.fetched_at + jiff::SignedDuration::from_secs(seconds);
        assert!(reference.is_fresh(at(0)));
        assert!(reference.is_fresh(at(604_799)));
        assert!(!reference.is_fresh(at(604_800)));
        assert!(!reference.is_fresh(at(-1)));
        assert_eq!(reference.age(at(-86_400)), Duration::ZERO);
        assert!(Ref { ttl_seconds: None, ..reference.clone() }.is_fresh(at(i64::from(u32::MAX))));
    }
}
