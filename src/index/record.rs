//! Writing: what is recorded, forgotten and touched, and the generations of a rebuild.
//!
//! [`Index::record`] is the only way a row comes to be, online and in a rebuild, so both give the
//! same rows. Every transaction is short (500 rows), so that another process's writer never waits
//! long. A row that already says what is recorded is not written again: a rebuild of an index that
//! is right costs one small column per row.
//!
//! A crash between two transactions leaves rows that lag behind the files, which is what an index
//! may do at any time.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::database::META;
use super::filing::Filing;
use super::rows::{Column, limit, nanoseconds, to_json, type_code};
use super::{Index, IndexError, schema};
use crate::model::{Claim, ProxyId, Ref, RefKey, Timestamp};

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
            self.write(|batch| chunk.iter().try_for_each(|record| batch.record(record).map(drop)))?;
        }
        Ok(())
    }

    /// As [`Self::record`], and writes the last uses that are given beside them as [`Self::touch`] does.
    pub fn record_used(&self, records: &[(Record, Option<Timestamp>)]) -> Result<(), IndexError> {
        let mut sorted: Vec<&(Record, Option<Timestamp>)> = records.iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        for chunk in sorted.chunks(BATCH) {
            self.write(|batch| {
                chunk.iter().try_for_each(|(record, used)| {
                    let id = batch.record(record)?;
                    used.map_or(Ok(()), |at| batch.note_use(id, at))
                })
            })?;
        }
        Ok(())
    }

    /// Forgets refs, in one transaction up to 500, in several beyond. Moves [`Self::changes`] if any
    /// was there, so that running servers drop what they hold in memory.
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
            if empty {
                for (name, _) in schema::secondary_indices() {
                    batch.tx.execute_batch(&format!("DROP INDEX IF EXISTS {name}"))?;
                }
                // An index that is complete is asked for grants all the while.
                let complete: i64 =
                    batch.tx.prepare_cached(META)?.query_row(["complete"], |row| row.get(0))?;
                if complete == 0 {
                    batch.note_filing(Filing::Left)?;
                }
            }
            batch.add_to_meta("generation", 1)?;
            batch.generation += 1;
            Ok(u64::try_from(batch.generation).unwrap_or_default())
        })
    }

    /// Ends a rebuild: removes what is of an older generation, a few rows at a time, and says that
    /// the index is complete. Returns how many refs were removed.
    ///
    /// To be called only when every ref file has been recorded since `generation` began. Rows that
    /// others recorded meanwhile are of that generation or newer, so they stay. If it is cut short,
    /// what is left is removed by the next rebuild.
    pub fn end_generation(&self, generation: u64) -> Result<u64, IndexError> {
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        // Sorted at once, an index takes a second for a million rows. There for long if the rebuild was not
        // from nothing, or if another one was cut short.
        for (_, create) in schema::secondary_indices() {
            self.write(|batch| Ok(batch.tx.execute_batch(&create)?))?;
        }
        self.file_links()?;
        let removed = self.sweep(OUTDATED, generation, |batch, id| batch.remove_outdated(id, generation))?;
        self.sweep(EMPTY_SCOPES, generation, |batch, id| batch.execute(REMOVE_EMPTY_SCOPE, id))?;
        self.write(|batch| {
            batch
                .tx
                .execute("UPDATE meta SET value = max(value, ?1) WHERE key = 'complete'", [generation])?;
            Ok(())
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
                    count += u64::from(remove(batch, *id)?);
                }
                Ok(count)
            })?;
        }
    }
}

/// Rows of an older generation, in the order of the table: all pages together read it once.
pub(super) const OUTDATED: &str =
    "SELECT id FROM refs WHERE id > ?1 AND generation < ?2 ORDER BY id LIMIT ?3";

/// Scopes without a ref. Takes the generation only so that both sweeps look alike.
pub(super) const EMPTY_SCOPES: &str = "SELECT id FROM scopes WHERE id > ?1 AND ?2 IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM refs WHERE scope = scopes.id) ORDER BY id LIMIT ?3";

pub(super) const REMOVE_EMPTY_SCOPE: &str =
    "DELETE FROM scopes WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM refs WHERE scope = ?1)";

pub(super) const UNLINK: &str =
    "DELETE FROM links WHERE digest = ?1 AND type = ?2 AND scope = ?3 AND ref = ?4";

/// Files a link. A file written by hand may name a blob twice.
pub(super) const LINK: &str =
    "INSERT OR IGNORE INTO links (digest, type, scope, ref, size) VALUES (?1, ?2, ?3, ?4, ?5)";

/// What is known of a ref's row, and whether it already says what is to be recorded.
pub(super) const FIND: &str = "SELECT id, generation, type, scope, \
     scope = ?4 AND kind = ?5 AND digest = ?6 AND size = ?7 AND fetched_at = ?8 AND ttl_seconds IS ?9 \
     AND media_type IS ?10 AND upstream IS ?11 AND etag IS ?12 AND last_modified IS ?13 \
     AND headers IS ?14 AND http IS ?15 AND unknown IS ?16 \
     FROM refs WHERE proxy = ?1 AND area = ?2 AND path = ?3";

const INSERT: &str = "INSERT INTO refs (proxy, area, path, scope, kind, digest, size, fetched_at, ttl_seconds, \
     media_type, upstream, etag, last_modified, headers, http, unknown, type, generation) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
     ON CONFLICT (proxy, area, path) DO NOTHING";

const UPDATE: &str = "UPDATE refs SET scope = ?4, kind = ?5, digest = ?6, size = ?7, fetched_at = ?8, \
     ttl_seconds = ?9, media_type = ?10, upstream = ?11, etag = ?12, last_modified = ?13, headers = ?14, \
     http = ?15, unknown = ?16, generation = ?18 \
     WHERE proxy = ?1 AND area = ?2 AND path = ?3 AND type = ?17";

const STAMP: &str = "UPDATE refs SET generation = ?2 WHERE id = ?1";

/// A use, unless a later one is known.
const USE: &str = "INSERT INTO uses (ref, last_used) VALUES (?1, ?2) ON CONFLICT (ref) \
     DO UPDATE SET last_used = excluded.last_used WHERE excluded.last_used > last_used";

/// A ref's id, from the index alone.
pub(super) const FIND_ID: &str = "SELECT r.id FROM refs r \
     WHERE r.proxy = (SELECT id FROM proxies WHERE type = ?1 AND name = ?2) AND r.area = ?3 AND r.path = ?4";

/// A ref's id, and what its links are filed under.
pub(super) const FIND_FILED: &str = "SELECT r.id, r.type, r.scope FROM refs r \
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
    removed: i64,
}

/// The id of a row of `refs`, and what its links are filed under.
#[derive(Debug, Clone, Copy)]
struct Filed {
    id: i64,
    artifact_type: i64,
    scope: i64,
}

impl<'c> Batch<'c> {
    /// Begins at once (`BEGIN IMMEDIATE`), so that what it reads is what it writes on.
    pub(super) fn begin(connection: &'c mut Connection) -> Result<Self, IndexError> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let generation = tx.prepare_cached(META)?.query_row(["generation"], |row| row.get(0))?;
        let filing = Filing::of(&tx)?;
        Ok(Self { tx, generation, filing, last_proxy: None, last_scope: None, removed: 0 })
    }

    pub(super) fn commit(self) -> Result<(), IndexError> {
        if self.removed > 0 {
            self.add_to_meta("changes", self.removed)?;
        }
        Ok(self.tx.commit()?)
    }

    /// Records a ref, and gives its id.
    pub(super) fn record(&mut self, record: &Record) -> Result<i64, IndexError> {
        let Record { key, scope, reference } = record;
        let proxy = self.proxy(&key.proxy)?;
        let scope = self.scope(proxy, scope)?;
        let headers = to_json(&reference.headers, reference.headers.is_empty())?;
        let http = to_json(&reference.http, reference.http.is_none())?;
        let unknown = to_json(&reference.unknown, reference.unknown.is_empty())?;
        let artifact_type = Column(key.proxy.artifact_type);
        let filed = Filed { id: 0, artifact_type: type_code(artifact_type.0), scope };
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
            artifact_type,
            self.generation,
        ];
        if self.tx.prepare_cached(INSERT)?.execute(values)? > 0 {
            let id = self.tx.last_insert_rowid();
            self.link(Filed { id, ..filed }, reference.links.as_deref())?;
            return Ok(id);
        }
        let (old, generation, same) = self.tx.prepare_cached(FIND)?.query_row(&values[..16], |row| {
            let old = Filed { id: row.get(0)?, artifact_type: row.get(2)?, scope: row.get(3)? };
            Ok((old, row.get::<_, i64>(1)?, row.get::<_, bool>(4)?))
        })?;
        if !same {
            self.tx.prepare_cached(UPDATE)?.execute(values)?;
        } else if generation != self.generation {
            self.tx.prepare_cached(STAMP)?.execute([old.id, self.generation])?;
        }
        self.relink(old, Filed { id: old.id, ..filed }, reference.links.as_deref())?;
        Ok(old.id)
    }

    pub(super) fn forget(&mut self, key: &RefKey) -> Result<(), IndexError> {
        if let Some(filed) = self.find(FIND_FILED, key, filed)? {
            self.remove(filed)?;
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
        let sql = "SELECT id, type, scope FROM refs WHERE id = ?1 AND generation < ?2";
        let found = self.tx.prepare_cached(sql)?.query_row([id, generation], filed).optional()?;
        found.map_or(Ok(false), |filed| self.remove(filed).map(|()| true))
    }

    /// Runs a statement about one id; whether it did anything.
    fn execute(&self, sql: &str, id: i64) -> Result<bool, IndexError> {
        Ok(self.tx.prepare_cached(sql)?.execute([id])? > 0)
    }

    fn remove(&mut self, filed: Filed) -> Result<(), IndexError> {
        self.relink(filed, filed, None)?;
        self.execute("DELETE FROM uses WHERE ref = ?1", filed.id)?;
        self.execute("DELETE FROM refs WHERE id = ?1", filed.id)?;
        self.removed += 1;
        Ok(())
    }

    /// Replaces what a ref links, if that or where it is filed has changed.
    fn relink(&self, old: Filed, new: Filed, links: Option<&[Claim]>) -> Result<(), IndexError> {
        let linked: Option<Column<Vec<Claim>>> = self
            .tx
            .prepare_cached("SELECT links FROM linked WHERE ref = ?1")?
            .query_row([old.id], |row| row.get(0))
            .optional()?;
        if linked.as_ref().map(|linked| linked.0.as_slice()) == links && old.scope == new.scope {
            return Ok(());
        }
        if let Some(Column(linked)) = linked {
            let mut unlink = self.tx.prepare_cached(UNLINK)?;
            for link in linked {
                unlink.execute(params![Column(link.digest), old.artifact_type, old.scope, old.id])?;
            }
            self.execute("DELETE FROM linked WHERE ref = ?1", old.id)?;
        }
        self.link(new, links)
    }

    fn link(&self, filed: Filed, links: Option<&[Claim]>) -> Result<(), IndexError> {
        let Some(links) = links else { return Ok(()) };
        self.tx
            .prepare_cached("INSERT INTO linked (ref, links) VALUES (?1, ?2)")?
            .execute(params![filed.id, Column(links)])?;
        if self.filing == Filing::Left {
            return Ok(());
        }
        let mut insert = self.tx.prepare_cached(LINK)?;
        let Filed { id, artifact_type, scope } = filed;
        for Claim { digest, size } in links {
            insert.execute(params![Column(*digest), artifact_type, scope, id, size.map(Column)])?;
        }
        Ok(())
    }

    fn proxy(&mut self, proxy: &ProxyId) -> Result<i64, IndexError> {
        if let Some((_, id)) = self.last_proxy.as_ref().filter(|(last, _)| last == proxy) {
            return Ok(*id);
        }
        let values = params![Column(proxy.artifact_type), proxy.name.as_str()];
        let id = self.intern(
            "SELECT id FROM proxies WHERE type = ?1 AND name = ?2",
            "INSERT INTO proxies (type, name) VALUES (?1, ?2)",
            values,
        )?;
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
            "SELECT id FROM scopes WHERE proxy = ?1 AND name = ?2",
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

fn filed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Filed> {
    Ok(Filed { id: row.get(0)?, artifact_type: row.get(1)?, scope: row.get(2)? })
}
