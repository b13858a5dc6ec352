//! What a running server looks after beside requests: its index, last uses, room, and what the metrics
//! are told.
//!
//! Whatever takes long is done on a thread of its own that gives way to those that serve.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use repoxy::cache::Cache;
use repoxy::config::{Config, Proxy};
use repoxy::index::{Handle, Notice, Options, RefQuery, Writer};
use repoxy::maintain::results::{self, Task};
use repoxy::maintain::{self, Made, NoProgress, Upkeep};
use repoxy::model::{Area, Causes, SystemClock};
use repoxy::store::{Pressure, Store};

use crate::exit::CliError;
use crate::settings;

/// How often everything is looked at.
const TICK: Duration = Duration::from_secs(1);
/// The most reading connections to the index that are always there, one for each worker thread.
const MAX_READERS: u32 = 16;
/// How often last uses are flushed, in ticks.
const FLUSH_EVERY: u32 = 5;
/// How often the metrics are told until when cached content says that it is valid, in ticks.
const TELL_DATES_EVERY: u32 = 10;
/// The most dates of one proxy that the metrics are told.
const MAX_DATES: usize = 500;
/// How long to wait before a rebuild that failed is tried again.
const REBUILD_AGAIN: Duration = Duration::from_secs(30);
/// How long to wait before room is made again after an attempt that made none.
const ROOM_AGAIN: Duration = Duration::from_secs(60);
/// How often blobs are counted for the limit: others may have written or removed some.
const COUNT_EVERY: Duration = Duration::from_secs(10 * 60);
/// By how much upkeep gives way to whoever serves.
pub(crate) const NICENESS: i32 = 10;

/// What a running server looks after.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) store: Arc<Store>,
    pub(crate) index: Arc<Handle>,
    pub(crate) writer: Writer,
    /// Whether there is a limit, for which blobs have to be counted.
    limited: bool,
}

impl Kept {
    pub(crate) fn open(config: &Config, store: Arc<Store>) -> Result<Self, CliError> {
        let readers = thread::available_parallelism().map_or(2, |count| {
            u32::try_from(count.get()).map_or(MAX_READERS, |count| count.min(MAX_READERS))
        });
        let options = Options { readers, ..Options::default() };
        let index = Arc::new(Handle::open(config.index.clone(), options));
        let writer = Writer::start(Arc::clone(&index)).map_err(CliError::Runtime)?;
        describe();
        Ok(Self { store, index, writer, limited: config.gc.max_bytes.is_some() })
    }

    /// Once a second: notices what has become of the index, rebuilds it if it has to be, flushes last
    /// uses, and makes room.
    pub(crate) async fn tend(self, cache: Arc<Cache>, metrics: PrometheusHandle, dated: Vec<RefQuery>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rebuilding = None;
        let (mut making_room, mut counting) = (None, None);
        let mut count_at = Instant::now();
        for tick in 0_u32.. {
            ticks.tick().await;
            match self.index.tick() {
                Notice::Changed | Notice::Rebuild => cache.drop_ready(),
                Notice::Nothing | Notice::Away => {}
            }
            if is_over(rebuilding.as_ref()) {
                rebuilding = self.rebuild_if_needed();
            }
            if tick % FLUSH_EVERY == 0 {
                cache.flush_uses().await;
                results::show(&self.store).await;
                self.show_room();
                metrics.run_upkeep();
            }
            if self.limited && count_at <= Instant::now() && is_over(counting.as_ref()) {
                counting = self.count();
                count_at = Instant::now() + COUNT_EVERY;
            }
            if is_over(making_room.as_ref()) && is_over(counting.as_ref()) && self.store.pressure().is_some()
            {
                // What was used last is what stays.
                cache.flush_uses().await;
                making_room = self.make_room(Arc::clone(&cache));
            }
            if tick % TELL_DATES_EVERY == 0 {
                self.tell_dates(&dated);
            }
        }
    }

    /// Tells the metrics how much room there is.
    fn show_room(&self) {
        if let Some(space) = self.store.space() {
            metrics::gauge!("repoxy_disk_free_bytes").set(as_float(space.free));
        }
        if let Some(stored) = self.store.counted() {
            metrics::gauge!("repoxy_stored_bytes").set(as_float(stored));
        }
    }

    /// Tells the metrics until when cached content says that it is valid. Clients refuse what is not, and
    /// nothing else shows it: the content is served all the same.
    fn tell_dates(&self, dated: &[RefQuery]) {
        let Some(index) = self.index.get() else { return };
        let rows = dated.iter().filter_map(|query| index.query(query).ok()).flat_map(|page| page.rows);
        for row in rows {
            if let Some(until) = row.reference.valid_until() {
                let (proxy, path) = (row.key.proxy.to_string(), row.key.path.to_string());
                let until = until.as_duration().as_secs_f64();
                metrics::gauge!("repoxy_valid_until_seconds", "proxy" => proxy, "path" => path).set(until);
            }
        }
    }

    /// Starts a rebuild if the index is there and does not know everything.
    fn rebuild_if_needed(&self) -> Option<JoinHandle<()>> {
        let index = self.index.get().filter(|index| !index.is_complete())?;
        let store = Arc::clone(&self.store);
        aside("rebuild", move || async move {
            let ended = maintain::reindex(&store, &index, settings::RULES, &NoProgress).await;
            results::note(&store, &SystemClock, Task::Reindex, &ended).await;
            match ended {
                Ok(rebuilt) => tracing::info!(refs = rebuilt.refs, "the index was rebuilt"),
                Err(error) => {
                    tracing::warn!(
                        error = %Causes(&error),
                        "the index could not be rebuilt, the files answer"
                    );
                    sleep(REBUILD_AGAIN).await;
                }
            }
        })
    }

    /// Starts to count blobs.
    fn count(&self) -> Option<JoinHandle<()>> {
        let store = Arc::clone(&self.store);
        aside("count", move || async move {
            if let Err(error) = store.count().await {
                tracing::warn!(error = %Causes(&error), "could not count blobs");
            }
        })
    }

    /// Starts to make room.
    fn make_room(&self, cache: Arc<Cache>) -> Option<JoinHandle<()>> {
        let (store, index) = (Arc::clone(&self.store), self.index.get());
        aside("make-room", move || async move {
            let at = Upkeep {
                store: &store,
                index: index.as_deref(),
                rules: settings::RULES,
                clock: &SystemClock,
                progress: &NoProgress,
                buffer: Upkeep::BUFFER,
            };
            let made = make_room(at).await;
            store.relieved();
            cache.renew_uses();
            match made {
                Ok(Made { refs: 0, bytes: 0 }) | Err(maintain::MaintainError::Locked(_)) => {}
                Ok(Made { refs, bytes }) => {
                    metrics::counter!("repoxy_evicted_refs_total").increment(refs);
                    metrics::counter!("repoxy_evicted_bytes_total").increment(bytes);
                    tracing::info!(refs, bytes, "room was made");
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "could not make room");
                }
            }
            sleep(ROOM_AGAIN).await;
        })
    }
}

/// Makes room, if blobs that have been counted still leave too little of it.
async fn make_room(at: Upkeep<'_>) -> Result<Made, maintain::MaintainError> {
    at.store.count().await?;
    match at.store.pressure() {
        Some(pressure @ Pressure { keep, for_disk }) => {
            tracing::debug!(keep, for_disk, "making room");
            maintain::make_room(at, pressure).await
        }
        // Then it is enough.
        None => Ok(Made::default()),
    }
}

/// How to find, for each proxy, the facts that say until when content is valid.
pub(crate) fn dated(config: &Config) -> Vec<RefQuery> {
    let query = |proxy: &Proxy| {
        let kind = (settings::RULES)(proxy.id.artifact_type)?.dated_kind()?;
        Some(RefQuery {
            artifact_type: Some(proxy.id.artifact_type),
            proxy: Some(proxy.id.name.clone()),
            area: Some(Area::Meta),
            kind: Some(kind.to_owned()),
            limit: MAX_DATES,
            ..RefQuery::default()
        })
    };
    config.proxies.iter().filter_map(query).collect()
}

fn describe() {
    metrics::describe_gauge!(
        "repoxy_valid_until_seconds",
        "Until when clients accept what is cached, in seconds since 1970, by proxy and path"
    );
    metrics::describe_gauge!("repoxy_disk_free_bytes", "Bytes that can still be written to the store's disk");
    metrics::describe_gauge!("repoxy_stored_bytes", "Bytes of all blobs, once they have been counted");
    metrics::describe_counter!("repoxy_evicted_refs_total", "Refs that were removed to make room");
    metrics::describe_counter!("repoxy_evicted_bytes_total", "Bytes that were removed to make room");
}

fn is_over(work: Option<&JoinHandle<()>>) -> bool {
    work.is_none_or(JoinHandle::is_finished)
}

/// Does something on a thread of its own, which gives way to those that serve, as do all that it starts.
/// None, after a warning, if there can be no such thread now.
fn aside<F: Future<Output = ()>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Option<JoinHandle<()>> {
    let runs = move || {
        // Where it is not allowed, all are alike.
        let _ = rustix::process::nice(NICENESS);
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => tracing::warn!(%error, "no upkeep for now"),
        }
    };
    let started = thread::Builder::new().name(name.to_owned()).spawn(runs);
    started.inspect_err(|error| tracing::warn!(%error, "no upkeep for now")).ok()
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
const fn as_float(bytes: u64) -> f64 {
    bytes as f64
}
