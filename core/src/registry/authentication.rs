//! Showing a registry who we are: passwords, and tokens that are fetched, kept and renewed.
//!
//! Source: the distribution project's `token.md` (GET with Basic) and `oauth.md` (POST with an
//! identity token).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::refusal::Refusal;
use crate::backend::Job;
use crate::credentials::{Credential, CredentialSettings, Lookup};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Failure, read_capped};

/// A token lives so long when the token server does not say: `token.md`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// A token that ends within this time is renewed first: a request must not meet its end.
const RENEWAL_MARGIN: Duration = Duration::from_secs(10);
/// No token is kept longer, whatever the token server says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest answer of a token server; real ones are below 10 KiB.
const TOKEN_LIMIT_BYTES: u64 = 1 << 20;

/// What a request needs the right to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// The repository; empty for the registry as a whole.
    pub(super) repository: String,
    /// To send, not only to fetch.
    pub(super) push: bool,
    /// Another repository of the registry that a blob is mounted from.
    pub(super) mount_from: Option<String>,
}

impl Scope {
    /// To fetch from a repository.
    pub(super) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), ..Self::default() }
    }

    /// To send to a repository.
    pub(super) fn push(repository: &str) -> Self {
        Self { push: true, ..Self::pull(repository) }
    }

    fn words(&self) -> Vec<String> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let actions = if self.push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository);
        let from = self.mount_from.iter().map(|from| format!("repository:{from}:pull"));
        std::iter::once(own).chain(from).collect()
    }
}

/// What is known about showing who we are, for all registries.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    credentials: CredentialSettings,
    registries: Mutex<HashMap<String, Arc<AsyncMutex<State>>>>,
}

/// What is known about one registry. Locked while a token is fetched, so that concurrent requests
/// wait for it instead of fetching their own.
#[derive(Debug, Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: HashMap<Vec<String>, Token>,
    lookups: HashMap<String, Arc<Lookup>>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

impl Authenticator {
    pub(super) fn new(credentials: CredentialSettings) -> Self {
        Self { credentials, registries: Mutex::default() }
    }

    /// The `Authorization` header for a request, if the registry is known to want one.
    pub(super) async fn header(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        job: &Job,
    ) -> Result<Option<HeaderValue>, Failure> {
        let state = self.state(endpoint);
        let mut state = state.lock().await;
        match state.challenge.clone() {
            Some(challenge) => self.answer(&mut state, &challenge, endpoint, scope, job).await,
            None => Ok(None),
        }
    }

    /// The header to try next after a 401; `None` if there is nothing new to show.
    pub(super) async fn header_after_refusal(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        refused: Option<&HeaderValue>,
        answer: &HeaderMap,
        job: &Job,
    ) -> Result<Option<HeaderValue>, Failure> {
        let state = self.state(endpoint);
        let mut state = state.lock().await;
        let Some(challenge) = Challenge::read(answer) else { return Ok(None) };
        let words = scope.words();
        if state.tokens.get(&words).is_some_and(|token| Some(&token.header) == refused) {
            state.tokens.remove(&words);
        }
        state.challenge = Some(challenge.clone());
        let header = self.answer(&mut state, &challenge, endpoint, scope, job).await?;
        Ok(header.filter(|header| Some(header) != refused))
    }

    /// The credential for a repository, and where it came from, for messages and the doctor.
    pub(super) async fn lookup(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        job: &Job,
    ) -> Result<Arc<Lookup>> {
        let state = self.state(endpoint);
        let mut state = state.lock().await;
        self.find(&mut state, endpoint, repository, job).await
    }

    fn state(&self, endpoint: &Endpoint) -> Arc<AsyncMutex<State>> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.entry(endpoint.registry.clone()).or_default().clone()
    }

    async fn find(
        &self,
        state: &mut State,
        endpoint: &Endpoint,
        repository: &str,
        job: &Job,
    ) -> Result<Arc<Lookup>> {
        if let Some(known) = state.lookups.get(repository) {
            return Ok(known.clone());
        }
        let lookup = self.credentials.find(&endpoint.registry, repository, job).await?;
        for problem in &lookup.problems {
            job.events.warn(problem.clone());
        }
        let lookup = Arc::new(lookup);
        state.lookups.insert(repository.to_owned(), lookup.clone());
        Ok(lookup)
    }

    async fn answer(
        &self,
        state: &mut State,
        challenge: &Challenge,
        endpoint: &Endpoint,
        scope: &Scope,
        job: &Job,
    ) -> Result<Option<HeaderValue>, Failure> {
        let lookup = self.find(state, endpoint, &scope.repository, job).await?;
        let credential = lookup.found.as_ref().map(|found| &found.credential);
        match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                Ok(Some(basic(username, password)?))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scope: asked }, credential) => {
                let words = scope.words();
                let now = Instant::now();
                if let Some(token) = state.tokens.get(&words).filter(|token| token.renew_at > now) {
                    return Ok(Some(token.header.clone()));
                }
                let wanted = if words.is_empty() { asked.iter().cloned().collect() } else { words.clone() };
                let token = fetch_token(endpoint, realm, service.as_deref(), &wanted, credential).await?;
                let header = token.header.clone();
                state.tokens.insert(words, token);
                Ok(Some(header))
            }
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<u64>,
}

async fn fetch_token(
    endpoint: &Endpoint,
    realm: &Url,
    service: Option<&str>,
    words: &[String],
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let server = realm.host_str().unwrap_or_default().to_owned();
    let mut request = match credential {
        Some(Credential::IdentityToken(secret)) => {
            endpoint.http_without_redirects()?.post(realm.clone()).form(&[
                ("grant_type", "refresh_token"),
                ("client_id", "windlass"),
                ("service", service.unwrap_or_default()),
                ("scope", &words.join(" ")),
                ("refresh_token", secret.expose_secret()),
            ])
        }
        _ => {
            let mut url = realm.clone();
            url.query_pairs_mut()
                .extend_pairs(service.map(|service| ("service", service)))
                .extend_pairs(words.iter().map(|word| ("scope", word.as_str())));
            endpoint.http.get(url)
        }
    };
    if let Some(Credential::Password { username, password }) = credential {
        request = request.header(reqwest::header::AUTHORIZATION, basic(username, password)?);
    }
    // A registry with TLS may name a token server without: our password would be readable.
    if credential.is_some() && endpoint.is_secure() && realm.scheme() != "https" {
        let message = format!("`{}` wants our credential sent to `{server}` without TLS", endpoint.registry);
        return Err(Error::new(ErrorKind::Denied, message).into());
    }
    let asked = Instant::now();
    let response = endpoint.send(request, &server).await?;
    if !response.status().is_success() {
        return Err(Refusal::read(response, &server, &endpoint.registry)
            .await
            .into_failure(&format!("could not log in to `{}`", endpoint.registry), credential.is_some()));
    }
    let body = read_capped(&server, response, TOKEN_LIMIT_BYTES).await?;
    let unexpected = || {
        Error::new(ErrorKind::UnexpectedAnswer, format!("the token server `{server}` sent no token"))
            .with_detail("registry", endpoint.registry.clone())
    };
    // The cause may quote the body, and so a token: it is left out.
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| unexpected())?;
    let non_empty = |token: &SecretString| !token.expose_secret().is_empty();
    let secret = answer.token.filter(non_empty).or(answer.access_token.filter(non_empty));
    let secret = secret.ok_or_else(unexpected)?;
    let lifetime = answer.expires_in.filter(|s| *s > 0).map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let lifetime = lifetime.min(LONGEST_LIFETIME);
    let margin = RENEWAL_MARGIN.min(lifetime / 4);
    let mut header =
        HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret())).map_err(|_| unexpected())?;
    header.set_sensitive(true);
    Ok(Token { header, renew_at: asked + lifetime - margin })
}

/// `Authorization: Basic …`, marked so that it is never printed.
fn basic(username: &str, password: &SecretString) -> Result<HeaderValue> {
    use base64::Engine as _;
    let plain = SecretString::from(format!("{username}:{}", password.expose_secret()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(plain.expose_secret());
    let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_what_is_needed() {
        assert_eq!(Scope::pull("a/b").words(), ["repository:a/b:pull"]);
        let mount = Scope { mount_from: Some("base".to_owned()), ..Scope::push("a/b") };
        assert_eq!(mount.words(), ["repository:a/b:pull,push", "repository:base:pull"]);
        assert!(Scope::default().words().is_empty());
    }

    #[test]
    fn a_basic_header_is_not_printable() {
        let header = basic("u", &"secret".into()).expect("header");
        assert_eq!(header.to_str().expect("ascii"), "Basic dTpzZWNyZXQ=");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
