//! A mount as a process: it says when it is ready and how it is, heeds signals, and ends in order.
//!
//! ```text
//! SIGTERM, SIGINT   unmount; what is unsent stays in the spool
//! SIGHUP            read the options again; `log` and `log_paths` are applied, all else with the next mount
//! ```

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::notify::Manager;
use super::{Daemon, Failure, Life, Mounted, Status, logging, process};
use crate::config::Config;

/// The service manager is told so often how things are.
const TELL: Duration = Duration::from_secs(10);

/// Mounts, says so on stdout (and to the service manager), and stays until a signal comes or somebody
/// unmounts. `reread` answers the options as they are now.
///
/// # Errors
/// One line.
pub async fn run(
    config: Config,
    dir: &Path,
    life: Life,
    reread: impl Fn() -> Result<Config, String>,
) -> Result<(), Failure> {
    // Before the mount: a signal that comes while it is made is not lost.
    let mut signals = Signals::new()?;
    let manager = Manager::of_this_process();
    let mounted = Daemon::start(config, dir, life).await?;
    announce(&mounted, life);
    if let Some(manager) = &manager {
        manager.ready(&in_short(&mounted.status()));
    }
    let period = manager.as_ref().and_then(|manager| manager.watchdog);
    let mut tick = tokio::time::interval(period.map_or(TELL, |all| (all / 3).min(TELL)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::End => break,
                Heard::Reload => reload(&reread),
            },
            () = mounted.ended() => break,
            _ = tick.tick(), if manager.is_some() => {
                // Asked of those who do the work: if they are stuck, nothing is told.
                let status = in_short(&mounted.status());
                if let Some(manager) = &manager {
                    manager.alive(&status);
                }
            }
        }
    }
    if let Some(manager) = &manager {
        manager.stopping();
    }
    mounted.unmount().await
}

fn announce(mounted: &Mounted, life: Life) {
    logging::release_log();
    let (source, dir) = (mounted.source(), mounted.dir().display());
    let line = format!("mounted {source} at {dir}\n");
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads stdout");
    }
    if life != Life::Foreground
        && let Err(error) = process::leave_terminal()
    {
        tracing::warn!(%error, "the terminal of whoever mounted is kept");
    }
    tracing::info!(source, %dir, "mounted");
}

fn reload(reread: &impl Fn() -> Result<Config, String>) {
    let done = reread().and_then(|config| {
        logging::log_names(config.log_names);
        logging::set_level(config.log_level)
    });
    match done {
        Ok(()) => tracing::info!(
            "options read again: log and log_paths hold now, the others at the next mount"
        ),
        Err(error) => tracing::error!(%error, "options cannot be read again; nothing is changed"),
    }
}

/// A line for `systemctl status`.
fn in_short(status: &Status) -> String {
    let queue = match (status.pending, status.refused.len()) {
        (0, 0) => "all is sent".to_owned(),
        (0, refused) => format!("S3 refuses {refused} changes"),
        (waiting, 0) => format!("{waiting} changes wait to be sent"),
        (waiting, refused) => {
            format!("{waiting} changes wait to be sent, S3 refuses {refused}")
        }
    };
    format!("{queue}; link {}", status.link)
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
enum Heard {
    End,
    Reload,
}

/// What a mount heeds.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::Mount(format!("no signals to be had: {error}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::End,
            _ = self.interrupt.recv() => Heard::End,
            _ = self.hangup.recv() => Heard::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Refused;

    #[test]
    fn the_short_status_tells_what_waits_and_what_is_refused() {
        let mut status = Status {
            link: "up".into(),
            ..Status::default()
        };
        assert_eq!(in_short(&status), "all is sent; link up");
        status.pending = 3;
        assert_eq!(in_short(&status), "3 changes wait to be sent; link up");
        status.refused = vec![Refused {
            name: "x".into(),
            why: "AccessDenied".into(),
        }];
        assert!(in_short(&status).contains("S3 refuses 1"));
        status.pending = 0;
        assert_eq!(in_short(&status), "S3 refuses 1 changes; link up");
    }
}
