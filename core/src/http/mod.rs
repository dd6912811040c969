//! HTTP for everything in windlass: one client set-up, one retry policy, capped bodies.

mod body;
mod client;
mod retry;

pub(crate) use body::next_piece;
pub use body::{read_capped, read_excerpt};
pub use client::{HttpSettings, describe_failure};
pub use retry::{Attempts, Failure, RetryPolicy, retry_after};
