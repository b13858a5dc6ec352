//! Lists on their way out: tags, referrers and the catalog, and the links to their next pages.
//!
//! What upstream sent stays as it is in the store. Here it is put under the name that the client
//! used, and made to hold to what the specification promises where upstream does not.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::grammar::{Query, is_tag};
use super::manifest::list;
use super::request::{Endpoint, Request};
use super::resource::{INDEX_TYPE, PAGE_MAX, kind};
use crate::model::Ref;
use crate::protocol::{Document, Refusal};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// What upstream must have sent as a list of tags.
#[derive(Deserialize)]
struct UpstreamTags {
    #[serde(deserialize_with = "list")]
    tags: Option<Vec<String>>,
}

/// What upstream must have sent as a list of referrers, so that it can be filtered. Descriptors stay byte for
/// byte as upstream wrote them.
#[derive(Deserialize)]
struct UpstreamReferrers<'d> {
    #[serde(borrow, deserialize_with = "list")]
    manifests: Option<Vec<&'d RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    artifact_type: Option<String>,
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: &'a [String],
}

/// Whether a document is what its kind says, so that it can be shown later.
///
/// # Errors
/// [`Refusal::BadUpstream`] if it is not.
pub(super) fn check(list_kind: &str, document: &[u8]) -> Result<(), Refusal> {
    match list_kind {
        kind::TAGS => read_tags(document).map(drop),
        kind::REFERRERS => read_referrers(document).map(drop),
        _ => Ok(()),
    }
}

/// The tags of a list of upstream's, as it lists them.
fn read_tags(document: &[u8]) -> Result<Vec<String>, Refusal> {
    let upstream: UpstreamTags =
        super::from_object(document).ok_or(Refusal::BadUpstream("not a list of tags"))?;
    Ok(upstream.tags.unwrap_or_default())
}

/// The descriptors of a list of referrers, each with its type.
fn read_referrers(document: &[u8]) -> Result<Vec<(&RawValue, Option<String>)>, Refusal> {
    const BAD: Refusal = Refusal::BadUpstream("not a list of referrers");
    let upstream: UpstreamReferrers<'_> = super::from_object(document).ok_or(BAD)?;
    let typed = |manifest: &'_ RawValue| super::from_object(manifest.get().as_bytes());
    let read = upstream.manifests.unwrap_or_default().into_iter().map(|manifest| {
        let Descriptor { artifact_type } = typed(manifest).ok_or(BAD)?;
        Ok((manifest, artifact_type))
    });
    read.collect()
}

/// A page of tags in lexical order, under the name that the client used.
///
/// Some registries ignore `last` and begin anew each time, which sends clients round in circles.
/// One shows itself by listing `last` itself, or more than `n` tags with no page after them, which is
/// all that there are; then what is not after `last` goes. Without such a sign upstream's choice stands,
/// because others page by age, not by name, and dropping what sorts before `last` would lose tags.
pub(super) fn tags(request: &Request, reference: &Ref, document: &[u8]) -> Result<Document, Refusal> {
    let mut tags = read_tags(document)?;
    let limit = request.query.limit(PAGE_MAX)?;
    let last = request.query.get("last");
    let upstream_next = reference.headers.get("link").filter(|link| next_target(link).is_some());
    let is_over = |count: usize| limit.is_some_and(|limit| count > limit);
    tags.retain(|tag| is_tag(tag));
    tags.sort_unstable();
    tags.dedup();
    if let Some(last) = last
        && (tags.iter().any(|tag| tag == last) || upstream_next.is_none() && is_over(tags.len()))
    {
        tags.retain(|tag| tag.as_str() > last);
    }
    let cut = is_over(tags.len());
    tags.truncate(limit.unwrap_or(usize::MAX));

    let after = |end: &String| request.query.clone().with("last", Some(end));
    // An empty page ends the list whatever upstream says: there is nothing to go on from.
    let next = tags.last().and_then(|end| match upstream_next {
        _ if cut => Some(after(end)),
        // A link that cannot be used is replaced by one by name, as long as that leads forward.
        Some(link) => next_page(request, link)
            .or_else(|| last.is_none_or(|last| end.as_str() > last).then(|| after(end))),
        None => None,
    });
    let body = to_json(&Tags { name: &request.name, tags: &tags })?;
    Ok(Document { media_type: "application/json", headers: headers(request, next.as_ref()), body })
}

/// A list of referrers with those of one artifact type, for registries that do not filter.
pub(super) fn referrers(request: &Request, reference: &Ref, document: &[u8]) -> Result<Document, Refusal> {
    let mut headers = headers(request, next_referrers(request, reference).as_ref());
    let Some(wanted) = request.artifact_type() else {
        return Ok(Document { media_type: INDEX_TYPE, headers, body: Bytes::copy_from_slice(document) });
    };
    headers.push((FILTERS_APPLIED, HeaderValue::from_static("artifactType")));
    let filtered = reference.headers.get(FILTERS_APPLIED.as_str()).is_some_and(|filters| {
        filters.split(',').any(|filter| filter.trim().eq_ignore_ascii_case("artifactType"))
    });
    if filtered {
        return Ok(Document { media_type: INDEX_TYPE, headers, body: Bytes::copy_from_slice(document) });
    }
    let listed = read_referrers(document)?;
    let kept: Vec<_> = listed
        .into_iter()
        .filter_map(|(manifest, artifact_type)| {
            (artifact_type.as_deref() == Some(wanted)).then_some(manifest)
        })
        .collect();
    let mut index: BTreeMap<&str, &RawValue> =
        super::from_object(document).ok_or(Refusal::BadUpstream("not a list of referrers"))?;
    let kept = serde_json::value::to_raw_value(&kept).map_err(|_| Refusal::Internal)?;
    index.insert("manifests", &kept);
    Ok(Document { media_type: INDEX_TYPE, headers, body: to_json(&index)? })
}

/// The next page of a list of referrers.
fn next_referrers(request: &Request, reference: &Ref) -> Option<Query> {
    reference.headers.get("link").and_then(|link| next_page(request, link))
}

/// The `Link` of a list of referrers under the name that the client used.
pub(super) fn referrers_link(request: &Request, reference: &Ref) -> Option<(HeaderName, HeaderValue)> {
    link(request, next_referrers(request, reference).as_ref())
}

/// A page of the catalog; `names` holds one more than the page if there are more.
pub(super) fn catalog(request: &Request, limit: usize, names: &[String]) -> Result<Document, Refusal> {
    #[derive(Serialize)]
    struct Catalog<'a> {
        repositories: &'a [String],
    }
    let repositories = &names[..names.len().min(limit)];
    let next = repositories
        .last()
        .filter(|_| names.len() > limit)
        .map(|end| request.query.clone().with("last", Some(end)));
    let body = to_json(&Catalog { repositories })?;
    Ok(Document { media_type: "application/json", headers: headers(request, next.as_ref()), body })
}

fn to_json<T: Serialize>(value: &T) -> Result<Bytes, Refusal> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| Refusal::Internal)
}

/// The headers of a list with this next page.
fn headers(request: &Request, next: Option<&Query>) -> Vec<(HeaderName, HeaderValue)> {
    super::common(Some(request)).chain(link(request, next)).collect()
}

/// The `Link` header to the next page, if there is one (RFC 8288).
fn link(request: &Request, next: Option<&Query>) -> Option<(HeaderName, HeaderValue)> {
    let query = next?;
    let name = &request.name;
    let path = match &request.endpoint {
        Endpoint::Catalog if name.is_empty() => "_catalog".to_owned(),
        Endpoint::Catalog => format!("{name}/_catalog"),
        Endpoint::Referrers(subject) => format!("{name}/referrers/{subject}"),
        _ => format!("{name}/tags/list"),
    };
    // The name passed the grammar and the query is encoded, so that this is always a header value.
    HeaderValue::try_from(format!("</v2/{path}?{query}>; rel=\"next\"")).ok().map(|value| (LINK, value))
}

/// The parameters of the next page according to upstream's `Link`; `None` if there is none or it
/// leads back to this page. Host and path of the link are upstream's and of no use here. How many
/// entries, which namespace and which type stay as the client asked.
fn next_page(request: &Request, link: &str) -> Option<Query> {
    let (_, query) = next_target(link)?.split_once('?')?;
    let mut next = Query::parse(query).ok()?;
    for own in ["n", "ns", "artifactType"] {
        next = next.with(own, request.query.get(own));
    }
    (next != request.query).then_some(next)
}

/// The target of the link whose relation is `next` (RFC 8288, section 3).
fn next_target(link: &str) -> Option<&str> {
    link.split('<').skip(1).filter_map(|link| link.split_once('>')).find_map(|(target, parameters)| {
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.trim().split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            })
        });
        is_next.then_some(target)
    })
}
