//! Writing: what is recorded, forgotten and touched, and the generations of a rebuild.
//!
//! [`Index::record`] is the only way a row comes to be, online and in a rebuild, so both give the
//! same rows. Every transaction is short (500 rows), so that another process's writer never waits
//! long. A row that already says what is recorded is not written again: a rebuild of an index that
//! is right costs one small column per row.
//!
//! A crash between two transactions leaves rows that lag behind the files, which is what an index
//! may do at any time.

use std::collections::HashMap;
use std::ffi::c_int;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::database::META;
use super::filing::Filing;
use super::rows::{self, Column, limit, nanoseconds, to_json};
use super::{Index, IndexError, schema};
use crate::model::{ArtifactType, Claim, Digest, ProxyId, Ref, RefKey, Timestamp, give_way};

/// The most rows that one transaction records or forgets.
pub(super) const BATCH: usize = 500;

/// The most last uses that one transaction writes: about as much work as 500 rows.
pub(super) const USES_BATCH: usize = 10_000;

/// One ref to be recorded: the only way a row comes to be, online and in reindex.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The ref's address.
    pub key: RefKey,
    /// Its scope, by the dialect's rules.
    pub scope: String,
    /// What the file says.
    pub reference: Ref,
}

impl Index {
    /// Records refs, replacing what was recorded for the same keys: in one transaction up to 500,
    /// in several beyond. Later ones of the same key win. Each row is stamped with the current
    /// generation. Links are replaced; without any in the ref, none are kept.
    ///
    /// Durable against a crash of the process when it returns, not against one of the machine.
    pub fn record(&self, records: &[Record]) -> Result<(), IndexError> {
        // In the order of the keys, neighbours go to the same pages.
        let mut sorted: Vec<&Record> = records.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for chunk in sorted.chunks(BATCH) {
            self.write(|batch| {
                chunk.iter().try_for_each(|record| batch.record(record, Read::Now).map(drop))
            })?;
        }
        Ok(())
    }

    /// Records what a rebuild has read, and the last uses that are given beside them as [`Self::touch`] does. What
    /// others have recorded since the rebuild began stays if it was fetched later: then a file was read before it
    /// was replaced. One that was deleted after it was read is for the caller to find: [`Self::forgets`] has grown.
    pub fn record_read(&self, records: &[(Record, Option<Timestamp>)]) -> Result<(), IndexError> {
        let mut sorted: Vec<&(Record, Option<Timestamp>)> = records.iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        for chunk in sorted.chunks(BATCH) {
            self.write(|batch| {
                chunk.iter().try_for_each(|(record, used)| {
                    give_way();
                    let id = batch.record(record, Read::Earlier)?;
                    used.map_or(Ok(()), |at| batch.note_use(id, at))
                })
            })?;
        }
        Ok(())
    }

    /// Forgets refs, in one transaction up to 500, in several beyond. Moves [`Self::changes`] if any
    /// was there, so that running servers drop what they hold in memory, and [`Self::forgets`] in any case.
    pub fn forget(&self, keys: &[RefKey]) -> Result<(), IndexError> {
        let mut sorted: Vec<&RefKey> = keys.iter().collect();
        sorted.sort_unstable();
        for chunk in sorted.chunks(BATCH) {
            self.write(|batch| chunk.iter().try_for_each(|key| batch.forget(key)))?;
        }
        Ok(())
    }

    /// Writes last uses, in one transaction up to 10,000, in several beyond. A use earlier than the
    /// one known, or of a ref that has no row, is ignored.
    pub fn touch(&self, uses: &[(RefKey, Timestamp)]) -> Result<(), IndexError> {
        for chunk in uses.chunks(USES_BATCH) {
            self.write(|batch| batch.touch(chunk))?;
        }
        Ok(())
    }

    /// The generation that rows are stamped with.
    pub fn current_generation(&self) -> Result<u64, IndexError> {
        let generation: i64 = self.read(|connection| {
            Ok(connection.prepare_cached(META)?.query_row(["generation"], |row| row.get(0))?)
        })?;
        Ok(u64::try_from(generation).unwrap_or_default())
    }

    /// Begins a rebuild: whatever is recorded from now on, by anybody, is of the new generation.
    ///
    /// From nothing, it goes without secondary indices and without links by digest until
    /// [`Self::end_generation`]; until then only lookups by key are quick.
    pub fn begin_generation(&self) -> Result<u64, IndexError> {
        self.write(|batch| {
            let empty: bool =
                batch.tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM refs)", [], |row| row.get(0))?;
            // An index that is complete is asked for grants all the while.
            let complete: i64 = batch.tx.prepare_cached(META)?.query_row(["complete"], |row| row.get(0))?;
            if empty && complete == 0 {
                for (name, _) in schema::secondary_indices() {
                    batch.tx.execute_batch(&format!("DROP INDEX IF EXISTS {name}"))?;
                }
                batch.note_filing(Filing::Left)?;
            }
            batch.add_to_meta("generation", 1)?;
            batch.generation += 1;
            Ok(u64::try_from(batch.generation).unwrap_or_default())
        })
    }

    /// Ends a rebuild: removes what is of an older generation, a few rows at a time, and says that
    /// the index is complete. Moves [`Self::changes`] if rows went, or said something else than their files.
    /// Returns how many refs were removed.
    ///
    /// To be called only when every ref file has been recorded since `generation` began. Rows that
    /// others recorded meanwhile are of that generation or newer, so they stay. If it is cut short,
    /// what is left is removed by the next rebuild.
    pub fn end_generation(&self, generation: u64) -> Result<u64, IndexError> {
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        // Sorted at once, an index takes a second for a million rows. There for long if the rebuild was not
        // from nothing, or if another one was cut short.
        for (_, create) in schema::secondary_indices() {
            self.write(|batch| giving_way(&batch.tx, |connection| connection.execute_batch(&create)))?;
        }
        self.file_links()?;
        let removed = self.sweep(OUTDATED, generation, |batch, id| batch.remove_outdated(id, generation))?;
        self.sweep(UNUSED_LISTS, generation, |batch, id| batch.let_go(Some(id)))?;
        self.sweep(EMPTY_SCOPES, generation, |batch, id| batch.execute(REMOVE_EMPTY_SCOPE, id))?;
        self.write(|batch| {
            batch
                .tx
                .execute("UPDATE meta SET value = max(value, ?1) WHERE key = 'complete'", [generation])?;
            // Once, for whoever sees it drops all that is ready.
            let replaced = batch.tx.prepare_cached(META)?.query_row(["replaced"], |row| row.get(0))?;
            batch.add_to_meta("changes", replaced)?;
            batch.add_to_meta("replaced", -replaced)
        })?;
        self.changes()?;
        Ok(removed)
    }

    /// Finds ids without holding a lock, and removes them in short transactions that look again.
    fn sweep(
        &self,
        find: &str,
        generation: i64,
        mut remove: impl FnMut(&mut Batch<'_>, i64) -> Result<bool, IndexError>,
    ) -> Result<u64, IndexError> {
        let (mut removed, mut after) = (0, 0);
        loop {
            let found: Vec<i64> = self.read(|connection| {
                let mut statement = connection.prepare_cached(find)?;
                let rows = statement.query_map(params![after, generation, limit(BATCH)], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })?;
            let Some(last) = found.last() else { return Ok(removed) };
            after = *last;
            removed += self.write(|batch| {
                let mut count = 0;
                for id in &found {
                    give_way();
                    count += u64::from(remove(batch, *id)?);
                }
                Ok(count)
            })?;
        }
    }
}

/// Steps of SQLite's machine, some 20 µs of them, after which a statement that takes long gives way.
const STEPS: c_int = 500;

/// Runs a statement that takes a second or more, and lets others have the processor meanwhile.
fn giving_way(
    connection: &Connection,
    run: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), IndexError> {
    let go_on = || {
        give_way();
        false
    };
    connection.progress_handler(STEPS, Some(go_on))?;
    let done = run(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    Ok(done?)
}

/// Rows of an older generation, in the order of the table: all pages together read it once.
pub(super) const OUTDATED: &str =
    "SELECT id FROM refs WHERE id > ?1 AND generation < ?2 ORDER BY id LIMIT ?3";

/// Scopes without a ref. Takes the generation only so that both sweeps look alike.
pub(super) const EMPTY_SCOPES: &str = "SELECT id FROM scopes WHERE id > ?1 AND ?2 IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM refs WHERE scope = scopes.id) ORDER BY id LIMIT ?3";

pub(super) const REMOVE_EMPTY_SCOPE: &str =
    "DELETE FROM scopes WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM refs WHERE scope = ?1)";

/// Lists that no ref has: what was replaced or forgotten while a rebuild left links to its end. Takes the
/// generation only so that all sweeps look alike.
pub(super) const UNUSED_LISTS: &str = "SELECT id FROM lists l WHERE id > ?1 AND ?2 IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM refs r INDEXED BY refs_scope \
     WHERE r.scope = l.scope AND r.area IN (0, 1, 2) AND r.list = l.id) ORDER BY id LIMIT ?3";

/// A list, unless a ref has it.
pub(super) const UNUSED_LIST: &str = "SELECT type, scope, links FROM lists l WHERE id = ?1 \
     AND NOT EXISTS (SELECT 1 FROM refs r INDEXED BY refs_scope \
     WHERE r.scope = l.scope AND r.area IN (0, 1, 2) AND r.list = l.id)";

pub(super) const FIND_LIST: &str = "SELECT id FROM lists WHERE scope = ?1 AND hash = ?2";

pub(super) const UNLINK: &str =
    "DELETE FROM links WHERE digest = ?1 AND type = ?2 AND scope = ?3 AND list = ?4";

/// Files a link. A file written by hand may name a blob twice.
pub(super) const LINK: &str =
    "INSERT OR IGNORE INTO links (digest, type, scope, list, size) VALUES (?1, ?2, ?3, ?4, ?5)";

/// The list of a ref that links nothing.
const NO_LINKS: i64 = 0;

/// What is known of a ref's row, whether it already says what is to be recorded, and whether it is of a later fetch.
pub(super) const FIND: &str = "SELECT id, generation, list, \
     scope = ?4 AND kind = ?5 AND digest = ?6 AND size = ?7 AND fetched_at = ?8 AND ttl_seconds IS ?9 \
     AND media_type IS ?10 AND upstream IS ?11 AND etag IS ?12 AND last_modified IS ?13 \
     AND headers IS ?14 AND http IS ?15 AND unknown IS ?16 AND list IS ?17, fetched_at > ?8 \
     FROM refs WHERE proxy = ?1 AND area = ?2 AND path = ?3";

const INSERT: &str = "INSERT INTO refs (proxy, area, path, scope, kind, digest, size, fetched_at, ttl_seconds, \
     media_type, upstream, etag, last_modified, headers, http, unknown, list, type, generation) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19) \
     ON CONFLICT (proxy, area, path) DO NOTHING";

/// Writes over a ref's row.
pub(super) const UPDATE: &str = "UPDATE refs SET scope = ?4, kind = ?5, digest = ?6, size = ?7, fetched_at = ?8, \
     ttl_seconds = ?9, media_type = ?10, upstream = ?11, etag = ?12, last_modified = ?13, headers = ?14, \
     http = ?15, unknown = ?16, list = ?17, generation = ?19 \
     WHERE proxy = ?1 AND area = ?2 AND path = ?3 AND type = ?18";

pub(super) const STAMP: &str = "UPDATE refs SET generation = ?2 WHERE id = ?1";

/// A use, unless a later one is known.
const USE: &str = "INSERT INTO uses (ref, last_used) VALUES (?1, ?2) ON CONFLICT (ref) \
     DO UPDATE SET last_used = excluded.last_used WHERE excluded.last_used > last_used";

/// A proxy's id.
pub(super) const PROXY: &str = "SELECT id FROM proxies WHERE type = ?1 AND name = ?2";

/// A scope's id.
pub(super) const FIND_SCOPE: &str = "SELECT id FROM scopes WHERE proxy = ?1 AND name = ?2";

/// A ref's id, from the index alone.
pub(super) const FIND_ID: &str = "SELECT r.id FROM refs r \
     WHERE r.proxy = (SELECT id FROM proxies WHERE type = ?1 AND name = ?2) AND r.area = ?3 AND r.path = ?4";

/// A ref's id and list.
pub(super) const FIND_LISTED: &str = "SELECT r.id, r.list FROM refs r \
     WHERE r.proxy = (SELECT id FROM proxies WHERE type = ?1 AND name = ?2) AND r.area = ?3 AND r.path = ?4";

/// One write transaction. Dropped without [`Self::commit`], it never was.
#[derive(Debug)]
pub(super) struct Batch<'c> {
    pub(super) tx: Transaction<'c>,
    generation: i64,
    pub(super) filing: Filing,
    /// What was interned last; neighbours mostly share both.
    last_proxy: Option<(ProxyId, i64)>,
    last_scope: Option<(i64, String, i64)>,
    /// The lists of this batch that are known to be there, by scope and hash: neighbours share them.
    lists: HashMap<(i64, Digest), i64>,
    removed: i64,
    forgotten: i64,
    replaced: i64,
}

/// The id of a row of `refs`, and its list.
#[derive(Debug, Clone, Copy)]
struct Listed {
    id: i64,
    list: Option<i64>,
}

/// When what is recorded was true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// It is what has just been published.
    Now,
    /// It is what a file said a while ago.
    Earlier,
}

impl<'c> Batch<'c> {
    /// Begins at once (`BEGIN IMMEDIATE`), so that what it reads is what it writes on.
    pub(super) fn begin(connection: &'c mut Connection) -> Result<Self, IndexError> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let generation = tx.prepare_cached(META)?.query_row(["generation"], |row| row.get(0))?;
        let filing = Filing::of(&tx)?;
        let lists = HashMap::new();
        let (last_proxy, last_scope) = (None, None);
        let (removed, forgotten, replaced) = (0, 0, 0);
        Ok(Self { tx, generation, filing, last_proxy, last_scope, lists, removed, forgotten, replaced })
    }

    pub(super) fn commit(self) -> Result<(), IndexError> {
        for (key, add) in
            [("changes", self.removed), ("forgets", self.forgotten), ("replaced", self.replaced)]
        {
            if add > 0 {
                self.add_to_meta(key, add)?;
            }
        }
        Ok(self.tx.commit()?)
    }

    /// Records a ref, and gives its id.
    pub(super) fn record(&mut self, record: &Record, read: Read) -> Result<i64, IndexError> {
        let Record { key, scope, reference } = record;
        let proxy = self.proxy(&key.proxy)?;
        let scope = self.scope(proxy, scope)?;
        let headers = to_json(&reference.headers, reference.headers.is_empty())?;
        let http = to_json(&reference.http, reference.http.is_none())?;
        let unknown = to_json(&reference.unknown, reference.unknown.is_empty())?;
        let artifact_type = Column(key.proxy.artifact_type);
        let list = self.list(artifact_type, scope, reference.links.as_deref())?;
        let values = params![
            proxy,
            Column(key.area),
            key.path.as_str(),
            scope,
            reference.kind,
            Column(reference.target_digest),
            Column(reference.size),
            Column(reference.fetched_at),
            reference.ttl_seconds.map(Column),
            reference.media_type,
            reference.upstream,
            reference.etag,
            reference.last_modified,
            headers,
            http,
            unknown,
            list,
            artifact_type,
            self.generation,
        ];
        if self.tx.prepare_cached(INSERT)?.execute(values)? > 0 {
            return Ok(self.tx.last_insert_rowid());
        }
        let (old, generation, same, newer) =
            self.tx.prepare_cached(FIND)?.query_row(&values[..17], |row| {
                let old = Listed { id: row.get(0)?, list: row.get(2)? };
                Ok((old, row.get::<_, i64>(1)?, row.get::<_, bool>(3)?, row.get::<_, bool>(4)?))
            })?;
        if read == Read::Earlier && newer && generation == self.generation {
            if old.list != list {
                self.let_go(list)?;
            }
        } else if !same {
            self.tx.prepare_cached(UPDATE)?.execute(values)?;
            self.replaced += i64::from(read == Read::Earlier);
            if old.list != list {
                self.let_go(old.list)?;
            }
        } else if generation != self.generation {
            self.tx.prepare_cached(STAMP)?.execute([old.id, self.generation])?;
        }
        Ok(old.id)
    }

    pub(super) fn forget(&mut self, key: &RefKey) -> Result<(), IndexError> {
        self.forgotten += 1;
        if let Some(found) = self.find(FIND_LISTED, key, listed)? {
            self.remove(found)?;
        }
        Ok(())
    }

    pub(super) fn touch(&mut self, uses: &[(RefKey, Timestamp)]) -> Result<(), IndexError> {
        let mut sorted: Vec<_> = uses.iter().collect();
        sorted.sort_unstable();
        let mut found = Vec::with_capacity(uses.len());
        for (key, at) in sorted {
            found.extend(self.find(FIND_ID, key, |row| row.get(0))?.map(|id: i64| (id, nanoseconds(*at))));
        }
        // In the order of the table, a page is written once.
        found.sort_unstable();
        let mut statement = self.tx.prepare_cached(USE)?;
        for (id, at) in found {
            statement.execute([id, at])?;
        }
        Ok(())
    }

    fn note_use(&self, id: i64, at: Timestamp) -> Result<(), IndexError> {
        self.tx.prepare_cached(USE)?.execute([id, nanoseconds(at)])?;
        Ok(())
    }

    fn add_to_meta(&self, key: &str, add: i64) -> Result<(), IndexError> {
        let sql = "UPDATE meta SET value = value + ?2 WHERE key = ?1";
        self.tx.prepare_cached(sql)?.execute(params![key, add])?;
        Ok(())
    }

    fn find<T>(
        &self,
        sql: &str,
        key: &RefKey,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, IndexError> {
        let values = params![
            Column(key.proxy.artifact_type),
            key.proxy.name.as_str(),
            Column(key.area),
            key.path.as_str()
        ];
        Ok(self.tx.prepare_cached(sql)?.query_row(values, read).optional()?)
    }

    fn remove_outdated(&mut self, id: i64, generation: i64) -> Result<bool, IndexError> {
        let sql = "SELECT id, list FROM refs WHERE id = ?1 AND generation < ?2";
        let found = self.tx.prepare_cached(sql)?.query_row([id, generation], listed).optional()?;
        found.map_or(Ok(false), |found| self.remove(found).map(|()| true))
    }

    /// Runs a statement about one id; whether it did anything.
    fn execute(&self, sql: &str, id: i64) -> Result<bool, IndexError> {
        Ok(self.tx.prepare_cached(sql)?.execute([id])? > 0)
    }

    fn remove(&mut self, found: Listed) -> Result<(), IndexError> {
        self.execute("DELETE FROM uses WHERE ref = ?1", found.id)?;
        self.execute("DELETE FROM refs WHERE id = ?1", found.id)?;
        self.removed += 1;
        self.let_go(found.list)?;
        Ok(())
    }

    /// Removes the list that a ref no longer has, unless another one has it; whether it was removed. Where
    /// links are left to the end of a rebuild, so are lists: there is no index yet to find other refs by.
    fn let_go(&mut self, list: Option<i64>) -> Result<bool, IndexError> {
        let list = list.filter(|list| *list != NO_LINKS && self.filing != Filing::Left);
        let Some(list) = list else { return Ok(false) };
        let found = self.tx.prepare_cached(UNUSED_LIST)?.query_row([list], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Column<Vec<Claim>>>(2)?.0))
        });
        let Some((artifact_type, scope, links)) = found.optional()? else { return Ok(false) };
        let mut unlink = self.tx.prepare_cached(UNLINK)?;
        for link in links {
            unlink.execute(params![Column(link.digest), artifact_type, scope, list])?;
        }
        drop(unlink);
        self.lists.clear();
        self.execute("DELETE FROM lists WHERE id = ?1", list)
    }

    /// The list of a scope that says this, which is made if there is none yet.
    fn list(
        &mut self,
        artifact_type: Column<ArtifactType>,
        scope: i64,
        links: Option<&[Claim]>,
    ) -> Result<Option<i64>, IndexError> {
        let Some(links) = links else { return Ok(None) };
        if links.is_empty() {
            return Ok(Some(NO_LINKS));
        }
        let bytes = rows::list(links);
        let hash = Digest::of(&bytes);
        if let Some(id) = self.lists.get(&(scope, hash)) {
            return Ok(Some(*id));
        }
        let values = params![scope, Column(hash)];
        let found = self.tx.prepare_cached(FIND_LIST)?.query_row(values, |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => self.make_list(artifact_type, scope, hash, &bytes, links)?,
        };
        self.lists.insert((scope, hash), id);
        Ok(Some(id))
    }

    fn make_list(
        &self,
        artifact_type: Column<ArtifactType>,
        scope: i64,
        hash: Digest,
        bytes: &[u8],
        links: &[Claim],
    ) -> Result<i64, IndexError> {
        let id = self
            .tx
            .prepare_cached("INSERT INTO lists (type, scope, hash, links) VALUES (?1, ?2, ?3, ?4)")?
            .insert(params![artifact_type, scope, Column(hash), bytes])?;
        if self.filing != Filing::Left {
            let mut insert = self.tx.prepare_cached(LINK)?;
            for Claim { digest, size } in links {
                insert.execute(params![Column(*digest), artifact_type, scope, id, size.map(Column)])?;
            }
        }
        Ok(id)
    }

    fn proxy(&mut self, proxy: &ProxyId) -> Result<i64, IndexError> {
        if let Some((_, id)) = self.last_proxy.as_ref().filter(|(last, _)| last == proxy) {
            return Ok(*id);
        }
        let values = params![Column(proxy.artifact_type), proxy.name.as_str()];
        let id = self.intern(PROXY, "INSERT INTO proxies (type, name) VALUES (?1, ?2)", values)?;
        self.last_proxy = Some((proxy.clone(), id));
        Ok(id)
    }

    fn scope(&mut self, proxy: i64, name: &str) -> Result<i64, IndexError> {
        if let Some((of, last, id)) = &self.last_scope
            && (*of, last.as_str()) == (proxy, name)
        {
            return Ok(*id);
        }
        let id = self.intern(
            FIND_SCOPE,
            "INSERT INTO scopes (proxy, name) VALUES (?1, ?2)",
            params![proxy, name],
        )?;
        self.last_scope = Some((proxy, name.to_owned(), id));
        Ok(id)
    }

    fn intern(&self, find: &str, insert: &str, values: &[&dyn rusqlite::ToSql]) -> Result<i64, IndexError> {
        let found = self.tx.prepare_cached(find)?.query_row(values, |row| row.get(0)).optional()?;
        match found {
            Some(id) => Ok(id),
            None => Ok(self.tx.prepare_cached(insert)?.insert(values)?),
        }
    }
}

fn listed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Listed> {
    Ok(Listed { id: row.get(0)?, list: row.get(1)? })
}
