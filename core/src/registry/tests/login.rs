use super::fake::{Fake, Reply, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::image::media_type;

const MANIFEST: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

fn manifest() -> Reply {
    reply(200)
        .header("Content-Type", media_type::OCI_INDEX)
        .header("Docker-Content-Digest", Digest::of(MANIFEST).to_string())
        .body(MANIFEST)
}

/// A registry that wants tokens and is its own token server: `t0`, `t1`, … each good until the
/// next is given out.
fn with_tokens(field: &'static str, good: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        if seen.is("GET /token") {
            return reply(200).body(format!(r#"{{"{field}":"t{}","expires_in":300}}"#, seen.before));
        }
        match seen.header("authorization") {
            Some(token) if token == good => manifest(),
            _ => {
                let host = seen.header("host").expect("host");
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="me, \"quoted\"""#);
                reply(401).header("WWW-Authenticate", challenge)
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_with_our_credential_and_kept() {
    for field in ["token", "access_token"] {
        let fake = Fake::start(with_tokens(field, "Bearer t0")).await;
        let (client, _dir) = client(Some(&fake.host));
        for _ in 0..2 {
            let found = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect("let in");
            assert_eq!(found.expect("there").digest, Digest::of(MANIFEST));
        }
        let asked = fake.seen("GET /token");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].line, "GET /token?service=me%2C+%22quoted%22&scope=repository%3Aa%2Fb%3Apull");
        assert_eq!(asked[0].header("authorization"), Some("Basic dTpzZWNyZXQ="));
        assert_eq!(fake.seen("HEAD /v2/a/b/manifests/1").len(), 3);
    }
}

#[tokio::test]
async fn a_token_that_is_no_longer_good_is_renewed() {
    let fake = Fake::start(with_tokens("token", "Bearer t1")).await;
    let (client, _dir) = client(None);
    let look = || async { client.head_manifest(&reference(&fake.host), &Job::silent()).await };
    // The first token is refused, and there is nothing new to show within the same request.
    assert_eq!(look().await.expect_err("refused").kind(), ErrorKind::Denied);
    assert!(look().await.expect("let in").is_some());
    assert_eq!(fake.seen("GET /token").len(), 2);
}

#[tokio::test]
async fn who_is_not_known_is_told_to_log_in() {
    let challenge = |_: &Seen| {
        reply(401)
            .header("WWW-Authenticate", "Basic realm=\"x\"")
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
    };
    let fake = Fake::start(challenge).await;
    let (client, _dir) = client(None);
    let error = client.manifest(&reference(&fake.host), &Job::silent()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hints()[0].contains(&format!("docker login {}", fake.host)), "{error:?}");
    let cause = std::error::Error::source(&error).expect("cause").to_string();
    assert!(cause.contains("401 UNAUTHORIZED: authentication required"), "{cause}");
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn a_password_that_is_wrong_is_named_by_its_place_and_not_shown() {
    let fake = Fake::start(|_| reply(401).header("WWW-Authenticate", "Basic realm=\"x\"")).await;
    let (client, _dir) = client(Some(&fake.host));
    let error = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.details()[0].1.contains("config.json"), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    // Once without, once with the password; not again.
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn only_404_is_absent() {
    for (status, kind) in
        [(404, None), (403, Some(ErrorKind::Denied)), (400, Some(ErrorKind::UnexpectedAnswer))]
    {
        let fake = Fake::start(move |_| reply(status)).await;
        let (client, _dir) = client(None);
        let found = client.head_manifest(&reference(&fake.host), &Job::silent()).await;
        assert_eq!(found.map_err(|error| error.kind()), kind.map_or(Ok(None), Err), "{status}");
        assert_eq!(fake.lines().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_know_head_is_asked_for_the_document() {
    let answer = |seen: &Seen| if seen.is("HEAD") { reply(405) } else { manifest() };
    let fake = Fake::start(answer).await;
    let (client, _dir) = client(None);
    let found = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect("there");
    assert_eq!(found.expect("there").digest, Digest::of(MANIFEST));
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_a_broken_one_not_forever() {
    let busy = |seen: &Seen| match seen.before {
        0 => reply(429).header("Retry-After", "0"),
        1 => reply(503),
        _ => manifest(),
    };
    let fake = Fake::start(busy).await;
    let (client, _dir) = client(None);
    assert!(client.manifest(&reference(&fake.host), &Job::silent()).await.is_ok());
    assert_eq!(fake.lines().len(), 3);
    let broken = Fake::start(|_| reply(500)).await;
    let error = client.manifest(&reference(&broken.host), &Job::silent()).await.expect_err("broken");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(broken.lines().len(), 6);
}

#[tokio::test]
async fn a_manifest_must_be_what_its_digest_says() {
    let fake = Fake::start(|_| manifest()).await;
    let (client, _dir) = client(None);
    let wanted = reference(&fake.host).with_digest(Digest::of(b"other"));
    for error in [
        client.manifest(&wanted, &Job::silent()).await.expect_err("wrong"),
        client.head_manifest(&wanted, &Job::silent()).await.expect_err("wrong"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_token_may_be_said_to_last_for_ever() {
    let fake = Fake::start(|seen: &Seen| {
        let host = seen.header("host").expect("host");
        match seen.header("authorization") {
            _ if seen.is("GET /token") => {
                reply(200).body(format!(r#"{{"token":"t","expires_in":{}}}"#, u64::MAX))
            }
            Some("Bearer t") => manifest(),
            _ => reply(401)
                .header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token",service="me""#)),
        }
    })
    .await;
    let (client, _dir) = client(None);
    let found = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect("let in");
    assert!(found.is_some());
}

#[tokio::test]
async fn an_identity_token_is_not_sent_on_to_where_a_token_server_points() {
    let thief = Fake::start(|_| reply(200).body(r#"{"access_token":"t"}"#)).await;
    let elsewhere = format!("http://{}/token", thief.host);
    let fake = Fake::start(move |seen: &Seen| {
        let host = seen.header("host").expect("host");
        match seen.is("POST /token") {
            true => reply(307).header("Location", elsewhere.clone()),
            false => reply(401)
                .header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token",service="me""#)),
        }
    })
    .await;
    let (client, dir) = client(None);
    let auths = format!(r#"{{"auths":{{"{}":{{"identitytoken":"secret"}}}}}}"#, fake.host);
    std::fs::write(dir.path().join("config.json"), auths).expect("write");
    let error = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect_err("not let in");
    assert_eq!(error.kind(), ErrorKind::UnexpectedAnswer, "{error:?}");
    assert_eq!(fake.seen("POST /token").len(), 1);
    assert_eq!(thief.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_server_that_knows_only_get_is_asked_so_for_an_identity_token() {
    for status in [400, 401, 404, 405] {
        let fake = Fake::start(move |seen: &Seen| match seen.header("authorization") {
            _ if seen.is("POST /token") => reply(status),
            // `<token>:secret`
            Some("Basic PHRva2VuPjpzZWNyZXQ=") if seen.is("GET /token") => {
                reply(200).body(r#"{"access_token":"t"}"#)
            }
            Some("Bearer t") => manifest(),
            _ => {
                let host = seen.header("host").expect("host");
                reply(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#))
            }
        })
        .await;
        let (client, dir) = client(None);
        let auths = format!(r#"{{"auths":{{"{}":{{"identitytoken":"secret"}}}}}}"#, fake.host);
        std::fs::write(dir.path().join("config.json"), auths).expect("write");
        let found = client.head_manifest(&reference(&fake.host), &Job::silent()).await.expect("let in");
        assert!(found.is_some(), "{status}");
        assert_eq!(fake.seen("POST /token").len(), 1);
    }
}

#[tokio::test]
async fn a_host_that_we_are_sent_on_to_may_not_ask_who_we_are() {
    let thief = Fake::start(|seen: &Seen| {
        let host = seen.header("host").expect("host");
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="x""#);
        reply(if seen.is("GET /token") { 200 } else { 401 }).header("WWW-Authenticate", challenge)
    })
    .await;
    let elsewhere = format!("http://{}/signed", thief.host.replace("127.0.0.1", "localhost"));
    let fake = Fake::start(move |_| reply(307).header("Location", elsewhere.clone())).await;
    let (client, _dir) = client(Some(&fake.host));
    let error = client.manifest(&reference(&fake.host), &Job::silent()).await.expect_err("not let in");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(thief.lines(), ["GET /signed"]);
}

#[tokio::test]
async fn tags_come_in_pages() {
    let fake = Fake::start(|seen: &Seen| match seen.line.as_str() {
        "GET /v2/a/b/tags/list" => reply(200)
            .header("Link", r#"</v2/a/b/tags/list?last=2&n=2>; rel="next""#)
            .body(r#"{"name":"a/b","tags":["1","2"]}"#),
        "GET /v2/a/b/tags/list?last=2&n=2" => reply(200)
            .header("Link", r#"<https://elsewhere.example/v2/a/b/tags/list>; rel="next""#)
            .body(r#"{"tags":["3"]}"#),
        other => panic!("{other}"),
    })
    .await;
    let (client, _dir) = client(None);
    let tags = client.tags(&reference(&fake.host), &Job::silent()).await.expect("listed");
    assert_eq!(tags, ["1", "2", "3"]);
    let endless = Fake::start(|_| reply(200).header("Link", "</x>; rel=next").body(r#"{"tags":null}"#)).await;
    let tags = client.tags(&reference(&endless.host), &Job::silent()).await.expect("listed");
    assert_eq!((tags, endless.lines().len()), (Vec::new(), 1));
}

#[tokio::test]
async fn a_document_that_breaks_off_is_asked_for_again() {
    let fake = Fake::start(|seen: &Seen| match seen.before {
        0 => manifest().cut_after(3),
        _ => manifest(),
    })
    .await;
    let (client, _dir) = client(None);
    client.manifest(&reference(&fake.host), &Job::silent()).await.expect("whole");
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn a_registry_may_know_a_repository_by_another_name() {
    let fake = Fake::start(|seen: &Seen| {
        let host = seen.header("host").expect("host");
        match seen.header("authorization") {
            _ if seen.is("GET /token") => reply(200).body(r#"{"token":"t"}"#),
            Some("Bearer t") => manifest(),
            _ => {
                let scope = "repository:local/a/b:pull repository:a/b:pull";
                let challenge = format!(r#"Bearer realm="http://{host}/token",scope="{scope}""#);
                reply(401).header("WWW-Authenticate", challenge)
            }
        }
    })
    .await;
    let (client, _dir) = client(None);
    client.manifest(&reference(&fake.host), &Job::silent()).await.expect("let in");
    let asked = "GET /token?scope=repository%3Aa%2Fb%3Apull&scope=repository%3Alocal%2Fa%2Fb%3Apull";
    assert_eq!(fake.seen("GET /token")[0].line, asked);
}

#[tokio::test]
async fn who_is_nobody_is_told_that_accounts_get_further() {
    let fake = Fake::start(|_| reply(429).header("Retry-After", "3600")).await;
    for (login, hinted) in [(None, true), (Some(fake.host.as_str()), false)] {
        let (client, _dir) = client(login);
        let error = client.manifest(&reference(&fake.host), &Job::silent()).await.expect_err("busy");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.hints().iter().any(|hint| hint.contains("docker login")), hinted, "{error:?}");
    }
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn a_redirection_without_end_is_given_up_at_once() {
    let fake = Fake::start(|_| reply(302).header("Location", "/round")).await;
    let (client, _dir) = client(None);
    let error = client.manifest(&reference(&fake.host), &Job::silent()).await.expect_err("no end");
    assert_eq!(error.kind(), ErrorKind::UnexpectedAnswer);
    assert!(fake.lines().len() < 15);
}
