//! Room: how much may be stored.
//!
//! Two bounds hold while a server fills: a limit on the bytes of all blobs, and space that stays free on
//! the disk for others. Who starts a blob is promised room for as much as upstream says that it has, and
//! for more as it grows; without a promise it passes by unstored, before a byte of it is written. So neither
//! bound is passed by what is being written, whatever upstream sends.
//!
//! Near a bound, or once somebody was turned away, there is [`Pressure`], which upkeep takes off.
//!
//! What is there is known from a count ([`Store::count`]) and from what this process has published since;
//! what others write and remove meanwhile is known from the next count. Free space is asked for each time.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::backend::{Answer, Backend, Space, Upload};
use super::small::SmallUpload;
use super::{Blob, ObjectPath, StagedReader, Store, StoreError};
use crate::model::{ArtifactType, Share, Timestamp};

const GIB: u64 = 1 << 30;
/// Room for content of unknown length is promised in such steps.
const STEP_BYTES: u64 = 1 << 20;

/// What a server stores within.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of blobs, condemned ones included; no limit if absent.
    pub max_bytes: Option<u64>,
    /// What is to stay free on the disk; if absent a twentieth of it, within bounds. Below two fifths of it
    /// nothing is stored any more. Nothing is asked of the disk if it is no bytes.
    pub min_free: Option<Share>,
}

impl Limits {
    /// What is to stay free of a disk with so many bytes.
    fn min_free(&self, total: u64) -> u64 {
        let usual = || (total / 20).clamp(GIB, 16 * GIB).min(total / 10);
        self.min_free.map_or_else(usual, |share| share.of(total))
    }

    /// Whether the disk is to be looked at.
    fn minds_disk(&self) -> bool {
        self.min_free != Some(Share::Bytes(0))
    }
}

/// Why room is to be made, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// The most bytes of blobs that may stay.
    pub keep: u64,
    /// Whether it is for the sake of the disk, which others fill as well: what is in use is worth more
    /// than free space.
    pub for_disk: bool,
}

/// The room of one store in one process.
#[derive(Debug)]
pub(super) struct Room {
    /// None: whoever asks gets it.
    limits: Option<Limits>,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes of blobs, if they have been counted.
    stored: Option<u64>,
    /// Bytes published by this process, ever.
    published: u64,
    /// Bytes promised to what is being written.
    promised: u64,
    /// Of those, bytes that have been written: the disk knows of them.
    written: u64,
    /// The most that somebody was not promised since room was last made, if it is worth making.
    refused: u64,
}

impl Account {
    /// As far as is known.
    fn stored(&self) -> u64 {
        self.stored.unwrap_or(self.published)
    }

    /// What the disk has left when everything promised is written.
    fn left(&self, space: Space) -> u64 {
        space.free.saturating_sub(self.promised.saturating_sub(self.written))
    }
}

impl Room {
    pub(super) fn new(limits: Option<Limits>) -> Self {
        Self { limits, account: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises room for so many bytes more, better for as many as are wished for; how many they are, or
    /// why there is none.
    fn promise(&self, bytes: u64, wished: u64, backend: &dyn Backend) -> Result<u64, String> {
        let Some(limits) = &self.limits else { return Ok(wished) };
        let space = limits.minds_disk().then(|| backend.space()).flatten();
        let mut account = self.lock();
        let granted = judge(limits, &account, wished, space).map(|()| wished);
        let granted = granted.or_else(|_| judge(limits, &account, bytes, space).map(|()| bytes));
        // What most would have to go for is not worth it, nor is what upstream cannot mean.
        let is_worth_it = limits.max_bytes.is_none_or(|max| bytes <= max / 2)
            && space.is_none_or(|space| bytes <= space.total / 4);
        match granted {
            Ok(granted) => account.promised = account.promised.saturating_add(granted),
            Err(_) if is_worth_it => account.refused = account.refused.max(bytes).max(1),
            Err(_) => {}
        }
        granted
    }

    /// What has to be made room for.
    fn pressure(&self, space: Option<Space>) -> Option<Pressure> {
        let limits = self.limits.as_ref()?;
        let account = self.lock();
        let (stored, refused) = (account.stored(), account.refused);
        let pressed = |keep: u64, for_disk| {
            // Where nothing was counted, what can go is not known yet.
            (keep < stored || account.stored.is_none()).then_some(Pressure { keep, for_disk })
        };
        if let Some(max) = limits.max_bytes
            && (stored.saturating_add(account.promised) > max - max / 16
                || (refused > 0 && stored + refused > max))
        {
            // Room for a while, and for what is to come.
            let coming = account.promised.saturating_add(refused).min(max / 2);
            return pressed((max - max / 5).saturating_sub(coming), false);
        }
        let space = space.filter(|_| limits.minds_disk())?;
        let min_free = limits.min_free(space.total);
        let wanted = min_free + min_free / 4 + refused.min(stored / 2);
        let left = account.left(space);
        if left < min_free || (refused > 0 && left < wanted) {
            return pressed(stored.saturating_sub(wanted - left), true);
        }
        None
    }
}

/// Why so many bytes more must not be written, if they must not.
fn judge(limits: &Limits, account: &Account, bytes: u64, space: Option<Space>) -> Result<(), String> {
    let stored = account.stored();
    if let Some(max) = limits.max_bytes
        && stored.saturating_add(account.promised).saturating_add(bytes) > max
    {
        return Err(format!(
            "{bytes} bytes more would exceed the limit of {max}, of which {stored} are used"
        ));
    }
    let Some(space) = space else { return Ok(()) };
    let floor = limits.min_free(space.total) / 5 * 2;
    if account.left(space) < floor.saturating_add(bytes) {
        let free = space.free;
        return Err(format!(
            "{bytes} bytes more would leave less than {floor} of the {free} bytes that are free"
        ));
    }
    Ok(())
}

/// Room that was promised. Given back when it is dropped.
#[derive(Debug)]
struct Promise {
    room: Arc<Room>,
    backend: Arc<dyn Backend>,
    /// What it is for, as errors name it.
    path: PathBuf,
    bytes: u64,
    written: u64,
}

impl Promise {
    /// Room for nothing yet.
    fn new(room: &Arc<Room>, backend: &Arc<dyn Backend>, path: &ObjectPath) -> Self {
        let (room, backend) = (Arc::clone(room), Arc::clone(backend));
        Self { room, backend, path: path.as_str().into(), bytes: 0, written: 0 }
    }

    /// Room for so many bytes, of which some have been written already and were known to be stored.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`].
    fn begin(&mut self, written: u64, bytes: u64) -> Result<(), StoreError> {
        if self.room.limits.is_some() {
            let mut account = self.room.lock();
            account.stored = account.stored.map(|stored| stored.saturating_sub(written));
        }
        self.grow(bytes, bytes)?;
        self.use_up(written)
    }

    fn grow(&mut self, bytes: u64, wished: u64) -> Result<(), StoreError> {
        self.bytes += self.room.promise(bytes, wished, &*self.backend).map_err(|why| {
            let source = io::Error::new(io::ErrorKind::StorageFull, why);
            StoreError::NoRoom { path: self.path.clone(), source }
        })?;
        Ok(())
    }

    /// So many bytes more are about to be written.
    fn use_up(&mut self, bytes: u64) -> Result<(), StoreError> {
        let short = (self.written + bytes).saturating_sub(self.bytes);
        if short > 0 {
            self.grow(short, short.max(STEP_BYTES))?;
        }
        self.written += bytes;
        if self.room.limits.is_some() {
            self.room.lock().written += bytes;
        }
        Ok(())
    }

    /// So many of the bytes that were written stay.
    fn keep(&self, bytes: u64) {
        if self.room.limits.is_some() {
            let mut account = self.room.lock();
            account.published += bytes;
            account.stored = account.stored.map(|stored| stored + bytes);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.room.limits.is_some() {
            let mut account = self.room.lock();
            account.promised = account.promised.saturating_sub(self.bytes);
            account.written -= self.written;
        }
    }
}

/// An upload that keeps within what it was promised.
#[derive(Debug)]
pub(super) struct Promised {
    // In this order: the file is gone before its room is given back.
    upload: Box<dyn Upload>,
    promise: Promise,
}

impl Promised {
    /// An upload of so many bytes, as far as is known, that goes on with what was left, unless that is not what
    /// it should be.
    pub(super) async fn start(
        room: &Arc<Room>,
        backend: &Arc<dyn Backend>,
        staging: &ObjectPath,
        left: Option<&ObjectPath>,
        bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let small = bytes.and_then(|bytes| SmallUpload::start(backend, staging, bytes));
        let mut upload = match small {
            Some(small) => Box::new(small),
            None => backend.upload(staging, left).await?,
        };
        if bytes.is_some_and(|bytes| upload.begun() > bytes) {
            drop(upload);
            upload = backend.upload(staging, left).await?;
        }
        let mut promised = Self { promise: Promise::new(room, backend, staging), upload };
        let begun = promised.upload.begun();
        match promised.promise.begin(begun, bytes.unwrap_or(begun)) {
            Ok(()) => Ok(promised),
            Err(why) => {
                promised.leave();
                Err(why)
            }
        }
    }
}

impl Upload for Promised {
    fn blocks(&self) -> bool {
        self.upload.blocks()
    }

    fn begun(&self) -> u64 {
        self.upload.begun()
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        self.promise.use_up(chunks.iter().map(|chunk| chunk.len() as u64).sum())?;
        self.upload.append(chunks)
    }

    fn reader(&self) -> StagedReader {
        self.upload.reader()
    }

    fn leave(&mut self) -> u64 {
        let kept = self.upload.leave();
        self.promise.keep(kept);
        kept
    }

    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        let Self { upload, promise } = *self;
        let published = upload.publish(path);
        async move {
            let blob = published.await?;
            promise.keep(promise.written);
            Ok(blob)
        }
        .boxed()
    }
}

/// For upkeep beside a server.
impl Store {
    /// The same store, which from now on stores no more than these allow.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { room: Arc::new(Room::new(Some(limits))), ..self }
    }

    /// How much room its disk has; `None` if nobody can tell.
    pub fn space(&self) -> Option<Space> {
        self.backend.space()
    }

    /// Counts the bytes of all blobs, condemned ones and what was left of some included; from then on the limit
    /// is held by that.
    ///
    /// # Errors
    /// What the listing met; what was known before stays.
    pub async fn count(&self) -> Result<u64, StoreError> {
        let before = self.room.lock().published;
        let mut bytes = 0;
        for artifact_type in ArtifactType::ALL {
            let mut blobs = self.scan_blobs(artifact_type);
            while let Some(page) = blobs.next_page().await {
                bytes += page?.iter().map(|entry| entry.size).sum::<u64>();
            }
            let mut trash = self.scan_trash(artifact_type);
            while let Some(page) = trash.next_page().await {
                bytes += page?.iter().map(|entry| entry.size).sum::<u64>();
            }
        }
        bytes += self.reap_staging(Timestamp::MAX, true).await?.1;
        let mut account = self.room.lock();
        // What came meanwhile may have been counted as well: rather twice than not at all.
        bytes += account.published - before;
        account.stored = Some(bytes);
        Ok(bytes)
    }

    /// Bytes of all blobs, if they have been counted.
    pub fn counted(&self) -> Option<u64> {
        self.room.lock().stored
    }

    /// Whether room has to be made, and how much; roughly, unless blobs have been counted.
    pub fn pressure(&self) -> Option<Pressure> {
        self.room.pressure(self.backend.space())
    }

    /// Room was made as well as it can be: who was turned away before is no reason any more.
    pub fn relieved(&self) {
        self.room.lock().refused = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limits(max_bytes: Option<u64>, min_free: Option<Share>) -> Limits {
        Limits { max_bytes, min_free }
    }

    #[test]
    fn what_stays_free_is_a_twentieth_within_bounds_unless_it_is_said() {
        let usual = limits(None, None);
        for (total, free) in [(8 * MIB, 8 * MIB / 10), (4 * GIB, 4 * GIB / 10), (15 * GIB, GIB)] {
            assert_eq!(usual.min_free(total), free, "{total}");
        }
        assert_eq!(usual.min_free(100 * GIB), 5 * GIB);
        assert_eq!(usual.min_free(4000 * GIB), 16 * GIB);
        assert_eq!(limits(None, Some(Share::Percent(30))).min_free(1000), 300);
        assert_eq!(limits(None, Some(Share::Bytes(7))).min_free(1000), 7);
    }

    #[test]
    fn what_would_pass_the_limit_is_turned_away_and_makes_pressure() {
        let room = Room::new(Some(limits(Some(100), Some(Share::Bytes(0)))));
        let memory = crate::store::memory::Memory::default();
        let pressure = |stored, promised, refused| {
            *room.lock() = Account { stored: Some(stored), promised, refused, ..Account::default() };
            room.pressure(None).map(|pressure| pressure.keep)
        };
        assert_eq!(pressure(0, 60, 41), None, "there is nothing that could go");
        assert_eq!(pressure(60, 0, 0), None);
        assert_eq!(pressure(60, 0, 41), Some(39));
        assert_eq!(pressure(95, 0, 0), Some(80));
        assert_eq!(pressure(60, 40, 0), Some(40));
        assert_eq!(pressure(60, 40, 100), Some(30), "half of it stays");
        *room.lock() = Account::default();
        assert_eq!(room.promise(60, 200, &memory), Ok(60));
        assert_eq!(room.promise(10, 20, &memory), Ok(20));
        assert!(room.promise(21, 21, &memory).is_err());
        for senseless in [51, u64::MAX] {
            assert!(room.promise(senseless, senseless, &memory).is_err());
        }
        let Account { promised, refused, .. } = *room.lock();
        assert_eq!((promised, refused), (80, 21));
        let unlimited = Room::new(Some(limits(None, Some(Share::Bytes(0)))));
        for _ in 0..2 {
            assert!(unlimited.promise(u64::MAX, u64::MAX, &memory).is_ok(), "others may know its end");
        }
    }

    #[test]
    fn what_others_need_of_the_disk_is_left_to_them() {
        let limits = limits(None, Some(Share::Bytes(100)));
        let account = |promised, written| Account { promised, written, ..Account::default() };
        let space = |free| Some(Space { free, total: 1000 });
        for (account, bytes, free, fits) in [
            (account(0, 0), 60, 100, true),
            (account(0, 0), 61, 100, false),
            (account(0, 0), 0, 40, true),
            (account(0, 0), 0, 39, false),
            (account(50, 0), 10, 100, true),
            (account(50, 0), 11, 100, false),
            // What has been written of it is no longer free.
            (account(50, 30), 40, 100, true),
            (account(50, 30), 41, 100, false),
        ] {
            let refused = judge(&limits, &account, bytes, space(free));
            assert_eq!(refused.is_ok(), fits, "{account:?} {bytes} {free}: {refused:?}");
        }
        let room = Room::new(Some(limits));
        room.lock().stored = Some(1000);
        assert_eq!(room.pressure(space(100)), None);
        assert_eq!(room.pressure(space(90)), Some(Pressure { keep: 1000 - 35, for_disk: true }));
        room.lock().refused = 300;
        assert_eq!(room.pressure(space(200)), Some(Pressure { keep: 1000 - 225, for_disk: true }));
        room.lock().refused = 0;
        assert_eq!(room.pressure(space(200)), None);
    }

    #[tokio::test]
    async fn a_store_within_a_limit_keeps_it_and_gives_room_back() {
        let store = Store::create("mem://").await.expect("a store").within(limits(Some(10), None));
        let proxy = "generic/g/refs/a".parse::<crate::model::RefKey>().expect("valid").proxy;
        let fill = async |bytes: &'static str, announced: Option<u64>| {
            let mut staged = store.stage(&proxy, announced, &[]).await;
            staged.write(bytes.into()).await.expect("written");
            staged.seal(&[]).await.expect("sealed").publish().await
        };
        fill("123456", Some(6)).await.expect("there is room");
        assert!(matches!(fill("12345", Some(5)).await, Err(StoreError::Unstored(_))));
        assert!(matches!(fill("12345", None).await, Err(StoreError::Unstored(_))), "found out on the way");
        fill("1234", Some(4)).await.expect("what was turned away has taken no room");
        assert_eq!(store.count().await.expect("counted"), 10);
        assert_eq!(store.pressure(), Some(Pressure { keep: 3, for_disk: false }));
        store.relieved();
        assert_eq!(store.pressure(), None);
    }
}
