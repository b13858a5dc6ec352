//! Files and index: what is known of an answer, and where it is kept.

use crate::support::Origin;
use crate::{assert_came, before, get, kept};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_answer_survives_restart_and_the_loss_of_the_index() {
    let origin = Origin::start().await;
    let file = origin.file("/dir/x", "text/plain; charset=latin1", "content");
    origin.on("/dir/x").header("cache-control", "max-age=0").header("x-own", "1").always();
    origin.on("/gone").status(404).header("cache-control", "max-age=3600").body("no").always();
    let mut repoxy = before(&origin, "");
    get(&repoxy, "/dir/x").await;
    get(&repoxy, "/gone").await;
    kept(&repoxy, 2).await;
    let asked = origin.total();
    for loses_index in [false, true] {
        repoxy.kill();
        if loses_index {
            std::fs::remove_dir_all(repoxy.root().join("index")).expect("it is there");
        }
        repoxy.start();
        let got = get(&repoxy, "/dir/x").await;
        assert_came(&got, "repoxy; fwd=stale; fwd-status=304");
        assert_eq!((got.header("content-type"), got.header("x-own")), ("text/plain; charset=latin1", "1"));
        assert_eq!(get(&repoxy, "/gone").await.status.as_u16(), 404);
    }
    assert_eq!(origin.total(), asked + 2, "validators and statuses were kept");
    let etag = format!("\"{}\"", file.digest);
    assert_eq!(origin.seen("GET", "/dir/x")[2].header("if-none-match"), Some(&*etag));

    let show = repoxy.run(&["show", "generic/files/dir/x", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&show.stdout).expect("JSON");
    assert_eq!(shown["ref"], "generic/files/refs/dir/x");
    assert_eq!(shown["kind"], "generic.file");
    let list = repoxy.run(&["ls", "refs", "--json"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("dir/x"), "{list:?}");
    for command in [&["fsck", "--read-data"][..], &["reindex"], &["gc"]] {
        let done = repoxy.run(command);
        assert!(done.status.success(), "{command:?}: {done:?}");
    }
    assert_eq!(get(&repoxy, "/dir/x").await.bytes(), "content", "it is not taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_differ_are_different_files_and_strange_ones_are_served() {
    let origin = Origin::start().await;
    let paths = ["/", "/dir/", "/dir", "/a//b", "/100%25", "/x?y=/z", "/x?y", "/sp%20ace", "/A", "/a"];
    for path in paths {
        let (bare, _) = path.split_once('?').unwrap_or((path, ""));
        origin.on(bare).header("cache-control", "max-age=3600").body(format!("{path} of upstream")).once();
        assert_eq!(origin.total(), 0);
    }
    let repoxy = before(&origin, "");
    for round in 0..2 {
        for path in paths {
            let got = get(&repoxy, path).await;
            assert_eq!(got.bytes(), &format!("{path} of upstream"), "round {round}");
        }
    }
    assert_eq!(origin.total(), paths.len());
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
    for bad in ["/generic/none/x", "/generic/files"] {
        assert_eq!(repoxy.get(bad).await.status.as_u16(), 404, "{bad}");
    }
    assert_eq!(origin.total(), paths.len());
}
