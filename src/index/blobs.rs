//! What rows say about blobs: which ones they need, how large they are, how much each proxy needs.
//!
//! A blob belongs to a type: the same digest in two types is two blobs. What refs target stands in
//! `refs_digest`, what they link in `links`, both in the order of digests: everything here walks the two side
//! by side, and needs memory for one page, and for the rows of one blob. Rows do not say whether a blob is there.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, Row, params};

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
/// order but that of digests each page costs a walk over all blobs, in that of last uses one over the uses of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlobSort {
    /// By digest, then type.
    #[default]
    Digest,
    /// By size, those of which nobody states it first.
    Size,
    /// By the number of refs that target it.
    Refs,
    /// By last use, those never used first.
    LastUsed,
}

/// A place in a listing of blobs.
#[derive(Debug, Clone, PartialEq)]
pub struct BlobCursor {
    value: i64,
    place: Place,
}

/// A digest, and the code of a type.
type Place = (Digest, i64);

/// One blob that refs target or link.
#[derive(Debug, Clone, PartialEq)]
pub struct BlobRow {
    /// The type it belongs to.
    pub artifact_type: ArtifactType,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes, as the refs say (the largest, if they differ); `None` if no ref targets it and those
    /// that link it do not say.
    pub size: Option<u64>,
    /// How many refs target it.
    pub refs: u64,
    /// How many refs link it.
    pub links: u64,
    /// The last use of any ref that targets or links it.
    pub last_used: Option<Timestamp>,
}

/// What one proxy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyTotals {
    /// The proxy.
    pub proxy: ProxyId,
    /// Its refs, of every area.
    pub refs: u64,
    /// The distinct blobs that they target or link, whether they are there or were never asked for.
    pub blobs: u64,
    /// The bytes of those, each counted once; nothing for one whose size nobody states.
    pub bytes: u64,
}

/// Every digest of a type that rows target or link, each once.
pub(super) const TARGETS: &str = "\
     SELECT digest FROM refs INDEXED BY refs_digest WHERE digest > ?1 AND type = ?2 \
     UNION SELECT digest FROM links WHERE digest > ?1 AND type = ?2 ORDER BY digest LIMIT ?3";

/// How many refs link a blob, and the last use of any.
pub(super) const LINKED: &str = "SELECT count(*), max(u.last_used) FROM links l \
     CROSS JOIN refs r LEFT JOIN uses u ON u.ref = r.id WHERE l.digest = ?1 AND l.type = ?2 \
     AND r.scope = l.scope AND r.area IN (0, 1, 2) AND r.list = l.list";

/// The last use of any ref that targets a blob.
pub(super) const TARGET_USED: &str = "SELECT max(u.last_used) FROM refs r INDEXED BY refs_digest \
     CROSS JOIN uses u ON u.ref = r.id WHERE r.digest = ?1 AND r.type = ?2";

/// What rows of one kind say of a blob in one proxy.
#[derive(Debug)]
struct Said {
    place: Place,
    proxy: i64,
    /// How many of them target it.
    refs: u64,
    size: Option<u64>,
}

/// A blob, and what it comes by in a listing.
#[derive(Debug)]
struct Found {
    value: i64,
    place: Place,
    size: Option<u64>,
    refs: u64,
}

impl Index {
    /// One page of the blobs that refs target or link.
    pub fn blobs(&self, query: &BlobQuery) -> Result<Page<BlobRow, BlobCursor>, IndexError> {
        let wanted = page_limit(query.limit);
        self.read(|connection| {
            // One snapshot for the statements of one page.
            let snapshot = connection.unchecked_transaction()?;
            let mut page = best(&snapshot, query, wanted + 1)?;
            let more = page.len() > wanted;
            page.truncate(wanted);
            let next = page.last().filter(|_| more);
            let next = next.map(|found| BlobCursor { value: found.value, place: found.place });
            let rows = page.into_iter().map(|found| blob_row(&snapshot, &found));
            Ok(Page { rows: rows.collect::<Result<_, _>>()?, next })
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

    /// What each proxy needs, in the order of proxies. Walks all that refs target and link once, without
    /// sorting.
    pub fn totals(&self) -> Result<Vec<ProxyTotals>, IndexError> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut totals: HashMap<i64, ProxyTotals> = all_proxies(&snapshot)?
                .into_iter()
                .map(|(id, proxy)| (id, ProxyTotals { proxy, refs: 0, blobs: 0, bytes: 0 }))
                .collect();
            each_blob(&snapshot, &BlobQuery::default(), |said| {
                said.sort_unstable_by_key(|said| said.proxy);
                for of_proxy in said.chunk_by(|one, other| one.proxy == other.proxy) {
                    let proxy = totals.get_mut(&of_proxy[0].proxy);
                    let proxy = proxy.ok_or_else(|| super::error::damage("a ref of an unknown proxy"))?;
                    proxy.refs += of_proxy.iter().map(|said| said.refs).sum::<u64>();
                    proxy.blobs += 1;
                    let size = of_proxy.iter().filter_map(|said| said.size).max();
                    proxy.bytes = proxy.bytes.saturating_add(size.unwrap_or(0));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let mut totals: Vec<_> = totals.into_values().filter(|proxy| proxy.refs > 0).collect();
            totals.sort_by(|a, b| a.proxy.cmp(&b.proxy));
            Ok(totals)
        })
    }
}

/// The first blobs of a listing, and no more than so many.
fn best(connection: &Connection, query: &BlobQuery, wanted: usize) -> Result<Vec<Found>, IndexError> {
    let way = |order: Ordering| if query.descending { order.reverse() } else { order };
    let by = |a: &Found, b: &Found| way((a.value, a.place).cmp(&(b.value, b.place)));
    let mut best: Vec<Found> = Vec::new();
    each_blob(connection, query, |said| {
        let place = said[0].place;
        let refs = said.iter().map(|said| said.refs).sum();
        let size = said.iter().filter_map(|said| said.size).max();
        let value = match query.sort {
            BlobSort::Digest => 0,
            BlobSort::Size => size.map_or(-1, clamped),
            BlobSort::Refs => clamped(refs),
            BlobSort::LastUsed => uses(connection, place)?.1.unwrap_or(0),
        };
        let found = Found { value, place, size, refs };
        let comes = |after: &BlobCursor| way((value, place).cmp(&(after.value, after.place))).is_gt();
        if query.after.as_ref().is_none_or(comes) {
            best.push(found);
        }
        if query.sort == BlobSort::Digest {
            return Ok(if best.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
        }
        if best.len() >= wanted * 2 {
            best.sort_unstable_by(by);
            best.truncate(wanted);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    best.sort_unstable_by(by);
    best.truncate(wanted);
    Ok(best)
}

fn blob_row(connection: &Connection, found: &Found) -> Result<BlobRow, IndexError> {
    let (links, last_used) = uses(connection, found.place)?;
    let (digest, code) = found.place;
    let artifact_type = ArtifactType::ALL.into_iter().find(|known| type_code(*known) == code);
    let artifact_type = artifact_type.ok_or_else(|| super::error::damage("a blob of an unknown type"))?;
    let last_used = last_used.map(|at| Timestamp::from_nanosecond(at.into())).transpose();
    let last_used = last_used.map_err(|error| super::error::damage(format!("{error}")))?;
    Ok(BlobRow { artifact_type, digest, size: found.size, refs: found.refs, links, last_used })
}

/// How many refs link a blob, and the last use of any that targets or links it.
fn uses(connection: &Connection, (digest, code): Place) -> rusqlite::Result<(u64, Option<i64>)> {
    let values = params![Column(digest), code];
    let target: Option<i64> = connection.prepare_cached(TARGET_USED)?.query_row(values, |row| row.get(0))?;
    connection.prepare_cached(LINKED)?.query_row(values, |row| {
        Ok((row.get::<_, Column<u64>>(0)?.0, row.get::<_, Option<i64>>(1)?.max(target)))
    })
}

/// Hands over what is said of each blob that refs target or link, in the order of digests, until told to stop.
fn each_blob(
    connection: &Connection,
    query: &BlobQuery,
    mut visit: impl FnMut(&mut [Said]) -> rusqlite::Result<ControlFlow<()>>,
) -> Result<(), IndexError> {
    let (targets, links) = (target_walk(query), link_walk(query));
    let mut statements = (connection.prepare_cached(&targets.text)?, connection.prepare_cached(&links.text)?);
    let mut targets = statements.0.query_map(targets.values(), said)?.peekable();
    let mut links = statements.1.query_map(links.values(), said)?.peekable();
    let mut of_blob: Vec<Said> = Vec::new();
    loop {
        let target_is_next = match (targets.peek(), links.peek()) {
            (Some(Ok(target)), Some(Ok(link))) => {
                let order = target.place.cmp(&link.place);
                order.is_eq() || order.is_lt() != query.descending
            }
            // An error is met at once.
            (Some(Ok(_)), Some(Err(_))) | (None, _) => false,
            (Some(_), _) => true,
        };
        let next = if target_is_next { targets.next() } else { links.next() }.transpose()?;
        let goes_on = next.as_ref().zip(of_blob.first()).is_some_and(|(next, one)| next.place == one.place);
        if !goes_on && !of_blob.is_empty() {
            if visit(&mut of_blob)?.is_break() {
                return Ok(());
            }
            of_blob.clear();
        }
        let Some(next) = next else { return Ok(()) };
        of_blob.push(next);
    }
}

fn said(row: &Row<'_>) -> rusqlite::Result<Said> {
    Ok(Said {
        place: (row.get::<_, Column<Digest>>(0)?.0, row.get(1)?),
        proxy: row.get(2)?,
        refs: row.get::<_, Column<u64>>(3)?.0,
        size: row.get::<_, Option<Column<u64>>>(4)?.map(|size| size.0),
    })
}

/// What refs target, by blob and proxy.
pub(super) fn target_walk(query: &BlobQuery) -> Sql {
    let mut sql = Sql::new(
        "SELECT b.digest, b.type, b.proxy, count(*), max(b.size) FROM refs b INDEXED BY refs_digest WHERE TRUE",
    );
    bounds(&mut sql, query);
    let way = if query.descending { "DESC" } else { "ASC" };
    sql.text(&format!(
        " GROUP BY b.digest, b.type, b.proxy ORDER BY b.digest {way}, b.type {way}, b.proxy {way}"
    ));
    sql
}

/// What refs link, by blob and list.
pub(super) fn link_walk(query: &BlobQuery) -> Sql {
    let mut sql = Sql::new(
        "SELECT b.digest, b.type, s.proxy, 0, b.size FROM links b CROSS JOIN scopes s ON s.id = b.scope WHERE TRUE",
    );
    bounds(&mut sql, query);
    let way = if query.descending { "DESC" } else { "ASC" };
    sql.text(&format!(" ORDER BY b.digest {way}, b.type {way}"));
    sql
}

/// Of one type, and in the order of digests only what comes after the page before.
fn bounds(sql: &mut Sql, query: &BlobQuery) {
    // With a plus, or SQLite takes the type for given, and sorts for want of an index of the rest.
    sql.push_some(" AND +b.type = ?", query.artifact_type.map(type_code));
    let after = query.after.as_ref().filter(|_| query.sort == BlobSort::Digest);
    if let Some(BlobCursor { place: (digest, code), .. }) = after {
        sql.text(" AND (b.digest, b.type) ").text(if query.descending { "<" } else { ">" });
        sql.push(" (?", digest.as_bytes().to_vec()).push(", ?)", *code);
    }
}

/// A number as a value to sort by.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
