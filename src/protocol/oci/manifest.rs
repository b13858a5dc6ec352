//! What a manifest needs beside itself (OCI image specification, "Image Manifest" and "Image Index";
//! Docker image manifest version 2, schemas 1 and 2).
//!
//! Manifests are read for their digests only and never written: a byte changed is another digest.
//! A document that could be taken for two things at once is none: clients that read it differently
//! would run different content under one digest.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer};

use super::grammar::is_digest;
use super::resource::INDEX_TYPE;
use crate::model::{Claim, Digest, DigestError};

/// The most digests that a document may name. The largest images have some hundred layers.
const LINKS_MAX: usize = 10_000;

/// The keys of all forms of manifest. What is not here is ignored; a key that is given twice makes
/// the document invalid.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "list")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "list")]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "list")]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "list")]
    fs_layers: Option<Vec<FsLayer>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default, deserialize_with = "size")]
    size: Option<u64>,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

/// A list that is there; `null` is what Go makes of an empty one.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

/// A size that makes sense; some writers have put -1 where they knew none.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let size = serde_json::Value::deserialize(deserializer)?.as_i64();
    Ok(size.and_then(|size| u64::try_from(size).ok()))
}

/// The forms of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Image,
    Index,
    Artifact,
    Schema1,
}

/// The media types that manifests have. The first of a form is what one is that does not say.
const MEDIA_TYPES: [(&str, Form); 7] = [
    ("application/vnd.oci.image.manifest.v1+json", Form::Image),
    ("application/vnd.docker.distribution.manifest.v2+json", Form::Image),
    (INDEX_TYPE, Form::Index),
    ("application/vnd.docker.distribution.manifest.list.v2+json", Form::Index),
    ("application/vnd.oci.artifact.manifest.v1+json", Form::Artifact),
    ("application/vnd.docker.distribution.manifest.v1+prettyjws", Form::Schema1),
    ("application/vnd.docker.distribution.manifest.v1+json", Form::Schema1),
];

impl Form {
    fn of_media_type(media_type: &str) -> Option<Self> {
        known(media_type).map(|(_, form)| form)
    }

    fn media_type(self) -> Option<&'static str> {
        MEDIA_TYPES.iter().find(|(_, form)| *form == self).map(|(name, _)| *name)
    }
}

/// A media type of manifests, as it is written, and its form.
fn known(media_type: &str) -> Option<(&'static str, Form)> {
    // Parameters and case do not matter (RFC 9110, section 8.3.1).
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    MEDIA_TYPES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(essence))
}

impl Document {
    /// The one form that the keys allow.
    fn form(&self) -> Option<Form> {
        let image = self.layers.is_some() || self.config.is_some();
        let forms = [
            (image, Form::Image),
            (self.manifests.is_some(), Form::Index),
            (self.blobs.is_some(), Form::Artifact),
            (self.fs_layers.is_some(), Form::Schema1),
        ];
        let mut forms = forms.into_iter().filter_map(|(present, form)| present.then_some(form));
        forms.next().filter(|_| forms.next().is_none())
    }
}

/// The sha256 digests that a manifest names, in its order, each once, with the sizes that it states; `None` if it is not a
/// manifest, not the one that its media type says, or names what is not a digest.
///
/// `subject` is not among them: it is what the manifest speaks of, not what it needs. Layers that
/// live elsewhere (`urls`, or a type that forbids distribution) are not in the registry.
pub(super) fn links(media_type: Option<&str>, document: &[u8]) -> Option<Vec<Claim>> {
    let document: Document = super::from_object(document)?;
    let form = document.form()?;
    let declared = [media_type, document.media_type.as_deref()];
    if declared.into_iter().flatten().filter_map(Form::of_media_type).any(|declared| declared != form) {
        return None;
    }
    let descriptors = [document.layers, document.manifests, document.blobs].into_iter().flatten().flatten();
    let named = document
        .config
        .into_iter()
        .chain(descriptors)
        .filter(|descriptor| !descriptor.is_foreign())
        .map(|descriptor| (descriptor.digest, descriptor.size))
        .chain(document.fs_layers.into_iter().flatten().map(|layer| (layer.blob_sum, None)));
    let (mut links, mut seen) = (Vec::new(), HashSet::new());
    for (digest, size) in named {
        match digest.parse::<Digest>() {
            Ok(digest) if seen.insert(digest) => links.push(Claim { digest, size }),
            Ok(_) => {}
            // Another algorithm: it is asked for, checked and kept under its own name.
            Err(DigestError::Algorithm) if is_digest(&digest) => {}
            Err(_) => return None,
        }
        if links.len() > LINKS_MAX {
            return None;
        }
    }
    Some(links)
}

/// The media type of a manifest of which no manifest's type is stated: what it says itself, else that of its form.
/// Clients take it from `Content-Type`, and one without, or with `application/json`, is of no use to them. `None` if
/// what is stated will do, or the document does not tell.
pub(super) fn media_type(stated: Option<&str>, document: &[u8]) -> Option<&'static str> {
    if stated.and_then(known).is_some() {
        return None;
    }
    let document: Document = super::from_object(document)?;
    let form = document.form()?;
    match &document.media_type {
        Some(own) => known(own).filter(|(_, own)| *own == form).map(|(name, _)| name),
        None => form.media_type(),
    }
}

impl Descriptor {
    fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/fixtures/oci/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect(name)
    }

    /// The digests of the fixtures are one hex digit sixty-four times.
    fn digits(media_type: Option<&str>, document: &[u8]) -> Option<String> {
        Some(links(media_type, document)?.iter().map(|link| link.digest.hex().remove(0)).collect())
    }

    #[test]
    fn each_form_of_manifest_links_what_it_needs_in_its_order() {
        for (name, media_type, expected) in [
            ("image", OCI_IMAGE, "0123"),
            ("image-docker", DOCKER_IMAGE, "012"),
            ("image-windows", DOCKER_IMAGE, "02"),
            ("index", OCI_INDEX, "abcd"),
            ("list-docker", DOCKER_LIST, "ab"),
            ("artifact-with-subject", OCI_IMAGE, "01"),
            ("artifact-manifest", "application/vnd.oci.artifact.manifest.v1+json", "12"),
            ("schema1", SCHEMA1, "312"),
            ("helm-chart", OCI_IMAGE, "012"),
        ] {
            let document = fixture(name);
            for media_type in [Some(media_type), None, Some("application/json")] {
                assert_eq!(
                    digits(media_type, &document).as_deref(),
                    Some(expected),
                    "{name} as {media_type:?}"
                );
            }
        }
    }

    #[test]
    fn a_link_has_the_size_that_its_descriptor_states() {
        let sizes = |size: &str| {
            let item = format!(r#"{{"digest":"sha256:{}"{size}}}"#, "0".repeat(64));
            let document = format!(r#"{{"config":{item},"layers":[]}}"#);
            links(None, document.as_bytes()).map(|links| links[0].size)
        };
        for (text, expected) in [
            ("", None),
            (r#","size":0"#, Some(0)),
            (r#","size":1234567890123"#, Some(1_234_567_890_123)),
            (r#","size":-1"#, None),
            (r#","size":"7""#, None),
            (r#","size":null"#, None),
            (r#","size":1.5"#, None),
        ] {
            assert_eq!(sizes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_manifest_that_is_not_what_its_type_says_is_none() {
        for (name, media_type) in [
            ("image", OCI_INDEX),
            ("index", OCI_IMAGE),
            ("index", "Application/Vnd.OCI.image.manifest.v1+JSON; charset=utf-8"),
            ("schema1", DOCKER_IMAGE),
        ] {
            assert_eq!(links(Some(media_type), &fixture(name)), None, "{name} as {media_type}");
        }
    }

    #[test]
    fn a_manifest_without_a_manifests_type_tells_its_own() {
        let artifact = "application/vnd.oci.artifact.manifest.v1+json";
        for (name, expected) in [
            ("image", OCI_IMAGE),
            ("image-docker", DOCKER_IMAGE),
            ("index", OCI_INDEX),
            ("list-docker", DOCKER_LIST),
            ("artifact-manifest", artifact),
            ("schema1", SCHEMA1),
        ] {
            let document = fixture(name);
            for stated in
                [None, Some("application/json"), Some("application/octet-stream"), Some("text/html")]
            {
                assert_eq!(media_type(stated, &document), Some(expected), "{name} as {stated:?}");
            }
            for stated in [OCI_IMAGE, DOCKER_LIST, "APPLICATION/vnd.oci.image.index.v1+json; charset=utf-8"] {
                assert_eq!(media_type(Some(stated), &document), None, "{name} as {stated}");
            }
        }
        for (document, expected) in [
            (r#"{"manifests":[]}"#, Some(OCI_INDEX)),
            (r#"{"config":{"digest":"x"},"layers":[]}"#, Some(OCI_IMAGE)),
            (r#"{"layers":null}"#, Some(OCI_IMAGE)),
            (&*format!(r#"{{"mediaType":"{OCI_INDEX}","layers":[]}}"#), None),
            (r#"{"mediaType":"text/html","layers":[]}"#, None),
            (r#"{"layers":[],"manifests":[]}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            assert_eq!(media_type(None, document.as_bytes()), expected, "{document}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_not_at_all_is_none() {
        let hex = "0".repeat(64);
        let item = format!(r#"{{"digest":"sha256:{hex}"}}"#);
        for bad in [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            format!(r"[null,{item},null,[],null,null]"),
            format!(r"[null,{item},[{item}]]"),
            "<html>sign in</html>".to_owned(),
            r#"{"schemaVersion":2}"#.to_owned(),
            format!(r#"{{"layers":[{item}],"manifests":[{item}]}}"#),
            format!(r#"{{"layers":[],"manifests":null,"config":{item}}}"#),
            format!(r#"{{"config":{item},"fsLayers":[]}}"#),
            format!(r#"{{"layers":[{item}],"layers":[]}}"#),
            format!(r#"{{"mediaType":"{OCI_INDEX}","config":{item},"layers":[]}}"#),
            format!(r#"{{"layers":[{item}]}} {{}}"#),
            r#"{"layers":[{"digest":7}]}"#.to_owned(),
            r#"{"layers":[{"size":7}]}"#.to_owned(),
            r#"{"layers":{}}"#.to_owned(),
            "[".repeat(100_000),
            format!(r#"{{"layers":{}"#, "[".repeat(100_000)),
        ] {
            assert_eq!(links(None, bad.as_bytes()), None, "{}", &bad[..bad.len().min(200)]);
        }
    }

    #[test]
    fn what_is_not_a_digest_makes_the_manifest_none_and_other_algorithms_are_left_out() {
        let hex = "0".repeat(64);
        let of = |digest: &str| links(None, format!(r#"{{"layers":[{{"digest":"{digest}"}}]}}"#).as_bytes());
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            &format!("sha256:{hex}0"),
            &hex,
            "sha256:AB",
            "SHA256:ab",
            "x:a/b",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        for other in
            [&format!("sha512:{hex}{hex}"), "blake3:abcdef", "sha256+b64u:LCa0a2j_xo-5m0U8HTBBNBNCLXBkg7"]
        {
            assert_eq!(of(other), Some(Vec::new()), "{other}");
        }
    }

    #[test]
    fn an_empty_list_is_a_manifest_too() {
        for empty in [r#"{"manifests":[]}"#, r#"{"manifests":null}"#, r#"{"layers":null}"#] {
            assert_eq!(links(None, empty.as_bytes()), Some(Vec::new()), "{empty}");
        }
    }

    #[test]
    fn more_digests_than_the_limit_are_not_a_manifest() {
        let document = |count: usize| {
            let item = |n| format!(r#"{{"digest":"sha256:{n:064x}"}}"#);
            format!(r#"{{"manifests":[{}]}}"#, (0..count).map(item).collect::<Vec<_>>().join(","))
        };
        assert_eq!(links(None, document(LINKS_MAX).as_bytes()).map(|links| links.len()), Some(LINKS_MAX));
        assert_eq!(links(None, document(LINKS_MAX + 1).as_bytes()), None);
    }
}
