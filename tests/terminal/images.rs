//! Images between the store, registries and files.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};

use crate::place::{Place, Services};

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial("image_pull_save_load_push", around),
        services.trial("image_push_of_a_layout_and_of_archives", push_of_files),
        services.trial("image_load_of_what_docker_saved", load_of_docker_save),
    ]
}

fn same(left: &Image, right: &Image) -> Result<(), Failed> {
    let differences = compare(left, right, &Ignoring::default());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}

fn done(place: &Place, line: &[&str]) -> Result<String, Failed> {
    let outcome = place.run(line)?;
    assert_eq!(outcome.code, Some(0), "{line:?}: {outcome:#?}");
    Ok(outcome.stdout)
}

fn around(place: &Place) -> Result<(), Failed> {
    let registry = &place.services.registry;
    let (base, copy) = (format!("{registry}/base/busybox:1"), format!("{registry}/terminal/around:1"));
    done(place, &["image", "pull", "--all-platforms", &base])?;
    assert!(done(place, &["image", "ls"])?.contains("base/busybox"));
    done(place, &["image", "save", &base, "-o", "saved.tar"])?;
    done(place, &["image", "rm", &base])?;
    assert!(!done(place, &["image", "ls"])?.contains("base/busybox"));
    done(place, &["image", "load", "-i", "saved.tar"])?;
    done(place, &["image", "push", &base, &copy])?;
    same(&Image::from_registry(&base, &Platform::amd64())?, &Image::from_registry(&copy, &Platform::amd64())?)
}

fn push_of_files(place: &Place) -> Result<(), Failed> {
    place.write("a", "1")?;
    place.dockerfile("FROM {busybox}\nCOPY a /\n")?;
    let outputs = ["type=oci,dest=layout,tar=false", "type=oci,dest=oci.tar", "type=docker,dest=docker.tar"];
    let mut line = vec!["build", ".", "-t", "windlass.test/terminal/files:1"];
    line.extend(outputs.iter().flat_map(|output| ["-o", output]));
    done(place, &line)?;
    let original = Image::from_layout(&place.path("layout"), None, &Platform::amd64())?;
    for (number, source) in ["layout", "oci.tar", "docker.tar"].iter().enumerate() {
        let tag = format!("{}/terminal/pushed:{number}", place.services.registry);
        let printed = done(place, &["image", "push", source, &tag])?;
        let pushed = Image::from_registry(&tag, &Platform::amd64())?;
        assert_eq!(printed.trim_end(), format!("{tag}@{}", pushed.root_digest));
        same(&original, &pushed)?;
    }
    Ok(())
}

fn load_of_docker_save(place: &Place) -> Result<(), Failed> {
    let (host, base) = (&place.services.classic, format!("{}/base/busybox:1", place.services.registry));
    let archive = place.path("saved.tar").display().to_string();
    for line in [&["pull", "--quiet", &base][..], &["save", "--output", &archive, &base]] {
        let output = Command::new("docker").args(["--host", host]).args(line).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    done(place, &["image", "load", "-i", "saved.tar"])?;
    let copy = format!("{}/terminal/from-docker:1", place.services.registry);
    done(place, &["image", "push", &base, &copy])?;
    same(
        &Image::from_archive(&place.path("saved.tar"), None, &Platform::amd64())?,
        &Image::from_registry(&copy, &Platform::amd64())?,
    )
}
