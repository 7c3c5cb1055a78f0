use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::super::fault::{Fault, Kind};
use super::super::twin::Twin;
use super::super::{ListRequest, counted::Counts};
use super::*;
use crate::clock::ManualClock;

const SECOND: Duration = Duration::from_secs(1);

/// A bucket with canaries behind a gate, and the hands that turn its world.
struct Rig {
    twin: Twin,
    fault: Arc<Fault>,
    clock: Arc<ManualClock>,
    footing: Arc<AtomicU64>,
    gate: Closed,
    store: Arc<dyn ObjectStore>,
    before: Counts,
}

async fn rig(every: Option<Duration>) -> Rig {
    let twin = Twin::new();
    canary::set_up(&twin).await.unwrap();
    let (bucket, fault) = Fault::over(Arc::new(twin.clone()));
    let (clock, footing) = (
        ManualClock::at(SystemTime::now()),
        Arc::new(AtomicU64::new(0)),
    );
    let stamp = Arc::clone(&footing);
    let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
    let gate = Closed::new(
        bucket,
        Config::of(every),
        shared,
        Box::new(move || stamp.load(Ordering::Relaxed)),
    );
    Rig {
        store: gate.store(),
        before: twin.counts(),
        twin,
        fault,
        clock,
        footing,
        gate,
    }
}

impl Rig {
    /// The `nth` read from now on is refused, as that of a canary by the bucket's policy.
    fn refuse(&self, nth: u64) {
        let denied = StoreError::AccessDenied("denied".into());
        self.fault.on(Op::Get, nth, Kind::Before(denied));
    }

    /// The way is closed at the next check: its second read is refused.
    fn closed(&self) {
        self.refuse(2);
    }

    /// Something a mount may want.
    async fn list(&self) -> Result<()> {
        let request = ListRequest {
            max_keys: 1,
            ..ListRequest::default()
        };
        self.store.list(&request).await.map(drop)
    }

    /// Reads that got through (a refused one did not) and listings since the last look.
    fn passed(&mut self) -> (u64, u64) {
        let now = self.twin.counts();
        let since = now.since(&self.before);
        self.before = now;
        (since.of(Op::Get), since.of(Op::List))
    }
}

fn is_stopped(answer: &Result<()>) -> bool {
    matches!(answer, Err(StoreError::NotClosed(_)))
}

#[tokio::test]
async fn one_check_comes_before_the_first_request_and_none_after_it() {
    let mut rig = rig(None).await;
    assert_eq!(rig.gate.standing(), Standing::Unknown);
    rig.closed();
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 1));
    for _ in 0..3 {
        rig.clock.advance(86_400 * SECOND);
        rig.list().await.unwrap();
    }
    assert_eq!(rig.passed(), (0, 3));
    assert_eq!(rig.gate.standing(), Standing::Proven(3 * 86_400 * SECOND));
}

#[tokio::test]
async fn without_the_proof_nothing_but_checks_is_sent_and_it_goes_on_by_itself() {
    let mut rig = rig(None).await;
    // Both can be read: this is not through the endpoint.
    assert!(is_stopped(&rig.list().await));
    assert_eq!(rig.passed(), (2, 0));
    for _ in 0..10 {
        assert!(is_stopped(&rig.list().await));
    }
    assert_eq!(rig.passed(), (0, 0), "it is not asked again so soon");
    assert!(matches!(rig.gate.standing(), Standing::Stopped(why, _) if why.contains("outside")));

    rig.clock.advance(5 * SECOND);
    assert!(is_stopped(&rig.list().await));
    rig.clock.advance(9 * SECOND);
    assert!(is_stopped(&rig.list().await));
    assert_eq!(rig.passed(), (2, 0), "the second pause is longer");
    rig.clock.advance(SECOND);
    rig.closed();
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 1));
    assert_eq!(rig.gate.standing(), Standing::Proven(Duration::ZERO));
}

#[tokio::test]
async fn no_pause_is_longer_than_five_minutes() {
    let mut rig = rig(None).await;
    for _ in 0..40 {
        rig.clock.advance(300 * SECOND);
        assert!(is_stopped(&rig.list().await));
        assert_eq!(rig.passed(), (2, 0));
    }
}

#[tokio::test]
async fn a_new_address_is_asked_about_before_anything_is_sent() {
    let mut rig = rig(None).await;
    rig.closed();
    rig.list().await.unwrap();
    rig.passed();
    rig.footing.store(1, Ordering::Relaxed);
    assert_eq!(rig.gate.standing(), Standing::Unknown);
    assert!(is_stopped(&rig.list().await));
    assert_eq!(rig.passed(), (2, 0));
    // Also one that comes while it is stopped: at once, whatever the pause.
    rig.footing.store(2, Ordering::Relaxed);
    rig.closed();
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 1));
}

#[tokio::test]
async fn a_proof_that_is_too_old_is_renewed_by_the_next_request_and_not_before() {
    let mut rig = rig(Some(3600 * SECOND)).await;
    rig.closed();
    rig.list().await.unwrap();
    rig.clock.advance(3599 * SECOND);
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 2));
    rig.clock.advance(10 * 3600 * SECOND);
    assert_eq!(rig.passed(), (0, 0));
    rig.closed();
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 1));
}

#[tokio::test]
async fn many_who_come_together_wait_for_one_check() {
    let mut rig = rig(None).await;
    rig.fault.on(Op::Get, 1, Kind::Hold);
    rig.closed();
    let all: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&rig.store);
            let request = ListRequest {
                max_keys: 1,
                ..ListRequest::default()
            };
            tokio::spawn(async move { store.list(&request).await.map(drop) })
        })
        .collect();
    while rig.fault.pending() > 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    rig.fault.let_go();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(rig.passed(), (1, 20));
}

#[tokio::test]
async fn silence_proves_nothing_and_the_next_request_asks_again() {
    let mut rig = rig(None).await;
    rig.fault.link_down(true);
    assert!(matches!(rig.list().await, Err(StoreError::Link(_))));
    assert_eq!(rig.gate.standing(), Standing::Unknown);
    rig.fault.link_down(false);
    rig.closed();
    rig.list().await.unwrap();
    assert_eq!(rig.passed(), (1, 1));
}

#[tokio::test]
async fn without_canaries_nothing_is_sent_and_it_is_said_what_to_do() {
    let mut rig = rig(None).await;
    assert!(rig.twin.delete_behind(canary::INSIDE));
    let Err(StoreError::NotClosed(why)) = rig.list().await else {
        panic!("it passed");
    };
    assert!(why.contains("--setup-canary"), "{why}");
    assert_eq!(rig.passed(), (1, 0));
}
