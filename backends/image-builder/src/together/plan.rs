//! What would be asked of the service, for `--dry-run`.

use windlass_core::backend::PlannedAction;
use windlass_core::reference::Reference;

use super::architecture::Architecture;
use super::create::SnapshotOrder;
use super::management::Management;

/// How an image gets into Together's registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The service builds it.
    Service,
    /// It is built here and pushed.
    Local,
    /// It is there.
    Built(Reference),
}

/// What stands in a plan for what only the service knows.
pub const LOCAL: &str = "<registry>/<project>/image-<uuid>:<uuid>";

/// The calls around the build, split where it is: those before it and those after it.
pub fn planned(management: &Management, order: &SnapshotOrder, way: &Way) -> [Vec<PlannedAction>; 2] {
    let call = |path: &str, details: Vec<String>| PlannedAction {
        verb: "POST".to_owned(),
        subject: format!("{}{path}", management.url("")),
        details: std::iter::once("Authorization: Bearer (hidden)".to_owned()).chain(details).collect(),
    };
    let credential = |why: &str| call("/container-registries/default/credentials", vec![why.to_owned()]);
    let image = match way {
        Way::Service => "<what the service built>".to_owned(),
        Way::Local => LOCAL.to_owned(),
        Way::Built(image) => image.to_string(),
    };
    let architecture = order.architecture.map_or(Architecture::Amd64, |asked| asked.architecture);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    match way {
        Way::Local => {
            before.push(credential("tried before the build, renewed if it ends within 5 minutes"));
            let subject = image.clone();
            let details = vec!["with that credential".to_owned()];
            after.push(PlannedAction { verb: "push".to_owned(), subject, details });
        }
        Way::Service | Way::Built(_) => after.push(credential("to read the architecture of the image")),
    }
    let registration = serde_json::to_string(&order.registration(&image, architecture)).unwrap_or_default();
    after.push(call("/snapshots", vec![registration]));
    for alias in &order.aliases {
        let document = serde_json::json!({ "alias": alias }).to_string();
        after.push(call("/snapshots/<id>/aliases", vec![document]));
    }
    [before, after]
}
