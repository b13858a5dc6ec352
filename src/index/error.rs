//! Why the index could not do it.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// An error of the index. None of them may cost a request: the files answer instead.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another process holds the database, or the writer has no room for more.
    #[error("the index is busy")]
    Busy,
    /// The database file is damaged, is not a database, says what was never written, or is not the one that
    /// was made here.
    #[error("the index is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// Written by a newer version.
    #[error("the index has schema {found}, this version knows {known}")]
    Newer {
        /// The file's schema version.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// The file system cannot share memory between processes, as network file systems cannot.
    #[error("the index cannot live in `{0}`, it needs a local disk")]
    NotLocal(PathBuf),
    /// A file operation beside SQLite's own.
    #[error("could not {act} `{path}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Anything else SQLite says.
    #[error("the index failed")]
    Sqlite(#[source] rusqlite::Error),
    /// No connection could be had.
    #[error("no connection to the index")]
    Pool(#[from] r2d2::Error),
}

/// Sorts what SQLite says into what a caller can act on.
///
/// The statements are constants that the schema is known to satisfy, and every constraint is kept
/// by the code. So a missing table (a file cut to nothing under an open connection), a violated
/// constraint (an index that disagrees with its table) and a value of a wrong type all mean that
/// the file does not hold what was written.
impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        };
        if matches!(
            error,
            FromSqlConversionFailure(..)
                | IntegralValueOutOfRange(..)
                | InvalidColumnType(..)
                | QueryReturnedNoRows
        ) {
            return Self::Damaged(error);
        }
        let Some(cause) = error.sqlite_error() else { return Self::Sqlite(error) };
        match (cause.code, cause.extended_code) {
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy,
            (
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::SchemaChanged
                | ErrorCode::ConstraintViolation,
                _,
            )
            | (_, ffi::SQLITE_ERROR | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_READONLY_DBMOVED) => {
                Self::Damaged(error)
            }
            _ => Self::Sqlite(error),
        }
    }
}

/// A row or file that says what this module never writes.
pub(super) fn damage(why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(why.into()))
}
