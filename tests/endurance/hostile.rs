//! Archives and images that are wrong, by accident or on purpose: each is refused with a reason, or does no harm,
//! and nothing of it is left behind.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use tar::EntryType;
use windlass_tests::image_check::{Image as Checked, Platform};

use crate::bombs::{compressed, file, huge, node, tar};
use crate::hostile_registry::{HostileRegistry, Image, digest};
use crate::place::{Outcome, Place, Services, names, noise};

/// The limit of these tests, as the setting says it, and what goes beyond it.
const LIMIT: &str = "limits.unpack=1MiB";
const TOO_MUCH: usize = 3 << 20;

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial("add_of_archives_that_lead_out", add_of_climbing_archives),
        services.trial("add_of_archives_that_are_damaged_or_too_large", add_of_bad_archives),
        services.trial("layers_that_lead_out", climbing_layers),
        services.trial("layers_that_are_damaged_or_too_large", bad_layers),
        services.trial("images_that_are_not_what_they_say", wrong_images),
        services.trial("a_second_build_downloads_nothing", second_build),
        services.trial("layers_that_nobody_reads_pass_through", pass_through),
    ]
}

/// It failed with code 1, these words, no name for an image, and nothing half-written.
fn refused(place: &Place, outcome: &Outcome, says: &[&str]) -> Result<(), Failed> {
    refused_with(place, outcome, 1, says)
}

fn refused_with(place: &Place, outcome: &Outcome, code: i32, says: &[&str]) -> Result<(), Failed> {
    outcome.refused(code, says)?;
    let (incoming, references) = (place.store().join("incoming"), place.store().join("references"));
    for directory in [incoming, references].iter().filter(|directory| directory.exists()) {
        let left = names(directory)?;
        if !left.is_empty() {
            return Err(format!("left behind in {}: {left:?}", directory.display()).into());
        }
    }
    Ok(())
}

/// Everything that leads out of the place where it is unpacked, if one lets it.
fn climbing() -> Vec<u8> {
    tar(&[
        file("../../../../climbed", b"1"),
        file("/absolute", b"2"),
        node("out", EntryType::Symlink, "../../../../../../../../tmp"),
        node("loop", EntryType::Symlink, "loop2"),
        node("loop2", EntryType::Symlink, "loop"),
        node("null", EntryType::Char, ""),
        node("disk", EntryType::Block, ""),
        node("pipe", EntryType::Fifo, ""),
        file("last", b"3"),
    ])
}

/// What comes of it below the destination: devices only where we may make them.
fn climbed() -> Vec<&'static str> {
    let mut names = vec!["absolute", "climbed", "last", "loop", "loop2", "out", "pipe"];
    if rustix::process::geteuid().is_root() {
        names.extend(["disk", "null"]);
    }
    names.sort_unstable();
    names
}

/// The directory has these and nothing else; nothing climbed out of it.
fn holds(place: &Place, directory: &str, expected: &[&str]) -> Result<(), Failed> {
    let found = names(&place.path(directory))?;
    if found != expected {
        return Err(format!("{directory} holds {found:?}, not {expected:?}").into());
    }
    let beside = names(&place.beside(""))?;
    assert_eq!(beside, ["home", "work"], "something climbed out");
    Ok(())
}

fn add_of_climbing_archives(place: &mut Place) -> Result<(), Failed> {
    place.write("Dockerfile", "FROM scratch\nADD climbing.tar /a/b/\n")?;
    place.write("climbing.tar", climbing())?;
    place.done(&["build", ".", "-o", "type=local,dest=out"])?;
    holds(place, "out", &["a"])?;
    holds(place, "out/a/b", &climbed())?;

    // Through a link that the archive itself brings, and in a circle.
    let through = tar(&[node("up", EntryType::Symlink, "../../../../../.."), file("up/through", b"1")]);
    place.write("climbing.tar", through)?;
    place.done(&["build", ".", "-o", "type=local,dest=through"])?;
    holds(place, "through/a/b", &["through", "up"])?;
    place.write("climbing.tar", tar(&[node("x", EntryType::Symlink, "x"), file("x/y", b"1")]))?;
    let outcome = place.run(&["build", ".", "-t", "app:1"])?;
    refused(place, &outcome, &["ADD climbing.tar", "x"])?;
    holds(place, "", &["Dockerfile", "climbing.tar", "out", "through"])
}

fn add_of_bad_archives(place: &mut Place) -> Result<(), Failed> {
    let zeros = vec![0; TOO_MUCH];
    for (ending, bomb) in compressed(&tar(&[file("small", b"1"), file("large", &zeros)]))? {
        let name = format!("bomb.{ending}");
        place.write("Dockerfile", format!("FROM scratch\nADD {name} /\n"))?;
        place.write(&name, bomb)?;
        let outcome = place.run(&["build", ".", "-t", "app:1", "--set", LIMIT])?;
        refused(place, &outcome, &[&name, "unpacks to more than 1048576 bytes", "limits.unpack"])?;
        // The limit is a setting, not a rule.
        place.done(&["build", ".", "-o", "type=cacheonly", "--set", "limits.unpack=0"])?;
    }
    place.write("Dockerfile", "FROM scratch\nADD huge.tar /\n")?;
    place.write("huge.tar", huge("large"))?;
    refused(
        place,
        &place.run(&["build", ".", "-t", "app:1"])?,
        &["huge.tar", "ends in the middle of a member"],
    )?;
    for (ending, whole) in compressed(&tar(&[file("file", b"1")]))?.into_iter().skip(1) {
        let name = format!("cut.{ending}");
        place.write("Dockerfile", format!("FROM scratch\nADD {name} /\n"))?;
        // What begins as an archive does is unpacked; what follows is then missed.
        place.write(&name, &whole[..whole.len() - 6])?;
        let outcome = place.run(&["build", ".", "-o", "type=local,dest=cut"])?;
        if outcome.code == Some(0) {
            // So short that it never began: then it is copied as the file that it is.
            holds(place, "cut", &[&name])?;
            std::fs::remove_dir_all(place.path("cut"))?;
        } else {
            refused(place, &outcome, &[&name])?;
        }
    }
    Ok(())
}

fn climbing_layers(place: &mut Place) -> Result<(), Failed> {
    let registry = HostileRegistry::start()?;
    registry.put("climbing", &Image::of(&climbing()));
    place.write("Dockerfile", format!("FROM {}\n", registry.reference("climbing")))?;
    place.done(&["build", ".", "-o", "type=local,dest=out"])?;
    holds(place, "out", &climbed())?;
    place.sound()?;
    let circle = tar(&[node("x", EntryType::Symlink, "x"), file("x/y", b"1")]);
    registry.put("circle", &Image::of(&circle));
    place.write("Dockerfile", format!("FROM {}\n", registry.reference("circle")))?;
    let outcome = place.run(&["build", ".", "-o", "type=local,dest=circle"])?;
    refused(place, &outcome, &["lead in a circle"])?;
    let nowhere = tar(&[node("x", EntryType::Link, "../../../../etc/passwd")]);
    registry.put("nowhere", &Image::of(&nowhere));
    place.write("Dockerfile", format!("FROM {}\n", registry.reference("nowhere")))?;
    let outcome = place.run(&["build", ".", "-o", "type=local,dest=nowhere"])?;
    refused(place, &outcome, &["the hard link `x`", "has no target"])
}

/// Reads the layers, for the names of owners are in them.
fn build_on(place: &Place, reference: &str) -> Result<Outcome, Failed> {
    place.write("Dockerfile", format!("FROM {reference}\nCOPY --chown=root hello /\n"))?;
    place.write("hello", "hello\n")?;
    place.run(&["build", ".", "-t", "app:1", "--set", LIMIT])
}

fn bad_layers(place: &mut Place) -> Result<(), Failed> {
    let registry = HostileRegistry::start()?;
    let zeros = vec![0; TOO_MUCH];
    let bomb = tar(&[file("large", &zeros)]);
    for (number, (_, layer)) in compressed(&bomb)?.into_iter().enumerate() {
        let (name, image) = (format!("bomb-{number}"), Image::new(&layer, &digest(&bomb)));
        registry.put(&name, &image);
        let outcome = build_on(place, &registry.reference(&name))?;
        refused(place, &outcome, &["unpacks to more than 1048576 bytes", &image.layer(), "limits.unpack"])?;
    }
    for (name, layer, says) in [
        ("huge", huge("large"), "ends in the middle of a member"),
        ("no-tar", vec![b'x'; 2000], "the checksum of a header is wrong"),
        ("cut", tar(&[file("file", &[7; 4000])])[..1000].to_vec(), "ends in the middle of a member"),
    ] {
        registry.put(name, &Image::of(&layer));
        let outcome = build_on(place, &registry.reference(name))?;
        refused(place, &outcome, &["the tar archive is damaged", says])?;
    }
    Ok(())
}

type Spoil = fn(&mut Image);

/// What may be wrong with an image: how it becomes so, the exit code, what is said when it is a base, and what when it
/// is pulled or loaded; nothing where it may be kept as the artifact that it is.
const WRONG: &[(&str, Spoil, i32, &str, Option<&str>)] = &[
    ("content", |image| spoil_layer(image, |layer| layer[0] ^= 1), 1, "as announced", Some("as announced")),
    ("cut", |image| spoil_layer(image, |layer| layer.truncate(100)), 1, "bytes", Some("bytes")),
    (
        "smaller",
        |image| image.manifest["layers"][0]["size"] = json!(1),
        1,
        "blob `sha256:",
        Some("blob `sha256:"),
    ),
    ("larger", |image| image.manifest["layers"][0]["size"] = json!(1_u64 << 40), 1, "bytes", Some("bytes")),
    (
        "negative",
        |image| image.manifest["layers"][0]["size"] = json!(-1),
        1,
        "integer `-1`",
        Some("integer `-1`"),
    ),
    ("digest", wrong_digest, 1, "invalid digest", Some("invalid digest")),
    (
        "layer-kind",
        |image| image.manifest["layers"][0]["mediaType"] = json!("text/plain"),
        2,
        "text/plain",
        None,
    ),
    (
        "config-kind",
        |image| image.manifest["config"]["mediaType"] = json!("text/plain"),
        2,
        "no container image",
        None,
    ),
    ("more-layers", more_layers, 1, "has 2 layers, and its image config says 1", None),
    ("schema", |image| image.manifest["schemaVersion"] = json!(1), 2, "schema 1", Some("schema 1")),
];

fn wrong_digest(image: &mut Image) {
    image.manifest["layers"][0]["digest"] = json!("sha256:../../x");
}

fn spoil_layer(image: &mut Image, spoil: fn(&mut Vec<u8>)) {
    let layer = image.layer();
    image.blobs.entry(layer).and_modify(spoil);
}

fn more_layers(image: &mut Image) {
    let layer = image.manifest["layers"][0].clone();
    image.manifest["layers"] = json!([layer, layer]);
}

fn wrong_images(place: &mut Place) -> Result<(), Failed> {
    let registry = HostileRegistry::start()?;
    let mut failures = Vec::new();
    for (name, spoil, code, base, artifact) in WRONG {
        let mut image = Image::of(&tar(&[file(name, &[7; 4000])]));
        spoil(&mut image);
        registry.put(name, &image);
        image.write_layout(&place.path(name))?;
        let reference = registry.reference(name);
        let layout = format!("base=oci-layout://{}", place.path(name).display());
        let mut check = |what: &str, outcome: Result<Outcome, Failed>, says: Option<&str>| {
            let checked = outcome.and_then(|outcome| match says {
                Some(says) => refused_with(place, &outcome, *code, &[says]),
                None => outcome.good().map(drop),
            });
            if let Err(error) = checked {
                failures.push(format!("{name}, {what}: {}", error.message().unwrap_or_default()));
            }
            let _ = place.run(&["image", "rm", "--all"]);
        };
        check("base", build_on(place, &reference), Some(base));
        check("pull", place.run(&["image", "pull", &reference]), *artifact);
        check("load", place.run(&["image", "load", "-i", name, "-t", "app:1"]), *artifact);
        place.write("Dockerfile", "FROM base\nCOPY --chown=root hello /\n")?;
        check("context", place.run(&["build", ".", "-t", "app:1", "--build-context", &layout]), Some(base));
    }
    // What is wrong inside of the layer shows when it is read.
    let wrong = Image::new(&tar(&[file("a", b"1")]), &digest(b"other"));
    registry.put("diff-id", &wrong);
    refused(
        place,
        &build_on(place, &registry.reference("diff-id"))?,
        &["is not what the image config says", "diff_id"],
    )?;
    match failures.is_empty() {
        true => place.sound(),
        false => Err(failures.join("\n").into()),
    }
}

/// What is in the layers of a base is remembered: a second build asks for none of them, whatever is in the store.
fn second_build(place: &mut Place) -> Result<(), Failed> {
    let registry = HostileRegistry::start()?;
    let passwd = b"root:x:0:0::/:/bin/sh\napp:x:7:8::/:/bin/sh\n";
    let image = Image::of(&tar(&[node("etc", EntryType::Directory, ""), file("etc/passwd", passwd)]));
    registry.put("base", &image);
    let dockerfile = format!("FROM {}\nCOPY --chown=app hello /\n", registry.reference("base"));
    place.write("Dockerfile", dockerfile)?;
    place.write("hello", "hello\n")?;
    let name = place.name("second-build");
    let first = place.build(&["--push", "-t", &name])?;
    let blob = format!("GET /v2/base/blobs/{}", image.layer());
    assert!(registry.asked().contains(&blob), "the owner is in the layer");
    std::fs::remove_file(
        place.store().join("blobs/sha256").join(image.layer().trim_start_matches("sha256:")),
    )?;
    place.write("hello", "other\n")?;
    let second = place.build(&["--push", "-t", &name])?;
    assert_ne!(first, second);
    let asked = registry.asked();
    match asked.contains(&blob) {
        true => Err(format!("the layer was fetched again: {asked:#?}").into()),
        false => Ok(()),
    }
}

/// A layer that nobody reads goes from its registry to another one, verified, without being kept here.
fn pass_through(place: &mut Place) -> Result<(), Failed> {
    let registry = HostileRegistry::start()?;
    let content = noise(5, 3 << 20);
    let good = Image::of(&tar(&[file("large", &content)]));
    registry.put("good", &good);
    place.write("Dockerfile", format!("FROM {}\nENV A=1\n", registry.reference("good")))?;
    let name = place.name("passed-through");
    let digest = place.build(&["--push", "-t", &name])?;
    let pushed = Checked::from_registry(&name, &Platform::amd64())?;
    assert_eq!((pushed.root_digest, pushed.layers[0].digest.clone()), (digest, good.layer()));
    let blobs = names(&place.store().join("blobs/sha256"))?;
    assert!(!blobs.contains(&good.layer().trim_start_matches("sha256:").to_owned()), "it was kept");

    let mut wrong = Image::of(&tar(&[file("larger", &content)]));
    spoil_layer(&mut wrong, |layer| layer[1000] ^= 1);
    registry.put("wrong", &wrong);
    place.write("Dockerfile", format!("FROM {}\nENV A=1\n", registry.reference("wrong")))?;
    let name = place.name("not-passed-through");
    refused(place, &place.run(&["build", ".", "--push", "-t", &name])?, &[&wrong.layer(), "digest"])?;
    match Checked::from_registry(&name, &Platform::amd64()) {
        Ok(_) => Err("it was pushed".into()),
        Err(_) => place.sound(),
    }
}
