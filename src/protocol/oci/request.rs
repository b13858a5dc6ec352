//! From a request head to endpoint, name and parameters; the configuration is not known here.
//!
//! A repository name has any number of components and some of them may be called `manifests`,
//! `blobs` or `tags`, so the path is read from the right.

use super::grammar::{Query, decode_path, is_tag};
use crate::model::Checksum;
use crate::protocol::{Head, Part, Refusal};

/// A request taken apart, before the configuration is looked at.
#[derive(Debug)]
pub(super) struct Request {
    /// What it is about.
    pub(super) endpoint: Endpoint,
    /// The name in the path as the client wrote it, a proxy in front included; empty where the
    /// endpoint has none. Not checked yet.
    pub(super) name: String,
    /// Its parameters.
    pub(super) query: Query,
}

/// The things there are below `/v2/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v2/`
    Base,
    /// `…/_catalog`
    Catalog,
    /// `…/manifests/<tag>`
    Tag(String),
    /// `…/manifests/<digest>`
    Manifest(Checksum),
    /// `…/blobs/<digest>`
    Blob(Checksum),
    /// `…/tags/list`
    Tags,
    /// `…/referrers/<digest>`
    Referrers(Checksum),
}

impl Request {
    /// Reads path and query.
    ///
    /// # Errors
    /// [`Refusal::NoEndpoint`] or [`Refusal::Invalid`].
    pub(super) fn parse(head: &Head<'_>) -> Result<Self, Refusal> {
        let path = decode_path(head.path)?;
        let (endpoint, name) = Endpoint::parse(&path)?;
        Ok(Self { endpoint, name, query: Query::parse(head.query.unwrap_or_default())? })
    }

    /// The registry host that the client says it means (distribution specification, "Registry
    /// Proxying").
    pub(super) fn namespace(&self) -> Option<&str> {
        self.query.get("ns")
    }

    /// The `artifactType` that referrers are filtered by.
    pub(super) fn artifact_type(&self) -> Option<&str> {
        self.query.get("artifactType")
    }
}

impl Endpoint {
    /// The endpoint and the name in front of it.
    fn parse(path: &str) -> Result<(Self, String), Refusal> {
        let below = path.strip_prefix("/v2").ok_or(Refusal::NoEndpoint)?;
        if matches!(below, "" | "/") {
            return Ok((Self::Base, String::new()));
        }
        let below = below.strip_prefix('/').ok_or(Refusal::NoEndpoint)?;
        let segments: Vec<&str> = below.split('/').collect();
        let (endpoint, name) = match segments.as_slice() {
            ["_catalog"] => (Self::Catalog, &[][..]),
            [proxy, "_catalog"] => (Self::Catalog, std::slice::from_ref(proxy)),
            [name @ .., "manifests", reference] if !name.is_empty() => (Self::manifest(reference)?, name),
            [name @ .., "blobs", digest] if !name.is_empty() => (Self::Blob(checksum(digest)?), name),
            [name @ .., "tags", "list"] if !name.is_empty() => (Self::Tags, name),
            [name @ .., "referrers", digest] if !name.is_empty() => {
                (Self::Referrers(checksum(digest)?), name)
            }
            _ => return Err(Refusal::NoEndpoint),
        };
        Ok((endpoint, name.join("/")))
    }

    fn manifest(reference: &str) -> Result<Self, Refusal> {
        if reference.contains(':') {
            return checksum(reference).map(Self::Manifest);
        }
        if is_tag(reference) {
            return Ok(Self::Tag(reference.to_owned()));
        }
        let why = "a tag is 1 to 128 letters, digits, `.`, `_` and `-`, not starting with `.` or `-`";
        Err(Refusal::Invalid { what: Part::Reference, why })
    }
}

fn checksum(text: &str) -> Result<Checksum, Refusal> {
    let why = "expected `sha256:` with 64 or `sha512:` with 128 lower-case hex digits";
    text.parse().map_err(|_| Refusal::Invalid { what: Part::Digest, why })
}
