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
    assert!(text.lines().any(|line| words(line) == ["oci", "docker", "staging"]), "{text}");
    let run = text.lines().find(|line| line.starts_with("RUN ")).expect("a row");
    assert_eq!(words(run), ["RUN", "-", "yes", "yes"]);
    let json = sandbox.run(&["backends", "list", "--format", "json"]).json();
    let names: Vec<&str> = json["backends"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|backend| backend["name"].as_str())
        .collect();
    assert_eq!(names, ["oci", "docker", "staging"]);
    assert_eq!(
        (&json["backends"][2]["chosen"], &json["backends"][0]["chosen"]),
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
