//! The arguments that exist without an ARG: those of the platforms, and those of proxies.

use std::collections::BTreeMap;

use crate::platform::Platform;

const PROXIES: &[&str] = &["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Says whether a build argument sets a proxy. Those need no ARG, reach RUN alone, and leave no
/// trace in the image.
pub fn is_proxy_argument(name: &str) -> bool {
    PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

/// The arguments of the global scope: `TARGETPLATFORM` and its relatives. A build argument of the
/// same name wins.
///
/// `target` is the name of the target stage, `default` if it has none.
pub fn platform_arguments(
    target_platform: &Platform,
    build_platform: &Platform,
    target: &str,
    build_args: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for (prefix, platform) in [("BUILD", build_platform), ("TARGET", target_platform)] {
        let variant = platform.variant.clone().unwrap_or_default();
        arguments.insert(format!("{prefix}PLATFORM"), platform.to_string());
        arguments.insert(format!("{prefix}OS"), platform.os.clone());
        arguments.insert(format!("{prefix}OSVERSION"), String::new());
        arguments.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        arguments.insert(format!("{prefix}VARIANT"), variant);
    }
    let target = if target.is_empty() { "default" } else { target };
    arguments.insert("TARGETSTAGE".to_owned(), target.to_owned());
    for (name, value) in &mut arguments {
        if let Some(given) = build_args.get(name) {
            value.clone_from(given);
        }
    }
    arguments
}
