//! What rows say about blobs: which ones they need, how large they are, how much each proxy holds.
//!
//! A blob belongs to a type: the same digest in two types is two blobs. Everything here walks
//! `refs_digest` or `links` in the order of digests and needs no memory for more than one page.

use std::collections::HashMap;

use rusqlite::params;

use super::query::{Sql, all_proxies, page_limit};
use super::rows::{Column, limit, type_code};
use super::{Index, IndexError, MAX_PAGE, Page};
use crate::model::{ArtifactType, Digest, ProxyId, Timestamp};

/// Which blobs, in which order.
#[derive(Debug, Clone, Default)]
pub struct BlobQuery {
    /// Of this type.
    pub artifact_type: Option<ArtifactType>,
    /// The order.
    pub sort: BlobSort,
    /// The order turned round.
    pub descending: bool,
    /// The most rows on a page; at most [`MAX_PAGE`] are given. 0 asks for that many.
    pub limit: usize,
    /// [`Page::next`] of the page before, of a query that differs in nothing else.
    pub after: Option<BlobCursor>,
}

/// The order of a listing of blobs. Those that are equal in it come in the order of digests. In any
/// order but that of digests each page costs a walk over all refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlobSort {
    /// By digest, then type.
    #[default]
    Digest,
    /// By size.
    Size,
    /// By the number of refs.
    Refs,
    /// By last use, those never used first.
    LastUsed,
}

/// A place in a listing of blobs.
#[derive(Debug, Clone, PartialEq)]
pub struct BlobCursor {
    value: i64,
    digest: Digest,
    artifact_type: ArtifactType,
}

/// One blob that refs target.
#[derive(Debug, Clone, PartialEq)]
pub struct BlobRow {
    /// The type it belongs to.
    pub artifact_type: ArtifactType,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes, as the refs say (the largest, if they differ).
    pub size: u64,
    /// How many refs target it.
    pub refs: u64,
    /// How many refs link it.
    pub links: u64,
    /// The last use of any ref that targets it.
    pub last_used: Option<Timestamp>,
}

/// What one proxy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyTotals {
    /// The proxy.
    pub proxy: ProxyId,
    /// Its refs, of every area.
    pub refs: u64,
    /// The distinct blobs that they target.
    pub blobs: u64,
    /// The bytes of those, each counted once.
    pub bytes: u64,
}

/// Every digest of a type that rows target or link, each once.
pub(super) const TARGETS: &str = "\
     SELECT digest FROM refs INDEXED BY refs_digest WHERE digest > ?1 AND type = ?2 \
     UNION SELECT digest FROM links WHERE digest > ?1 AND type = ?2 ORDER BY digest LIMIT ?3";

/// One row for each blob and proxy.
pub(super) const TOTALS: &str = "SELECT proxy, count(*), max(size) FROM refs INDEXED BY refs_digest \
     GROUP BY digest, type, proxy";

impl Index {
    /// One page of the blobs that refs target.
    pub fn blobs(&self, query: &BlobQuery) -> Result<Page<BlobRow, BlobCursor>, IndexError> {
        let wanted = page_limit(query.limit);
        self.read(|connection| {
            let mut page: Vec<(BlobRow, i64)> = Vec::new();
            blob_walk(query, wanted + 1).each(connection, |row| {
                let found = BlobRow {
                    digest: row.get::<_, Column<Digest>>(0)?.0,
                    artifact_type: row.get::<_, Column<ArtifactType>>(1)?.0,
                    size: row.get::<_, Column<u64>>(2)?.0,
                    refs: row.get::<_, Column<u64>>(3)?.0,
                    last_used: row.get::<_, Option<Column<Timestamp>>>(4)?.map(|at| at.0),
                    links: row.get::<_, Column<u64>>(6)?.0,
                };
                page.push((found, row.get(5)?));
                Ok(())
            })?;
            let more = page.len() > wanted;
            page.truncate(wanted);
            let next = page.last().filter(|_| more).map(|(row, value)| BlobCursor {
                value: *value,
                digest: row.digest,
                artifact_type: row.artifact_type,
            });
            Ok(Page { rows: page.into_iter().map(|(row, _)| row).collect(), next })
        })
    }

    /// Distinct digests that refs of a type target or link, after one, in order; at most
    /// [`MAX_PAGE`]. An empty page is the end.
    pub fn blob_targets(
        &self,
        artifact_type: ArtifactType,
        after: Option<&Digest>,
        rows: usize,
    ) -> Result<Vec<Digest>, IndexError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(TARGETS)?;
            let after = after.map_or(&[][..], |digest| &digest.as_bytes()[..]);
            let values = params![after, Column(artifact_type), limit(rows.min(MAX_PAGE))];
            let digests = statement.query_map(values, |row| Ok(row.get::<_, Column<Digest>>(0)?.0))?;
            Ok(digests.collect::<Result<_, _>>()?)
        })
    }

    /// What each proxy holds, in the order of proxies. Walks all refs once, without sorting.
    pub fn totals(&self) -> Result<Vec<ProxyTotals>, IndexError> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut totals: HashMap<i64, ProxyTotals> = all_proxies(&snapshot)?
                .into_iter()
                .map(|(id, proxy)| (id, ProxyTotals { proxy, refs: 0, blobs: 0, bytes: 0 }))
                .collect();
            Sql::new(TOTALS).each(&snapshot, |row| {
                let proxy = totals.get_mut(&row.get(0)?);
                let proxy = proxy.ok_or_else(|| super::error::damage("a ref of an unknown proxy"))?;
                proxy.refs += row.get::<_, Column<u64>>(1)?.0;
                proxy.blobs += 1;
                proxy.bytes = proxy.bytes.saturating_add(row.get::<_, Column<u64>>(2)?.0);
                Ok(())
            })?;
            let mut totals: Vec<_> = totals.into_values().filter(|proxy| proxy.refs > 0).collect();
            totals.sort_by(|a, b| a.proxy.cmp(&b.proxy));
            Ok(totals)
        })
    }
}

/// Columns: digest, type, size, refs, last use, what it is sorted by, links.
pub(super) fn blob_walk(query: &BlobQuery, rows: usize) -> Sql {
    let value = match query.sort {
        BlobSort::Digest => "0",
        BlobSort::Size => "max(r.size)",
        BlobSort::Refs => "count(*)",
        BlobSort::LastUsed => "coalesce(max(u.last_used), 0)",
    };
    let (way, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    let mut sql = Sql::new(
        "SELECT digest, type, size, refs, last_used, value, \
         (SELECT count(*) FROM links l CROSS JOIN refs r \
         ON r.scope = l.scope AND r.area IN (0, 1, 2) AND r.list = l.list \
         WHERE l.digest = page.digest AND l.type = page.type) FROM (\
         SELECT r.digest AS digest, r.type AS type, max(r.size) AS size, count(*) AS refs, \
         max(u.last_used) AS last_used, ",
    );
    sql.text(value)
        .text(" AS value FROM refs r INDEXED BY refs_digest LEFT JOIN uses u ON u.ref = r.id WHERE TRUE");
    sql.push_some(" AND r.type = ?", query.artifact_type.map(type_code));
    let by_digest = query.sort == BlobSort::Digest;
    if let (Some(after), true) = (&query.after, by_digest) {
        sql.text(" AND (r.digest, r.type) ").text(beyond);
        sql.push(" (?", after.digest.as_bytes().to_vec()).push(", ?)", type_code(after.artifact_type));
    }
    sql.text(" GROUP BY r.digest, r.type");
    if let (Some(after), false) = (&query.after, by_digest) {
        sql.text(" HAVING (").text(value).text(", r.digest, r.type) ").text(beyond);
        sql.push(" (?", after.value).push(", ?", after.digest.as_bytes().to_vec());
        sql.push(", ?)", type_code(after.artifact_type));
    }
    sql.text(" ORDER BY ");
    if !by_digest {
        sql.text("value ").text(way).text(", ");
    }
    sql.text("r.digest ").text(way).text(", r.type ").text(way);
    sql.push(" LIMIT ?", limit(rows)).text(") page");
    sql
}
