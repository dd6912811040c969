//! Together: what makes a snapshot of an image.
//!
//! A snapshot is made of an image in Together's registry. Either the image-builder builds it there
//! ([`Creation::by_service`]), or a backend of this machine builds it and we push it with a credential that is
//! issued for that ([`Creation::locally`]); then it is registered and gets its aliases.
//!
//! In reading order: `create` is what both ways share, `remote` and `local` are the ways, [`Management`] has
//! the calls, `wire` their messages, `failure` what can come of them, `credential` the registry's credential.

mod architecture;
mod create;
mod credential;
mod failure;
mod local;
mod management;
mod options;
mod path;
mod plan;
mod remote;
mod uuid;
mod wire;

pub use architecture::{ARCHITECTURE_VARIABLE, Architecture, AskedArchitecture};
pub use create::{CreatedSnapshot, Creation, SnapshotOrder};
pub use credential::IssuedCredential;
pub use local::{ImageKeeper, local_platform};
pub use management::Management;
pub use options::{DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE};
pub use plan::{LOCAL, Way, planned};
pub use uuid::uuid4;
pub use wire::{NewSnapshot, Snapshot, SnapshotAlias, SnapshotPage, SnapshotQuery};
