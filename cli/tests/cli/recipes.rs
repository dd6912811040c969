//! The walk through a recipe in `docs/recipes.md`: its files work, and what it shows is what comes out.

use crate::sandbox::Sandbox;

const PAGE: &str = include_str!("../../../docs/recipes.md");

/// A registry that does not answer takes the place of that of the page.
const SHOWN: &str = "registry.example.com/acme/agents";
const R: &str = "127.0.0.1:1/acme/agents";

/// A block of the page, by what stands after its fence.
fn block(title: &str) -> &'static str {
    let fence = format!("```{title}\n");
    let (_, rest) = PAGE.split_once(&fence).unwrap_or_else(|| panic!("the page has no block `{title}`"));
    rest.split_once("```").expect("the block ends").0
}

/// The arguments of the command that a block shows, and what it prints.
fn session(title: &str) -> (Vec<&'static str>, &'static str) {
    let (command, output) = block(title).split_once('\n').expect("a command");
    let command = command.strip_prefix("$ windlass ").expect("a command of windlass");
    (command.split(' ').collect(), output)
}

/// The files of the page, and a source tree as it describes.
fn platform() -> Sandbox {
    Sandbox::with(&[
        ("acme.toml", &block("toml acme.toml").replace(SHOWN, R)),
        ("acme.Dockerfile.j2", block("jinja acme.Dockerfile.j2")),
        ("agents/package.json", "{\"name\":\"agents\",\"version\":\"3.0.0\"}\n"),
        ("agents/package-lock.json", "{\"lockfileVersion\":3}\n"),
        ("agents/main.js", "console.log(\"hello\")\n"),
        ("agents/main.test.js", "x\n"),
        ("agents/prompts/system.txt", "be kind\n"),
    ])
}

/// The lock image of the page, as a first build would have left it in the local store.
fn with_lock_image(sandbox: &Sandbox) {
    sandbox.write("lock/Dockerfile", "FROM scratch\nCOPY old /acme/code/old\nCOPY old /acme/packages/old\n");
    sandbox.write("lock/old", "gone\n");
    let lock = block("dockerfile lock").lines().next().expect("a line").replace(SHOWN, R);
    let reference = lock.strip_prefix("FROM ").expect("the base");
    sandbox.run(&["build", "lock", "-t", reference]).done();
}

#[test]
fn the_tags_of_the_page_are_those_of_its_recipe() {
    let sandbox = platform();
    let (command, output) = session("console tags");
    assert_eq!(sandbox.run(&command).done().replace(R, SHOWN), output);
}

#[test]
fn the_recipe_of_the_page_replaces_sources_without_a_daemon() {
    let sandbox = platform();
    with_lock_image(&sandbox);
    let plan = sandbox.run(&["runtime", "plan", "--recipe", "acme.toml", "--format", "json"]).json();
    assert_eq!(plan["decision"]["mode"], "lock", "{plan}");

    let line = [
        "runtime",
        "build",
        "--recipe",
        "acme.toml",
        "--build-folder",
        "folder",
        "-o",
        "type=local,dest=out",
    ];
    sandbox.run(&line).done();
    assert_eq!(sandbox.read("folder/Dockerfile").replace(R, SHOWN), block("dockerfile lock"));
    let listed = block("text folder").lines();
    let mut files: Vec<&str> = Vec::new();
    for file in listed {
        assert!(sandbox.path("folder").join(file).is_file(), "{file}");
        files.push(file);
    }
    assert_eq!(files.len(), 5);
    assert!(!sandbox.path("folder/code/agents/main.test.js").exists());

    assert_eq!(sandbox.read("out/acme/code/agents/main.js"), "console.log(\"hello\")\n");
    assert_eq!(sandbox.read("out/acme/packages/old"), "gone\n");
    assert_eq!(sandbox.names("out/acme/code"), ["agents"], "what has disappeared from the sources is gone");
}

#[test]
fn a_first_image_needs_a_backend_that_runs_commands() {
    let sandbox = platform();
    let line = ["runtime", "build", "--recipe", "acme.toml", "--base-image", "scratch", "--force-rebuild"];
    sandbox
        .run(&line)
        .refused(2, &["`acme` in the mode `scratch`", "cannot run programs", "--backend docker"]);
}

#[test]
fn recipes_of_the_configuration_are_shown_and_checked() {
    let sandbox = platform();
    sandbox.write("windlass.toml", block("toml windlass.toml"));
    let tags = sandbox.run(&["runtime", "tags", "--recipe", "acme"]).done();
    assert!(tags.contains(&format!("source       {SHOWN}:v3-")), "{tags}");
    let shown = sandbox.run(&["config", "show"]).done();
    assert!(
        shown.contains("recipes.acme.variables.install_command") && shown.contains("windlass.toml:"),
        "{shown}"
    );
    assert!(shown.contains("recipes.team-runtime.extends"), "{shown}");
    sandbox.write("pyproject.toml", "[project]\nversion = \"1\"\n");
    sandbox.write("poetry.lock", "");
    let line = ["runtime", "tags", "--recipe", "team-runtime", "--source", "agents"];
    assert!(sandbox.run(&line).done().contains("registry.example.com/team/runtime:oh_v1_"));

    let (command, output) = session("console error");
    sandbox
        .write("windlass.toml", &block("toml windlass.toml").replace("version = \"3\"", "versoin = \"3\""));
    let words: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    sandbox.run(&command).refused(2, &words);
}
