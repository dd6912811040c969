//! HTTP for everything in windlass: one client set-up, one retry policy, capped bodies.

mod body;
mod client;
mod failure;
mod retry;

pub use body::{IDLE_LIMIT, next_piece, read_capped};
pub(crate) use body::{read_capped_within, read_excerpt};
pub use client::HttpSettings;
pub use failure::describe_failure;
pub use retry::{Attempts, Failure, RetryPolicy, retry_after};
