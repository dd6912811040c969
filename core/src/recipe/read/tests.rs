use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::super::{Mode, Recipe, Recipes, RenderInput, Scheme, TagValues, Tags};
use crate::config::{self, Sources};
use crate::error::{Error, ErrorKind, Result};

/// What every recipe needs, and nothing else.
const LEAST: &str = "template-text = \"FROM {{ base_image }}\"\nrepository = \"ghcr.io/acme/runtime\"\n";
const TAGS: &str = "[tags]\nsource = \"v{{ version }}_{{ lock_hash }}{{ extension }}_{{ source_hash }}\"\n";

/// Reads a recipe file of this text, beside a template `t.j2`.
fn read_text(text: &str) -> Result<Arc<Recipe>> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("t.j2"), "FROM {{ base_image }}\nRUN {{ tool }}\n")
        .expect("written");
    let file = directory.path().join("acme.toml");
    std::fs::write(&file, text).expect("written");
    Recipes::builtin().expect("valid").read_file(&file)
}

fn refused(text: &str) -> Error {
    let error = read_text(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}: {error:?}");
    error
}

#[test]
fn the_least_recipe_has_defaults() {
    let recipe = read_text(&format!("{LEAST}{TAGS}")).expect("valid");
    assert_eq!((recipe.name.as_str(), recipe.hash.as_str()), ("acme", "."));
    assert_eq!((recipe.source.as_path(), &recipe.modes[..]), (Path::new("."), &[Mode::Scratch][..]));
    assert!(recipe.sources.is_empty() && recipe.lock_files.is_empty() && recipe.variables.is_empty());
    assert!(recipe.base_image.is_none() && recipe.version.is_none() && recipe.config_file.is_none());
}

#[test]
fn a_whole_recipe_is_read() {
    let text = r#"
        name = "agents"
        description = "ours"
        template = "t.j2"
        repository = "registry.example.com:5000/acme/agents"
        repository-env = "ACME_REPOSITORY"
        base-image = "debian:12"
        source = "app"
        version-from = "pyproject.toml"
        modes = ["lock", "scratch"]
        lock-files = ["uv.lock", { path = "a/package.json", destination = "web/package.json" }]
        [[sources]]
        path = "src"
        destination = "code/{{ package }}"
        ignore = ["**/*.pyc"]
        [[sources]]
        path = "../extra"
        destination = "extra"
        optional = true
        hashed = false
        [tags]
        lock = "a_{{ lock_hash }}{{ extension }}"
        source = "{{ lock }}_{{ source_hash }}"
        [config-file]
        name = "built.env"
        text = "TAG={{ source_tag }}"
        [variables]
        tool = "make"
        list = ["a", 1]
    "#;
    let recipe = read_text(text).expect("valid");
    assert_eq!((recipe.name.as_str(), &recipe.modes[..]), ("agents", &[Mode::Scratch, Mode::Lock][..]));
    assert_eq!(recipe.lock_files[0].destination, "uv.lock");
    assert_eq!((recipe.sources[0].hashed, recipe.sources[1].optional), (true, true));
    assert_eq!(recipe.variables["list"], json!(["a", 1]));
    assert!(recipe.template.name.ends_with("t.j2") && recipe.template.path.is_some());
}

#[test]
fn what_is_written_out_is_the_same_recipe() {
    let least = read_text(&format!("{LEAST}{TAGS}")).expect("valid");
    assert_eq!(
        read_text(&toml::to_string_pretty(&*least).expect("can be written")).expect("valid").tags,
        least.tags
    );
    for name in ["openhands-runtime", "agent-server"] {
        let built_in = Recipes::builtin().expect("valid").get(name).expect("built in");
        let text = toml::to_string_pretty(&*built_in).expect("can be written");
        let read = read_text(&text).expect(&text);
        let mut expected = (*built_in).clone();
        // Where it stands is all that differs.
        (expected.file, expected.above) = (read.file.clone(), read.above.clone());
        expected.template.name.clone_from(&read.template.name);
        assert_eq!(*read, expected, "{text}");
    }
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest() {
    let error = refused(&format!("{LEAST}repository_env = \"X\"\n{TAGS}"));
    assert_eq!(error.message(), "unknown key `repository_env`");
    assert_eq!(error.hints(), ["did you mean `repository-env`?"]);
    let line = error.source_line().expect("a line");
    assert_eq!((line.line, line.text.as_str()), (3, "repository_env = \"X\""));
    assert!(line.file.ends_with("acme.toml"));

    let sources = "[[sources]]\npath = \"a\"\ndestination = \"a\"\n[[sources]]\npath = \"b\"\ndestination = \"b\"\nignored = \"x\"\n";
    let error = refused(&format!("{LEAST}{sources}{TAGS}"));
    assert_eq!(error.message(), "unknown key `sources[1].ignored`");
    assert_eq!(error.hints(), ["did you mean `ignore`?"]);
    assert_eq!(error.source_line().map(|line| line.line), Some(9));
    assert_eq!(refused(&format!("{LEAST}{TAGS}lok = \"x\"\n")).hints(), ["did you mean `lock`?"]);
}

#[test]
fn what_is_missing_is_said_with_what_it_is_for() {
    for (text, message) in [
        (TAGS.to_owned(), "`template` is missing"),
        (format!("template-text = \"FROM a\"\n{TAGS}"), "`repository` is missing"),
        (LEAST.to_owned(), "`tags` is missing"),
        (format!("{LEAST}[tags]\nlock = \"a\"\n"), "`tags.source` is missing"),
        (format!("{LEAST}sources = [{{ path = \"a\" }}]\n{TAGS}"), "`sources[0].destination` is missing"),
        (format!("{LEAST}{TAGS}[config-file]\nname = \"x\"\n"), "`config-file.text` is missing"),
        (format!("{LEAST}modes = [\"scratch\", \"lock\"]\n{TAGS}"), "`tags.lock` is missing"),
    ] {
        let error = refused(&text);
        assert_eq!(error.message(), message, "{text}");
        assert!(!error.hints().is_empty(), "{text}");
        let placed = error.source_line().is_some() || error.details().iter().any(|(name, _)| *name == "file");
        assert!(placed, "{text}");
    }
}

#[test]
fn wrong_values_say_what_would_be_right() {
    for (more, message, hint) in [
        ("modes = 3", "`modes` cannot be `3`", "it is a text or a list of texts"),
        ("modes = [\"lok\"]", "unknown mode `lok` in `modes`", "did you mean `lock`?"),
        ("modes = [\"lock\"]", "`modes` cannot be", "it is a list with `scratch`"),
        ("base-image = \"A B\"", "`base-image` cannot be `A B`", "it is an image such as `debian:12`"),
        (
            "repository-env = \"1-x\"",
            "`repository-env` cannot be `1-x`",
            "it is the name of an environment variable",
        ),
        ("version = \"\"", "`version` cannot be ``", "it is a text"),
        ("version = \"1\"\nversion-from = \"a\"", "`version` and `version-from` exclude each other", ""),
        ("version-from = \"/a\"", "`version-from` cannot be", "it is a file in the source directory"),
        ("template = \"t.j2\"", "`template` and `template-text` exclude each other", ""),
        (
            "lock-files = [\"../a\"]",
            "`lock-files` cannot be",
            "it is a file by its path in the source directory",
        ),
        ("lock-files = [1]", "`lock-files` cannot be", "it is a list of texts or tables"),
        ("hash = \"/\"", "`hash` cannot be `/`", "it is a directory by its path from the source directory"),
        ("sources = [\"a\"]", "`sources` cannot be", "it is a list of tables"),
        (
            "sources = [{ path = \"/a\", destination = \"b\" }]",
            "`sources[0].path` cannot be `/a`",
            "it is a path",
        ),
        ("sources = [{ path = \"a/../..\", destination = \"b\" }]", "`sources[0].path` cannot be", ""),
        (
            "sources = [{ path = \"a\", destination = \"../b\" }]",
            "`sources[0].destination` cannot be `../b`",
            "",
        ),
        ("sources = [{ path = \"a\", destination = \"/b\" }]", "`sources[0].destination` cannot be `/b`", ""),
        (
            "sources = [{ path = \"a\", destination = \"b\", optional = 1 }]",
            "`sources[0].optional` cannot be `1`",
            "",
        ),
        (
            "sources = [{ path = \"a\", destination = \"b\", ignore = \"[\" }]",
            "the pattern `[` of `sources[0].ignore`",
            "patterns are those of `.gitignore`",
        ),
        (
            "sources = [{ path = \"../a\", destination = \"b\" }]",
            "the source `../a` lies outside",
            "a change of it would go unseen",
        ),
        (
            "hash = \"src\"\nsources = [{ path = \"a\", destination = \"b\" }]",
            "the source `a` lies outside",
            "",
        ),
        (
            "sources = [{ path = \"a\", destination = \"b\" }, { path = \"c\", destination = \"b/\" }]",
            "`a` and `c` are both copied to",
            "",
        ),
        (
            "lock-files = [{ path = \"a\", destination = \"./code\" }]\nsources = [{ path = \"b\", destination = \"code\" }]",
            "`a` and `b` are both copied to `code`",
            "",
        ),
        (
            "lock-files = [{ path = \"a\", destination = \"code\" }]\nsources = [{ path = \"b\", destination = \"code/b\" }]",
            "`b` would be copied into `code`, which is a file: `a`",
            "",
        ),
        (
            "lock-files = [{ path = \"a\", destination = \"Dockerfile\" }]",
            "`the Dockerfile` and `a` are both copied",
            "",
        ),
        (
            "sources = [{ path = \".hid/a\", destination = \"b\" }]",
            "the source hash leaves `.hid/a` out",
            "a change of it",
        ),
        (
            "sources = [{ path = \"a/x.pyc\", destination = \"b\" }]",
            "the source hash leaves `a/x.pyc` out",
            "a change of it",
        ),
        ("extends = \"openhands-runtme\"", "`extends` names no recipe", "did you mean `openhands-runtime`?"),
        ("name = \"a b\"", "`a b` cannot be the name of a recipe", "use letters"),
    ] {
        let error = refused(&format!("{LEAST}{more}\n{TAGS}"));
        assert!(error.message().starts_with(message), "{more}: {error:?}");
        let hinted = hint.is_empty() || error.hints().iter().any(|text| text.starts_with(hint));
        assert!(hinted, "{more}: {:?}", error.hints());
        let placed = error.source_line().is_some() || more.starts_with("name");
        assert!(placed, "{more}: {error:?}");
    }
    for repository in ["A b", "ghcr.io/a:1", "ghcr.io/a@sha256:0"] {
        let error = refused(&format!("template-text = \"FROM a\"\nrepository = \"{repository}\"\n{TAGS}"));
        assert!(error.message().starts_with("`repository` cannot be"), "{error:?}");
    }
}

#[test]
fn variables_are_names_that_a_template_can_use() {
    for (name, message) in [
        ("base_image", "`variables.base_image` cannot be set: every template has `base_image` already"),
        ("a-b", "`variables.a-b` is no name that a template can use"),
    ] {
        let error = refused(&format!("{LEAST}{TAGS}[variables]\n{name} = 1\n"));
        assert_eq!(error.message(), message);
        assert_eq!(error.source_line().map(|line| line.text.clone()), Some(format!("{name} = 1")));
    }
}

#[test]
fn tags_that_would_be_found_for_something_else_are_refused() {
    for (tags, message) in [
        (
            "source = \"v1_{{ lock_hash }}{{ extension }}\"",
            "the template `tags.source` does not hang on `source_hash`",
        ),
        (
            "source = \"v1_{{ source_hash }}{{ extension }}\"",
            "the template `tags.source` does not hang on `lock_hash`",
        ),
        (
            "source = \"v1_{{ source_hash }}_{{ lock_hash }}\"",
            "the template `tags.source` does not hang on `extension`",
        ),
        (
            "source = \"{{ lock_hash }}{{ extension }}_{{ source_hash }}\"\nlock = \"v1\"",
            "`tags.lock` is never used: `modes` has no `lock`",
        ),
        ("scheme = \"agent-server\"\nsource = \"x\"", "`tags.scheme` excludes templates of tags"),
        ("scheme = \"agent-servr\"", "unknown scheme of tags `agent-servr`"),
    ] {
        assert_eq!(refused(&format!("{LEAST}[tags]\n{tags}\n")).message(), message, "{tags}");
    }
    let modes = "modes = [\"scratch\", \"lock\", \"versioned\"]\n";
    let source = "source = \"{{ lock_hash }}{{ extension }}_{{ source_hash }}\"\n";
    for (lock, versioned, message) in [
        ("v1{{ extension }}", "{{ base_slug }}", "the template `tags.lock` does not hang on `lock_hash`"),
        ("{{ lock_hash }}", "{{ base_slug }}", "the template `tags.lock` does not hang on `extension`"),
        (
            "{{ lock_hash }}{{ extension }}",
            "v1",
            "the template `tags.versioned` does not hang on `base_slug`",
        ),
    ] {
        let text = format!("{LEAST}{modes}[tags]\n{source}lock = \"{lock}\"\nversioned = \"{versioned}\"\n");
        assert_eq!(refused(&text).message(), message);
    }
    let error = read_text(&format!(
        "{LEAST}[tags]\nsource = \"-{{{{ lock_hash }}}}{{{{ extension }}}}{{{{ source_hash }}}}\"\n"
    ))
    .expect_err("no tag");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let reuse = "modes = [\"scratch\", \"lock\"]\n[tags]\nscheme = \"agent-server\"\n";
    assert!(refused(&format!("{LEAST}{reuse}")).message().starts_with("`modes` cannot be"));
}

#[test]
fn templates_that_cannot_be_read_are_named() {
    let error = refused(&format!("template = \"absent.j2\"\nrepository = \"a/b\"\n{TAGS}"));
    assert!(
        error.message().starts_with("could not read the template `")
            && error.message().ends_with("absent.j2`")
    );
    assert_eq!(error.source_line().map(|line| line.line), Some(1));
    let error = refused(&format!("template-text = \"FROM a\\n{{% if %}}\"\nrepository = \"a/b\"\n{TAGS}"));
    assert!(error.message().ends_with("acme.toml: template-text`"), "{error:?}");
    assert_eq!(error.source_line().map(|line| line.line), Some(2));
    let error = refused(&format!("{LEAST}[tags]\nsource = \"{{{{ versoin }}}}\"\n"));
    assert_eq!(error.hints(), ["did you mean `version`?"]);
    assert!(error.message().ends_with("acme.toml: tags.source`"), "{error:?}");
    let error = refused(&format!("{LEAST}[tags\nsource = 1"));
    assert_eq!(error.source_line().map(|line| line.line), Some(3));
    let absent = Recipes::builtin().expect("valid").read_file(Path::new("absent.toml")).expect_err("absent");
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}

#[test]
fn an_unknown_variable_of_the_template_says_where() {
    let recipe =
        read_text(&format!("template = \"t.j2\"\nrepository = \"a/b\"\n{TAGS}[variables]\ntools = \"x\"\n"))
            .expect("valid until it is rendered");
    let none = BTreeMap::new();
    let input = RenderInput {
        mode: Mode::Scratch,
        base_image: "debian:12",
        extra_deps: "",
        browser: true,
        target: None,
        variables: &none,
    };
    let error = recipe.render(&input).expect_err("strict");
    let line = error.source_line().expect("a line");
    assert!(line.file.ends_with("t.j2"));
    assert_eq!((line.line, line.text.as_str()), (2, "RUN {{ tool }}"));
    assert_eq!(
        (error.details(), error.hints()),
        (&[("expression", "`tool`".to_owned())][..], &["did you mean `tools`?".to_owned()][..])
    );
    for (base_image, extra_deps) in [
        ("", ""),
        ("a b", ""),
        ("a\nRUN x", ""),
        ("a", "x\nRUN y"),
        ("a", "x\r"),
        ("a", "x \\ "),
        ("a", "cat <<E"),
        ("a", "cat 3<<-'E'"),
    ] {
        let error = recipe.render(&RenderInput { base_image, extra_deps, ..input }).expect_err("breaks out");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{base_image} {extra_deps}");
    }
}

#[test]
fn variables_of_the_command_line_are_of_the_kind_of_their_default() {
    let variables = "[variables]\ntext = \"\"\nflag = true\ncount = 1\nlist = []\n";
    let recipe = read_text(&format!("{LEAST}{TAGS}{variables}")).expect("valid");
    for (typed, value) in [
        ("text=1=2", json!("1=2")),
        ("text=", json!("")),
        ("flag=false", json!(false)),
        ("count=7", json!(7)),
        ("list=a, b", json!(["a", "b"])),
        ("list=", json!([])),
        ("list=[\"a,b\"]", json!(["a,b"])),
    ] {
        assert_eq!(recipe.variable(typed).expect(typed).1, value, "{typed}");
    }
    for (typed, hint) in [
        ("txt=1", "did you mean `text`?"),
        ("unlike=1", "its variables: count, flag, list, text"),
        ("flag=maybe", "it is `true` or `false`, like its default `true`"),
        ("count=many", "it is a number, like its default `1`"),
        ("list=[", "it is a list, like its default `[]`"),
    ] {
        assert_eq!(recipe.variable(typed).expect_err(typed).hints(), [hint], "{typed}");
    }
    assert!(recipe.variable("text").is_err());
    let unknown = BTreeMap::from([("txt".to_owned(), json!(1))]);
    let input = RenderInput {
        mode: Mode::Lock,
        base_image: "a",
        extra_deps: "",
        browser: true,
        target: None,
        variables: &unknown,
    };
    assert_eq!(recipe.render(&input).expect_err("unknown").hints(), ["did you mean `text`?"]);
}

#[test]
fn a_recipe_extends_another_key_by_key() {
    let text = "extends = \"openhands-runtime\"\nrepository = \"ghcr.io/acme/runtime\"\n[variables]\nuser = \"acme\"\n";
    let (recipe, base) = (read_text(text).expect("valid"), Recipes::builtin().expect("valid"));
    let base = base.get("openhands-runtime").expect("built in");
    assert_eq!(recipe.template, base.template);
    // What it makes is something else, so its tags are told apart.
    let Tags::Hashes(tags) = &recipe.tags else { panic!("by hashes") };
    assert_eq!(
        tags.lock.as_deref(),
        Some("oh_v{{ version }}_{{ lock_hash }}_r{{ recipe_hash }}{{ extension }}")
    );
    assert_eq!(tags.versioned.as_deref(), Some("oh_v{{ version }}_{{ base_slug }}_r{{ recipe_hash }}"));
    assert_eq!(tags.source, "{{ lock }}_{{ source_hash }}");
    let same =
        read_text("extends = \"openhands-runtime\"\nrepository = \"ghcr.io/acme/runtime\"\n").expect("valid");
    assert_eq!(same.tags, base.tags, "the same images elsewhere");
    assert_eq!(recipe.repository, "ghcr.io/acme/runtime");
    assert_eq!((&recipe.variables["user"], &recipe.variables["user_id"]), (&json!("acme"), &json!(1000)));
    assert_ne!(recipe.hash(), base.hash());
    assert_eq!(recipe.hash().len(), 8);
    let text = "extends = \"agent-server\"\nrepository = \"ghcr.io/acme/agents\"\n";
    assert_eq!(read_text(text).expect("valid").scheme(), Some(Scheme::AgentServer));
    assert!(matches!(base.tags, Tags::Hashes(_)));
    let values = TagValues { version: "1", base_image: "a", lock_hash: "b", source_hash: "c", extension: "" };
    let error = read_text(text).expect("valid").hashed_tags(&values).expect_err("a scheme of its own");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

/// The recipes of a `windlass.toml` and these variables.
fn configured(text: &str, variables: &[(&str, &str)]) -> Result<Recipes> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("windlass.toml");
    std::fs::write(&file, text).expect("written");
    std::fs::create_dir(directory.path().join("images")).expect("made");
    std::fs::write(directory.path().join("images/t.j2"), "FROM {{ base_image }}\n").expect("written");
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { project_file: Some(file), environment: Some(&environment), ..Sources::default() };
    Recipes::of(&config::load(&sources)?)
}

#[test]
fn recipes_stand_in_the_configuration() {
    let text = "[recipes.child]\nextends = \"parent\"\nrepository = \"a/child\"\n\n\
                [recipes.parent]\ntemplate = \"images/t.j2\"\nrepository = \"a/parent\"\n\
                [recipes.parent.tags]\nsource = \"{{ lock_hash }}{{ extension }}_{{ source_hash }}\"\n\
                [recipes.agent-server]\nextends = \"agent-server\"\nbase-image = \"debian:12\"\n";
    let recipes = configured(text, &[]).expect("valid");
    assert_eq!(recipes.names().collect::<Vec<_>>(), ["agent-server", "child", "openhands-runtime", "parent"]);
    let child = recipes.get("child").expect("there");
    assert_eq!(
        (child.repository.as_str(), child.template.text.as_str()),
        ("a/child", "FROM {{ base_image }}\n")
    );
    assert_eq!(recipes.get("agent-server").expect("there").base_image.as_deref(), Some("debian:12"));
    assert_eq!(recipes.get("chld").expect_err("unknown").hints(), ["did you mean `child`?"]);

    let recipes = configured(text, &[("WINDLASS_RECIPES__CHILD__REPOSITORY", "b/child")]).expect("valid");
    assert_eq!(recipes.get("child").expect("there").repository, "b/child");
}

#[test]
fn what_is_wrong_in_the_configuration_has_its_line() {
    let text = "progress = \"auto\"\n[recipes.acme]\ntemplate-text = \"FROM a\"\nrepository = \"a/b\"\n\
                [recipes.acme.tags]\nsorce = \"x\"\n";
    let error = configured(text, &[]).expect_err("unknown key");
    assert_eq!(error.message(), "unknown key `recipes.acme.tags.sorce`");
    assert_eq!(error.hints(), ["did you mean `source`?"]);
    let line = error.source_line().expect("a line");
    assert_eq!((line.line, line.text.as_str()), (6, "sorce = \"x\""));
    let error =
        configured(text, &[("WINDLASS_RECIPES__ACME__REPOSITORY", "A b")]).expect_err("no repository");
    assert_eq!(
        error.details(),
        [("set in", "environment variable WINDLASS_RECIPES__ACME__REPOSITORY".to_owned())]
    );
    let circle = "[recipes.a]\nextends = \"b\"\n[recipes.b]\nextends = \"a\"\n";
    let error = configured(circle, &[]).expect_err("a circle");
    assert!(
        error.message().ends_with("names no recipe: `a`") || error.message().ends_with("`b`"),
        "{error:?}"
    );
}

/// The page about recipes.
const PAGE: &str = include_str!("../../../../docs/recipes.md");

#[test]
fn the_page_has_every_key_input_and_variable() {
    let named = |name: &str| PAGE.contains(&format!("`{name}`"));
    let source = "[[sources]]\npath = \"a\"\ndestination = \"a\"\n";
    for unknown in [
        format!("{LEAST}zzzzzzzzzzzzzz = 1\n{TAGS}"),
        format!("{LEAST}{source}zzzzzzzzzzzzzz = 1\n{TAGS}"),
        format!("{LEAST}{TAGS}zzzzzzzzzzzzzz = 1\n"),
        format!("{LEAST}{TAGS}[config-file]\nzzzzzzzzzzzzzz = 1\n"),
    ] {
        // The error of an unknown key names all that are known.
        let error = refused(&unknown);
        let known = error.hints()[0].strip_prefix("known here: ").expect("the known keys").to_owned();
        for key in known.split(", ") {
            let named = named(key) || named(&format!("[{key}]")) || named(&format!("[[{key}]]"));
            assert!(named || key == "scheme", "the page says nothing of `{key}`");
        }
    }
    assert!(PAGE.contains("`scheme = \"agent-server\"`"));
    for input in super::super::render::INPUTS {
        assert!(named(input), "the page says nothing of `{input}`");
    }
    for recipe in ["openhands-runtime", "agent-server"] {
        let recipe = Recipes::builtin().expect("valid").get(recipe).expect("built in");
        for variable in recipe.variables.keys() {
            assert!(named(variable), "the page says nothing of `{variable}` of `{}`", recipe.name);
        }
    }
}
