//! The command tree, and nothing else: what can be written, and what `--help` says about it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use tracing::level_filters::LevelFilter;

use repoxy::config::{LogFormat, parse_duration, parse_size};
use repoxy::index::{BlobSort, RefSort};
use repoxy::maintain::fsck::Share;
use repoxy::model::{Area, ArtifactType, Digest, ProxyName};

/// The exit codes, at the end of every help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    usage or configuration
  3    done in part, findings remain, or a guard rail refused
  10   there is no store
  11   locked by another run
  130  interrupted";

/// Help that ends with examples and the exit codes.
fn after(examples: &str) -> String {
    format!("Examples:\n{}\n\n{EXIT_CODES}", examples.trim_end())
}

/// A pull-through cache for container images and packages that keeps everything as plain files.
#[derive(Debug, Parser)]
#[command(name = "repoxy", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = after("  repoxy serve                          serve on 127.0.0.1:7080
  repoxy ls refs --proxy hub            what is cached of Docker Hub
  repoxy gc --unused-for 90d --dry-run  what would go
"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Read this configuration file and no other
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Where the store is: a directory, or `file:///directory`
    #[arg(long, global = true, value_name = "ROOT", help_heading = "Global options")]
    pub(crate) root: Option<String>,
    /// Print nothing but data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Print more; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve clients
    Serve(ServeArgs),
    /// Remove what nobody needs
    ///
    /// Refs expire if `--unused-for` or `--max-bytes`, or `gc` in the configuration, says so. Blobs
    /// that no ref needs are condemned by one run and removed by the next. Safe beside a running
    /// server.
    Gc(GcArgs),
    /// Look for what is not as it should be
    ///
    /// Findings of level `note` are what a crash or a moment in between may leave; they do not count
    /// in the exit code. Safe beside a running server.
    Fsck(FsckArgs),
    /// Make the index say again what the files say
    ///
    /// Safe beside a running server, which answers all the while.
    Reindex(ReindexArgs),
    /// List refs, blobs or proxies
    #[command(subcommand)]
    Ls(LsCommand),
    /// Show one ref: what it says, and what is there of what it needs
    Show(ShowArgs),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy serve
  repoxy serve --root /var/lib/repoxy --listen 0.0.0.0:7080
  repoxy serve --config /etc/repoxy/repoxy.toml --log-format json
"))]
pub(crate) struct ServeArgs {
    /// Listen here without TLS instead of where the configuration says; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// How log lines are written instead of how the configuration says
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormatArg>,
    /// The least severe level that is logged; requests are logged at `info`
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LevelFilter>,
}

/// The forms of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy gc --dry-run                   what a run would take
  repoxy gc --unused-for 90d            refs unused for 90 days expire first
  repoxy gc --max-bytes 200GiB -q       the least recently used refs expire first
  repoxy gc --grace 0s                  condemn also what was written just now
"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct GcArgs {
    /// Print what a run would take, change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Leave blobs alone that were written more recently [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) grace: Option<Duration>,
    /// Delete refs that were not used for so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) unused_for: Option<Duration>,
    /// Delete the least recently used refs until what the others need is no more than this
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_bytes: Option<u64>,
    /// Go on even if more than half of all refs or bytes would go
    #[arg(long)]
    pub(crate) force: bool,
    /// Go on even if the clock has jumped since the last run
    #[arg(long)]
    pub(crate) accept_clock: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy fsck                           look at everything but the bytes of blobs
  repoxy fsck --read-data=3/30          read the third of thirty shares of them, too
  repoxy fsck --read-data --repair      read all of them, and mend what is found
"))]
pub(crate) struct FsckArgs {
    /// Mend what is found, by what each finding names
    #[arg(long)]
    pub(crate) repair: bool,
    /// Only say what `--repair` would mend, and how; changes nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Read and hash the bytes of blobs: all of them, or a share such as `3/30`
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "1/1")]
    pub(crate) read_data: Option<Share>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy reindex
  repoxy reindex --root /var/lib/repoxy
"))]
pub(crate) struct ReindexArgs {
    /// Only read the files and say what would be recorded
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LsCommand {
    /// List refs
    Refs(LsRefsArgs),
    /// List the blobs that refs target or link
    ///
    /// Whether they are on disk is not asked: what no client has wanted yet, as layers of another platform, is
    /// listed all the same.
    Blobs(LsBlobsArgs),
    /// List proxies and what their refs need
    ///
    /// Blobs are those that refs target or link, counted once in each proxy. Whether they are on disk is not
    /// asked, so this is no measure of it: what no client has wanted yet counts, as layers of another
    /// platform, and what gc has not taken yet does not. `du` and the metric `repoxy_stored_bytes` say what is there.
    Proxies(LsProxiesArgs),
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy ls refs --proxy hub --path 'library/*'
  repoxy ls refs --proxy hub --older-than 30d --expired --sort last-used --limit 20
  repoxy ls refs --json | jq -r .ref
"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct LsRefsArgs {
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) artifact_type: Option<ArtifactType>,
    /// Of this proxy
    #[arg(long, value_name = "NAME")]
    pub(crate) proxy: Option<ProxyName>,
    /// In this area: refs, meta or cache
    #[arg(long, value_name = "AREA")]
    pub(crate) area: Option<Area>,
    /// Of this kind, such as `container.tag`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// With a path like this: `*` is any text, `?` one character
    #[arg(long, value_name = "PATTERN")]
    pub(crate) path: Option<String>,
    /// That target this blob
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<Digest>,
    /// Confirmed by upstream longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older_than: Option<Duration>,
    /// Not used for so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) unused_for: Option<Duration>,
    /// Past their time to live
    #[arg(long)]
    pub(crate) expired: bool,
    /// The order
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    pub(crate) sort: RefOrder,
    /// The order turned round
    #[arg(short, long)]
    pub(crate) reverse: bool,
    /// No more than so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// With last uses, which the files do not hold exactly, in the JSON
    #[arg(long, requires = "json")]
    pub(crate) uses: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// The orders of refs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RefOrder {
    /// By type, proxy, area and path
    #[default]
    Path,
    /// The longest unused first
    LastUsed,
    /// The longest unconfirmed first
    FetchedAt,
    /// The smallest first
    Size,
}

impl From<RefOrder> for RefSort {
    fn from(order: RefOrder) -> Self {
        match order {
            RefOrder::Path => Self::Path,
            RefOrder::LastUsed => Self::LastUsed,
            RefOrder::FetchedAt => Self::FetchedAt,
            RefOrder::Size => Self::Size,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy ls blobs --sort size --reverse --limit 20
  repoxy ls blobs --type container --json
"))]
pub(crate) struct LsBlobsArgs {
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) artifact_type: Option<ArtifactType>,
    /// The order
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    pub(crate) sort: BlobOrder,
    /// The order turned round
    #[arg(short, long)]
    pub(crate) reverse: bool,
    /// No more than so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// The orders of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BlobOrder {
    /// By digest
    #[default]
    Digest,
    /// The smallest first
    Size,
    /// Those that the fewest refs target first
    Refs,
    /// The longest unused first
    LastUsed,
}

impl From<BlobOrder> for BlobSort {
    fn from(order: BlobOrder) -> Self {
        match order {
            BlobOrder::Digest => Self::Digest,
            BlobOrder::Size => Self::Size,
            BlobOrder::Refs => Self::Refs,
            BlobOrder::LastUsed => Self::LastUsed,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy ls proxies
  repoxy ls proxies --json
"))]
pub(crate) struct LsProxiesArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("  repoxy show hub/library/alpine:3.20
  repoxy show alpine                    in the default proxy, tag `latest`
  repoxy show ghcr.io/org/app@sha256:…
  repoxy show hashicorp/null:3.2.4      a provider, for the first usual platform that is there
  repoxy show container/hub/refs/library/alpine/tags/3.20
"))]
pub(crate) struct ShowArgs {
    /// The whole key of a ref, or an image, provider or module as a client would name it
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration is right
    #[command(after_help = after("  repoxy config check --config /etc/repoxy/repoxy.toml\n"))]
    Check(ConfigArgs),
    /// Print the whole configuration, defaults included and secrets masked
    #[command(after_help = after("  repoxy config show
  repoxy config show --json | jq -r 'select(.origin != \"default\").key'
"))]
    Show(ConfigArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}
