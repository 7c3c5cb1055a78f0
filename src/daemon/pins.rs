//! When the files that match `pin=` are looked for and fetched: at the start, then every `pin_every`.
//!
//! Invariants: without `pin=` there is no task and nothing is sent; what was fetched before is held
//! until a later round is whole, so silence of the bucket lets nothing go.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::config::PinConfig;
use crate::fs::{Fs, Pinned};

/// After a round that failed, or in which a file changed, if that is sooner.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps them as long as it lives.
#[derive(Debug)]
pub(super) struct Keeping(Option<JoinHandle<()>>);

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Begins; must be called inside of a runtime.
pub(super) fn keep(fs: &Arc<Fs>, config: &PinConfig) -> Keeping {
    if config.patterns.is_empty() {
        return Keeping(None);
    }
    let (fs, config) = (Arc::clone(fs), config.clone());
    Keeping(Some(tokio::spawn(async move {
        let mut held: Option<Pinned> = None;
        loop {
            let pause = match fs.keep_pinned(&config.patterns).await {
                Ok(now) => {
                    tell(&now, held.as_ref());
                    let pause = match now.missed {
                        0 => config.every,
                        _ => config.every.min(AGAIN),
                    };
                    held = Some(now);
                    pause
                }
                Err(error) => {
                    tracing::debug!(?error, "pinned files cannot be looked for");
                    config.every.min(AGAIN)
                }
            };
            sleep(pause).await;
        }
    })))
}

/// A line when something was fetched, and a warning when what does not fit is not what it was.
fn tell(now: &Pinned, before: Option<&Pinned>) {
    let Pinned {
        files,
        bytes,
        fetched,
        left_out,
        ..
    } = now;
    if *fetched > 0 || before.is_none() {
        tracing::info!(files, bytes, fetched, "pinned files are in the cache");
    }
    if *left_out > 0 && before.is_none_or(|before| before.left_out != *left_out) {
        tracing::warn!(
            "{left_out} pinned files do not fit into half of the cache: say a larger cache_max or a \
             narrower pin"
        );
    }
}
