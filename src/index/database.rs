//! One open database: its connections, what state it is in, and how it is opened.
//!
//! It must not know what is in the tables beyond `meta`. Opening creates what is missing, migrates
//! what is older, and sets aside (never deletes) what is damaged, newer, or not the file that was made here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::error::damage;
use super::files::{DATABASE, Directory, Identity, was_made_here};
use super::record::{Batch, PROXY};
use super::rows::Column;
use super::{IndexError, schema};
use crate::model::ProxyId;

/// Reading connections beside those that are always there, for upkeep that pages through everything: making
/// room, and a rebuild. Opened when they are needed first.
const SPARE_READERS: u32 = 2;

/// How long a reader waits for a pooled connection. There are more than threads that answer, so
/// only many long listings at once make anybody wait at all.
const CONNECTION_PATIENCE: Duration = Duration::from_millis(250);

/// How long making the reading connections may take, on a machine that is busy with other things.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// How an index is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Reading connections that are always there; a server has one for each worker thread. Each costs up to
    /// 4 MiB of page cache when it is busy.
    pub readers: u32,
    /// How long a write waits for another process's transaction.
    pub busy: Duration,
}

impl Default for Options {
    /// Two readers; five seconds.
    fn default() -> Self {
        Self { readers: 2, busy: Duration::from_secs(5) }
    }
}

/// What was there when an index was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// An index; [`Index::is_complete`] tells whether its last rebuild ended.
    Existing,
    /// Nothing: the index is new and empty, so it has to be rebuilt.
    Fresh,
    /// Something that cannot be used, which is now at this path. The index is new and empty.
    SetAside(PathBuf),
}

/// What has become of an open index's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is where it was.
    Same,
    /// Another file is in its place.
    Replaced,
    /// Nothing is in its place. SQLite would go on committing into the deleted file.
    Missing,
    /// It is where it was, and is damaged.
    Damaged,
}

/// An open index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Index(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    identity: Identity,
    readers: r2d2::Pool<SqliteConnectionManager>,
    writer: Mutex<Connection>,
    complete: AtomicBool,
    damaged: AtomicBool,
    /// Ids of proxies, once they are known: they are never given to another one, and every question of a
    /// request begins with one.
    proxies: RwLock<HashMap<ProxyId, i64>>,
}

impl Index {
    /// Opens the index in a directory with the default options. See [`Self::open_with`].
    pub fn open(dir: &Path) -> Result<(Self, Opened), IndexError> {
        Self::open_with(dir, &Options::default())
    }

    /// Opens the index in a directory, or makes one that is empty.
    ///
    /// A file that is damaged, newer, not an index or not the one that was made here (a copy, whose rows are
    /// of another day) is renamed to `index.db.corrupt-<unix seconds>` (the newest three are kept) and a fresh
    /// one is made. Only the header and the schema are looked at: damage further in shows when it is
    /// read. Blocks on the disk.
    ///
    /// # Errors
    /// [`IndexError::Io`] or [`IndexError::NotLocal`] if the directory cannot be used,
    /// [`IndexError::Busy`] if another process keeps the database to itself.
    pub fn open_with(dir: &Path, options: &Options) -> Result<(Self, Opened), IndexError> {
        let directory = Directory::hold(dir)?;
        let path = directory.database();
        let opened = match Identity::of(&path)? {
            None => Opened::Fresh,
            Some(found) => match Self::whole(&directory, found, options) {
                Ok(index) => return Ok((index, Opened::Existing)),
                Err(error @ (IndexError::Damaged(_) | IndexError::Newer { .. })) => {
                    let aside = directory.set_aside(found)?;
                    tracing::warn!(%error, ?aside, "set the index aside, a new one is made");
                    aside.map_or(Opened::Fresh, Opened::SetAside)
                }
                Err(error) => return Err(error),
            },
        };
        let made = directory.make_database()?;
        Ok((Self::connect(&path, made, options)?, opened))
    }

    fn whole(directory: &Directory, found: Identity, options: &Options) -> Result<Self, IndexError> {
        if found.short {
            // SQLite would take it for a new database, and lose the log beside it.
            return Err(damage("the file is too short").into());
        }
        let path = directory.database();
        if was_made_here(directory.path(), found)?.is_none() && schema::is_from_before_notes(&path)? {
            directory.note_made(found)?;
        }
        Self::existing(directory.path(), found, options)
    }

    fn existing(dir: &Path, found: Identity, options: &Options) -> Result<Self, IndexError> {
        if was_made_here(dir, found)? != Some(true) {
            return Err(damage("it is not the file that was made here").into());
        }
        Self::connect(&dir.join(DATABASE), found, options)
    }

    /// Opens the index in a directory if there is one that can be used. Makes nothing and sets
    /// nothing aside: for those who only look.
    ///
    /// # Errors
    /// As [`Self::open_with`], and [`IndexError::Damaged`] or [`IndexError::Newer`].
    pub fn open_existing(dir: &Path) -> Result<Option<Self>, IndexError> {
        let found = Identity::of(&dir.join(DATABASE))?;
        found.map(|found| Self::existing(dir, found, &Options::default())).transpose()
    }

    /// Opens the connections. One made later is refused if another file has the name by then.
    fn connect(path: &Path, identity: Identity, options: &Options) -> Result<Self, IndexError> {
        let mut writer = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        schema::prepare_writer(&mut writer, options.busy)?;
        let manager = SqliteConnectionManager::file(path)
            .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_init({
                let path = path.to_owned();
                move |connection| {
                    schema::prepare_reader(connection)?;
                    // Only now that it has opened the log too.
                    match Identity::of(&path) {
                        Ok(Some(now)) if now.same_file(identity) => Ok(()),
                        _ => Err(damage("another file is in its place")),
                    }
                }
            });
        let always = options.readers.max(1);
        let readers = r2d2::Pool::builder()
            .max_size(always.saturating_add(SPARE_READERS))
            // r2d2 would open another one whenever fewer than this lie idle, and keep it.
            .min_idle(Some(0))
            .max_lifetime(None)
            .idle_timeout(None)
            .test_on_check_out(false)
            .connection_timeout(OPEN_PATIENCE)
            .build(manager)?;
        // Those that are there always are opened now.
        let opened: Vec<_> = (0..always).map(|_| readers.get()).collect::<Result<_, _>>()?;
        drop(opened);
        let index = Self(Arc::new(Shared {
            path: path.into(),
            identity,
            readers,
            writer: Mutex::new(writer),
            complete: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            proxies: RwLock::default(),
        }));
        index.changes()?;
        Ok(index)
    }

    /// Whether a whole rebuild has ended, so that no row means no ref. Files made by hand and rows
    /// lost to a crash are the exceptions, so whoever misses a row still looks at the file.
    pub fn is_complete(&self) -> bool {
        self.0.complete.load(Ordering::Relaxed)
    }

    /// Whether a read or write has met damage. Such an index is not to be asked again.
    pub fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Looks at what has become of the file: where it is, and, by a new connection, its header.
    /// Costs a tenth of a millisecond; meant for once a second.
    pub fn check(&self) -> Health {
        let shared = &self.0;
        match Identity::of(&shared.path) {
            Ok(None) => return Health::Missing,
            Ok(Some(now)) if !now.same_file(shared.identity) => return Health::Replaced,
            Ok(Some(Identity { short: true, .. })) => self.note_damage(),
            // Not to be seen at the moment is not gone.
            Ok(Some(_)) | Err(_) => {}
        }
        if !self.is_damaged() {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let probed = Connection::open_with_flags(&shared.path, flags)
                .map_err(IndexError::from)
                .and_then(|connection| schema::probe(&connection));
            if matches!(probed, Err(IndexError::Damaged(_) | IndexError::Newer { .. })) {
                self.note_damage();
            }
        }
        if self.is_damaged() { Health::Damaged } else { Health::Same }
    }

    /// Reads the whole file and compares the tables with their indices. Takes seconds for a million
    /// rows; readers and writers go on meanwhile.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] with the first thing found.
    pub fn verify(&self) -> Result<(), IndexError> {
        self.read(|connection| {
            let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            if found == "ok" { Ok(()) } else { Err(damage(found).into()) }
        })
    }

    /// Renames the file to `index.db.corrupt-…`, unless another one is in its place by now. Nothing
    /// that is written to this index is kept from here on.
    pub(super) fn set_aside(&self) -> Result<Option<PathBuf>, IndexError> {
        self.note_damage();
        let dir = self.0.path.parent().unwrap_or(Path::new("."));
        Directory::hold(dir)?.set_aside(self.0.identity)
    }

    /// A counter that moves whenever anybody, another process included, takes refs away, and when a rebuild ends
    /// that found rows to say something else than their files. Notices too when another process has completed a
    /// rebuild.
    pub fn changes(&self) -> Result<u64, IndexError> {
        let (complete, changes) = self.read(|connection| {
            let mut statement = connection.prepare_cached(META)?;
            let mut meta = |key: &str| statement.query_row([key], |row| row.get::<_, i64>(0));
            Ok((meta("complete")?, meta("changes")?))
        })?;
        self.0.complete.store(complete > 0, Ordering::Relaxed);
        Ok(u64::try_from(changes).unwrap_or_default())
    }

    /// A counter that moves whenever anybody, another process included, forgets refs, with or without a row.
    pub fn forgets(&self) -> Result<u64, IndexError> {
        let forgets: i64 = self.read(|connection| {
            Ok(connection.prepare_cached(META)?.query_row(["forgets"], |row| row.get(0))?)
        })?;
        Ok(u64::try_from(forgets).unwrap_or_default())
    }

    /// The id of a proxy; `None` as long as it never had a ref.
    pub(super) fn proxy(&self, connection: &Connection, proxy: &ProxyId) -> Result<Option<i64>, IndexError> {
        let known = self.0.proxies.read().unwrap_or_else(PoisonError::into_inner).get(proxy).copied();
        if known.is_some() {
            return Ok(known);
        }
        let values = params![Column(proxy.artifact_type), proxy.name.as_str()];
        let found = connection.prepare_cached(PROXY)?.query_row(values, |row| row.get(0)).optional()?;
        if let Some(id) = found {
            self.0.proxies.write().unwrap_or_else(PoisonError::into_inner).insert(proxy.clone(), id);
        }
        Ok(found)
    }

    /// Reads on a pooled connection, in place.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let connection = self.0.readers.get_timeout(CONNECTION_PATIENCE)?;
        self.noting(read(&connection))
    }

    /// Writes in one transaction: all of it, or on any error nothing.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        // A thread that panicked in here has rolled its transaction back.
        let mut connection = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.noting((|| {
            let mut batch = Batch::begin(&mut connection)?;
            let done = write(&mut batch)?;
            batch.commit()?;
            Ok(done)
        })())
    }

    fn noting<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if matches!(result, Err(IndexError::Damaged(_))) {
            self.note_damage();
        }
        result
    }

    fn note_damage(&self) {
        self.0.damaged.store(true, Ordering::Relaxed);
    }
}

/// One counter of `meta`.
pub(super) const META: &str = "SELECT value FROM meta WHERE key = ?1";
