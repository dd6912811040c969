//! One image of a list.

use serde::Serialize;

use crate::digest::Digest;
use crate::output::Output;
use crate::recipe::RuntimeOptions;
use crate::reference::Reference;
use crate::request::BuildRequest;

/// One image that a list asks for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is called in the list, its logs and its records; no other of the list has it.
    pub name: String,
    /// Where it stands in its file, from 1.
    pub line: usize,
    /// The image that it is made on, where the list says it.
    pub base_image: Option<String>,
    /// The stage of its Dockerfile, or the target of its recipe.
    pub target: Option<String>,
    /// The references that the list gives it. A recipe has names of its own besides.
    pub tags: Vec<Reference>,
    /// How it is made.
    pub work: Work,
    /// The hash of all that the list and the command line say about it: who has another is another image.
    /// After [`super::check`] that of a recipe's image counts its sources too, as far as its tags do.
    pub hash: String,
    /// What it has in common with others of the list: of those that share something, the first is built
    /// alone, so that what they share is read, packed and sent once.
    pub shares: Vec<String>,
}

/// How an image is made.
#[derive(Clone, Debug)]
pub enum Work {
    /// From a Dockerfile.
    Dockerfile(Box<BuildRequest>),
    /// By a recipe.
    Recipe(Box<RuntimeOptions>),
}

impl Entry {
    /// What it is made by, for people: the Dockerfile as the list names it, or the recipe.
    pub fn made_by(&self) -> String {
        match &self.work {
            Work::Dockerfile(request) => request.dockerfile.shown.display().to_string(),
            Work::Recipe(options) => format!("recipe {}", options.recipe.name),
        }
    }

    /// Where it goes.
    pub fn outputs(&self) -> &[Output] {
        match &self.work {
            Work::Dockerfile(request) => &request.outputs,
            Work::Recipe(options) => &options.outputs,
        }
    }

    /// Whether it is pushed.
    pub fn pushes(&self) -> bool {
        self.outputs().iter().any(Output::pushes)
    }
}

/// The hash of what is said about an image.
pub(super) fn hash_of(said: &impl Serialize) -> String {
    // What has no JSON cannot be in a list.
    let said = serde_json::to_vec(said).unwrap_or_default();
    let mut hex = Digest::of(said).hex();
    hex.truncate(32);
    hex
}
