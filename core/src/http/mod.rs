//! HTTP for everything in windlass: one client set-up, one retry policy, capped bodies.

mod body;
mod client;
mod retry;

pub use body::read_capped;
pub(crate) use body::{next_piece, read_capped_within, read_excerpt};
pub use client::{HttpSettings, describe_failure};
pub use retry::{Attempts, Failure, RetryPolicy, retry_after};
