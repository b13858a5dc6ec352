//! What one request asks of the library, function by function: how long each takes by itself.
//!
//! The figures say where a change went when `spine` has become slower or quicker. Each function is called once before
//! it is measured, and its result is looked at: what gives a wrong answer has no figure.

use std::error::Error;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use http::{HeaderMap, Method};
use repoxy::index::{Index, Record};
use repoxy::model::{
    ArtifactType, Digest, Hasher, ProxyFacts, ProxyId, ProxyTable, Ref, RefKey, RefRules as _, Timestamp,
};
use repoxy::protocol::oci::Oci;
use repoxy::protocol::{self, Gathered, Head, Route, Unrouted};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Refs in the index.
const REFS: u32 = 20_000;
/// Layers of the image.
const LAYERS: u32 = 40;

/// A request of each dialect that asks for content. Of a provider it is asked first where its registry has those.
const REQUESTS: [(&str, ArtifactType, &str); 5] = [
    ("container tag", ArtifactType::Container, "/v2/hub/library/alpine/manifests/3.20"),
    (
        "container blob",
        ArtifactType::Container,
        "/v2/hub/library/alpine/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    ),
    ("provider versions", ArtifactType::Tf, "/tf/main/v1/providers/hashicorp/random/versions"),
    ("Debian InRelease", ArtifactType::Debian, "/debian/main/dists/bookworm/InRelease"),
    ("plain file", ArtifactType::Generic, "/generic/main/releases/v1.2.3/tool.tar.gz"),
];

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    routes(&mut criterion)?;
    references(&mut criterion)?;
    hashing(&mut criterion)?;
    index(&mut criterion)?;
    criterion.final_summary();
    println!("functions: all results right");
    Ok(())
}

/// From a request's head to what is to be fetched, or asked first, by whichever dialect it belongs to.
fn routes(criterion: &mut Criterion) -> Outcome<()> {
    let mut facts = Vec::new();
    for (artifact_type, name, namespace) in [
        (ArtifactType::Container, "hub", Some("docker.io")),
        (ArtifactType::Tf, "main", Some("registry.terraform.io")),
        (ArtifactType::Debian, "main", None),
        (ArtifactType::Generic, "main", None),
    ] {
        let id = ProxyId { artifact_type, name: name.parse()? };
        let namespaces = namespace.into_iter().map(str::to_owned).collect();
        let upstream = Some("https://registry.example".parse()?);
        facts.push(ProxyFacts { namespaces, upstream, ..ProxyFacts::new(id) });
    }
    let (proxies, headers, gathered) = (ProxyTable::new(facts), HeaderMap::new(), Gathered::default());
    let mut group = criterion.benchmark_group("route");
    for (name, artifact_type, path) in REQUESTS {
        let head = Head { method: &Method::GET, authority: None, path, query: None, headers: &headers };
        let route = || {
            let dialect = protocol::ALL.iter().find(|dialect| dialect.owns(&head, &proxies));
            dialect.map(|dialect| (dialect.artifact_type(), dialect.route(&head, &proxies, &gathered)))
        };
        match route() {
            Some((ArtifactType::Tf, Err(Unrouted::Needs(_)))) if artifact_type == ArtifactType::Tf => {}
            Some((found, Ok(Route::Fetch(_)))) if found == artifact_type => {}
            other => return Err(format!("{path} leads to {other:?}").into()),
        }
        group.bench_function(name, |bencher| bencher.iter(|| black_box(route())));
    }
    group.finish();
    Ok(())
}

/// Refs, as they are read from their files, and what an image says that it consists of.
fn references(criterion: &mut Criterion) -> Outcome<()> {
    let json = reference(0).to_json();
    if Ref::parse(&json)? != reference(0) {
        return Err("a ref is not what was written".into());
    }
    if NAME.parse::<RefKey>()?.to_string() != NAME {
        return Err("a key is not what was written".into());
    }
    let mut group = criterion.benchmark_group("ref");
    group.bench_function("parse", |bencher| bencher.iter(|| Ref::parse(black_box(&json))));
    group.bench_function("write", |bencher| bencher.iter(|| black_box(reference(0)).to_json()));
    group.bench_function("parse key", |bencher| bencher.iter(|| black_box(NAME).parse::<RefKey>()));

    let manifest = manifest();
    let links = || Oci.links("container.manifest", Some(MEDIA_TYPE), black_box(&manifest));
    let found = links().map(|links| links.len());
    if found != Some(LAYERS as usize + 1) {
        return Err(format!("a manifest has {found:?} links").into());
    }
    group.bench_function("links of 40 layers", |bencher| bencher.iter(links));
    group.finish();
    Ok(())
}

const NAME: &str = "container/hub/refs/library/alpine/tags/3.20";
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The manifest of an image of 40 layers.
fn manifest() -> Vec<u8> {
    let descriptor = |number: u32, media_type: &str| {
        let digest = Digest::of(&number.to_le_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1048576}}"#)
    };
    let config = descriptor(LAYERS, "application/vnd.oci.image.config.v1+json");
    let layers = (0..LAYERS).map(|number| descriptor(number, "application/vnd.oci.image.layer.v1.tar+gzip"));
    let layers = layers.collect::<Vec<_>>().join(",");
    let text =
        format!(r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}","config":{config},"layers":[{layers}]}}"#);
    text.into_bytes()
}

/// What every byte that is stored goes through.
fn hashing(criterion: &mut Criterion) -> Outcome<()> {
    let bytes = vec![7; 1 << 20];
    let hash = || {
        let mut hasher = Hasher::new(None);
        hasher.update(black_box(&bytes));
        hasher.finish()
    };
    if hash().digest != Digest::of(&bytes) {
        return Err("a wrong sha256".into());
    }
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("1 MiB", |bencher| bencher.iter(hash));
    group.finish();
    Ok(())
}

/// An index of 20,000 refs; `scale` asks one of a million.
fn index(criterion: &mut Criterion) -> Outcome<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (index, _) = Index::open(directory.path())?;
    let records = (0..REFS).map(record).collect::<Outcome<Vec<_>>>()?;
    index.record(&records)?;
    for record in &records {
        if index.lookup(&record.key)?.as_ref() != Some(&record.reference) {
            return Err(format!("{} is not what was recorded", record.key).into());
        }
    }
    let mut group = criterion.benchmark_group("index");
    let mut keys = records.iter().map(|record| &record.key).cycle();
    group.bench_function("look up", |bencher| bencher.iter(|| keys.next().map(|key| index.lookup(key))));
    let absent: RefKey = "container/hub/refs/library/none/tags/1".parse()?;
    if index.lookup(&absent)?.is_some() {
        return Err(format!("{absent} was never recorded").into());
    }
    group.bench_function("look up what is not there", |bencher| {
        bencher.iter(|| index.lookup(black_box(&absent)));
    });
    // Each time something else than before, or nothing would be written.
    let mut next = REFS;
    group.bench_function("record", |bencher| {
        bencher.iter(|| {
            next += 1;
            let mut again = record(next % REFS)?;
            again.reference = reference(next);
            index.record(&[again])?;
            Outcome::Ok(())
        });
    });
    group.finish();
    // Others than this one may have been asked for.
    let last = record(next % REFS)?.key;
    if next > REFS && index.lookup(&last)? != Some(reference(next)) {
        return Err(format!("{last} is not what was recorded last").into());
    }
    Ok(())
}

fn record(number: u32) -> Outcome<Record> {
    let key: RefKey = format!("container/hub/refs/team{}/image{number}/tags/v1", number % 100).parse()?;
    let scope = Oci.scope(&key.path).to_owned();
    Ok(Record { key, scope, reference: reference(number) })
}

fn reference(number: u32) -> Ref {
    let digest = Digest::of(&number.to_le_bytes());
    let mut reference = Ref::new("container.tag".into(), digest, 6_000, Timestamp::UNIX_EPOCH);
    reference.media_type = Some(MEDIA_TYPE.into());
    reference.upstream = Some(format!("https://registry-1.docker.io/v2/team/image{number}/manifests/v1"));
    reference.etag = Some(format!("\"{digest}\""));
    reference.ttl_seconds = Some(3_600);
    reference
}
