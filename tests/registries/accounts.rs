//! Passwords: where they are found, what becomes of those that fail, and what a preflight says of them.

use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use windlass_tests::place::Outcome;

use crate::rig::{Rig, SMALL_BYTES, Test, account};

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("accounts::every_form_of_a_key", every_form_of_a_key),
        rig.trial("accounts::the_entry_of_a_path", entry_of_a_path),
        rig.trial("accounts::podmans_files", podmans_files),
        rig.trial("accounts::helpers", helpers),
        rig.trial("accounts::a_helper_that_fails", helper_that_fails),
        rig.trial("accounts::a_helper_with_a_path", helper_with_a_path),
        rig.trial("accounts::nobody", nobody),
        rig.trial("accounts::a_wrong_password", wrong_password),
        rig.trial("accounts::a_malformed_file", malformed_file),
    ]
}

/// Sends the image `layout` to the registry that asks for a password.
fn push(test: &Test, variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
    test.windlass_with(&["image", "push", "layout", &test.tag(test.world.basic.address())], variables)
}

/// Sends an image with these credentials in docker's file.
fn gets_in(test: &Test, document: &Value) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    test.credentials(document)?;
    push(test, &[])?.good()?;
    test.leaves_nothing(&test.world.basic)
}

fn every_form_of_a_key(test: &Test) -> Result<(), Failed> {
    let host = test.world.basic.address();
    for key in
        [host.to_owned(), format!("http://{host}"), format!("https://{host}/v1/"), format!("{host}/v2/")]
    {
        gets_in(test, &json!({ "auths": { "ghcr.io": {}, key: account() } }))?;
    }
    Ok(())
}

fn entry_of_a_path(test: &Test) -> Result<(), Failed> {
    let host = test.world.basic.address();
    let wrong = json!({ "username": "windlass", "password": "wrong" });
    gets_in(test, &json!({ "auths": { host: wrong, format!("{host}/accounts"): account() } }))
}

fn podmans_files(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let document = json!({ "auths": { test.world.basic.address(): account() } }).to_string();
    test.write("auth.json", &document)?;
    test.write("run/containers/auth.json", &document)?;
    let path = |name: &str| test.path(name).display().to_string();
    push(test, &[("REGISTRY_AUTH_FILE", &path("auth.json"))])?.good()?;
    push(test, &[("XDG_RUNTIME_DIR", &path("run"))])?.good()?;
    Ok(())
}

/// Writes a helper and gives the `PATH` with it.
fn helper(test: &Test, script: &str) -> Result<String, Failed> {
    test.write("bin/docker-credential-test", format!("#!/bin/sh\n{script}\n"))?;
    let program = test.path("bin/docker-credential-test");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(format!("{}:{}", test.path("bin").display(), std::env::var("PATH")?))
}

fn helpers(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let host = test.world.basic.address();
    let answer = format!(
        "read server; test \"$1 $server\" = \"get {host}\" && echo '{{\"Username\":\"windlass\",\"Secret\":\"secret\"}}'"
    );
    let path = helper(test, &answer)?;
    for document in [json!({ "credsStore": "test" }), json!({ "credHelpers": { host: "test" } })] {
        test.credentials(&document)?;
        push(test, &[("PATH", &path)])?.good()?;
    }
    Ok(())
}

fn helper_that_fails(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let path = helper(test, "echo 'the keychain is locked'; exit 1")?;
    let auths = json!({ test.world.basic.address(): account() });
    test.credentials(&json!({ "credsStore": "test", "auths": auths }))?;
    let outcome = push(test, &[("PATH", &path)])?;
    outcome.good()?;
    for words in ["the helper `test`", "the keychain is locked"] {
        assert!(outcome.stderr.contains(words), "{outcome:#?}");
    }
    Ok(())
}

fn helper_with_a_path(test: &Test) -> Result<(), Failed> {
    test.write("evil", "#!/bin/sh\ntouch ran")?;
    test.credentials(&json!({ "credsStore": "x/../../../evil" }))?;
    let outcome = push_nothing(test)?;
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(outcome.stderr.contains("no valid name") && !test.path("ran").exists(), "{outcome:#?}");
    Ok(())
}

/// The preflight.
fn push_nothing(test: &Test) -> Result<Outcome, Failed> {
    test.windlass(&["backends", "check", "--push", &test.tag(test.world.basic.address())])
}

fn nobody(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let login = format!("docker login {}", test.world.basic.address());
    push(test, &[])?.refused(3, &["401", &login])?;
    let outcome = push_nothing(test)?;
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(outcome.stdout.contains("none found") && outcome.stdout.contains(&login), "{outcome:#?}");
    Ok(())
}

fn wrong_password(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let wrong = json!({ "username": "windlass", "password": "hush-hush" });
    test.credentials(&json!({ "auths": { test.world.basic.address(): wrong } }))?;
    let outcome = push(test, &[])?;
    outcome.refused(3, &["401", "config.json"])?;
    let asked = push_nothing(test)?;
    assert!(asked.stdout.contains("user `windlass`") && asked.stdout.contains("config.json"), "{asked:#?}");
    assert!(!format!("{outcome:?}{asked:?}").contains("hush-hush"));
    Ok(())
}

fn malformed_file(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    std::fs::create_dir_all(test.home(".docker"))?;
    std::fs::write(test.home(".docker/config.json"), "{\"auths\": hush-hush")?;
    test.write("auth.json", json!({ "auths": { test.world.basic.address(): account() } }).to_string())?;
    let outcome = push(test, &[("REGISTRY_AUTH_FILE", &test.path("auth.json").display().to_string())])?;
    outcome.good()?;
    assert!(outcome.stderr.contains("config.json` is malformed"), "{outcome:#?}");
    assert!(!outcome.stderr.contains("hush-hush"), "{outcome:#?}");
    Ok(())
}
