//! Layered settings: defaults, the user's file, the project's file, environment, command line.
//!
//! [`file`](KEYS) says what `windlass.toml` may hold; [`layers`](load) merges the sources, and every value
//! keeps its [`Origin`]; [`Settings`] is what they come to; [`select`] chooses the backend and says
//! why. Nothing here reads the environment by itself: the program hands over what it found.

mod file;
mod kind;
mod layers;
mod origin;
mod selection;
mod settings;
mod words;

pub use file::{KEYS, Key, PROJECT_FILE, example};
pub use kind::{Kind, duration_option, parse_bytes, parse_duration};
pub use layers::{Sources, load, project_file};
pub use origin::Origin;
pub use selection::{Asked, Offer, Reason, Rules, SelectedBackend, Selection, select};
pub use settings::{
    BackendSettings, CompressionSection, ContextSection, EnvironmentSettings, LimitSection, RecipeSettings,
    RetrySection, Setting, Settings, TimeoutSection, TransferSection,
};
