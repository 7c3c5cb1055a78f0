//! What is done in the runs that are cut off, and what is so after each of it.

use std::collections::BTreeMap;

/// What a user does.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// Create (or rewrite), write, close.
    Put(&'static str, Vec<u8>),
    /// Open, write behind the end, close.
    Append(&'static str, Vec<u8>),
    /// Open, write in the middle, fsync (which is acknowledged), write more, close.
    Sync(&'static str, u64, Vec<u8>),
    Rename(&'static str, &'static str),
    MakeDir(&'static str),
    Unlink(&'static str),
    /// Open, write, and never close: nothing of it is acknowledged.
    Leave(&'static str, Vec<u8>),
    Chmod(&'static str),
    /// All that is pending is sent.
    Send,
    /// The current segment is closed and what is not needed of the old ones dropped.
    Compact,
    /// Stop and start, with something left unflushed.
    Restart,
}

/// Names and bytes; of a directory none.
pub(super) type Names = BTreeMap<String, Option<Vec<u8>>>;

pub(super) fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| seed.wrapping_add((i % 251) as u8))
        .collect()
}

/// A name, and what is done.
pub(super) type Scenario = (&'static str, Vec<Do>);

pub(super) fn scenarios() -> Vec<Scenario> {
    [of_names_and_bytes(), of_sending(), of_starts()].concat()
}

fn of_names_and_bytes() -> Vec<Scenario> {
    use Do::*;
    let small = |seed| bytes(seed, 700);
    let large = |seed| bytes(seed, 70_000);
    vec![
        (
            "create small",
            vec![Put("a", small(1)), Put("b", Vec::new()), Put("a", small(2))],
        ),
        ("create large", vec![Put("a", large(1)), Put("b", large(2))]),
        (
            "append",
            vec![
                Put("a", small(1)),
                Append("a", small(2)),
                Append("a", large(3)),
                Append("a", small(4)),
            ],
        ),
        (
            "rewrite",
            vec![
                Put("a", large(1)),
                Put("a", large(2)),
                Sync("a", 1000, small(3)),
                Sync("a", 60_000, large(4)),
            ],
        ),
        (
            "rename",
            vec![
                Put("a", small(1)),
                Put("b", large(2)),
                Rename("a", "c"),
                Rename("b", "c"),
                Put("b", small(3)),
            ],
        ),
        (
            "rename a directory",
            vec![
                MakeDir("d"),
                Put("d/a", small(1)),
                Put("d/b", large(2)),
                Rename("d", "e"),
                Put("e/c", small(3)),
                Rename("e/c", "c"),
            ],
        ),
    ]
}

fn of_sending() -> Vec<Scenario> {
    use Do::*;
    let small = |seed| bytes(seed, 700);
    let large = |seed| bytes(seed, 70_000);
    vec![
        (
            "unlink",
            vec![
                Put("a", small(1)),
                Put("b", large(2)),
                Unlink("a"),
                Unlink("b"),
                Put("a", small(3)),
            ],
        ),
        (
            "send",
            vec![
                Put("a", small(1)),
                Put("b", large(2)),
                Send,
                Append("a", small(3)),
                Unlink("b"),
                Rename("a", "c"),
                Send,
                Put("c", large(4)),
                Send,
                Chmod("c"),
                Send,
            ],
        ),
        (
            "send in parts",
            vec![
                Put("a", bytes(1, 9 << 20)),
                Send,
                Append("a", small(2)),
                Send,
            ],
        ),
    ]
}

fn of_starts() -> Vec<Scenario> {
    use Do::*;
    let small = |seed| bytes(seed, 700);
    let large = |seed| bytes(seed, 70_000);
    vec![
        (
            "compaction",
            vec![
                Put("a", bytes(5, 9000)),
                Put("a", small(1)),
                Put("b", large(2)),
                Put("c", small(3)),
                Compact,
                Put("a", bytes(6, 9000)),
                Unlink("a"),
                Rename("c", "d"),
                Send,
                Compact,
                Put("a", small(4)),
                Put("a", small(5)),
                Compact,
            ],
        ),
        (
            "restart",
            vec![
                Put("a", small(1)),
                Put("b", large(2)),
                Restart,
                Append("a", small(3)),
                Send,
                Restart,
                Unlink("b"),
            ],
        ),
        (
            "never closed",
            vec![
                Put("a", small(1)),
                Leave("b", large(2)),
                Leave("c", small(3)),
                Restart,
                Put("b", small(4)),
            ],
        ),
    ]
}

/// What the oracle says after each operation.
pub(super) fn oracle(all: &[Do]) -> Vec<Names> {
    let mut state = Names::new();
    let mut states = vec![state.clone()];
    for this in all {
        match this {
            Do::Put(name, new) => drop(state.insert((*name).into(), Some(new.clone()))),
            Do::Append(name, new) => state.get_mut(*name).unwrap().as_mut().unwrap().extend(new),
            Do::Sync(name, at, new) => {
                let old = state.get_mut(*name).unwrap().as_mut().unwrap();
                let at = usize::try_from(*at).unwrap();
                old.resize(old.len().max(at + new.len()), 0);
                old[at..at + new.len()].copy_from_slice(new);
                states.push(state.clone());
                let old = state.get_mut(*name).unwrap().as_mut().unwrap();
                old[..3].copy_from_slice(b"end");
            }
            Do::Rename(from, to) => {
                let below = format!("{from}/");
                let moved: Vec<_> = state
                    .keys()
                    .filter(|name| *name == from || name.starts_with(&below))
                    .cloned()
                    .collect();
                for name in moved {
                    let content = state.remove(&name).unwrap();
                    state.insert(format!("{to}{}", &name[from.len()..]), content);
                }
            }
            Do::MakeDir(name) => drop(state.insert((*name).into(), None)),
            Do::Unlink(name) => drop(state.remove(*name)),
            Do::Leave(..) | Do::Chmod(_) | Do::Send | Do::Compact | Do::Restart => {}
        }
        states.push(state.clone());
    }
    states
}
