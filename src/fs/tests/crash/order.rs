//! What is on the device before what: seen in the steps themselves, and where one of them fails.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::disk::Step;

fn is_in(folder: &str, path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with(folder))
}

#[tokio::test]
async fn a_close_flushes_the_bytes_then_the_record_and_answers_after_both() {
    let mut run = Run::new(|_| None);
    // The pool of data files is made by then.
    let first = Do::Put("a", bytes(1, 70_000));
    run.carry_out(&first).await.unwrap();
    let before = run.recorder.all().len();
    let second = Do::Put("b", bytes(2, 70_000));
    run.carry_out(&second).await.unwrap();
    let events = run.recorder.all().split_off(before);
    let is_answer = |event: &Event| matches!(event, Event::Acknowledged);
    let answered = events.iter().position(is_answer).unwrap();
    let last = |folder: &str, is_flush: bool| {
        let found = events[..answered].iter().rposition(|event| match event {
            Event::Write(path, ..) => !is_flush && is_in(folder, path),
            Event::Flush(path) => is_flush && is_in(folder, path),
            _ => false,
        });
        found
            .unwrap_or_else(|| panic!("{folder}: nothing, or it was not flushed before the answer"))
    };
    assert!(last("data", false) < last("data", true), "bytes");
    assert!(last("data", true) < last("log", false), "then the record");
    assert!(last("log", false) < last("log", true), "then the answer");
    stop(run.world.take().unwrap()).await;
}

#[tokio::test]
async fn segments_stay_where_what_replaces_them_cannot_be_flushed() {
    let (is_armed, dir) = (
        Arc::new(AtomicBool::new(false)),
        tempfile::tempdir().unwrap(),
    );
    let disk = Disk::watched(Box::new({
        let is_armed = Arc::clone(&is_armed);
        move |step| match step {
            Step::Flush(path) if is_in("log", path) && is_armed.load(Ordering::SeqCst) => {
                Err(nix::errno::Errno::EIO.into())
            }
            _ => Ok(()),
        }
    }));
    let world = world_on(&disk, &Twin::new(), None, dir.path());
    world.put("a", &bytes(1, 9000)).await.unwrap();
    world.put("a", &bytes(2, 700)).await.unwrap();
    world.fs.log.rotate().unwrap();
    let before = world.fs.log.closed();
    assert!(!before.is_empty());
    is_armed.store(true, Ordering::SeqCst);
    let tree = Arc::clone(&world.fs.tree);
    let dropped = tokio::task::spawn_blocking(move || tree.drop_oldest(0));
    assert!(dropped.await.unwrap().is_err());
    assert_eq!(world.fs.log.closed(), before);
    stop(world).await;
    let world = world_on(&Disk::default(), &Twin::new(), None, dir.path());
    assert_eq!(world.get("a").await.unwrap(), bytes(2, 700));
    stop(world).await;
}
