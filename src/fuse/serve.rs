//! Carries requests from the kernel's threads to tasks: admission, deadlines, and the end.
//!
//! Invariants:
//! - every operation ends by the deadline of its class, waiting for its permit included: fuser
//!   delivers no interrupts, and a caller in `close` cannot be killed;
//! - reads wait on their own permits, so that slow cold reads never starve `stat`; a waiting close
//!   holds none;
//! - a fuse thread waits only for room for written bytes, that is for the disk, never for the network.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::fs::{FsError, Result};

/// Name operations at once.
const NAMES: usize = 64;
/// Reads at once: a read that waits for the network holds one.
const READS: usize = 128;
/// Writes at once; their bytes are bounded by `WRITE_BYTES`.
const WRITES: usize = 64;
/// Bytes of writes that are not in the spool yet.
const WRITE_BYTES: usize = 8 << 20;

/// Kinds of operations that wait for different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Names and attributes.
    Names,
    /// Directories' entries: permits of names, time of reads.
    List,
    /// Bytes out.
    Read,
    /// Bytes in: wait for the disk.
    Write,
    /// flush, fsync, release: no permit.
    Close,
}

/// When an operation of a class is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Names and attributes.
    pub names: Duration,
    /// Reads and listings.
    pub read: Duration,
    /// Writes.
    pub write: Duration,
    /// flush, fsync, release.
    pub close: Duration,
}

/// Where requests become tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Serve {
    runtime: Handle,
    deadlines: Deadlines,
    names: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    budget: Arc<Budget>,
    /// Each task holds a clone: the receiver ends when all have ended.
    alive: mpsc::Sender<()>,
}

impl Serve {
    /// Tasks run on `runtime`. The receiver answers `None` once the session and all tasks are gone.
    pub(super) fn new(runtime: Handle, deadlines: Deadlines) -> (Self, mpsc::Receiver<()>) {
        let (alive, all_gone) = mpsc::channel(1);
        let serve = Self {
            runtime,
            deadlines,
            names: Arc::new(Semaphore::new(NAMES)),
            reads: Arc::new(Semaphore::new(READS)),
            writes: Arc::new(Semaphore::new(WRITES)),
            budget: Budget::new(WRITE_BYTES),
            alive,
        };
        (serve, all_gone)
    }

    /// Runs `task`. If it panics, the reply it owns is dropped, which answers `EIO`.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        self.runtime.spawn(async move {
            task.await;
            drop(alive);
        });
    }

    /// `work` once the class has a permit, ended by the class's deadline.
    pub(super) async fn limited<T>(
        &self,
        class: Class,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let (permits, deadline, late) = match class {
            Class::Names => (
                Some(&self.names),
                self.deadlines.names,
                FsError::Unreachable,
            ),
            Class::List => (Some(&self.names), self.deadlines.read, FsError::Unreachable),
            Class::Read => (Some(&self.reads), self.deadlines.read, FsError::Unreachable),
            Class::Write => (
                Some(&self.writes),
                self.deadlines.write,
                FsError::Unreachable,
            ),
            Class::Close => (None, self.deadlines.close, FsError::NotYet),
        };
        let admitted = async {
            let _permit = match permits {
                Some(permits) => Some(permits.acquire().await.map_err(|_| FsError::Unreachable)?),
                None => None,
            };
            work.await
        };
        match tokio::time::timeout(deadline, admitted).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(
                    ?class,
                    seconds = deadline.as_secs(),
                    "an operation was given up"
                );
                Err(late)
            }
        }
    }

    /// Room for `bytes` of a write. Waits while too much is on its way to the disk.
    pub(super) fn room(&self, bytes: usize) -> Room {
        self.budget.take(bytes)
    }
}

/// Bytes that may be held at once.
#[derive(Debug)]
struct Budget {
    free: Mutex<usize>,
    freed: Condvar,
    total: usize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(total),
            freed: Condvar::new(),
            total,
        })
    }

    /// A request larger than the whole budget takes all of it.
    fn take(self: &Arc<Self>, bytes: usize) -> Room {
        let bytes = bytes.min(self.total);
        let mut free = self.free.lock();
        while *free < bytes {
            self.freed.wait(&mut free);
        }
        *free -= bytes;
        Room {
            budget: Arc::clone(self),
            bytes,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.budget.free.lock() += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn serve(deadline: Duration) -> (Serve, mpsc::Receiver<()>) {
        let deadlines = Deadlines {
            names: deadline,
            read: deadline,
            write: deadline,
            close: deadline,
        };
        Serve::new(Handle::current(), deadlines)
    }

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(1000);

    #[tokio::test]
    async fn an_operation_that_never_ends_is_given_up_at_its_deadline() {
        let (serve, _gone) = serve(SHORT);
        let start = std::time::Instant::now();
        for class in [Class::Names, Class::List, Class::Read, Class::Write] {
            let late = serve.limited(class, pending::<Result<()>>()).await;
            assert_eq!(late, Err(FsError::Unreachable), "{class:?}");
        }
        assert!(start.elapsed() >= SHORT * 4);
    }

    #[tokio::test]
    async fn a_close_that_takes_too_long_is_not_yet_rather_than_failed() {
        let (serve, _gone) = serve(SHORT);
        let late = serve.limited(Class::Close, pending::<Result<()>>()).await;
        assert_eq!(late, Err(FsError::NotYet));
    }

    #[tokio::test]
    async fn waiting_for_a_permit_is_within_the_deadline() {
        let (serve, _gone) = serve(SHORT);
        let all = u32::try_from(NAMES).unwrap();
        let _taken = serve.names.acquire_many(all).await.unwrap();
        let late = serve.limited(Class::Names, async { Ok(()) }).await;
        assert_eq!(late, Err(FsError::Unreachable));
    }

    #[tokio::test]
    async fn as_many_stuck_reads_as_there_are_permits_leave_names_alone() {
        let (serve, _gone) = serve(LONG);
        for _ in 0..READS * 2 {
            let stuck = serve.clone();
            serve.spawn(async move {
                let _late = stuck.limited(Class::Read, pending::<Result<()>>()).await;
            });
        }
        while serve.reads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let name = serve.limited(Class::Names, async { Ok(7) }).await;
        assert_eq!(name, Ok(7));
    }

    #[tokio::test]
    async fn the_end_is_told_when_the_last_task_has_ended() {
        let (serve, mut gone) = serve(LONG);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        serve.spawn(async move {
            let _ended = wait.await;
        });
        drop(serve);
        assert!(
            gone.try_recv()
                .is_err_and(|e| e == mpsc::error::TryRecvError::Empty)
        );
        go.send(()).unwrap();
        assert_eq!(gone.recv().await, None);
    }

    #[test]
    fn room_is_given_back_and_a_waiter_gets_it() {
        let budget = Budget::new(10);
        let first = budget.take(8);
        let waiter = {
            let budget = Arc::clone(&budget);
            std::thread::spawn(move || drop(budget.take(50)))
        };
        drop(first);
        waiter.join().unwrap();
        assert_eq!(*budget.free.lock(), 10);
    }
}
