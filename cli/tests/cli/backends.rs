//! The backends and the doctor.

use crate::sandbox::Sandbox;

#[test]
fn list_shows_what_each_can_do() {
    let sandbox = Sandbox::with(&[(
        "windlass.toml",
        "default-backend = \"staging\"\n[backends.staging]\ntype = \"docker\"\n",
    )]);
    let text = sandbox.run(&["backends"]).done();
    assert!(text.contains("* staging (docker)") || text.contains("*  staging (docker)"), "{text}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(
        text.lines().any(|line| words(line) == ["oci", "docker", "runtime-api", "image-builder", "staging"]),
        "{text}"
    );
    let run = text.lines().find(|line| line.starts_with("RUN ")).expect("a row");
    assert_eq!(words(run), ["RUN", "-", "yes", "yes", "yes", "yes"]);
    let json = sandbox.run(&["backends", "list", "--format", "json"]).json();
    let names: Vec<&str> = json["backends"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|backend| backend["name"].as_str())
        .collect();
    assert_eq!(names, ["oci", "docker", "runtime-api", "image-builder", "staging"]);
    assert_eq!(
        (&json["backends"][4]["chosen"], &json["backends"][0]["chosen"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn the_doctor_finds_the_embedded_backend_well() {
    let sandbox = Sandbox::with(&[]);
    let text = sandbox.run(&["backends", "check"]).done();
    assert!(text.starts_with("oci: builds will work\n"), "{text}");
    let json = sandbox.run(&["backends", "check", "oci", "--format", "json"]).json();
    assert_eq!((&json[0]["name"], &json[0]["good"]), (&"oci".into(), &true.into()));
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do_next() {
    let sandbox = Sandbox::with(&[("windlass.toml", "[backends.mine]\ntype = \"oci\"\nnonsense = 1\n")]);
    let outcome = sandbox.run(&["backends", "check", "mine"]);
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(
        outcome.stdout.contains("mine: builds will fail") && outcome.stdout.contains("`nonsense`"),
        "{outcome:#?}"
    );
    // No docker can be found where there is no PATH.
    let outcome = sandbox.run_with(
        &["backends", "check", "docker"],
        &[("PATH", "/nonexistent"), ("DOCKER_HOST", "unix:///nonexistent.sock")],
    );
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(outcome.stdout.contains("FAILED") && outcome.stdout.contains("hint:"), "{outcome:#?}");
    sandbox.run(&["backends", "check", "dcoker"]).refused(2, &["did you mean `docker`?"]);
}

/// A registry that answers every request with one status, and lists what it was asked.
fn registry(status: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    let (asked, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connection");
            let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines().map_while(Result::ok);
            let line = lines.next().unwrap_or_default();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            if asked.send(line).is_err() {
                return;
            }
            let head = "Location: /up/1\r\nConnection: close\r\nContent-Length: 0";
            stream.write_all(format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n").as_bytes()).expect("answered");
        }
    });
    (host, seen)
}

#[test]
fn the_preflight_of_a_push_sends_nothing() {
    let sandbox = Sandbox::with(&[]);
    let (host, seen) = registry("202 Accepted");
    let reference = format!("{host}/acme/app:1");
    let text = sandbox.run(&["backends", "check", "--push", &reference]).done();
    assert!(text.starts_with(&format!("push to {host}/acme/app: pushes will work\n")), "{text}");
    assert!(text.contains("plain http, asks for no credential") && text.contains("allowed"), "{text}");
    let asked: Vec<String> = seen.try_iter().collect();
    assert_eq!(asked, ["POST /v2/acme/app/blobs/uploads/ HTTP/1.1", "DELETE /up/1 HTTP/1.1"]);
    let json = sandbox.run(&["backends", "check", "oci", "--push", &reference, "--format", "json"]).json();
    assert_eq!((&json[0]["name"], &json[1]["good"]), (&"oci".into(), &true.into()));
    assert_eq!(json[1]["push"]["allowed"], true);
    assert_eq!(json[1]["push"]["authentication"], "none");
}

#[test]
fn the_preflight_says_why_a_push_would_be_refused() {
    let sandbox = Sandbox::with(&[]);
    let (host, _seen) = registry("403 Forbidden");
    let outcome = sandbox.run(&["backends", "check", "--push", &format!("{host}/acme/app")]);
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(outcome.stdout.contains("pushes will fail"), "{outcome:#?}");
    assert!(outcome.stdout.contains("403") && outcome.stdout.contains("docker login"), "{outcome:#?}");
    sandbox.run(&["backends", "check", "--push", "Not A Reference"]).refused(2, &["invalid image reference"]);
}

/// Puts a credential helper and docker's configuration into a sandbox; gives back its `PATH`.
fn with_helper(sandbox: &Sandbox, script: &str, config: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    sandbox.write("bin/docker-credential-mine", &format!("#!/bin/sh\n{script}\n"));
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.path("bin/docker-credential-mine"), executable).expect("executable");
    std::fs::create_dir_all(sandbox.home().join(".docker")).expect("directory");
    std::fs::write(sandbox.home().join(".docker/config.json"), config).expect("configuration");
    format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn the_preflight_names_the_helper_that_a_credential_comes_from() {
    let sandbox = Sandbox::with(&[]);
    let (host, _seen) = registry("202 Accepted");
    let answer =
        r#"read server; test "$1" = get && echo "{\"Username\":\"me-$server\",\"Secret\":\"hush\"}""#;
    let path = with_helper(&sandbox, answer, r#"{"credsStore":"mine"}"#);
    let command = ["backends", "check", "--push", &format!("{host}/acme/app")];
    let outcome = sandbox.run_with(&command, &[("PATH", &path)]);
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(text.contains(&format!("user `me-{host}`, from the helper `mine` (`credsStore` of `")), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn a_helper_that_fails_is_named_with_its_own_words_and_does_not_stop_the_rest() {
    let sandbox = Sandbox::with(&[]);
    let (host, _seen) = registry("202 Accepted");
    // `u:hush`
    let config = format!(r#"{{"credsStore":"mine","auths":{{"{host}":{{"auth":"dTpodXNo"}}}}}}"#);
    let path = with_helper(&sandbox, "echo 'the keychain is locked'; exit 1", &config);
    let command = ["backends", "check", "--push", &format!("{host}/acme/app")];
    let outcome = sandbox.run_with(&command, &[("PATH", &path)]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(outcome.stdout.contains(&format!("user `u`, from the entry `{host}`")), "{outcome:#?}");
    assert!(outcome.stderr.contains("the helper `mine`"), "{outcome:#?}");
    assert!(outcome.stderr.contains("the keychain is locked"), "{outcome:#?}");
    assert!(!format!("{outcome:?}").contains("hush"), "{outcome:#?}");
}
