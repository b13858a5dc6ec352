//! Who may read what an origin holds.

use base64::Engine as _;

/// Who may read what is under `/v2/`.
#[must_use]
#[derive(Debug, Clone, Default)]
pub struct Protection {
    pub(super) basic: Option<String>,
    pub(super) bearer: Option<Bearer>,
}

#[derive(Debug, Clone)]
pub(super) struct Bearer {
    pub(super) realm: Option<String>,
    pub(super) scope_in_challenge: bool,
    pub(super) expires_in: u64,
    pub(super) login: Option<String>,
    pub(super) refresh_token: Option<String>,
}

impl Protection {
    /// HTTP Basic with this login.
    pub fn basic(username: &str, password: &str) -> Self {
        Self { basic: Some(basic(username, password)), bearer: None }
    }

    /// Tokens from `http://localhost:<port>/token`, for anybody, with the scope in the challenge.
    pub fn bearer() -> Self {
        let bearer = Bearer {
            realm: None,
            scope_in_challenge: true,
            expires_in: 300,
            login: None,
            refresh_token: None,
        };
        Self { basic: None, bearer: Some(bearer) }
    }

    /// Gives tokens only to this login.
    pub fn login(self, username: &str, password: &str) -> Self {
        self.change(|bearer| bearer.login = Some(basic(username, password)))
    }

    /// Gives tokens only for this refresh (identity) token, by POST.
    pub fn refresh_token(self, token: &str) -> Self {
        self.change(|bearer| bearer.refresh_token = Some(token.to_owned()))
    }

    /// Names no scope in the challenge, as Docker Hub does for `/v2/`.
    pub fn without_scope(self) -> Self {
        self.change(|bearer| bearer.scope_in_challenge = false)
    }

    /// Says that tokens hold this long.
    pub fn expires_in(self, seconds: u64) -> Self {
        self.change(|bearer| bearer.expires_in = seconds)
    }

    /// Names this realm in the challenge.
    pub fn realm(self, url: &str) -> Self {
        self.change(|bearer| bearer.realm = Some(url.to_owned()))
    }

    fn change(mut self, change: impl FnOnce(&mut Bearer)) -> Self {
        change(self.bearer.as_mut().expect("only for bearer"));
        self
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

/// `repository:<name>:pull` for a path below `/v2/`; empty for `/v2/` itself.
pub(super) fn scope_of(path: &str) -> String {
    ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
        .iter()
        .find_map(|marker| path.rsplit_once(marker))
        .map_or_else(String::new, |(name, _)| format!("repository:{name}:pull"))
}
