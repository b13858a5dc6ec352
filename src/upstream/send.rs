//! A request from the first base to the last try, and the answer to a denial.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::answer::Giver;
use super::credentials::bearer;
use super::follow::{Arrived, Call, is_denial};
use super::site::{Scheme, Site};
use super::{
    Answer, Ask, Demand, Live, Login, Secret, Target, Upstream, UpstreamError, challenge, retry, token,
};

/// How often credentials may be refused before a denial is final: once what was kept, once what is new.
const MAX_REFUSALS: u32 = 2;

/// The longest `Via` that is passed on.
const MAX_VIA: usize = 1024;

/// One place where a request may be sent.
#[derive(Debug)]
struct Place {
    url: Url,
    site: Arc<Site>,
    /// The base whose credentials go along.
    base: Option<Url>,
}

impl Upstream {
    /// Asks, with retries, tokens, redirects and the breaker, until headers are there.
    ///
    /// Bases are tried in order: the next one when one is in trouble, limits us or is left alone.
    /// If all of them fail, they are tried again after a pause, as far as tries, time and the budget
    /// for retries allow. What upstream stands by (404, 401, 403 …) is final.
    ///
    /// Cancel safe: a request under way is ended.
    ///
    /// # Errors
    /// An [`UpstreamError`]; of several, the one of the first base, unless another limits us.
    pub async fn send(&self, ask: &Ask) -> Result<Answer, UpstreamError> {
        let live = self.live.load_full();
        let answer = self.in_rounds(&live, ask).await;
        if let Err(error) = &answer {
            live.net.meters.failed(error);
            tracing::debug!(proxy = self.settings.proxy, kind = error.kind(), %error, "upstream request failed");
        }
        answer
    }

    async fn in_rounds(&self, live: &Live, ask: &Ask) -> Result<Answer, UpstreamError> {
        let limits = &self.settings.limits;
        let mut deadline = Instant::now() + ask.deadline.unwrap_or(limits.deadline);
        let places = self.places(ask)?;
        self.budget(retry::Budget::earn);
        let mut round = 0;
        let mut before = None;
        loop {
            let outcome = match (in_order(live, ask, &places, &mut deadline).await, before) {
                // Our own failures opened the breaker: what they were says more.
                (Err(UpstreamError::Open { .. }), Some(before)) => return Err(before),
                (outcome, _) => outcome,
            };
            let pause = retry::backoff(limits.backoff, round, chance());
            round += 1;
            let may = is_trouble(&outcome)
                && ask.act.is_none()
                && round < limits.tries
                && Instant::now() + pause < deadline
                && self.budget(retry::Budget::spend);
            match outcome {
                Err(error) if may => before = Some(error),
                // The answer and its permit are given back before the wait.
                Ok(answer) if may => before = Some(UpstreamError::Status(answer.status.as_u16())),
                outcome => return outcome,
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The path below a base URL that a reference in an answer (`Location`) leads to, as seen from the path
    /// that was asked; `None` if it leads elsewhere.
    pub fn path_to(&self, asked: &str, reference: &str) -> Option<String> {
        let bases = &self.settings.bases;
        let target = below(bases.first()?, asked).ok()?.join(reference).ok()?;
        bases.iter().find_map(|base| above(base, &target))
    }

    fn budget<T>(&self, act: impl FnOnce(&mut retry::Budget) -> T) -> T {
        act(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn places(&self, ask: &Ask) -> Result<Vec<Place>, UpstreamError> {
        let bases = &self.settings.bases;
        let most = if ask.act.is_some() { 1 } else { bases.len() };
        match &ask.target {
            Target::Path(path) => bases
                .iter()
                .zip(self.sites.bases())
                .take(most)
                .map(|(base, site)| {
                    Ok(Place { url: below(base, path)?, site: Arc::clone(site), base: Some(base.clone()) })
                })
                .collect(),
            Target::Url(url) => {
                let base = bases.iter().find(|base| base.origin() == url.origin()).cloned();
                let site = self.sites.of(url, &self.settings.limits);
                Ok(vec![Place { url: url.clone(), site, base }])
            }
        }
    }
}

/// A path below a base URL; an error if it would lead elsewhere.
fn below(base: &Url, path: &str) -> Result<Url, UpstreamError> {
    let prefix = base.as_str().trim_end_matches('/');
    let url = path.starts_with('/').then(|| Url::parse(&format!("{prefix}{path}")).ok()).flatten();
    let prefix = base.path().trim_end_matches('/');
    url.filter(|url| {
        url.origin() == base.origin()
            && url.path().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    })
    .ok_or_else(|| UpstreamError::Senseless("a path that leads out of the base URL".to_owned()))
}

/// The path and query of a URL below a base; the inverse of [`below`].
fn above(base: &Url, url: &Url) -> Option<String> {
    let rest = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
    let is_below = base.origin() == url.origin() && rest.starts_with('/');
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    is_below.then(|| format!("{rest}{query}"))
}

/// Asks one place after the other.
async fn in_order(
    live: &Live,
    ask: &Ask,
    places: &[Place],
    deadline: &mut Instant,
) -> Result<Answer, UpstreamError> {
    let mut first: Option<UpstreamError> = None;
    for (index, place) in places.iter().enumerate() {
        let error = match visit(live, ask, place, deadline).await {
            // An error that another place may not have.
            Ok(answer) if answer.is_trouble() && index + 1 < places.len() => {
                UpstreamError::Status(answer.status.as_u16())
            }
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let limited = matches!(error, UpstreamError::RateLimited { .. });
        if !(limited || error.is_trouble() || matches!(error, UpstreamError::Open { .. })) {
            return Err(error);
        }
        first = match first {
            Some(known) if !matches!(known, UpstreamError::Open { .. }) && !limited => Some(known),
            Some(known @ UpstreamError::RateLimited { .. }) => Some(known),
            Some(_) | None => Some(error),
        };
    }
    Err(first.unwrap_or(UpstreamError::NotFound))
}

/// Asks one place once, if it may be asked now. The deadline is moved by how long it had to wait for its turn.
async fn visit(
    live: &Live,
    ask: &Ask,
    place: &Place,
    deadline: &mut Instant,
) -> Result<Answer, UpstreamError> {
    let limits = &live.net.limits;
    let until = tokio::time::Instant::from_std(*deadline);
    let login = match &place.base {
        Some(base) => {
            let login = live.credentials.login(base, repository(ask), limits);
            tokio::time::timeout_at(until, login)
                .await
                .unwrap_or(Err(UpstreamError::Timeout("credentials")))?
        }
        None => Login::None,
    };
    place.site.check(&login, Instant::now())?;
    let permit = Arc::clone(&place.site.permits).acquire_owned();
    let queued = Instant::now();
    let turn = if ask.deadline.is_some() { *deadline } else { queued + limits.queue };
    let Ok(Ok(permit)) = tokio::time::timeout_at(turn.into(), permit).await else {
        return Err(UpstreamError::Timeout("queue"));
    };
    let begin = Instant::now();
    if ask.deadline.is_none() {
        *deadline += begin - queued;
    }
    let until = tokio::time::Instant::from_std(*deadline);
    let admitted = place.site.admit(&login)?;
    let talk = Talk { live, ask, place, login: &login };
    let arrived = tokio::time::timeout_at(until, talk.converse()).await;
    let arrived = arrived.unwrap_or(Err(UpstreamError::Timeout("deadline")));
    let answer = arrived.and_then(|arrived| {
        let over = ask.patience.map(|patience| begin + patience);
        let (host, anonymous) = (place.site.host.clone(), login == Login::None);
        let giver = Giver { host, anonymous, waited: begin.elapsed() };
        Answer::new(ask, arrived.response, giver, over, Arc::clone(&live.net), permit)
    });
    let answer = answer.map(|answer| if ask.keep_redirects { stay(answer, place) } else { answer });
    match &answer {
        Ok(answer) if answer.is_trouble() => {
            admitted.report::<()>(&Err(UpstreamError::Status(answer.status.as_u16())));
        }
        answer => admitted.report(answer),
    }
    if let Err(UpstreamError::RateLimited { retry_after: Some(pause), .. }) = &answer {
        place.site.pause(&login, *pause);
    }
    answer
}

/// Makes the target of a redirect that stays below the base relative, so that it leads whoever came here
/// by another name back by that name.
fn stay(mut answer: Answer, place: &Place) -> Answer {
    let relative =
        answer.header("location").filter(|_| answer.status.is_redirection()).and_then(|location| {
            let target = place.url.join(location).ok()?;
            above(place.base.as_ref()?, &target)?;
            let relative = place.url.make_relative(&target).filter(|relative| !relative.is_empty())?;
            HeaderValue::try_from(relative).ok()
        });
    if let Some(relative) = relative {
        answer.headers.insert(header::LOCATION, relative);
    }
    answer
}

/// Whether upstream is in trouble, by what it said or because it said nothing.
fn is_trouble(outcome: &Result<Answer, UpstreamError>) -> bool {
    outcome.as_ref().map_or_else(UpstreamError::is_trouble, Answer::is_trouble)
}

/// One conversation: the request, and the answers to what a denial demands.
struct Talk<'a> {
    live: &'a Live,
    ask: &'a Ask,
    place: &'a Place,
    login: &'a Login,
}

/// What goes along with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// Only what always goes along.
    Nothing,
    Basic,
    Token(Demand),
}

impl Talk<'_> {
    async fn converse(&self) -> Result<Arrived, UpstreamError> {
        let mut proof = self.expected();
        let mut refusals = 0;
        loop {
            let (private, token) = match (&proof, &self.place.base) {
                (Proof::Token(demand), Some(base)) => {
                    let token = self.token(demand, base).await?;
                    (bearer(&token)?, Some(token))
                }
                (Proof::Basic, Some(_)) => (self.login.basic()?.unwrap_or_default(), None),
                _ => (self.login.always()?, None),
            };
            let arrived = self.live.net.follow(self.call(private)).await?;
            let status = arrived.response.status();
            if !arrived.at_home || !is_denial(status) {
                return Ok(arrived);
            }
            if let (Proof::Token(demand), Some(token)) = (&proof, &token) {
                self.live.tokens.forget(demand, token);
            }
            let next = if status == StatusCode::UNAUTHORIZED {
                self.demanded(arrived.response.headers())
            } else {
                // A token may have become too weak; without one, no is no.
                token.is_some().then(|| proof.clone())
            };
            refusals += match proof {
                Proof::Nothing => 0,
                Proof::Token(_) => 1,
                Proof::Basic => MAX_REFUSALS,
            };
            match next {
                Some(next) if refusals < MAX_REFUSALS => proof = next,
                _ => return Ok(arrived),
            }
        }
    }

    /// What the place will demand, judging by its last challenge.
    fn expected(&self) -> Proof {
        match (self.place.site.scheme(), self.login) {
            (_, Login::Bearer(_) | Login::Header { .. }) => Proof::Nothing,
            _ if self.place.base.is_none() => Proof::Nothing,
            (Some(Scheme::Basic), Login::Basic { .. }) => Proof::Basic,
            (Some(Scheme::Bearer { realm, service }), login) => {
                self.ask.token_scope.clone().map_or(Proof::Nothing, |scope| {
                    Proof::Token(Demand { realm, service, scope: Some(scope), login: login.clone() })
                })
            }
            _ => Proof::Nothing,
        }
    }

    /// What a 401 demands, if we can give it; and remembers it. Of several challenges a token is
    /// preferred, for then the password goes to the token service only.
    fn demanded(&self, headers: &HeaderMap) -> Option<Proof> {
        if self.place.base.is_none() || matches!(self.login, Login::Bearer(_) | Login::Header { .. }) {
            return None;
        }
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = challenge::parse(values.filter_map(|value| value.to_str().ok()));
        let scope = self.ask.token_scope.as_deref();
        let demand = challenges
            .iter()
            .filter(|challenge| challenge.scheme == "bearer")
            .find_map(|challenge| Demand::of(challenge, scope, self.login));
        if let Some(demand) = demand {
            let (realm, service) = (demand.realm.clone(), demand.service.clone());
            self.place.site.learn(Scheme::Bearer { realm, service });
            return Some(Proof::Token(demand));
        }
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        if basic && matches!(self.login, Login::Basic { .. }) {
            self.place.site.learn(Scheme::Basic);
            return Some(Proof::Basic);
        }
        None
    }

    async fn token(&self, demand: &Demand, base: &Url) -> Result<Secret, UpstreamError> {
        let (net, base) = (Arc::clone(&self.live.net), base.clone());
        let fetch = || token::fetch(net, base, demand.clone());
        self.live.tokens.get(demand, Instant::now(), fetch).await
    }

    fn call(&self, own: HeaderMap) -> Call {
        let ask = self.ask;
        // What is our own wins over what the client sent along.
        let mut private = ask.headers.clone();
        private.extend(own);
        let mut headers = HeaderMap::new();
        if let Some(accept) = ask.accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        // What cannot be a header value cannot have come from upstream as one: then it is left out,
        // and the answer is a whole one.
        let mut put = |name: HeaderName, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        };
        put(header::IF_NONE_MATCH, ask.if_none_match.as_deref());
        put(header::IF_MODIFIED_SINCE, ask.if_modified_since.as_deref());
        if let Some(resume) = &ask.resume {
            put(header::RANGE, Some(&format!("bytes={}-", resume.from)));
            put(header::IF_RANGE, resume.validator.as_deref().filter(|validator| is_strong(validator)));
        }
        let passed = ask.via.as_deref().filter(|via| !via.is_empty() && via.len() <= MAX_VIA);
        let own = self.live.net.via.to_str().unwrap_or_default();
        put(header::VIA, passed.map(|passed| format!("{passed}, {own}")).as_deref());
        let (method, body) = match &ask.act {
            Some(act) => (act.method.clone(), Some(act.body.clone())),
            None => (if ask.head { Method::HEAD } else { Method::GET }, None),
        };
        // What changes something is not repeated elsewhere on upstream's word.
        let keep_redirects = ask.keep_redirects || body.is_some();
        Call { method, url: self.place.url.clone(), headers, private, form: None, body, keep_redirects }
    }
}

/// Whether a validator may stand in `If-Range`: a strong tag or a date (RFC 9110, 13.1.5).
fn is_strong(validator: &str) -> bool {
    validator.starts_with('"') || httpdate::parse_http_date(validator).is_ok()
}

/// The repository in a scope such as `repository:library/alpine:pull`: by it, a Docker `config.json`
/// may know several identities at one host.
fn repository(ask: &Ask) -> Option<&str> {
    ask.token_scope.as_deref()?.strip_prefix("repository:")?.split(':').next()
}

/// From 0 to 1, for spreading retries. Every hasher state of the standard library is random, which
/// is chance enough for this.
fn chance() -> f64 {
    let word = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or(0);
    f64::from(word) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_base() {
        let base: Url = "https://mirror.example:8443/hub/".parse().expect("a URL");
        let good = below(&base, "/v2/a/manifests/1?x=%2F..").expect("below");
        assert_eq!(good.as_str(), "https://mirror.example:8443/hub/v2/a/manifests/1?x=%2F..");
        for bad in ["", "v2/", "@evil/", "/../x", "/v2/../../x", "/%2e%2e/x", "/\\..\\..\\x"] {
            assert!(below(&base, bad).is_err(), "{bad}");
        }
        let root: Url = "https://host".parse().expect("a URL");
        assert_eq!(below(&root, "//evil.example/x").expect("a path").host_str(), Some("host"));
    }

    #[test]
    fn a_reference_is_followed_back_to_a_path_below_the_base() {
        let base: Url = "https://mirror.example/hub".parse().expect("a URL");
        let to =
            |reference| above(&base, &below(&base, "/a/b").expect("below").join(reference).expect("joins"));
        assert_eq!(to("c?x=1#f").as_deref(), Some("/a/c?x=1"));
        assert_eq!(to("/hub/c").as_deref(), Some("/c"));
        assert_eq!(to("https://mirror.example/hub/").as_deref(), Some("/"));
        for elsewhere in
            ["/other", "/hubbub", "//evil.example/hub/c", "http://mirror.example/hub/c", "../../x"]
        {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn weak_validators_never_stand_in_if_range() {
        assert!(is_strong("\"abc\""));
        assert!(is_strong("Sun, 09 Nov 2025 12:34:56 GMT"));
        assert!(!is_strong("W/\"abc\""));
        assert!(!is_strong("abc"));
    }

    #[test]
    fn chance_is_between_nought_and_one_and_varies() {
        let chances: Vec<_> = (0..100).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.iter().any(|chance| (chance - chances[0]).abs() > f64::EPSILON));
    }

    #[test]
    fn the_repository_is_taken_from_the_scope() {
        let of = |scope: &str| {
            repository(&Ask { token_scope: Some(scope.to_owned()), ..Ask::default() }).map(str::to_owned)
        };
        assert_eq!(of("repository:library/alpine:pull").as_deref(), Some("library/alpine"));
        assert_eq!(of("registry:catalog:*"), None);
    }
}
