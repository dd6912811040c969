//! Stores on other file systems: read-only ones, and ones apart from the context and the output.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::place::{Place, Services};
use crate::tmpfs::Tmpfs;

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial_as_root("a_store_that_may_only_be_read", read_only),
        services.trial_as_root("a_store_apart_from_context_and_output", apart),
    ]
}

fn hello(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM {busybox}\nCOPY hello /\n")?;
    place.write("hello", "hello\n")
}

fn read_only(place: &mut Place) -> Result<(), Failed> {
    hello(place)?;
    let disk = Tmpfs::mount(place.beside("disk"), 64)?;
    place.cache = disk.path("cache");
    let digest = place.build(&["-t", "app:1"])?;
    disk.remount("ro")?;
    assert!(place.done(&["image", "ls"])?.contains("app"));
    place.done(&["image", "verify"])?;
    place.done(&["image", "save", "app:1", "-o", "saved.tar"])?;
    let name = place.name("read-only");
    assert!(place.done(&["image", "push", "app:1", &name])?.contains(&digest));
    let store = place.store().display().to_string();
    place.write("hello", "something else\n")?;
    place.run(&["build", ".", "-t", "app:2"])?.refused(1, &["Read-only file system", &store])?;
    place.run(&["image", "rm", "app:1"])?.refused(1, &["Read-only file system", "app:1"])?;
    disk.remount("rw")?;
    place.build(&["-t", "app:2"])?;
    place.sound()
}

fn apart(place: &mut Place) -> Result<(), Failed> {
    hello(place)?;
    let expected = place.build(&["-t", "app:1"])?;
    let (store, output) = (Tmpfs::mount(place.beside("store"), 64)?, Tmpfs::mount(place.beside("out"), 64)?);
    place.cache = store.path("cache");
    assert_eq!(place.build(&["-t", "app:1"])?, expected);
    for form in ["type=local", "type=oci,tar=false", "type=oci", "type=tar"] {
        let dest = output.path(&form.replace(['=', ','], "-")).display().to_string();
        place.done(&["build", ".", "-o", &format!("{form},dest={dest}")])?;
    }
    assert_eq!(std::fs::read_to_string(output.path("type-local/hello"))?, "hello\n");
    place.sound()
}
