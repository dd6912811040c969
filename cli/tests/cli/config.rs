//! Settings: where they come from, what is refused.

use crate::sandbox::Sandbox;

/// The value and the origin of a setting, as `config show` prints them.
fn shown(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)], key: &str) -> (String, String) {
    let line = [&["config", "show"], arguments].concat();
    let text = sandbox.run_with(&line, variables).done();
    let row = text
        .lines()
        .find(|row| row.starts_with(&format!("{key} ")))
        .unwrap_or_else(|| panic!("{key}: {text}"));
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    (cells[1].to_owned(), cells[2].to_owned())
}

#[test]
fn the_last_source_wins_and_is_named() {
    let sandbox = Sandbox::with(&[("app/Dockerfile", "FROM scratch")]);
    let key = "context.warn-size";
    let look = |arguments: &[&str], variables: &[(&str, &str)]| shown(&sandbox, arguments, variables, key);
    assert_eq!(look(&["app"], &[]), ("1GiB".into(), "default".into()));
    std::fs::create_dir_all(sandbox.home().join(".config/windlass")).expect("directories");
    let user = sandbox.home().join(".config/windlass/config.toml");
    std::fs::write(&user, "[context]\nwarn-size = \"2MB\"\n").expect("a file");
    assert_eq!(look(&["app"], &[]), ("2MB".into(), format!("{}:2", user.display())));
    sandbox.write("windlass.toml", "\n\n[context]\nwarn-size = 3000000\n");
    let project = sandbox.path("windlass.toml").canonicalize().expect("it exists");
    assert_eq!(look(&["app"], &[]), ("3MB".into(), format!("{}:4", project.display())));
    let variable = [("WINDLASS_CONTEXT__WARN_SIZE", "4MB")];
    assert_eq!(
        look(&["app"], &variable),
        ("4MB".into(), "environment variable WINDLASS_CONTEXT__WARN_SIZE".into())
    );
    let set = ["app", "--set", "context.warn-size=5MB"];
    assert_eq!(look(&set, &variable), ("5MB".into(), "--set context.warn-size=5MB".into()));
}

#[test]
fn the_choice_of_the_backend_is_explained() {
    let sandbox = Sandbox::with(&[(
        "windlass.toml",
        "default-backend = \"mine\"\n[backends.mine]\ntype = \"oci\"\n[environments.ci]\nbackend = [\"docker\", \"oci\"]\n",
    )]);
    let first = |arguments: &[&str], variables: &[(&str, &str)]| {
        let line = [&["config", "show"], arguments].concat();
        sandbox.run_with(&line, variables).done().lines().next().unwrap_or_default().to_owned()
    };
    assert!(first(&[], &[]).starts_with("backend: mine (`default-backend` says so"), "{}", first(&[], &[]));
    assert!(
        first(&["--env", "ci"], &[])
            .starts_with("backends: docker, then oci (it is the backend of the environment `ci`")
    );
    assert!(first(&[], &[("WINDLASS_ENV", "ci")]).contains("(WINDLASS_ENV; "));
    assert_eq!(
        first(&["--env", "ci"], &[("TOGETHER_LOCAL_BUILD", "1")]),
        "backend: docker (the environment variable TOGETHER_LOCAL_BUILD says so)"
    );
    assert_eq!(
        first(&[], &[("WINDLASS_BACKEND", "oci")]),
        "backend: oci (the environment variable WINDLASS_BACKEND says so)"
    );
    assert_eq!(
        first(&["-b", "oci"], &[("WINDLASS_BACKEND", "docker")]),
        "backend: oci (`--backend` says so)"
    );
    let json = sandbox.run(&["config", "show", "--format", "json"]).json();
    assert_eq!((&json["backends"][0], &json["reason"]["by"]), (&"mine".into(), &"configuration".into()));
    let settings = json["settings"].as_array().expect("a list");
    let value = |key: &str| {
        settings.iter().find(|setting| setting["key"] == key).map(|setting| setting["value"].clone())
    };
    assert_eq!(value("backends.mine.type"), Some("oci".into()));
    assert_eq!(value("compression.format"), Some("gzip".into()));
}

#[test]
fn without_settings_the_embedded_backend_builds() {
    let sandbox = Sandbox::with(&[]);
    let text = sandbox.run(&["config", "show"]).done();
    assert!(text.starts_with("backend: oci (nothing says otherwise"), "{text}");
    let text = sandbox.run_with(&["config", "show"], &[("TOGETHER_API_KEY", "secret-value")]).done();
    assert!(text.starts_with("backend: image-builder (the environment has TOGETHER_API_KEY"), "{text}");
    assert!(!text.contains("secret-value"));
}

#[test]
fn what_does_not_exist_gets_the_nearest() {
    let sandbox = Sandbox::with(&[
        ("Dockerfile", "FROM scratch"),
        ("key/windlass.toml", "[context]\nwarn-sise = 1\n"),
        ("key/Dockerfile", "FROM scratch"),
        ("env/windlass.toml", "[environments.staging]\nbackend = \"oci\"\n"),
        ("option/windlass.toml", "[backends.mine]\ntype = \"oci\"\nnonsense = 1\n"),
        ("syntax/windlass.toml", "[context\n"),
        ("type/windlass.toml", "[backends.mine]\ntype = \"dokcer\"\n"),
    ]);
    for (line, words) in [
        (
            &["build", "key"][..],
            &["key/windlass.toml:2", "2 | warn-sise = 1", "did you mean `context.warn-size`?"][..],
        ),
        (
            &["build", "--set", "contxt.ignore=false"],
            &["`contxt.ignore`", "--set contxt.ignore=false", "did you mean `context"],
        ),
        (&["build", "--set", "context.ignore=perhaps"], &["`perhaps`", "`true` or `false`"]),
        (&["build", "--set", "context.ignore"], &["--set KEY=VALUE"]),
        (
            &["build", "-b", "dokcer"],
            &["unknown backend `dokcer`", "`--backend` says so", "did you mean `docker`?"],
        ),
        (&["build", "-b", "kaniko"], &["known backends: docker, image-builder, oci, runtime-api"]),
        (
            &["build", "--env", "stagign", "--config", "env/windlass.toml"],
            &["unknown environment `stagign`", "did you mean `staging`?"],
        ),
        (&["build", "--env", "ci"], &["no environment is configured"]),
        (
            &["build", "-b", "mine", "--config", "option/windlass.toml"],
            &["`nonsense`", "option/windlass.toml:3"],
        ),
        (
            &["build", "-b", "mine", "--config", "type/windlass.toml"],
            &["unknown backend type `dokcer`", "did you mean `docker`?"],
        ),
        (&["build", "--config", "syntax/windlass.toml"], &["is not valid TOML", "syntax/windlass.toml:1"]),
        (&["build", "--config", "absent.toml"], &["`absent.toml` does not exist", "windlass config init"]),
    ] {
        sandbox.run(line).refused(2, words);
    }
    let variable = [("WINDLASS_CONTEXT__WARN_SISE", "1")];
    sandbox.run_with(&["build"], &variable).refused(2, &["did you mean `WINDLASS_CONTEXT__WARN_SIZE`?"]);
    sandbox
        .run_with(&["build"], &[("WINDLASS_BACKEND", "dcoker")])
        .refused(2, &["did you mean `docker`?", "WINDLASS_BACKEND"]);
}

#[test]
fn a_slip_in_a_variable_is_warned_about() {
    let sandbox = Sandbox::with(&[]);
    let outcome =
        sandbox.run_with(&["config", "show"], &[("WINDLASS_BAKEND", "docker"), ("WINDLASS_OF_ANOTHER", "x")]);
    assert_eq!(
        outcome.stderr,
        "warning: the environment variable WINDLASS_BAKEND means nothing; did you mean WINDLASS_BACKEND?\n"
    );
}

#[test]
fn init_writes_a_file_once() {
    let sandbox = Sandbox::with(&[]);
    assert!(sandbox.run(&["config", "init"]).done().ends_with("windlass.toml\n"));
    assert!(sandbox.read("windlass.toml").contains("#warn-size = \"1GiB\""));
    assert!(sandbox.run(&["config", "show"]).done().contains("default"));
    sandbox.write("windlass.toml", "# mine\n");
    sandbox.run(&["config", "init"]).refused(2, &["exists already", "--force"]);
    assert_eq!(sandbox.read("windlass.toml"), "# mine\n");
    sandbox.run(&["config", "init", "--force"]).done();
    assert_ne!(sandbox.read("windlass.toml"), "# mine\n");
    sandbox.run(&["config", "init", "absent"]).refused(2, &["`", "does not exist"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn without_a_home_something_must_say_where_things_are() {
    let sandbox = Sandbox::scratch();
    let run = |variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&["config", "show"]);
        command.env_remove("HOME").envs(variables.iter().copied());
        crate::sandbox::Outcome::of(&command.output().expect("starts"))
    };
    run(&[]).refused(2, &["HOME is not set", "`cache-dir`"]);
    let text = run(&[("WINDLASS_CACHE_DIR", "c"), ("WINDLASS_STATE_DIR", "/s")]).done();
    assert!(text.contains("environment variable WINDLASS_CACHE_DIR"), "{text}");
}
