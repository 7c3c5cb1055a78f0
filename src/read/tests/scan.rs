use super::*;

async fn read_whole(world: &World, extents: &Extents, all: &[u8], window: &Window) {
    let size = all.len();
    let read = world
        .reader
        .read_at(extents, size as u64, 0, size, window)
        .await;
    assert!(read.unwrap() == all[..]);
}

#[tokio::test]
async fn a_reader_of_everything_once_does_not_push_out_what_two_handles_read() {
    let world = World::with(OPEN_GATE, |config| config.cache_max = 2 * MIB);
    let wanted = bytes(1, 256 * 1024);
    let (_, whole) = world.object("wanted", &wanted);
    for _ in 0..2 {
        read_whole(&world, &whole, &wanted, &Window::default()).await;
    }
    for n in 0..40_u64 {
        let all = bytes(n, 300 * 1024);
        let (_, scanned) = world.object(&format!("scan{n}"), &all);
        read_whole(&world, &scanned, &all, &Window::default()).await;
    }
    world.quiet().await;
    let before = world.store.count();
    read_whole(&world, &whole, &wanted, &Window::default()).await;
    assert_eq!(world.store.count(), before, "it was fetched again");
}

#[tokio::test]
async fn many_reads_by_one_handle_are_one_use_and_what_it_reads_stays_while_it_is_open() {
    let world = World::with(OPEN_GATE, |config| config.cache_max = 2 * MIB);
    let all = bytes(1, 256 * 1024);
    let (_, whole) = world.object("open", &all);
    let handle = Window::default();
    let scan = async |from: u64| {
        for n in from..from + 20 {
            let all = bytes(n, 300 * 1024);
            let (_, scanned) = world.object(&format!("scan{n}"), &all);
            read_whole(&world, &scanned, &all, &Window::default()).await;
        }
    };
    for _ in 0..3 {
        read_whole(&world, &whole, &all, &handle).await;
        read_whole(&world, &whole, &all, &handle.aside()).await;
    }
    scan(0).await;
    assert!(world.reader.is_local(&whole, 0, 256 * 1024));
    drop(handle);
    scan(20).await;
    assert!(!world.reader.is_local(&whole, 0, 256 * 1024));
}
