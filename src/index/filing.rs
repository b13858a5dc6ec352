//! Links by digest, filed all at once: what a rebuild from nothing does instead of filing each ref's as it
//! comes.
//!
//! Digests come in no order, so that each one filed by itself goes to another page of `links`, and a
//! rebuild would write that table over and over. What refs link stands in `lists` in any case: so a
//! rebuild from nothing leaves `links` to its end, and then files in the order of digests, in as many
//! passes over `lists` as keep the memory small. Each pass is one transaction, which sees what others
//! have written until then; links that they write from the first pass on they file themselves.
//!
//! Crash behaviour: `unfiled` in `meta` says that links are missing until all are filed, and the next
//! rebuild files them again. Until then the index is not complete, and nobody relies on it.

use rusqlite::{Connection, params};

use super::record::{Batch, LINK};
use super::rows::{Column, LINK_LEN, claim};
use super::{Index, IndexError};
use crate::model::{Claim, give_way};

/// About the most links that are held in memory, some fifty bytes each; few in tests, so that they too take
/// several passes.
const MAX_HELD: usize = if cfg!(test) { 8 } else { 1 << 20 };

/// Where the filing of links stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filing {
    /// Every list's links are filed with it.
    Done = 0,
    /// Nobody files links: that is left to the end of the rebuild.
    Left = 1,
    /// All are being filed, and whoever writes a list files its links.
    Going = 2,
}

/// 0 where nothing was ever noted.
pub(super) const NOTED: &str = "SELECT value FROM meta WHERE key = 'unfiled'";

/// How many bytes of links there are.
pub(super) const VOLUME: &str = "SELECT coalesce(sum(length(links)), 0) FROM lists";

/// Every list, and what its links are filed under.
pub(super) const LISTS: &str = "SELECT links, type, scope, id FROM lists ORDER BY id";

impl Filing {
    /// Where it stands now.
    pub(super) fn of(connection: &Connection) -> Result<Self, IndexError> {
        let mut statement = connection.prepare_cached(NOTED)?;
        let mut rows = statement.query([])?;
        Ok(match rows.next()?.map(|row| row.get(0)).transpose()? {
            Some(1) => Self::Left,
            Some(2) => Self::Going,
            _ => Self::Done,
        })
    }
}

/// A link and what it is filed under, in the order of the table's key.
type Held = ([u8; LINK_LEN], i64, i64, i64);

impl Batch<'_> {
    /// Notes where the filing stands.
    pub(super) fn note_filing(&mut self, filing: Filing) -> Result<(), IndexError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('unfiled', ?1) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.tx.prepare_cached(sql)?.execute([filing as i64])?;
        self.filing = filing;
        Ok(())
    }

    /// Files the links whose digests begin with a byte pair from `first` to `last`.
    fn file(&self, first: u16, last: u16) -> Result<(), IndexError> {
        let mut held: Vec<Held> = Vec::new();
        let mut statement = self.tx.prepare_cached(LISTS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (links, _) =
                row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?.as_chunks::<LINK_LEN>();
            let (artifact_type, scope, id) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let mine =
                links.iter().filter(|link| (first..=last).contains(&u16::from_be_bytes([link[0], link[1]])));
            held.extend(mine.map(|link| (*link, artifact_type, scope, id)));
            // Only where many lists have the same.
            if held.len() >= 2 * MAX_HELD {
                self.file_held(&mut held)?;
            }
        }
        self.file_held(&mut held)
    }

    fn file_held(&self, held: &mut Vec<Held>) -> Result<(), IndexError> {
        held.sort_unstable();
        let mut insert = self.tx.prepare_cached(LINK)?;
        for (link, artifact_type, scope, id) in held.drain(..) {
            let Claim { digest, size } = claim(&link);
            insert.execute(params![Column(digest), artifact_type, scope, id, size.map(Column)])?;
            give_way();
        }
        Ok(())
    }
}

impl Index {
    /// Files what a rebuild from nothing has left to its end, if there is any.
    pub(super) fn file_links(&self) -> Result<(), IndexError> {
        let passes = self.write(|batch| {
            if batch.filing == Filing::Done {
                return Ok(0);
            }
            batch.note_filing(Filing::Going)?;
            let bytes: i64 = batch.tx.query_row(VOLUME, [], |row| row.get(0))?;
            let links = usize::try_from(bytes).unwrap_or(usize::MAX) / LINK_LEN;
            Ok(links.div_ceil(MAX_HELD).clamp(1, usize::from(u16::MAX)))
        })?;
        for pass in 0..passes {
            let begin = |pass| u16::try_from(pass * (1 << 16) / passes).unwrap_or(u16::MAX);
            let last = if pass + 1 == passes { u16::MAX } else { begin(pass + 1) - 1 };
            self.write(|batch| batch.file(begin(pass), last))?;
        }
        if passes == 0 { Ok(()) } else { self.write(|batch| batch.note_filing(Filing::Done)) }
    }
}
