//! What a connection is set to, and how an older file becomes one of today.
//!
//! Each file in `migrations/` is one step, applied in one transaction with the new `user_version`,
//! so a crash leaves either schema and nothing between. A step whose new columns only the files can
//! fill sets `complete` to 0 and leaves the rest to a rebuild.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result, TransactionBehavior, config::DbConfig};

use super::IndexError;
use super::error::damage;

/// The steps, in order; the schema version is how many were applied.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_refs.sql"),
    include_str!("../../migrations/0002_http.sql"),
    include_str!("../../migrations/0003_link_sizes.sql"),
    include_str!("../../migrations/0004_lists.sql"),
    include_str!("../../migrations/0005_forgets.sql"),
    include_str!("../../migrations/0006_replaced.sql"),
];

/// The first version whose file is noted when it is made.
const NOTED_SINCE: i64 = 6;

/// Marks a SQLite file as ours ("rpxy").
const APPLICATION_ID: i64 = 0x7270_7879;

/// Prepared statements that a connection keeps. There are about this many in the module.
const STATEMENTS: usize = 48;

/// Page cache of a reading connection, in KiB. Pages live in the kernel's cache anyway; this saves
/// the system calls for the upper levels of the trees, which for a million refs are 3 MiB.
const READ_CACHE_KIB: u32 = 4096;

/// Page cache of the writing connection, in KiB.
const WRITE_CACHE_KIB: u32 = 4096;

/// Threads that sort beside the one that writes, when an index is made of a table that has rows.
const SORTERS: u32 = 2;

/// The log is cut back to this many bytes once it was larger.
pub(super) const LOG_LIMIT: u32 = 16 << 20;

/// How long a reading connection waits for a lock. Readers wait only for a recovery.
const READ_BUSY: Duration = Duration::from_millis(100);

/// Prepares the writing connection of a file that is there: WAL, and the schema of today.
///
/// # Errors
/// [`IndexError::Newer`], [`IndexError::Damaged`] if it is not a file of ours; a caller sets both aside.
pub(super) fn prepare_writer(connection: &mut Connection, busy: Duration) -> Result<(), IndexError> {
    connection.busy_timeout(busy)?;
    common(connection, WRITE_CACHE_KIB)?;
    let found = version(connection)?;
    if found == 0 {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables != 0 {
            return Err(damage("a database of somebody else").into());
        }
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    } else if application_id(connection)? != APPLICATION_ID {
        return Err(damage("a database of somebody else").into());
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(IndexError::NotLocal(connection.path().unwrap_or_default().into()));
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    connection.pragma_update(None, "threads", SORTERS)?;
    migrate(connection, MIGRATIONS)
}

/// Prepares a reading connection, and reads the first page, for which it opens the log.
pub(super) fn prepare_reader(connection: &Connection) -> Result<()> {
    connection.busy_timeout(READ_BUSY)?;
    common(connection, READ_CACHE_KIB)?;
    version(connection).map(drop)
}

/// The indices that no lookup by key needs, as the migrations make them: name and statement. A rebuild
/// from nothing does without them until its end, because keeping them in order row by row costs more than
/// everything else it does.
pub(super) fn secondary_indices() -> impl Iterator<Item = (&'static str, String)> {
    let made = MIGRATIONS.iter().flat_map(|step| step.split(';')).filter_map(|statement| {
        let definition = statement.split_once("CREATE INDEX ")?.1;
        let name = definition.split_ascii_whitespace().next()?;
        Some((name, format!("CREATE INDEX IF NOT EXISTS {definition}")))
    });
    // A later step may have made one anew.
    made.collect::<BTreeMap<_, _>>().into_iter()
}

/// Compares what the file says now with what it must say, read afresh by a new connection.
///
/// # Errors
/// [`IndexError::Damaged`] if it is not (or no longer) a file of ours.
pub(super) fn probe(connection: &Connection) -> Result<(), IndexError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(READ_BUSY)?;
    let (found, known) = (version(connection)?, known(MIGRATIONS));
    if found > known {
        return Err(IndexError::Newer { found, known });
    }
    if found < known || application_id(connection)? != APPLICATION_ID {
        return Err(damage("the header says what was never written").into());
    }
    Ok(())
}

/// Whether a file is of a version that did not note which one it had made.
pub(super) fn is_from_before_notes(path: &Path) -> Result<bool, IndexError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(READ_BUSY)?;
    Ok(version(&connection)? < NOTED_SINCE)
}

fn common(connection: &Connection, cache_kib: u32) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // The last connection that closes would delete the log by its name. By then the name may belong
    // to another file: the one that took the place of a database that was deleted or set aside.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // No plan hangs on a value: a statement whose limit is bound would be compiled anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Pages are checked for plausible cells when they are read: damage shows as an error at once.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    // Negative means KiB.
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), IndexError> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = version(&transaction)?;
        let known = known(steps);
        if found > known {
            return Err(IndexError::Newer { found, known });
        }
        let Some(step) = usize::try_from(found).ok().and_then(|done| steps.get(done)) else {
            return if found == known { Ok(()) } else { Err(damage("a negative schema version").into()) };
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}

fn known(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

fn version(connection: &Connection) -> Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn application_id(connection: &Connection) -> Result<i64> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_is_not_one_that_corrupts_a_log_which_two_processes_use() {
        // 3.51.3 mended what happens when a log is reset while another connection checkpoints.
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }

    #[test]
    fn steps_are_applied_once_and_in_order() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let steps = ["CREATE TABLE a (x) STRICT_NOT", "CREATE TABLE b (x)"];
        let first = ["CREATE TABLE a (x)"];
        migrate(&mut connection, &first).expect("first");
        migrate(&mut connection, &steps).expect("the first step is not applied again");
        assert_eq!(version(&connection).expect("version"), 2);
        migrate(&mut connection, &steps).expect("nothing to do");
        assert!(matches!(migrate(&mut connection, &first), Err(IndexError::Newer { found: 2, known: 1 })));
    }

    #[test]
    fn an_index_whose_rebuild_was_cut_short_is_brought_up_to_date() {
        for known in 1..MIGRATIONS.len() {
            let mut connection = Connection::open_in_memory().expect("opens");
            migrate(&mut connection, &MIGRATIONS[..known]).expect("an older version");
            for (name, _) in secondary_indices() {
                connection.execute_batch(&format!("DROP INDEX IF EXISTS {name}")).expect("as a rebuild does");
            }
            migrate(&mut connection, MIGRATIONS).unwrap_or_else(|error| panic!("from {known}: {error}"));
        }
    }

    #[test]
    fn the_secondary_indices_are_those_of_the_migrations() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, MIGRATIONS).expect("today's schema");
        let list = |connection: &Connection| -> Vec<(String, String)> {
            let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql LIKE 'CREATE INDEX%' ORDER BY name";
            let mut statement = connection.prepare(sql).expect("lists");
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("lists");
            rows.collect::<Result<_, _>>().expect("lists")
        };
        let before = list(&connection);
        assert!(before.len() >= 3, "{before:?}");
        for (name, _) in secondary_indices() {
            connection.execute_batch(&format!("DROP INDEX {name}")).expect(name);
        }
        assert_eq!(list(&connection), []);
        for (name, create) in secondary_indices() {
            connection.execute_batch(&create).expect(name);
        }
        assert_eq!(list(&connection), before);
    }

    #[test]
    fn a_step_that_fails_leaves_the_schema_as_it_was() {
        let mut connection = Connection::open_in_memory().expect("memory");
        assert!(migrate(&mut connection, &["CREATE TABLE a (x); CREATE TABLE a (x)"]).is_err());
        assert_eq!(version(&connection).expect("version"), 0);
        assert!(connection.prepare("SELECT * FROM a").is_err());
    }

    #[test]
    fn sqlite_is_new_enough_for_two_processes() {
        // Before 3.51.3, two connections that write and checkpoint could damage the file.
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }
}
