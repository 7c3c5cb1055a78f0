//! Tells the kernel what it must forget. On a thread of its own: the kernel may hold the lock of a
//! directory or a page while it waits for one of our answers, so no handler may do it.
//!
//! Invariant: the queue is bounded; what does not fit is dropped and counted. The kernel then trusts
//! what it was told until its time is over (`Fs::kernel_ttl`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use fuser::{INodeNo, Notifier};

use crate::fs::Ino;

/// Invalidations that may wait.
const QUEUE: usize = 1024;

/// Something the kernel is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// A name in a directory.
    Entry(Ino, Vec<u8>),
    /// Attributes and pages of an inode.
    Inode(Ino),
}

/// Sends invalidations. Cheap to clone; the thread ends with the last one.
#[derive(Clone, Debug)]
pub struct Notify {
    queue: SyncSender<Forget>,
    dropped: Arc<AtomicU64>,
}

impl Notify {
    pub(super) fn start(notifier: Notifier) -> io::Result<Self> {
        Self::with(move |forget| tell(&notifier, &forget))
    }

    fn with(sink: impl Fn(Forget) + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("kryptonfs-notify".into())
            .spawn(move || drain(&waiting, sink))?;
        Ok(Self {
            queue,
            dropped: Arc::default(),
        })
    }

    /// Queues one. Never waits.
    pub fn forget(&self, what: Forget) {
        if self.queue.try_send(what).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn drain(waiting: &Receiver<Forget>, sink: impl Fn(Forget)) {
    while let Ok(forget) = waiting.recv() {
        sink(forget);
    }
}

fn tell(notifier: &Notifier, forget: &Forget) {
    let told = match forget {
        Forget::Entry(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        }
        Forget::Inode(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
    };
    if let Err(error) = told {
        tracing::debug!(%error, "an invalidation was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn invalidations_arrive_in_their_order() {
        let (seen, all) = channel();
        let notify = Notify::with(move |forget| seen.send(forget).unwrap()).unwrap();
        notify.forget(Forget::Inode(Ino(7)));
        notify.forget(Forget::Entry(Ino(1), b"a".to_vec()));
        assert_eq!(all.recv().unwrap(), Forget::Inode(Ino(7)));
        assert_eq!(all.recv().unwrap(), Forget::Entry(Ino(1), b"a".to_vec()));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let (hold, held) = channel::<()>();
        let held = parking_lot::Mutex::new(held);
        let notify = Notify::with(move |_| {
            let _ended = held.lock().recv();
        })
        .unwrap();
        for ino in 0..=(QUEUE as u64 + 1) {
            notify.forget(Forget::Inode(Ino(ino)));
        }
        assert!(notify.dropped() >= 1);
        drop(hold);
    }
}
