//! The preflight: would a push be let in, as whom, and for how long.
//!
//! Tokens alone do not tell: Docker Hub gives them out for what it refuses later. So an upload is
//! opened and given up at once, as `kaniko` and `crane` do; nothing is sent.
//!
//! Source: google/go-containerregistry, `CheckPushPermission`.

use std::time::Instant;

use serde::Serialize;

use super::RegistryClient;
use super::authentication::Scope;
use super::challenge::Challenge;
use super::token::{Token, jwt_end};
use super::upload::Session;
use crate::backend::Job;
use crate::credentials::{Credential, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;

/// What [`RegistryClient::check_push`] found out.
#[derive(Debug, Serialize)]
pub struct PushCheck {
    /// The repository, with its registry.
    pub repository: String,
    /// A push is let in.
    pub allowed: bool,
    /// The registry is reached over TLS.
    pub secure: bool,
    /// How the registry wants to be shown who we are; `None` if it could not be asked.
    pub authentication: Option<Authentication>,
    /// The credential that is shown.
    pub credential: Option<ShownCredential>,
    /// The token that the registry lets us in with.
    pub token: Option<ShownToken>,
    /// Files and helpers with credentials that failed.
    pub problems: Vec<String>,
    /// Why a push is not let in.
    #[serde(skip)]
    pub refusal: Option<Error>,
}

/// How a registry wants to be shown who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// It does not ask.
    None,
    /// The password with every request.
    Basic,
    /// A token, which is fetched with the credential.
    Bearer,
}

/// A credential without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownCredential {
    /// The file and entry, or the helper, that it came from.
    pub origin: String,
    /// The user name; `None` for an identity token.
    pub username: Option<String>,
    /// It is a token that others are fetched with.
    pub is_identity_token: bool,
    /// How long it lasts, if it says so itself (it is a JWT); negative when it has ended.
    pub remaining_seconds: Option<i64>,
}

/// A token without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownToken {
    /// The host that gave it out.
    pub server: String,
    /// How long it lasts.
    pub remaining_seconds: i64,
    /// Where that is known from: `expires-in` (the token server said it), `jwt` (the token does), or
    /// `default` (nobody does: 60 s).
    pub lifetime_from: &'static str,
}

impl RegistryClient {
    /// Finds out whether a push to a repository would be let in. Nothing is sent: an upload is
    /// opened, and given up at once.
    ///
    /// # Errors
    /// `Cancelled`; `InvalidConfig` for certificate files that cannot be read. What the registry says
    /// is [`PushCheck::refusal`].
    pub async fn check_push(&self, repository: &Reference, job: &Job) -> Result<PushCheck> {
        let endpoint = self.endpoint(repository.registry())?;
        let scope = Scope::push(repository.repository());
        let session = Session {
            client: self.clone(),
            endpoint: endpoint.clone(),
            scope: scope.clone(),
            what: "anything".to_owned(),
            job: job.clone(),
        };
        let opened = session.begin().await;
        let refusal = match opened {
            Ok(begun) => {
                session.abandon(begun.location).await;
                None
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => Some(error),
        };
        let authenticator = &self.inner.authenticator;
        let (challenge, token) = authenticator.known(&endpoint, &scope).await;
        let reached = refusal.as_ref().is_none_or(|error| error.kind() == ErrorKind::Denied);
        let lookup = authenticator.lookup(&endpoint, repository.repository(), job).await?;
        let now = jiff::Timestamp::now().as_second();
        Ok(PushCheck {
            repository: repository.name(),
            allowed: refusal.is_none(),
            secure: endpoint.is_secure(),
            authentication: match &challenge {
                Some(Challenge::Basic) => Some(Authentication::Basic),
                Some(Challenge::Bearer { .. }) => Some(Authentication::Bearer),
                None => reached.then_some(Authentication::None),
            },
            credential: lookup.found.as_ref().map(|found| shown(found, now)),
            token: match (challenge, token) {
                (Some(Challenge::Bearer { realm, .. }), Some(token)) => {
                    Some(shown_token(realm.host_str().unwrap_or_default(), &token, now))
                }
                _ => None,
            },
            problems: lookup.problems.clone(),
            refusal,
        })
    }
}

fn shown(found: &Found, now: i64) -> ShownCredential {
    let (username, secret) = match &found.credential {
        Credential::Password { username, password } => (Some(username.clone()), password),
        Credential::IdentityToken(token) => (None, token),
    };
    ShownCredential {
        origin: found.origin.clone(),
        is_identity_token: username.is_none(),
        username,
        remaining_seconds: jwt_end(secret).map(|end| end.saturating_sub(now)),
    }
}

fn shown_token(server: &str, token: &Token, now: i64) -> ShownToken {
    let left = token.ends_at.saturating_duration_since(Instant::now()).as_secs().cast_signed();
    let (remaining_seconds, lifetime_from) = match token.jwt_end {
        _ if token.is_said => (left, "expires-in"),
        Some(end) => (end.saturating_sub(now), "jwt"),
        None => (left, "default"),
    };
    ShownToken { server: server.to_owned(), remaining_seconds, lifetime_from }
}
