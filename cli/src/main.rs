//! The `windlass` program.

fn main() -> std::process::ExitCode {
    windlass_cli::run(windlass_cli::backends())
}
