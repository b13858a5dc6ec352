//! `repoxy serve`: puts the parts together and keeps them company until it is told to stop.
//!
//! The order matters at both ends. Store and index first, then the engine, then the sockets, so that
//! nothing is accepted that cannot be answered; at the end the server drains, then last uses are
//! flushed, then the index's writer stops. A kill at any point leaves what `docs/layout.md` allows.

use std::collections::HashMap;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use repoxy::cache::{Cache, Parts};
use repoxy::config::{self, Config, Proxy, Supplied, Supplies};
use repoxy::model::{Causes, Clock as _, ProxyId, SystemClock, Timestamp};
use repoxy::protocol;
use repoxy::server::{App, Lifecycle, Server, ServerError, Settings, TlsFiles, TlsReload, stop_signals};
use repoxy::store::{Limits, Session, Store};
use repoxy::upstream::{self, SecretSource, Upstream};

use crate::args::{Global, ServeArgs};
use crate::exit::{CliError, Exit};
use crate::upkeep::{self, Kept};
use crate::{logging, memory, settings};

/// Runs the server to its end.
pub(crate) async fn run(global: &Global, args: &ServeArgs) -> Result<Exit, CliError> {
    let mut config = settings::load(global)?;
    let supplies = settings::supplies(&config)?;
    if !args.listen.is_empty() {
        config.listen.clone_from(&args.listen);
    }
    let format = args.log_format.map_or(config.log.format, Into::into);
    logging::of_server(format, args.log_level.unwrap_or(config.log.level));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let limits = Limits { max_bytes: config.gc.max_bytes, min_free: config.gc.min_free };
    let store = Arc::new(Store::create(&config.root).await?.within(limits));
    let (session, proofs_since) = begin(&store).await;
    let served = serve(&config, supplies, store, proofs_since, metrics).await;
    if let Some(session) = session
        && let Err(error) = session.end().await
    {
        tracing::warn!(error = %Causes(&error), "the next start will take this for a crash");
    }
    served.map(|()| Exit::Done)
}

async fn serve(
    config: &Config,
    supplies: Supplies,
    store: Arc<Store>,
    proofs_since: Timestamp,
    metrics: PrometheusHandle,
) -> Result<(), CliError> {
    let instance = ulid::Ulid::new().to_string().to_lowercase();
    let kept = Kept::open(config, Arc::clone(&store))?;
    let cache = Arc::new(Cache::new(Parts {
        store,
        index: Arc::clone(&kept.index),
        writer: kept.writer.clone(),
        upstreams: upstreams(config, &supplies, &instance)?,
        proxies: supplies.proxies.clone(),
        clock: Arc::new(SystemClock),
        proofs_since,
        hot_bytes: config.hot_bytes,
    }));
    let lifecycle = Arc::new(Lifecycle::default());
    let app = Arc::new(App {
        cache: Arc::clone(&cache),
        protocols: protocol::ALL,
        proxies: supplies.proxies,
        metrics: metrics.clone(),
        lifecycle: Arc::clone(&lifecycle),
    });
    let server = Server::bind(server_settings(config, &instance), app)?;
    let stops = stop_signals().map_err(CliError::Runtime)?;
    // Before anybody learns that it runs: until then a SIGHUP ends it.
    let hangups = signal(SignalKind::hangup()).map_err(CliError::Runtime)?;
    announce(&server, config);
    let upkeep = tokio::spawn(kept.clone().tend(Arc::clone(&cache), metrics, upkeep::dated(config)));
    let reload = tokio::spawn(reload_on(hangups, Arc::clone(&cache), server.tls_reload()));
    memory::give_back();
    lifecycle.set_ready();
    tokio::spawn(prepare(kept.store.clone(), config.proxies.iter().map(|proxy| proxy.id.clone()).collect()));
    server.run(stops).await;
    upkeep.abort();
    reload.abort();
    cache.flush_uses().await;
    kept.writer.stop().await;
    Ok(())
}

/// Begins to serve; since when what was hashed is believed.
async fn begin(store: &Store) -> (Option<Session>, Timestamp) {
    let now = SystemClock.now();
    match store.begin_session(now).await {
        Ok((session, since)) => (Some(session), since),
        Err(error) => {
            let error = Causes(&error);
            tracing::warn!(
                %error,
                "cannot tell how the last server ended, so each blob is read before it is served"
            );
            (None, now)
        }
    }
}

/// Makes the staging directories of all proxies, which the first fetch of each would have to wait for.
async fn prepare(store: Arc<Store>, proxies: Vec<ProxyId>) {
    for proxy in proxies {
        if let Some(error) = store.stage(&proxy, None, &[]).await.unstored() {
            let error = Causes(error);
            tracing::warn!(%error, %proxy, "the store takes no files for now");
        }
    }
}

/// Says where clients find the server.
fn announce(server: &Server, config: &Config) {
    for (address, tls) in server.local_addrs() {
        let scheme = if tls { "https" } else { "http" };
        tracing::info!(root = config.root, "listening on {scheme}://{address}");
    }
}

/// Sets up all that a server is made of as far as that touches neither the store nor the network.
///
/// # Errors
/// What would keep a server from starting: files whose content cannot be used.
pub(super) fn rehearse(config: &Config, supplies: &Supplies) -> Result<(), CliError> {
    let instance = "rehearsal";
    upstreams(config, supplies, instance)?;
    server_settings(config, instance).tls.map_or(Ok(()), |files| files.check().map_err(ServerError::Tls))?;
    Ok(())
}

fn server_settings(config: &Config, instance: &str) -> Settings {
    let own = config.public_url.iter().filter_map(|url| {
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    });
    Settings {
        listen: config.listen.clone(),
        listen_tls: config.tls.iter().flat_map(|tls| tls.listen.clone()).collect(),
        tls: config.tls.as_ref().map(|tls| TlsFiles { certificate: tls.cert.clone(), key: tls.key.clone() }),
        authorities: own.collect(),
        instance: format!("repoxy-{instance}"),
        ..Settings::default()
    }
}

fn upstreams(
    config: &Config,
    supplies: &Supplies,
    instance: &str,
) -> Result<HashMap<ProxyId, Upstream>, CliError> {
    let mut upstreams = HashMap::new();
    for proxy in &config.proxies {
        let credentials = supplies.credentials(&proxy.id);
        let credentials = credentials.map_or(upstream::Credentials::None, login);
        let upstream = Upstream::new(upstream_settings(proxy, credentials, instance))
            .map_err(|source| CliError::Upstream { proxy: proxy.id.clone(), source })?;
        upstreams.insert(proxy.id.clone(), upstream);
    }
    Ok(upstreams)
}

fn upstream_settings(
    proxy: &Proxy,
    credentials: upstream::Credentials,
    instance: &str,
) -> upstream::Settings {
    let defaults = upstream::Limits::default();
    upstream::Settings {
        proxy: proxy.id.to_string(),
        bases: proxy.upstreams.clone(),
        credentials,
        allowed_hosts: proxy.allowed_hosts.clone(),
        ca_files: proxy.ca_files.clone(),
        instance: instance.to_owned(),
        limits: upstream::Limits {
            connect: proxy.limits.connect_timeout.unwrap_or(defaults.connect),
            idle: proxy.limits.idle_timeout.unwrap_or(defaults.idle),
            in_flight: proxy.limits.max_connections.unwrap_or(defaults.in_flight),
            tries: proxy.limits.retries.map_or(defaults.tries, |retries| as_count(retries).saturating_add(1)),
            breaker: upstream::BreakerLimits {
                in_row: proxy.limits.breaker_after.map_or(defaults.breaker.in_row, as_count),
                ..defaults.breaker
            },
            ..defaults
        },
    }
}

/// Sets the limits that the configuration leaves to their defaults, for who wants to see them.
pub(super) fn fill_in(config: &mut Config) {
    let defaults = upstream::Limits::default();
    let as_size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    for limits in config.proxies.iter_mut().map(|proxy| &mut proxy.limits) {
        limits.connect_timeout.get_or_insert(defaults.connect);
        limits.idle_timeout.get_or_insert(defaults.idle);
        limits.max_connections.get_or_insert(defaults.in_flight);
        limits.retries.get_or_insert(as_size(defaults.tries.saturating_sub(1)));
        limits.breaker_after.get_or_insert(as_size(defaults.breaker.in_row));
    }
}

fn as_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn login(credentials: &config::Credentials<Supplied>) -> upstream::Credentials {
    use config::Credentials;
    let secret = |secret: &Supplied| match secret {
        Supplied::File(path) => SecretSource::File(path.clone()),
        Supplied::Value(secret) => SecretSource::Value(secret.reveal().into()),
    };
    match credentials {
        Credentials::Password { username, password } => {
            upstream::Credentials::Basic { username: username.clone(), password: secret(password) }
        }
        Credentials::Token(token) => upstream::Credentials::Bearer(secret(token)),
        Credentials::DockerConfig(path) => upstream::Credentials::Docker { path: path.clone() },
    }
}

/// SIGHUP: the files with credentials and certificates are read again; what cannot be read stays as it was.
async fn reload_on(mut hangups: Signal, cache: Arc<Cache>, tls: TlsReload) {
    while hangups.recv().await.is_some() {
        let (cache, tls) = (Arc::clone(&cache), tls.clone());
        let reloaded = spawn_blocking(move || {
            let upstreams = cache.reload();
            let own = tls.reload();
            if let Err(error) = &own {
                let error = Causes(error);
                tracing::error!(%error, "the server's own certificate stays as it was");
            }
            upstreams && own.is_ok()
        });
        match reloaded.await {
            Ok(true) => tracing::info!("credentials and certificates were read again"),
            Ok(false) => tracing::error!(
                "not all credentials and certificates could be read again; those that the errors above name stay as they were"
            ),
            Err(error) => {
                let error = Causes(&error);
                tracing::error!(%error, "credentials and certificates may be as they were");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use repoxy::config::{Environment, Options};

    use super::*;

    #[test]
    fn limits_that_are_filled_in_are_those_that_hold_without() {
        let nowhere = "/nowhere".to_owned();
        let environment = Environment::new([("HOME".to_owned(), nowhere.clone())], &nowhere, &nowhere);
        let config = Config::load(&Options::default(), &environment).expect("defaults");
        let mut filled = config.clone();
        fill_in(&mut filled);
        let limits =
            |config: &Config| upstream_settings(&config.proxies[0], upstream::Credentials::None, "x").limits;
        assert_eq!(limits(&filled), limits(&config));
        let given = config::Limits {
            connect_timeout: Some(std::time::Duration::from_secs(1)),
            idle_timeout: Some(std::time::Duration::from_secs(2)),
            max_connections: Some(3),
            retries: Some(4),
            breaker_after: Some(5),
        };
        filled.proxies[0].limits = given;
        fill_in(&mut filled);
        assert_eq!(filled.proxies[0].limits, given);
    }
}
