use super::fake::{Fake, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::ErrorKind;
use crate::registry::{Authentication, PushCheck};

/// Asks a registry that wants tokens, and answers what a push begins with as the test says.
async fn check(status: u16, token: &'static str) -> (PushCheck, Fake) {
    let fake = Fake::start(move |seen: &Seen| match seen.header("authorization") {
        _ if seen.is("GET /token") => reply(200).body(token),
        Some(bearer) if bearer.starts_with("Bearer ") && seen.is("POST") => {
            reply(status).header("Location", "/up/1").body(r#"{"errors":[{"code":"DENIED"}]}"#)
        }
        Some(bearer) if bearer.starts_with("Bearer ") => reply(204),
        _ => {
            let host = seen.header("host").expect("host");
            reply(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#))
        }
    })
    .await;
    let (client, _dir) = client(Some(&fake.host));
    let check = client.check_push(&reference(&fake.host), &Job::silent()).await.expect("not cancelled");
    assert!(!format!("{check:?}").contains("secret"), "{check:?}");
    (check, fake)
}

#[tokio::test]
async fn a_push_that_is_let_in_leaves_nothing() {
    let (check, fake) = check(202, r#"{"token":"t","expires_in":300}"#).await;
    assert!(check.allowed && !check.secure);
    assert_eq!(check.authentication, Some(Authentication::Bearer));
    let credential = check.credential.expect("credential");
    assert_eq!((credential.username.as_deref(), credential.remaining_seconds), (Some("u"), None));
    assert!(credential.origin.contains(&format!("`{}`", fake.host)), "{}", credential.origin);
    let token = check.token.expect("token");
    assert!((290..=300).contains(&token.remaining_seconds), "{token:?}");
    assert_eq!((token.server.as_str(), token.lifetime_from), ("127.0.0.1", "expires-in"));
    let lines = fake.lines();
    assert_eq!(lines.last().map(String::as_str), Some("DELETE /up/1"));
    assert!(lines[1].contains("scope=repository%3Aa%2Fb%3Apull%2Cpush"), "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_token_says_when_it_ends_if_nobody_else_does() {
    let (check, _fake) = check(202, r#"{"token":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1IiwiZXhwIjoxfQ."}"#).await;
    let token = check.token.expect("token");
    assert!(token.remaining_seconds < -1_000_000_000, "{token:?}");
    assert_eq!(token.lifetime_from, "jwt");
    let (check, _fake) = super::preflight::check(202, r#"{"token":"t"}"#).await;
    assert_eq!(check.token.expect("token").lifetime_from, "default");
}

#[tokio::test]
async fn a_push_that_is_refused_says_why() {
    let (check, fake) = check(403, r#"{"token":"t"}"#).await;
    assert!(!check.allowed && check.credential.is_some());
    let refusal = check.refusal.expect("refusal");
    assert_eq!(refusal.kind(), ErrorKind::Denied);
    assert!(!refusal.hints().is_empty());
    assert!(fake.seen("DELETE").is_empty());
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_no_reason_to_fail() {
    let (client, _dir) = client(None);
    let check = client.check_push(&reference("127.0.0.1:1"), &Job::silent()).await.expect("not cancelled");
    assert_eq!(check.authentication, None);
    assert_eq!(check.refusal.expect("refusal").kind(), ErrorKind::Unavailable);
}
