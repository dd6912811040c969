//! What every way to a snapshot shares: what is asked for, the registration, the aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use windlass_core::backend::{Backend, CheckStatus, Job};
use windlass_core::backend_registry::Host;
use windlass_core::context::{Context, warnings};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::reference::Reference;

use super::architecture::{Architecture, AskedArchitecture};
use super::management::{Management, alias_segment};
use super::remote::Elsewhere;
use super::wire::{NewSnapshot, Snapshot};

/// The tag that says which program made a snapshot.
const CLIENT_TAG: &str = "client";
/// Our value of it.
const CLIENT: &str = "windlass";

/// What a snapshot shall be like.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOrder {
    /// Names that shall point to it, taken verbatim.
    pub aliases: Vec<String>,
    /// After so many seconds it is retired.
    pub ttl_seconds: Option<u64>,
    /// Free words for finding it again. `client=windlass` is added unless there is a `client`.
    pub tags: BTreeMap<String, String>,
    /// What it must run on, where that was asked for.
    pub architecture: Option<AskedArchitecture>,
}

impl SnapshotOrder {
    /// Refuses what could only fail after the build.
    ///
    /// # Errors
    /// `InvalidInput` for a life of 0 seconds, and for an alias that cannot be one.
    pub fn check(&self) -> Result<()> {
        if self.ttl_seconds == Some(0) {
            let message = "a snapshot lives for at least 1 second";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.aliases.iter().try_for_each(|alias| alias_segment(alias).map(drop))
    }

    /// What is registered for an image.
    pub(super) fn registration(&self, image: &str, architecture: Architecture) -> NewSnapshot {
        let mut tags = self.tags.clone();
        tags.entry(CLIENT_TAG.to_owned()).or_insert_with(|| CLIENT.to_owned());
        let (image, ttl_seconds) = (image.to_owned(), self.ttl_seconds);
        NewSnapshot { image, architecture: Some(architecture), ttl_seconds, tags }
    }
}

/// A snapshot that was made.
#[derive(Clone, Debug, Serialize)]
pub struct CreatedSnapshot {
    /// The snapshot, as the service describes it.
    pub snapshot: Snapshot,
    /// The image in Together's registry that it was made of.
    pub image: String,
    /// What it was registered to run on.
    pub architecture: Architecture,
    /// The names that point to it now.
    pub aliases: Vec<String>,
    /// The configured name of the backend that built the image; `None` if nothing was built.
    pub backend: Option<String>,
}

/// The making of one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// The service.
    pub management: &'a Management,
    /// The machine.
    pub host: &'a Host,
    /// What is wanted.
    pub order: &'a SnapshotOrder,
    /// Where it reports to, and how it is stopped.
    pub job: &'a Job,
}

impl Creation<'_> {
    /// Does one step under its published name.
    pub(super) async fn step<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&windlass_core::events::Step) -> Result<T>,
    ) -> Result<T> {
        self.job.check()?;
        let step = self.job.events.step(name);
        let result = work(&step).await;
        step.end(result)
    }

    /// Makes a snapshot of an image that is in Together's registry already. One that is elsewhere is refused
    /// unless it is forced: the service registers any name, and finds out later that there is no image.
    ///
    /// # Errors
    /// As the service says; `InvalidInput` if the image is elsewhere, or for something else than asked for.
    pub async fn of_image(&self, image: &Reference, forced: bool) -> Result<CreatedSnapshot> {
        self.order.check()?;
        let elsewhere = if forced { Elsewhere::Accepted } else { Elsewhere::Refused };
        let architecture = self.architecture_of(image, elsewhere).await?;
        self.register(image, architecture, None).await
    }

    /// Looks at what will be built, and refuses what could only fail later. Of several backends one may be
    /// missing: then the next is tried.
    pub(super) async fn prepare(&self, context: &Context, backends: &[Arc<dyn Backend>]) -> Result<()> {
        self.step("prepare", async |_| {
            self.order.check()?;
            let context = context.clone();
            let look = move |job: &Job| warnings(&context, &context.list_once(job)?, job);
            self.job.blocking(look).await?;
            match backends {
                [backend] => works(backend.as_ref(), self.job).await,
                _ => Ok(()),
            }
        })
        .await
    }

    /// Registers an image and sets the aliases.
    pub(super) async fn register(
        &self,
        image: &Reference,
        architecture: Architecture,
        backend: Option<String>,
    ) -> Result<CreatedSnapshot> {
        let name = registered_name(image);
        let new = self.order.registration(&name, architecture);
        let snapshot = self
            .step("register", async |step| {
                let snapshot = self.management.create_snapshot(&new, self.job).await?;
                step.log(format!("{} for {architecture}", snapshot.id));
                Ok(snapshot)
            })
            .await
            .map_err(|error| {
                error.with_detail("image", &name).with_hint(format!(
                    "the image is in the registry: `windlass snapshot create --built {name}` registers it without a build"
                ))
            })?;
        let created = CreatedSnapshot {
            snapshot,
            image: name,
            architecture,
            aliases: self.order.aliases.clone(),
            backend,
        };
        self.set_aliases(&created).await.map(|()| created)
    }

    async fn set_aliases(&self, created: &CreatedSnapshot) -> Result<()> {
        let id = &created.snapshot.id;
        if created.aliases.is_empty() {
            return Ok(());
        }
        self.step("alias", async |step| {
            for alias in &created.aliases {
                self.management.alias(id, alias, self.job).await.map_err(|error| {
                    error.with_detail("snapshot id", id).with_hint(format!(
                        "the snapshot is there: `windlass snapshot alias {id} '{alias}'` sets the alias"
                    ))
                })?;
                step.log(format!("@{alias}"));
            }
            Ok(())
        })
        .await
    }
}

/// How an image is spelled in a registration: the service reads `[registry/][repository/]name[:tag]`. A digest
/// stays only where there is no tag.
fn registered_name(image: &Reference) -> String {
    match (image.tag(), image.digest()) {
        (Some(tag), Some(_)) => format!("{}:{tag}", image.name()),
        _ => image.to_string(),
    }
}

/// Refuses a backend that cannot build, before anything is asked of the service.
async fn works(backend: &dyn Backend, job: &Job) -> Result<()> {
    let report = backend.check(job).await;
    job.check()?;
    match report.items.into_iter().find(|item| item.status == CheckStatus::Bad) {
        None => Ok(()),
        Some(item) => {
            let message = format!("the backend `{}` cannot build: {}", backend.name(), item.what);
            let error = Error::new(ErrorKind::Unavailable, message).with_source(item.seen);
            Err(item.hint.into_iter().fold(error, Error::with_hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_named_unless_the_user_names_one() {
        let order = SnapshotOrder::default();
        assert_eq!(order.registration("r/a:1", Architecture::Amd64).tags["client"], "windlass");
        let own = BTreeMap::from([("client".to_owned(), "ci".to_owned())]);
        let order = SnapshotOrder { tags: own, ..order };
        assert_eq!(order.registration("r/a:1", Architecture::Amd64).tags["client"], "ci");
    }

    #[test]
    fn a_tag_is_enough_of_a_name() {
        let digest = "sha256:".to_owned() + &"a".repeat(64);
        for (image, name) in [
            ("r.io/p/a:1".to_owned(), "r.io/p/a:1".to_owned()),
            (format!("r.io/p/a:1@{digest}"), "r.io/p/a:1".to_owned()),
            (format!("r.io/p/a@{digest}"), format!("r.io/p/a@{digest}")),
        ] {
            assert_eq!(registered_name(&image.parse().expect("valid")), name);
        }
    }
}
