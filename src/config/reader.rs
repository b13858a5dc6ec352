//! Reading of keys: from the environment, else from the file, and where each value came from.
//!
//! A key is named once, where it is taken; that makes its variable, its place in the file, and its
//! being known. What is left in the file at the end is an unknown key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, nearest};
use super::{Environment, Origin, values};

/// The largest configuration file, in bytes.
const FILE_MAX_LEN: u64 = 1 << 20;
/// The most entries of a list.
const LIST_MAX: usize = 1000;

/// The text of a configuration file and its name, for saying where something stands.
#[derive(Debug)]
pub(super) struct Text {
    /// The file; absent for what is built in.
    pub(super) path: Option<PathBuf>,
    pub(super) text: String,
}

impl Text {
    /// Reads a file, which `origin` has named.
    pub(super) fn read(path: &Path, origin: &Origin) -> Result<Self, ConfigError> {
        let failed = |error: std::io::Error| {
            ConfigError::new(origin, format!("cannot read `{}`: {error}", path.display()))
                .hint("write the path of a configuration file that this user may read")
        };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > FILE_MAX_LEN {
            let message = format!("`{}` is larger than a configuration can be", path.display());
            return Err(ConfigError::new(origin, message).hint("keep it below 1 MiB"));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let read = |text: &str| Self { path: Some(path.to_owned()), text: text.to_owned() };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(read(text)),
            Err(error) => {
                let end = error.valid_up_to();
                let text = read(&String::from_utf8_lossy(&bytes[..end]));
                Err(ConfigError::new(&text.origin(&(end..end)), "a character that is not UTF-8")
                    .hint("save the file in UTF-8"))
            }
        }
    }

    /// Parses the whole.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(&self.text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let hint = match message.as_str() {
                "duplicate key" => "remove one of the two",
                _ => "the file is TOML: lines `key = \"text\"`, `key = 1` or `key = true`, below `[section]`",
            };
            ConfigError::new(&self.origin(&error.span().unwrap_or_default()), message).hint(hint)
        })
    }

    /// Where a span stands: line and column, both from 1, columns in characters.
    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        let Some(path) = &self.path else { return Origin::Default };
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File(format!("{}:{line}:{column}", path.display()))
    }
}

/// Takes keys and remembers.
#[derive(Debug)]
pub(super) struct Reader<'e> {
    pub(super) environment: &'e Environment,
    /// What relative paths in the file count from.
    base: PathBuf,
    /// Where each value that is set came from, by its key, such as `gc.grace`.
    pub(super) origins: BTreeMap<String, Origin>,
    /// The variables that were looked for.
    pub(super) variables: BTreeSet<String>,
}

/// A table of the file, or the place where one could be, and the variables that belong to it.
#[derive(Debug)]
pub(super) struct Section<'t> {
    text: &'t Text,
    table: Option<&'t DeTable<'t>>,
    /// Where it begins.
    pub(super) origin: Origin,
    /// The key in front of its keys, such as `gc`; empty at the top.
    pub(super) key: String,
    /// What its variables begin with, such as `REPOXY_GC`; absent if it has none.
    pub(super) variable: Option<String>,
    taken: Vec<&'static str>,
}

/// A value that is set, not looked at yet.
enum Found<'t> {
    Variable(String),
    Toml(&'t Spanned<DeValue<'t>>),
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Set<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<'t> Section<'t> {
    pub(super) fn top(text: &'t Text, table: &'t DeTable<'t>) -> Self {
        Self::new(text, Some(table), text.origin(&(0..0)), "", Some("REPOXY".to_owned()))
    }

    pub(super) fn new(
        text: &'t Text,
        table: Option<&'t DeTable<'t>>,
        origin: Origin,
        key: impl Into<String>,
        variable: Option<String>,
    ) -> Self {
        Self { text, table, origin, key: key.into(), variable, taken: Vec::new() }
    }

    /// Whether the file has it, be it empty.
    pub(super) fn is_in_file(&self) -> bool {
        self.table.is_some()
    }

    /// The section below `key`.
    ///
    /// # Errors
    /// If there is something else than a table.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        let variable = self.variable_of(key);
        self.section_of(key, variable)
    }

    /// The same with variables of another name.
    pub(super) fn section_of(
        &mut self,
        key: &'static str,
        variable: Option<String>,
    ) -> Result<Self, ConfigError> {
        let key_path = self.key_path(key);
        let Some(value) = self.in_file(key) else {
            return Ok(Self::new(self.text, None, Origin::Default, key_path, variable));
        };
        let origin = self.text.origin(&value.span());
        let table = value.get_ref().as_table().ok_or_else(|| {
            ConfigError::new(
                &origin,
                format!("`{key_path}` cannot be of type {}", value.get_ref().type_str()),
            )
            .hint(format!("write a table: `{key} = {{ … }}`"))
        })?;
        Ok(Self::new(self.text, Some(table), origin, key_path, variable))
    }

    /// The tables of the list below `key`.
    ///
    /// # Errors
    /// If there is something else than a list of tables.
    pub(super) fn sections(&mut self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        let Some(value) = self.in_file(key) else { return Ok(Vec::new()) };
        let not_tables = |value: &Spanned<DeValue<'_>>| {
            ConfigError::new(&self.text.origin(&value.span()), format!("`{key}` is not a list of tables"))
                .hint(format!("begin each with a line `[[{key}]]`"))
        };
        let list = value.get_ref().as_array().ok_or_else(|| not_tables(value))?;
        list.iter()
            .map(|item| {
                let table = item.get_ref().as_table().ok_or_else(|| not_tables(item))?;
                Ok(Self::new(self.text, Some(table), self.text.origin(&item.span()), key, None))
            })
            .collect()
    }

    /// The value of a key that has no variable.
    pub(super) fn only_in_file<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Option<T>, ConfigError> {
        self.in_file(key).map(|value| self.read(key, value, parse)).transpose()
    }

    /// Ends the section.
    ///
    /// # Errors
    /// If the file has a key in it that nobody took.
    pub(super) fn finish(&self) -> Result<(), ConfigError> {
        let unknown = self
            .table
            .into_iter()
            .flat_map(DeTable::keys)
            .filter(|key| !self.taken.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(unknown) = unknown else { return Ok(()) };
        let name = unknown.get_ref().as_ref();
        let place = if self.key.is_empty() { String::new() } else { format!(" in `{}`", self.key) };
        let error =
            ConfigError::new(&self.text.origin(&unknown.span()), format!("unknown key `{name}`{place}"));
        if let Some(near) = nearest(name, self.taken.iter().copied()) {
            return Err(error.hint(format!("did you mean `{near}`?")));
        }
        let known: Vec<_> = self.taken.iter().map(|key| format!("`{key}`")).collect();
        Err(error.hint(format!("known are {}", known.join(", "))))
    }

    /// Reads one value of the file. Numbers and booleans are read as they are written.
    fn read<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<T, ConfigError> {
        let origin = self.text.origin(&value.span());
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            DeValue::Integer(number) => parse(number.as_str()),
            DeValue::Boolean(truth) => parse(if *truth { "true" } else { "false" }),
            other => {
                let message = format!("`{}` cannot be of type {}", self.key_path(key), other.type_str());
                Err(Problem::new(message).hint(format!("write one value in quotes: `{key} = \"…\"`")))
            }
        };
        parsed.map_err(|problem| problem.at(&origin))
    }

    fn in_file(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.taken.push(key);
        self.table?.get(key)
    }

    fn variable_of(&self, key: &str) -> Option<String> {
        self.variable.as_ref().map(|variable| format!("{variable}_{}", key.to_ascii_uppercase()))
    }

    fn key_path(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }
}

impl<'e> Reader<'e> {
    pub(super) fn new(environment: &'e Environment, file: Option<&Path>) -> Self {
        let base = file.and_then(Path::parent).unwrap_or(environment.directory()).to_owned();
        Self { environment, base, origins: BTreeMap::new(), variables: BTreeSet::new() }
    }

    /// A path as an absolute one. Paths in the file count from the file's directory, all others from
    /// the working directory.
    pub(super) fn resolve(&self, path: &str, origin: &Origin) -> PathBuf {
        match origin {
            Origin::File(_) => self.base.join(path),
            _ => self.environment.directory().join(path),
        }
    }

    /// The value of a key that is a path, made absolute.
    pub(super) fn path(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.one(section, key, values::text)?;
        Ok(path.map(|path| self.resolve(&path.value, &path.origin)))
    }

    /// The value of a key, read by `parse`: the variable's, else the file's.
    pub(super) fn one<T>(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Option<Set<T>>, ConfigError> {
        let Some((found, origin)) = self.find(section, key) else { return Ok(None) };
        let value = match found {
            Found::Variable(text) => parse(&text).map_err(|problem| problem.at(&origin))?,
            Found::Toml(value) => section.read(key, value, &parse)?,
        };
        Ok(Some(Set { value, origin }))
    }

    /// The values of a key that takes one or a list; in a variable, between commas.
    pub(super) fn many<T>(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Option<Set<Vec<T>>>, ConfigError> {
        let Some((found, origin)) = self.find(section, key) else { return Ok(None) };
        let value: Vec<T> = match found {
            Found::Variable(text) => text
                .split(',')
                .map(|item| parse(item.trim()).map_err(|problem| problem.at(&origin)))
                .collect::<Result<_, _>>()?,
            Found::Toml(value) => match value.get_ref().as_array() {
                Some(list) => {
                    list.iter().map(|item| section.read(key, item, &parse)).collect::<Result<_, _>>()?
                }
                None => vec![section.read(key, value, &parse)?],
            },
        };
        if value.len() > LIST_MAX {
            return Err(ConfigError::new(&origin, format!("`{key}` has more than {LIST_MAX} entries"))
                .hint("leave some out, or add another proxy"));
        }
        Ok(Some(Set { value, origin }))
    }

    fn find<'t>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<(Found<'t>, Origin)> {
        let in_file = section.in_file(key);
        let variable = section.variable_of(key);
        let set = variable.as_ref().and_then(|variable| Some((self.environment.get(variable)?, variable)));
        let found = match (set, in_file) {
            (Some((text, variable)), _) => {
                Some((Found::Variable(text.to_owned()), Origin::Variable(variable.clone())))
            }
            (None, Some(value)) => Some((Found::Toml(value), section.text.origin(&value.span()))),
            (None, None) => None,
        };
        self.variables.extend(variable);
        if let Some((_, origin)) = &found {
            // The first wins: what the operator wrote is read before what is built in.
            self.origins.entry(section.key_path(key)).or_insert_with(|| origin.clone());
        }
        found
    }
}
