//! What a 401 asks for: the `WWW-Authenticate` header (RFC 9110, 11.6.1). Pure.
//!
//! Upstream wrote it, so anything may be in it: what cannot be read is passed over, nothing panics,
//! and counts and lengths are bounded.

/// The longest header value that is read.
const MAX_LEN: usize = 8 * 1024;

/// The most challenges, over all headers, and the most parameters of one.
const MAX_CHALLENGES: usize = 8;
const MAX_PARAMETERS: usize = 16;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case.
    pub(super) scheme: String,
    /// The parameters in order, names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges in the values of all `WWW-Authenticate` headers of an answer.
pub(super) fn parse<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for value in values.into_iter().filter(|value| value.len() <= MAX_LEN) {
        Reader { rest: value }.challenges(&mut challenges);
    }
    challenges
}

struct Reader<'v> {
    rest: &'v str,
}

impl<'v> Reader<'v> {
    /// A list of `scheme`, `scheme token68` and `scheme name=value`, in which a comma may end a
    /// parameter as well as a challenge: what follows a name tells which it was.
    fn challenges(mut self, into: &mut Vec<Challenge>) {
        let first = into.len();
        loop {
            self.skip(|c| c == ',' || c == ' ' || c == '\t');
            if self.rest.is_empty() {
                return;
            }
            let name = self.token();
            if name.is_empty() {
                // Not a token: on to the next comma outside quotes.
                self.pass_over();
                continue;
            }
            match self.value() {
                Some(value) => {
                    let open = into.len() > first;
                    if let Some(challenge) = into.last_mut().filter(|_| open)
                        && challenge.parameters.len() < MAX_PARAMETERS
                    {
                        challenge.parameters.push((name.to_ascii_lowercase(), value));
                    }
                }
                None if into.len() >= MAX_CHALLENGES => return,
                None => {
                    into.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
                    self.skip(|c| c == ' ' || c == '\t');
                    self.token68();
                }
            }
        }
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(wanted);
    }

    fn token(&mut self) -> &'v str {
        let end = self.rest.find(|c: char| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    /// `= value` after a name, with white space around the sign as old servers send it.
    fn value(&mut self) -> Option<String> {
        let after = self.rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        let after = after.trim_start_matches([' ', '\t']);
        let next = after.chars().next()?;
        if next == '"' {
            self.rest = &after[1..];
            return Some(self.quoted());
        }
        if !is_token(next) {
            return None;
        }
        // Unquoted values are tokens by the grammar; URLs and scopes without quotes are seen, too.
        let end = after.find([',', ' ', '\t']).unwrap_or(after.len());
        self.rest = &after[end..];
        Some(after[..end].to_owned())
    }

    /// The rest of a quoted string; one that is not closed ends with the header.
    fn quoted(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return text;
                }
                '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        self.rest = "";
        text
    }

    /// Passes over the token68 of a scheme such as `Negotiate`; parameters are left alone.
    fn token68(&mut self) {
        let is_68 = |c: char| is_token(c) || c == '/';
        let end = self.rest.find(|c| !is_68(c)).unwrap_or(self.rest.len());
        let after = self.rest[end..].trim_start_matches('=').trim_start_matches([' ', '\t']);
        let alone = after.is_empty() || after.starts_with(',');
        // `Basic, Bearer realm=…` has nothing here; `a` in `Negotiate a` is one, in `Basic a=b` it is not.
        if end > 0 && alone {
            self.rest = after;
        }
    }

    fn pass_over(&mut self) {
        let mut quoted = false;
        let end = self.rest.find(|c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        self.rest = end.map_or("", |end| &self.rest[end..]);
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        for (header, expect) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push repository:b:pull""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:samalba/my-app:pull,push repository:b:pull"),
                    ],
                )],
            ),
            (
                r#"Basic realm="a, b", Bearer realm="c",error="invalid_token""#,
                vec![
                    challenge("basic", &[("realm", "a, b")]),
                    challenge("bearer", &[("realm", "c"), ("error", "invalid_token")]),
                ],
            ),
            (r#"BASIC Realm = "x\"y\\z""#, vec![challenge("basic", &[("realm", r#"x"y\z"#)])]),
            ("Basic", vec![challenge("basic", &[])]),
            ("Basic, Bearer realm=x", vec![challenge("basic", &[]), challenge("bearer", &[("realm", "x")])]),
            (
                "Negotiate YII/a+b==, Bearer realm=https://a/b?c=d, service=s",
                vec![
                    challenge("negotiate", &[]),
                    challenge("bearer", &[("realm", "https://a/b?c=d"), ("service", "s")]),
                ],
            ),
            (r#"Bearer realm="not closed"#, vec![challenge("bearer", &[("realm", "not closed")])]),
            (r#"a="b", Bearer c="d""#, vec![challenge("bearer", &[("c", "d")])]),
            (r#"@"x,y", Basic realm="z""#, vec![challenge("basic", &[("realm", "z")])]),
            ("", vec![]),
            (" , ,", vec![]),
        ] {
            assert_eq!(parse([header]), expect, "{header}");
        }
    }

    #[test]
    fn challenges_may_be_spread_over_headers() {
        let both = parse([r#"Basic realm="a""#, r#"Bearer realm="b""#]);
        assert_eq!(both, [challenge("basic", &[("realm", "a")]), challenge("bearer", &[("realm", "b")])]);
    }

    #[test]
    fn what_upstream_sends_is_bounded() {
        assert_eq!(parse([&*format!("Bearer realm=\"{}\"", "a".repeat(MAX_LEN))]), []);
        assert_eq!(parse(["a, b, c, d, e, f, g, h, i, j"]).len(), MAX_CHALLENGES);
        let many = "p=x,".repeat(100);
        assert_eq!(parse([&*format!("Bearer {many}")])[0].parameters.len(), MAX_PARAMETERS);
    }

    fn quote(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    proptest! {
        #[test]
        fn nothing_upstream_sends_makes_it_panic(header in r#"[ -~\t"\\,=é]{0,80}"#) {
            parse([&*header]);
        }

        #[test]
        fn what_is_written_by_the_grammar_is_read_back(
            challenges in proptest::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,8}", proptest::collection::vec(("[a-z_]{1,8}", "[ -~]{0,20}"), 1..4)),
                1..4,
            ),
        ) {
            let header: Vec<String> = challenges
                .iter()
                .map(|(scheme, parameters)| {
                    let parameters: Vec<_> = parameters.iter().map(|(k, v)| format!("{k}={}", quote(v))).collect();
                    format!("{scheme} {}", parameters.join(", "))
                })
                .collect();
            let expect: Vec<_> = challenges
                .iter()
                .map(|(scheme, parameters)| Challenge { scheme: scheme.to_ascii_lowercase(), parameters: parameters.clone() })
                .collect();
            prop_assert_eq!(parse([&*header.join(", ")]), expect);
        }
    }
}
