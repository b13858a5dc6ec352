//! The process's surroundings as a value, so that tests bring their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The longest value of a variable that is taken, in bytes; longer ones count as not set.
const VALUE_MAX_LEN: usize = 64 << 10;

/// Environment variables, the working directory, and where the machine keeps its configuration.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    system: PathBuf,
}

impl Environment {
    /// Surroundings made of these variables. Relative paths count from `directory`; `system` stands
    /// for `/etc`.
    pub fn new(
        variables: impl IntoIterator<Item = (String, String)>,
        directory: impl Into<PathBuf>,
        system: impl Into<PathBuf>,
    ) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            directory: directory.into(),
            system: system.into(),
        }
    }

    /// The surroundings of this process. Variables that are not UTF-8 count as not set.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::new(variables, std::env::current_dir().unwrap_or_default(), "/etc")
    }

    /// The value of a variable; one that is empty counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (1..=VALUE_MAX_LEN).contains(&value.len()).then_some(value.as_str())
    }

    /// The names of all variables that are set.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The working directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the machine's configuration files.
    pub(super) fn system(&self) -> &Path {
        &self.system
    }

    /// The user's directory for data (XDG base directory specification).
    pub(super) fn data_home(&self) -> Option<PathBuf> {
        self.home("XDG_DATA_HOME", ".local/share")
    }

    /// The user's directory for configuration (XDG base directory specification).
    pub(super) fn config_home(&self) -> Option<PathBuf> {
        self.home("XDG_CONFIG_HOME", ".config")
    }

    fn home(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        // The specification: relative paths are invalid and to be ignored.
        let absolute = |name| self.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(fallback)))
    }
}

/// The names only: values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set_and_a_relative_home_is_ignored() {
        let set = |pairs: &[(&str, &str)]| {
            Environment::new(pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())), "/work", "/etc")
        };
        assert_eq!(set(&[("A", "")]).get("A"), None);
        assert_eq!(set(&[("A", "b")]).get("A"), Some("b"));
        let data = |pairs: &[(&str, &str)]| set(pairs).data_home();
        assert_eq!(data(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]), Some("/d".into()));
        assert_eq!(data(&[("XDG_DATA_HOME", "d"), ("HOME", "/h")]), Some("/h/.local/share".into()));
        assert_eq!(data(&[]), None);
    }

    #[test]
    fn values_are_not_shown() {
        let environment = Environment::new([("HUB_TOKEN".to_owned(), "canary".to_owned())], "/work", "/etc");
        assert!(!format!("{environment:?}").contains("canary"));
    }
}
