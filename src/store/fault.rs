//! Scripted faults for tests: what a link and a server can do to a request, on command.
//!
//! Invariant: a fault happens to exactly the request it was scripted for, once; what is not
//! scripted passes untouched.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::layer::{Layer, Layered};
use super::{ObjectStore, Op, Result, StoreError};

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It fails; the store never saw it.
    Before(StoreError),
    /// The store carries it out, but its answer is lost: this error comes instead.
    After(StoreError),
    /// A GET's body breaks off behind so many bytes.
    Cut(u64),
    /// It is never answered, and the store never saw it.
    Hang,
    /// It is sent once `let_go` is called, not before.
    Hold,
}

#[derive(Debug)]
struct Scripted {
    op: Op,
    /// Requests of `op` that still pass before it happens.
    passes: u64,
    kind: Kind,
}

#[derive(Debug, Default)]
struct State {
    script: Vec<Scripted>,
    down: bool,
}

/// The layer that fails on command.
#[derive(Debug, Default)]
pub struct Fault {
    /// Guards the script; held for a look only.
    state: Mutex<State>,
    /// What is held waits for this.
    go: Notify,
}

impl Fault {
    /// `inner`, and the hand that breaks it.
    pub fn over(inner: Arc<dyn ObjectStore>) -> (Arc<Layered<Self>>, Arc<Self>) {
        let fault = Arc::new(Self::default());
        (
            Arc::new(Layered::new(inner, Arc::clone(&fault))),
            Arc::clone(&fault),
        )
    }

    /// `kind` happens to the `nth` request of `op` from now on (1: the next one).
    pub fn on(&self, op: Op, nth: u64, kind: Kind) {
        let passes = nth.saturating_sub(1);
        self.state.lock().script.push(Scripted { op, passes, kind });
    }

    /// Takes the link down (every request and body fails at once) or up again.
    pub fn link_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// Lets go of the requests that are held now.
    pub fn let_go(&self) {
        self.go.notify_waiters();
    }

    /// How many scripted faults have not happened yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state.lock().script.len()
    }

    fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// The fault of the request that starts now. Every scripted fault of `op` counts it.
    fn take(&self, op: Op) -> Option<Kind> {
        let mut state = self.state.lock();
        let due = state
            .script
            .iter()
            .position(|fault| fault.op == op && fault.passes == 0);
        for fault in state.script.iter_mut().filter(|fault| fault.op == op) {
            fault.passes = fault.passes.saturating_sub(1);
        }
        due.map(|at| state.script.remove(at).kind)
    }
}

fn no_link() -> StoreError {
    StoreError::Link("the link is down".to_owned())
}

/// What is left to happen to a request under way.
#[derive(Debug)]
pub struct Pending {
    lost: Option<StoreError>,
    cut: Option<u64>,
}

#[async_trait]
impl Layer for Fault {
    type Held = Pending;

    async fn before(&self, op: Op, _up: u64) -> Result<Pending> {
        if self.is_down() {
            return Err(no_link());
        }
        let (lost, cut) = match self.take(op) {
            None => (None, None),
            Some(Kind::Before(error)) => return Err(error),
            Some(Kind::After(error)) => (Some(error), None),
            Some(Kind::Cut(bytes)) => (None, Some(bytes)),
            Some(Kind::Hang) => std::future::pending().await,
            Some(Kind::Hold) => {
                self.go.notified().await;
                (None, None)
            }
        };
        Ok(Pending { lost, cut })
    }

    fn after(&self, held: &Pending, _op: Op, _failed: Option<&StoreError>) -> Result<()> {
        if self.is_down() {
            return Err(no_link());
        }
        held.lost.clone().map_or(Ok(()), Err)
    }

    fn piece(&self, held: &mut Pending, piece: Option<Result<Bytes>>) -> Option<Result<Bytes>> {
        if self.is_down() {
            return Some(Err(no_link()));
        }
        let Some(left) = &mut held.cut else {
            return piece;
        };
        match piece {
            Some(Ok(mut bytes)) if *left > 0 => {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
                Some(Ok(bytes))
            }
            _ => Some(Err(StoreError::Link("the body broke off".to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;
    use super::super::{Payload, StoreError};
    use super::*;
    use crate::types::{Headers, ObjectKey, Precondition};

    fn throttled() -> Kind {
        Kind::Before(StoreError::Throttled)
    }

    #[tokio::test]
    async fn a_fault_happens_to_its_request_only_and_once() {
        let twin = Twin::new();
        twin.put_behind("k", "x", Headers::default());
        let (store, fault) = Fault::over(Arc::new(twin.clone()));
        let key = ObjectKey::new("k");
        fault.on(Op::Head, 2, throttled());
        fault.on(Op::Head, 3, throttled());
        let mut failed = Vec::new();
        for _ in 0..5 {
            failed.push(store.head(&key, None).await.is_err());
            assert!(store.get(&key, None, None).await.is_ok());
        }
        assert_eq!(failed, [false, true, true, false, false]);
        assert_eq!(fault.pending(), 0);
        assert_eq!(
            twin.counts().of(Op::Head),
            3,
            "what fails before is not sent"
        );
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_its_deed() {
        let twin = Twin::new();
        let (store, fault) = Fault::over(Arc::new(twin.clone()));
        fault.on(Op::Put, 1, Kind::After(no_link()));
        let payload = Payload::of("x".into());
        let (key, headers) = (ObjectKey::new("k"), Headers::default());
        let put = store.put(&key, &payload, &headers, &Precondition::None);
        assert_eq!(put.await, Err(no_link()));
        assert_eq!(twin.object("k").unwrap().0, "x");
    }

    #[tokio::test]
    async fn a_link_that_is_down_fails_requests_and_bodies_until_it_is_up() {
        let twin = Twin::new();
        twin.put_behind("k", "x", Headers::default());
        let (store, fault) = Fault::over(Arc::new(twin));
        let key = ObjectKey::new("k");
        let mut got = store.get(&key, None, None).await.unwrap();
        fault.link_down(true);
        assert_eq!(got.body.next().await, Some(Err(no_link())));
        assert_eq!(store.head(&key, None).await, Err(no_link()));
        fault.link_down(false);
        assert!(store.head(&key, None).await.is_ok());
    }
}
