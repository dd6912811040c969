//! The engine's image store: find and tag, by whichever way the engine can be reached.

use windlass_core::Result;
use windlass_core::backend::{FoundImage, Job};
use windlass_core::error::{Error, ErrorKind, ResultExt};
use windlass_core::reference::Reference;

use crate::engine::{self, Engine};
use crate::error::from_text;
use crate::program::{Answer, Program};

/// The image store of an engine.
#[derive(Debug)]
pub(crate) enum Store {
    /// Through its API.
    Engine(Engine),
    /// Through the docker program, for an engine behind `ssh://`, which only that can reach.
    Program(Program),
}

impl Store {
    /// The engine where it can be talked to, else the program.
    ///
    /// # Errors
    /// As for either.
    pub(crate) fn of(engine: Result<Engine>, program: impl FnOnce() -> Result<Program>) -> Result<Self> {
        match engine {
            Ok(engine) => Ok(Self::Engine(engine)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Self::Program(program()?)),
            Err(error) => Err(error),
        }
    }

    /// Looks an image up.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`, `TimedOut`, `Cancelled`.
    pub(crate) async fn find(&self, reference: &Reference, job: &Job) -> Result<Option<FoundImage>> {
        match self {
            Self::Engine(engine) => engine.find(reference, job).await,
            Self::Program(program) => find(program, reference, job).await,
        }
    }

    /// Gives an image one more reference.
    ///
    /// # Errors
    /// `NotFound` if the image is gone; as for [`Store::find`].
    pub(crate) async fn tag(&self, image: &str, reference: &Reference, job: &Job) -> Result<()> {
        match self {
            Self::Engine(engine) => engine.tag(image, reference, job).await,
            Self::Program(program) => {
                let answer = program.ask(&["image", "tag", image, &reference.to_string()], job).await?;
                let failed = || format!("could not tag `{image}` as `{reference}`");
                if answer.success { Ok(()) } else { Err(refused(&answer, failed())) }
            }
        }
    }
}

async fn find(program: &Program, reference: &Reference, job: &Job) -> Result<Option<FoundImage>> {
    let text = reference.to_string();
    let answer = program.ask(&["image", "inspect", "--format", "{{json .}}", &text], job).await?;
    let failed = || format!("could not look up `{reference}` in the engine");
    if answer.success {
        let image = serde_json::from_str(&answer.stdout).or_error(ErrorKind::UnexpectedAnswer, failed)?;
        return Ok(Some(engine::found(reference, &image)));
    }
    match refused(&answer, failed()) {
        error if error.kind() == ErrorKind::NotFound => Ok(None),
        error => Err(error),
    }
}

fn refused(answer: &Answer, message: String) -> Error {
    from_text(message, &answer.stderr)
}
