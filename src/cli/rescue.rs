//! `kryptonfs retry` and `kryptonfs export`: what has not got to the bucket.

use std::path::Path;
use std::process::ExitCode;

use super::{done, export as exporting, print, spool};

/// Has what S3 refused for good tried again; says how many changes.
#[must_use]
pub fn retry(dir: &Path) -> ExitCode {
    done(spool::retry(dir).and_then(|count| {
        let s = if count == 1 { "" } else { "s" };
        print(&format!("{count} refused change{s} to be tried again\n"))
    }))
}

/// Copies what is unsent in `source` (a mount or a spool), or of it what is at `path`, into the
/// folder `to`; says what.
#[must_use]
pub fn export(source: &Path, to: &Path, path: Option<&str>, remove: bool) -> ExitCode {
    done(exporting::export(source, to, path, remove))
}
