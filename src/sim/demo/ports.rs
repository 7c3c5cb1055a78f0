//! The ports of the cloud, kept in its folder, so that the next demo is found where this one was.

use std::fs;
use std::io;
use std::path::Path;

use crate::sim::{Cloud, Ports};

const FILE: &str = "ports";

/// Those of the last time; none if there was none.
pub(super) fn remembered(dir: &Path) -> Option<Ports> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Ports {
        s3: next()?,
        krypton: next()?,
        cognito: next()?,
        control: next()?,
    })
}

/// Keeps those of a running cloud.
pub(super) fn remember(dir: &Path, cloud: &Cloud) -> io::Result<()> {
    let urls = [
        cloud.s3_url(),
        cloud.krypton_url(),
        cloud.cognito_url(),
        cloud.control_url(),
    ];
    let ports = urls.map(|url| {
        url.rsplit(':')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
    });
    fs::write(dir.join(FILE), ports.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_absent_file_is_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remembered(dir.path()), None);
        for (text, s3) in [("1 2 3 4", Some(1)), ("1 2 3", None), ("a b c d", None)] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(remembered(dir.path()).map(|ports| ports.s3), s3, "{text}");
        }
    }
}
