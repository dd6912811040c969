//! How we know that windlass works: the pieces that tests are made of.
//!
//! - [`service`] starts the real components: an engine, a registry. The `with-services` program holds them up while a
//!   whole test run goes on, and says when something was left behind.
//! - [`scenario`] is a small context, a request, and what the image must turn out to be: what `behaviour/` is made of.
//! - [`image_check`] opens any image, wherever it is and whoever built it, and compares two of them. It shares no code
//!   with windlass: what judges must not make the same mistakes.
//! - [`place`] is where a test runs the program as a user does: a directory, a home, a cache of its own.
//!
//! Not for unit tests: those sit at the foot of the file they test.

pub mod image_check;
pub mod place;
pub mod scenario;
pub mod service;
