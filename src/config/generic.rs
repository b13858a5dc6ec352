//! The keys of a proxy for plain HTTP: what holds for which paths, and what goes beyond HTTP's own rules.

use super::error::{ConfigError, Problem};
use super::reader::{Reader, Section};
use super::values;
use crate::model::{Heed, HttpRules, Leave, PathRule, Pattern, Treatment};

/// The most rules of a proxy.
const RULES_MAX: usize = 100;

/// Reads them from a proxy's section.
pub(super) fn read(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Result<HttpRules, ConfigError> {
    let default = HttpRules::DEFAULT;
    let mut flag = |reader: &mut Reader<'_>, key| {
        Ok::<_, ConfigError>(reader.one(section, key, values::boolean)?.map(|set| set.value))
    };
    let heed = flag(reader, "honour_client_directives")?;
    let heed = heed.map_or(default.heed, |heed| if heed { Heed::Everything } else { Heed::Nothing });
    let follow = flag(reader, "follow_redirects")?.unwrap_or(!default.keep_redirects);
    let forward_authorization =
        flag(reader, "forward_authorization")?.unwrap_or(default.forward_authorization);
    let forward_unsafe = flag(reader, "forward_unsafe")?.unwrap_or(default.forward_unsafe);
    let stale_if_error = reader.one(section, "stale_if_error", values::duration)?;
    let stale_if_error = stale_if_error.map_or(default.leave.stale_if_error, |set| set.value);
    let tables = section.sections("rules")?;
    if tables.len() > RULES_MAX {
        let message = format!("a proxy cannot have more than {RULES_MAX} rules");
        return Err(ConfigError::new(&section.origin, message).hint("say it with fewer patterns"));
    }
    Ok(HttpRules {
        rules: tables.into_iter().map(rule).collect::<Result<_, _>>()?,
        leave: Leave { stale_if_error },
        heed,
        keep_redirects: !follow,
        forward_authorization,
        forward_unsafe,
    })
}

/// Reads one `[[proxy.rules]]`.
fn rule(mut section: Section<'_>) -> Result<PathRule, ConfigError> {
    let pattern = section.only_in_file("match", pattern)?;
    let immutable = section.only_in_file("immutable", values::boolean)?.filter(|set| *set);
    let ttl = section.only_in_file("ttl", values::duration)?;
    let no_store = section.only_in_file("store", values::boolean)?.filter(|set| !*set);
    let sidecar = section.only_in_file("sidecar", sidecar)?;
    section.finish()?;
    let missing = |message: &str, hint: &str| ConfigError::new(&section.origin, message).hint(hint);
    let pattern = pattern.ok_or_else(|| missing("a rule has no `match`", "add `match = \"*.tar.gz\"`"))?;
    let treatment = match (immutable, ttl, no_store) {
        (Some(_), None, None) => Treatment::Immutable,
        (None, Some(ttl), None) => Treatment::For(ttl),
        (None, None, Some(_)) => Treatment::NoStore,
        _ => {
            let hint = "write one of `immutable = true`, `ttl = \"1d\"`, `store = false`";
            return Err(missing("a rule says one thing about how long its paths are kept", hint));
        }
    };
    if sidecar.is_some() && treatment == Treatment::NoStore {
        let hint = "remove `sidecar`, or store what it checks";
        return Err(missing("a rule has a `sidecar` for what is not stored", hint));
    }
    Ok(PathRule { pattern, treatment, sidecar })
}

fn pattern(text: &str) -> Result<Pattern, Problem> {
    text.parse().map_err(|error| {
        Problem::new(format!("{error}")).hint("`*.tar.gz` is for file names, `dists/**` for paths")
    })
}

fn sidecar(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("`{text}` is not what a file name can end in")).hint("write it as `.sha256`"))
}
