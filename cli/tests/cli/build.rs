//! `windlass build` on the embedded backend.

use crate::sandbox::Sandbox;

#[test]
fn stdout_is_the_reference_with_its_digest() {
    let sandbox = Sandbox::scratch();
    let outcome = sandbox.run(&["build", "."]);
    assert!(outcome.stderr.contains("#1 "), "{outcome:#?}");
    let first = outcome.done();
    let (reference, digest) = first.trim_end().split_once('@').expect("reference@digest");
    assert!(reference.starts_with("localhost/work:fp-"), "{first}");
    assert_eq!((digest.len(), first.lines().count()), (71, 1));
    // The same content is found, not built, and is the same.
    assert_eq!(sandbox.run(&["build", "."]).done(), first);
    let again = sandbox.run(&["build", ".", "--format", "json"]).json();
    assert_eq!((&again["reused"], &again["digest"]), (&true.into(), &digest.into()));
    let rebuilt = sandbox.run(&["build", ".", "--format", "json", "--force-rebuild"]).json();
    assert_eq!((&rebuilt["reused"], &rebuilt["digest"]), (&false.into(), &digest.into()));
    assert_eq!(rebuilt["reason"]["by"], "embedded");
    // On another machine too.
    assert_eq!(Sandbox::scratch().run(&["build", "."]).done(), first);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn quiet_says_nothing_but_the_result() {
    let outcome = Sandbox::scratch().run(&["build", "-q", "-t", "app:1"]);
    assert_eq!(outcome.stderr, "");
    assert!(outcome.done().starts_with("docker.io/library/app:1@sha256:"));
}

#[test]
fn progress_has_forms() {
    let sandbox = Sandbox::scratch();
    let lines = sandbox.run(&["build", "--progress", "rawjson", "--force-rebuild"]).stderr;
    for line in lines.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(event["event"].is_string() && event["time"].is_string(), "{line}");
    }
    assert!(lines.lines().count() > 1);
    let plain = sandbox.run(&["build", "--progress", "plain", "--force-rebuild"]).stderr;
    assert!(plain.contains(" DONE "), "{plain}");
    assert_eq!(sandbox.run(&["build", "--progress", "quiet", "--force-rebuild"]).stderr, "");
    let setting = [("WINDLASS_PROGRESS", "quiet")];
    assert_eq!(sandbox.run_with(&["build", "--force-rebuild"], &setting).stderr, "");
}

#[test]
fn files_beside_the_result() {
    let sandbox = Sandbox::scratch();
    let line = [
        "build",
        "-t",
        "app:1",
        "--iidfile",
        "id",
        "--metadata-file",
        "m.json",
        "-o",
        "type=oci,dest=out.tar",
    ];
    let stdout = sandbox.run(&line).done();
    let metadata: serde_json::Value = serde_json::from_str(&sandbox.read("m.json")).expect("JSON");
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    assert!(stdout.trim_end().ends_with(digest));
    assert_eq!(sandbox.read("id"), metadata["containerimage.config.digest"].as_str().expect("an id"));
    assert_eq!(metadata["windlass"]["backend"], "oci");
    assert!(sandbox.path("out.tar").is_file());
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn an_archive_on_stdout_is_alone_there() {
    let sandbox = Sandbox::scratch();
    let output = sandbox.command(&["build", "-o", "type=oci,dest=-"]).output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(&output.stdout[257..262], b"ustar");
    assert_eq!(output.stdout.len() % 512, 0);
    sandbox.run(&["build", "-o", "type=oci,dest=-", "--format", "json"]).refused(2, &["stdout"]);
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    let sandbox = Sandbox::with(&[
        (
            "Dockerfile",
            "FROM scratch AS base\nCOPY a /\nFROM scratch AS unused\nCOPY a /b\nFROM base\nLABEL x=y\n",
        ),
        ("a", "aaaa"),
    ]);
    let json = sandbox.run(&["build", "-t", "app:1", "--dry-run", "--format", "json"]).json();
    assert_eq!(
        (&json["backend"], &json["references"][0]),
        (&"oci".into(), &"docker.io/library/app:1".into())
    );
    let needed: Vec<&serde_json::Value> =
        json["stages"].as_array().into_iter().flatten().map(|stage| &stage["needed"]).collect();
    assert_eq!(needed, [true, false, true]);
    assert!(json["actions"].as_array().is_some_and(|actions| !actions.is_empty()), "{json:#}");
    let text = sandbox.run(&["build", "--dry-run"]).done();
    assert!(text.starts_with("backend ") && text.contains("localhost/work:fp-"), "{text}");
    assert_eq!(sandbox.run(&["image", "ls", "--format", "json"]).json(), serde_json::json!([]));
    assert_eq!(sandbox.names(""), ["Dockerfile", "a"]);
}

#[test]
fn the_dockerfile_is_found_where_it_is_meant() {
    let sandbox = Sandbox::with(&[
        ("app/deploy/Dockerfile", "FROM scratch\nLABEL which=deploy\n"),
        ("app/Dockerfile", "FROM scratch\nLABEL which=app\n"),
        ("other", "FROM scratch\nLABEL which=other\n"),
    ]);
    let build = |line: &[&str]| sandbox.run(&[&["build", "app", "-t", "x"], line].concat()).done();
    let (app, deploy, other) = (build(&[]), build(&["-f", "deploy/Dockerfile"]), build(&["-f", "other"]));
    assert!(app != deploy && deploy != other && app != other);
    assert_eq!(build(&["-f", "app/deploy/Dockerfile"]), deploy);
    let mut command = sandbox.command(&["build", "app", "-t", "x", "-f", "-"]);
    let stdin = std::fs::File::open(sandbox.path("other")).expect("a file");
    let output = command.stdin(stdin).output().expect("starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), other, "{output:?}");
}

#[test]
fn build_args_may_come_from_the_environment() {
    let sandbox = Sandbox::with(&[("Dockerfile", "FROM scratch\nARG V=none\nLABEL v=$V\n")]);
    let build = |line: &[&str], variables: &[(&str, &str)]| {
        sandbox.run_with(&[&["build", "-t", "x"], line].concat(), variables).done()
    };
    let typed = build(&["--build-arg", "V=2"], &[]);
    assert_eq!(build(&["--build-arg", "V"], &[("V", "2")]), typed);
    assert_eq!(build(&["--build-arg", "V"], &[]), build(&[], &[("V", "2")]));
    assert_ne!(build(&[], &[]), typed);
}

#[test]
fn source_date_epoch_counts_and_is_checked() {
    let sandbox = Sandbox::scratch();
    let build = |epoch: &str| sandbox.run_with(&["build", "-t", "x"], &[("SOURCE_DATE_EPOCH", epoch)]);
    assert_ne!(build("1").done(), build("2").done());
    for epoch in ["yesterday", "-1", "1.5", "99999999999999"] {
        build(epoch).refused(2, &["invalid SOURCE_DATE_EPOCH", epoch, "seconds since 1970"]);
    }
}

#[test]
fn explain_names_what_changed() {
    let sandbox = Sandbox::scratch();
    sandbox.run(&["build", "--explain"]).done();
    let same = sandbox.run(&["build", "--explain"]);
    assert!(same.stderr.contains("nothing changed"), "{same:#?}");
    sandbox.write("hello.txt", "changed\n");
    let changed = sandbox.run(&["build", "--explain", "--build-arg", "V=1"]);
    assert!(changed.stderr.contains("hello.txt") && changed.stderr.contains("`V`"), "{changed:#?}");
}

#[test]
fn bad_input_is_refused_before_anything_is_done() {
    let sandbox = Sandbox::with(&[
        ("Dockerfile", "FROM scratch\nCOPY hello.txt /\n"),
        ("hello.txt", "hello\n"),
        ("none/dockerfile", "FROM scratch"),
        ("none/Containerfile", "FROM scratch"),
        ("file", "x"),
    ]);
    for (line, words) in [
        (&["build", "absent"][..], &["the build context", "absent", "does not exist"][..]),
        (&["build", "file"], &["is no directory"]),
        (
            &["build", "none"],
            &["no Dockerfile at `none/Dockerfile`", "`none/dockerfile`", "`none/Containerfile`"],
        ),
        (&["build", "-f", "absent"], &["no Dockerfile at `absent`"]),
        (&["build", "-f", "none"], &["is a directory"]),
        (&["build", "-"], &["cannot come from stdin"]),
        (&["build", "-t", "a/B:c"], &["invalid image reference `a/B:c`", "hint:"]),
        (&["build", "-t", "a:b:c/d"], &["invalid image reference"]),
        (&["build", "--platform", "linux/amd46"], &["unknown platform", "`amd64`"]),
        (&["build", "-o", "type=orci,dest=x"], &["`orci`", "did you mean `type=oci`?"]),
        (&["build", "-o", "type=oci"], &["`dest=` is missing"]),
        (&["build", "-o", "type=oci,dest=x", "-o", "type=docker,dest=x"], &["two outputs go to `x`"]),
        (&["build", "--label", "=x"], &["--label NAME=VALUE"]),
        (&["build", "--annotation", "x"], &["--annotation NAME=VALUE"]),
        (&["build", "--build-arg", "=x"], &["--build-arg NAME=VALUE"]),
        (&["build", "--build-context", "base=absent"], &["`absent`", "`base`", "oci-layout://"]),
        (&["build", "--timeout", "soon"], &["--timeout soon", "1h30m"]),
        (&["build", "--push"], &["where to push", "--tag"]),
        (&["build", "--secret", "id=x"], &["`--secret`", "`oci`", "--backend docker"]),
        (&["build", "--load"], &["`--load`", "`oci`", "--backend docker"]),
        (&["build", "--iidfile", "none"], &["`none` is a directory"]),
    ] {
        let before = sandbox.names("");
        sandbox.run(line).refused(2, words);
        assert_eq!(sandbox.names(""), before, "{line:?}");
    }
    sandbox
        .run(&["build", "--metadata-file", "absent/m.json"])
        .refused(2, &["could not write `absent/m.json`", "`absent` does not exist"]);
    sandbox.run(&["build", "-o", "type=oci,dest=absent/out.tar"]).refused(2, &["absent/out.tar"]);
    if cfg!(target_os = "linux") {
        // No file can be made there, whoever asks.
        sandbox.run(&["build", "--iidfile", "/proc/id"]).refused(1, &["could not write `/proc/id`"]);
        sandbox.run(&["build", "-o", "type=oci,dest=/proc/out.tar"]).refused(1, &["/proc/out.tar"]);
    }
    sandbox.run(&["build", "--target", "nope"]).refused(2, &["nope"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn a_dockerfile_that_cannot_be_built_shows_its_line() {
    for (dockerfile, code, words) in [
        ("FROM scratch\nCOYP a /\n", 1, &["Dockerfile:2", "COYP a /"][..]),
        ("FROM scratch\nCOPY absent /\n", 1, &["Dockerfile:2", "absent"]),
        ("FROM scratch\nRUN true\n", 2, &["Dockerfile:2", "RUN", "docker"]),
    ] {
        let sandbox = Sandbox::with(&[("Dockerfile", dockerfile)]);
        sandbox.run(&["build"]).refused(code, words);
        assert_eq!(sandbox.leftovers(), [""; 0]);
    }
}

#[test]
fn an_id_of_an_earlier_build_is_not_left_for_a_failed_one() {
    let sandbox = Sandbox::with(&[("Dockerfile", "FROM scratch\nCOPY absent /\n"), ("id", "sha256:old")]);
    sandbox.run(&["build", "--iidfile", "id"]).refused(1, &["absent"]);
    assert!(!sandbox.path("id").exists());
}
