//! EXPOSE

use std::collections::BTreeSet;

use windlass_core::dockerfile::Expander;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::Empty;

use crate::stage::Stage;

/// Adds ports: `80`, `80/udp`, `8000-8010/tcp`. A host part (`127.0.0.1:80:80`) is read and dropped.
pub(super) fn apply(stage: &mut Stage, words: &[String], expander: Expander) -> Result<()> {
    let mut ports = BTreeSet::new();
    for word in words {
        for port in stage.expand_words(expander, word)? {
            ports.extend(parse(&port)?);
        }
    }
    let shown: Vec<String> = ports.iter().map(|port| format!("{port}:{{}}")).collect();
    stage.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
    stage.record(format!("EXPOSE map[{}]", shown.join(" ")));
    Ok(())
}

/// Reads a port specification as docker's `nat.ParsePortSpec` does.
fn parse(text: &str) -> Result<Vec<String>> {
    let invalid = |why: &str| {
        Error::new(ErrorKind::InvalidDockerfile, format!("invalid port `{text}`")).with_source(why.to_owned())
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid("the protocol is `tcp`, `udp` or `sctp`"));
    }
    let ports = ports.rsplit(':').next().unwrap_or_default();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid("a port is a number up to 65535"));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(invalid("the range ends before it starts"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_ports_and_ranges() {
        for (text, ports) in [
            ("80", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("1-3/sctp", vec!["1/sctp", "2/sctp", "3/sctp"]),
            ("127.0.0.1:8080:80", vec!["80/tcp"]),
        ] {
            assert_eq!(parse(text).expect(text), ports);
        }
        for text in ["", "x", "70000", "3-1", "80/icmp", "80:", "-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
