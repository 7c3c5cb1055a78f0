//! What a close costs the device: flushes, and bytes for each byte of the user's.

use super::*;

/// Files of the same length, one after the other. Answers flushes a close, and for each user byte
/// the bytes handed to the disk and the bytes of the 4 KiB blocks that each flush has to write.
async fn cost(files: usize, len: usize) -> (f64, f64, f64) {
    let mut run = Run::new(|_| None);
    // The pool of data files and the next segment are made by then.
    run.carry_out(&Do::Put("first", bytes(1, len)))
        .await
        .unwrap();
    let before = run.recorder.all().len();
    for i in 0..files {
        let name = format!("f{i}");
        run.world().put(&name, &bytes(2, len)).await.unwrap();
    }
    stop(run.world.take().unwrap()).await;
    let (mut flushes, mut handed, mut blocks) = (0, 0, 0);
    let mut dirty = BTreeSet::new();
    for event in &run.recorder.all()[before..] {
        match event {
            Event::Write(path, at, data) => {
                handed += data.len();
                let touched = at / 4096..=(at + data.len() - 1) / 4096;
                dirty.extend(touched.map(|block| (path.clone(), block)));
            }
            Event::Flush(path) => {
                flushes += 1;
                let clean = dirty.len();
                dirty.retain(|(dirty, _)| dirty != path);
                blocks += clean - dirty.len();
            }
            Event::FlushDir(_) => flushes += 1,
            _ => {}
        }
    }
    let user = (files * len) as f64;
    (
        f64::from(flushes) / files as f64,
        handed as f64 / user,
        (blocks * 4096) as f64 / user,
    )
}

#[tokio::test]
async fn a_large_file_costs_two_flushes_and_little_more_than_its_bytes() {
    let (flushes, handed, blocks) = cost(2, 3 << 20).await;
    println!("3 MiB files: {flushes} flushes, {handed:.4} bytes a byte, {blocks:.4} in blocks");
    assert!(flushes <= 2.0, "{flushes}");
    assert!(handed <= 1.001 && blocks <= 1.1, "{handed} {blocks}");
}

#[tokio::test]
async fn a_small_file_costs_one_flush_and_a_record_of_a_few_hundred_bytes() {
    let (flushes, handed, blocks) = cost(60, 4096).await;
    println!("4 KiB files: {flushes} flushes, {handed:.3} bytes a byte, {blocks:.3} in blocks");
    // Create and seal share a flush; segments end now and then (a few flushes each).
    assert!(flushes <= 1.25, "{flushes}");
    // The record of the name and that of the seal, beside the bytes.
    assert!(handed <= 1.15, "{handed}");
    // They do not lie on whole blocks: the last block of one is the first of the next.
    assert!(blocks <= 2.3, "{blocks}");
}
