//! Removals as instructions of a stage: in the layer of the COPY below, or in one of their own.

use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::error::Result;

use crate::change::Change;
use crate::removal::Removal;
use crate::stage::Stage;
use crate::stages::Interpreter;

impl Interpreter<'_> {
    /// Removes files: in the layer of the linked COPY below (`joins`) where that can be, else in one of its
    /// own.
    pub(super) async fn remove(
        &self,
        index: usize,
        mut stage: Stage,
        removal: Removal,
        joins: bool,
        name: String,
    ) -> Result<Stage> {
        let created_by = removal.created_by(&stage);
        let waiting = removal.waiting(&stage, stage.config.history.len(), name.clone());
        if let Some(waiting) = waiting.filter(|_| joins) {
            let step = self.jobs[index].events.step(name);
            step.log("goes into the layer of the next COPY");
            step.done();
            stage.record(created_by);
            stage.waiting.push(waiting);
            return Ok(stage);
        }
        let stage = self.remove_what_waits(index, stage).await?;
        self.remove_now(index, stage, removal, created_by, name).await
    }

    async fn remove_now(
        &self,
        index: usize,
        mut stage: Stage,
        removal: Removal,
        created_by: String,
        name: String,
    ) -> Result<Stage> {
        self.read_tree(&mut stage, &self.jobs[index]).await?;
        let mtime = self.workshop.epoch();
        let work = move |_: &Job| {
            let mut tree = stage.tree.take().expect("it was read before");
            let working_dir = &stage.config.config.working_dir;
            let touched = removal.apply(Arc::make_mut(&mut tree), working_dir, mtime)?;
            Ok((stage, Some(Change { tree, touched, created_by, whole: true })))
        };
        Box::pin(self.change(index, name, work)).await
    }

    /// Removes what was to be removed in the layer of a COPY that does not replace it.
    pub(super) async fn remove_what_waits(&self, index: usize, mut stage: Stage) -> Result<Stage> {
        for waiting in std::mem::take(&mut stage.waiting) {
            let created_by = waiting.removal.created_by(&stage);
            stage = self.remove_now(index, stage, waiting.removal, created_by, waiting.name).await?;
            // Its history entry stands there already, as one without a layer.
            if let Some(entry) = stage.config.history.pop() {
                stage.config.history[waiting.history] = entry;
            }
        }
        Ok(stage)
    }
}
