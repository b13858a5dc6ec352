//! How values become columns and columns become values again.
//!
//! A row says exactly what the ref file says, `links` aside, except that numbers beyond 2^63 and
//! moments outside the years 1678 to 2261 are written as the nearest that fit. A column that holds
//! what is never written is damage, not a default.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::damage;
use crate::model::{Area, ArtifactType, Claim, Digest, ProxyId, Ref, RefKey, Timestamp};

/// The columns of a [`Ref`], in the order that [`reference`] reads them.
macro_rules! ref_columns {
    () => {
        "r.kind, r.digest, r.size, r.fetched_at, r.ttl_seconds, r.media_type, r.upstream, r.etag, \
         r.last_modified, r.headers, r.http, r.unknown"
    };
}
pub(super) use ref_columns;

/// How many columns `ref_columns!` names.
pub(super) const REF_COLUMNS: usize = 12;

/// Reads a [`Ref`] from `ref_columns!` that begin at column `at`. Its links are not there.
pub(super) fn reference(row: &Row<'_>, at: usize) -> Result<Ref> {
    Ok(Ref {
        kind: row.get(at)?,
        target_digest: row.get::<_, Column<Digest>>(at + 1)?.0,
        size: row.get::<_, Column<u64>>(at + 2)?.0,
        fetched_at: row.get::<_, Column<Timestamp>>(at + 3)?.0,
        ttl_seconds: row.get::<_, Option<Column<u64>>>(at + 4)?.map(|ttl| ttl.0),
        media_type: row.get(at + 5)?,
        upstream: row.get(at + 6)?,
        etag: row.get(at + 7)?,
        last_modified: row.get(at + 8)?,
        links: None,
        headers: from_json(row.get_ref(at + 9)?)?,
        http: from_json(row.get_ref(at + 10)?)?,
        unknown: from_json(row.get_ref(at + 11)?)?,
    })
}

/// Reads a key whose proxy is known from columns `area, path` that begin at column `at`.
pub(super) fn key(proxy: ProxyId, row: &Row<'_>, at: usize) -> Result<RefKey> {
    let path = row.get_ref(at + 1)?.as_str()?;
    Ok(RefKey {
        proxy,
        area: row.get::<_, Column<Area>>(at)?.0,
        path: path.parse().map_err(|_| damage(format!("`{path}` is not the path of a ref")))?,
    })
}

/// JSON of a map; null if it is empty.
pub(super) fn to_json(map: &impl Serialize, empty: bool) -> Result<Option<String>> {
    if empty {
        return Ok(None);
    }
    serde_json::to_string(map)
        .map(Some)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn from_json<T: DeserializeOwned + Default>(column: ValueRef<'_>) -> Result<T> {
    match column.as_str_or_null()? {
        None => Ok(T::default()),
        Some(json) => serde_json::from_str(json).map_err(|error| damage(format!("bad JSON: {error}"))),
    }
}

/// A value of the model as a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<T>(pub(super) T);

impl ToSql for Column<Digest> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}

impl FromSql for Column<Digest> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(|bytes| Self(Digest::from_bytes(bytes)))
    }
}

impl ToSql for Column<Timestamp> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(nanoseconds(self.0).into())
    }
}

impl FromSql for Column<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let nanoseconds = i128::from(value.as_i64()?);
        Timestamp::from_nanosecond(nanoseconds).map(Self).map_err(|error| FromSqlError::Other(error.into()))
    }
}

impl ToSql for Column<u64> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Column<u64> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let value = value.as_i64()?;
        u64::try_from(value).map(Self).map_err(|_| FromSqlError::OutOfRange(value))
    }
}

/// Bytes of a link in a list: a digest and a size.
pub(super) const LINK_LEN: usize = 40;

/// Stands for a size that is not stated.
const NO_SIZE: u64 = u64::MAX;

/// A link as it stands in a list.
pub(super) fn claim(link: &[u8; LINK_LEN]) -> Claim {
    let (mut digest, mut size) = ([0; size_of::<Digest>()], [0; size_of::<u64>()]);
    digest.copy_from_slice(&link[..size_of::<Digest>()]);
    size.copy_from_slice(&link[size_of::<Digest>()..]);
    let size = Some(u64::from_be_bytes(size)).filter(|size| *size != NO_SIZE);
    Claim { digest: Digest::from_bytes(digest), size }
}

/// A list of links as it stands in its row.
pub(super) fn list(links: &[Claim]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(links.len() * LINK_LEN);
    for link in links {
        bytes.extend_from_slice(link.digest.as_bytes());
        bytes.extend_from_slice(&link.size.unwrap_or(NO_SIZE).to_be_bytes());
    }
    bytes
}

impl FromSql for Column<Vec<Claim>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let (links, rest) = value.as_blob()?.as_chunks::<LINK_LEN>();
        if !rest.is_empty() {
            return Err(FromSqlError::InvalidType);
        }
        Ok(Self(links.iter().map(claim).collect()))
    }
}

impl ToSql for Column<ArtifactType> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(type_code(self.0).into())
    }
}

impl FromSql for Column<ArtifactType> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let code = value.as_i64()?;
        let found = ArtifactType::ALL.into_iter().find(|known| type_code(*known) == code);
        found.map(Self).ok_or(FromSqlError::OutOfRange(code))
    }
}

impl ToSql for Column<Area> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(area_code(self.0).into())
    }
}

impl FromSql for Column<Area> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let code = value.as_i64()?;
        let found = Area::ALL.into_iter().find(|known| area_code(*known) == code);
        found.map(Self).ok_or(FromSqlError::OutOfRange(code))
    }
}

/// Part of the schema: a code never changes its meaning.
pub(super) const fn type_code(artifact_type: ArtifactType) -> i64 {
    match artifact_type {
        ArtifactType::Container => 0,
        ArtifactType::Tf => 1,
        ArtifactType::Debian => 2,
        ArtifactType::Generic => 3,
    }
}

/// Part of the schema: a code never changes its meaning.
pub(super) const fn area_code(area: Area) -> i64 {
    match area {
        Area::Refs => 0,
        Area::Meta => 1,
        Area::Cache => 2,
    }
}

/// A number of rows as a column.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A moment as a column; what does not fit is the nearest that does.
pub(super) fn nanoseconds(moment: Timestamp) -> i64 {
    let wide = moment.as_nanosecond();
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}
