//! Manifests whose registry does not say what they are.

use http::StatusCode;

use crate::support::{Manifest, Origin, Repoxy, proxy};
use crate::{change, outdate};

const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image that states its type, and an index that does not.
fn documents(origin: &Origin) -> [(Manifest, &'static str); 2] {
    let config = origin.blob_of("library/app", "{}");
    let image = format!(
        r#"{{"mediaType":"{DOCKER_IMAGE}","config":{{"digest":"{}","size":2}},"layers":[]}}"#,
        config.digest
    );
    let image = origin.manifest("library/app", "image", DOCKER_IMAGE, image);
    let index = format!(r#"{{"manifests":[{{"digest":"{}","size":{}}}]}}"#, image.digest, image.bytes.len());
    [(image, DOCKER_IMAGE), (origin.manifest("library/app", "index", INDEX, index), INDEX)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_registry_gives_no_type_of_manifests_has_the_one_that_it_says_itself() {
    for stated in [None, Some("application/json"), Some("text/plain; charset=utf-8")] {
        let origin = Origin::start().await;
        let documents = documents(&origin);
        match stated {
            Some(stated) => origin.on("/v2/library/app/manifests/*").header("content-type", stated).always(),
            None => origin.on("/v2/library/app/manifests/*").without("content-type").always(),
        }
        let repoxy = Repoxy::before(&origin);
        for (manifest, expected) in &documents {
            // Fetched, confirmed, and by its digest: vouched for by the tag, then by a ref of its own.
            for path in [&manifest.path, &manifest.path, &manifest.by_digest, &manifest.by_digest] {
                for got in [repoxy.head(path).await, repoxy.get(path).await] {
                    assert_eq!(got.status, StatusCode::OK, "{path} as {stated:?}");
                    assert_eq!(got.header("content-type"), *expected, "{path} as {stated:?}");
                }
            }
        }
        // One that another repository has brought.
        let other = origin.manifest("library/other", "1", DOCKER_IMAGE, documents[0].0.bytes.clone());
        origin.on("/v2/library/other/manifests/*").header("content-type", "application/json").always();
        assert_eq!(repoxy.get(&other.by_digest).await.header("content-type"), DOCKER_IMAGE);
        assert_eq!(origin.count("GET", &other.by_digest), 0, "its bytes are there");
        let refs = repoxy.files("type/container/proxies/hub/refs");
        let tags = refs.iter().filter(|file| file.parent().is_some_and(|dir| dir.ends_with("tags")));
        for file in tags {
            let text = std::fs::read_to_string(file).expect("a ref");
            assert!(text.contains(INDEX) || text.contains(DOCKER_IMAGE), "it is kept so: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_does_not_say_the_type_is_served_with_the_one_that_the_manifest_says() {
    let origin = Origin::start().await;
    let documents = documents(&origin);
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for (manifest, _) in &documents {
        repoxy.get(&manifest.path).await;
    }
    repoxy.stored(2).await;
    for written in [None, Some("application/json")] {
        change(&mut repoxy, "container.tag", |fields| {
            fields.remove("mediaType");
            fields.remove("links");
            fields.extend(written.map(|written| ("mediaType".to_owned(), written.into())));
        });
        for (manifest, expected) in &documents {
            for path in [&manifest.path, &manifest.by_digest] {
                let got = repoxy.get(path).await;
                assert_eq!(got.bytes(), &manifest.bytes, "{path}");
                assert_eq!(got.header("content-type"), *expected, "{path} as {written:?}");
            }
        }
    }
    // And past its time: what confirms it completes it.
    outdate(&mut repoxy, "container.tag");
    for (manifest, expected) in &documents {
        let got = repoxy.get(&manifest.path).await;
        assert_eq!(got.header("content-type"), *expected);
        assert_eq!(origin.count("GET", &manifest.path), 1, "confirmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_has_to_say_to_people_is_passed_on_with_its_tag() {
    let origin = Origin::start().await;
    let [(image, _), (index, _)] = documents(&origin);
    let said = "299 - \"this repository moves\"";
    origin.on(&image.path).header("warning", said).always();
    origin.on(&index.path).header("warning", "110 - \"stale\"").always();
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for _ in 0..2 {
        assert_eq!(repoxy.get(&image.path).await.header("warning"), said);
        assert_eq!(repoxy.head(&image.path).await.header("warning"), said);
        assert_eq!(repoxy.get(&index.path).await.header("warning"), "", "of a cache");
    }
    assert_eq!(repoxy.get(&image.by_digest).await.header("warning"), "", "whoever asked before");
    let later = "299 - \"it has moved\"";
    origin.forget_scripts(&image.path);
    origin.on(&image.path).header("warning", later).always();
    outdate(&mut repoxy, "container.tag");
    repoxy.get(&image.path).await;
    assert_eq!(repoxy.get(&image.path).await.header("warning"), later, "said when it was confirmed");
    origin.forget_scripts(&image.path);
    outdate(&mut repoxy, "container.tag");
    repoxy.get(&image.path).await;
    assert_eq!(repoxy.get(&image.path).await.header("warning"), "", "no longer said");
}
