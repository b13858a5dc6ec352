//! What only files can get wrong: symlinks, FIFOs, modes, dead owners, directories that come and go.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;

struct Home {
    dir: TempDir,
    local: Local,
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("a directory");
    let local = Local::create(&dir.path().join("root")).expect("a root");
    Home { dir, local }
}

impl Home {
    fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(at(path).as_str())
    }

    /// Puts a file there by hand.
    fn plant(&self, path: &str, bytes: &[u8]) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(file, bytes).expect("written");
    }

    /// Every file there is below the staging directory, lock files apart.
    fn staged(&self) -> Vec<PathBuf> {
        let files = WalkFiles::below(&self.file("tmp"));
        files.into_iter().filter(|file| !file.ends_with(".alive")).collect()
    }

    fn put(&self, path: &str, bytes: &'static [u8]) -> Result<(), StoreError> {
        self.local.0.put(&at(path), &at("tmp"), Bytes::from_static(bytes), true).map(|_| ())
    }
}

struct WalkFiles;

impl WalkFiles {
    fn below(dir: &Path) -> Vec<PathBuf> {
        let entries = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
        entries.filter(|entry| !entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
    }
}

fn at(path: &str) -> ObjectPath {
    ObjectPath::new(format!("type/generic/proxies/p/{path}"))
}

fn list(local: &Local, folder: &str, read: Option<u64>) -> Vec<crate::store::Entry> {
    try_list(local, folder, read).into_iter().map(|entry| entry.expect("listed")).collect()
}

fn try_list(local: &Local, folder: &str, read: Option<u64>) -> Vec<Result<crate::store::Entry, StoreError>> {
    let (mut lister, mut all) = (local.list(&at(folder), read), Vec::new());
    while let Some(part) = lister.next_part() {
        part.read(&mut |entry| {
            all.push(entry);
            ControlFlow::Continue(())
        });
    }
    all
}

#[test]
fn what_moves_to_another_name_while_a_listing_waits_to_be_read_is_not_missed() {
    let home = home();
    for n in 0..3 {
        home.plant(&format!("refs/{n}.json"), b"x");
    }
    let mut lister = home.local.list(&at("refs"), Some(9));
    let part = lister.next_part().expect("the names are read");
    fs::rename(home.file("refs/1.json"), home.file("refs/9.json")).expect("moved");
    let mut found = BTreeSet::new();
    part.read(&mut |entry| {
        found.insert(entry.expect("listed").path);
        ControlFlow::Continue(())
    });
    assert!(lister.next_part().is_none());
    assert_eq!(found, ["0.json", "2.json", "9.json"].map(|name| at(&format!("refs/{name}"))).into());
}

#[test]
fn nothing_is_readable_by_others_and_a_root_that_others_may_write_is_refused() {
    let home = home();
    home.put("refs/a/b", b"x").expect("put");
    for path in ["", "refs", "refs/a", "refs/a/b", "tmp"] {
        let path = if path.is_empty() { home.dir.path().join("root") } else { home.file(path) };
        let meta = fs::metadata(&path).expect("there");
        let allowed = if meta.is_dir() { 0o750 } else { 0o640 };
        assert_eq!(meta.permissions().mode() & 0o777 & !allowed, 0, "{path:?}");
    }
    let root = home.dir.path().join("root");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("changed");
    let error = Local::open(&root).expect_err("refused").to_string();
    assert!(error.contains("chmod o-w"), "{error}");
}

#[test]
fn parts_of_a_root_on_different_file_systems_are_refused() {
    let top = Local::open(Path::new("/")).expect("opened");
    let dirs = ["none", "proc", "dev"].map(|dir| ObjectPath::new(dir.into()));
    let error = top.same_file_system(&dirs).expect_err("two file systems").to_string();
    assert!(error.contains("`dev` is on another file system than `proc`"), "{error}");
    top.same_file_system(&dirs[..2]).expect("one file system");
}

#[test]
fn what_is_no_regular_file_is_absent_and_does_not_hang() {
    let home = home();
    home.plant("refs/secret", b"secret");
    symlink(home.file("refs/secret"), home.file("refs/link")).expect("linked");
    symlink("secret", home.file("refs/near")).expect("linked");
    symlink("nowhere", home.file("refs/dangling")).expect("linked");
    symlink(home.file("refs"), home.file("around")).expect("linked");
    fs::create_dir(home.file("refs/dir")).expect("made");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, home.file("refs/fifo"), fifo, FILE_MODE, 0).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(home.file("refs/socket")).expect("bound");
    for path in
        ["refs/link", "refs/near", "refs/dangling", "refs/dir", "refs/fifo", "refs/socket", "around/secret"]
    {
        assert!(home.local.open_now(&at(path)).expect(path).is_none(), "{path}");
    }
    assert!(home.local.open_now(&at("refs/secret")).expect("open").is_some());
}

#[test]
fn a_listing_shows_what_is_no_object_and_never_follows_a_symlink() {
    let home = home();
    home.plant("refs/a.json", b"{}");
    home.plant("outside/b.json", b"{}");
    symlink(home.file("outside"), home.file("refs/link")).expect("linked");
    symlink("a.json", home.file("refs/link.json")).expect("linked");
    fs::write(home.file("refs").join(std::ffi::OsStr::from_bytes(b"\xff.json")), b"{}").expect("written");
    fs::create_dir(home.file("refs/dir.json")).expect("made");

    for read in [None, Some(10)] {
        let entries = list(&home.local, "refs", read);
        let found: BTreeSet<_> = entries
            .iter()
            .map(|entry| (entry.path.as_str().rsplit('/').next().expect("a name"), entry.stat.regular))
            .collect();
        let expected = [
            ("a.json", true),
            ("dir.json", false),
            ("link", false),
            ("link.json", false),
            ("\u{fffd}.json", false),
        ];
        assert_eq!(found, BTreeSet::from(expected));
        assert_eq!(
            entries.iter().filter(|entry| entry.content.is_some()).count(),
            usize::from(read.is_some())
        );
    }

    symlink(home.file("outside"), home.file("meta")).expect("linked");
    let listed = try_list(&home.local, "meta", None);
    assert!(matches!(listed[..], [Err(_)]), "a symlink in the folder's place");
}

#[test]
fn no_symlink_leads_a_write_out_of_the_root() {
    let home = home();
    let outside = home.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    home.plant("refs/x", b"x");
    symlink(&outside, home.file("refs/out")).expect("linked");
    home.put("refs/out/a", b"evil").expect_err("refused");
    let shifted = home.local.0.shift(&at("refs/x"), &at("refs/out/a"));
    shifted.expect_err("refused");
    home.local.0.link(&at("refs/x"), &at("refs/out/a")).expect_err("refused");
    assert!(!home.local.0.delete(&at("refs/out/a")).expect("absent"));
    fs::remove_dir_all(home.file("tmp")).expect("removed");
    symlink(&outside, home.file("tmp")).expect("linked");
    home.put("refs/a", b"evil").expect_err("refused");
    assert_eq!(WalkFiles::below(&outside), Vec::<PathBuf>::new());

    // A symlink in the file's own place is replaced, and what it pointed at is not.
    fs::remove_file(home.file("tmp")).expect("removed");
    fs::write(outside.join("target"), b"old").expect("written");
    symlink(outside.join("target"), home.file("refs/a")).expect("linked");
    home.put("refs/a", b"new").expect("put");
    assert_eq!(fs::read(home.file("refs/a")).expect("a file"), b"new");
    assert_eq!(fs::read(outside.join("target")).expect("a file"), b"old");
}

#[test]
fn an_error_on_the_way_leaves_nothing_visible_and_nothing_staged() {
    let home = home();
    home.plant("refs/file", b"in the way");
    home.put("refs/file/below", b"x").expect_err("a file is no directory");
    fs::create_dir_all(home.file("refs/dir")).expect("made");
    home.put("refs/dir", b"x").expect_err("a directory is in the way");
    let mut upload = home.local.0.create(&at("tmp"), None).expect("started");
    upload.append(&[Bytes::from_static(b"x")]).expect("appended");
    upload.publish_now(&at("refs/file/blob")).expect_err("a file is no directory");
    assert_eq!(home.staged(), Vec::<PathBuf>::new());
    assert_eq!(WalkFiles::below(&home.file("refs")), [home.file("refs/file")]);
}

#[test]
fn a_file_that_was_cut_behind_our_back_is_not_published() {
    let home = home();
    let mut upload = home.local.0.create(&at("tmp"), None).expect("started");
    upload.append(&[Bytes::from_static(b"0123456789")]).expect("appended");
    let staged = home.staged().pop().expect("staged");
    fs::OpenOptions::new().write(true).open(staged).and_then(|file| file.set_len(4)).expect("cut");
    let published = upload.publish_now(&at("blobs/x"));
    assert!(matches!(published, Err(StoreError::Length { actual: 4, expected: 10 })), "{published:?}");
    assert!(!home.file("blobs/x").exists() && home.staged().is_empty());
}

#[test]
fn a_symlink_in_a_blobs_place_gives_way_to_the_blob() {
    let home = home();
    home.plant("secret", b"other");
    fs::create_dir_all(home.file("blobs")).expect("made");
    symlink(home.file("secret"), home.file("blobs/x")).expect("linked");
    let mut upload = home.local.0.create(&at("tmp"), None).expect("started");
    upload.append(&[Bytes::from_static(b"bytes")]).expect("appended");
    upload.publish_now(&at("blobs/x")).expect("published");
    assert!(fs::symlink_metadata(home.file("blobs/x")).expect("there").is_file());
    assert_eq!(fs::read(home.file("secret")).expect("there"), b"other");
}

#[test]
fn quarantine_takes_what_is_not_a_file_too() {
    let home = home();
    fs::create_dir_all(home.file("blobs/x")).expect("made");
    assert!(home.local.0.quarantine(&at("blobs/x"), &at("quarantine/x"), None).expect("moved"));
    assert!(home.file("quarantine/x").is_dir() && !home.file("blobs").join("x").exists());
}

#[test]
fn many_pieces_are_written_in_order() {
    let home = home();
    let mut upload = home.local.0.create(&at("tmp"), None).expect("started");
    let pieces: Vec<_> =
        (0..3000_u16).map(|n| Bytes::from(n.to_le_bytes()[..usize::from(n % 3)].to_vec())).collect();
    upload.append(&pieces).expect("appended");
    upload.append(&[]).expect("nothing appended");
    let blob = upload.publish_now(&at("blobs/x")).expect("published");
    assert_eq!(blob.read_at(0, usize::MAX).expect("read"), pieces.concat());
}

#[test]
fn directories_that_became_empty_go_but_those_of_the_layout_stay() {
    let home = home();
    home.put("refs/a/b/c", b"x").expect("put");
    home.put("refs/a/d", b"x").expect("put");
    assert!(home.local.0.delete(&at("refs/a/b/c")).expect("deleted"));
    assert!(home.file("refs/a").exists() && !home.file("refs/a/b").exists());
    assert!(home.local.0.delete(&at("refs/a/d")).expect("deleted"));
    assert!(home.file("refs").exists() && !home.file("refs/a").exists());
}

#[test]
fn nothing_that_was_written_is_lost_to_others_who_prune() {
    let home = home();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let files = &home.local.0;
            scope.spawn(move || {
                for _ in 0..100 {
                    let path = at(&format!("refs/a/b/{n}"));
                    // Three tries may all meet somebody who prunes: an error, but never a lost file.
                    match files.put(&path, &at("tmp"), Bytes::from_static(b"x"), true) {
                        Ok(written) => assert!(written && files.delete(&path).expect("deleted")),
                        Err(error) => assert!(error.to_string().contains(path.as_str()), "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(home.staged(), Vec::<PathBuf>::new());
    assert!(home.file("refs").exists() && !home.file("refs/a").exists());
}

#[test]
fn the_staging_of_the_dead_is_counted_and_removed_and_that_of_others_stays() {
    let home = home();
    home.plant("tmp/01DEAD/0.part", b"12345");
    home.plant("tmp/01DEAD/.alive", b"");
    home.plant("tmp/01HALF/1.part", b"678");
    fs::create_dir_all(home.file("tmp/01EMPTY")).expect("made");
    let other = Local::open(&home.dir.path().join("root")).expect("opened");
    let upload = other.0.create(&at("tmp"), None).expect("started");
    let reap = |dry_run| {
        staging::reap(&home.local.0.root, at("tmp").as_str(), Timestamp::MAX, dry_run).expect("reaped")
    };

    assert_eq!(reap(true), (2, 8));
    assert!(home.file("tmp/01DEAD/0.part").exists() && !home.file("tmp/01HALF/.alive").exists());
    assert_eq!(reap(false), (2, 8));
    assert_eq!(fs::read_dir(home.file("tmp")).expect("there").count(), 1);
    assert_eq!(home.staged().len(), 1, "the other's is alive");
    assert_eq!(reap(false), (0, 0));

    drop(upload);
    drop(other);
    assert_eq!(fs::read_dir(home.file("tmp")).expect("there").count(), 0, "who leaves cleans up");
}

#[test]
fn what_is_left_is_what_was_written_and_the_longest_of_it_stays() {
    let home = home();
    let left = at("tmp/partial/x");
    let leave = |pieces: usize| {
        let mut upload = home.local.0.create(&at("tmp"), Some(left.clone())).expect("started");
        // As if it had not been there yet when this one started.
        for _ in 0..pieces {
            upload.append(&[vec![7; 1 << 20].into()]).expect("written");
        }
        upload
    };
    let (mut long, mut short, mut tiny) = (leave(9), leave(3), leave(0));
    assert_eq!((tiny.leave(), long.leave(), short.leave()), (0, 9 << 20, 0));
    drop((long, short, tiny));
    assert_eq!(home.staged(), [home.file("tmp/partial/x")]);
    let used = fs::metadata(home.file("tmp/partial/x")).expect("there").blocks() * 512;
    assert!(used <= (9 << 20) + (256 << 10), "what was reserved is given back: {used}");
}

#[test]
fn what_lies_in_the_place_of_what_was_left_and_is_no_file_of_ours_is_not_gone_on_with() {
    let home = home();
    let outside = home.dir.path().join("outside");
    fs::write(&outside, vec![7; 2 << 20]).expect("written");
    let partial = home.file("tmp/partial/x");
    let plant: [&dyn Fn(); 3] = [
        &|| symlink(&outside, &partial).expect("linked"),
        &|| fs::hard_link(&outside, &partial).expect("linked"),
        &|| fs::create_dir(&partial).expect("made"),
    ];
    for (number, plant) in plant.iter().enumerate() {
        fs::create_dir_all(home.file("tmp/partial")).expect("made");
        plant();
        let left = at("tmp/partial/x");
        assert!(home.local.0.take_up(&at("tmp"), &left).is_none(), "{number}");
        let mut upload = home.local.0.create(&at("tmp"), Some(left)).expect("started");
        upload.append(&[Bytes::from_static(b"x")]).expect("written");
        upload.publish_now(&at(&format!("blobs/{number}"))).expect("published");
        assert_eq!(fs::metadata(&outside).expect("there").len(), 2 << 20, "{number}");
    }
}

/// Tells another thread to stop, also when this one panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn writers_and_reapers_at_once_do_each_other_no_harm() {
    let home = home();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                staging::reap(&home.local.0.root, at("tmp").as_str(), Timestamp::MAX, false).expect("reaped");
            }
        });
        let _stop = StopOnDrop(&done);
        for n in 0..200 {
            // A store each time, so that a staging directory is made each time.
            let local = Local::open(&home.dir.path().join("root")).expect("opened");
            let put = local.0.put(&at(&format!("refs/{n}")), &at("tmp"), Bytes::from_static(b"x"), true);
            put.expect("put");
        }
    });
    assert_eq!(WalkFiles::below(&home.file("refs")).len(), 200);
}

#[test]
fn a_directory_that_changes_while_it_is_listed_is_listed_whole_and_once() {
    let home = home();
    let paths: Vec<_> = (0..60).map(|n| format!("refs/{n}")).collect();
    for path in &paths {
        home.put(path, b"x").expect("put");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..60).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                home.put(&format!("refs/{n}"), b"y").expect("put");
            }
        });
        let _stop = StopOnDrop(&done);
        for _ in 0..50 {
            let listed = list(&home.local, "refs", Some(10));
            let names: BTreeSet<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!((listed.len(), names.len()), (60, 60), "each once");
        }
    });
}

#[test]
fn staging_that_was_removed_by_hand_is_made_again() {
    let home = home();
    home.put("refs/a", b"x").expect("put");
    fs::remove_dir_all(home.file("tmp")).expect("removed");
    home.put("refs/b", b"x").expect("put");
    assert!(home.file("refs/b").exists());
}

#[test]
fn what_was_reserved_and_is_not_needed_is_given_back_when_a_file_is_published() {
    let home = home();
    let mut upload = home.local.0.create(&at("tmp"), None).expect("started");
    let piece = Bytes::from(vec![7; 1 << 20]);
    for _ in 0..9 {
        upload.append(std::slice::from_ref(&piece)).expect("written");
    }
    let blob = upload.publish_now(&at("blobs/x")).expect("published");
    assert_eq!(blob.current_size().expect("stat"), 9 << 20);
    let used = fs::metadata(home.file("blobs/x")).expect("there").blocks() * 512;
    assert!(used <= (9 << 20) + (256 << 10), "{used}");
}
