//! The loop: plans when something changed, starts what the plan names, learns from how it ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::fail::Fail;
use super::hands::{Hands, Progress};
use super::pace::{Pace, roll};
use super::plan::{Busy, InFlight, Job, Plan, Rules, plan};
use super::{Answer, Orders};
use crate::types::Seq;

/// How long requests in flight may go on after `stop`.
const STOP_AFTER: Duration = Duration::from_secs(5);
/// Under steady load the log is compacted after so many jobs.
const COMPACT_AFTER: usize = 1000;
/// What could not be aborted is tried again after so long, when something happens.
const SWEEP_AFTER: Duration = Duration::from_secs(60);
/// Failed keys remembered before those that are pending no more are forgotten.
const FAILED_MAX: usize = 1000;

/// What one task did.
enum Done {
    Job(Result<Progress, Fail>),
    /// Housekeeping.
    Kept,
}

struct Loop {
    hands: Arc<Hands>,
    tasks: JoinSet<Done>,
    /// The job of each task.
    jobs: HashMap<Id, Job>,
    busy: Busy,
    pace: Pace,
    hurry: bool,
    /// When somebody last wanted all to be sent, or to know whether it is.
    asked: Option<Instant>,
    heeded: Orders,
    /// Jobs that ended since the last compaction.
    ended: usize,
    is_keeping: bool,
    /// Housekeeping that aborts uploads goes on, or did last.
    is_sweeping: bool,
    /// The log's position when house was last kept.
    kept_at: Seq,
}

/// Runs until it is told to stop, or nobody is left who could.
pub(super) async fn run(
    hands: Arc<Hands>,
    mut orders: watch::Receiver<Orders>,
    answer: watch::Sender<Answer>,
) {
    let mut changed = hands.tree.changed();
    let mut this = Loop::new(hands);
    let mut has_tree = true;
    loop {
        changed.borrow_and_update();
        let heard = *orders.borrow_and_update();
        if heard.stop {
            break;
        }
        this.heed(heard);
        let (next, drained) = this.go_on();
        answer.send_replace(Answer {
            asked: heard.asked,
            drained,
        });
        let wait = next.map(|at| at.saturating_duration_since(this.hands.tree.clock()));
        tokio::select! {
            told = changed.changed(), if has_tree => has_tree = told.is_ok(),
            heard = orders.changed() => if heard.is_err() { break },
            Some(done) = this.tasks.join_next_with_id(), if !this.tasks.is_empty() => {
                this.end(done);
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
    this.stop().await;
}

impl Loop {
    fn new(hands: Arc<Hands>) -> Self {
        Self {
            hands,
            tasks: JoinSet::new(),
            jobs: HashMap::new(),
            busy: Busy::default(),
            pace: Pace::default(),
            hurry: false,
            asked: None,
            heeded: Orders::default(),
            ended: 0,
            is_keeping: false,
            is_sweeping: false,
            kept_at: Seq(0),
        }
    }

    fn heed(&mut self, orders: Orders) {
        let is_hurried = orders.hurry != self.heeded.hurry;
        self.hurry |= is_hurried;
        if is_hurried || orders.asked != self.heeded.asked {
            self.asked = Some(self.hands.tree.clock());
        }
        if is_hurried || orders.wake != self.heeded.wake {
            self.pace.wake();
        }
        self.heeded = orders;
    }

    /// Starts what may be started. Answers when to come again, and whether all is sent.
    fn go_on(&mut self) -> (Option<Instant>, bool) {
        loop {
            let (plan, until) = self.plan();
            let (drops, jobs): (Vec<_>, Vec<_>) = plan
                .jobs
                .into_iter()
                .partition(|job| matches!(job, Job::Drop { .. }));
            let dropped = self.drop_all(&drops);
            jobs.into_iter().for_each(|job| self.begin(job));
            if dropped {
                continue;
            }
            self.send_ahead();
            let drained = plan.drained && self.is_idle() && !self.is_to_sweep();
            if drained {
                self.hurry = false;
            }
            self.keep_house();
            let next = match (plan.next, until) {
                (_, Some(until)) if !plan.drained => Some(until),
                (next, _) => next,
            };
            return (next, drained);
        }
    }

    /// The plan, and until when the drain is paused.
    fn plan(&mut self) -> (Plan, Option<Instant>) {
        let now = self.hands.tree.clock();
        let config = &self.hands.config;
        let until = self.pace.paused_until();
        let concurrency = match until {
            Some(until) if until > now => 0,
            // One probe.
            Some(_) => 1,
            None => config.concurrency.max(1),
        };
        let rules = Rules {
            linger: config.linger,
            append_max_age: config.append_max_age,
            order: config.order,
            upload_open: config.upload_open,
            concurrency,
            hurry: self.hurry,
            unmade_dirs: !self.hands.caps.lock().marker_guards,
            asked: self.asked,
        };
        self.busy.jobs = self.jobs.values().filter(|job| !job.is_ahead()).count();
        self.busy.removing = self.jobs.values().any(Job::is_removal);
        self.busy.resting.clone_from(&self.pace.resting);
        let plan = self
            .hands
            .tree
            .pending(|all| plan(all, &self.busy, now, &rules));
        (plan, until.filter(|until| *until > now))
    }

    /// Settles what needs no request; whether to plan again at once.
    fn drop_all(&mut self, drops: &[Job]) -> bool {
        for job in drops {
            let Job::Drop { key, number } = job else {
                continue;
            };
            if let Err(fail) = self.hands.drop_change(key, *number) {
                self.fail(job, &fail);
                return false;
            }
            self.ended += 1;
        }
        !drops.is_empty()
    }

    /// Whether nothing is in flight but parts of files that are being written.
    fn is_idle(&self) -> bool {
        self.jobs.values().all(Job::is_ahead)
    }

    /// Starts to send what is there of files that are being written.
    fn send_ahead(&mut self) {
        let now = self.hands.tree.clock();
        let most = self.hands.config.concurrency.max(1);
        if self.pace.paused_until().is_some() {
            return;
        }
        for (key, number) in self.hands.ahead() {
            let rests = self.pace.resting.get(&key).is_some_and(|at| *at > now);
            let begun = self.jobs.values().filter(|job| job.is_ahead()).count();
            if begun < most && !rests && !self.busy.keys.contains_key(&key) {
                self.begin(Job::Ahead { key, number });
            }
        }
    }

    fn begin(&mut self, job: Job) {
        for (key, number) in job.keys() {
            let staging = matches!(job, Job::Stage { .. } | Job::Ahead { .. });
            if matches!(job, Job::Send { .. }) {
                let (published, now) = (&mut self.busy.published, self.hands.tree.clock());
                self.hands.tree.pending(|all| {
                    if let Some(entry) = all.get(&key) {
                        published.begin(&key, entry, now);
                    }
                });
            }
            self.busy.keys.insert(key, InFlight { number, staging });
        }
        let (hands, mine) = (Arc::clone(&self.hands), job.clone());
        let task = self
            .tasks
            .spawn(async move { Done::Job(hands.carry_out(&mine).await) });
        self.jobs.insert(task.id(), job);
        self.count();
    }

    fn end(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, Done::Job(outcome))) => (id, Some(outcome)),
            Ok((_, Done::Kept)) => {
                self.is_keeping = false;
                self.kept_at = self.hands.tree.now();
                return;
            }
            Err(error) => (error.id(), None),
        };
        let Some(job) = self.jobs.remove(&id) else {
            self.is_keeping = false;
            return;
        };
        self.count();
        self.ended += 1;
        for (key, _) in job.keys() {
            self.busy.keys.remove(&key);
        }
        match outcome {
            Some(Ok(progress)) => self.progress(&job, progress),
            Some(Err(fail)) => self.fail(&job, &fail),
            // It panicked: said by the runtime, and tried again more slowly.
            None => self.fail(&job, &Fail::Disk(libc::EIO)),
        }
    }

    fn progress(&mut self, job: &Job, progress: Progress) {
        self.pace.answered();
        let now = self.hands.tree.clock();
        for (key, _) in job.keys() {
            let is_pending = || self.hands.tree.pending(|all| all.get(&key).is_some());
            if progress == Progress::Again {
                self.busy.published.failed(&key);
            }
            match progress {
                Progress::Again if is_pending() => self.pace.again(&key, now, roll()),
                Progress::Again | Progress::Settled => self.pace.done(&key),
            }
        }
    }

    fn fail(&mut self, job: &Job, fail: &Fail) {
        tracing::warn!(error = %fail, "a change could not be carried out, it will be tried again");
        *self.hands.last_error.lock() = Some((SystemTime::now(), fail.to_string()));
        for (key, _) in job.keys() {
            self.busy.published.failed(&key);
        }
        let now = self.hands.tree.clock();
        if fail.is_for_all() {
            self.pace.silence(now, roll());
            return;
        }
        self.pace.answered();
        for (key, _) in job.keys() {
            self.pace.failed(&key, now, roll());
        }
        if self.pace.count() > FAILED_MAX {
            let hands = Arc::clone(&self.hands);
            hands
                .tree
                .pending(|all| self.pace.retain(|key| all.get(key).is_some()));
        }
    }

    /// Compacts the log and aborts uploads nobody wants, one at a time, when there is leisure.
    fn keep_house(&mut self) {
        let is_idle = self.is_idle();
        let is_worth = (is_idle && self.ended > 0)
            || self.ended >= COMPACT_AFTER
            // Also while the bucket is silent: what was removed here makes room.
            || (self.hands.log.spool().is_short() && self.hands.tree.now() > self.kept_at);
        let is_reachable = self.pace.paused_until().is_none();
        let sweeps = is_idle && is_reachable && !self.is_keeping && self.may_sweep();
        if self.is_keeping || !(is_worth || sweeps) {
            return;
        }
        (self.is_keeping, self.is_sweeping) = (true, sweeps);
        self.ended = 0;
        let hands = Arc::clone(&self.hands);
        self.tasks.spawn(async move {
            if sweeps {
                hands.sweep().await;
            }
            hands.tidy().await;
            let tree = Arc::clone(&hands.tree);
            match tokio::task::spawn_blocking(move || tree.compact()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(?error, "the log could not be compacted"),
                Err(error) => tracing::error!(%error, "compacting the log broke off"),
            }
            Done::Kept
        });
    }

    /// Whether uploads are being aborted, or are as soon as may be.
    fn is_to_sweep(&self) -> bool {
        let is_reachable = self.pace.paused_until().is_none();
        (self.is_keeping && self.is_sweeping) || (is_reachable && self.may_sweep())
    }

    /// Whether there is something to be aborted, and it did not fail just before.
    fn may_sweep(&self) -> bool {
        let failed = *self.hands.abort_failed.lock();
        let now = self.hands.tree.clock();
        failed.is_none_or(|at| now >= at + SWEEP_AFTER)
            && (!self.hands.stale_uploads().is_empty() || !self.hands.orphans().is_empty())
    }

    async fn stop(mut self) {
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_AFTER, rest).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.jobs.clear();
        self.count();
    }

    fn count(&self) {
        let jobs = self.jobs.len();
        self.hands.in_flight.store(jobs, Ordering::Relaxed);
    }
}
