use super::*;
use crate::backend::{Capabilities, Feature};
use crate::recipe::fake::Fake;

fn reference(tag: &str) -> Reference {
    format!("example.com/runtime:{tag}").parse().expect("a reference")
}

/// An inquiry about the tags `source`, `lock` and `versioned`, changed by `change`.
async fn decide_on(backend: &Fake, change: impl FnOnce(&mut Inquiry<'_>)) -> Result<Decision> {
    let (source, lock, versioned) = (reference("source"), reference("lock"), reference("versioned"));
    let mut inquiry = Inquiry {
        base_image: "debian:11",
        source: &source,
        lock: Some(&lock),
        versioned: Some(&versioned),
        modes: &Mode::ALL,
        extended: false,
        force_rebuild: false,
        pushes: false,
        stays_here_too: false,
        writes_files: false,
    };
    change(&mut inquiry);
    decide(backend, &inquiry, &Job::silent()).await
}

fn tags(references: &[Reference]) -> String {
    references.iter().filter_map(Reference::tag).collect::<Vec<_>>().join(" ")
}

/// A decision in words: `reuse source`, or mode, base, tags, and what is kept.
fn words(decision: &Decision) -> String {
    match decision {
        Decision::Reuse { image, .. } => format!("reuse {}", tags(std::slice::from_ref(&image.reference))),
        Decision::Build { mode, base_image, tags: set, kept, .. } => {
            let base = base_image.rsplit(['/', ':']).next().unwrap_or_default();
            let kept = if kept.is_empty() { String::new() } else { format!(", not {}", tags(kept)) };
            format!("{mode} from {base}: {}{kept}", tags(set))
        }
    }
}

#[tokio::test]
async fn every_row_of_the_table() {
    const SCRATCH: &str = "scratch from 11: source lock versioned";
    const LOCK: &str = "lock from lock: source, not lock";
    for (existing, decided, forced) in [
        (&[][..], SCRATCH, SCRATCH),
        (
            &["versioned"],
            "versioned from versioned: source lock",
            "scratch from 11: source lock, not versioned",
        ),
        (&["lock"], LOCK, "scratch from 11: source versioned, not lock"),
        (&["lock", "versioned"], LOCK, "scratch from 11: source, not lock versioned"),
        (&["source"], "reuse source", "scratch from 11: lock versioned, not source"),
        (&["source", "versioned"], "reuse source", "scratch from 11: lock, not source versioned"),
        (&["source", "lock"], "reuse source", "scratch from 11: versioned, not source lock"),
        // None would be left.
        (&["source", "lock", "versioned"], "reuse source", SCRATCH),
    ] {
        let backend = Fake::with(existing);
        let decision = decide_on(&backend, |_| {}).await.expect("decided");
        assert_eq!(words(&decision), decided, "{existing:?}");
        assert_eq!(
            decision.answers().iter().filter(|answer| answer.found().is_some()).count(),
            existing.len()
        );
        let force = |inquiry: &mut Inquiry<'_>| {
            inquiry.force_rebuild = true;
        };
        let decision = decide_on(&backend, force).await.expect("decided");
        assert_eq!(words(&decision), forced, "forced, {existing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_three_questions_are_asked_at_once() {
    let backend = Fake { together: Some(tokio::sync::Barrier::new(3)), ..Fake::with(&["lock"]) };
    let deciding = decide_on(&backend, |_| {});
    // The clock stands still while there is anything to do, and so this passes only if all wait for good.
    let decided = tokio::time::timeout(std::time::Duration::from_secs(3600), deciding).await;
    assert_eq!(
        words(&decided.expect("no question waits for another").expect("decided")).split(' ').next(),
        Some("lock")
    );
    assert_eq!(backend.asked(), ["lock StoreThenRegistry", "source Store", "versioned StoreThenRegistry"]);
}

#[tokio::test]
async fn what_is_pushed_has_to_be_in_the_registry() {
    let pushes = |inquiry: &mut Inquiry<'_>| {
        inquiry.pushes = true;
    };
    let here = Fake::with(&["source", "lock"]);
    assert_eq!(words(&decide_on(&here, pushes).await.expect("decided")), "lock from lock: source, not lock");
    assert_eq!(here.asked(), ["lock StoreThenRegistry", "source Registry", "versioned StoreThenRegistry"]);
    let there = Fake { registry: vec!["source".to_owned()], ..Fake::with(&[]) };
    assert_eq!(words(&decide_on(&there, pushes).await.expect("decided")), "reuse source");
    // Where it has to be here too, one that is only there is made.
    let loads = |inquiry: &mut Inquiry<'_>| (inquiry.pushes, inquiry.stays_here_too) = (true, true);
    let decided = decide_on(&there, loads).await.expect("decided");
    assert_eq!(words(&decided), "scratch from 11: source lock versioned");
    let both = Fake { registry: vec!["source".to_owned()], ..Fake::with(&["source"]) };
    assert_eq!(words(&decide_on(&both, loads).await.expect("decided")), "reuse source");
    // One that is only in the registry is no result here, but good to build on.
    let there = Fake { registry: vec!["source".to_owned(), "versioned".to_owned()], ..Fake::with(&[]) };
    let decided = decide_on(&there, |_| {}).await.expect("decided");
    assert_eq!(words(&decided), "versioned from versioned: source lock");
    // A forced build asks only for what it would move.
    let there = Fake { registry: vec!["lock".to_owned()], ..Fake::with(&["versioned"]) };
    let force = |inquiry: &mut Inquiry<'_>| {
        inquiry.pushes = true;
        inquiry.force_rebuild = true;
    };
    let decided = decide_on(&there, force).await.expect("decided");
    assert_eq!(words(&decided), "scratch from 11: source versioned, not lock");
    assert_eq!(there.asked(), ["lock Registry", "source Registry", "versioned Registry"]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_had_is_not_absent_but_may_be_needless() {
    let failing = |existing: &[&str], tag: &str, kind| Fake {
        failures: [(tag.to_owned(), kind)].into(),
        ..Fake::with(existing)
    };
    for (existing, unknown) in
        [(&["source"][..], "lock"), (&["source"], "versioned"), (&["lock"], "versioned")]
    {
        let backend = failing(existing, unknown, ErrorKind::Unavailable);
        let decision = decide_on(&backend, |_| {}).await.expect("decided");
        assert!(
            decision.answers().iter().any(|answer| matches!(answer.existence, Existence::Unknown { .. }))
        );
        assert!(words(&decision).starts_with(if existing == ["source"] { "reuse" } else { "lock" }));
    }
    for (existing, unknown, kind) in [
        (&["lock"][..], "source", ErrorKind::Denied),
        (&["versioned"], "lock", ErrorKind::Unavailable),
        (&[], "versioned", ErrorKind::TimedOut),
    ] {
        let error = decide_on(&failing(existing, unknown, kind), |_| {}).await.expect_err("unknown");
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(&format!("runtime:{unknown}` exists")), "{error}");
    }
    // Another repository helps where a registry does not answer, not where the own store does not.
    for (unknown, pushes, helps) in
        [("lock", false, true), ("source", false, false), ("lock", true, false), ("source", true, true)]
    {
        let backend = failing(&[], unknown, ErrorKind::Unavailable);
        let error = decide_on(&backend, |inquiry| inquiry.pushes = pushes).await.expect_err("unknown");
        let said = error.hints().iter().any(|hint| hint.contains("--repository"));
        assert_eq!(said, helps, "{unknown} {pushes}");
    }
    let force = |inquiry: &mut Inquiry<'_>| {
        inquiry.force_rebuild = true;
    };
    let error = decide_on(&failing(&[], "lock", ErrorKind::Denied), force).await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_file_is_made_whatever_exists() {
    let all = Fake::with(&["source", "lock"]);
    let files = |inquiry: &mut Inquiry<'_>| {
        inquiry.writes_files = true;
    };
    let decision = decide_on(&all, files).await.expect("decided");
    assert_eq!(words(&decision), "lock from lock: source, not lock");
    assert_eq!(all.asked(), ["lock StoreThenRegistry", "versioned StoreThenRegistry"]);
}

#[tokio::test]
async fn a_recipe_asks_only_for_the_modes_that_it_has() {
    let all = Fake::with(&["lock", "versioned"]);
    let modes = |inquiry: &mut Inquiry<'_>| {
        inquiry.modes = &[Mode::Scratch, Mode::Versioned];
    };
    let decision = decide_on(&all, modes).await.expect("decided");
    assert_eq!(words(&decision), "versioned from versioned: source lock");
    assert_eq!(all.asked(), ["source Store", "versioned StoreThenRegistry"]);
    let none = Fake::with(&[]);
    let alone = |inquiry: &mut Inquiry<'_>| {
        inquiry.modes = &[Mode::Scratch];
        inquiry.lock = None;
        inquiry.versioned = None;
    };
    assert_eq!(words(&decide_on(&none, alone).await.expect("decided")), "scratch from 11: source");
    assert_eq!(none.asked(), ["source Store"]);
    let nothing = |inquiry: &mut Inquiry<'_>| {
        inquiry.modes = &[Mode::Lock];
    };
    let error = decide_on(&none, nothing).await.expect_err("no mode is left");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_versioned_image_is_of_no_other_inputs() {
    let extended = |inquiry: &mut Inquiry<'_>| inquiry.extended = true;
    let all = Fake::with(&["versioned"]);
    let decision = decide_on(&all, extended).await.expect("decided");
    assert_eq!(words(&decision), "scratch from 11: source lock");
    assert_eq!(all.asked(), ["lock StoreThenRegistry", "source Store"]);
    let lock = Fake::with(&["lock"]);
    assert_eq!(
        words(&decide_on(&lock, extended).await.expect("decided")),
        "lock from lock: source, not lock"
    );
}

#[tokio::test]
async fn a_backend_that_cannot_be_asked_is_not_asked() {
    let capabilities = Capabilities::of(Feature::ALL.iter().copied()).finding_nothing();
    let mute = Fake { capabilities, ..Fake::with(&["source"]) };
    let decision = decide_on(&mute, |_| {}).await.expect("decided");
    assert_eq!(words(&decision), "scratch from 11: source lock versioned");
    assert!(mute.asked().is_empty());
}

#[tokio::test]
async fn who_leaves_gets_no_decision() {
    let job = Job::silent();
    job.cancel.cancel();
    let source = reference("source");
    let inquiry = Inquiry {
        base_image: "debian:11",
        source: &source,
        lock: None,
        versioned: None,
        modes: &Mode::ALL,
        extended: false,
        force_rebuild: false,
        pushes: false,
        stays_here_too: false,
        writes_files: false,
    };
    let error = decide(&Fake::with(&[]), &inquiry, &job).await.expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
