//! TLS: authorities, names, certificates of ours, and the wrong scheme.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use windlass_tests::place::Outcome;

use crate::rig::{Rig, SMALL_BYTES, Test};

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("tls::an_authority_of_its_own", own_authority),
        rig.trial("tls::any_certificate", any_certificate),
        rig.trial("tls::an_unknown_authority", |test| refused(test, "", &["UnknownIssuer", "ca-file"])),
        rig.trial("tls::another_authority", other_authority),
        rig.trial("tls::a_client_certificate", client_certificate),
        rig.trial("tls::no_client_certificate", no_client_certificate),
        rig.trial("tls::https_to_plain_http", https_to_plain),
        rig.trial("tls::plain_http_to_https", |test| {
            let host = test.world.secure.address().to_owned();
            let outcome = attempt(test, &host, "plain-http = true\n")?;
            outcome.refused(1, &["400", "plain-http = false"])
        }),
        rig.trial("tls::a_file_that_is_missing", |test| {
            let host = test.world.secure.address().to_owned();
            let outcome = attempt(test, &host, "ca-file = \"/nonexistent/ca.pem\"\n")?;
            outcome.refused(2, &["/nonexistent/ca.pem"])
        }),
    ]
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Sends an image to a registry with these settings for it.
fn attempt(test: &Test, host: &str, settings: &str) -> Result<Outcome, Failed> {
    test.make_image(&[SMALL_BYTES])?;
    test.log_in(host)?;
    test.settings(&format!("[registries.\"{host}\"]\n{settings}"))?;
    test.push(host)
}

fn fails(test: &Test, host: &str, settings: &str, says: &[&str]) -> Result<(), Failed> {
    attempt(test, host, settings)?.refused(3, says)
}

/// A push to the registry with TLS that fails so.
fn refused(test: &Test, settings: &str, says: &[&str]) -> Result<(), Failed> {
    let host = test.world.secure.address().to_owned();
    fails(test, &host, &format!("plain-http = false\n{settings}"), says)
}

fn own_authority(test: &Test) -> Result<(), Failed> {
    let authority = quoted(&test.world.certificates.authority);
    attempt(test, test.world.secure.address(), &format!("ca-file = {authority}\n"))?.good()?;
    test.leaves_nothing(&test.world.secure)
}

fn any_certificate(test: &Test) -> Result<(), Failed> {
    attempt(test, test.world.secure.address(), "insecure = true\n")?.good()?;
    Ok(())
}

fn other_authority(test: &Test) -> Result<(), Failed> {
    let strangers = quoted(&test.world.strangers.authority);
    refused(test, &format!("ca-file = {strangers}\n"), &["certificate", "ca-file"])
}

fn client_certificate(test: &Test) -> Result<(), Failed> {
    let (authority, client) = (&test.world.certificates.authority, &test.world.certificates.client);
    let settings = format!(
        "ca-file = {}\nclient-certificate = {}\nclient-key = {}\n",
        quoted(authority),
        quoted(&client.certificate),
        quoted(&client.key)
    );
    attempt(test, test.world.mutual.address(), &settings)?.good()?;
    Ok(())
}

fn no_client_certificate(test: &Test) -> Result<(), Failed> {
    let settings = format!("ca-file = {}\n", quoted(&test.world.certificates.authority));
    fails(test, test.world.mutual.address(), &settings, &["alert", "client-certificate"])
}

fn https_to_plain(test: &Test) -> Result<(), Failed> {
    fails(test, test.world.open.address(), "plain-http = false\n", &["plain-http = true"])
}
