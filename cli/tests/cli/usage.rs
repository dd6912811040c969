//! What is typed: help, unknown options, forms of output.

use crate::sandbox::Sandbox;

#[test]
fn help_and_version_are_results() {
    let sandbox = Sandbox::with(&[]);
    assert!(sandbox.run(&["--help"]).done().contains("windlass build . -t"));
    assert!(sandbox.run(&["--version"]).done().starts_with("windlass "));
    for command in ["build", "context", "image", "backends", "config", "completions"] {
        let help = sandbox.run(&[command, "--help"]).done();
        assert!(help.contains("Usage: windlass"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    }
}

#[test]
fn wrong_usage_exits_2_and_suggests_the_nearest() {
    let sandbox = Sandbox::with(&[]);
    for (line, words) in [
        (&["build", "--taget", "x"][..], &["--taget", "'--target'"][..]),
        (&["biuld"], &["biuld", "'build'"]),
        (&["build", "--progress", "plian"], &["plian", "plain"]),
        (&["build", "--quiet", "--progress", "plain"], &["cannot be used with"]),
        (&["build", "--reuse", "--force-rebuild"], &["cannot be used with"]),
        (&["build", "a", "b"], &["unexpected argument 'b'"]),
        (&["image", "save", "app:1"], &["--output"]),
    ] {
        sandbox.run(line).refused(2, words);
    }
    let nothing = sandbox.run(&[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.contains("Usage:"));
}

#[test]
fn with_format_json_errors_are_json_too() {
    let sandbox = Sandbox::with(&[]);
    for (line, kind, code) in [
        (&["build", "--taget", "x", "--format", "json"][..], "invalid-input", 2),
        (&["build", "absent", "--format=json"], "invalid-input", 2),
        (&["build", "--format", "json", "--set", "contxt.ignore=1"], "invalid-config", 2),
    ] {
        let outcome = sandbox.run(line);
        outcome.refused(code, &[]);
        let error: serde_json::Value = serde_json::from_str(&outcome.stderr).expect(&outcome.stderr);
        assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&kind.into(), &code.into()));
    }
}

#[test]
fn a_form_of_one_command_is_refused_by_the_others() {
    let sandbox = Sandbox::scratch();
    sandbox.run(&["build", "--format", "paths"]).refused(2, &["`--format paths`", "hint:"]);
    sandbox.run(&["config", "show", "--format", "paths"]).refused(2, &["`--format paths`"]);
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let sandbox = Sandbox::with(&[]);
    let escape = '\x1b';
    assert!(!sandbox.run(&["build", "absent"]).stderr.contains(escape));
    assert!(sandbox.run(&["build", "absent", "--color", "always"]).stderr.contains(escape));
    let never = sandbox.run_with(&["build", "absent", "--color", "never"], &[("CLICOLOR_FORCE", "1")]);
    assert!(!never.stderr.contains(escape));
}

#[test]
fn completions_are_scripts() {
    let sandbox = Sandbox::with(&[]);
    for (shell, words) in
        [("bash", "complete -F _windlass"), ("zsh", "#compdef windlass"), ("fish", "complete -c windlass")]
    {
        assert!(sandbox.run(&["completions", shell]).done().contains(words));
    }
    sandbox.run(&["completions", "bsh"]).refused(2, &["bsh"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    use std::process::Stdio;

    let sandbox = Sandbox::with(&[]);
    let mut child = sandbox
        .command(&["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
