//! Disks that are full: the error names the place, nothing half-written stays, and all works once there is room.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::place::{Place, Services, names, noise};
use crate::tmpfs::Tmpfs;

const NO_SPACE: &str = "No space left on device";

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial_as_root("full_disk_while_pulling", pulling),
        services.trial_as_root("full_disk_while_making_layers", making_layers),
        services.trial_as_root("full_disk_while_reading_an_archive", loading),
        services.trial_as_root("full_disk_while_exporting", exporting),
    ]
}

/// A place whose store is on a disk that is too small.
fn with_small_store(place: &mut Place, megabytes: u32) -> Result<Tmpfs, Failed> {
    let disk = Tmpfs::mount(place.beside("disk"), megabytes)?;
    place.cache = disk.path("cache");
    Ok(disk)
}

/// Fails for want of room, leaves nothing, and works with more of it.
fn fails_until_there_is_room(place: &Place, disk: &Tmpfs, line: &[&str]) -> Result<(), Failed> {
    let store = place.store();
    place.run(line)?.refused(1, &[NO_SPACE, &store.display().to_string()])?;
    let left = names(&store.join("incoming"))?;
    if !left.is_empty() {
        return Err(format!("left behind in the store: {left:?}").into());
    }
    disk.remount("size=512m")?;
    place.done(line)?;
    place.sound()
}

fn pulling(place: &mut Place) -> Result<(), Failed> {
    let disk = with_small_store(place, 8)?;
    let base = format!("{}/base/debian:bookworm", place.services.registry);
    fails_until_there_is_room(place, &disk, &["image", "pull", &base])
}

fn making_layers(place: &mut Place) -> Result<(), Failed> {
    let disk = with_small_store(place, 8)?;
    place.dockerfile("FROM {busybox}\nCOPY data /\n")?;
    place.write("data", noise(1, 16 << 20))?;
    let name = place.name("full-disk");
    fails_until_there_is_room(place, &disk, &["build", ".", "-q", "--push", "-t", &name])
}

fn loading(place: &mut Place) -> Result<(), Failed> {
    place.write("Dockerfile", "FROM scratch\nCOPY data /\n")?;
    place.write("data", noise(1, 16 << 20))?;
    place.done(&["build", ".", "-q", "-t", "full:1", "-o", "type=docker,dest=saved.tar"])?;
    let disk = with_small_store(place, 8)?;
    fails_until_there_is_room(place, &disk, &["image", "load", "-i", "saved.tar"])?;
    let used = names(&place.store().join("blobs/sha256"))?;
    // The manifest, the config and the layer, compressed and as it came.
    if used.len() > 6 {
        return Err(format!("the import that failed left blobs: {used:?}").into());
    }
    Ok(())
}

fn exporting(place: &mut Place) -> Result<(), Failed> {
    place.write("Dockerfile", "FROM scratch\nCOPY data /data\n")?;
    place.write("data", noise(1, 16 << 20))?;
    place.done(&["build", ".", "-q", "-t", "full:1"])?;
    let disk = Tmpfs::mount(place.beside("disk"), 8)?;
    std::fs::write(disk.path("there"), "before")?;
    let dest = disk.path("out").display().to_string();
    let outputs = ["type=oci", "type=docker", "type=oci,tar=false", "type=tar", "type=local"];
    let builds = outputs
        .map(|output| vec!["build".to_owned(), ".".into(), "-o".into(), format!("{output},dest={dest}")]);
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let others = [
        text(&["image", "save", "full:1", "-o", &dest]),
        text(&["image", "save", "full:1", "--type", "oci-dir", "-o", &dest]),
        text(&["context", "pack", ".", "-o", &dest]),
    ];
    for line in builds.into_iter().chain(others) {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        place.run(&line)?.refused(1, &[NO_SPACE, &dest])?;
        let left = names(&disk.path(""))?;
        if left != ["there"] {
            return Err(format!("{line:?} left {left:?}").into());
        }
    }
    disk.remount("size=64m")?;
    place.done(&["build", ".", "-o", &format!("type=local,dest={dest}")])?;
    assert_eq!(std::fs::read(disk.path("out/data"))?, noise(1, 16 << 20));
    Ok(())
}
