//! Bearer tokens: what a challenge demands, and the token service that satisfies it
//! (distribution's token authentication; `OAuth2` for identity tokens).

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::credentials::{Login, bearer};
use super::flights::Lease;
use super::follow::{Call, Net, is_denial};
use super::settings::Limits;
use super::{Secret, UpstreamError, retry};

/// How we call ourselves to `OAuth2` services.
const CLIENT_ID: &str = "repoxy";

/// How long a token holds that does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The longest that any token is kept.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The longest token document.
const MAX_DOCUMENT: usize = 64 * 1024;

/// What a token is asked for, and by whom: the key under which it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Demand {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) login: Login,
}

impl Demand {
    /// What a challenge demands; `scope` is used if it names none.
    pub(super) fn of(challenge: &Challenge, scope: Option<&str>, login: &Login) -> Option<Self> {
        let parameter = |name| challenge.parameter(name).filter(|value| !value.is_empty());
        Some(Self {
            realm: parameter("realm")?.parse().ok()?,
            service: parameter("service").map(str::to_owned),
            scope: parameter("scope").or(scope).map(str::to_owned),
            login: login.clone(),
        })
    }
}

/// Asks the token service. `base` is the upstream that demands the token: its realm sees our
/// credentials only if the trust rules say so, and is asked as nobody otherwise.
pub(super) async fn fetch(net: Arc<Net>, base: Url, demand: Demand) -> Result<Lease<Secret>, UpstreamError> {
    let exchange = async {
        let sees =
            net.trust.realm_sees_credentials(&base, &demand.realm).map_err(UpstreamError::Forbidden)?;
        let nobody = Login::None;
        let login = if sees { &demand.login } else { &nobody };
        let arrived = net.follow(call(&demand, login)?).await?;
        // The life of a token is counted from here by our own clock; `issued_at` is by another's.
        let received = Instant::now();
        let (head, body) = arrived.response.into_parts();
        judge(head.status, &head.headers, *login == Login::None, &net.limits)?;
        let body = Limited::new(body, MAX_DOCUMENT).collect().await;
        let body = body.map_err(|_| senseless("a token document that broke off or is too long"))?;
        read(&body.to_bytes(), received, &net.limits)
    };
    let timeout = net.limits.first_byte;
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(UpstreamError::Timeout("token service")))
}

fn call(demand: &Demand, login: &Login) -> Result<Call, UpstreamError> {
    let named = [("service", demand.service.as_deref())];
    let scopes = demand.scope.iter().flat_map(|scope| scope.split(' ')).map(|scope| ("scope", Some(scope)));
    let parameters: Vec<_> =
        named.into_iter().chain(scopes).filter_map(|(name, value)| Some((name, value?))).collect();
    let mut url = demand.realm.clone();
    url.set_fragment(None);
    if let Login::Identity(token) = login {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
        // Unlike the query of a GET, the form has one `scope` with spaces in it (RFC 6749, 3.3).
        let named = [("service", demand.service.as_deref()), ("scope", demand.scope.as_deref())];
        form.extend_pairs(named.into_iter().filter_map(|(name, value)| Some((name, value?))));
        form.append_pair("refresh_token", token.expose());
        let form = Some(form.finish());
        return Ok(Call {
            method: Method::POST,
            url,
            headers: HeaderMap::new(),
            private: HeaderMap::new(),
            form,
            body: None,
            keep_redirects: false,
        });
    }
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    let private = login.basic()?.unwrap_or_default();
    Ok(Call {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        private,
        form: None,
        body: None,
        keep_redirects: false,
    })
}

fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    anonymous: bool,
    limits: &Limits,
) -> Result<(), UpstreamError> {
    match status {
        StatusCode::OK => Ok(()),
        status if is_denial(status) => Err(UpstreamError::Denied { status: status.as_u16(), anonymous }),
        StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = Some(retry::pause_of(headers, limits));
            Err(UpstreamError::RateLimited { retry_after, asked: true })
        }
        status if status.is_server_error() => Err(UpstreamError::Status(status.as_u16())),
        status => Err(UpstreamError::Senseless(format!("status {} from the token service", status.as_u16()))),
    }
}

#[derive(Deserialize)]
struct Document {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

fn read(document: &[u8], received: Instant, limits: &Limits) -> Result<Lease<Secret>, UpstreamError> {
    let document: Document =
        serde_json::from_slice(document).map_err(|_| senseless("a token document that cannot be read"))?;
    let filled = |text: &String| !text.is_empty();
    let token = document.token.filter(filled).or(document.access_token.filter(filled));
    let token = Secret::from(token.ok_or_else(|| senseless("a token document without a token"))?);
    bearer(&token).map_err(|_| senseless("a token that cannot be sent"))?;
    let seconds = document.expires_in.as_ref().and_then(serde_json::Value::as_f64);
    let life = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).ok());
    let life = life.unwrap_or(DEFAULT_LIFE).min(MAX_LIFE);
    // A short token is still worth keeping for half of its life.
    let margin = limits.token_margin.min(life / 2);
    Ok(Lease { value: token, until: received + life.saturating_sub(margin) })
}

fn senseless(what: &str) -> UpstreamError {
    UpstreamError::Senseless(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::challenge;

    fn demand(scope: Option<&str>, login: &Login) -> Demand {
        let challenges = challenge::parse([r#"Bearer realm="https://auth.example/token?x=1",service="a b""#]);
        Demand::of(&challenges[0], scope, login).expect("a realm")
    }

    #[test]
    fn the_token_is_asked_for_with_service_and_scopes_by_get() {
        let login = Login::Basic { username: "me".to_owned(), password: "pw".into() };
        let demand = demand(Some("repository:a/b:pull repository:c:pull"), &login);
        let call = call(&demand, &demand.login).expect("sendable");
        assert_eq!(
            (call.method, call.url.as_str()),
            (
                Method::GET,
                "https://auth.example/token?x=1&service=a+b&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull"
            )
        );
        assert_eq!(call.private["authorization"], "Basic bWU6cHc=");
    }

    #[test]
    fn an_identity_token_is_exchanged_by_post_and_is_in_no_url() {
        let demand = demand(Some("repository:a:pull"), &Login::Identity("canary&".into()));
        let call = call(&demand, &demand.login).expect("sendable");
        assert_eq!((call.method, call.url.as_str()), (Method::POST, "https://auth.example/token?x=1"));
        assert_eq!(
            call.form.as_deref(),
            Some(
                "grant_type=refresh_token&client_id=repoxy&service=a+b&scope=repository%3Aa%3Apull&refresh_token=canary%26"
            )
        );
    }

    #[test]
    fn a_challenge_without_a_usable_realm_demands_nothing() {
        for header in ["Bearer", r#"Bearer realm="""#, r#"Bearer realm="not a url""#] {
            let challenges = challenge::parse([header]);
            assert_eq!(Demand::of(&challenges[0], None, &Login::None), None, "{header}");
        }
    }

    #[test]
    fn a_token_holds_until_shortly_before_its_end_counted_from_its_receipt() {
        let (now, limits) = (Instant::now(), Limits::default());
        for (document, token, seconds) in [
            (r#"{"token":"t","expires_in":300,"issued_at":"1999-01-01T00:00:00Z"}"#, "t", 270),
            (r#"{"access_token":"a","expires_in":300.0}"#, "a", 270),
            (r#"{"token":"","access_token":"a"}"#, "a", 30),
            (r#"{"token":"t","access_token":"a","expires_in":"soon"}"#, "t", 30),
            (r#"{"token":"t","expires_in":10}"#, "t", 5),
            (r#"{"token":"t","expires_in":-10}"#, "t", 0),
            (r#"{"token":"t","expires_in":1e300}"#, "t", 24 * 3600 - 30),
        ] {
            let lease = read(document.as_bytes(), now, &limits).expect("good");
            let until = now + Duration::from_secs(seconds);
            assert_eq!((lease.value.expose(), lease.until), (token, until), "{document}");
        }
    }

    #[test]
    fn token_documents_that_make_no_sense_are_refused_without_being_quoted() {
        for document in ["", "canary", "{}", r#"{"token":["canary"]}"#, r#"{"token":"can\nary"}"#] {
            let error = read(document.as_bytes(), Instant::now(), &Limits::default()).expect_err("refused");
            assert!(matches!(error, UpstreamError::Senseless(_)));
            assert!(!format!("{error:?}").contains("ary"), "{error:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_token_that_is_taken_can_be_sent_and_ends(
            token in option::of("[a-zA-Z0-9._~+/=é\n-]{0,20}"),
            life in prop_oneof![any::<f64>().prop_map(|life| format!("{life:e}")), "[0-9.eE+\"-]{1,20}"],
            behind in prop_oneof![8 => Just(String::new()), 1 => "[\\[\\]{}:,a-z0-9 ]{0,3}"],
        ) {
            let (now, limits) = (Instant::now(), Limits::default());
            let token = serde_json::json!(token);
            let document = format!(r#"{{"token":{token},"expires_in":{life}}}{behind}"#);
            if let Ok(lease) = read(document.as_bytes(), now, &limits) {
                prop_assert_eq!(&serde_json::json!(lease.value.expose()), &token);
                prop_assert!(bearer(&lease.value).is_ok() && lease.until >= now && lease.until <= now + MAX_LIFE);
            }
        }
    }
}
