//! What the instructions of one build share: where content comes from, where layers go, and how
//! they are written.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_core::archive::{ArchiveSettings, Compression, DEFAULT_EPOCH, Timestamps};
use windlass_core::backend::Job;
use windlass_core::context::{self, Context, ContextPath};
use windlass_core::error::Result;
use windlass_core::image::ImageStore;

use crate::sources::Sources;
use crate::tree::NodeKind;

/// The permissions of a file that stands in the Dockerfile.
const HEREDOC_MODE: u32 = 0o644;

/// What the instructions of one build share.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    /// Where layers go.
    pub(crate) store: ImageStore,
    /// Where content comes from.
    pub(crate) sources: Sources,
    /// How layers are compressed.
    pub(crate) compression: Compression,
    timestamps: Timestamps,
    explicit_epoch: Option<i64>,
    /// The numbers of the contexts that were listed: the main one under the empty name.
    listed: BTreeMap<String, usize>,
}

impl Workshop {
    /// Makes one. `explicit_epoch` is the `SOURCE_DATE_EPOCH` of the request; without it that of the
    /// settings counts.
    pub(crate) fn new(store: ImageStore, archive: ArchiveSettings, explicit_epoch: Option<i64>) -> Self {
        Self {
            sources: Sources::new(store.clone()),
            store,
            compression: archive.compression,
            timestamps: archive.timestamps,
            explicit_epoch: explicit_epoch.or(archive.source_date_epoch),
            listed: BTreeMap::new(),
        }
    }

    /// The time of everything that has none of its own.
    pub(crate) fn epoch(&self) -> i64 {
        self.explicit_epoch.unwrap_or(DEFAULT_EPOCH)
    }

    /// The time that was asked for; then everything that an instruction adds has it, as BuildKit does
    /// with `SOURCE_DATE_EPOCH`.
    pub(crate) fn explicit_epoch(&self) -> Option<i64> {
        self.explicit_epoch
    }

    /// The modification time of copied files; `None` keeps their own. Files of a context differ from
    /// one checkout to the next, files of an image do not.
    pub(crate) fn mtime(&self, from_context: bool) -> Option<i64> {
        match (from_context, self.timestamps) {
            (true, Timestamps::Fixed) => Some(self.epoch()),
            _ => self.explicit_epoch,
        }
    }

    /// The number of the main context, which is listed the first time.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) async fn main_context(&mut self, context: &Context, job: &Job) -> Result<usize> {
        if let Some(number) = self.listed.get("") {
            return Ok(*number);
        }
        let step = job.events.step("[internal] load build context");
        let number = step.end(self.list(context.clone(), job).await)?;
        let listed = self.sources.context(number).clone();
        job.blocking(move |job| context::warnings(&listed.context, &listed.entries, job)).await?;
        self.listed.insert(String::new(), number);
        Ok(number)
    }

    /// The number of a named context that is a directory, which is listed the first time. It has an
    /// ignore file of its own, and the settings of the main context.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) async fn named_context(
        &mut self,
        name: &str,
        directory: &Path,
        main: &Context,
        job: &Job,
    ) -> Result<usize> {
        if let Some(number) = self.listed.get(name) {
            return Ok(*number);
        }
        let step = job.events.step(format!("[internal] load build context {name}"));
        let number = match Context::from_dir(directory, None, main.settings()) {
            Ok(context) => self.list(context, job).await,
            Err(error) => Err(error),
        };
        let number = step.end(number)?;
        self.listed.insert(name.to_owned(), number);
        Ok(number)
    }

    async fn list(&mut self, context: Context, job: &Job) -> Result<usize> {
        let mut sources = self.sources.clone();
        let (sources, number) = job
            .blocking(move |job| {
                let number = sources.add_context(context, job)?;
                Ok((sources, number))
            })
            .await?;
        self.sources = sources;
        Ok(number)
    }

    /// Says whether a path of a context is a link, to whatever.
    pub(crate) fn is_link(&self, context: usize, path: &[u8]) -> bool {
        let node = self.sources.context(context).tree.get(path);
        node.is_some_and(|node| matches!(node.kind, NodeKind::Symlink { .. }))
    }

    /// Adds heredocs as a context of their own, and returns its number; `None` if there are none.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) fn add_heredocs(&mut self, heredocs: &[(String, String)], job: &Job) -> Result<Option<usize>> {
        if heredocs.is_empty() {
            return Ok(None);
        }
        let mut context = Context::empty();
        for (name, content) in heredocs {
            let path = ContextPath::clean(name.trim_start_matches('/')).unwrap_or_default();
            context.insert(path, content.clone().into_bytes(), HEREDOC_MODE);
        }
        self.sources.add_context(context, job).map(Some)
    }
}
