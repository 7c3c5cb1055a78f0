//! `kryptonfs drain`: sends all that is pending, and tells how far it is.
//!
//! Invariant: how it ends is what the daemon says; that the progress cannot be told changes nothing.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::{control, done, show};

/// Between two looks at the progress.
const TELL: Duration = Duration::from_secs(1);

/// Has a mount send all that is pending. Where somebody looks, or wants it, stderr tells the progress.
#[must_use]
pub fn drain(dir: &Path, timeout: Duration, progress: bool) -> ExitCode {
    let is_terminal = std::io::stderr().is_terminal();
    if !progress && !is_terminal {
        return done(control::drain(dir, timeout));
    }
    let (tell, ended) = channel();
    let drained = std::thread::scope(|scope| {
        let draining = scope.spawn(move || {
            let drained = control::drain(dir, timeout);
            // It is heard, or nobody looks any more.
            let _gone = tell.send(());
            drained
        });
        look_on(dir, &ended, is_terminal);
        draining.join()
    });
    done(drained.unwrap_or_else(|_| Err("the drain broke off: say it again".into())))
}

fn look_on(dir: &Path, ended: &Receiver<()>, is_terminal: bool) {
    let mut last = String::new();
    loop {
        if let Ok(status) = control::status(dir) {
            let line = show::progress(&status);
            if is_terminal {
                eprint!("\r{line}\x1b[K");
            } else if line != last {
                eprintln!("{line}");
            }
            last = line;
        }
        if ended.recv_timeout(TELL) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    if is_terminal && !last.is_empty() {
        eprint!("\r\x1b[K");
    }
}
