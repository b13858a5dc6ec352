//! Files that are deleted, damaged or exchanged under an open index.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use super::*;

const TAG: &str = "container/hub/refs/library/app/tags/1";
const PAGE: u64 = 4096;

/// An index of a few hundred pages, all of them in the database file.
fn filled(dir: &Path) -> Handle {
    let handle = Handle::open(Some(dir.to_path_buf()), Options::default());
    let index = handle.get().expect("open");
    let records: Vec<_> = (0..2_000).map(|n| record(&format!("container/hub/refs/a/tags/{n}"), n)).collect();
    index.record(&records).expect("record");
    index.record(&[record(TAG, 1)]).expect("record");
    let generation = index.begin_generation().expect("begin");
    index.record(&records).expect("record");
    index.record(&[record(TAG, 1)]).expect("record");
    index.end_generation(generation).expect("end");
    let raw = rusqlite::Connection::open(dir.join("index.db")).expect("opens");
    let busy: i64 =
        raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("checkpoint");
    assert_eq!(busy, 0, "all pages are in the file");
    assert_eq!(handle.tick(), Notice::Nothing);
    handle
}

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("index.db")
}

fn asides(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("text")).collect();
    names.retain(|name| name.contains(".corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(bytes, offset).expect("written");
}

/// What every exchange must end in: a fresh index that takes records, and asks for a rebuild.
fn assert_fresh(handle: &Handle) {
    let index = handle.get().expect("there is one again");
    assert!(!index.is_complete());
    assert_eq!(index.count().expect("count"), 0);
    index.record(&[record(TAG, 1)]).expect("record");
    assert_eq!(handle.tick(), Notice::Nothing);
    index.verify().expect("sound");
}

#[test]
fn files_are_made_for_the_owner_and_the_group_to_read() {
    let dir = TempDir::new().expect("directory");
    let inner = dir.path().join("a/index");
    let (_index, opened) = Index::open(&inner).expect("opens");
    assert_eq!(opened, Opened::Fresh);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&inner) & 0o007, 0);
    assert_eq!(mode(&inner.join("index.db")) & 0o137, 0);
}

#[test]
fn a_deleted_index_is_noticed_and_made_again() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    let (before, old) = (handle.changes(), handle.get().expect("open"));
    for part in ["", "-wal", "-shm"] {
        fs::remove_file(dir.path().join(format!("index.db{part}"))).expect("removed");
    }
    assert!(old.lookup(&key(TAG)).expect("no error while nobody knows").is_some());
    assert_eq!(old.check(), Health::Missing);
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert!(handle.changes() > before);
    assert_fresh(&handle);
    drop(old);
    handle.get().expect("open").verify().expect("closing the old one does the new one no harm");
    assert_eq!(asides(dir.path()), [""; 0]);
}

#[test]
fn a_log_whose_database_was_deleted_is_not_read_into_the_new_one() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    handle.get().expect("open").record(&[record("container/hub/refs/late", 1)]).expect("record");
    fs::remove_file(database(&dir)).expect("removed");
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert_fresh(&handle);
}

/// Puts a copy of a complete index in the place of one, with its log left where it is.
fn replace_by_a_copy(dir: &TempDir) {
    let copy = dir.path().join("copy");
    let raw = rusqlite::Connection::open(database(dir)).expect("opens");
    raw.execute("VACUUM INTO ?1", [copy.to_str().expect("text")]).expect("copied");
    fs::rename(copy, database(dir)).expect("replaced");
}

#[test]
fn another_index_in_its_place_is_not_believed_but_made_again() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    let (before, old) = (handle.changes(), handle.get().expect("open"));
    replace_by_a_copy(&dir);
    assert_eq!(old.check(), Health::Replaced);
    assert!(matches!(Index::open_existing(dir.path()), Err(IndexError::Damaged(_))), "nor by who only looks");
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert!(handle.changes() > before);
    assert_eq!(asides(dir.path()).len(), 1, "for somebody to look at");
    assert_fresh(&handle);
}

#[test]
fn another_index_that_is_there_at_the_start_is_not_believed_but_made_again() {
    let dir = TempDir::new().expect("directory");
    drop(filled(dir.path()));
    replace_by_a_copy(&dir);
    assert_fresh(&Handle::open(Some(dir.path().to_owned()), Options::default()));
    assert_eq!(asides(dir.path()).len(), 1);
}

#[test]
fn upkeep_has_connections_beside_those_of_workers_but_none_to_another_file() {
    let (dir, other) = (TempDir::new().expect("directory"), TempDir::new().expect("directory"));
    let one = Options { readers: 1, ..Options::default() };
    for replaced in [false, true] {
        let (index, _) = Index::open_with(dir.path(), &one).expect("opens");
        index.record(&[record(TAG, 1)]).expect("record");
        if replaced {
            open(other.path()).record(&[record(TAG, 2)]).expect("record");
            for part in ["", "-wal", "-shm"] {
                let name = format!("index.db{part}");
                fs::rename(other.path().join(&name), dir.path().join(&name)).expect("replaced");
            }
        }
        // Two were opened at first, the third is opened while they are in use.
        let third = index.read(|_| index.read(|_| index.lookup(&key(TAG))));
        match third {
            Ok(found) => assert!(!replaced && found == Some(reference(1)), "{found:?}"),
            Err(error) => assert!(replaced && matches!(error, IndexError::Pool(_)), "{error:?}"),
        }
    }
}

#[test]
fn an_index_that_was_moved_away_and_comes_back_is_not_believed_but_made_again() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    fs::rename(database(&dir), dir.path().join("old")).expect("moved");
    assert_eq!(handle.tick(), Notice::Rebuild);
    let generation = handle.get().expect("open").begin_generation().expect("begin");
    handle.get().expect("open").end_generation(generation).expect("end");
    fs::rename(dir.path().join("old"), database(&dir)).expect("moved back");
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert_fresh(&handle);
}

#[test]
fn an_index_that_another_process_has_made_again_and_completed_is_taken_as_it_is() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    fs::remove_file(database(&dir)).expect("removed");
    drop(filled(dir.path()));
    assert_eq!(handle.tick(), Notice::Changed);
    assert_eq!(handle.get().expect("open").count().expect("count"), 2_001);
    assert_eq!(handle.tick(), Notice::Nothing);
}

#[test]
fn an_index_cut_to_nothing_is_set_aside() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    let old = handle.get().expect("open");
    fs::OpenOptions::new().write(true).open(database(&dir)).expect("opens").set_len(0).expect("cut");
    assert_eq!(old.check(), Health::Damaged);
    assert!(handle.get().is_none(), "nobody asks it any more, the files answer");
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert_eq!(asides(dir.path()).len(), 1);
    assert_fresh(&handle);
}

#[test]
fn a_garbage_header_is_noticed_while_pages_are_still_cached() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    write_at(&database(&dir), 0, &[0xA5; 100]);
    assert_eq!(handle.tick(), Notice::Rebuild);
    assert_eq!(asides(dir.path()).len(), 1);
    assert_fresh(&handle);
}

#[test]
fn overwritten_pages_are_damage_when_they_are_met_and_never_a_wrong_answer() {
    // With the roots of the trees among them it is met at once, else when somebody reads there.
    for (first, at_once) in [(1, true), (20, false)] {
        let dir = TempDir::new().expect("directory");
        drop(filled(dir.path()));
        let pages = fs::metadata(database(&dir)).expect("there").len() / PAGE;
        assert!(pages > 100, "{pages}");
        // Twenty, the same ones on every run, all over the file.
        for number in 0..20 {
            let page = first + (number * 7_919) % (pages - first);
            let garbage: Vec<u8> =
                (0..PAGE).map(|at| Digest::of(&(page + at).to_be_bytes()).as_bytes()[0]).collect();
            write_at(&database(&dir), page * PAGE, &garbage);
        }
        let handle = Handle::open(Some(dir.path().to_owned()), Options::default());
        assert_eq!(asides(dir.path()).len(), usize::from(at_once));
        if !at_once {
            let index = handle.get().expect("the roots are whole");
            let mut met = 0;
            for number in 0..2_000 {
                match index.lookup(&key(&format!("container/hub/refs/a/tags/{number}"))) {
                    Ok(found) => assert_eq!(found, Some(reference(number))),
                    Err(error) => {
                        assert!(matches!(error, IndexError::Damaged(_)), "{error:?}");
                        met += 1;
                    }
                }
            }
            assert!((1..2_000).contains(&met), "{met}");
            assert!(index.verify().is_err());
            assert!(handle.get().is_none(), "nobody asks it any more, the files answer");
            assert_eq!(handle.tick(), Notice::Rebuild);
            assert_eq!(asides(dir.path()).len(), 1);
        }
        assert_fresh(&handle);
    }
}

#[test]
fn what_is_no_index_is_set_aside_when_it_is_opened() {
    // The very file that was made here.
    let made = |dir: &Path| {
        let held = super::super::files::Directory::hold(dir).expect("held");
        held.make_database().expect("made");
        held.database()
    };
    let foreign = |dir: &Path| {
        let other = rusqlite::Connection::open(made(dir)).expect("opens");
        other.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").expect("filled");
    };
    let newer = |dir: &Path| {
        drop(open(dir));
        let raw = rusqlite::Connection::open(dir.join("index.db")).expect("opens");
        raw.pragma_update(None, "user_version", 999).expect("set");
    };
    let text = |dir: &Path| {
        fs::write(made(dir), "not a database at all\n".repeat(100)).expect("written");
    };
    let empty = |dir: &Path| drop(made(dir));
    let makers: [&dyn Fn(&Path); 4] = [&foreign, &newer, &text, &empty];
    for make in makers {
        let dir = TempDir::new().expect("directory");
        make(dir.path());
        let bytes = fs::read(dir.path().join("index.db")).expect("read");
        let (index, opened) = Index::open(dir.path()).expect("opens");
        let Opened::SetAside(aside) = opened else { panic!("{opened:?}") };
        assert_eq!(fs::read(aside).expect("kept"), bytes, "as it was found");
        index.record(&[record(TAG, 1)]).expect("record");
    }
}

#[test]
fn three_damaged_files_are_kept() {
    let dir = TempDir::new().expect("directory");
    let mut seen = Vec::new();
    // Some too short to be a database, some not.
    for (number, length) in [1, 1_000, 1, 1_000, 1].into_iter().enumerate() {
        fs::write(database(&dir), format!("damaged {number}").repeat(length)).expect("written");
        fs::write(dir.path().join("index.db-wal"), "log").expect("written");
        let Opened::SetAside(aside) = Index::open(dir.path()).expect("opens").1 else { panic!("set aside") };
        seen.push(aside.file_name().expect("named").to_str().expect("text").to_owned());
        fs::remove_file(database(&dir)).expect("removed");
    }
    assert_eq!(asides(dir.path()), seen[2..]);
    let logs = fs::read_dir(dir.path()).expect("listed").filter(|entry| {
        let name = entry.as_ref().expect("entry").file_name();
        let name = name.to_str().expect("text");
        name.contains(".corrupt-") && name.ends_with("-wal")
    });
    assert_eq!(logs.count(), 3, "each with its log");
}

#[test]
fn of_two_that_find_the_same_damage_one_sets_it_aside_and_both_go_on_in_the_new_file() {
    let dir = TempDir::new().expect("directory");
    let server = filled(dir.path());
    let cli = Handle::open(Some(dir.path().to_owned()), Options::default());
    write_at(&database(&dir), 0, &[0xA5; 100]);
    assert_eq!(server.tick(), Notice::Rebuild);
    server.get().expect("open").record(&[record(TAG, 1)]).expect("record");
    assert_eq!(cli.tick(), Notice::Rebuild, "it is in another file and not complete yet");
    assert!(cli.get().expect("open").lookup(&key(TAG)).expect("lookup").is_some());
    assert_eq!(asides(dir.path()).len(), 1);
}

#[test]
fn removals_of_another_process_are_noticed_once() {
    let dir = TempDir::new().expect("directory");
    let handle = filled(dir.path());
    let before = handle.changes();
    open(dir.path()).forget(&[key(TAG)]).expect("forget");
    assert_eq!(handle.tick(), Notice::Changed);
    assert_eq!(handle.tick(), Notice::Nothing);
    assert_eq!(handle.changes(), before + 1);
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_and_no_panic() {
    let dir = TempDir::new().expect("directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    assert!(matches!(Index::open(&file), Err(IndexError::Io { .. })));
    let handle = Handle::open(Some(file.clone()), Options::default());
    assert!(handle.get().is_none());
    fs::remove_file(&file).expect("removed");
    assert_eq!(handle.tick(), Notice::Rebuild, "it goes on trying");
    assert!(handle.get().is_some());
}
