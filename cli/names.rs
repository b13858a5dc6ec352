//! What an operator may call a ref: its whole key; an image, provider or module as a client would name it;
//! a file of an archive by its path; or a plain file by `generic/<proxy>/<path>`, as in its URL.
//!
//! The dialects themselves say where things are kept; this only tries the names that could be meant.

use http::{HeaderMap, Method};

use repoxy::model::{Area, ArtifactType, ProxyFacts, ProxyId, ProxyTable, RefKey, RefPath};
use repoxy::protocol::generic::Generic;
use repoxy::protocol::oci::Oci;
use repoxy::protocol::tf::Tf;
use repoxy::protocol::{Gathered, Head, Protocol as _, Route};

/// The tag that is meant if none is named.
const LATEST: &str = "latest";

/// The keys that a name could mean, the likeliest first, each once.
pub(crate) fn candidates(name: &str, proxies: &ProxyTable) -> Vec<RefKey> {
    let mut keys: Vec<RefKey> = name.parse().ok().into_iter().collect();
    keys.extend(by_path(name, proxies));
    let (repository, reference) = split(name);
    let mut repositories = vec![repository.to_owned()];
    if let Some((host, rest)) = repository.split_once('/')
        && let Some(proxy) = proxies.serving(ArtifactType::Container, host)
    {
        repositories.push(format!("{}/{rest}", proxy.id.name));
    }
    let of_containers = proxies.iter().filter(|proxy| proxy.id.artifact_type == ArtifactType::Container);
    repositories.extend(of_containers.map(|proxy| format!("{}/{repository}", proxy.id.name)));
    for repository in repositories {
        for endpoint in ["manifests", "blobs"] {
            let path = format!("/v2/{repository}/{endpoint}/{reference}");
            let headers = HeaderMap::new();
            let head =
                Head { method: &Method::GET, authority: None, path: &path, query: None, headers: &headers };
            if let Ok(Route::Fetch(fetch)) = Oci.route(&head, proxies, &Gathered::default())
                && !keys.contains(&fetch.resource.key)
            {
                keys.push(fetch.resource.key);
            }
        }
    }
    for key in registry_keys(repository, reference, proxies) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.extend(plain_file(name, proxies).filter(|key| !keys.contains(key)));
    keys
}

/// What a provider or module may be kept as: `acme/demo` and `acme/net/aws` at any registry, or with a
/// proxy's name or host in front.
fn registry_keys(name: &str, version: &str, proxies: &ProxyTable) -> Vec<RefKey> {
    let of_tf = proxies.iter().filter(|proxy| proxy.id.artifact_type == ArtifactType::Tf);
    let mut keys = Vec::new();
    for proxy in of_tf {
        let own = |host: &str| {
            host == proxy.id.name.as_str()
                || proxy.namespaces.iter().any(|own| own.eq_ignore_ascii_case(host))
        };
        if let Some((_, rest)) = name.split_once('/').filter(|(host, _)| own(host)) {
            keys.extend(Tf::named(proxy, rest, version));
        }
        keys.extend(Tf::named(proxy, name, version));
    }
    keys
}

/// The key of a plain file's address.
fn plain_file(name: &str, proxies: &ProxyTable) -> Option<RefKey> {
    let (proxy, path) = name.strip_prefix("generic/")?.split_once('/')?;
    let proxy = proxies.named(ArtifactType::Generic, proxy)?;
    Generic.key_at(&proxy.id, &format!("/{path}"))
}

/// The keys of `<proxy>/<path>` or `<type>/<proxy>/<path>` where paths are those of URLs: what it is or
/// what was found out about it.
fn by_path(name: &str, proxies: &ProxyTable) -> Vec<RefKey> {
    let of_paths = proxies.iter().filter(|proxy| proxy.id.artifact_type == ArtifactType::Debian);
    let of_name = of_paths.flat_map(|ProxyFacts { id, .. }| {
        let prefixes = [format!("{id}/"), format!("{}/", id.name)];
        let paths = prefixes.into_iter().filter_map(|prefix| name.strip_prefix(&prefix)?.parse().ok());
        paths.map(|path| (id.clone(), path)).collect::<Vec<_>>()
    });
    let keys = |(proxy, path): (ProxyId, RefPath)| {
        [Area::Refs, Area::Cache].map(|area| RefKey { proxy: proxy.clone(), area, path: path.clone() })
    };
    of_name.flat_map(keys).collect()
}

/// Repository, and tag or digest.
fn split(name: &str) -> (&str, &str) {
    if let Some((repository, digest)) = name.split_once('@') {
        // `name:tag@digest` is as good as `name@digest`.
        return (split(repository).0, digest);
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, LATEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ProxyTable {
        let proxy = |artifact_type, name: &str, namespace: &str, default| ProxyFacts {
            namespaces: vec![namespace.to_owned()],
            default,
            ..ProxyFacts::new(ProxyId { artifact_type, name: name.parse().expect("valid") })
        };
        ProxyTable::new(vec![
            proxy(ArtifactType::Container, "hub", "docker.io", true),
            proxy(ArtifactType::Container, "ghcr", "ghcr.io", false),
            proxy(ArtifactType::Tf, "acme", "registry.acme.example", true),
            proxy(ArtifactType::Generic, "files", "files.example.org", false),
            proxy(ArtifactType::Debian, "debian", "deb.example.org", false),
        ])
    }

    #[test]
    fn every_way_to_name_a_provider_or_module_leads_to_its_ref() {
        for (name, key) in [
            ("acme/demo:1.1.0", "providers/acme/demo/darwin_arm64/1.1.0"),
            ("acme/acme/demo:1.1.0", "providers/acme/demo/linux_amd64/1.1.0"),
            ("registry.acme.example/acme/demo:1.1.0", "providers/acme/demo/linux_amd64/1.1.0"),
            ("acme/net/aws:1.2.0", "modules/acme/net/aws/1.2.0"),
            ("registry.acme.example/acme/net/aws:1.2.0", "modules/acme/net/aws/1.2.0"),
        ] {
            let keys = candidates(name, &table());
            let key = format!("tf/acme/refs/{key}");
            assert!(keys.iter().any(|found| found.to_string() == key), "{name}: {keys:?}");
        }
    }

    #[test]
    fn a_plain_file_is_named_as_in_its_url() {
        let keys = candidates("generic/files/dir/x%2dy?v=1", &table());
        assert_eq!(keys.last().map(ToString::to_string).as_deref(), Some("generic/files/refs/dir/x-y?v=1"));
        let other = candidates("generic/other/x", &table());
        assert!(other.iter().all(|key| key.proxy.artifact_type == ArtifactType::Container), "{other:?}");
    }

    #[test]
    fn a_file_of_an_archive_is_named_by_its_path() {
        for (name, expected) in [
            ("debian/pool/h/hello_1.deb", "debian/debian/refs/pool/h/hello_1.deb"),
            ("debian/debian/dists/stable/InRelease", "debian/debian/cache/dists/stable/InRelease"),
        ] {
            let keys = candidates(name, &table());
            assert!(keys.iter().any(|key| key.to_string() == expected), "{name}: {keys:?}");
        }
    }

    #[test]
    fn every_way_to_name_an_image_leads_to_its_ref() {
        let alpine = "container/hub/refs/library/alpine/tags/3.20";
        for name in
            [alpine, "hub/library/alpine:3.20", "library/alpine:3.20", "docker.io/library/alpine:3.20"]
        {
            let keys = candidates(name, &table());
            assert!(keys.iter().any(|key| key.to_string() == alpine), "{name}: {keys:?}");
        }
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let manifest = format!("container/ghcr/refs/org/app/manifests/sha256/{digest}");
        for name in [format!("ghcr/org/app@sha256:{digest}"), format!("ghcr.io/org/app:1@sha256:{digest}")] {
            let keys = candidates(&name, &table());
            assert!(keys.iter().any(|key| key.to_string() == manifest), "{name}: {keys:?}");
        }
        let latest = candidates("ghcr/org/app", &table());
        assert!(latest.iter().any(|key| key.to_string().ends_with("org/app/tags/latest")), "{latest:?}");
    }

    #[test]
    fn what_can_be_no_name_leads_nowhere() {
        for name in ["", "/", "a b", "..", "hub/UPPER:x"] {
            assert_eq!(candidates(name, &table()), [], "{name}");
        }
    }
}
