//! Listings of refs for people and for maintenance: filters, orders, pages.
//!
//! In the order of keys a listing walks `refs_key`, so that all pages together read each row once.
//! In any other order it walks `refs_facts`, a narrow copy of the table, keeps the best of one page
//! and reads whole rows only for those: each page costs one walk, up to half a second for a
//! million refs, so whoever wants them all asks for large pages. Paths are not in that copy: by
//! prefix or glob it walks `refs_key`, from the prefix or from the first, and reads a row of the
//! table for each path that matches, in no order.

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::rows::{self, Column, REF_COLUMNS, area_code, nanoseconds, ref_columns};
use super::{Index, IndexError, MAX_PAGE, Page};
use crate::model::{Area, ArtifactType, Digest, ProxyId, ProxyName, Ref, RefKey, Timestamp, give_way};

/// Which refs, in which order. Every filter that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct RefQuery {
    /// Of this type.
    pub artifact_type: Option<ArtifactType>,
    /// Of proxies of this name.
    pub proxy: Option<ProxyName>,
    /// In this area.
    pub area: Option<Area>,
    /// Of this kind.
    pub kind: Option<String>,
    /// With paths that begin so.
    pub path_prefix: Option<String>,
    /// With paths like this: `*` is any text, slashes too, `?` one character, `[…]` one of a set.
    pub path_glob: Option<String>,
    /// Confirmed by upstream before this.
    pub fetched_before: Option<Timestamp>,
    /// Not used at or after this; a ref never used counts as used when it was fetched.
    pub unused_since: Option<Timestamp>,
    /// Past their time at this moment. Refs without a time never are.
    pub expired_at: Option<Timestamp>,
    /// That target this blob.
    pub digest: Option<Digest>,
    /// The order.
    pub sort: RefSort,
    /// The order turned round.
    pub descending: bool,
    /// The most rows on a page; at most [`MAX_PAGE`] are given. 0 asks for that many.
    pub limit: usize,
    /// [`Page::next`] of the page before, of a query that differs in nothing else.
    pub after: Option<RefCursor>,
}

/// The order of a listing. Rows that are equal in it come in the order they were first recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefSort {
    /// By key: type, proxy, area, path.
    #[default]
    Path,
    /// By last use; a ref never used counts as used when it was fetched.
    LastUsed,
    /// By when upstream confirmed it.
    FetchedAt,
    /// By size.
    Size,
}

/// A place in a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct RefCursor(Place);

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Key(RefKey),
    Row { value: i64, id: i64 },
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct RefRow {
    /// The ref's address.
    pub key: RefKey,
    /// Its scope.
    pub scope: String,
    /// The ref as recorded; `links` are not loaded.
    pub reference: Ref,
    /// Its last use, if one was ever written.
    pub last_used: Option<Timestamp>,
}

impl Index {
    /// One page of refs. All pages together give each ref that is there all the while exactly once.
    pub fn query(&self, query: &RefQuery) -> Result<Page<RefRow, RefCursor>, IndexError> {
        self.read(|connection| {
            // One snapshot for the statements of one page.
            let snapshot = connection.unchecked_transaction()?;
            let proxies = proxies(&snapshot, query)?;
            match query.sort {
                RefSort::Path => {
                    let read = |proxy: &ProxyId, row: &Row<'_>| ref_row(proxy.clone(), row);
                    walk_keys(&snapshot, query, &proxies, ROWS_BY_KEY, read, |row| &row.key)
                }
                _ => by_value(&snapshot, query, &proxies),
            }
        })
    }

    /// One page of refs, the longest unused first: the order in which they are evicted.
    pub fn least_recently_used(
        &self,
        limit: usize,
        after: Option<RefCursor>,
    ) -> Result<Page<RefRow, RefCursor>, IndexError> {
        self.query(&RefQuery { sort: RefSort::LastUsed, limit, after, ..RefQuery::default() })
    }

    /// One page of keys, in their order; at most [`MAX_PAGE`]. Reads one index and no row.
    pub fn keys(
        &self,
        limit: usize,
        after: Option<RefCursor>,
    ) -> Result<Page<RefKey, RefCursor>, IndexError> {
        let query = RefQuery { limit, after, ..RefQuery::default() };
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let proxies = proxies(&snapshot, &query)?;
            walk_keys(
                &snapshot,
                &query,
                &proxies,
                KEYS,
                |proxy, row| {
                    give_way();
                    rows::key(proxy.clone(), row, 0)
                },
                |key| key,
            )
        })
    }

    /// How many refs there are.
    pub fn count(&self) -> Result<u64, IndexError> {
        let count = self.read(|connection| {
            Ok(connection.prepare_cached(COUNT)?.query_row([], |row| row.get::<_, Column<u64>>(0))?)
        })?;
        Ok(count.0)
    }
}

pub(super) const COUNT: &str = "SELECT count(*) FROM refs";

/// The most rows of a page.
pub(super) fn page_limit(asked: usize) -> usize {
    if asked == 0 { MAX_PAGE } else { asked.min(MAX_PAGE) }
}

/// The proxies that a query is about, in the order of keys.
fn proxies(connection: &Connection, query: &RefQuery) -> Result<Vec<(i64, ProxyId)>, IndexError> {
    let mut proxies = all_proxies(connection)?;
    proxies.retain(|(_, proxy)| {
        query.artifact_type.is_none_or(|wanted| wanted == proxy.artifact_type)
            && query.proxy.as_ref().is_none_or(|wanted| *wanted == proxy.name)
    });
    proxies.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(proxies)
}

/// Every proxy that ever had a ref. There are as many as were ever configured.
pub(super) fn all_proxies(connection: &Connection) -> Result<Vec<(i64, ProxyId)>, IndexError> {
    let mut statement = connection.prepare_cached("SELECT id, type, name FROM proxies")?;
    let rows = statement.query_map([], |row| {
        let name = row.get_ref(2)?.as_str()?;
        let name = name.parse().map_err(|error| super::error::damage(format!("{error}")))?;
        Ok((row.get(0)?, ProxyId { artifact_type: row.get::<_, Column<_>>(1)?.0, name }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Walks `refs_key`, one proxy and area after the other, until the page is full: of what `select` gives,
/// which `read` reads.
fn walk_keys<T>(
    connection: &Connection,
    query: &RefQuery,
    proxies: &[(i64, ProxyId)],
    select: &str,
    read: impl Fn(&ProxyId, &Row<'_>) -> rusqlite::Result<T>,
    key_of: impl Fn(&T) -> &RefKey,
) -> Result<Page<T, RefCursor>, IndexError> {
    let limit = page_limit(query.limit);
    let after = match &query.after {
        Some(RefCursor(Place::Key(key))) => Some(key),
        _ => None,
    };
    let mut segments: Vec<(i64, &ProxyId, Area)> = proxies
        .iter()
        .flat_map(|(id, proxy)| Area::ALL.map(|area| (*id, proxy, area)))
        .filter(|(_, _, area)| query.area.is_none_or(|wanted| wanted == *area))
        .collect();
    if query.descending {
        segments.reverse();
    }
    let mut page: Vec<T> = Vec::new();
    for (id, proxy, area) in segments {
        let mut from = None;
        if let Some(key) = after {
            let order = (proxy, area).cmp(&(&key.proxy, key.area));
            let done = if query.descending { order.is_gt() } else { order.is_lt() };
            if done {
                continue;
            }
            from = order.is_eq().then(|| key.path.as_str());
        }
        // One more than wanted tells whether there is a next page.
        let sql = key_walk(select, query, id, area, from, limit + 1 - page.len());
        sql.each(connection, |row| {
            page.push(read(proxy, row)?);
            Ok(())
        })?;
        if page.len() > limit {
            page.truncate(limit);
            let next = page.last().map(|last| RefCursor(Place::Key(key_of(last).clone())));
            return Ok(Page { rows: page, next });
        }
    }
    Ok(Page { rows: page, next: None })
}

/// Columns of a [`RefRow`] but for the proxy; `r`, `s` and `u` are refs, scopes and uses.
macro_rules! row_columns {
    () => {
        concat!(ref_columns!(), ", r.area, r.path, s.name, u.last_used")
    };
}

const ROW_COLUMNS: usize = REF_COLUMNS + 4;

/// What a walk in the order of keys reads: whole rows, or the keys alone.
pub(super) const ROWS_BY_KEY: &str = concat!(
    "SELECT ",
    row_columns!(),
    " FROM refs r INDEXED BY refs_key CROSS JOIN scopes s ON s.id = r.scope \
     LEFT JOIN uses u ON u.ref = r.id WHERE "
);
pub(super) const KEYS: &str = "SELECT r.area, r.path FROM refs r INDEXED BY refs_key WHERE ";

pub(super) fn key_walk(
    select: &str,
    query: &RefQuery,
    proxy: i64,
    area: Area,
    from: Option<&str>,
    limit: usize,
) -> Sql {
    let mut sql = Sql::new(select);
    sql.push("r.proxy = ?", proxy).push(" AND r.area = ?", area_code(area));
    // Of two bounds at the same end only the closer one is given: SQLite seeks by the first it sees.
    let (low, high) = prefix_bounds(query);
    match (from, query.descending) {
        (Some(from), false) if low.as_deref().is_none_or(|low| from >= low) => {
            sql.push(" AND r.path > ?", from.to_owned()).push_some(" AND r.path < ?", high);
        }
        (Some(from), true) if high.as_deref().is_none_or(|high| from < high) => {
            sql.push_some(" AND r.path >= ?", low).push(" AND r.path < ?", from.to_owned());
        }
        _ => {
            sql.push_some(" AND r.path >= ?", low).push_some(" AND r.path < ?", high);
        }
    }
    filters(&mut sql, query);
    sql.text(" ORDER BY r.path").text(if query.descending { " DESC" } else { "" });
    sql.push(" LIMIT ?", rows::limit(limit));
    sql
}

/// Finds the ids of one page by value, then reads their rows.
fn by_value(
    connection: &Connection,
    query: &RefQuery,
    proxies: &[(i64, ProxyId)],
) -> Result<Page<RefRow, RefCursor>, IndexError> {
    let limit = page_limit(query.limit);
    let ids: Vec<i64> = proxies.iter().map(|(id, _)| *id).collect();
    let mut page: Vec<(RefRow, Place)> = Vec::new();
    value_walk(query, &ids, limit + 1).each(connection, |row| {
        let id: i64 = row.get(ROW_COLUMNS)?;
        let proxy = proxies.iter().find(|(known, _)| *known == id).map(|(_, proxy)| proxy.clone());
        let proxy = proxy.ok_or_else(|| super::error::damage("a ref of an unknown proxy"))?;
        let place = Place::Row { value: row.get(ROW_COLUMNS + 1)?, id: row.get(ROW_COLUMNS + 2)? };
        page.push((ref_row(proxy, row)?, place));
        Ok(())
    })?;
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|(_, place)| RefCursor(place.clone()));
    Ok(Page { rows: page.into_iter().map(|(row, _)| row).collect(), next })
}

pub(super) fn value_walk(query: &RefQuery, proxies: &[i64], limit: usize) -> Sql {
    let value = match query.sort {
        RefSort::Path => "r.id",
        RefSort::LastUsed => "coalesce(u.last_used, r.fetched_at)",
        RefSort::FetchedAt => "r.fetched_at",
        RefSort::Size => "r.size",
    };
    let (way, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    let (low, high) = prefix_bounds(query);
    let index = match (&query.digest, &query.path_glob, &low) {
        (Some(_), _, _) => "refs_digest",
        (None, None, None) => "refs_facts",
        (None, _, _) => "refs_key",
    };
    let mut sql =
        Sql::new(concat!("SELECT ", row_columns!(), ", r.proxy, page.value, r.id FROM (SELECT r.id AS id, "));
    sql.text(value).text(" AS value FROM refs r INDEXED BY ").text(index);
    sql.text(" LEFT JOIN uses u ON u.ref = r.id WHERE r.proxy IN (").list(proxies).text(")");
    // All areas named, where none is: `refs_key` reaches the path only behind the area.
    let areas = query.area.map_or_else(|| Area::ALL.map(area_code).to_vec(), |area| vec![area_code(area)]);
    sql.text(" AND r.area IN (").list(&areas).text(")");
    sql.push_some(" AND r.path >= ?", low).push_some(" AND r.path < ?", high);
    filters(&mut sql, query);
    if let Some(RefCursor(Place::Row { value: last, id })) = query.after {
        sql.text(" AND (").text(value).text(", r.id) ").text(beyond);
        sql.push(" (?", last).push(", ?)", id);
    }
    let order = format!(" ORDER BY value {way}, id {way}");
    sql.text(&order).push(" LIMIT ?", rows::limit(limit));
    sql.text(
        ") page CROSS JOIN refs r ON r.id = page.id CROSS JOIN scopes s ON s.id = r.scope \
         LEFT JOIN uses u ON u.ref = r.id",
    );
    sql.text(&order.replace(" value", " page.value").replace(" id", " page.id"));
    sql
}

/// Conditions on the columns of `refs r LEFT JOIN uses u` beside proxy, area and prefix.
fn filters(sql: &mut Sql, query: &RefQuery) {
    sql.push_some(" AND r.digest = ?", query.digest.map(|digest| digest.as_bytes().to_vec()));
    sql.push_some(" AND r.kind = ?", query.kind.clone());
    sql.push_some(" AND r.fetched_at < ?", query.fetched_before.map(nanoseconds));
    sql.push_some(" AND coalesce(u.last_used, r.fetched_at) < ?", query.unused_since.map(nanoseconds));
    // A time beyond what fits becomes a real number, which compares as well.
    sql.push_some(" AND r.fetched_at + r.ttl_seconds * 1000000000 <= ?", query.expired_at.map(nanoseconds));
    sql.push_some(" AND r.path GLOB ?", query.path_glob.clone());
}

/// The range of paths that the prefix, or what stands in the glob before its first special
/// character, allows: from the first, to before the second.
fn prefix_bounds(query: &RefQuery) -> (Option<String>, Option<String>) {
    let literal = query.path_glob.as_deref().and_then(|glob| glob.split(['*', '?', '[']).next());
    let prefixes = (query.path_prefix.as_deref().unwrap_or_default(), literal.unwrap_or_default());
    match prefixes {
        ("", "") => (None, None),
        (one, other) if one.starts_with(other) => (Some(one.to_owned()), successor(one)),
        (one, other) if other.starts_with(one) => (Some(other.to_owned()), successor(other)),
        // No path begins with both: nothing is both from here on and before here.
        (one, _) => (Some(one.to_owned()), Some(one.to_owned())),
    }
}

/// The first text, in the order of bytes, behind all that begin with `prefix`; `None` if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

fn ref_row(proxy: ProxyId, row: &Row<'_>) -> rusqlite::Result<RefRow> {
    Ok(RefRow {
        key: rows::key(proxy, row, REF_COLUMNS)?,
        scope: row.get(REF_COLUMNS + 2)?,
        reference: rows::reference(row, 0)?,
        last_used: row.get::<_, Option<Column<Timestamp>>>(REF_COLUMNS + 3)?.map(|at| at.0),
    })
}

/// A statement that grows together with its values, so that no value ever becomes text of it.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Ids and codes, which are numbers of our own.
    fn list(&mut self, numbers: &[i64]) -> &mut Self {
        for (at, number) in numbers.iter().enumerate() {
            self.text.push_str(if at == 0 { "" } else { ", " });
            self.text.push_str(&number.to_string());
        }
        self
    }

    /// Text with one `?`, and its value.
    pub(super) fn push(&mut self, text: &str, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.text(text)
    }

    pub(super) fn push_some(&mut self, text: &str, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.push(text, value),
            None => self,
        }
    }

    /// Its values, in the order of the text.
    pub(super) fn values(&self) -> impl rusqlite::Params {
        rusqlite::params_from_iter(&self.values)
    }

    /// Runs it, and hands over each row.
    pub(super) fn each(
        &self,
        connection: &Connection,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), IndexError> {
        let mut statement = connection.prepare_cached(&self.text)?;
        let mut rows = statement.query(self.values())?;
        while let Some(found) = rows.next()? {
            row(found)?;
        }
        Ok(())
    }
}
