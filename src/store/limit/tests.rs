//! Who waits for whom.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::super::fault::{Fault, Kind};
use super::super::twin::Twin;
use super::super::{ListRequest, Payload};
use super::*;
use crate::types::{Headers, ObjectKey, Precondition};

/// Looks at a future once.
async fn look<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn data_does_not_keep_metadata_waiting() {
    let (store, fault) = Fault::over(Arc::new(Twin::new()));
    let one = Config {
        meta: 1,
        up: 1,
        down: 1,
    };
    let store = Limit::over(store, &one);
    let (payload, headers) = (Payload::of("x".into()), Headers::default());
    let (first, second) = (ObjectKey::new("a"), ObjectKey::new("b"));
    let none = Precondition::None;
    fault.on(Op::Put, 1, Kind::Hang);
    let mut hanging = Box::pin(store.put(&first, &payload, &headers, &none));
    assert!(look(hanging.as_mut()).await.is_none());
    let mut waiting = pin!(store.put(&second, &payload, &headers, &none));
    assert!(look(waiting.as_mut()).await.is_none(), "one at a time");
    let head = store.head(&first, None).await;
    assert_eq!(head, Err(StoreError::NotFound));
    let request = ListRequest {
        max_keys: 1,
        ..ListRequest::default()
    };
    assert_eq!(store.list(&request).await.unwrap().objects, []);
    drop(hanging);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_get_counts_until_its_body_is_gone() {
    let twin = Twin::new();
    twin.put_behind("a", "x", Headers::default());
    let one = Config {
        down: 1,
        ..Config::default()
    };
    let store = Limit::over(Arc::new(twin), &one);
    let key = ObjectKey::new("a");
    let mut first = store.get(&key, None, None).await.unwrap();
    let mut second = pin!(store.get(&key, None, None));
    assert!(look(second.as_mut()).await.is_none());
    assert_eq!(first.body.next().await, Some(Ok("x".into())));
    assert!(look(second.as_mut()).await.is_none());
    drop(first);
    assert!(second.await.is_ok());
}
