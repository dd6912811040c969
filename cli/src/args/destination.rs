//! Where a result goes: the same options for every command that builds one image.

use clap::Args;
use clap::builder::BoolishValueParser;

/// Switches may be given a value, as buildx allows: `--push=false`.
pub(super) const BOOL: &str = "true|false";

/// Places that the result goes to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DestinationArgs {
    /// Where the result goes, such as `type=oci,dest=out.tar`. May be repeated.
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub(crate) outputs: Vec<String>,
    /// Push to the registries of the tags; short for `--output type=registry`.
    #[arg(long, value_name = BOOL, default_value = "false", default_missing_value = "true", num_args = 0..=1)]
    #[arg(require_equals = true, hide_default_value = true, hide_possible_values = true, value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub(crate) push: bool,
    /// Load into the docker engine; short for `--output type=docker`.
    #[arg(long, value_name = BOOL, default_value = "false", default_missing_value = "true", num_args = 0..=1)]
    #[arg(require_equals = true, hide_default_value = true, hide_possible_values = true, value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub(crate) load: bool,
}
