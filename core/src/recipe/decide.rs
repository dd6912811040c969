//! The decision table: which images of an earlier build exist, and so how much of one is taken.
//!
//! | | condition | result | tags |
//! | --- | --- | --- | --- |
//! | 1 | a rebuild is forced | from scratch | source, lock, versioned |
//! | 2 | the source tag exists | nothing is built | |
//! | 3 | the lock tag exists | its image, other sources | source |
//! | 4 | the versioned tag exists | its image, other dependencies | source, lock |
//! | 5 | otherwise | from scratch | source, lock, versioned |
//!
//! A tag that exists is never moved, except where a forced build would have none left: then it gets all.
//! A lock image that were replaced by what was built on it would grow by a layer with every build; so would
//! a versioned one, which is set from scratch alone.
//!
//! The same as OpenHands' `build_runtime_image`, which fails where no tag is left, and for which images of
//! other platforms or with further dependencies are all the same.

use std::fmt;

use serde::Serialize;

use super::Mode;
use crate::backend::{Backend, FindScope, FoundImage, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;

/// What a decision hangs on.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry<'a> {
    /// The image that a build from scratch starts from.
    pub base_image: &'a str,
    /// Same version, base image, dependencies and sources: the result, however it comes about.
    pub source: &'a Reference,
    /// Same version, base image and dependencies. `None` where the recipe has no such tag.
    pub lock: Option<&'a Reference>,
    /// Same version and base image. `None` where the recipe has no such tag.
    pub versioned: Option<&'a Reference>,
    /// The modes that the recipe has.
    pub modes: &'a [Mode],
    /// Inputs are set that the hashes leave out. The source and lock tags have an extension for them; the
    /// versioned tag has none, and so neither may be built on nor set.
    pub extended: bool,
    /// Whatever exists, it is built from scratch.
    pub force_rebuild: bool,
    /// The result is pushed: it has to be in the registry, and what is only here does not count as there.
    pub pushes: bool,
    /// The result is to be here as well as in the registry: one that is missing in either place is made.
    pub stays_here_too: bool,
    /// The result is more than an image that can be found by its name, such as an archive: it is made
    /// even if the image exists.
    pub writes_files: bool,
}

/// Which image a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// The result itself.
    Source,
    /// What [`Mode::Lock`] starts from.
    Lock,
    /// What [`Mode::Versioned`] starts from.
    Versioned,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Lock => "lock",
            Self::Versioned => "versioned",
        })
    }
}

/// What is known of one of the images.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Which one.
    pub question: Question,
    /// Its reference.
    pub reference: Reference,
    /// Where it was looked for.
    pub scope: FindScope,
    /// Whether it exists.
    #[serde(flatten)]
    pub existence: Existence,
}

/// Whether an image exists.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "existence", rename_all = "kebab-case")]
pub enum Existence {
    /// It does.
    Exists {
        /// What was found.
        image: FoundImage,
    },
    /// It does not.
    Absent,
    /// Nobody asked, as it would change nothing.
    NotAsked {
        /// Why it would not.
        why: &'static str,
    },
    /// The answer could not be had, and another one made it needless.
    Unknown {
        /// Why, in one line.
        why: String,
    },
}

impl Answer {
    /// What was found, where it exists.
    pub fn found(&self) -> Option<&FoundImage> {
        match &self.existence {
            Existence::Exists { image } => Some(image),
            _ => None,
        }
    }
}

/// What is done, and why.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Decision {
    /// The image exists: nothing is built.
    Reuse {
        /// It.
        image: FoundImage,
        /// Why, in one line.
        why: String,
        /// What is known of the images.
        answers: Vec<Answer>,
    },
    /// It is built.
    Build {
        /// How much of an earlier one is taken.
        mode: Mode,
        /// What the build starts from.
        base_image: String,
        /// The references that the image gets, the main one first. Never empty.
        tags: Vec<Reference>,
        /// The references that the mode would set but that exist and stay as they are.
        kept: Vec<Reference>,
        /// Why, in one line.
        why: String,
        /// What is known of the images; none where the recipe has no such tags.
        answers: Vec<Answer>,
    },
}

impl Decision {
    /// Why, in one line.
    pub fn why(&self) -> &str {
        match self {
            Self::Reuse { why, .. } | Self::Build { why, .. } => why,
        }
    }

    /// The mode of the build and the image that it starts from; of an image that exists, those that it would
    /// be built with.
    pub(super) fn start(&self, base_image: &str) -> (Mode, String) {
        if let Self::Build { mode, base_image, .. } = self {
            return (*mode, base_image.clone());
        }
        let found = |question| {
            let answer = self.answers().iter().find(|answer| answer.question == question)?;
            Some(answer.found()?.reference.familiar())
        };
        match (found(Question::Lock), found(Question::Versioned)) {
            (Some(lock), _) => (Mode::Lock, lock),
            (None, Some(versioned)) => (Mode::Versioned, versioned),
            (None, None) => (Mode::Scratch, base_image.to_owned()),
        }
    }

    /// What is known of the images, the most exact first.
    pub fn answers(&self) -> &[Answer] {
        match self {
            Self::Reuse { answers, .. } | Self::Build { answers, .. } => answers,
        }
    }

    /// The mode of the build; `None` where nothing is built.
    pub fn mode(&self) -> Option<Mode> {
        match self {
            Self::Reuse { .. } => None,
            Self::Build { mode, .. } => Some(*mode),
        }
    }
}

/// Asks a backend which of the images exist, all at once, and decides.
///
/// The source tag is looked for in the backend's store alone, or where the result is pushed in the registry
/// alone; the others in both. A forced build asks only for what it would move.
///
/// # Errors
/// `Unavailable`, `Denied`, `TimedOut` where an answer that matters cannot be had; `NotFound` where the
/// recipe has no mode for what exists; `Cancelled`.
pub async fn decide(backend: &dyn Backend, inquiry: &Inquiry<'_>, job: &Job) -> Result<Decision> {
    if backend.capabilities().finds_nothing {
        let name = backend.name();
        job.events.warn(format!("the backend `{name}` cannot be asked whether an image exists: it is built"));
    }
    let (source, lock, versioned) = futures_util::future::join3(
        ask(backend, Question::Source, Some(inquiry.source), inquiry, job),
        ask(backend, Question::Lock, inquiry.lock, inquiry, job),
        ask(backend, Question::Versioned, inquiry.versioned, inquiry, job),
    )
    .await;
    job.check()?;
    choose(inquiry, [source, lock, versioned])
}

/// An answer, and the error that it is unknown for.
struct Asked {
    answer: Answer,
    error: Option<Error>,
}

/// `None` where the recipe has no such image.
async fn ask(
    backend: &dyn Backend,
    question: Question,
    reference: Option<&Reference>,
    inquiry: &Inquiry<'_>,
    job: &Job,
) -> Option<Asked> {
    let reference = reference?;
    let quick = if inquiry.pushes { FindScope::Registry } else { FindScope::Store };
    let scope = match question {
        Question::Source => quick,
        // Only what it would move matters, and that is where the result goes.
        _ if inquiry.force_rebuild => quick,
        Question::Lock | Question::Versioned => FindScope::StoreThenRegistry,
    };
    let asked = |existence, error| {
        let answer = Answer { question, reference: reference.clone(), scope, existence };
        Some(Asked { answer, error })
    };
    if let Some(why) = needless(question, inquiry) {
        return asked(Existence::NotAsked { why }, None);
    }
    if backend.capabilities().finds_nothing {
        return asked(Existence::NotAsked { why: "the backend cannot be asked" }, None);
    }
    let step = job.events.step(format!("looking for {}", reference.familiar()));
    let mut found = job.run(backend.find(reference, scope, job)).await;
    if question == Question::Source && inquiry.stays_here_too && matches!(found, Ok(Some(_))) {
        let here = job.run(backend.find(reference, FindScope::Store, job)).await;
        found = here.and_then(|here| Ok(here.and(found?)));
    }
    match found {
        Ok(Some(image)) => {
            step.cached();
            asked(Existence::Exists { image }, None)
        }
        Ok(None) => {
            step.done();
            asked(Existence::Absent, None)
        }
        Err(error) => {
            let ended: Result<()> = step.end(Err(error.clone()));
            debug_assert!(ended.is_err(), "it hands the error on");
            asked(Existence::Unknown { why: error.to_string() }, Some(error))
        }
    }
}

/// Why a question is not asked.
fn needless(question: Question, inquiry: &Inquiry<'_>) -> Option<&'static str> {
    let lacks = |mode| !inquiry.modes.contains(&mode) && !inquiry.force_rebuild;
    match question {
        Question::Source if inquiry.writes_files => Some("the output is made in any case"),
        Question::Lock if lacks(Mode::Lock) => Some("the recipe has no mode `lock`"),
        Question::Versioned if inquiry.extended => Some("it is of other inputs"),
        Question::Versioned if lacks(Mode::Versioned) => Some("the recipe has no mode `versioned`"),
        _ => None,
    }
}

/// The table.
fn choose(inquiry: &Inquiry<'_>, asked: [Option<Asked>; 3]) -> Result<Decision> {
    let answers: Vec<Answer> = asked.iter().flatten().map(|asked| asked.answer.clone()).collect();
    // Another repository helps where the registry does not answer, not where the own store does not. The
    // source tag was looked for in one of the two alone.
    let [source, lock, versioned] = asked;
    let failed = source.as_ref().is_some_and(|asked| asked.error.is_some());
    let registry_fails = inquiry.pushes == (failed || inquiry.force_rebuild);
    let found = |asked: &Option<Asked>| found(asked.as_ref(), registry_fails);
    if inquiry.force_rebuild {
        // What it must not move it has to know.
        for asked in [&source, &lock, &versioned] {
            found(asked)?;
        }
        return build(inquiry, Mode::Scratch, None, "a rebuild is forced".to_owned(), answers);
    }
    if let Some(image) = found(&source)? {
        let why = "an image of this version, base image, dependencies and sources exists".to_owned();
        return Ok(Decision::Reuse { image, why, answers });
    }
    if let Some(image) = found(&lock)? {
        let why = "an image with the same dependencies exists; only the sources are replaced".to_owned();
        return build(inquiry, Mode::Lock, Some(image), why, answers);
    }
    if let Some(image) = found(&versioned)? {
        let why = "an image of this version and base image exists; its dependencies are brought up to date";
        return build(inquiry, Mode::Versioned, Some(image), why.to_owned(), answers);
    }
    let why = "there is no image to build on; everything is made anew from the base image".to_owned();
    build(inquiry, Mode::Scratch, None, why, answers)
}

/// The image, where it exists. `registry_fails` says whose fault it is if the answer is unknown.
///
/// # Errors
/// Why that is unknown.
fn found(asked: Option<&Asked>, registry_fails: bool) -> Result<Option<FoundImage>> {
    let Some(asked) = asked else { return Ok(None) };
    match &asked.error {
        None => Ok(asked.answer.found().cloned()),
        Some(error) if error.kind() == ErrorKind::Cancelled => Err(error.clone()),
        Some(error) => {
            let name = asked.answer.reference.familiar();
            let message = format!("could not find out whether `{name}` exists");
            let unknown = Error::new(error.kind(), message).with_source(error.clone());
            Err(match registry_fails {
                true => unknown
                    .with_hint("choose where runtime images are looked for and kept with `--repository`"),
                false => unknown,
            })
        }
    }
}

fn build(
    inquiry: &Inquiry<'_>,
    mode: Mode,
    base: Option<FoundImage>,
    why: String,
    answers: Vec<Answer>,
) -> Result<Decision> {
    if !inquiry.modes.contains(&mode) {
        let message = format!("`{}` cannot be built: the recipe has no mode `{mode}`", inquiry.source);
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let wanted = match mode {
        Mode::Scratch => {
            vec![Some(inquiry.source), inquiry.lock, inquiry.versioned.filter(|_| !inquiry.extended)]
        }
        Mode::Versioned | Mode::Lock => vec![Some(inquiry.source), inquiry.lock],
    };
    let exists = |reference: &&Reference| {
        answers.iter().any(|answer| answer.reference == **reference && answer.found().is_some())
    };
    let wanted = wanted.into_iter().flatten();
    let (kept, tags): (Vec<&Reference>, Vec<&Reference>) = wanted.partition(exists);
    // A forced build that would have no name gets all of them.
    let (tags, kept) = if tags.is_empty() { (kept, tags) } else { (tags, kept) };
    let owned = |references: Vec<&Reference>| references.into_iter().cloned().collect();
    let (tags, kept) = (owned(tags), owned(kept));
    let base_image = base.map_or_else(|| inquiry.base_image.to_owned(), |image| image.reference.familiar());
    Ok(Decision::Build { mode, base_image, tags, kept, why, answers })
}

#[cfg(test)]
mod tests;
