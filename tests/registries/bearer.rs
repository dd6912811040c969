//! Tokens: asked for with the right scopes, as whom, kept, renewed in the middle of a push.

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::service::{
    Act, Answer, Fault, FaultProxy, Registry, RegistryOptions, TokenHabits, TokenServer,
};

use crate::rig::{LARGE_BYTES, Rig, SMALL_BYTES, Test, account};

/// The entry of an identity token in `auths`.
fn identity() -> serde_json::Value {
    json!({ "identitytoken": "identity-of-windlass" })
}

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("bearer::a_password", a_password),
        rig.trial("bearer::an_identity_token", an_identity_token),
        rig.trial("bearer::nobody", nobody),
        rig.trial("bearer::a_wrong_password", a_wrong_password),
        rig.trial("bearer::access_token", |test| habit(test, access_token(), &account())),
        rig.trial("bearer::no_lifetime_is_said", |test| habit(test, no_lifetime(), &account())),
        rig.trial("bearer::only_get", |test| habit(test, only_get(), &identity())),
        rig.trial("bearer::only_to_read", only_to_read),
        rig.trial("bearer::renewed_in_the_middle", renewed_in_the_middle),
        rig.trial("bearer::ended_in_the_middle", ended_in_the_middle),
        rig.trial("bearer::no_scope_is_said", no_scope_is_said),
        rig.trial("bearer::a_preflight", a_preflight),
    ]
}

fn a_password(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.log_in(test.world.bearer.address())?;
    test.push(test.world.bearer.address())?.good()?;
    let asked = test.world.tokens.asked(&test.repository);
    assert_eq!(asked.len(), 1, "kept: {asked:#?}");
    assert_eq!((asked[0].method.as_str(), asked[0].by.as_deref()), ("GET", Some("windlass")));
    assert_eq!(asked[0].scopes, [format!("repository:{}:pull,push", test.repository)]);
    assert_eq!(asked[0].service.as_deref(), Some("windlass test registry"));
    test.leaves_nothing(&test.world.bearer)
}

fn an_identity_token(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    test.credentials(&json!({ "auths": { test.world.bearer.address(): identity() } }))?;
    test.push(test.world.bearer.address())?.good()?;
    let asked = test.world.tokens.asked(&test.repository);
    let who: Vec<_> = asked.iter().map(|asked| (asked.method.as_str(), asked.by.as_deref())).collect();
    assert_eq!(who, [("POST", Some("<identity>"))]);
    Ok(())
}

fn nobody(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let login = format!("docker login {}", test.world.bearer.address());
    test.push(test.world.bearer.address())?.refused(3, &["401", &login])
}

fn a_wrong_password(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let wrong = json!({ "username": "windlass", "password": "hush-hush" });
    test.credentials(&json!({ "auths": { test.world.bearer.address(): wrong } }))?;
    let outcome = test.push(test.world.bearer.address())?;
    outcome.refused(3, &["could not log in to", "401"])?;
    assert!(!outcome.stderr.contains("hush-hush"), "{outcome:#?}");
    Ok(())
}

fn access_token() -> TokenHabits {
    TokenHabits { access_token: true, ..TokenHabits::default() }
}

fn no_lifetime() -> TokenHabits {
    TokenHabits { expires_in: None, ..TokenHabits::default() }
}

fn only_get() -> TokenHabits {
    TokenHabits { refuses_post: true, ..TokenHabits::default() }
}

/// A registry of its own, whose token server has these habits.
fn start(test: &Test, habits: TokenHabits) -> Result<(TokenServer, Registry), Failed> {
    test.write("tokens/empty", "")?;
    let tokens = TokenServer::start(habits, &test.path("tokens"))?;
    let registry =
        Registry::start_with(&RegistryOptions { tokens: Some(&tokens), ..RegistryOptions::default() })?;
    Ok((tokens, registry))
}

/// An image arrives whatever the habits of the token server.
fn habit(test: &Test, habits: TokenHabits, entry: &serde_json::Value) -> Result<(), Failed> {
    let (tokens, registry) = start(test, habits)?;
    test.make_image(&[SMALL_BYTES])?;
    test.credentials(&json!({ "auths": { registry.address(): entry } }))?;
    test.push(registry.address())?.good()?;
    let got = tokens.asked(&test.repository).iter().filter(|asked| asked.method == "GET").count();
    assert_eq!(got, 1, "kept");
    Ok(())
}

fn only_to_read(test: &Test) -> Result<(), Failed> {
    let (tokens, registry) = start(test, TokenHabits { read_only: true, ..TokenHabits::default() })?;
    test.make_image(&[SMALL_BYTES])?;
    test.log_in(registry.address())?;
    test.push(registry.address())?.refused(3, &["401", "config.json"])?;
    assert!(tokens.asked(&test.repository).len() <= 3, "no use in trying again");
    let outcome = test.windlass(&["backends", "check", "--push", &test.tag(registry.address())])?;
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    Ok(())
}

/// Tokens are said to last a second: less than the push.
fn renewed_in_the_middle(test: &Test) -> Result<(), Failed> {
    let habits = TokenHabits { expires_in: Some(1), ..TokenHabits::default() };
    let (tokens, registry) = start(test, habits)?;
    slow_push(test, &registry)?;
    assert!(tokens.asked(&test.repository).len() > 1, "renewed");
    Ok(())
}

/// A token is said to last, and the registry says 401 in the middle of an upload.
fn ended_in_the_middle(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let challenge =
        format!("Bearer realm=\"{}\",service=\"windlass test registry\"", test.world.tokens.realm());
    let ended = Answer::new(401).header("WWW-Authenticate", challenge);
    let faults = vec![Fault::on("PATCH", "/v2/").skip(2).times(1).then(Act::Answer(ended))];
    let proxy = FaultProxy::start(test.world.bearer.address(), faults)?;
    test.log_in(proxy.address())?;
    let outcome = test.push(proxy.address())?;
    outcome.good()?;
    assert!(!outcome.stderr.contains("trying again"), "in place: {outcome:#?}");
    assert_eq!(test.world.tokens.asked(&test.repository).len(), 2);
    test.leaves_nothing(&test.world.bearer)
}

/// Sends an image in front of which every piece waits.
fn slow_push(test: &Test, registry: &Registry) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let late = Act::Delay(std::time::Duration::from_millis(500));
    let proxy = FaultProxy::start(registry.address(), vec![Fault::on("PATCH", "/v2/").then(late)])?;
    test.log_in(proxy.address())?;
    test.push(proxy.address())?.good()?;
    test.leaves_nothing(registry)
}

fn no_scope_is_said(test: &Test) -> Result<(), Failed> {
    let challenge =
        format!("Bearer realm=\"{}\",service=\"windlass test registry\"", test.world.tokens.realm());
    let bare = Answer::new(401).header("WWW-Authenticate", challenge);
    let faults = vec![
        Fault::on("", "/v2/").when(|head| head.header("authorization").is_none()).then(Act::Answer(bare)),
    ];
    let proxy = FaultProxy::start(test.world.bearer.address(), faults)?;
    test.make_image(&[SMALL_BYTES])?;
    test.log_in(proxy.address())?;
    test.push(proxy.address())?.good()?;
    Ok(())
}

fn a_preflight(test: &Test) -> Result<(), Failed> {
    test.log_in(test.world.bearer.address())?;
    let tag = test.tag(test.world.bearer.address());
    let outcome = test.windlass(&["backends", "check", "--push", &tag, "--format", "json"])?;
    let document: serde_json::Value = serde_json::from_str(outcome.good()?)?;
    let push = &document[0]["push"];
    assert_eq!((&push["allowed"], &push["authentication"]), (&true.into(), &"bearer".into()));
    assert_eq!(push["credential"]["username"], "windlass");
    let left = push["token"]["remaining_seconds"].as_i64().unwrap_or_default();
    assert!((200..=300).contains(&left), "{outcome:#?}");
    assert!(test.world.bearer.blobs(&test.repository).is_empty(), "nothing was sent");
    test.leaves_nothing(&test.world.bearer)
}
