//! `--progress=rawjson`: one JSON document after the other.
//!
//! buildx 0.13 to 0.15 print them indented over many lines, later ones print one a line. Text of
//! the docker CLI and the final error stand between and after them.

use super::graph::{Graph, VertexUpdate};
use crate::wire::SolveStatus;

/// A document longer than this is taken for text: BuildKit's are some kilobytes.
const DOCUMENT_BYTES: usize = 32 * 1024 * 1024;

/// Collects the lines of a document.
#[derive(Debug, Default)]
pub(super) struct Reader {
    document: String,
}

impl Reader {
    /// Takes one line; gives back those that turned out to be text.
    pub(super) fn line(&mut self, line: &str, graph: &mut Graph) -> Vec<String> {
        if self.document.is_empty() && !line.starts_with('{') {
            return vec![line.to_owned()];
        }
        self.document.push_str(line);
        self.document.push('\n');
        // Indentation makes the closing brace the only one in the first column.
        let complete = line == "}" || (line.starts_with('{') && line.ends_with('}'));
        if !complete && self.document.len() < DOCUMENT_BYTES {
            return Vec::new();
        }
        match serde_json::from_str::<SolveStatus>(&self.document) {
            Ok(status) => {
                self.document.clear();
                apply(&status, graph);
                Vec::new()
            }
            Err(_) => self.rest(),
        }
    }

    /// The lines of a document that did not end.
    pub(super) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.document).lines().map(str::to_owned).collect()
    }
}

fn apply(status: &SolveStatus, graph: &mut Graph) {
    graph.message(status.vertexes.iter().map(|vertex| vertex.digest.as_str()));
    for vertex in &status.vertexes {
        graph.vertex(&VertexUpdate {
            id: &vertex.digest,
            name: &vertex.name,
            started: vertex.started.is_some(),
            completed: vertex.completed.is_some(),
            cached: vertex.cached,
            error: &vertex.error,
        });
    }
    for status in &status.statuses {
        let total = u64::try_from(status.total).ok().filter(|total| *total > 0);
        graph.status(&status.vertex, &status.id, u64::try_from(status.current).unwrap_or(0), total);
    }
    for log in &status.logs {
        graph.log(&log.vertex, usize::from(log.stream == 2), &log.data);
    }
    for warning in &status.warnings {
        graph.warning(&String::from_utf8_lossy(&warning.short), &warning.url);
    }
}
