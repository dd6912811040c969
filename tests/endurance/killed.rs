//! `kill -9` at random moments of build and push.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Image, Platform};

use crate::place::{Place, Random, Services, noise};

/// So many images, each killed so many times before it may be finished.
const IMAGES: u64 = 10;
const KILLS: usize = 5;

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial("killed_at_50_moments_of_build_and_push", killed),
        services.trial("terminated_in_the_middle_of_a_push", terminated),
    ]
}

fn killed(place: &mut Place) -> Result<(), Failed> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let given = std::env::var("WINDLASS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(now) | 1;
    let failed = |error: Failed| -> Failed {
        format!("WINDLASS_TEST_SEED={seed}: {}", error.message().unwrap_or_default()).into()
    };
    let mut random = Random(seed);
    let (mut hit, mut calm) = (0, Place::new(place.services.clone())?);
    for image in 0..IMAGES {
        hit += killed_while_building(place, &mut calm, image, &mut random).map_err(failed)?;
    }
    // Fewer would mean that the moments are not those of the work.
    match hit >= IMAGES as usize * KILLS / 4 {
        true => Ok(()),
        false => Err(failed(format!("only {hit} were killed before they ended").into())),
    }
}

/// Says how many were killed before they had ended.
fn killed_while_building(
    place: &mut Place,
    calm: &mut Place,
    image: u64,
    random: &mut Random,
) -> Result<usize, Failed> {
    for place in [&*place, &*calm] {
        place.dockerfile("FROM {busybox}\nCOPY one /one\nCOPY two /two/\nENV A=1\n")?;
        place.write("one", noise(2 * image + 1, 3 << 20))?;
        place.write("two", noise(2 * image + 2, 3 << 20))?;
    }
    let started = Instant::now();
    let calm_name = place.name(&format!("calm-{image}"));
    let expected = calm.build(&["--push", "-t", &calm_name])?;
    let whole = started.elapsed();

    let name = place.name(&format!("killed-{image}"));
    let mut hit = 0;
    for _ in 0..KILLS {
        let running = place.start(&["build", ".", "-q", "--push", "-t", &name])?;
        let share = (random.next() % 1000) as u32;
        std::thread::sleep(whole * share / 1000);
        hit += usize::from(running.kill()?);
        // One that was killed before it had made the store has left nothing to look at.
        if place.store().join("incoming").exists() {
            place.done(&["image", "verify"])?;
        }
    }
    let digest = place.build(&["--push", "-t", &name])?;
    let pushed = Image::from_registry(&name, &Platform::amd64())?;
    if digest != expected || pushed.root_digest != expected {
        let found = &pushed.root_digest;
        return Err(format!("image {image}: {expected} undisturbed, {digest} now, {found} pushed").into());
    }
    place.sound()?;
    Ok(hit)
}

fn terminated(place: &mut Place) -> Result<(), Failed> {
    place.dockerfile("FROM {debian}\nCOPY data /\n")?;
    place.write("data", noise(7, 24 << 20))?;
    let name = place.name("terminated");
    let running = place.start(&["build", ".", "-q", "--push", "-t", &name])?;
    let incoming = place.store().join("incoming");
    let limit = Instant::now() + Duration::from_secs(20);
    while !incoming.read_dir().is_ok_and(|mut files| files.next().is_some()) {
        if Instant::now() > limit {
            return Err("it never began to write".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal("-TERM")?.refused(130, &["cancelled"])?;
    let left = crate::place::names(&incoming)?;
    if !left.is_empty() {
        return Err(format!("left behind: {left:?}").into());
    }
    let digest = place.build(&["--push", "-t", &name])?;
    let pushed = Image::from_registry(&name, &Platform::amd64())?;
    if pushed.root_digest != digest {
        return Err(format!("{digest} was built, {} pushed", pushed.root_digest).into());
    }
    place.sound()
}
