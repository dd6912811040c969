//! `windlass backends check --push`: would a push be let in, as whom, and for how long.

use windlass_core::Result;
use windlass_core::backend::{CheckReport, Job};
use windlass_core::reference::Reference;
use windlass_core::registry::{Authentication, PushCheck, ShownCredential, ShownToken};

use crate::output::in_one_line;
use crate::session::Session;

/// A token or credential that ends sooner is pointed out.
const SHORT_SECONDS: i64 = 60;

/// Asks the registry.
pub(super) async fn ask(repository: &Reference, session: &Session<'_>, job: &Job) -> Result<PushCheck> {
    session.host.registry_client.check_push(repository, job).await
}

/// Puts what was found out into words.
pub(super) fn report(check: &PushCheck) -> CheckReport {
    let mut report = CheckReport::default();
    let scheme = if check.secure { "https" } else { "plain http" };
    match check.authentication {
        Some(Authentication::None) => report.good("registry", format!("{scheme}, asks for no credential")),
        Some(Authentication::Basic) => {
            report.good("registry", format!("{scheme}, wants a password with each request"));
        }
        Some(Authentication::Bearer) => report.good("registry", format!("{scheme}, wants tokens")),
        None => {}
    }
    match &check.credential {
        Some(credential) => tell_credential(credential, &mut report),
        None if !check.problems.is_empty() => {
            let hint = "repair it, or `docker login` again";
            report.warning("credential", format!("none: {}", check.problems.join("; ")), hint);
        }
        None => report.good("credential", "none found"),
    }
    if let Some(token) = &check.token {
        report.good("token", token_words(token, check.credential.as_ref()));
    }
    match &check.refusal {
        None => report.good("push", "allowed: an upload was opened and given up, nothing was sent"),
        Some(error) => report.bad("push", in_one_line(error), error.hints().join("; ")),
    }
    report
}

fn tell_credential(credential: &ShownCredential, report: &mut CheckReport) {
    let who = match &credential.username {
        Some(username) => format!("user `{username}`"),
        None => "an identity token".to_owned(),
    };
    let seen = format!("{who}, from {}", credential.origin);
    match credential.remaining_seconds {
        None => report.good("credential", seen),
        Some(left) if left < SHORT_SECONDS => {
            let ended = if left <= 0 { "has ended" } else { "ends within a minute" };
            report.warning("credential", format!("{seen}; it {ended}"), "log in again");
        }
        Some(left) => report.good("credential", format!("{seen}, good for another {}", words(left))),
    }
}

fn token_words(token: &ShownToken, credential: Option<&ShownCredential>) -> String {
    let from = match token.lifetime_from {
        "default" => " (its server does not say)",
        _ => "",
    };
    let with = match credential {
        Some(credential) if credential.is_identity_token => "with the identity token",
        Some(_) => "with the password",
        None => "without a credential",
    };
    let (server, left) = (&token.server, words(token.remaining_seconds));
    format!("from `{server}`, good for another {left}{from}; renewed there {with} before it ends")
}

/// A duration for people: `299 s`, `11 h 59 min`.
fn words(seconds: i64) -> String {
    match seconds {
        ..600 => format!("{} s", seconds.max(0)),
        600..36_000 => format!("{} min", seconds / 60),
        36_000.. => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::backend::CheckStatus;

    fn check() -> PushCheck {
        PushCheck {
            repository: "r.io/a".to_owned(),
            allowed: true,
            secure: true,
            authentication: Some(Authentication::Bearer),
            credential: Some(ShownCredential {
                origin: "the helper `x`".to_owned(),
                username: Some("me".to_owned()),
                is_identity_token: false,
                remaining_seconds: Some(43_000),
            }),
            token: Some(ShownToken {
                server: "auth.io".to_owned(),
                remaining_seconds: 299,
                lifetime_from: "expires-in",
            }),
            problems: Vec::new(),
            refusal: None,
        }
    }

    #[test]
    fn says_who_and_for_how_long() {
        let report = report(&check());
        assert!(report.is_good());
        let seen: Vec<&str> = report.items.iter().map(|item| item.seen.as_str()).collect();
        assert_eq!(seen[1], "user `me`, from the helper `x`, good for another 11 h 56 min");
        assert_eq!(
            seen[2],
            "from `auth.io`, good for another 299 s; renewed there with the password before it ends"
        );
    }

    #[test]
    fn a_credential_that_ends_is_pointed_out() {
        let mut check = check();
        if let Some(credential) = &mut check.credential {
            credential.remaining_seconds = Some(-5);
        }
        let item = report(&check).items.remove(1);
        assert_eq!(item.status, CheckStatus::Warning);
        assert!(item.seen.ends_with("it has ended"), "{}", item.seen);
    }
}
