//! The recipes that are built in. They are written as a team would write its own, and read the same way.

/// A recipe by its name, and its file.
pub(super) const RECIPES: [(&str, &str); 2] = [
    ("openhands-runtime", include_str!("builtin/openhands-runtime.toml")),
    ("agent-server", include_str!("builtin/agent-server.toml")),
];

/// The templates beside these files.
const TEMPLATES: [(&str, &str); 2] = [
    ("openhands-runtime.Dockerfile.j2", include_str!("builtin/openhands-runtime.Dockerfile.j2")),
    ("agent-server.Dockerfile.j2", include_str!("builtin/agent-server.Dockerfile.j2")),
];

/// The text of a template of a built-in recipe.
pub(super) fn template(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::super::agent_server::Target;
    use super::super::{Mode, Recipe, Recipes, RenderInput, TagValues};

    fn recipe(name: &str) -> std::sync::Arc<Recipe> {
        Recipes::builtin().expect("valid").get(name).expect("built in")
    }

    fn rendered(mode: Mode, variables: &[(&str, Value)], extra_deps: &str, browser: bool) -> String {
        let variables: BTreeMap<String, Value> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let input = RenderInput {
            mode,
            base_image: "debian:12",
            extra_deps,
            browser,
            target: None,
            variables: &variables,
        };
        recipe("openhands-runtime").render(&input).expect("renders")
    }

    /// The instructions, without comments and empty lines.
    fn instructions(dockerfile: &str) -> Vec<&str> {
        dockerfile.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    #[test]
    fn a_lock_build_runs_nothing() {
        assert_eq!(
            instructions(&rendered(Mode::Lock, &[], "", true)),
            [
                "FROM debian:12",
                "USER root",
                "RUN [\"rm\", \"-rf\", \"--\", \"/openhands/code\"]",
                "COPY --link --chown=1000:1000 code/ /openhands/code/",
            ]
        );
    }

    #[test]
    fn the_three_modes_do_what_is_left_to_do() {
        let variables = [
            ("dependency_command", json!("install-them")),
            ("browser_command", json!("install-browser")),
            ("editor_command", json!("install-editor")),
            ("editor_extensions_command", json!("install-extensions")),
        ];
        for (mode, browser, runs) in [
            (Mode::Scratch, true, &["install-them", "install-browser", "install-editor"][..]),
            (Mode::Scratch, false, &["install-them", "install-editor"]),
            (Mode::Versioned, true, &["install-them", "install-extensions"]),
            (Mode::Lock, true, &[]),
        ] {
            let dockerfile = rendered(mode, &variables, "pip install x", browser);
            let found: Vec<&str> =
                dockerfile.lines().filter_map(|line| line.strip_prefix("RUN install-")).collect();
            let expected: Vec<&str> = runs.iter().filter_map(|run| run.strip_prefix("install-")).collect();
            assert_eq!(found, expected, "{mode} {browser}\n{dockerfile}");
            let end = "COPY --link --chown=1000:1000 code/ /openhands/code/\nUSER openhands\n\
                       RUN pip install x\nUSER root\n";
            assert!(dockerfile.ends_with(end), "{dockerfile}");
            assert_eq!(dockerfile.contains("useradd"), mode == Mode::Scratch);
            assert_eq!(dockerfile.contains("apt-get"), mode == Mode::Scratch);
        }
        let bare = [("system_packages", json!([])), ("package_manager_command", json!(""))];
        let dockerfile = rendered(Mode::Scratch, &bare, "", true);
        assert!(!dockerfile.contains("apt-get") && !dockerfile.contains("micro.mamba"), "{dockerfile}");
        assert!(!dockerfile.contains("RUN \n"), "{dockerfile}");
        for mode in Mode::ALL {
            let dockerfile = rendered(mode, &[], "", true);
            assert!(!dockerfile.contains("\n\n\n"), "{dockerfile}");
        }
    }

    #[test]
    fn the_tags_are_those_of_the_original() {
        let values = TagValues {
            version: "0.62.0",
            base_image: "debian:11",
            lock_hash: "rfkyaj1iiv38kkns",
            source_hash: "glnsdte2lm82vv7q",
            extension: "",
        };
        let tags = recipe("openhands-runtime").hashed_tags(&values).expect("tags");
        assert_eq!(tags.lock.as_deref(), Some("oh_v0.62.0_rfkyaj1iiv38kkns"));
        assert_eq!(tags.source, "oh_v0.62.0_rfkyaj1iiv38kkns_glnsdte2lm82vv7q");
        assert_eq!(tags.versioned.as_deref(), Some("oh_v0.62.0_debian_t_11"));
        let tags = recipe("openhands-runtime")
            .hashed_tags(&TagValues { extension: "_x12345678", ..values })
            .expect("tags");
        assert_eq!(tags.source, "oh_v0.62.0_rfkyaj1iiv38kkns_x12345678_glnsdte2lm82vv7q");
    }

    #[test]
    fn the_targets_of_the_agent_server_really_differ() {
        let variables = BTreeMap::new();
        let of = |target| {
            let input = RenderInput {
                mode: Mode::Scratch,
                base_image: "debian:12",
                extra_deps: "",
                browser: true,
                target: Some(target),
                variables: &variables,
            };
            recipe("agent-server").render(&input).expect("renders")
        };
        let all = Target::ALL.map(of);
        for (target, dockerfile) in Target::ALL.iter().zip(&all) {
            let last = dockerfile.lines().rfind(|line| line.starts_with("FROM ")).expect("a stage");
            assert!(last.ends_with(&format!(" AS {target}")), "{dockerfile}");
            let name = target.name();
            assert_eq!(dockerfile.contains("AS builder"), target.needs_sources(), "{name}");
            assert_eq!(
                dockerfile.contains("ripgrep"),
                !name.contains("minimal") && name != "builder",
                "{name}"
            );
            assert_eq!(dockerfile.contains("--dev\"]"), name.starts_with("source"), "{name}");
            assert_eq!(dockerfile.contains("pyinstaller"), name.starts_with("binary") || name == "builder");
            // What differs is more than the name.
            let without =
                |text: &str| text.lines().filter(|line| !line.starts_with("FROM")).collect::<String>();
            let same = all.iter().filter(|other| without(other) == without(dockerfile)).count();
            assert_eq!(same, 1, "{name}");
        }
    }

    #[test]
    fn what_is_built_in_says_what_hangs_on_options() {
        let runtime = recipe("openhands-runtime");
        assert!(runtime.uses("extra_deps") && runtime.uses("enable_browser") && !runtime.uses("target"));
        let server = recipe("agent-server");
        assert!(server.uses("extra_deps") && !server.uses("enable_browser") && server.uses("target"));
    }
}
