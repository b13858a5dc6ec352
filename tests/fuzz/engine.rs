//! The engine as far as a dialect can tell: a configuration, an upstream that answers anything, and the
//! rounds in which a request is given what it needs.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use repoxy::model::{
    ArtifactType, Claim, Digest, Heed, HttpRules, Leave, PathRule, ProxyFacts, ProxyId, ProxyTable, Ref,
    Resource, Timestamp, Treatment,
};
use repoxy::protocol::{Companion, Gathered, Gotten, Head, Need, Protocol, Refusal, Route, Unrouted};

use super::documents;

/// How often a request may come back for more; the server gives up then.
const MAX_ROUNDS: usize = 8;

/// The proxies of every type that requests are routed by.
pub(crate) static PROXIES: LazyLock<ProxyTable> = LazyLock::new(|| {
    let proxy = |artifact_type, name: &str, upstream: &str, namespaces: &[&str]| ProxyFacts {
        upstream: Some(upstream.parse().expect("a URL")),
        namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect(),
        ..ProxyFacts::new(ProxyId { artifact_type, name: name.parse().expect("a name") })
    };
    let rule = |pattern: &str, treatment, sidecar: Option<&str>| PathRule {
        pattern: pattern.parse().expect("a pattern"),
        treatment,
        sidecar: sidecar.map(str::to_owned),
    };
    let rules = HttpRules {
        rules: vec![
            rule("/checked/**", Treatment::Immutable, Some(".sha256")),
            rule("*.tar.gz", Treatment::For(Duration::from_secs(60)), None),
            rule("/never/**", Treatment::NoStore, None),
        ],
        leave: Leave { stale_if_error: Duration::from_secs(60) },
        heed: Heed::Everything,
        keep_redirects: true,
        forward_authorization: true,
        forward_unsafe: true,
    };
    let archive = proxy(ArtifactType::Debian, "deb", "https://up.example/debian/", &["deb.example/debian"]);
    let files = proxy(ArtifactType::Generic, "files", "https://up.example/base/", &[]);
    let registry =
        proxy(ArtifactType::Tf, "acme", "https://registry.acme.example", &["registry.acme.example"]);
    let hub = proxy(ArtifactType::Container, "hub", "https://registry-1.docker.io", &["docker.io"]);
    ProxyTable::new(vec![
        ProxyFacts { default: true, ..hub },
        proxy(ArtifactType::Container, "ghcr", "https://ghcr.io", &["ghcr.io"]),
        ProxyFacts { default: true, ..registry },
        ProxyFacts {
            unsigned: true,
            ..proxy(ArtifactType::Tf, "other", "https://up.example/base", &["other.example"])
        },
        ProxyFacts { keyring: Some(Bytes::from_static(documents::RING)), ..archive },
        proxy(ArtifactType::Debian, "flat", "http://up.example", &["flat.example:8080"]),
        ProxyFacts { http: Some(Arc::new(rules)), ..files },
        proxy(ArtifactType::Generic, "plain", "https://up.example", &[]),
    ])
});

/// What upstream has, and what catalogues say.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// What is not as it should be, by its form.
    wrong: BTreeMap<&'static str, Result<Bytes, Refusal>>,
    /// The `X-Terraform-Get` and the `Link` of every answer.
    header: Option<String>,
    claim: Option<Claim>,
}

/// Upstreams of which most things are as they should be.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    let refusals = vec![
        Refusal::NotFound,
        Refusal::Denied { anonymous: true },
        Refusal::Unavailable { retry_after: None },
        Refusal::Untrusted { why: "x".to_owned() },
    ];
    let refused = option::weighted(0.2, (select(documents::kinds()), select(refusals)));
    let edited = option::weighted(0.5, documents::edited_of_any_kind());
    let claim = option::of(any::<Option<u64>>().prop_map(|size| Claim { digest: Digest::of(b"x"), size }));
    (refused, edited, option::of(documents::places()), claim).prop_map(|(refused, edited, header, claim)| {
        let edited = edited.map(|(kind, document)| (kind, Ok(document.into())));
        let refused = refused.map(|(kind, refusal)| (kind, Err(refusal)));
        World { wrong: edited.into_iter().chain(refused).collect(), header, claim }
    })
}

impl World {
    /// The header field that every answer has.
    pub(crate) fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    /// What upstream answers to a question for a resource.
    pub(crate) fn bring(&self, resource: &Resource) -> Result<Gotten, Refusal> {
        let form = documents::form_of(resource);
        let right = || documents::RIGHT.iter().find(|(known, _)| *known == form);
        let body = match self.wrong.get(form) {
            Some(wrong) => wrong.clone()?,
            None => right().map(|(_, right)| right.clone()).ok_or(Refusal::NotFound)?,
        };
        let digest = Digest::of(&body);
        let mut reference =
            Ref::new(resource.kind.to_owned(), digest, body.len() as u64, Timestamp::UNIX_EPOCH);
        for name in ["x-terraform-get", "link"] {
            reference.headers.extend(self.header.clone().map(|value| (name.to_owned(), value)));
        }
        Ok(Gotten { reference, body })
    }

    /// The same, taken only if the dialect takes it.
    fn fetch(&self, dialect: &dyn Protocol, resource: &Resource) -> Result<Gotten, Refusal> {
        let gotten = self.bring(resource)?;
        if self.wrong.is_empty() {
            return Ok(gotten); // Judging what is right takes time and tells nothing.
        }
        let mut companions = Gathered::default();
        for Companion { resource, optional, .. } in dialect.companions(resource, None, &gotten.body)? {
            match self.bring(&resource) {
                Err(Refusal::NotFound) if optional => {}
                found => companions.add_document(resource.key, Ok(found?)),
            }
        }
        dialect.vet(resource, &gotten.body, &companions)?;
        Ok(gotten)
    }

    /// Where a request leads in the end.
    pub(crate) fn route(&self, dialect: &dyn Protocol, head: &Head<'_>) -> Result<Route, Refusal> {
        let mut gathered = Gathered::default();
        for _ in 0..MAX_ROUNDS {
            let needs = match dialect.route(head, &PROXIES, &gathered) {
                Ok(route) => return Ok(route),
                Err(Unrouted::Refused(refusal)) => return Err(refusal),
                Err(Unrouted::Needs(needs)) => needs,
            };
            assert!(!needs.is_empty(), "it wants more, but not what");
            for need in needs {
                match need {
                    Need::Document(resource) | Need::Recent(resource, _) => {
                        let found = self.fetch(dialect, &resource);
                        gathered.add_document(resource.key, found);
                    }
                    // Nothing is cached.
                    Need::Held(resource, otherwise) => gathered.add_document(resource.key, Err(otherwise)),
                    Need::Fact(inquiry) => gathered.add_fact(inquiry.fact, None),
                    Need::Entry(lookup) => gathered.add_entry(lookup, self.claim),
                }
            }
        }
        panic!("it never has enough: {head:?}");
    }
}
