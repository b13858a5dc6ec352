//! Requests that meet at moments that no client can arrange.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::index::{Handle, Options, Writer};
use crate::model::{ArtifactType, Delivery, Digest, Freshness, Leave, ProxyFacts, Source, SystemClock};
use crate::protocol::generic::Generic;
use crate::upstream::{Credentials, Settings};

/// An upstream with one name, whose content can be replaced, and is another for each `X-Kind`.
#[derive(Debug, Default)]
struct Origin {
    content: Mutex<&'static str>,
    bodies: AtomicUsize,
}

impl Origin {
    /// Starts it; where it is.
    async fn start(self: &Arc<Self>) -> url::Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let origin = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let content = *origin.content.lock().expect("no panics");
                let mut answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-digest: {}\r\nconnection: close\r\n\
                     cache-control: max-age=60\r\nvary: x-kind\r\n\r\n",
                    content.len(),
                    Digest::of(content.as_bytes())
                );
                if head.starts_with(b"GET") {
                    origin.bodies.fetch_add(1, Ordering::SeqCst);
                    answer += content;
                }
                stream.write_all(answer.as_bytes()).await.expect("sent");
            }
        });
        base.parse().expect("a URL")
    }

    fn publish(&self, content: &'static str) {
        *self.content.lock().expect("no panics") = content;
    }
}

/// An engine without an index, in memory, with one proxy for an upstream.
async fn engine(proxy: &ProxyId, upstream: url::Url) -> Arc<Cache> {
    let index = Arc::new(Handle::open(None, Options::default()));
    let upstream = Upstream::new(Settings {
        proxy: proxy.name.to_string(),
        bases: vec![upstream],
        credentials: Credentials::None,
        allowed_hosts: Vec::new(),
        ca_files: Vec::new(),
        instance: "test".to_owned(),
        limits: crate::upstream::Limits::default(),
    });
    Arc::new(Cache::new(Parts {
        store: Arc::new(Store::create("mem://").await.expect("a root")),
        writer: Writer::start(Arc::clone(&index)).expect("a thread"),
        index,
        upstreams: HashMap::from([(proxy.clone(), upstream.expect("it can be used"))]),
        proxies: ProxyTable::new(vec![ProxyFacts::new(proxy.clone())]),
        clock: Arc::new(SystemClock),
        proofs_since: Timestamp::MIN,
        hot_bytes: 0,
    }))
}

fn generic() -> ProxyId {
    ProxyId { artifact_type: ArtifactType::Generic, name: "x".parse().expect("a name") }
}

fn resource(freshness: Freshness) -> Resource {
    Resource::new(
        "generic/x/refs/a".parse().expect("a key"),
        "generic.file",
        Source::Path("/a".to_owned()),
        freshness,
        Delivery::Streamed,
    )
}

#[tokio::test]
async fn who_looks_before_a_fill_ends_and_asks_after_asks_about_what_that_has_brought() {
    let origin = Arc::new(Origin::default());
    let proxy = generic();
    let cache = engine(&proxy, origin.start().await).await;
    // A name whose content has to be confirmed each time, by a HEAD that states the digest.
    let resource = Resource { digest_header: Some("x-digest"), ..resource(Freshness::For(Duration::ZERO)) };
    let want = Want { interest: Interest::Body, via: None };
    let call = Call { site: &cache.sites[&proxy], protocol: &Generic, resource: &resource, want };
    let ask = async |(place, held)| {
        let (fill, _) = cache.join(call, place, held, Company::Any).expect("room");
        fill.settled().await.expect("upstream has it");
    };
    let held =
        async || cache.look(&Generic, &resource).await.1.expect("it is there").0.reference.target_digest;

    origin.publish("old");
    ask(cache.look(&Generic, &resource).await).await;
    assert_eq!(held().await, Digest::of(b"old"));

    origin.publish("new");
    let looked = cache.look(&Generic, &resource).await;
    ask(cache.look(&Generic, &resource).await).await;
    ask(looked).await;
    assert_eq!(held().await, Digest::of(b"new"));
    assert_eq!(origin.bodies.load(Ordering::SeqCst), 2, "each version once");
}

#[tokio::test]
async fn who_looks_before_a_first_variant_is_known_and_asks_after_looks_for_another_where_all_do() {
    for company in [Company::Any, Company::None] {
        let origin = Arc::new(Origin::default());
        let proxy = generic();
        let cache = engine(&proxy, origin.start().await).await;
        let of_kind = |kind| {
            let mut resource = resource(Freshness::Upstream(Leave { stale_if_error: Duration::ZERO }));
            resource.transparent = true;
            resource.asked.headers.insert("x-kind", HeaderValue::from_static(kind));
            resource
        };
        let (one, two) = (of_kind("1"), of_kind("2"));
        let want = Want { interest: Interest::Body, via: None };
        let site = &cache.sites[&proxy];
        let call = |resource| Call { site, protocol: &Generic, resource, want };
        let ask = async |resource, place, company| {
            let (fill, _) = cache.join(call(resource), place, None, company).expect("room");
            fill.settled().await.map_err(|failure| failure.detail)
        };

        let (looked, _) = cache.look(&Generic, &two).await;
        origin.publish("one");
        ask(&one, Place::of(&one), Company::Any).await.expect("upstream has it");
        origin.publish("two");
        if company == Company::Any {
            assert_eq!(ask(&two, looked, company).await, Err("unsettled"), "it is not to be had so");
            let (place, held) = cache.look(&Generic, &two).await;
            assert!(held.is_none());
            ask(&two, place, company).await.expect("upstream has it");
        } else {
            ask(&two, looked, company).await.expect("upstream has it");
        }
        for (resource, content) in [(&one, "one"), (&two, "two")] {
            let (_, held) = cache.look(&Generic, resource).await;
            let held = held.expect("it counts").0;
            assert_eq!(held.reference.target_digest, Digest::of(content.as_bytes()));
        }
        assert_eq!(origin.bodies.load(Ordering::SeqCst), 2, "each once");
    }
}
