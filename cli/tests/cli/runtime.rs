//! `windlass runtime` on the embedded backend, without a registry: 127.0.0.1:1 does not answer.

use crate::sandbox::Sandbox;

const LOCK: &str = "oh_v0.62.0_rfkyaj1iiv38kkns";
const SOURCE: &str = "oh_v0.62.0_rfkyaj1iiv38kkns_glnsdte2lm82vv7q";
const R: &str = "127.0.0.1:1/team/runtime";

/// The tree T1 of the vectors as the package, its lock files beside it.
fn platform() -> Sandbox {
    Sandbox::with(&[
        ("pyproject.toml", "[tool.poetry]\nname = \"demo\"\nversion = \"1.0.0\"\n"),
        ("poetry.lock", "# lock\n"),
        ("openhands/__init__.py", ""),
        ("openhands/a.txt", "hello\n"),
        ("openhands/sub/b.py", "print(1)\n"),
        ("openhands/sub/deep/c.md", "# c\n"),
    ])
}

/// The same with the lock image in the local store.
fn platform_with_lock_image() -> Sandbox {
    let sandbox = platform();
    sandbox.write("lock/Dockerfile", "FROM scratch\nCOPY old /openhands/code/old\n");
    sandbox.write("lock/old", "gone\n");
    sandbox.run(&["build", "lock", "-t", &format!("{R}:{LOCK}")]).done();
    sandbox
}

/// A command about the image of the vectors.
fn of_vectors<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let line = ["runtime", command, "--base-image", "debian:11", "--version", "0.62.0", "--repository", R];
    [&line, more].concat()
}

#[test]
fn tags_are_those_of_the_vectors() {
    let sandbox = platform();
    let names = sandbox.run(&of_vectors("tags", &["--format", "json"])).json();
    let tags = &names["tags"];
    assert_eq!(tags["source"], format!("{R}:{SOURCE}"));
    assert_eq!(tags["lock"], format!("{R}:{LOCK}"));
    assert_eq!(tags["versioned"], format!("{R}:oh_v0.62.0_debian_t_11"));
    assert_eq!(tags["generic"], format!("{R}:oh_v0.62.0_image_debian_tag_11"));
    assert_eq!(
        (&tags["lock_hash"], &tags["source_hash"]),
        (&"rfkyaj1iiv38kkns".into(), &"glnsdte2lm82vv7q".into())
    );
    let text = sandbox.run(&of_vectors("tags", &["--no-browser"])).done();
    assert!(text.contains("oh_v0.62.0_w8lka2zp6mz426si_glnsdte2lm82vv7q"), "{text}");
    // The version of the project, and its lock file where the package has one.
    sandbox.write("openhands/poetry.lock", "# pkg lock\n");
    let text = sandbox.run(&["runtime", "tags", "--base-image", "debian:11"]).done();
    assert!(text.contains("ghcr.io/openhands/runtime:oh_v1.0.0_c5c6hsuz8ie6w2um"), "{text}");
}

#[test]
fn the_repository_is_typed_or_set_and_an_empty_one_is_neither() {
    let sandbox = platform();
    let repository = |line: &[&str], value: &str| {
        let line = [&["runtime", "tags", "--format", "json"], line].concat();
        let names = sandbox.run_with(&line, &[("OH_RUNTIME_RUNTIME_IMAGE_REPO", value)]).json();
        format!("{} {}", names["repository"].as_str().expect("a text"), names["repository_from"]["by"])
    };
    assert_eq!(repository(&[], ""), "ghcr.io/openhands/runtime \"recipe\"");
    assert_eq!(repository(&[], "r.example:5000/x"), "r.example:5000/x \"variable\"");
    assert_eq!(repository(&["--repository", "y"], "r.example:5000/x"), "y \"argument\"");
    let bad = [("OH_RUNTIME_RUNTIME_IMAGE_REPO", "No/Good")];
    sandbox.run_with(&["runtime", "tags"], &bad).refused(2, &["No/Good", "OH_RUNTIME_RUNTIME_IMAGE_REPO"]);
}

#[test]
fn what_the_hashes_leave_out_extends_the_tags_and_is_said() {
    let sandbox = platform();
    let tag = |more: &[&str]| {
        let names = sandbox.run(&of_vectors("tags", &[&["--format", "json"], more].concat())).json();
        names["tags"]["source"].as_str().expect("a text").replace(&format!("{R}:"), "")
    };
    let extended = tag(&["--extra-deps", "pip install x"]);
    assert!(
        extended.starts_with(&format!("{LOCK}_x")) && extended.ends_with("_glnsdte2lm82vv7q"),
        "{extended}"
    );
    assert_eq!(extended.len(), SOURCE.len() + 10);
    let others =
        [tag(&["--platform", "linux/arm64"]), tag(&["--build-arg", "A=1"]), tag(&["--var", "user_id=7"])];
    for other in &others {
        assert!(other.contains("_x") && *other != extended, "{other}");
    }
    let platforms = ["linux/arm64,linux/amd64", "linux/amd64,linux/arm64,linux/arm64/v8"];
    assert_eq!(tag(&["--platform", platforms[0]]), tag(&["--platform", platforms[1]]));
    // What docker builds for where nothing is typed.
    let variable = [("DOCKER_DEFAULT_PLATFORM", "linux/s390x")];
    let line = of_vectors("tags", &["--format", "json", "-b", "docker"]);
    let names = sandbox.run_with(&line, &variable).json();
    let typed = tag(&["--platform", "linux/s390x"]);
    assert_eq!(names["tags"]["source"], format!("{R}:{typed}"));
    // What is as without it changes nothing, nor does the order.
    assert_eq!(tag(&["--extra-deps", "", "--var", "user_id=1000"]), SOURCE);
    let (one, two) =
        (["--build-arg", "A=1", "--build-arg", "B=2"], ["--build-arg", "B=2", "--build-arg", "A=1"]);
    assert_eq!(tag(&one), tag(&two));
    let text = sandbox.run(&of_vectors("tags", &["--extra-deps", "x"])).done();
    assert!(text.contains("`--extra-deps`, which the hashes leave out, counts as `_x"), "{text}");
}

#[test]
fn tags_of_agent_server() {
    let sandbox = platform();
    let line = [
        "runtime",
        "tags",
        "--recipe",
        "agent-server",
        "--source",
        ".",
        "--target",
        "source-minimal",
        "--custom-tag",
        "python, java ,",
        "--architecture",
        "amd64",
        "--format",
        "json",
    ];
    let variables =
        [("SDK_SHA", ""), ("GITHUB_SHA", "abc1234567890"), ("GITHUB_REF", "refs/heads/Feature/X_y")];
    let names = sandbox.run_with(&line, &variables).json();
    let all: Vec<&str> =
        names["tags"]["all"].as_array().expect("a list").iter().filter_map(|tag| tag.as_str()).collect();
    assert!(all[0].ends_with(":abc1234-python-amd64-source-minimal"), "{all:?}");
    assert!(all[2].ends_with(":feature-x-y-python-amd64-source-minimal"), "{all:?}");
    assert_eq!(all.len(), 7);
    // git is read where the sources are.
    let commit = "0123456789abcdef0123456789abcdef01234567";
    sandbox.write(".git/HEAD", "ref: refs/heads/main\n");
    sandbox.write(".git/refs/heads/main", commit);
    let text = sandbox.run(&["runtime", "tags", "--recipe", "agent-server", "--source", "openhands"]).done();
    assert!(text.contains(commit) && text.contains(":0123456-") && text.contains("main"), "{text}");
}

#[test]
fn a_lock_image_is_built_on_and_then_nothing_is_built() {
    let sandbox = platform_with_lock_image();
    let plan = sandbox.run(&of_vectors("plan", &[])).done();
    for words in
        ["yes, here", "in the mode lock", "builds", "sets", SOURCE, "FROM 127.0.0.1:1/team/runtime", "layer"]
    {
        assert!(plan.contains(words), "`{words}` is not in\n{plan}");
    }
    // A plan builds nothing.
    assert_eq!(sandbox.run(&of_vectors("plan", &[])).done(), plan);
    let built = sandbox.run(&of_vectors("build", &[]));
    assert!(built.stderr.contains("built in the mode lock"), "{built:#?}");
    let result = built.done();
    assert!(result.starts_with(&format!("{R}:{SOURCE}@sha256:")), "{result}");
    // The lock image is as it was, and the next build finds the image.
    let again = sandbox.run(&of_vectors("build", &["--format", "json"])).json();
    assert_eq!((&again["decision"]["action"], &again["build"]["reused"]), (&"reuse".into(), &true.into()));
    assert!(result.trim_end().ends_with(again["digest"].as_str().expect("a digest")));
    let plan = sandbox.run(&of_vectors("plan", &["--format", "json"])).json();
    assert_eq!(
        (&plan["decision"]["action"], &plan["dockerfile"]),
        (&"reuse".into(), &serde_json::Value::Null)
    );
    // What is no longer in the sources is no longer in the image.
    sandbox.run(&of_vectors("build", &["-o", "type=oci,dest=image.tar"])).done();
    let text = sandbox.run(&["image", "ls"]).done();
    assert_eq!(text.matches(LOCK).count(), 2, "{text}");
    // Other sources are another image on the same lock image.
    sandbox.write("openhands/a.txt", "other\n");
    let other = sandbox.run(&of_vectors("build", &[])).done();
    assert!(other.contains(LOCK) && !other.contains(SOURCE), "{other}");
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn from_scratch_is_refused_where_run_is_missing_before_any_work() {
    let sandbox = platform();
    // Hashing would fail.
    std::os::unix::fs::symlink("..", sandbox.path("openhands/sub/up")).expect("linked");
    let words = ["the backend `oci` cannot build the recipe", "RUN", "--backend docker", "lock image"];
    sandbox.run(&of_vectors("build", &["--force-rebuild"])).refused(2, &words);
    sandbox.run(&of_vectors("tags", &[])).refused(1, &["sub/up"]);
    let line = ["runtime", "build", "--recipe", "agent-server", "--target", "base-image"];
    sandbox.run(&line).refused(2, &["cannot build the recipe `agent-server`", "RUN"]);
}

#[test]
fn a_plan_tells_all_and_then_what_a_build_would_fail_with() {
    let sandbox = platform();
    let plan = sandbox.run(&of_vectors("plan", &["--force-rebuild"]));
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    for words in ["mode scratch", "a rebuild is forced", "no (looked for here)", "FROM debian:11", "RUN "] {
        assert!(plan.stdout.contains(words), "`{words}` is not in {plan:#?}");
    }
    assert!(plan.stderr.contains("error: the backend `oci` cannot build the recipe"), "{plan:#?}");
    // Who wants the build folder builds it elsewhere.
    let line = of_vectors("build", &["--force-rebuild", "--dry-run", "--build-folder", "folder"]);
    let folder = sandbox.run(&line);
    assert!(folder.stderr.contains("warning: the backend `oci` cannot build"), "{folder:#?}");
    folder.done();
    assert!(sandbox.read("folder/Dockerfile").starts_with("FROM debian:11"));
}

#[test]
fn an_answer_that_cannot_be_had_is_an_error() {
    let outcome = platform().run(&of_vectors("build", &[]));
    outcome.refused(3, &[&format!("whether `{R}:{LOCK}` exists"), "--repository"]);
}

#[test]
fn what_is_missing_is_named() {
    let sandbox = platform();
    let refused = |line: &[&str], words: &[&str]| {
        sandbox.run(&[&["runtime", "tags"], line].concat()).refused(2, words);
    };
    refused(&["--source", "absent"], &["no source directory `absent`", "--source DIR"]);
    refused(&["--recipe", "openhand-runtime"], &["openhand-runtime", "did you mean `openhands-runtime`?"]);
    sandbox.run(&["runtime", "tags", "--recipe", "absent.toml"]).refused(1, &["no recipe", "absent.toml"]);
    refused(&["--base-image", "Debian"], &["`Debian` cannot be a base image"]);
    refused(&["--version", "1.0+x"], &["`oh_v1.0+x_", "cannot be a tag"]);
    refused(&["--var", "usr=x"], &["usr"]);
    refused(&["--custom-tag", "x"], &["`--custom-tag` means nothing to the recipe `openhands-runtime`"]);
    refused(&["--repository", "a b"], &["`a b` cannot be the repository"]);
    std::fs::remove_file(sandbox.path("poetry.lock")).expect("removed");
    refused(&[], &["the lock file `poetry.lock` is neither in `openhands` nor in the directory above it"]);
    std::fs::remove_file(sandbox.path("pyproject.toml")).expect("removed");
    refused(&["--version", "1"], &["`pyproject.toml` and `poetry.lock` are neither in"]);
    let without = Sandbox::with(&[
        ("openhands/a", ""),
        ("poetry.lock", ""),
        ("pyproject.toml", "[tool.black]\nversion = 1\n"),
    ]);
    without.run(&["runtime", "tags"]).refused(2, &["tool.poetry.version", "--version VERSION"]);
}

#[test]
fn the_build_folder_is_written_without_a_build() {
    let sandbox = platform_with_lock_image();
    let line = of_vectors("build", &["--dry-run", "--build-folder", "folder"]);
    let plan = sandbox.run(&line).done();
    assert!(plan.contains("folder"), "{plan}");
    assert!(sandbox.read("folder/Dockerfile").starts_with("FROM 127.0.0.1:1/team/runtime:"));
    assert_eq!(sandbox.read("folder/code/openhands/a.txt"), "hello\n");
    assert!(
        !sandbox.path("folder/code/openhands/sub/deep/c.md").exists(),
        "documentation is hashed, not copied"
    );
    let lines =
        format!("DOCKER_IMAGE_TAG=oh_v0.62.0_image_debian_tag_11\nDOCKER_IMAGE_SOURCE_TAG={SOURCE}\n");
    assert!(sandbox.read("folder/config.sh").ends_with(&lines));
    // Once more adds to it.
    sandbox.run(&line).done();
    assert_eq!(sandbox.read("folder/config.sh").matches("DOCKER_IMAGE_TAG").count(), 2);
    sandbox.write("mine/file", "mine\n");
    sandbox.run(&of_vectors("build", &["--dry-run", "--build-folder", "mine"])).refused(2, &["mine"]);
    assert_eq!(sandbox.names("mine"), ["file"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn a_recipe_is_printed_as_a_file_that_means_the_same() {
    let sandbox = platform();
    let text = sandbox.run(&["runtime", "plan", "--show-recipe"]).done();
    sandbox.write("mine.toml", &text);
    assert_eq!(sandbox.run(&["runtime", "plan", "--show-recipe", "--recipe", "mine.toml"]).done(), text);
    let names = sandbox.run(&of_vectors("tags", &["--recipe", "mine.toml", "--format", "json"])).json();
    assert_eq!(names["tags"]["source"], format!("{R}:{SOURCE}"));
}
