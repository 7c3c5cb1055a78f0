//! Directories that are shown while they are listed.

use super::*;
use crate::store::StoreError;
use crate::store::fault::Kind;
use crate::types::RelPath;

const MANY: usize = 2500;

fn fill(twin: &Twin) {
    for number in 0..MANY {
        let key = format!("d/{number:04}");
        twin.put_behind(&key, "x", Headers::default());
    }
}

async fn opened(world: &World) -> Fh {
    let ino = world.at("d").await.unwrap().ino;
    world.fs.opendir(ino).await.unwrap()
}

/// One call: the names from `offset` on, and the offset behind the last.
async fn some(world: &World, fh: Fh, offset: i64) -> Result<(Vec<String>, i64)> {
    let (mut names, mut next) = (Vec::new(), offset);
    let mut emit = |entry: &DirEntry| {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
        next = entry.next;
        true
    };
    world.fs.readdir(fh, offset, false, &mut emit).await?;
    Ok((names, next))
}

async fn all(world: &World, fh: Fh) -> Result<Vec<String>> {
    world.read_names(fh).await
}

fn lists(world: &World) -> u64 {
    world.twin.counts().of(Op::List)
}

#[tokio::test]
async fn the_first_names_are_shown_before_the_last_page_is_asked_for() {
    let (world, fault) = World::faulty();
    fill(&world.twin);
    let fh = opened(&world).await;
    let before = lists(&world);
    fault.on(Op::List, 2, Kind::Hold);
    let (first, next) = some(&world, fh, 0).await.unwrap();
    assert_eq!(first.len(), 1002, "a page, and two dots");
    assert_eq!(lists(&world) - before, 1);
    while fault.pending() > 0 {
        tokio::task::yield_now().await;
    }
    fault.let_go();
    let (second, _) = some(&world, fh, next).await.unwrap();
    assert_eq!(second.first().unwrap(), "1000");
    let names = all(&world, fh).await.unwrap();
    assert_eq!(names.len(), MANY);
    world.fs.releasedir(fh);
}

#[tokio::test]
async fn a_directory_that_is_closed_early_is_listed_no_further() {
    let world = World::new();
    fill(&world.twin);
    let fh = opened(&world).await;
    let before = lists(&world);
    some(&world, fh, 0).await.unwrap();
    world.fs.releasedir(fh);
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert!(lists(&world) - before <= 2);
    let path = RelPath::new("d").unwrap();
    assert_eq!(world.fs.tree.view(|view| view.listed(&path)), None);
}

#[tokio::test]
async fn readers_share_a_listing_and_later_ones_are_told_what_is_known() {
    let world = World::new();
    fill(&world.twin);
    let (one, two) = (opened(&world).await, opened(&world).await);
    let before = lists(&world);
    let (left, right) = tokio::join!(all(&world, one), all(&world, two));
    assert_eq!(left.unwrap().len(), MANY);
    assert_eq!(right.unwrap().len(), MANY);
    assert_eq!(lists(&world) - before, 3);
    assert_eq!(world.names("d").await.unwrap().len(), MANY);
    assert_eq!(lists(&world) - before, 3);
}

#[tokio::test]
async fn names_made_here_while_it_is_listed_are_shown_once_and_removed_ones_not() {
    let world = World::new();
    fill(&world.twin);
    world.put("d/0001-new", b"n").await.unwrap();
    let fh = opened(&world).await;
    let (_, next) = some(&world, fh, 0).await.unwrap();
    world.put("d/late", b"n").await.unwrap();
    world.unlink("d/2400").await.unwrap();
    let mut rest = Vec::new();
    let mut offset = next;
    loop {
        let (more, next) = some(&world, fh, offset).await.unwrap();
        if more.is_empty() {
            break;
        }
        (offset, rest) = (next, [rest, more].concat());
    }
    let count = |wanted: &str| rest.iter().filter(|name| *name == wanted).count();
    assert_eq!(
        (
            count("late"),
            count("0001-new"),
            count("2400"),
            count("2401")
        ),
        (1, 1, 0, 1)
    );
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_an_error_and_not_a_short_directory() {
    let (world, fault) = World::faulty();
    fill(&world.twin);
    let fh = opened(&world).await;
    fault.on(
        Op::List,
        2,
        Kind::Before(StoreError::AccessDenied("no".into())),
    );
    let broken = all(&world, fh).await;
    assert!(broken.is_err(), "{:?}", broken.map(|names| names.len()));
    assert_eq!(all(&world, fh).await.unwrap().len(), MANY, "from its start");
}

#[tokio::test]
async fn a_directory_known_before_is_shown_whole_when_the_link_goes_while_it_is_listed() {
    let (world, fault) = World::faulty_with(Duration::ZERO);
    fill(&world.twin);
    assert_eq!(world.names("d").await.unwrap().len(), MANY);
    let fh = opened(&world).await;
    let (first, next) = some(&world, fh, 0).await.unwrap();
    fault.link_down(true);
    let (mut names, mut offset) = (first, next);
    loop {
        let (more, next) = some(&world, fh, offset).await.unwrap();
        if more.is_empty() {
            break;
        }
        (offset, names) = (next, [names, more].concat());
    }
    assert_eq!(names.len(), MANY + 2);
}

const HUGE: usize = 10_000;

fn fill_huge(twin: &Twin) {
    for number in 0..HUGE {
        let key = format!("d/{number:05}");
        twin.put_behind(&key, "x", Headers::default());
    }
    twin.put_behind("d/00000dir/x", "x", Headers::default());
}

#[tokio::test]
async fn a_directory_of_more_names_than_are_kept_is_shown_whole_and_each_name_once() {
    let world = World::new();
    fill_huge(&world.twin);
    world.put("d/00001", b"changed here").await.unwrap();
    world.put("d/zzz", b"new here").await.unwrap();
    let fh = opened(&world).await;
    let (mut names, mut next) = some(&world, fh, 0).await.unwrap();
    world.put("d/00002", b"changed meanwhile").await.unwrap();
    world.put("d/00000new", b"new meanwhile").await.unwrap();
    world.unlink("d/00900").await.unwrap();
    world.unlink("d/05000").await.unwrap();
    world.drain().await;
    loop {
        let (more, at) = some(&world, fh, next).await.unwrap();
        if more.is_empty() {
            break;
        }
        names.extend(more);
        next = at;
    }
    let unique: std::collections::BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(names.len(), unique.len(), "each once");
    // 900 was shown before it was removed.
    for number in 0..HUGE {
        let name = format!("{number:05}");
        assert_eq!(unique.contains(&name), number != 5000, "{name}");
    }
    assert!(unique.contains("zzz") && unique.contains("00000new"));
    let held = world.fs.tree.view(|view| view.names(&path()).len());
    assert!(held <= crate::tree::NAMES_MAX + 1000, "{held}");
    world.fs.releasedir(fh);
}

fn path() -> RelPath {
    RelPath::new("d").unwrap()
}

#[tokio::test]
async fn who_reads_a_large_directory_behind_somebody_else_is_shown_all_of_it_too() {
    let world = World::new();
    fill_huge(&world.twin);
    let (first, second) = (opened(&world).await, opened(&world).await);
    let (seen, next) = some(&world, second, 0).await.unwrap();
    assert_eq!(all(&world, first).await.unwrap().len(), HUGE + 1);
    let (mut names, mut at) = (seen.len() - 2, next);
    loop {
        let (more, next) = some(&world, second, at).await.unwrap();
        if more.is_empty() {
            break;
        }
        (names, at) = (names + more.len(), next);
    }
    assert_eq!(names, HUGE + 1);
    // What is not kept is asked for.
    assert_eq!(world.at("d/00007").await.unwrap().size, 1);
    let absent = world.at("d/absent").await.unwrap_err();
    assert_eq!(absent, FsError::NotFound);
    world.fs.releasedir(first);
    world.fs.releasedir(second);
}
