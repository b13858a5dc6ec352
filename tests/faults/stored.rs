//! What holds for stored content of every type: damage, gc beside who asks for it, proxies that may not have it,
//! secrets on its way, and versions that upstream publishes anew.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::damage::attempt;
use crate::gc::{GC, finish, traced};
use crate::support::{Origin, Repoxy, eventually};
use crate::trust::{CANARY, leaked};
use crate::types::{MIB, TYPES, World, publish_provider};

/// A blob with one bit flipped is put in the place of each type's content while no server runs; a next server
/// that has reason not to believe what it finds never serves it, and it heals.
async fn flipped_is_never_served(distrusted: fn(&mut Repoxy, &Path, &[u8])) {
    for of in &TYPES {
        let mut world = World::usual(of).await;
        let mut wrong = world.content.to_vec();
        wrong[MIB / 2] ^= 1;
        let (from, to) = (MIB / 2 - 5, MIB / 2 + 4);
        for part in [None, Some(format!("bytes={from}-{to}")), Some("bytes=-1".to_owned())] {
            world.fetched().await;
            let file = world.blob();
            distrusted(&mut world.repoxy, &file, &wrong);
            world.repoxy.start();
            let what = format!("{} {part:?}", of.name);
            let first = attempt(&world.repoxy, &world.ours, part.as_deref()).await;
            assert_eq!(first.map(|(status, ..)| status), None, "cut before its end: {what}");
            // It has been set aside by then.
            let again = world.range(from, to).await;
            assert_eq!(again.bytes(), &world.content[from..=to], "{what}");
            assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{what}");
        }
        world.repoxy.becomes_sound().await;
    }
}

/// Puts other bytes in a file's place, as a new file.
fn replaced(file: &Path, bytes: &[u8]) {
    std::fs::remove_file(file).expect("it is there");
    std::fs::write(file, bytes).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_flipped_bit_in_content_of_any_type_is_never_served_after_an_unclean_end() {
    flipped_is_never_served(|repoxy, file, wrong| {
        repoxy.kill();
        replaced(file, wrong);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_flipped_bit_in_content_of_any_type_is_never_served_a_week_after_it_was_read() {
    flipped_is_never_served(|repoxy, file, wrong| {
        assert!(repoxy.terminate().success());
        replaced(file, wrong);
        let file = std::fs::File::options().write(true).open(file).expect("it is there");
        let just_now = file.metadata().and_then(|found| found.modified()).expect("readable");
        let long_ago = just_now - Duration::from_hours(7 * 24 + 1);
        file.set_modified(long_ago).expect("ours");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e1_content_of_any_type_that_is_asked_for_while_gc_condemns_it_is_kept() {
    for of in &TYPES {
        let mut world = World::usual(of).await;
        world.fetched().await;
        // An operator takes every ref away, so that names are asked for anew.
        world.repoxy.kill();
        for below in [format!("type/{}/proxies", of.name), "index".to_owned()] {
            std::fs::remove_dir_all(world.repoxy.root().join(below)).expect("removable");
        }
        world.repoxy.start();
        let gc = traced(&world.repoxy, "renameat2,renameat:delay_enter=300000", &GC).spawn().expect("strace");
        // Before, between and after the steps of the run.
        for _ in 0..6 {
            world.prepare().await;
            let head = world.repoxy.head(&world.ours).await;
            assert_eq!(head.status, StatusCode::OK, "{}", of.name);
            assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let gc = finish(gc).await;
        assert!(gc.status.success(), "{}: {gc:?}", of.name);
        assert_eq!(world.origin.count("GET", &world.theirs), 1, "{}: its bytes are here", of.name);
        world.origin.stop().await;
        for _ in 0..2 {
            assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
            assert!(world.repoxy.run(&GC).status.success(), "{}", of.name);
        }
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
        world.repoxy.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_content_of_any_type_is_not_given_to_a_proxy_whose_upstream_only_knows_its_digest() {
    for of in &TYPES {
        // Everything that names the content, and not the content: whoever writes such documents learns nothing.
        let other = Origin::start().await;
        let config = of.config.replace("default = true\n", "");
        let second = format!(
            "[[proxy]]\ntype = \"{}\"\nname = \"y\"\nupstream = \"{}\"\n{}\n{config}",
            of.name,
            other.url(),
            of.asks_each_time()
        );
        let world = World::with(of, of.asks_each_time(), &second).await;
        (of.publish)(&other, &world.content);
        other.remove(&world.theirs);
        world.fetched().await;
        let of_other = |path: &str| match of.name {
            "container" => path.replacen("/v2/", "/v2/y/", 1),
            _ => path.replacen("/x/", "/y/", 1),
        };
        for path in of.before {
            assert_eq!(world.repoxy.get(&of_other(path)).await.status, StatusCode::OK, "{path}");
        }
        if of.name == "debian" {
            eventually("the other's index counts", || {
                world.listed().lines().any(|line| line.contains("debian.packages") && line.contains("\"y\""))
            })
            .await;
        }
        for (method, range) in
            [(Method::GET, None), (Method::HEAD, None), (Method::GET, Some("bytes=0-9")), (Method::GET, None)]
        {
            let headers: Vec<_> = range.into_iter().map(|range| ("range", range)).collect();
            let got = world.repoxy.request(method.clone(), &of_other(&world.ours), &headers).await;
            assert_eq!(got.status, StatusCode::NOT_FOUND, "{} {method} {range:?}", of.name);
        }
        let asked = other.count("GET", &world.theirs) + other.count("HEAD", &world.theirs);
        assert!(asked > 0, "{}: its own upstream was asked", of.name);
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_a_secret_of_any_types_proxy_is_nowhere_to_be_seen() {
    for of in &TYPES {
        let cdn = Origin::start().await;
        let ttl = of.asks_each_time();
        let host = format!("127.0.0.1:{}", cdn.port());
        let more = format!("{ttl}\nallowed_hosts = [\"{host}\"]\ncredentials = {{ token = \"{CANARY}\" }}\n");
        let world = World::with(of, &more, "[log]\nlevel = \"trace\"\n").await;
        world.document().await;
        assert!(leaked(&world.origin), "{}: it is used", of.name);
        world.prepare().await;
        // An address that is signed, one with a password in it, and trouble that repeats what it was told.
        cdn.file("/signed", "application/octet-stream", world.content.clone());
        let signed = format!("{}/signed?X-Amz-Signature={CANARY}", cdn.url());
        world.origin.on(&world.theirs).redirect(&signed).always();
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
        eventually("it is published", || world.blob().exists()).await;
        let mut shown = String::new();
        let with_user = format!("http://me:{CANARY}@127.0.0.1:{}/x", cdn.port());
        world.origin.on(of.missing.1).redirect(&with_user).once();
        world.origin.on(of.missing.1).status(500).body(CANARY).times(3);
        let realm = format!("Basic realm=\"{CANARY}\"");
        world.origin.on(of.missing.1).status(401).header("www-authenticate", &realm).always();
        for _ in 0..4 {
            let got = world.repoxy.get(of.missing.0).await;
            let body = got.body.as_deref().unwrap_or_default();
            let _ = writeln!(shown, "{:?} {}", got.headers, String::from_utf8_lossy(body));
        }
        shown += &String::from_utf8_lossy(world.repoxy.get("/-/metrics").await.bytes());
        shown += &world.listed();
        for arguments in [&["ls", "proxies"][..], &["config", "show"], &["fsck", "--json"]] {
            let output = world.repoxy.run(arguments);
            shown += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
        }
        shown += &world.repoxy.proc("cmdline");
        world.repoxy.assert_nowhere(CANARY).await;
        assert!(!shown.contains(CANARY), "{}: {shown}", of.name);
        eventually("all of it is logged", || world.repoxy.log().contains("/-/metrics")).await;
        let log = world.repoxy.log();
        assert_eq!(log.lines().find(|line| line.contains(CANARY)), None, "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s30_what_never_changes_keeps_its_bytes_whatever_upstream_has_later() {
    for of in &TYPES {
        let mut world = World::usual(of).await;
        world.fetched().await;
        let asked = world.origin.count("GET", &world.theirs);
        // The same name, other bytes; and where a document of upstream's alone says what they are, it says so now.
        let other = Bytes::from(vec![7; MIB]);
        match of.name {
            "tf" | "generic" => (of.publish)(&world.origin, &other),
            _ => drop(world.origin.file(&world.theirs, "application/octet-stream", other.clone())),
        }
        for restarted in [false, true] {
            if restarted {
                world.repoxy.kill();
                world.repoxy.start();
            }
            let got = world.repoxy.get(&world.ours).await;
            if of.name == "tf" {
                // The sums that were signed when the version came do not have it: somebody should know.
                assert_eq!(got.status, StatusCode::BAD_GATEWAY);
                let sentence = "the signed sums do not have the download document's sum";
                assert!(String::from_utf8_lossy(got.bytes()).contains(sentence), "{:?}", got.status);
                eventually("it is logged", || world.repoxy.log().contains(sentence)).await;
            } else {
                assert!(got.bytes() == &world.content, "{}, restarted: {restarted}", of.name);
            }
        }
        (of.publish)(&world.origin, &world.content);
        assert!(world.repoxy.get(&world.ours).await.bytes() == &world.content, "{}: it was kept", of.name);
        assert_eq!(world.origin.count("GET", &world.theirs), asked, "{}: nor was it asked for", of.name);
    }
}

/// A provider's package whose members are named so as to lead out of wherever it is unpacked, one of them by way
/// of a link.
fn leading_out() -> Bytes {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for name in ["../../../../evil", "..\\..\\evil", "/tmp/repoxy-evil/evil", "link/evil"] {
        zip.start_file(name, options).expect("memory");
        zip.write_all(b"evil").expect("memory");
    }
    zip.add_symlink("link", "/tmp/repoxy-evil", options).expect("memory");
    zip.finish().expect("memory").into_inner().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn s35_members_of_a_package_that_lead_out_are_read_and_never_written() {
    let tf = TYPES.iter().find(|of| of.name == "tf").expect("it is there");
    let world = World::new(tf, "ttl = \"1h\"\nns = [\"registry.test\"]").await;
    let zip = leading_out();
    for name in ["../../../../evil", "/tmp/repoxy-evil/evil"] {
        assert!(zip.windows(name.len()).any(|part| part == name.as_bytes()), "{name} is in it as it is");
    }
    publish_provider(&world.origin, &zip, "/files/demo.zip", "/files/SHA256SUMS");
    let mirror = "/tf/x/mirror/registry.test/a/demo";
    let package = format!("{mirror}/terraform-provider-demo_1.0.0_linux_amd64.zip");
    assert_eq!(world.repoxy.get(&package).await.bytes(), &zip, "it comes as it is");
    // It is read for its hash once somebody could use that.
    let facts = || {
        let files = world.repoxy.files("type/tf/proxies/x/meta");
        files.iter().any(|file| file.ends_with("hashes/linux_amd64.json"))
    };
    for _ in 0..1000 {
        assert_eq!(world.repoxy.get(&format!("{mirror}/1.0.0.json")).await.status, StatusCode::OK);
        if facts() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(facts(), "it was read");
    assert!(!Path::new("/tmp/repoxy-evil").exists());
    let named_so = |file: &std::path::PathBuf| file.to_string_lossy().contains("evil");
    let place = world.repoxy.dir().parent().expect("a directory for all");
    let beside = std::fs::read_dir(place).expect("readable").flatten().map(|entry| entry.path());
    assert_eq!(world.repoxy.files("").into_iter().chain(beside).find(named_so), None);
}
