//! How a run ends: errors, exit codes and hints, each mapped here and nowhere else.
//!
//! A code never changes its meaning; `docs/cli.md` and every `--help` list them.

use std::io;
use std::process::ExitCode;

use repoxy::config::ConfigError;
use repoxy::index::IndexError;
use repoxy::maintain::MaintainError;
use repoxy::maintain::gc::Refusal;
use repoxy::model::ProxyId;
use repoxy::server::ServerError;
use repoxy::store::StoreError;
use repoxy::upstream::SetupError;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Done in part, findings remain, or a guard rail refused.
    Remains = 3,
    /// There is no store.
    NoStore = 10,
    /// Locked by another run.
    Locked = 11,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Whatever ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Maintain(#[from] MaintainError),
    #[error("gc refused: {0}")]
    Refused(Refusal),
    #[error("could not write the output")]
    Output(#[source] io::Error),
    #[error("there is no ref `{0}`")]
    NoRef(String),
    #[error("`{0}` is the name of no ref")]
    NotAName(String),
    #[error("a store in memory has no index")]
    NoIndex,
    #[error("could not make a temporary directory")]
    Temporary(#[source] io::Error),
    #[error("could not start")]
    Runtime(#[source] io::Error),
    #[error("could not start the metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("the upstream of proxy `{proxy}` cannot be used")]
    Upstream { proxy: ProxyId, source: SetupError },
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Store(StoreError::NoStore(_))
            | Self::Maintain(MaintainError::Store(StoreError::NoStore(_))) => Exit::NoStore,
            Self::Maintain(MaintainError::Locked(_)) => Exit::Locked,
            // What is configured cannot be used.
            Self::Config(_)
            | Self::NotAName(_)
            | Self::Upstream { .. }
            | Self::Server(ServerError::NoCertificate | ServerError::Tls(_)) => Exit::Usage,
            Self::Refused(_) => Exit::Remains,
            Self::Interrupted => Exit::Interrupted,
            // Whoever reads has had enough: `repoxy ls refs | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            _ => Exit::Failed,
        }
    }

    /// What to do about it, if that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(StoreError::NoStore(_)) => {
                "`repoxy serve` makes a store when it first starts; `--root` names another place"
            }
            Self::Index(IndexError::Busy) | Self::Maintain(MaintainError::Index(IndexError::Busy)) => {
                "another process holds the index; try again"
            }
            Self::Index(IndexError::Newer { .. }) => "use the version that wrote it, or `repoxy reindex`",
            Self::Maintain(MaintainError::Locked(_)) => {
                "the lock goes with the process that holds it; `--dry-run` needs none"
            }
            Self::Maintain(MaintainError::UnreadableRef { .. } | MaintainError::UnknownLinks { .. }) => {
                "`repoxy fsck` tells what is wrong, `repoxy fsck --repair` sets it aside"
            }
            Self::Maintain(MaintainError::Scratch(_)) => {
                "what does not fit into memory goes beside the store, or where `TMPDIR` says"
            }
            Self::Refused(Refusal::Clock { .. }) => "if the clock is right, go on with `--accept-clock`",
            Self::Refused(_) => "if that is meant, go on with `--force`; `--dry-run` lists it",
            Self::NoRef(_) => "`repoxy ls refs` lists what there is",
            Self::NotAName(_) => {
                "write `hub/library/alpine:3.20`, or a whole key as `repoxy ls refs` prints it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use repoxy::model::ArtifactType;
    use repoxy::server::TlsError;

    use super::*;

    #[test]
    fn each_kind_of_end_has_the_code_that_is_documented() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let name = "hub".parse().expect("a name");
        let proxy = ProxyId { artifact_type: ArtifactType::Container, name };
        for (error, code) in [
            (CliError::Output(pipe), 0),
            (CliError::Output(io::ErrorKind::Other.into()), 1),
            (CliError::NoRef("x".into()), 1),
            (CliError::Index(IndexError::Busy), 1),
            (CliError::NotAName("x".into()), 2),
            (CliError::Upstream { proxy, source: SetupError::Tls }, 2),
            (CliError::Server(ServerError::Tls(TlsError::NoCertificate("x".into()))), 2),
            (CliError::Server(ServerError::NoCertificate), 2),
            (CliError::Server(ServerError::Workers(io::ErrorKind::Other.into())), 1),
            (CliError::Store(StoreError::NoStore("x".into())), 10),
            (CliError::Maintain(MaintainError::Locked("gc.lock")), 11),
            (CliError::Interrupted, 130),
        ] {
            assert_eq!(error.exit() as u8, code, "{error}");
        }
    }
}
