//! What any request leads to: content of its own proxy under a key that can be kept, or a refusal.

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;
use repoxy::model::{ArtifactType, Checksum, Freshness, Ref, RefKey, Resource, Source, Timestamp};
use repoxy::protocol::{self, Head, Protocol, Refusal, Route};
use serde_json::Value;
use url::Url;

use super::documents;
use super::engine::{PROXIES, World, worlds};
use super::heads::{Ask, asks, right};

/// The most names of one page of a derived list.
const PAGE_MAX: usize = 1000;

/// The dialect whose request it is; there is at most one.
pub(crate) fn owner(head: &Head<'_>) -> Option<&'static dyn Protocol> {
    let owners: Vec<_> = protocol::ALL.iter().filter(|dialect| dialect.owns(head, &PROXIES)).collect();
    assert!(owners.len() <= 1, "{head:?} belongs to {owners:?}");
    owners.first().map(|owner| **owner)
}

/// Whether a path has a segment that leads up, encoded or not.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| percent_decode_str(segment).collect::<Vec<_>>() == b"..")
}

/// The checksum that the path of a key is made of, where there is one.
fn named_checksum(key: &RefKey) -> Option<Checksum> {
    let segments: Vec<&str> = key.path.segments().collect();
    match (key.proxy.artifact_type, segments.as_slice()) {
        (ArtifactType::Container, [.., "manifests" | "blobs", algorithm, hex])
        | (ArtifactType::Debian, [.., "by-hash", algorithm, hex]) => {
            format!("{}:{hex}", algorithm.to_ascii_lowercase()).parse().ok()
        }
        _ => None,
    }
}

/// What holds for whatever is asked for, be it for a client or for a dialect.
pub(crate) fn check(dialect: &dyn Protocol, resource: &Resource) -> Result<(), TestCaseError> {
    let key = &resource.key;
    let proxy = PROXIES.named(dialect.artifact_type(), key.proxy.name.as_str());
    prop_assert!(proxy.is_some_and(|proxy| proxy.id == key.proxy), "{} has no proxy", key);
    prop_assert_eq!(key.to_string().parse::<RefKey>(), Ok(key.clone()));
    let scope = dialect.scope(&key.path);
    prop_assert!(key.path.as_str().starts_with(scope));
    if dialect.artifact_type() == ArtifactType::Container {
        prop_assert!(!scope.is_empty(), "{} belongs to no repository", key);
    }
    prop_assert!(resource.fallback.is_none() || resource.expect.is_some());
    prop_assert!(resource.alternative.as_ref().is_none_or(|other| other.proxy == key.proxy));
    if let Some(checksum) = named_checksum(key) {
        prop_assert_eq!(resource.expect.as_ref(), Some(&checksum), "{} is what its name says", key);
        prop_assert_eq!(resource.freshness, Freshness::Immutable);
    }
    Ok(())
}

/// What holds for where it is fetched.
fn check_sources(resource: &Resource) -> Result<(), TestCaseError> {
    let proxy = &resource.key.proxy;
    let proxy = PROXIES.named(proxy.artifact_type, proxy.name.as_str());
    let base = proxy.and_then(|proxy| proxy.upstream.as_ref()).expect("every proxy has one");
    for source in std::iter::once(&resource.source).chain(&resource.fallback) {
        match source {
            Source::Path(path) => {
                let url = Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/')));
                let url = url.map_err(|error| TestCaseError::fail(format!("{path}: {error}")))?;
                let below = url.path().strip_prefix(base.path().trim_end_matches('/')).unwrap_or_default();
                prop_assert_eq!(url.origin(), base.origin());
                // What the parser of URLs would take for something else would be asked for under the wrong key.
                let asked = path.split('?').next().unwrap_or_default();
                prop_assert_eq!(below.matches('/').count(), asked.matches('/').count(), "{}", path);
                prop_assert!(below.starts_with('/') && !climbs(asked), "{}", path);
            }
            Source::Url(url) => {
                let url = Url::parse(url).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(matches!(url.scheme(), "http" | "https"), "{}", url);
            }
        }
    }
    Ok(())
}

/// What holds for the way to a resource that a client asked for.
fn check_fetch(
    dialect: &dyn Protocol,
    ask: &Ask,
    world: &World,
    resource: &Resource,
) -> Result<(), TestCaseError> {
    check(dialect, resource)?;
    let Ok(gotten) = world.bring(resource) else { return Ok(()) };
    for companion in dialect.companions(resource, None, &gotten.body).into_iter().flatten() {
        check(dialect, &companion.resource)?;
        check_sources(&companion.resource)?;
        prop_assert_eq!(&companion.resource.key.proxy, &resource.key.proxy);
    }
    let fetch = protocol::Fetch { resource: resource.clone(), rewrite: false };
    dialect.headers(&ask.head(), &fetch, &gotten.reference);
    Ok(())
}

fn check_refusal(dialect: &dyn Protocol, ask: &Ask, refusal: &Refusal) -> Result<(), TestCaseError> {
    let reply = dialect.refuse(&ask.head(), refusal);
    prop_assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{}", reply.status);
    prop_assert_ne!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{:?}", refusal);
    Ok(())
}

/// Asks, and checks what the answer is made of.
fn check_route(dialect: &dyn Protocol, ask: &Ask, world: &World) -> Result<(), TestCaseError> {
    let reads = matches!(ask.method, Method::GET | Method::HEAD);
    let route = match world.route(dialect, &ask.head()) {
        Ok(route) => route,
        Err(refusal) => return check_refusal(dialect, ask, &refusal),
    };
    prop_assert!(!climbs(&ask.path), "{} got {:?}", ask.path, route);
    prop_assert_eq!(reads, !matches!(route, Route::Forward(_)), "{} got {:?}", ask.method, route);
    match route {
        Route::Fetch(fetch) => {
            prop_assert!(fetch.resource.kind != "tf.provider" || fetch.resource.expect.is_some());
            check_sources(&fetch.resource)?;
            check_fetch(dialect, ask, world, &fetch.resource)?;
        }
        Route::Held { fetch, otherwise } => {
            check_fetch(dialect, ask, world, &fetch.resource)?;
            check_refusal(dialect, ask, &otherwise)?;
        }
        Route::Forward(resource) => {
            check(dialect, &resource)?;
            check_sources(&resource)?;
        }
        Route::Derive(derive) => {
            let protocol::Derive::Scopes { limit, .. } = &derive;
            prop_assert!(*limit <= PAGE_MAX);
            let names: Vec<String> = (0..=*limit).map(|n| format!("library/{n}")).collect();
            if let Ok(document) = dialect.derive(&ask.head(), &derive, &names) {
                prop_assert!(serde_json::from_slice::<Value>(&document.body).is_ok());
            }
        }
        Route::Made(document) => prop_assert!(serde_json::from_slice::<Value>(&document.body).is_ok()),
        Route::Local(reply) => prop_assert!(reply.status.is_success(), "{}", reply.status),
    }
    Ok(())
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn a_request_leads_to_content_of_its_own_proxy_or_is_refused(ask in asks(), world in worlds()) {
        if let Some(dialect) = owner(&ask.head()) {
            check_route(dialect, &ask, &world)?;
        }
        // The server asks the owner alone; nobody else falls over it all the same.
        for dialect in protocol::ALL {
            let _ = world.route(*dialect, &ask.head());
        }
    }

    #[test]
    fn no_document_leads_a_request_elsewhere(target in select(right()), world in worlds()) {
        let ask = Ask::get(&target);
        if let Some(dialect) = owner(&ask.head()) {
            check_route(dialect, &ask, &world)?;
        }
    }

    #[test]
    fn a_letter_that_is_encoded_is_the_same_letter(target in select(right()), at in any::<Index>(), upper in any::<bool>()) {
        let ask = Ask::get(&target);
        let Some(dialect) = owner(&ask.head()) else { return Ok(()) };
        // Mount and proxy are read as they are.
        let mount = if dialect.artifact_type() == ArtifactType::Container { 2 } else { 3 };
        let Some((begin, _)) = ask.path.match_indices('/').nth(mount - 1) else { return Ok(()) };
        let letters: Vec<usize> = ask.path[begin..]
            .bytes()
            .enumerate()
            .filter(|(_, byte)| byte.is_ascii_alphanumeric())
            .map(|(offset, _)| begin + offset)
            .collect();
        // Digits of an encoding are no letters of the path.
        if letters.is_empty() || ask.path.contains('%') || ask.path.contains("HTTPS") {
            return Ok(());
        }
        let at = letters[at.index(letters.len())];
        let byte = ask.path.as_bytes()[at];
        let code = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        let path = format!("{}{code}{}", &ask.path[..at], &ask.path[at + 1..]);
        let encoded = Ask { path, ..ask.clone() };
        let key = |ask: &Ask| match plain_world().route(dialect, &ask.head()) {
            Ok(Route::Fetch(fetch)) => Some(fetch.resource.key),
            _ => None,
        };
        prop_assert_eq!(key(&ask), key(&encoded), "{}", encoded.path);
    }

    #[test]
    fn an_answer_that_names_another_path_names_the_key_of_a_request_for_it(ask in asks()) {
        let Some(dialect) = owner(&ask.head()) else { return Ok(()) };
        let Ok(Route::Fetch(fetch)) = plain_world().route(dialect, &ask.head()) else { return Ok(()) };
        let (Source::Path(path), key) = (&fetch.resource.source, &fetch.resource.key) else { return Ok(()) };
        let named = dialect.key_at(&key.proxy, path);
        prop_assert!(named.as_ref().is_none_or(|named| named == key), "{} is {:?}", path, named);
    }

    #[test]
    fn headers_of_an_answer_never_break_it(target in select(right()), place in documents::places()) {
        let ask = Ask::get(&target);
        let Some(dialect) = owner(&ask.head()) else { return Ok(()) };
        let Ok(Route::Fetch(fetch)) = plain_world().route(dialect, &ask.head()) else { return Ok(()) };
        let mut reference =
            Ref::new(fetch.resource.kind.to_owned(), repoxy::model::Digest::of(b""), 0, Timestamp::UNIX_EPOCH);
        reference.headers.insert("link".to_owned(), place.clone());
        reference.headers.insert(place.clone(), place);
        for (_, value) in dialect.headers(&ask.head(), &fetch, &reference) {
            prop_assert!(value.as_bytes().iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
}

/// The upstream that has everything as it should be.
fn plain_world() -> &'static World {
    static WORLD: std::sync::LazyLock<World> = std::sync::LazyLock::new(World::default);
    &WORLD
}
