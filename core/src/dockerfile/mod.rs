//! The Dockerfile as a tree of stages and instructions.
