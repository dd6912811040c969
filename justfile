# The habits of the project. `just` alone lists them; CI runs the same commands.

_default:
    @just --list

# Build everything.
build:
    cargo build --workspace --all-targets

# Install what the tests need, start real services, run all tests. Arguments go to `cargo test`.
test *args:
    tests/run {{ args }}

# Tests that need neither network nor docker nor root.
test-quick *args:
    cargo test --workspace {{ args }}

# Formatting, clippy, documentation: everything with warnings denied.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, sources and advisories of the dependencies (needs cargo-deny).
deny:
    cargo deny check

# Documentation of all crates.
doc:
    cargo doc --workspace --no-deps

# Speed and memory, each against its peer in the same run, as a ratio.
bench *args:
    tests/bench/run {{ args }}

# Format.
fmt:
    cargo fmt --all
