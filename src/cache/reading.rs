//! What an answer says of the content that it brings, and what that says of itself. Pure.

use super::relay::date_by;
use crate::model::http_cache::end_to_end;
use crate::model::{Checksum, Digest, MediaType, Ref, Resource, Timestamp};
use crate::protocol::Protocol;
use crate::upstream::{Answer, UpstreamError};

/// What an answer says about a resource, as a ref.
pub(super) fn reading(
    resource: &Resource,
    answer: &Answer,
    digest: Digest,
    size: u64,
    now: Timestamp,
) -> Ref {
    let mut reference = Ref::new(resource.kind.to_owned(), digest, size, now);
    reference.media_type = match resource.media_type {
        MediaType::Upstream => answer.content_type().map(str::to_owned),
        MediaType::Fixed(media_type) => Some(media_type.to_owned()),
    };
    reference.upstream = Some(answer.host.clone());
    reference.ttl_seconds = resource.freshness.ttl_seconds();
    reference.etag = answer.etag().map(str::to_owned);
    reference.last_modified = answer.last_modified().map(str::to_owned);
    reference.headers = kept_headers(resource, answer).collect();
    if resource.transparent {
        reference.headers = end_to_end(&answer.headers);
        reference.media_type = answer.header("content-type").map(str::to_owned);
    }
    if resource.freshness.is_upstreams() {
        date_by(&mut reference, answer.status, &answer.headers, answer);
    }
    reference
}

/// The header fields of an answer that the dialect wants kept.
pub(super) fn kept_headers<'a>(
    resource: &'a Resource,
    answer: &'a Answer,
) -> impl Iterator<Item = (String, String)> + 'a {
    let kept = resource.keep_headers.iter();
    kept.filter_map(|name| Some(((*name).to_owned(), answer.header(name)?.to_owned())))
}

/// Gives a document the media type that it says itself, where what is known of it will not do.
pub(super) fn correct_type(protocol: &dyn Protocol, kind: &str, reference: &mut Ref, document: &[u8]) {
    if let Some(own) = protocol.media_type(kind, reference.media_type.as_deref(), document) {
        reference.media_type = Some(own.to_owned());
    }
}

/// The digest that an answer states for its content.
pub(super) fn stated_digest(answer: &Answer, header: &str) -> Result<Option<Checksum>, UpstreamError> {
    let parse = |text: &str| {
        text.parse().map_err(|error| UpstreamError::Senseless(format!("`{header}` is not a digest: {error}")))
    };
    answer.header(header).map(parse).transpose()
}
