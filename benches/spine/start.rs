//! Starting and idling with many refs, and the binary's size.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::common::book::Goal;
use crate::common::group::in_turn;
use crate::common::process::Server;
use crate::common::{Item, MIB, Outcome, check, milliseconds};
use crate::content::{self, Content};
use crate::origin::{Link, Origin};
use crate::peers::Peer;
use crate::rows::{Bench, Book};

/// Those that are started.
pub(crate) const STARTED: &[Peer] = &[Peer::Repoxy, Peer::NginxStatic, Peer::Registry];
/// How long a started server is left alone before its idle memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Until the first hit.
const FIRST_HIT: Goal<Peer> = Goal::Limit(100.0);

/// Each in turn, with many refs where that is ours.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let origin = bench.origin(Link::QUICK)?;
    let directory = bench.yard.fresh("peer")?;
    // Started once, so that the root is there as repoxy makes it.
    drop(bench.yard.repoxy(&directory, origin.address, "/-/ready")?);
    let path = write_refs(&directory.join("root"), &bench.content, bench.scale.refs)?;
    for round in 0..bench.scale.rounds {
        for peer in in_turn(STARTED, round) {
            if *peer == Peer::Repoxy {
                ours(bench, book, &origin, &directory, &path)?;
                continue;
            }
            let tenant = bench.start(*peer, &origin)?;
            let Some(server) = &tenant.server else { continue };
            note_first(book, *peer, server);
            note_idle(book, *peer, server)?;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a file's size")]
    let size = fs::metadata(&bench.yard.binary)?.len() as f64 / MIB as f64;
    book.note("binary, stripped", "MiB", Goal::Limit(25.0), Peer::Repoxy, size);
    Ok(())
}

/// repoxy on the root in `directory`, without an index and with one.
fn ours(bench: &Bench, book: &mut Book, origin: &Origin, directory: &Path, path: &str) -> Outcome<()> {
    let index = directory.join("root/index");
    if index.exists() {
        fs::remove_dir_all(&index)?;
    }
    let server = bench.yard.repoxy(directory, origin.address, path)?;
    let first = milliseconds(server.started.elapsed());
    book.note("start to first hit, 100,000 refs, no index", "ms", FIRST_HIT, Peer::Repoxy, first);
    let item = Item { path: path.to_owned(), ..bench.content.tag.clone() };
    check(server.address, &[&item])?;
    drop(server);
    reindex(&bench.yard.binary, directory)?;
    let server = bench.yard.repoxy(directory, origin.address, path)?;
    note_first(book, Peer::Repoxy, &server);
    check(server.address, &[&item])?;
    note_idle(book, Peer::Repoxy, &server)
}

/// Notes how long one took that is ready just now.
fn note_first(book: &mut Book, peer: Peer, server: &Server) {
    let first = milliseconds(server.started.elapsed());
    book.note("start to first hit, 100,000 refs", "ms", FIRST_HIT, peer, first);
}

/// Notes what one takes when it is left alone.
fn note_idle(book: &mut Book, peer: Peer, server: &Server) -> Outcome<()> {
    thread::sleep(SETTLE);
    let idle = server.memory()?.resident;
    book.note("idle memory, 100,000 refs", "MiB", Goal::Limit(15.0), peer, idle);
    Ok(())
}

/// Writes refs by hand, a hundred tags a repository, all pointing at one manifest; returns the request
/// path of one of them, which upstream does not have.
fn write_refs(root: &Path, content: &Content, count: u64) -> Outcome<String> {
    let container = root.join("type/container");
    let Item { path, size, digest } = &content.tag;
    let blob = container.join("blobs/sha256").join(&digest[..2]).join(&digest[2..4]);
    fs::create_dir_all(&blob)?;
    fs::copy(content.directory.join(path.trim_start_matches('/')), blob.join(digest))?;
    let reference = serde_json::to_vec(&json!({
        "kind": "container.tag",
        "targetDigest": format!("sha256:{digest}"),
        "mediaType": content::MANIFEST,
        "size": size,
        "upstream": "registry.example.org",
        "fetchedAt": "2025-11-09T12:34:56Z",
    }))?;
    for number in 0..count {
        let tags = container.join(format!("proxies/hub/refs/filled/r{}/tags", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&tags)?;
        }
        fs::write(tags.join(format!("t{}.json", number % 100)), &reference)?;
    }
    Ok("/v2/filled/r0/manifests/t7".to_owned())
}

/// Rebuilds the index while no server runs.
fn reindex(binary: &Path, directory: &Path) -> Outcome<()> {
    let done =
        Command::new(binary).args(["reindex", "--config"]).arg(directory.join("repoxy.toml")).output()?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("reindex: {}", String::from_utf8_lossy(&done.stderr)).into())
    }
}
