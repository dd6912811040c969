//! `windlass batch` on the embedded backend: lists, records, and going on after a crash.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox};

const LIST: &str = "\
context = \"app\"
labels = { team = \"agents\" }

[[image]]
tags = [\"localhost/app:1\", \"localhost/app:latest\"]
build-args = { WHO = \"one\" }

[[image]]
name = \"second\"
tags = [\"localhost/app:2\"]
build-args = { WHO = \"two\" }
";

fn sandbox(lists: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        (
            "app/Dockerfile",
            "ARG BASE_IMAGE=scratch\nFROM $BASE_IMAGE\nARG WHO\nLABEL who=$WHO\nCOPY hello.txt /\n",
        ),
        ("app/hello.txt", "hello\n"),
    ]);
    lists.iter().for_each(|(name, content)| sandbox.write(name, content));
    sandbox
}

/// A list of so many images that one can be met while it is built.
fn many(count: usize) -> Sandbox {
    let lines: Vec<String> = (0..count)
        .map(|n| format!("{{\"context\": \"app\", \"tags\": [\"localhost/app:{n}\"], \"build_args\": {{\"WHO\": {n}}}}}\n"))
        .collect();
    sandbox(&[("many.jsonl", &lines.concat())])
}

/// The whole lines of a manifest.
fn records(sandbox: &Sandbox, report: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(sandbox.path(report).join("manifest.jsonl")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn each_image_has_its_record_its_log_and_its_place_in_the_summary() {
    let sandbox = sandbox(&[("images.toml", LIST)]);
    let outcome = sandbox.run(&["batch", "images.toml", "--report", "out", "-j", "2"]);
    assert!(outcome.stderr.contains("2 images") && outcome.stderr.contains("[2/2] built"), "{outcome:#?}");
    let stdout = outcome.done();
    assert!(stdout.starts_with("2 images: 2 built; "), "{stdout}");
    let records = records(&sandbox, "out");
    assert_eq!(records.len(), 2);
    for record in &records {
        let (name, digest) = (record["name"].as_str().expect("a name"), record["digest"].as_str());
        assert!(digest.expect("a digest").starts_with("sha256:"), "{record}");
        assert_eq!((&record["status"], &record["attempt_count"]), (&"built".into(), &1.into()));
        let log = std::fs::read_to_string(record["log_path"].as_str().expect("a log")).expect("a log");
        assert!(log.contains("COPY hello.txt /"), "{log}");
        assert!(
            record["log_path"].as_str().is_some_and(|path| path.contains(&format!("/logs/{name}/build-")))
        );
    }
    let summary: Value = serde_json::from_str(&sandbox.read("out/build-summary.json")).expect("JSON");
    assert_eq!((&summary["built"], &summary["failed"]), (&2.into(), &0.into()));
    // What it says is in the store is there, with what the list says of it.
    for (tag, who) in [("1", "one"), ("latest", "one"), ("2", "two")] {
        let image =
            sandbox.run(&["image", "inspect", &format!("localhost/app:{tag}"), "--format", "json"]).done();
        assert!(image.contains(who) && image.contains("agents"), "{image}");
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_nothing_is_started() {
    let list = "\
tgas = []

[[image]]
context = \"absent\"
tags = [\"a:1\"]

[[image]]
context = \"app\"
tags = [\"a/B\", \"b:1\"]
platforms = [\"linux/amd46\"]

[[image]]
context = \"app\"
tags = [\"docker.io/library/b:1\", \"c:1\"]

[[image]]
context = \"app\"
tags = [\"c\", \"c:1\"]
base_image = 3

[[image]]
recipe = \"agent-servr\"
context = \"app\"

[[image]]
name = \"../x\"
context = \"app\"
target = \"tests\"
";
    let sandbox = sandbox(&[("images.toml", list)]);
    let outcome = sandbox.run(&["batch", "images.toml", "--report", "out"]);
    outcome.refused(
        2,
        &[
            "errors: nothing was started",
            "images.toml:1: unknown key `tgas` of an image; did you mean `tags`?",
            "images.toml:4: the build context `absent` does not exist",
            "images.toml:9: invalid image reference `a/B`",
            "images.toml:10: unknown platform",
            "images.toml:14: the tag `b:1` is that of the image in line 7 too",
            "images.toml:18: the tag `c:1` is that of the image in line 12 too",
            "images.toml:19: `base_image` must be a text, and is a number",
            "images.toml:22: there is no recipe `agent-servr`; did you mean `agent-server`?",
            "images.toml:23: `context` cannot stand beside `recipe`",
            "images.toml:26: the name `../x` must be of at most",
            "images.toml:28: `app/Dockerfile` has no stage `tests`",
        ],
    );
    assert!(!sandbox.path("out").exists());
}

#[test]
fn lists_that_cannot_be_meant_are_refused() {
    let sandbox = sandbox(&[
        ("images.yaml", ""),
        ("empty.toml", ""),
        ("torn.toml", "a = [\n"),
        ("torn.jsonl", "{\"tags\": [\"a\"]\n\n[]\n"),
        ("run.toml", "[[image]]\ntags = [\"a\"]\ncontext = \"run\"\n"),
        ("run/Dockerfile", "FROM scratch\nRUN true\n"),
        ("run/.dockerignore", "report\n"),
        ("base.toml", "[[image]]\ntags = [\"a\"]\ncontext = \"run\"\nbase-image = \"debian\"\n"),
        ("ok.toml", "[[image]]\nname = \"app\"\ntags = [\"a:1\"]\ncontext = \"app\"\n"),
        (
            "twice.toml",
            "[[image]]\nname = \"x\"\ncontext = \"app\"\n[[image]]\nname = \"x\"\ncontext = \"app\"\n",
        ),
    ]);
    for (line, code, words) in [
        (&["batch", "absent.toml"][..], 2, &["the list `absent.toml` does not exist"][..]),
        (&["batch", "images.yaml"], 2, &["is no list of images", ".hcl"]),
        (&["batch", "empty.toml"], 2, &["there is no image in it"]),
        (&["batch", "torn.toml"], 2, &["torn.toml:"]),
        (
            &["batch", "torn.jsonl"],
            2,
            &["torn.jsonl:1: this is not JSON", "torn.jsonl:3: an image must be a table"],
        ),
        (&["batch", "run.toml"], 2, &["RUN", "`oci`", "run/Dockerfile:2", "docker"]),
        (&["batch", "base.toml"], 2, &["has no `ARG BASE_IMAGE`"]),
        (&["batch", "ok.toml", "apq"], 2, &["has no image `apq`", "did you mean `app`?"]),
        (&["batch", "ok.toml", "--min-free", "much"], 2, &["--min-free much", "20GB"]),
        (&["batch", "ok.toml", "--report", "app/report"], 2, &["into the build context", "--report"]),
        (&["batch", "ok.toml", "--load"], 2, &["`--load`", "`oci`"]),
        (&["batch", "ok.toml", "--min-free", "900000TB"], 1, &["MB are free at", "--min-free"]),
        (&["batch", "twice.toml"], 2, &["twice.toml:5: the name `x` is taken by the image in line 2"]),
    ] {
        sandbox.run(line).refused(code, words);
    }
}

#[test]
fn a_failure_costs_one_image_and_the_exit_code() {
    let list = "[[image]]\ntags = [\"localhost/a:1\"]\ncontext = \"bad\"\n\n[[image]]\ntags = [\"localhost/b:1\"]\ncontext = \"app\"\n";
    let sandbox = sandbox(&[("images.toml", list), ("bad/Dockerfile", "FROM scratch\nCOPY absent /\n")]);
    let line = ["batch", "images.toml", "--report", "out", "--retries", "0"];
    let outcome = sandbox.run(&line);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    for words in ["2 images: 1 built, 1 failed", "failed: a-1", "absent", "bad/Dockerfile:2", "log: "] {
        assert!(outcome.stdout.contains(words), "`{words}` is not in {outcome:#?}");
    }
    // What failed is tried again, what is there is not.
    sandbox.write("bad/absent", "x");
    let again = sandbox.run(&[&line[..], &["--resume", "--format", "json"]].concat()).json();
    assert_eq!(
        (&again["built"], &again["finished_before"], &again["total"]),
        (&1.into(), &1.into(), &2.into())
    );
    let statuses: Vec<Value> =
        records(&sandbox, "out").iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == "built").count(), 2, "{statuses:?}");
}

#[test]
fn an_image_that_the_list_has_changed_is_built_again() {
    let sandbox = sandbox(&[("images.toml", LIST)]);
    let line = ["batch", "images.toml", "--report", "out", "--resume", "--format", "json"];
    assert_eq!(sandbox.run(&line).json()["built"], 2);
    assert_eq!(sandbox.run(&line).json()["finished_before"], 2);
    sandbox.write("images.toml", &LIST.replace("\"two\"", "\"three\""));
    let again = sandbox.run(&line).json();
    assert_eq!((&again["built"], &again["finished_before"]), (&1.into(), &1.into()));
    // Without `--resume` the records of before are kept aside, and all is built.
    let fresh = sandbox.run(&["batch", "images.toml", "--report", "out", "--format", "json"]).json();
    assert_eq!(fresh["built"], 2);
    assert_eq!(sandbox.names("out").iter().filter(|name| name.starts_with("manifest")).count(), 2);
}

#[test]
fn a_dry_run_lists_and_writes_nothing() {
    let sandbox = sandbox(&[("images.toml", LIST)]);
    let before = sandbox.names("");
    let listed = sandbox.run(&["batch", "images.toml", "--dry-run"]).done();
    for words in ["app-1 ", "second", "app/Dockerfile", "localhost/app:1 and 1 more", "built, type=image"] {
        assert!(listed.contains(words), "`{words}` is not in {listed}");
    }
    let listed =
        sandbox.run(&["batch", "images.toml", "second", "--dry-run", "--push", "--format", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!((&listed[0]["outputs"][0], &listed[0]["line"]), (&"type=registry".into(), &8.into()));
    assert_eq!(sandbox.names(""), before);
    assert!(!sandbox.home().join(".local").exists());
}

#[test]
fn bake_files_build() {
    let hcl = "variable \"TAG\" { default = \"1\" }\ngroup \"default\" { targets = [\"app\", \"tools\"] }\n\
               target \"app\" {\n  context = \"app\"\n  tags = [\"localhost/bake:${TAG}\"]\n  args = { WHO = \"hcl\" }\n}\n\
               target \"tools\" {\n  inherits = [\"app\"]\n  tags = [\"localhost/bake:tools\"]\n}\n";
    let json = "{\"target\": {\"only\": {\"context\": \"app\", \"tags\": [\"localhost/bake:json\"],\n\
                \"dockerfile-inline\": \"FROM scratch\\nCOPY hello.txt /x\\n\"}}}";
    let sandbox = sandbox(&[("docker-bake.hcl", hcl), ("bake/docker-bake.json", json)]);
    let built = sandbox.run_with(&["batch", "docker-bake.hcl", "--report", "out"], &[("TAG", "set")]);
    assert!(built.done().starts_with("2 images: 2 built"));
    sandbox.run(&["batch", "bake/docker-bake.json", "only", "--report", "out"]).done();
    for tag in ["set", "tools", "json"] {
        sandbox.run(&["image", "inspect", &format!("localhost/bake:{tag}")]).done();
    }
    sandbox.write("docker-bake.hcl", "target \"default\" {\n  context = \"app\"\n  secret = [\"id=x\"]\n}\n");
    sandbox.run(&["batch", "docker-bake.hcl"]).refused(2, &["`--secret`", "`oci`", "docker"]);
    sandbox.write("docker-bake.hcl", "target \"default\" {\n  matrix = {}\n}\n");
    sandbox.run(&["batch", "docker-bake.hcl"]).refused(2, &["docker-bake.hcl:2: `matrix` is not supported"]);
}

fn start(sandbox: &Sandbox, line: &[&str]) -> Child {
    let mut command: Command = sandbox.command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// Waits until some images have their records.
fn wait_for_records(sandbox: &Sandbox, child: &mut Child, count: usize) {
    let limit = Instant::now() + Duration::from_secs(60);
    while records(sandbox, "out").len() < count {
        let runs = child.try_wait().expect("waits").is_none();
        assert!(Instant::now() < limit && runs, "the batch was not met");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_batch_that_was_killed_goes_on_where_it_was() {
    const TOTAL: usize = 150;
    let sandbox = many(TOTAL);
    let line = ["batch", "many.jsonl", "--report", "out", "-j", "3"];
    let mut child = start(&sandbox, &line);
    wait_for_records(&sandbox, &mut child, 5);
    child.kill().expect("kill -9");
    child.wait().expect("ends");
    let before = records(&sandbox, "out").len();
    assert!((5..TOTAL).contains(&before), "{before}");
    // As a crash of the machine would leave the last line.
    let path = sandbox.path("out/manifest.jsonl");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    std::fs::write(&path, format!("{text}{{\"name\": \"app-1\", \"ent")).expect("write");
    let summary = sandbox.run(&[&line[..], &["--resume", "--format", "json"]].concat()).json();
    assert_eq!((&summary["finished_before"], &summary["failed"]), (&before.into(), &0.into()));
    assert_eq!(summary["built"], TOTAL - before);
    let records = records(&sandbox, "out");
    let mut names: Vec<&str> = records.iter().filter_map(|record| record["name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((records.len(), names.len()), (TOTAL, TOTAL));
    for number in [0, TOTAL / 2, TOTAL - 1] {
        sandbox.run(&["image", "inspect", &format!("localhost/app:{number}")]).done();
    }
}

#[test]
fn who_stops_a_batch_finds_a_true_manifest() {
    const TOTAL: usize = 150;
    let sandbox = many(TOTAL);
    let line = ["batch", "many.jsonl", "--report", "out", "--format", "json", "-j", "2"];
    let mut child = start(&sandbox, &line);
    wait_for_records(&sandbox, &mut child, 3);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let outcome = Outcome::of(&child.wait_with_output().expect("ends"));
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    let summary: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let records = records(&sandbox, "out");
    assert_eq!((&summary["built"], &summary["cancelled"]), (&records.len().into(), &true.into()));
    assert_eq!(summary["not_finished"], TOTAL - records.len());
    for record in records {
        let tag = record["tags"][0].as_str().expect("a tag").to_owned();
        sandbox.run(&["image", "inspect", &tag]).done();
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn images_of_recipes_are_looked_at_before_the_first_is_begun() {
    let list = "recipe = \"agent-server\"\nsource = \"sdk\"\nrepository = \"r.io/agent\"\ncustom-tags = [\"python\"]\n\n\
                [[image]]\nbase-image = \"debian:11\"\n\n[[image]]\nbase-image = \"debian:12\"\n\n\
                [[image]]\nrecipe = \"openhands-runtime\"\ncustom-tags = []\nbase-image = \"debian:11\"\n";
    let sandbox = sandbox(&[("images.toml", list)]);
    for part in ["sdk", "tools", "workspace", "agent_server"] {
        sandbox.write(&format!("sdk/openhands-{part}/x.py"), "");
    }
    sandbox.write("sdk/pyproject.toml", "[project]\nname = \"sdk\"\nversion = \"1.2.3\"\n");
    sandbox.write("sdk/uv.lock", "");
    let outcome = sandbox.run(&["batch", "images.toml", "--report", "out"]);
    outcome.refused(
        2,
        &["images.toml:9: the tag `r.io/agent:unknown-python` is that of the image in line 6 too"],
    );
    outcome.refused(2, &["images.toml:12:", "poetry.lock"]);
    assert!(!sandbox.path("out").exists());
}

#[test]
fn a_backend_that_is_not_there_is_found_out_before_the_first_image() {
    let sandbox = sandbox(&[("images.toml", LIST)]);
    let line = ["batch", "images.toml", "--report", "out", "-b", "docker"];
    let outcome = sandbox.run_with(&line, &[("DOCKER_HOST", "unix:///nonexistent.sock")]);
    outcome.refused(3, &["the backend `docker` cannot build: "]);
    assert!(!sandbox.path("out").exists());
}

#[test]
fn events_are_for_programs_too() {
    let sandbox = sandbox(&[("images.toml", LIST)]);
    let outcome = sandbox.run(&["batch", "images.toml", "--report", "out", "--progress", "rawjson"]);
    let events: Vec<Value> =
        outcome.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((of("began"), of("started"), of("finished")), (1, 2, 2), "{outcome:#?}");
    assert!(of("step") > 1 && events.iter().all(|event| event["time"].is_string()), "{outcome:#?}");
    assert_eq!(sandbox.run(&["batch", "images.toml", "--report", "out", "-q"]).stderr, "");
}
