use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::*;
use crate::clock::{Clock, ManualClock};

const HOUR: Duration = Duration::from_secs(3600);

/// Issues `ID-0`, `ID-1`…, each for an hour, as often as the gate lets it and unless it is told
/// to fail.
#[derive(Debug)]
struct Issuer {
    clock: Arc<ManualClock>,
    gate: Semaphore,
    asked: AtomicUsize,
    fails: Mutex<Option<CredsError>>,
    panics: Mutex<bool>,
}

#[async_trait]
impl Source for Issuer {
    async fn obtain(&self) -> Result<Lease, CredsError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        assert!(!*self.panics.lock(), "the source breaks");
        if let Some(error) = self.fails.lock().clone() {
            return Err(error);
        }
        let (now, end) = (self.clock.boot(), SystemTime::UNIX_EPOCH);
        let secret = Zeroizing::new("s3cr3t".to_owned());
        let mut lease = Lease::new(format!("ID-{number}"), secret, None, now, HOUR, end);
        lease.identity = Some("region:guid".to_owned());
        Ok(lease)
    }
}

struct House {
    clock: Arc<ManualClock>,
    issuer: Arc<Issuer>,
    keeper: Keeper,
}

/// A source that is let through `permits` times.
fn house(permits: usize) -> House {
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
    let issuer = Arc::new(Issuer {
        clock: Arc::clone(&clock),
        gate: Semaphore::new(permits),
        asked: AtomicUsize::new(0),
        fails: Mutex::new(None),
        panics: Mutex::new(false),
    });
    let source: Arc<dyn Source> = Arc::<Issuer>::clone(&issuer);
    let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
    House {
        clock,
        issuer,
        keeper: Keeper::new(source, shared),
    }
}

impl House {
    fn asked(&self) -> usize {
        self.issuer.asked.load(Ordering::SeqCst)
    }

    async fn id(&self) -> String {
        self.keeper.lease().await.unwrap().access_key_id.clone()
    }

    /// Waits until no request is out.
    async fn landed(&self) {
        while self.keeper.0.state.lock().flight.is_some() {
            tokio::task::yield_now().await;
        }
    }

    fn fails(&self, error: Option<CredsError>) {
        *self.issuer.fails.lock() = error;
    }
}

fn silence() -> CredsError {
    CredsError::Silent("no link".to_owned())
}

async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn a_hundred_at_once_are_one_request() {
    let house = house(0);
    let mut all = Box::pin(join_all((0..100).map(|_| house.keeper.lease())));
    assert!(poll_once(&mut all).await.is_pending());
    house.issuer.gate.add_permits(100);
    for lease in all.await {
        assert_eq!(lease.unwrap().access_key_id, "ID-0");
    }
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn one_who_goes_away_takes_nothing_from_the_others() {
    let house = house(0);
    let mut first = Box::pin(house.keeper.lease());
    let mut second = Box::pin(house.keeper.lease());
    assert!(poll_once(&mut first).await.is_pending());
    assert!(poll_once(&mut second).await.is_pending());
    drop(first);
    house.issuer.gate.add_permits(1);
    assert_eq!(second.await.unwrap().access_key_id, "ID-0");
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn a_lease_serves_two_thirds_of_an_hour_without_a_request() {
    let house = house(9);
    assert_eq!(house.id().await, "ID-0");
    house.clock.advance(HOUR * 2 / 3 - Duration::from_secs(1));
    assert_eq!(house.id().await, "ID-0");
    house.landed().await;
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn near_its_end_the_old_one_is_given_out_while_the_new_one_is_fetched() {
    let house = house(1);
    assert_eq!(house.id().await, "ID-0");
    house.clock.advance(HOUR * 2 / 3);
    for _ in 0..100 {
        assert_eq!(house.id().await, "ID-0", "the source does not answer yet");
    }
    house.issuer.gate.add_permits(1);
    house.landed().await;
    assert_eq!(house.id().await, "ID-1");
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn without_traffic_there_are_no_requests() {
    let house = house(9);
    house.clock.advance(HOUR * 48);
    house.landed().await;
    assert_eq!(house.asked(), 0);
    assert_eq!(house.id().await, "ID-0");
    house.clock.advance(HOUR * 48);
    house.landed().await;
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn in_an_outage_the_old_one_serves_to_its_end_and_the_source_is_asked_seldom() {
    let house = house(1000);
    assert_eq!(house.id().await, "ID-0");
    house.fails(Some(silence()));
    house.clock.advance(HOUR * 2 / 3);
    let mut served = 0;
    while house.keeper.lease().await.is_ok() {
        house.landed().await;
        house.clock.advance(Duration::from_secs(1));
        served += 1;
    }
    assert_eq!(served, 1190, "seconds, to the margin before the end");
    let asked = house.asked();
    // Six doublings to the longest pause, then one in 5 s to 300 s each; with the least jitter
    // one in 5 s.
    assert!((6..=240).contains(&asked), "{asked}");

    assert_eq!(house.keeper.lease().await.unwrap_err(), silence());
    house.fails(None);
    house.clock.advance(BACKOFF.1);
    assert_eq!(house.id().await, format!("ID-{}", house.asked() - 1));
}

#[tokio::test]
async fn after_a_failure_nobody_asks_again_within_the_pause_unless_the_link_is_back() {
    let house = house(9);
    house.fails(Some(silence()));
    for _ in 0..100 {
        assert_eq!(house.keeper.lease().await.unwrap_err(), silence());
    }
    assert_eq!(house.asked(), 1);
    house.clock.advance(BACKOFF.0 - Duration::from_millis(1));
    house.keeper.lease().await.unwrap_err();
    assert_eq!(house.asked(), 1);

    house.keeper.link_is_back();
    house.fails(None);
    assert_eq!(house.id().await, "ID-1");
}

#[tokio::test]
async fn a_refused_lease_is_replaced_once() {
    let house = house(9);
    assert_eq!(house.id().await, "ID-0");
    house.keeper.refused("ID-0");
    assert_eq!(house.id().await, "ID-1");

    house.keeper.refused("ID-0");
    assert_eq!(
        house.id().await,
        "ID-1",
        "an old one says nothing of this one"
    );
    house.keeper.refused("ID-1");
    assert_eq!(house.id().await, "ID-1", "too soon");
    house.clock.advance(FORCED_APART);
    house.keeper.refused("ID-1");
    assert_eq!(house.id().await, "ID-2");
    assert_eq!(house.asked(), 3);
}

#[tokio::test]
async fn a_source_that_breaks_is_an_error_for_all_who_wait_and_not_the_end() {
    let house = house(9);
    *house.issuer.panics.lock() = true;
    let waiting = join_all((0..3).map(|_| house.keeper.lease())).await;
    for outcome in waiting {
        assert_eq!(outcome.unwrap_err(), lost());
    }
    *house.issuer.panics.lock() = false;
    house.clock.advance(BACKOFF.1);
    assert_eq!(house.id().await, "ID-1");
}

#[tokio::test]
async fn the_identity_is_remembered_beyond_the_lease() {
    let house = house(9);
    assert_eq!(house.keeper.identity(), None);
    house.id().await;
    house.clock.advance(HOUR * 2);
    house.keeper.refused("ID-0");
    assert_eq!(house.keeper.identity().unwrap(), "region:guid");
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let house = house(9);
    house.id().await;
    let text = format!("{:?}", house.keeper);
    assert!(text.contains("ID-0") && !text.contains("s3cr3t"), "{text}");
}
