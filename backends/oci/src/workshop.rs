//! What the instructions of one build share: where content comes from, where layers go, and how
//! they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use windlass_core::archive::{ArchiveSettings, Compression, DEFAULT_EPOCH, Timestamps};
use windlass_core::backend::Job;
use windlass_core::context::{self, Context, ContextPath};
use windlass_core::digest::Digest;
use windlass_core::error::Result;
use windlass_core::fingerprint::StatCache;
use windlass_core::image::{ImageStore, LayerMemo, LayerShape};

use crate::ahead::Ahead;
use crate::linked::LinkedLayers;
use crate::remote::Remotes;
use crate::schedule::{LockEach, OnceEach};
use crate::sources::Sources;
use crate::tree::NodeKind;

/// The permissions of a file that stands in the Dockerfile.
const HEREDOC_MODE: u32 = 0o644;

/// What the instructions of one build share. Clones share it too.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    /// Where layers go.
    pub(crate) store: ImageStore,
    /// Where content comes from.
    pub(crate) sources: Sources,
    /// How layers are compressed.
    pub(crate) compression: Compression,
    /// Nothing in a layer is younger, by `rewrite-timestamp`.
    pub(crate) latest: Option<i64>,
    /// Layers of base images become others, so nobody needs them as they are.
    pub(crate) force_compression: bool,
    /// Layers of earlier builds are not looked for.
    pub(crate) no_cache: bool,
    /// What ADD takes from elsewhere.
    pub(crate) remotes: Remotes,
    /// Where layers go while others are made.
    pub(crate) ahead: Option<Arc<Ahead>>,
    /// The layers that builds of this program share.
    pub(crate) linked: LinkedLayers,
    /// Layers of the same shape are made one after the other: the second may be the first again.
    pub(crate) turns: Arc<LockEach<LayerShape>>,
    /// The layers of this build.
    pub(crate) made: Arc<Mutex<BTreeMap<LayerShape, Vec<LayerMemo>>>>,
    /// The layers, by blob and `diff_id`, that were found to be what their images say before anything was
    /// read from them.
    pub(crate) verified: Arc<Mutex<BTreeSet<(Digest, Digest)>>>,
    timestamps: Timestamps,
    explicit_epoch: Option<i64>,
    /// The numbers of the contexts that were listed: the main one under the empty name.
    listed: Arc<OnceEach<String, usize>>,
}

impl Workshop {
    /// Makes one. `explicit_epoch` is the `SOURCE_DATE_EPOCH` of the request; without it that of the
    /// settings counts.
    pub(crate) fn new(
        store: ImageStore,
        cache: StatCache,
        remotes: Remotes,
        archive: ArchiveSettings,
        explicit_epoch: Option<i64>,
    ) -> Self {
        let (turns, made, verified) = Default::default();
        Self {
            sources: Sources::new(store.clone(), cache),
            store,
            compression: archive.compression,
            latest: None,
            force_compression: false,
            no_cache: false,
            remotes,
            ahead: None,
            linked: LinkedLayers::default(),
            turns,
            made,
            verified,
            timestamps: archive.timestamps,
            explicit_epoch: explicit_epoch.or(archive.source_date_epoch),
            listed: Arc::default(),
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

    /// All that is the same for the instructions of a build and shows in their layers.
    pub(crate) fn words(&self) -> String {
        let Self { compression, latest, timestamps, explicit_epoch, .. } = self;
        format!("{compression:?} {latest:?} {timestamps:?} {explicit_epoch:?}")
    }

    /// The number of the main context, which is listed the first time.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) async fn main_context(&self, context: &Context, job: &Job) -> Result<usize> {
        let list = async {
            job.check()?;
            let step = job.events.step("[internal] load build context");
            let number = step.end(self.add_context(context.clone(), job).await)?;
            let listed = self.sources.context(number);
            job.blocking(move |job| context::warnings(&listed.context, &listed.entries, job)).await?;
            Ok(number)
        };
        self.listed.get(String::new(), Box::pin(list)).await
    }

    /// The number of a named context that is a directory, which is listed the first time. It has an
    /// ignore file of its own, and the settings of the main context.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) async fn named_context(
        &self,
        name: &str,
        directory: &Path,
        main: &Context,
        job: &Job,
    ) -> Result<usize> {
        let list = async {
            job.check()?;
            let step = job.events.step(format!("[internal] load build context {name}"));
            let number = match Context::from_dir(directory, None, main.settings()) {
                Ok(context) => self.add_context(context, job).await,
                Err(error) => Err(error),
            };
            step.end(number)
        };
        self.listed.get(name.to_owned(), Box::pin(list)).await
    }

    /// Lists a context that no other instruction shares, and returns its number.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) async fn add_context(&self, context: Context, job: &Job) -> Result<usize> {
        let sources = self.sources.clone();
        job.blocking(move |job| sources.add_context(context, job)).await
    }

    /// Where a path of a context points, if it is a link.
    pub(crate) fn link_target(&self, context: usize, path: &[u8]) -> Option<String> {
        match &self.sources.context(context).tree.get(path)?.kind {
            NodeKind::Symlink { target } => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        }
    }

    /// Adds heredocs as a context of their own, and returns its number; `None` if there are none.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) fn add_heredocs(&self, heredocs: &[(String, String)], job: &Job) -> Result<Option<usize>> {
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
