//! Credential helpers: `docker-credential-NAME get`, server on stdin, JSON on stdout.
//!
//! Source: docker/docker-credential-helpers. `docker_credential` runs them too, but without a
//! time limit, and a cancelled build must not leave one running; so they are run here.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use docker_credential::DockerCredential;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Credential;
use super::files::ours;

/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// A helper's name becomes part of a program name: no path may hide in it.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Asks a helper for the credential of a server. `Ok(None)` if it has none; the error says why it
/// failed, and never holds what it printed on success.
pub(super) async fn get(name: &str, server: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    let run = async {
        let mut child = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that fails at once may not read its input; its exit status says more.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(limit, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("`{program}` is not installed"));
        }
        Ok(Err(error)) => return Err(format!("could not run `{program}`: {error}")),
        Err(_) => return Err(format!("`{program}` did not answer within {} s", limit.as_secs())),
    };
    if !output.status.success() {
        // Helpers print their errors on stdout; this one means that they work and have nothing.
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        if printed.contains("credentials not found") {
            return Ok(None);
        }
        let first = printed.lines().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
        return Err(format!("`{program}` ended with {}: {first}", output.status));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("`{program}` answered something other than a credential"))?;
    // Some helpers answer so for a server that they do not know.
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(ours(if answer.username == TOKEN_USER {
        DockerCredential::IdentityToken(answer.secret)
    } else {
        DockerCredential::UsernamePassword(answer.username, answer.secret)
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        for (name, valid) in
            [("ecr-login", true), ("gcloud", true), ("../x", false), ("a/b", false), ("", false)]
        {
            assert_eq!(is_name(name), valid, "{name}");
        }
    }
}
