//! A: transfers from upstream that break, lie, or are wanted by many at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::support::{Blob, Gate, Got, Origin, Repoxy, eventually, http2, proxy};

const MIB: usize = 1 << 20;

/// The size of a blob that is broken at two fifths.
const SIZE: usize = 10 * MIB;
const CUT: u64 = CUT_AT as u64;
const CUT_AT: usize = 4 * MIB;

/// Asks for a blob of which upstream breaks off the first answer, and then does `more`.
async fn broken_at_two_fifths(more: impl FnOnce(&Origin, &Blob)) -> (Origin, Blob, Got) {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", SIZE);
    origin.on(&blob.path).cut_after(CUT).once();
    more(&origin, &blob);
    let repoxy = Repoxy::before(&origin);
    let got = repoxy.get(&blob.path).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.header("content-length"), SIZE.to_string());
    assert_eq!(got.bytes(), &blob.bytes);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
    (origin, blob, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_broken_transfer_goes_on_where_it_broke_and_no_byte_comes_twice() {
    let (origin, blob, _) = broken_at_two_fifths(|origin, blob| {
        origin.on(&blob.path).reset_after(1000).once();
    })
    .await;
    let seen = origin.seen("GET", &blob.path);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].header("range"), None);
    let etag = format!("\"{}\"", blob.digest);
    for resumed in &seen[1..] {
        let range = resumed.header("range").expect("a resumption");
        let from: u64 = range
            .strip_prefix("bytes=")
            .and_then(|r| r.strip_suffix('-'))
            .expect("open")
            .parse()
            .expect("a number");
        assert!(from > 0 && from <= CUT + 1000, "{range}");
        assert_eq!(resumed.header("if-range"), Some(&*etag));
    }
    assert!(origin.bytes_sent(&blob.path) <= SIZE as u64 * 105 / 100, "{}", origin.bytes_sent(&blob.path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_broken_transfer_is_completed_though_upstream_ignores_ranges() {
    let (origin, blob, _) = broken_at_two_fifths(|origin, blob| {
        origin.on(&blob.path).ignore_range().always();
    })
    .await;
    assert_eq!(origin.count("GET", &blob.path), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_part_that_does_not_fit_is_never_spliced_in() {
    type Misfit = fn(&Origin, &Blob);
    let misfits: [Misfit; 3] = [
        // Another place than was asked for, with a body as long as the header says.
        |origin, blob| {
            let body = blob.bytes.slice(17..);
            origin
                .on(&blob.path)
                .status(206)
                .header("content-range", &format!("bytes 17-{}/{SIZE}", SIZE - 1))
                .body(body)
                .once();
        },
        // The right place of another version.
        |origin, blob| {
            let range = format!("bytes {CUT}-{}/{SIZE}", SIZE - 1);
            let body = vec![0; SIZE - CUT_AT];
            origin
                .on(&blob.path)
                .status(206)
                .header("content-range", &range)
                .header("etag", "\"other\"")
                .body(body)
                .once();
        },
        |origin, blob| {
            origin.on(&blob.path).status(416).header("content-range", &format!("bytes */{SIZE}")).once();
        },
    ];
    for misfit in misfits {
        let (origin, blob, _) = broken_at_two_fifths(misfit).await;
        let ranges: Vec<_> =
            origin.seen("GET", &blob.path).iter().map(|seen| seen.header("range").is_some()).collect();
        assert_eq!(ranges, [false, true, false], "once more from the beginning");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_an_upstream_that_never_gets_further_is_given_up_and_nothing_is_published() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", SIZE);
    origin.on(&blob.path).cut_after(CUT).once();
    origin.on(&blob.path).cut_after(0).always();
    let repoxy = Repoxy::before(&origin);
    let got = repoxy.get(&blob.path).await;
    assert!(got.body.is_err(), "what is incomplete must not end like what is whole");
    assert_eq!(origin.count("GET", &blob.path), 1 + 5, "five resumes without a byte are enough");
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0]);
    origin.forget_scripts(&blob.path);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

/// A server that has had to give up a blob at two fifths, and where it keeps them.
async fn given_up() -> (Origin, Blob, Repoxy, PathBuf) {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", SIZE);
    origin.on(&blob.path).cut_after(CUT).once();
    origin.on(&blob.path).status(404).always();
    let repoxy = Repoxy::before(&origin);
    assert!(repoxy.get(&blob.path).await.body.is_err());
    origin.forget_scripts(&blob.path);
    let partials = || repoxy.files("type/container/proxies/hub/tmp/partial");
    eventually("it is left", || partials().len() == 1).await;
    let partial = partials().remove(0);
    assert_eq!(partial.metadata().expect("there").len(), CUT);
    assert_eq!(repoxy.files("type/container/blobs"), [] as [PathBuf; 0]);
    (origin, blob, repoxy, partial)
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_what_had_come_is_kept_and_the_next_request_fetches_only_the_rest() {
    let (origin, blob, repoxy, partial) = given_up().await;
    assert!(repoxy.run(&["gc", "--force"]).status.success());
    repoxy.assert_sound().await;
    assert!(partial.exists(), "gc leaves it for a day");
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    let last = origin.seen("GET", &blob.path).pop().expect("seen");
    assert_eq!(last.header("range"), Some(&*format!("bytes={CUT}-")));
    assert_eq!(repoxy.files("type/container/proxies/hub/tmp/partial"), [] as [PathBuf; 0]);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_what_had_come_goes_after_a_day_or_when_it_turns_out_wrong() {
    let (_, _, repoxy, partial) = given_up().await;
    let file = std::fs::File::options().write(true).open(&partial).expect("there");
    let written = file.metadata().and_then(|stat| stat.modified()).expect("known");
    file.set_modified(written - Duration::from_hours(25)).expect("set");
    let said = repoxy.run(&["gc", "--force"]);
    assert!(said.status.success() && !partial.exists(), "{said:?}");

    let (origin, blob, repoxy, partial) = given_up().await;
    let mut bytes = std::fs::read(&partial).expect("read");
    bytes[CUT_AT / 2] ^= 1;
    std::fs::write(&partial, bytes).expect("written");
    assert!(repoxy.get(&blob.path).await.body.is_err(), "what is wrong is not ended as if it was right");
    assert_eq!(repoxy.files("type/container/proxies/hub/tmp/partial"), [] as [PathBuf; 0]);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    assert_eq!(origin.seen("GET", &blob.path).pop().expect("seen").header("range"), None);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_one_flipped_bit_cuts_the_connection_and_leaves_nothing() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::before(&origin);
    // Early in a large one, in the last bytes of a large one, and in one that fits what is held back.
    for (size, at) in [(MIB, 500), (MIB, MIB - 1), (30_000, 29_999)] {
        let blob = origin.blob("library/app", size);
        origin.on(&blob.path).flip(at as u64).once();
        let (mut received, mut cut) = (0, true);
        // The verdict may be there before the headers have gone out: then the cut comes before them.
        if size < 64 << 10 {
            let got = repoxy.get(&blob.path).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY);
            assert!(got.body.is_ok(), "nothing went out before the verdict, so it is told: {:?}", got.body);
        } else if let Ok(mut answer) =
            repoxy.client().get(format!("{}{}", repoxy.url(), blob.path)).send().await
            && answer.status() == StatusCode::OK
        {
            cut = loop {
                match answer.chunk().await {
                    Ok(Some(bytes)) => received += bytes.len(),
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
        }
        assert!(cut, "a wrong body must not end like a right one");
        assert!(received <= size.saturating_sub(64 << 10), "{received} of {size}: the end is held back");
        assert!(!repoxy.blob_file(&blob.digest.hex()).exists());
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes, "the next try is clean");
    }
    repoxy.stored(3).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_tag_whose_bytes_are_not_what_upstream_states_is_fetched_once_more_and_never_served() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    origin.on(&image.path).flip(5).always();
    let repoxy = Repoxy::before(&origin);
    let got = repoxy.get(&image.path).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.count("GET", &image.path), 2, "once more, then given up");
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_what_is_incomplete_is_never_stored_and_never_served_as_complete() {
    let origin = Arc::new(Origin::start().await);
    let repoxy = Arc::new(Repoxy::before(&origin));
    let mut cases = tokio::task::JoinSet::new();
    for case in 0..24 {
        let (origin, repoxy) = (Arc::clone(&origin), Arc::clone(&repoxy));
        cases.spawn(async move { incomplete(&origin, &repoxy, case).await });
    }
    cases.join_all().await;
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0]);
    // More than was announced is not part of the answer.
    let blob = origin.blob("library/app", 300_000);
    origin.on(&blob.path).extra(7).once();
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

/// One way in which an answer can be incomplete: which resource, whether upstream states its digest,
/// and how the end is marked.
async fn incomplete(origin: &Origin, repoxy: &Repoxy, case: usize) {
    let repository = format!("library/app{case}");
    let image = origin.image(&repository, "1.0", 1, 300_000);
    let list = format!("/v2/{repository}/tags/list");
    let path = [&image.blobs[1].path, &image.path, &image.by_digest, &list][case % 4];
    let (stated, framing) = ((case / 4).is_multiple_of(2), case / 8);
    // A part of it, and from then on nothing more.
    for cut in [20, 0] {
        let mut script = origin.on(path).cut_after(cut);
        if !stated {
            script = script.without("docker-content-digest").without("etag");
        }
        let script = match framing {
            0 => script,
            1 => script.chunked(),
            _ => script.close_delimited(),
        };
        if cut == 0 { script.always() } else { script.once() }
    }
    // Cut before the headers have gone out, an error in their place, or cut later.
    let Ok(answer) = repoxy.client().get(format!("{}{path}", repoxy.url())).send().await else { return };
    let status = answer.status();
    let body = answer.bytes().await;
    assert!(status.is_server_error() || body.is_err(), "{path} {stated} {framing}: {status} {body:?}");
}

/// Starts so many clients on one path.
fn clients(repoxy: &Arc<Repoxy>, path: &str, count: usize) -> Vec<tokio::task::JoinHandle<Got>> {
    let one = |_| {
        let (repoxy, path) = (Arc::clone(repoxy), path.to_owned());
        tokio::spawn(async move { repoxy.get(&path).await })
    };
    (0..count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_a_hundred_clients_of_one_cold_blob_cost_one_upstream_get() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 4 * MIB);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(MIB as u64, &gate).always();
    let repoxy = Arc::new(Repoxy::before(&origin));
    let clients = clients(&repoxy, &blob.path, 100);
    origin.seen_at_least("GET", &blob.path, 1).await;
    gate.open();
    for client in clients {
        assert_eq!(client.await.expect("no panic").bytes(), &blob.bytes);
    }
    assert_eq!((origin.count("GET", &blob.path), origin.count("HEAD", "*")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_the_first_client_of_many_may_leave_and_the_others_notice_nothing() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 4 * MIB);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(MIB as u64 / 2, &gate).always();
    let repoxy = Arc::new(Repoxy::before(&origin));
    let mut leader = repoxy.open(Method::GET, &blob.path, &[]).await;
    leader.chunk().await.expect("it flows").expect("some bytes");
    let others = clients(&repoxy, &blob.path, 99);
    drop(leader);
    gate.open();
    for client in others {
        assert_eq!(client.await.expect("no panic").bytes(), &blob.bytes);
    }
    assert_eq!(origin.count("GET", &blob.path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a19_the_only_client_may_leave_and_the_fill_completes_behind_it() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", SIZE);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(MIB as u64, &gate).once();
    let repoxy = Repoxy::before(&origin);
    let mut response = repoxy.open(Method::GET, &blob.path, &[]).await;
    response.chunk().await.expect("it flows");
    drop(response);
    gate.open();
    repoxy.stored(1).await;
    assert_eq!(origin.count("GET", &blob.path), 1);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    assert_eq!(origin.count("GET", &blob.path), 1);
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a20_fifty_clients_of_a_tag_that_moves_cost_one_question_and_each_answer_is_of_one_piece() {
    let origin = Origin::start().await;
    let old = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Arc::new(Repoxy::before(&origin));
    repoxy.get(&old.path).await;
    let new = origin.image("library/app", "1.0", 2, 100);
    let gate = Gate::closed();
    origin.on(&old.path).method("HEAD").hold(&gate).once();
    let clients = clients(&repoxy, &old.path, 50);
    origin.seen_at_least("HEAD", &old.path, 1).await;
    // All of them are in the engine, waiting for the one answer, or are told what is stale.
    gate.open();
    for client in clients {
        let got = client.await.expect("no panic");
        let image =
            [&old, &new].into_iter().find(|image| image.bytes == *got.bytes()).expect("one of the two");
        assert_eq!(got.header("docker-content-digest"), image.digest.to_string());
        assert_eq!(got.header("content-length"), image.bytes.len().to_string());
    }
    // Clients that came after the answer may have asked again, for the ttl is nought; the body came once.
    assert_eq!(origin.count("GET", &old.path), 2, "the old one and the new one, once each");
    assert_eq!(repoxy.get(&old.path).await.bytes(), &new.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a20_fifty_clients_of_a_tag_past_its_time_cost_one_question() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Arc::new(Repoxy::with(&proxy(&origin, "ttl = \"1h\"")));
    repoxy.get(&image.path).await;
    // As if it had been confirmed long ago.
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    let text = std::fs::read_to_string(&file).expect("a ref");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["fetchedAt"] = "2025-01-01T00:00:00Z".into();
    std::fs::write(&file, json.to_string()).expect("writable");
    // The index and the hot map know the younger reading; a new process has neither.
    let mut repoxy = Arc::into_inner(repoxy).expect("nobody else has it");
    repoxy.kill();
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    repoxy.start();
    let repoxy = Arc::new(repoxy);
    let gate = Gate::closed();
    origin.on(&image.path).hold(&gate).once();
    let clients = clients(&repoxy, &image.path, 50);
    origin.seen_at_least("HEAD", &image.path, 1).await;
    gate.open();
    for client in clients {
        assert_eq!(client.await.expect("no panic").bytes(), &image.bytes);
    }
    assert_eq!((origin.count("HEAD", &image.path), origin.count("GET", &image.path)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a21_an_encoded_answer_is_refused_and_identity_is_asked_for() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::before(&origin);
    let blob = origin.blob("library/app", 1000);
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    origin.on(&blob.path).header("content-encoding", "gzip").body(&gzip[..]).always();
    let got = repoxy.get(&blob.path).await;
    assert!(got.status.is_server_error() || got.body.is_err(), "{got:?}");
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0]);
    assert_eq!(origin.seen("GET", &blob.path)[0].header("accept-encoding"), Some("identity"));
    origin.forget_scripts(&blob.path);
    // What is compressed by its nature is not touched: the bytes are those of the digest.
    let packed = origin.blob_of("library/app", &gzip[..]);
    let got = repoxy.get(&packed.path).await;
    assert_eq!((got.bytes(), got.header("content-encoding")), (&packed.bytes, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a24_a_stream_that_http2_resets_or_abandons_is_completed_on_another() {
    for end in [http2::End::Reset, http2::End::GoAway] {
        let content = Origin::start().await.blob("library/app", 40_000);
        let upstream = http2::start(content.bytes.clone(), 16_000, end).await;
        let repoxy = Repoxy::stopped(&format!(
            "[[proxy]]\ntype = \"container\"\nname = \"hub\"\ndefault = true\nupstream = \"https://localhost:{}\"\nca_files = [\"ca.pem\"]\n",
            upstream.port
        ));
        std::fs::write(repoxy.dir().join("ca.pem"), &upstream.certificate).expect("writable");
        let mut repoxy = repoxy;
        repoxy.start();
        let got = repoxy.get(&content.path).await;
        assert_eq!(got.status, StatusCode::OK, "{end:?}");
        assert_eq!(got.bytes(), &content.bytes, "{end:?}");
        assert_eq!(upstream.streams(), 2, "{end:?}: one that ended early, and one for the rest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a25_ranges_of_a_cold_blob_come_from_the_one_fill() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 2 * MIB);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(MIB as u64, &gate).once();
    let repoxy = Repoxy::before(&origin);
    let got = repoxy.request(Method::GET, &blob.path, &[("range", "bytes=1000-1099")]).await;
    assert_eq!(got.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(got.header("content-range"), format!("bytes 1000-1099/{}", 2 * MIB));
    assert_eq!(got.bytes(), &blob.bytes[1000..1100], "answered while half is still to come");
    assert_eq!(
        repoxy.files("type/container/blobs"),
        [] as [std::path::PathBuf; 0],
        "a part is not published"
    );
    gate.open();
    let tail = repoxy.request(Method::GET, &blob.path, &[("range", "bytes=-10")]).await;
    assert_eq!(tail.bytes(), &blob.bytes[2 * MIB - 10..]);
    repoxy.stored(1).await;
    assert_eq!(origin.count("GET", &blob.path), 1);
    assert_eq!(origin.count_range("GET", &blob.path, None), 1, "and that is for all of it");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a transfer of a minute and a half"]
async fn a2_a_trickle_is_given_up_and_holds_up_nobody() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let blob = origin.blob("library/app", MIB);
    origin.on(&blob.path).trickle(1, Duration::from_secs(20)).always();
    let repoxy = Arc::new(Repoxy::with(&proxy(&origin, "ttl = \"1h\"")));
    repoxy.get(&image.path).await;
    let slow = clients(&repoxy, &blob.path, 1).pop().expect("one");
    origin.seen_at_least("GET", &blob.path, 1).await;
    let mut worst = Duration::ZERO;
    // The rate is judged over a minute: then the second question comes.
    let second = origin.seen_at_least("GET", &blob.path, 2);
    let mut second = std::pin::pin!(second);
    let began = std::time::Instant::now();
    loop {
        let asked = std::time::Instant::now();
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
        worst = worst.max(asked.elapsed());
        assert!(began.elapsed() < Duration::from_secs(120), "the rate of a trickle was never judged");
        tokio::select! {
            () = &mut second => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    assert!(began.elapsed() > Duration::from_secs(45), "an idle timeout is not what ended it");
    assert!(worst < Duration::from_millis(500), "a warm answer took {worst:?}");
    assert_eq!(repoxy.files("type/container/blobs").len(), 1, "the manifest and nothing else");
    slow.abort();
    eventually("the log says why", || repoxy.log().contains("resuming a broken transfer")).await;
}
