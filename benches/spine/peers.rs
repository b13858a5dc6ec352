//! repoxy and those it is measured beside, each with the configuration its own manual recommends.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::book::Column;
use crate::common::process::{Server, free_address};
use crate::common::{Outcome, Scratch};
use crate::tls::Door;

/// A week in seconds: how long what a cache has is good for.
const WEEK: &str = "604800";
/// The user that nobody is, and their group.
const NOBODY: u32 = 65534;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// repoxy.
    Repoxy,
    /// nginx with the files on its own disk.
    NginxStatic,
    /// nginx with `proxy_cache`.
    NginxCache,
    /// docker-registry: with the files in its own storage, or where upstream matters as a cache.
    Registry,
    /// Varnish with its storage in memory.
    Varnish,
    /// Squid as a cache in front of a server.
    Squid,
    /// NORA as a proxy, if its program was given.
    Nora,
    /// No server in between: the client asks upstream.
    Direct,
}

impl Column for Peer {
    const ALL: &'static [Self] = &[
        Self::Repoxy,
        Self::NginxStatic,
        Self::NginxCache,
        Self::Registry,
        Self::Varnish,
        Self::Squid,
        Self::Nora,
        Self::Direct,
    ];
    const OURS: Self = Self::Repoxy;
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Repoxy => "repoxy",
            Self::NginxStatic => "nginx static",
            Self::NginxCache => "nginx cache",
            Self::Registry => "docker-registry",
            Self::Varnish => "varnish",
            Self::Squid => "squid",
            Self::Nora => "nora",
            Self::Direct => "direct",
        })
    }
}

/// A place to start servers: each gets a fresh directory in it.
#[derive(Debug)]
pub(crate) struct Yard {
    directory: PathBuf,
    /// The repoxy that is measured.
    pub(crate) binary: PathBuf,
    /// The NORA that is measured, if any.
    nora: Option<PathBuf>,
    /// Where others than root get to.
    outside: Scratch,
    started: Cell<u32>,
}

impl Yard {
    /// A yard below `directory`.
    pub(crate) fn new(directory: PathBuf, binary: PathBuf, nora: Option<PathBuf>) -> Self {
        let outside = Scratch(Path::new("/var/tmp").join(format!("spine-{}", std::process::id())));
        Self { directory, binary, nora, outside, started: Cell::new(0) }
    }

    /// These, and NORA if there is one.
    pub(crate) fn with_nora(&self, peers: &[Peer]) -> Vec<Peer> {
        peers.iter().copied().chain(self.nora.as_ref().map(|_| Peer::Nora)).collect()
    }

    /// A new, empty directory for the store of a cache.
    pub(crate) fn fresh_for(&self, peer: Peer) -> Outcome<PathBuf> {
        if peer != Peer::Squid || !rustix::process::geteuid().is_root() {
            return self.fresh("peer");
        }
        // Squid refuses to be root, and who it becomes instead may not get to where the benchmark has its files.
        let directory = self.outside.0.join(self.next("peer"));
        fs::create_dir_all(&directory)?;
        chown(&directory, Some(NOBODY), Some(NOBODY))?;
        Ok(directory)
    }

    /// A new, empty directory.
    pub(crate) fn fresh(&self, name: &str) -> Outcome<PathBuf> {
        let directory = self.directory.join(self.next(name));
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// A name that nothing has had yet.
    fn next(&self, name: &str) -> String {
        self.started.set(self.started.get() + 1);
        format!("{name}-{}", self.started.get())
    }

    /// nginx serving the files below `content`, over TLS too if there is a door for it.
    pub(crate) fn nginx_static(&self, content: &Path, door: Option<&Door>) -> Outcome<Server> {
        let locations = format!(
            "{}\nroot {};\n\
             location = /v2/ {{ return 200 '{{}}'; }}\n\
             location ~ /manifests/ {{ types {{}} default_type application/vnd.oci.image.manifest.v1+json; }}\n\
             location ~ /blobs/ {{ types {{}} default_type application/octet-stream; }}",
            door.map(Door::for_nginx).unwrap_or_default(),
            content.display()
        );
        nginx(&self.fresh("nginx-static")?, "", &locations)
    }

    /// nginx as a cache of `upstream` with an empty store in `directory`.
    pub(crate) fn nginx_cache(directory: &Path, upstream: SocketAddr) -> Outcome<Server> {
        let http = format!(
            "proxy_cache_path {}/cache levels=1:2 keys_zone=content:64m max_size=200g inactive=7d \
             use_temp_path=off;\n\
             upstream origin {{ server {upstream}; keepalive 64; }}",
            directory.display()
        );
        let locations = "location / {\n\
             proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             proxy_cache content; proxy_cache_valid 200 7d;\n\
             proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; }";
        nginx(directory, &http, locations)
    }

    /// docker-registry with `storage` as its own, as a cache of `upstream` if one is given.
    pub(crate) fn registry(&self, storage: &Path, upstream: Option<SocketAddr>) -> Outcome<Server> {
        let directory = self.fresh("registry")?;
        let address = free_address()?;
        let config = directory.join("config.yml");
        let proxy = upstream.map(|upstream| format!("proxy: {{remoteurl: \"http://{upstream}\"}}\n"));
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, cache: {{blobdescriptor: inmemory}}}}\n\
                 http: {{addr: \"{address}\"}}\n{}",
                storage.display(),
                proxy.unwrap_or_default()
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        Server::start(&mut command, address, "/v2/", &directory.join("log"))
    }

    /// Varnish as a cache of `upstream`. It keeps everything in memory, which has room for all that a group asks for.
    pub(crate) fn varnish(directory: &Path, upstream: SocketAddr) -> Outcome<Server> {
        let address = free_address()?;
        let program = ["/usr/sbin/varnishd", "varnishd"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(program.unwrap_or("varnishd"));
        command.args(["-F", "-j", "none", "-T", "none", "-s", "malloc,3G", "-t", WEEK]);
        command.arg("-n").arg(directory.join("work"));
        command.args(["-a", &address.to_string(), "-b", &upstream.to_string()]);
        Server::start(&mut command, address, "/v2/", &directory.join("log"))
    }

    /// Squid as a cache of `upstream` with an empty store in `directory`.
    pub(crate) fn squid(directory: &Path, upstream: SocketAddr) -> Outcome<Server> {
        let address = free_address()?;
        let config = directory.join("squid.conf");
        let (place, ip, port) = (directory.display(), upstream.ip(), upstream.port());
        fs::write(
            &config,
            format!(
                "http_port {address} accel no-vhost defaultsite={ip}\n\
                 cache_peer {ip} parent {port} 0 no-query no-digest originserver name=origin\n\
                 cache_peer_access origin allow all\nnever_direct allow all\nhttp_access allow all\n\
                 cache_dir aufs {place}/cache 200000 16 256\nmaximum_object_size 200 GB\n\
                 collapsed_forwarding on\nrefresh_pattern . 10080 100% 10080\n\
                 access_log none\ncache_log {place}/cache.log\npid_filename none\ncoredump_dir {place}\n\
                 visible_hostname bench\nshutdown_lifetime 0 seconds\ncache_effective_user nobody\n"
            ),
        )?;
        let program = ["/usr/sbin/squid", "squid"].into_iter().find(|path| Path::new(path).exists());
        let service = format!("spine{}", std::process::id());
        let squid = || {
            let mut command = Command::new(program.unwrap_or("squid"));
            // What it shares between processes has a name, which another on this machine may have.
            command.args(["-N", "-n", &service, "-f"]).arg(&config);
            command
        };
        let made = squid().arg("-z").output().map_err(|error| format!("cannot start squid: {error}"))?;
        if !made.status.success() {
            return Err(format!("squid -z: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        Server::start(&mut squid(), address, "/v2/", &directory.join("log"))
    }

    /// NORA as a proxy of `upstream` with an empty store in `directory`. Its limits to rates are off.
    pub(crate) fn nora(&self, directory: &Path, upstream: SocketAddr) -> Outcome<Server> {
        let address = free_address()?;
        let mut command = Command::new(self.nora.as_ref().ok_or("no NORA was given")?);
        command
            .arg("serve")
            .current_dir(directory)
            .env("NORA_HOST", address.ip().to_string())
            .env("NORA_PORT", address.port().to_string())
            .env("NORA_STORAGE_PATH", directory.join("storage"))
            .env("NORA_DOCKER_PROXIES", format!("http://{upstream}"))
            .env("NORA_REGISTRIES_ENABLE", "docker")
            .env("NORA_RATE_LIMIT_ENABLED", "false")
            .env("RUST_LOG", "error");
        Server::start(&mut command, address, "/v2/", &directory.join("log"))
    }

    /// repoxy on the root in `directory` as a cache of `upstream`, ready when it answers `first`.
    /// Access lines are off, as they are for the others.
    pub(crate) fn repoxy(&self, directory: &Path, upstream: SocketAddr, first: &str) -> Outcome<Server> {
        self.repoxy_with(directory, upstream, first, "", "")
    }

    /// The same, with more in its configuration: in front of the first table and behind the last.
    pub(crate) fn repoxy_with(
        &self,
        directory: &Path,
        upstream: SocketAddr,
        first: &str,
        keys: &str,
        tables: &str,
    ) -> Outcome<Server> {
        let address = free_address()?;
        let config = directory.join("repoxy.toml");
        let place = directory.display();
        fs::write(
            &config,
            format!(
                "root = \"file://{place}/root\"\nlisten = \"{address}\"\n{keys}[gc]\nmin_free = \"1%\"\n[log]\nlevel = \"warn\"\n\
                 [[proxy]]\ntype = \"container\"\nname = \"hub\"\nupstream = \"http://{upstream}\"\n\
                 default = true\nttl = \"7d\"\n{tables}"
            ),
        )?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config);
        Server::start(&mut command, address, first, &directory.join("log"))
    }
}

/// nginx with what `http` and `locations` add to what all have.
fn nginx(directory: &Path, http: &str, locations: &str) -> Outcome<Server> {
    let address = free_address()?;
    // Workers of a root process change to a user that cannot read our directories.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let place = directory.display();
    let config = directory.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "{user} daemon off; worker_processes auto; worker_cpu_affinity auto; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n\
             access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000;\n\
             client_body_temp_path {place}/body; proxy_temp_path {place}/temp;\n\
             fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
             {http}\n\
             server {{ listen {address} backlog=4096;\n{locations}\n}}\n}}\n"
        ),
    )?;
    // Not on everyone's path.
    let program = ["/usr/sbin/nginx", "nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or("nginx"));
    command.arg("-p").arg(directory).arg("-c").arg(config);
    Server::start(&mut command, address, "/v2/", &directory.join("log"))
}
