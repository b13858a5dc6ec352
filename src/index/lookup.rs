//! What a request asks: one ref, one grant, the names of a proxy. Each is a few descents of a tree.

use rusqlite::{OptionalExtension as _, Statement, params};

use super::rows::{self, Column, REF_COLUMNS, ref_columns};
use super::{Index, IndexError, MAX_PAGE};
use crate::model::{Area, Claim, Digest, ProxyId, Ref, RefKey, Timestamp, give_way};

/// What [`Index::grant`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The ref that grants.
    pub key: RefKey,
    /// When upstream confirmed it.
    pub fetched_at: Timestamp,
    /// The blob's size, if the ref states it.
    pub size: Option<u64>,
    /// That ref, if the digest is its target; its media type then holds for the blob.
    pub target: Option<Ref>,
}

pub(super) const LOOKUP: &str =
    concat!("SELECT ", ref_columns!(), " FROM refs r WHERE r.proxy = ?1 AND r.area = ?2 AND r.path = ?3");

pub(super) const GRANT_BY_TARGET: &str = concat!(
    "SELECT ",
    ref_columns!(),
    ", r.area, r.path FROM scopes s CROSS JOIN refs r WHERE s.proxy = ?1 AND s.name = ?2 \
     AND r.digest = ?3 AND r.type = ?4 AND r.proxy = ?1 AND r.scope = s.id LIMIT ?5"
);

/// The most refs that target a digest of which one is looked for that fits. Tags without end may target a
/// manifest; of what does not fit those there are few beside what does.
const MAX_TARGETS: usize = 100;

pub(super) const GRANT_BY_LINK: &str = "SELECT r.area, r.path, r.fetched_at, l.size \
     FROM scopes s CROSS JOIN links l CROSS JOIN refs r WHERE s.proxy = ?1 AND s.name = ?2 \
     AND l.digest = ?3 AND l.type = ?4 AND l.scope = s.id \
     AND r.scope = s.id AND r.area IN (0, 1, 2) AND r.list = l.list LIMIT 1";

pub(super) const SCOPES: &str = "SELECT s.name FROM scopes s WHERE s.proxy = ?1 AND s.name >= ?2 \
     AND EXISTS (SELECT 1 FROM refs r WHERE r.scope = s.id AND r.area = ?3) ORDER BY s.name LIMIT ?4";

pub(super) const LAST_USED: &str = "SELECT u.last_used FROM refs r JOIN uses u ON u.ref = r.id \
     WHERE r.proxy = ?1 AND r.area = ?2 AND r.path = ?3";

/// No row for a ref whose links nobody has looked for; null if it links nothing.
pub(super) const LINKS: &str = "SELECT l.links FROM refs r LEFT JOIN lists l ON l.id = r.list \
     WHERE r.proxy = ?1 AND r.area = ?2 AND r.path = ?3 AND r.list IS NOT NULL";

impl Index {
    /// Has the questions of requests made ready, so that the first that asks them does not wait for that.
    pub(super) fn rehearse(&self) -> Result<(), IndexError> {
        self.read(|connection| {
            for question in [LOOKUP, GRANT_BY_TARGET, GRANT_BY_LINK] {
                // Goes to the connection's cache when it is dropped.
                connection.prepare_cached(question)?;
            }
            Ok(())
        })
    }

    /// The ref as last recorded (`links` are not loaded: always `None`).
    pub fn lookup(&self, key: &RefKey) -> Result<Option<Ref>, IndexError> {
        self.by_key(LOOKUP, key, |row| rows::reference(row, 0))
    }

    /// What [`Self::lookup`] gives for each of these keys, in their order and of one moment.
    pub fn lookup_all<'k>(
        &self,
        keys: impl Iterator<Item = &'k RefKey>,
    ) -> Result<Vec<Option<Ref>>, IndexError> {
        self.by_keys(LOOKUP, keys, |row| rows::reference(row, 0))
    }

    /// What [`Self::last_used`] gives for each of these keys, in their order and of one moment.
    pub fn last_used_all<'k>(
        &self,
        keys: impl Iterator<Item = &'k RefKey>,
    ) -> Result<Vec<Option<Timestamp>>, IndexError> {
        self.by_keys(LAST_USED, keys, |row| Ok(row.get::<_, Column<Timestamp>>(0)?.0))
    }

    /// What a ref links, in the order of the document; `None` if it has no row, or nobody has looked.
    pub fn links(&self, key: &RefKey) -> Result<Option<Vec<Claim>>, IndexError> {
        let links = self.by_key(LINKS, key, |row| row.get::<_, Option<Column<Vec<Claim>>>>(0))?;
        Ok(links.map(|links| links.map_or_else(Vec::new, |links| links.0)))
    }

    /// When a ref was last used; `None` if it has no row or no use of it was ever written.
    pub fn last_used(&self, key: &RefKey) -> Result<Option<Timestamp>, IndexError> {
        let found = self.by_key(LAST_USED, key, |row| row.get::<_, Column<Timestamp>>(0))?;
        Ok(found.map(|at| at.0))
    }

    /// A ref of exactly this scope that targets the digest and whose kind `fits`, else one that links it. What
    /// refs of other kinds alone target is granted by none: a link does not say what it is.
    pub fn grant(
        &self,
        proxy: &ProxyId,
        scope: &str,
        digest: &Digest,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Option<Grant>, IndexError> {
        self.read(|connection| {
            let Some(id) = self.proxy(connection, proxy)? else { return Ok(None) };
            let (digest, artifact_type) = (Column(*digest), Column(proxy.artifact_type));
            let mut question = connection.prepare_cached(GRANT_BY_TARGET)?;
            let mut targets =
                question.query(params![id, scope, digest, artifact_type, rows::limit(MAX_TARGETS)])?;
            let mut is_target = false;
            while let Some(row) = targets.next()? {
                let target = rows::reference(row, 0)?;
                if fits(&target.kind) {
                    let key = rows::key(proxy.clone(), row, REF_COLUMNS)?;
                    let (fetched_at, size) = (target.fetched_at, Some(target.size));
                    return Ok(Some(Grant { key, fetched_at, size, target: Some(target) }));
                }
                is_target = true;
            }
            if is_target {
                return Ok(None);
            }
            let values = params![id, scope, digest, artifact_type];
            let link = connection.prepare_cached(GRANT_BY_LINK)?.query_row(values, |row| {
                let Column(fetched_at) = row.get(2)?;
                let size = row.get::<_, Option<Column<u64>>>(3)?.map(|size| size.0);
                Ok(Grant { key: rows::key(proxy.clone(), row, 0)?, fetched_at, size, target: None })
            });
            Ok(link.optional()?)
        })
    }

    /// Scopes of a proxy that have a ref below `refs/`, after a name, in the order of bytes; at most
    /// [`MAX_PAGE`].
    pub fn scopes(
        &self,
        proxy: &ProxyId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, IndexError> {
        // The first text after another is that with a NUL behind it; the empty scope is the first of all.
        let from = after.map_or_else(String::new, |after| format!("{after}\0"));
        self.read(|connection| {
            let Some(id) = self.proxy(connection, proxy)? else { return Ok(Vec::new()) };
            let mut statement = connection.prepare_cached(SCOPES)?;
            let values = params![id, from, Column(Area::Refs), rows::limit(limit.min(MAX_PAGE))];
            let names = statement.query_map(values, |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
    }

    fn by_key<T>(
        &self,
        sql: &str,
        key: &RefKey,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, IndexError> {
        self.read(|connection| {
            let Some(proxy) = self.proxy(connection, &key.proxy)? else { return Ok(None) };
            Ok(find(&mut *connection.prepare_cached(sql)?, proxy, key, read)?)
        })
    }

    fn by_keys<'k, T>(
        &self,
        sql: &str,
        keys: impl Iterator<Item = &'k RefKey>,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<Option<T>>, IndexError> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(sql)?;
            let found = keys.map(|key| {
                give_way();
                match self.proxy(&snapshot, &key.proxy)? {
                    Some(proxy) => Ok(find(&mut statement, proxy, key, &read)?),
                    None => Ok(None),
                }
            });
            found.collect()
        })
    }
}

/// Runs a statement about one key.
fn find<T>(
    statement: &mut Statement<'_>,
    proxy: i64,
    key: &RefKey,
    read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    statement.query_row(params![proxy, Column(key.area), key.path.as_str()], read).optional()
}
