//! `repoxy ls`: refs, blobs, proxies. JSON is printed page by page; a table is as long as it is.

use serde::Serialize;

use repoxy::index::{BlobQuery, BlobRow, Index, ProxyTotals, RefQuery, RefRow};
use repoxy::model::{Clock as _, Digest, Ref, SystemClock, Timestamp};

use crate::args::{Global, LsBlobsArgs, LsCommand, LsProxiesArgs, LsRefsArgs};
use crate::exit::{CliError, Exit};
use crate::output::{Output, bytes, table};
use crate::settings;

/// Rows of a table that are laid out together: wider ones further down get columns of their own.
const TABLE_PAGE: usize = 5000;

pub(crate) async fn run(global: &Global, command: &LsCommand) -> Result<Exit, CliError> {
    let json = match command {
        LsCommand::Refs(args) => args.json,
        LsCommand::Blobs(args) => args.json,
        LsCommand::Proxies(args) => args.json,
    };
    let mut output = Output::new(global, json);
    let config = settings::load(global)?;
    let store = settings::store(&config).await?;
    let listing = settings::listing(&config, &store, &output).await?;
    output.bars().clear();
    match command {
        LsCommand::Refs(args) => refs(&listing.index, args, &mut output)?,
        LsCommand::Blobs(args) => blobs(&listing.index, args, &mut output)?,
        LsCommand::Proxies(LsProxiesArgs { .. }) => proxies(&listing.index, &mut output)?,
    }
    output.finish()?;
    Ok(Exit::Done)
}

/// A ref. Says what the files say, so that it is the same after a rebuild of the index.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RefLine<'l> {
    r#ref: String,
    r#type: &'static str,
    proxy: &'l str,
    area: &'static str,
    path: &'l str,
    kind: &'l str,
    digest: Digest,
    media_type: Option<&'l str>,
    size: u64,
    upstream: Option<&'l str>,
    fetched_at: Timestamp,
    ttl_seconds: Option<u64>,
    etag: Option<&'l str>,
    last_modified: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<LastUsed>,
}

/// A last use; null if there is none, where a field that is not asked for is not there at all.
#[derive(Debug, Serialize)]
struct LastUsed(Option<Timestamp>);

fn refs(index: &Index, args: &LsRefsArgs, output: &mut Output) -> Result<(), CliError> {
    let now = SystemClock.now();
    let before = |period| now.checked_sub(period).unwrap_or(Timestamp::MIN);
    let mut query = RefQuery {
        artifact_type: args.artifact_type,
        proxy: args.proxy.clone(),
        area: args.area,
        kind: args.kind.clone(),
        path_glob: args.path.clone(),
        fetched_before: args.older_than.map(before),
        unused_since: args.unused_for.map(before),
        expired_at: args.expired.then_some(now),
        digest: args.digest,
        sort: args.sort.into(),
        descending: args.reverse,
        ..RefQuery::default()
    };
    pages(args.limit, output.is_json(), |limit| {
        query.limit = limit;
        let page = index.query(&query)?;
        query.after = page.next;
        print_refs(&page.rows, args.uses, now, output)?;
        Ok((page.rows.len(), query.after.is_some()))
    })
}

fn print_refs(rows: &[RefRow], uses: bool, now: Timestamp, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return rows.iter().try_for_each(|row| {
            let (key, reference) = (&row.key, &row.reference);
            output.object(&RefLine {
                r#ref: key.to_string(),
                r#type: key.proxy.artifact_type.as_str(),
                proxy: key.proxy.name.as_str(),
                area: key.area.as_str(),
                path: key.path.as_str(),
                kind: &reference.kind,
                digest: reference.target_digest,
                media_type: reference.media_type.as_deref(),
                size: reference.size,
                upstream: reference.upstream.as_deref(),
                fetched_at: reference.fetched_at,
                ttl_seconds: reference.ttl_seconds,
                etag: reference.etag.as_deref(),
                last_modified: reference.last_modified.as_deref(),
                valid_until: reference.valid_until(),
                last_used: uses.then_some(LastUsed(row.last_used)),
            })
        });
    }
    let mut table = table(&["REF", "KIND", ">SIZE", "FETCHED", "LAST USED", "STATE"]);
    for row in rows {
        table.add_row([
            row.key.to_string(),
            row.reference.kind.clone(),
            bytes(row.reference.size),
            moment(Some(row.reference.fetched_at)),
            moment(row.last_used),
            state(&row.reference, now).to_owned(),
        ]);
    }
    output.table(&table)
}

/// The word for whether a ref may be used without asking, and whether clients still accept its content.
fn state(reference: &Ref, now: Timestamp) -> &'static str {
    if reference.valid_until().is_some_and(|until| until < now) {
        "lapsed"
    } else if reference.is_fresh(now) {
        "fresh"
    } else {
        "expired"
    }
}

/// A blob.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlobLine {
    r#type: &'static str,
    digest: Digest,
    /// Null if nobody states it.
    size: Option<u64>,
    refs: u64,
    links: u64,
}

fn blobs(index: &Index, args: &LsBlobsArgs, output: &mut Output) -> Result<(), CliError> {
    let mut query = BlobQuery {
        artifact_type: args.artifact_type,
        sort: args.sort.into(),
        descending: args.reverse,
        ..BlobQuery::default()
    };
    pages(args.limit, output.is_json(), |limit| {
        query.limit = limit;
        let page = index.blobs(&query)?;
        query.after = page.next;
        print_blobs(&page.rows, output)?;
        Ok((page.rows.len(), query.after.is_some()))
    })
}

fn print_blobs(rows: &[BlobRow], output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return rows.iter().try_for_each(|row| {
            output.object(&BlobLine {
                r#type: row.artifact_type.as_str(),
                digest: row.digest,
                size: row.size,
                refs: row.refs,
                links: row.links,
            })
        });
    }
    let mut table = table(&["TYPE", "DIGEST", ">SIZE", ">REFS", ">LINKS", "LAST USED"]);
    for row in rows {
        table.add_row([
            row.artifact_type.to_string(),
            row.digest.to_string(),
            row.size.map_or("-".to_owned(), bytes),
            row.refs.to_string(),
            row.links.to_string(),
            moment(row.last_used),
        ]);
    }
    output.table(&table)
}

/// A proxy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyLine<'l> {
    r#type: &'static str,
    proxy: &'l str,
    refs: u64,
    blobs: u64,
    bytes: u64,
}

fn proxies(index: &Index, output: &mut Output) -> Result<(), CliError> {
    let totals: Vec<ProxyTotals> = index.totals()?;
    if output.is_json() {
        return totals.iter().try_for_each(|total| {
            output.object(&ProxyLine {
                r#type: total.proxy.artifact_type.as_str(),
                proxy: total.proxy.name.as_str(),
                refs: total.refs,
                blobs: total.blobs,
                bytes: total.bytes,
            })
        });
    }
    let mut table = table(&["TYPE", "PROXY", ">REFS", ">BLOBS", ">SIZE"]);
    for total in &totals {
        table.add_row([
            total.proxy.artifact_type.to_string(),
            total.proxy.name.to_string(),
            total.refs.to_string(),
            total.blobs.to_string(),
            bytes(total.bytes),
        ]);
    }
    output.table(&table)
}

/// Asks for pages until there are no more or `limit` rows were had. `page` takes how many rows are
/// wanted, and gives how many it had and whether there are more.
fn pages(
    limit: Option<usize>,
    json: bool,
    mut page: impl FnMut(usize) -> Result<(usize, bool), CliError>,
) -> Result<(), CliError> {
    let most = if json { repoxy::index::MAX_PAGE } else { TABLE_PAGE };
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        let (rows, more) = page(left.min(most))?;
        left -= rows.min(left);
        if !more {
            break;
        }
    }
    Ok(())
}

/// A moment to the second, or `-`.
fn moment(at: Option<Timestamp>) -> String {
    at.map_or("-".to_owned(), |at| format!("{at:.0}"))
}
