//! An `InRelease` and the files that belong to it are shown together, and never go back.

use http::StatusCode;
use repoxy::model::Digest;

use crate::support::{Gate, Origin, Repoxy};
use crate::{DISTS, Generation, OURS, PACKAGES, archive, by_hash, refs, update};

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_a_new_inrelease_is_shown_only_with_the_index_files_that_belong_to_it() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1), Generation::new(2));
    old.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    new.publish(&origin);
    let packages = format!("{DISTS}/{}", new.packages_path());
    let gate = Gate::closed();
    origin.on(&packages).hold(&gate).always();
    // The new index is on its way: nobody waits for it, and nobody sees half of the change.
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
    assert_eq!(origin.count("GET", &packages), 1, "it is fetched before anybody asks for it");
    assert_eq!(origin.count("GET", &format!("{DISTS}/main/i18n/*")), 0, "what nobody used is not");
    gate.open();
    let path = format!("{OURS}/InRelease");
    while repoxy.get(&path).await.bytes() != &new.inrelease() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
    assert_eq!(origin.count("GET", &packages), 1);
    // A client that still holds the old InRelease gets the old index by its digest.
    origin.stop().await;
    assert_eq!(repoxy.get(&format!("{OURS}/{}", by_hash(&old.packages))).await.bytes(), &old.packages);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_an_index_that_upstream_has_not_got_yet_keeps_the_old_generation() {
    for by_hash in [true, false] {
        let origin = Origin::start().await;
        let (mut old, mut new) = (Generation::new(1), Generation::new(2));
        if !by_hash {
            (old, new) = (old.without_by_hash(), new.without_by_hash());
        }
        old.publish(&origin);
        let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
        update(&repoxy, PACKAGES).await;
        // A mirror in the middle of its sync: the new InRelease, the old rest.
        origin.file(&format!("{DISTS}/InRelease"), "text/plain", new.inrelease());
        let stale = repoxy.get(&format!("{OURS}/InRelease")).await;
        assert_eq!(stale.bytes(), &old.inrelease(), "by hash: {by_hash}");
        assert!(stale.header("cache-status").contains("hit; ttl=-"), "{}", stale.header("cache-status"));
        assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_where_nothing_can_be_stored_a_new_generation_is_passed_on_as_one() {
    for by_hash in [true, false] {
        let generation = |day| {
            let generation = Generation::new(day);
            if by_hash { generation } else { generation.without_by_hash() }
        };
        let (old, new) = (generation(1), generation(2));
        let origin = Origin::start().await;
        old.publish(&origin);
        let mut repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
        update(&repoxy, PACKAGES).await;
        refs(&repoxy, "cache", 2).await;
        repoxy.kill();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        let root = repoxy.root();
        let root = root.to_str().expect("text");
        repoxy.run_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", script, root]);
        repoxy.start();
        assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
        let new = new.names("pool/p.deb", b"a package");
        new.publish(&origin);
        origin.file("/a/pool/p.deb", "text/plain", "a package");
        for index in [PACKAGES.to_owned(), new.packages_path()] {
            assert_eq!(update(&repoxy, &index).await, (new.inrelease(), new.packages.clone()), "{index}");
        }
        assert_eq!(repoxy.get("/debian/d/pool/p.deb").await.bytes(), "a package");
        // What is cached stands in when upstream is away.
        origin.stop().await;
        assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &old.inrelease());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_a_plain_name_never_runs_ahead_of_the_inrelease_that_clients_have() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1).without_by_hash(), Generation::new(2).without_by_hash());
    old.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
    new.publish(&origin);
    // Past its ttl, upstream has a newer one, and yet: this is the one that the client's InRelease names.
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    // One that nobody used is not there any more; what is there in its place is not served.
    let translation = format!("{OURS}/main/i18n/Translation-en");
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "something newer");
    assert_eq!(repoxy.get(&translation).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_2_a_by_hash_name_that_upstream_has_dropped_is_taken_from_the_plain_name_if_that_fits() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish(&origin);
    origin.on(&format!("{DISTS}/main/binary-amd64/by-hash/*")).status(404).always();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let (_, packages) = update(&repoxy, &by_hash(&old.packages)).await;
    assert_eq!(packages, old.packages);
    // The same where the content is here already, for another suite.
    for (path, content) in [("InRelease", old.inrelease()), (PACKAGES, old.packages.clone())] {
        origin.file(&format!("/a/dists/testing/{path}"), "text/plain", content);
    }
    let other = repoxy.get(&format!("/debian/d/dists/testing/{PACKAGES}")).await;
    assert_eq!(other.bytes(), &old.packages);
    let translation = Digest::of(&old.translation).hex();
    let by_hash = format!("main/i18n/by-hash/SHA256/{translation}");
    origin.on(&format!("{DISTS}/{by_hash}")).status(404).always();
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "longer than the right ones");
    let refused = repoxy.get(&format!("{OURS}/{by_hash}")).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY, "nothing of it is sent");
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "other bytes");
    let cut = repoxy.get(&format!("{OURS}/{by_hash}")).await;
    assert!(cut.status != StatusCode::OK || cut.body.is_err(), "the same size does not help");
    // Without a Release that knows it there is nowhere else to look.
    let unknown = format!("{OURS}/main/binary-amd64/by-hash/SHA256/{translation}");
    assert_eq!(repoxy.get(&unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inrelease_that_goes_back_in_time_is_not_taken() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1), Generation::new(2));
    new.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    old.publish(&origin);
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn release_and_its_signature_switch_as_a_pair() {
    let origin = Origin::start().await;
    let publish = |generation: &Generation, signature: &'static str| {
        generation.publish_files(&origin);
        origin.file(&format!("{DISTS}/Release"), "text/plain", generation.release());
        origin.file(&format!("{DISTS}/Release.gpg"), "text/plain", signature);
    };
    let (old, new) = (Generation::new(1), Generation::new(2));
    publish(&old, "old signature");
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    let get = |name: &'static str| {
        let repoxy = &repoxy;
        async move { repoxy.get(&format!("{OURS}/{name}")).await.bytes().clone() }
    };
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        (get("Release").await, get("Release.gpg").await),
        (old.release().into(), "old signature".into())
    );
    assert_eq!(get(PACKAGES).await, old.packages, "the Release says what the name means");
    publish(&new, "new signature");
    // While the new signature cannot be had, nothing changes.
    let signature = format!("{DISTS}/Release.gpg");
    origin.on(&signature).status(500).always();
    assert_eq!(
        (get("Release").await, get("Release.gpg").await),
        (old.release().into(), "old signature".into())
    );
    assert_eq!(get(PACKAGES).await, old.packages);
}
