//! Carries what is pending to the bucket: a planner that says what may go now, hands that do it.
//!
//! Invariants:
//! - there is no queue: what is to be sent is what `Tree::pending` holds, each time anew;
//! - idle means idle: with nothing pending no request is sent and no timer runs;
//! - while the bucket cannot be reached there is one probe at a time, ever more rarely.
//!
//! `plan` (with `waits`), `pieces`, `pace` and `conflict` are pure; `run` is the loop; `hands`,
//! `send`, `parts`, `remove`, `markers` and `resolve` talk to the store; `flights` watches them.

mod ahead;
mod conflict;
mod dead;
mod fail;
mod flights;
mod halves;
mod hands;
mod lanes;
mod markers;
mod pace;
mod parts;
mod payload;
mod pieces;
mod plan;
mod remove;
mod resolve;
mod run;
mod send;
mod waits;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::log::Log;
use crate::read::Reader;
use crate::store::ObjectStore;
use crate::tree::Tree;
use crate::types::{ObjectKey, Sse, Want};
use hands::Hands;

pub use conflict::{AsideRules, ConflictPolicy};
pub use flights::Flight;
pub use plan::Order;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a change waits for the chmod, touch or rename that often follows.
    pub linger: Duration,
    /// What grows by appends is sent again after this long at the latest, or when it grew by a
    /// quarter. `None`: after an hour where the whole of it is sent, after a minute where most is copied.
    pub append_max_age: Option<Duration>,
    /// Whether objects of one directory appear in the order their files were closed.
    pub order: Order,
    /// What becomes of a whole new content when somebody else changed the object.
    pub conflict: ConflictPolicy,
    /// Where what becomes a sibling goes.
    pub aside: AsideRules,
    /// What a writer holds open is sent after this long.
    pub upload_open: Duration,
    /// Of parts, as long as 10,000 of them hold the file. `None`: by the link and the file (`lanes`).
    pub part_size: Option<u64>,
    /// What is longer goes in parts.
    pub multipart_threshold: u64,
    /// At most so many changes are carried out at once, and so many parts are on their way.
    pub concurrency: usize,
    /// Of new objects; `None`: the bucket's.
    pub storage_class: Option<String>,
    /// Of new objects; `None`: the bucket's.
    pub sse: Option<Sse>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(2),
            append_max_age: None,
            order: Order::default(),
            conflict: ConflictPolicy::default(),
            aside: AsideRules::default(),
            upload_open: Duration::from_secs(300),
            part_size: None,
            multipart_threshold: 8 << 20,
            concurrency: 4,
            storage_class: None,
            sse: None,
        }
    }
}

/// Which guards the server honours, as far as was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `If-Match` on a write.
    pub if_match: bool,
    /// `If-None-Match: *` on a write.
    pub if_absent: bool,
    /// `If-Match` on DELETE.
    pub delete_if_match: bool,
    /// Both, on the marker of a directory. Not so: the server has directories of its own.
    pub marker_guards: bool,
    /// Writes that were only guarded by asking before.
    pub unguarded: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            if_match: true,
            if_absent: true,
            delete_if_match: true,
            marker_guards: true,
            unguarded: 0,
        }
    }
}

impl Caps {
    /// Whether versions of `key` are compared, as far as the key goes.
    fn guards(&self, key: &ObjectKey) -> bool {
        self.marker_guards || !key.as_str().ends_with('/')
    }
}

/// How it stands.
#[derive(Clone, Debug)]
pub struct DrainStatus {
    /// Changes that are to be sent, those in flight among them.
    pub waiting: usize,
    /// Those of them that are contents of files.
    pub waiting_files: usize,
    /// Bytes of them that are here only.
    pub waiting_bytes: u64,
    /// Jobs in flight.
    pub in_flight: usize,
    /// The contents that are being sent.
    pub flights: Vec<Flight>,
    /// Changes that S3 refuses for good: which, and why.
    pub refused: Vec<(String, String)>,
    /// How long the oldest of the waiting has waited.
    pub oldest_age: Option<Duration>,
    /// What failed last, and when.
    pub last_error: Option<(SystemTime, String)>,
    /// Objects that somebody else changed too.
    pub conflicts: u64,
    /// Bytes of payloads whose sending failed, and of parts that were of no use.
    pub resent_bytes: u64,
    /// What the server honours.
    pub caps: Caps,
}

/// What is asked of the loop.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Counts calls of `hurry`.
    hurry: u64,
    /// Counts calls of `wake`.
    wake: u64,
    /// Counts questions of `drained`.
    asked: u64,
    stop: bool,
}

/// The loop's answer: the last question it saw, and whether all was sent then.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    asked: u64,
    drained: bool,
}

/// The way to a running drain. When the last is dropped, it stops.
#[derive(Clone, Debug)]
pub struct Handle {
    hands: Arc<Hands>,
    orders: Arc<watch::Sender<Orders>>,
    answer: watch::Receiver<Answer>,
}

/// Starts the drain on the runtime this is called on.
#[must_use]
pub fn start(
    tree: Arc<Tree>,
    log: Arc<Log>,
    reader: Arc<Reader>,
    store: Arc<dyn ObjectStore>,
    config: Config,
) -> Handle {
    let hands = Arc::new(Hands::new(tree, log, reader, store, config));
    let (orders, to_heed) = watch::channel(Orders::default());
    let (to_answer, answer) = watch::channel(Answer::default());
    tokio::spawn(run::run(Arc::clone(&hands), to_heed, to_answer));
    Handle {
        hands,
        orders: Arc::new(orders),
        answer,
    }
}

impl Handle {
    /// Somebody waits (`kryptonfs drain`, a mount being taken down): nothing lingers or rests until
    /// all is sent. What a writer holds open still waits.
    pub fn hurry(&self) {
        self.orders.send_modify(|orders| orders.hurry += 1);
    }

    /// The bucket may be reachable again: what rests after a failure is tried now.
    pub fn wake(&self) {
        self.orders.send_modify(|orders| orders.wake += 1);
    }

    /// Waits until nothing is pending but what is dead, open or held, or waits for such. (What was
    /// just closed may still be held for a moment; that is waited for.) `false`:
    /// the drain was stopped before. Ends only then: the caller sets a deadline.
    pub async fn drained(&self) -> bool {
        let mut question = 0;
        self.orders.send_modify(|orders| {
            orders.asked += 1;
            question = orders.asked;
        });
        let mut answer = self.answer.clone();
        let drained = answer.wait_for(|answer| answer.asked >= question && answer.drained);
        drained.await.is_ok()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> DrainStatus {
        let hands = &self.hands;
        let now = hands.tree.clock();
        let (mut waiting, mut waiting_bytes, mut oldest) = (0, 0, None);
        let mut waiting_files = 0;
        let mut refused = Vec::new();
        hands.tree.pending(|all| {
            for (key, entry) in all.below("") {
                if let Some(reason) = &entry.dead {
                    refused.push((key.to_string(), reason.to_string()));
                } else if !matches!(entry.want, Want::Open { .. }) {
                    waiting += 1;
                    let is_content = matches!(entry.want, Want::Object(_));
                    waiting_files += usize::from(is_content && !key.is_dir());
                    waiting_bytes += entry.local_bytes();
                    oldest = oldest.max(Some(now.saturating_duration_since(entry.unsent_since)));
                }
            }
        });
        DrainStatus {
            waiting,
            waiting_files,
            waiting_bytes,
            in_flight: hands.in_flight.load(Ordering::Relaxed),
            flights: hands.flights.now(),
            refused,
            oldest_age: oldest,
            last_error: hands.last_error.lock().clone(),
            conflicts: hands.conflicts.load(Ordering::Relaxed),
            resent_bytes: hands.resent.load(Ordering::Relaxed),
            caps: hands.caps.lock().clone(),
        }
    }

    /// Starts nothing more, lets what is in flight go on for a few seconds, and ends. What is not
    /// sent is sent after the next start.
    pub async fn stop(&self) {
        self.orders.send_modify(|orders| orders.stop = true);
        let mut answer = self.answer.clone();
        // The loop drops its side when it has ended.
        while answer.changed().await.is_ok() {}
    }
}
