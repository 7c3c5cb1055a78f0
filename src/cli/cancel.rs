//! `kryptonfs cancel DIR`: ends all that waits for the bucket.

use std::path::Path;
use std::process::ExitCode;

use super::{control, done, print};

/// Has a mount end all waits for the bucket; says how many there were.
#[must_use]
pub fn cancel(dir: &Path) -> ExitCode {
    done(control::cancel(dir).and_then(|waits| {
        let s = if waits == 1 { "" } else { "s" };
        print(&format!("{waits} wait{s} ended\n"))
    }))
}
