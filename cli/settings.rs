//! What the configuration names, opened: store, index, rules.

use repoxy::config::{Config, Environment, Options, Supplies};
use repoxy::index::{Index, IndexError};
use repoxy::maintain::{Rules, reindex};
use repoxy::model::RefRules;
use repoxy::protocol;
use repoxy::store::Store;

use crate::args::Global;
use crate::exit::CliError;
use crate::output::Output;

/// Reads the configuration.
pub(crate) fn load(global: &Global) -> Result<Config, CliError> {
    let options = Options { config: global.config.clone(), root: global.root.clone() };
    Ok(Config::load(&options, &Environment::of_process())?)
}

/// Looks for what the configuration names and only a server needs: secrets, keyrings, certificates.
pub(crate) fn supplies(config: &Config) -> Result<Supplies, CliError> {
    Ok(config.supplies(&Environment::of_process())?)
}

/// Opens the store that the configuration names. Never makes one.
pub(crate) async fn store(config: &Config) -> Result<Store, CliError> {
    Ok(Store::open(&config.root).await?)
}

/// The rules of the types whose dialect is known.
pub(crate) const RULES: Rules<'static> = &|artifact_type| -> Option<&'static dyn RefRules> {
    let protocol = protocol::ALL.iter().find(|protocol| protocol.artifact_type() == artifact_type)?;
    Some(*protocol)
};

/// Opens the index to be kept in step with what happens to the files; `None` if there is none, or
/// it is damaged, which a server or `reindex` puts right.
///
/// # Errors
/// Whatever else keeps it from being opened: a server may be using it, and would go on from rows
/// whose refs are gone.
pub(crate) fn index(config: &Config, output: &Output) -> Result<Option<Index>, CliError> {
    let Some(dir) = &config.index else { return Ok(None) };
    match Index::open_existing(dir) {
        Ok(index) => Ok(index),
        Err(IndexError::Damaged(cause)) => {
            output.note(format_args!("the index is damaged, going on without it: {cause}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// An index to list from: the one that is there if it is complete, else a temporary one made of the
/// files, so that the answer is the same.
pub(crate) struct Listing {
    pub(crate) index: Index,
    /// Where a temporary index is, as long as it is needed.
    _dir: Option<tempfile::TempDir>,
}

/// Opens or makes an index to list from.
pub(crate) async fn listing(config: &Config, store: &Store, output: &Output) -> Result<Listing, CliError> {
    let found = config.index.as_deref().map(Index::open_existing);
    if let Some(Ok(Some(index))) = found
        && index.is_complete()
    {
        return Ok(Listing { index, _dir: None });
    }
    let dir = tempfile::tempdir().map_err(CliError::Temporary)?;
    let (index, _) = Index::open(dir.path())?;
    let rebuilt = reindex(store, &index, RULES, &output.bars()).await?;
    if rebuilt.unreadable > 0 {
        output.note(format_args!(
            "{} files that are no refs are not listed; `repoxy fsck` names them",
            rebuilt.unreadable
        ));
    }
    Ok(Listing { index, _dir: Some(dir) })
}
