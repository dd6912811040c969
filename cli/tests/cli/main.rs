//! The program as a process: stdout, stderr and exit code of what the command line decides.
//!
//! Every test has its own home, cache and state; none needs a network or docker.

mod backends;
mod batch;
mod build;
mod config;
mod context;
mod generate;
mod image;
mod interrupt;
mod recipes;
mod runtime;
mod sandbox;
mod usage;
