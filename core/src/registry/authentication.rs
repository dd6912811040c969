//! Showing a registry who we are: passwords, and tokens that are kept and renewed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex as AsyncMutex;

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::token::{self, Token};
use crate::backend::Job;
use crate::credentials::{Credential, CredentialSettings, Lookup};
use crate::error::Result;
use crate::http::Failure;

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
    /// What the registry wants tokens to be for, besides what we need, by what we need: its own names
    /// of repositories may be others than those in addresses.
    asked: HashMap<Vec<String>, Vec<String>>,
    tokens: HashMap<Vec<String>, Token>,
    lookups: HashMap<String, Arc<Lookup>>,
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
        if let Challenge::Bearer { scope: Some(asked), .. } = &challenge {
            let asked = asked.split_whitespace().filter(|asked| !covers(&words, asked));
            let asked = asked.map(str::to_owned).collect();
            state.asked.insert(words, asked);
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

    /// How the registry wants to be shown who we are, and the token for a scope if there is one.
    pub(super) async fn known(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> (Option<Challenge>, Option<Token>) {
        let state = self.state(endpoint);
        let state = state.lock().await;
        (state.challenge.clone(), state.tokens.get(&scope.words()).cloned())
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
            (Challenge::Bearer { realm, service, .. }, credential) => {
                let words = scope.words();
                let now = Instant::now();
                if let Some(token) = state.tokens.get(&words).filter(|token| token.renew_at > now) {
                    return Ok(Some(token.header.clone()));
                }
                let asked = state.asked.get(&words).into_iter().flatten().cloned();
                let wanted: Vec<String> = words.iter().cloned().chain(asked).collect();
                let token = token::fetch(endpoint, realm, service.as_deref(), &wanted, credential).await?;
                let header = token.header.clone();
                state.tokens.insert(words, token);
                Ok(Some(header))
            }
        }
    }
}

/// Says whether what we ask for holds what a registry wants to be asked for: the same repository,
/// and no action that is missing.
fn covers(words: &[String], asked: &str) -> bool {
    let Some((name, actions)) = asked.rsplit_once(':') else { return asked.is_empty() };
    words.iter().filter_map(|word| word.rsplit_once(':')).any(|(own_name, own_actions)| {
        own_name == name && actions.split(',').all(|action| own_actions.split(',').any(|own| own == action))
    })
}

/// `Authorization: Basic …`, marked so that it is never printed.
pub(super) fn basic(username: &str, password: &SecretString) -> Result<HeaderValue> {
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
    fn knows_what_it_asks_for_already() {
        let words = Scope::push("a/b").words();
        for (asked, covered) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:a/b:pull,push,delete", false),
            ("repository:docker-local/a/b:pull", false),
            ("registry:catalog:*", false),
        ] {
            assert_eq!(covers(&words, asked), covered, "{asked}");
        }
    }

    #[test]
    fn a_basic_header_is_not_printable() {
        let header = basic("u", &"secret".into()).expect("header");
        assert_eq!(header.to_str().expect("ascii"), "Basic dTpzZWNyZXQ=");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
