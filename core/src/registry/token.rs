//! Tokens: fetched from the token server that a registry names.
//!
//! Source: the distribution project's `token.md` (GET with Basic) and `oauth.md` (POST with an
//! identity token).

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::authentication::basic;
use super::endpoint::Endpoint;
use super::refusal::Refusal;
use crate::credentials::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Failure;

/// A token lives so long when the token server does not say: `token.md`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// A token that ends within this time is renewed first: a request must not meet its end.
const RENEWAL_MARGIN: Duration = Duration::from_secs(10);
/// No token is kept longer, whatever the token server says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest answer of a token server; real ones are below 10 KiB.
const TOKEN_LIMIT_BYTES: u64 = 1 << 20;
/// The user name that stands for an identity token: docker/docker-credential-helpers.
const TOKEN_USER: &str = "<token>";

/// A token for some scope at a registry.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Authorization: Bearer …`
    pub(super) header: HeaderValue,
    /// When another is fetched in its place.
    pub(super) renew_at: Instant,
    /// When it ends, as the token server says, or as it should have.
    pub(super) ends_at: Instant,
    /// The token server has said how long it lasts.
    pub(super) is_said: bool,
    /// When it says of itself that it ends, seconds since 1970.
    pub(super) jwt_end: Option<i64>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<u64>,
}

/// Fetches a token. An identity token is exchanged by POST; a server that knows only GET gets it
/// there, as `containerd` does: seen with GCR (404), JFrog (401), and others (400, 405).
pub(super) async fn fetch(
    endpoint: &Endpoint,
    realm: &Url,
    service: Option<&str>,
    words: &[String],
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let server = realm.host_str().unwrap_or_default().to_owned();
    // A registry with TLS may name a token server without: our password would be readable.
    if credential.is_some() && endpoint.is_secure() && realm.scheme() != "https" {
        let message = format!("`{}` wants our credential sent to `{server}` without TLS", endpoint.registry);
        return Err(Error::new(ErrorKind::Denied, message).into());
    }
    let exchange = Exchange { endpoint, realm, service, words, server, known: credential.is_some() };
    match credential {
        None => exchange.ask(exchange.get()?).await,
        Some(Credential::Password { username, password }) => {
            exchange.ask(exchange.get()?.header(AUTHORIZATION, basic(username, password)?)).await
        }
        Some(Credential::IdentityToken(secret)) => match exchange.once(exchange.post(secret)?).await? {
            Err(refusal)
                if matches!(
                    refusal.status,
                    StatusCode::NOT_FOUND
                        | StatusCode::METHOD_NOT_ALLOWED
                        | StatusCode::UNAUTHORIZED
                        | StatusCode::BAD_REQUEST
                ) =>
            {
                exchange.ask(exchange.get()?.header(AUTHORIZATION, basic(TOKEN_USER, secret)?)).await
            }
            Err(refusal) => Err(exchange.refused(refusal)),
            Ok(token) => Ok(token),
        },
    }
}

/// What a token server is asked for.
struct Exchange<'a> {
    endpoint: &'a Endpoint,
    realm: &'a Url,
    service: Option<&'a str>,
    words: &'a [String],
    server: String,
    known: bool,
}

impl Exchange<'_> {
    fn get(&self) -> Result<RequestBuilder> {
        let mut url = self.realm.clone();
        url.query_pairs_mut()
            .extend_pairs(self.service.map(|service| ("service", service)))
            .extend_pairs(self.words.iter().map(|word| ("scope", word.as_str())));
        Ok(self.endpoint.client(&url)?.get(url))
    }

    /// The secret is in the body, which a redirection would take along: none is followed.
    fn post(&self, secret: &SecretString) -> Result<RequestBuilder> {
        Ok(self.endpoint.client_without_redirects(self.realm)?.post(self.realm.clone()).form(&[
            ("grant_type", "refresh_token"),
            ("client_id", "windlass"),
            ("service", self.service.unwrap_or_default()),
            ("scope", &self.words.join(" ")),
            ("refresh_token", secret.expose_secret()),
        ]))
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Token, Failure> {
        self.once(request).await?.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        refusal.into_failure(&format!("could not log in to `{}`", self.endpoint.registry), self.known)
    }

    async fn once(&self, request: RequestBuilder) -> Result<Result<Token, Refusal>, Failure> {
        let asked = Instant::now();
        let response = self.endpoint.send(request, &self.server).await?;
        if !response.status().is_success() {
            return Ok(Err(Refusal::read(response, &self.server, self.endpoint).await));
        }
        let body = self.endpoint.read_capped(response, &self.server, TOKEN_LIMIT_BYTES).await?;
        Ok(Ok(read(&body, asked).ok_or_else(|| {
            let message = format!("the token server `{}` sent no token", self.server);
            Error::new(ErrorKind::UnexpectedAnswer, message)
                .with_detail("registry", self.endpoint.registry.clone())
        })?))
    }
}

/// Reads the answer of a token server. It holds a secret, so an error quotes nothing of it.
fn read(body: &[u8], asked: Instant) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let non_empty = |token: &SecretString| !token.expose_secret().is_empty();
    let secret = answer.token.filter(non_empty).or(answer.access_token.filter(non_empty))?;
    let said = answer.expires_in.filter(|s| *s > 0);
    let lifetime = said.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let lifetime = lifetime.min(LONGEST_LIFETIME);
    let margin = RENEWAL_MARGIN.min(lifetime / 4);
    let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret())).ok()?;
    header.set_sensitive(true);
    Some(Token {
        header,
        renew_at: asked + lifetime - margin,
        ends_at: asked + lifetime,
        is_said: said.is_some(),
        jwt_end: jwt_end(&secret),
    })
}

/// When a secret that is a JSON Web Token ends: the `exp` of its claims, seconds since 1970. Its
/// signature is not looked at. `None` for every other secret.
///
/// Source: RFC 7519 section 4.1.4.
pub(super) fn jwt_end(secret: &SecretString) -> Option<i64> {
    use base64::Engine as _;
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = secret.expose_secret().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.exp as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_as_long_as_its_server_says() {
        let asked = Instant::now();
        for (body, seconds) in [
            (r#"{"token":"t","expires_in":300}"#, Some(300)),
            (r#"{"access_token":"t"}"#, Some(60)),
            (r#"{"token":"","access_token":"t","expires_in":0}"#, Some(60)),
            (r#"{"token":"t","expires_in":99999999999}"#, Some(24 * 60 * 60)),
            (r#"{"token":""}"#, None),
            (r#"{"token":"a\nb"}"#, None),
            ("secret", None),
        ] {
            let token = read(body.as_bytes(), asked);
            assert_eq!(token.as_ref().map(|token| (token.ends_at - asked).as_secs()), seconds, "{body}");
            assert!(token.is_none_or(|token| token.renew_at < token.ends_at));
        }
    }

    #[test]
    fn reads_when_a_jwt_ends() {
        // {"alg":"none"} . {"sub":"u","exp":1900000000} . nothing
        let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1IiwiZXhwIjoxOTAwMDAwMDAwfQ.";
        assert_eq!(jwt_end(&jwt.into()), Some(1_900_000_000));
        for other in ["secret", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(jwt_end(&other.into()), None, "{other}");
        }
    }
}
