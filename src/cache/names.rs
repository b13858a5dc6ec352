//! Names for documents that the cache makes of what it knows.

use std::collections::BTreeSet;

use super::Cache;
use crate::model::{Area, ProxyFacts, ProxyId};
use crate::protocol::{Derive, Protocol, Refusal};

impl Cache {
    /// Gathers what a derived document is made of: one name more than asked for, if there is one.
    ///
    /// # Errors
    /// [`Refusal::Internal`] if neither index nor files can be read.
    pub async fn names(
        &self,
        protocol: &'static dyn Protocol,
        derive: &Derive,
    ) -> Result<Vec<String>, Refusal> {
        let Derive::Scopes { proxy, after, limit } = derive;
        let wanted = limit + 1;
        let after = after.as_deref().unwrap_or("");
        if let Some(proxy) = proxy {
            return self.scopes(protocol, proxy, after, wanted).await;
        }
        let mut names = BTreeSet::new();
        for facts in self.proxies.iter().filter(|facts| facts.id.artifact_type == protocol.artifact_type()) {
            let prefix = prefix_of(facts);
            let Some(after) = after_within(&prefix, after) else { continue };
            let scopes = self.scopes(protocol, &facts.id, after, wanted).await?;
            names.extend(scopes.into_iter().map(|scope| format!("{prefix}{scope}")));
        }
        Ok(names.into_iter().take(wanted).collect())
    }

    /// Scopes of one proxy after a name, in lexical order.
    async fn scopes(
        &self,
        protocol: &'static dyn Protocol,
        proxy: &ProxyId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, Refusal> {
        if let Some(index) = self.index.get()
            && index.is_complete()
            && let Ok(scopes) = index.scopes(proxy, Some(after), limit)
        {
            return Ok(scopes);
        }
        let mut scopes = BTreeSet::new();
        let mut scan = self.store.scan_refs(proxy);
        while let Some(page) = scan.next_page().await {
            let page = page.map_err(|error| {
                tracing::error!(%error, %proxy, "could not list refs");
                Refusal::Internal
            })?;
            for key in page.into_iter().filter_map(|entry| entry.key).filter(|key| key.area == Area::Refs) {
                let scope = protocol.scope(&key.path);
                // The empty scope is that of paths which no request leads to.
                if scope > after && !scopes.contains(scope) {
                    scopes.insert(scope.to_owned());
                    if scopes.len() > limit {
                        scopes.pop_last();
                    }
                }
            }
        }
        Ok(scopes.into_iter().collect())
    }
}

/// What stands in front of a proxy's names in a list over all proxies.
fn prefix_of(facts: &ProxyFacts) -> String {
    if facts.default { String::new() } else { format!("{}/", facts.id.name) }
}

/// Where to start within one proxy so that its names, prefixed, come after `after`; `None` if none
/// can.
fn after_within<'a>(prefix: &str, after: &'a str) -> Option<&'a str> {
    match after.strip_prefix(prefix) {
        Some(rest) => Some(rest),
        None if after < prefix => Some(""),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_over_all_proxies_goes_on_where_it_stopped() {
        for (prefix, after, expected) in [
            ("", "library/x", Some("library/x")),
            ("ghcr/", "", Some("")),
            ("ghcr/", "ghcr/a/b", Some("a/b")),
            ("ghcr/", "a", Some("")),
            ("ghcr/", "library/x", None),
        ] {
            assert_eq!(after_within(prefix, after), expected, "{prefix} after {after}");
        }
    }
}
