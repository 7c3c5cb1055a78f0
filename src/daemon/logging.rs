//! Where events go: stderr in the foreground, the system's log in the background, and journald itself
//! where it is there, with a field for each.
//!
//! Invariants: only our own events are logged (those of the HTTP stack show signed headers); a mount
//! that is refused says one line on stderr, whatever happened before; nobody waits for a log; what
//! repeats itself is written ever more rarely (`again`).

mod again;
mod sink;
mod words;

use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use again::Again;
use sink::Held;
use words::Words;

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Lines on stderr.
    Stderr,
    /// The system's log, or else stderr.
    System,
}

/// Changes the level of a log that is set up.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();
/// `log_paths=off`.
static HIDE_NAMES: AtomicBool = AtomicBool::new(false);
/// If the mount is refused, the refusal is the one line that is read.
static HELD: Held = Held::new();

fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target("kryptonfs", level)
}

/// Our own events of this level and above go to `sink`. The first call holds.
pub fn log_to(sink: Sink, level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(ours(level));
    let lines = Lines {
        sink: match sink {
            Sink::System => sink::Sink::system(),
            Sink::Stderr => sink::Sink::stderr(),
        },
        again: Mutex::default(),
    };
    let set = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if set.is_err() || LEVEL.set(handle).is_err() {
        tracing::debug!("the log is set up already");
    }
}

/// From now on, events of this level and above.
///
/// # Errors
/// One line, if no log is set up.
pub fn set_level(level: LevelFilter) -> Result<(), String> {
    let handle = LEVEL.get().ok_or("no log is set up")?;
    handle
        .reload(ours(level))
        .map_err(|error| error.to_string())
}

/// Whether names of objects are in the log from now on, at any level.
pub fn log_names(are_shown: bool) {
    HIDE_NAMES.store(!are_shown, Ordering::Relaxed);
}

/// Writes each event as a line.
#[derive(Debug)]
struct Lines {
    sink: sink::Sink,
    again: Mutex<Again>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut words = Words::of(event, HIDE_NAMES.load(Ordering::Relaxed));
        // Whoever asks for more wants all of it.
        if level <= Level::INFO {
            let judged = self.again.lock().judge(&words.line(), Instant::now());
            match judged {
                None => return,
                Some(0) => {}
                Some(left_out) => words.fields.push(("left_out", left_out.to_string())),
            }
        }
        self.sink.write(level, &words);
    }
}

fn to_stderr(level: Level, words: &Words) {
    let mut line = String::new();
    if SystemTime.format_time(&mut Writer::new(&mut line)).is_err() {
        line.clear();
    }
    line += &format!(" {level:>5} {}\n", words.line());
    if !HELD.takes(line.as_bytes()) {
        // There is nobody who could be told.
        let _lost = io::stderr().write_all(line.as_bytes());
    }
}

/// Holds events back: if the mount is refused, the refusal is the one line that is read.
pub fn hold_log() {
    HELD.begin();
}

/// Writes what was held back, and all later events at once.
pub fn release_log() {
    if let Some(held) = HELD.end()
        && let Err(error) = io::stderr().write_all(&held)
    {
        tracing::debug!(%error, "nobody reads stderr");
    }
}
