//! The concurrent life of files: generated sequences of operations by two processes, carried out on a
//! mount and on a plain directory beside it, answer by answer the same: results, errnos, sizes,
//! bytes, modes, link counts; at the end of each the whole tree, and the order of its mtimes. In the
//! end the bucket holds that tree.
//!
//! What the uploads do meanwhile is the world's: none yet, one behind each close, or all of them
//! stuck in a link that fell silent.

mod generate;
mod regressions;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::{Mount, Server, World, long, shell, try_shell};
use generate::{Operation, sequence};
use regressions::REGRESSIONS;
use side::Side;

/// Operations of a sequence.
const LENGTH: usize = 60;
/// A time set by hand is before it, one by the clock behind.
const BY_HAND: i128 = 1_600_000_000_000_000_000;
/// A failure is tried to be made smaller at most so often.
const SHRINKS: usize = 400;

/// The mount and the directory beside it.
struct Pair {
    mount: Side,
    plain: Side,
    /// Directories made so far, one a run.
    runs: usize,
    /// Operations so far, and those of them that succeeded.
    operations: (usize, usize),
}

/// One entry of the tree at the end: what is compared exactly, and its mtime in nanoseconds.
type Entry = (String, i128);

impl Pair {
    fn new(mount: &Path, plain: &Path) -> Self {
        Self {
            mount: Side::new(mount),
            plain: Side::new(plain),
            runs: 0,
            operations: (0, 0),
        }
    }

    /// Carries a sequence out on both sides; the first difference.
    fn differ(&mut self, operations: &[Operation], meanwhile: &dyn Fn()) -> Option<String> {
        self.runs += 1;
        let name = format!("run{}", self.runs);
        self.mount.begin(&name);
        self.plain.begin(&name);
        meanwhile();
        let mut difference = None;
        for (step, operation) in operations.iter().enumerate() {
            let (process, what) = operation.split_once(' ').expect("PROCESS VERB");
            let process = usize::from(process == "1");
            let (seen, expected) = (self.mount.run(process, what), self.plain.run(process, what));
            let has_failed = expected.starts_with('E');
            self.operations.0 += 1;
            self.operations.1 += usize::from(!has_failed);
            if seen != expected {
                difference = Some(format!(
                    "step {step}, `{operation}`: {seen}, but beside it {expected}"
                ));
                break;
            }
        }
        let difference = difference.or_else(|| {
            let (seen, expected) = (self.mount.run(0, "tree"), self.plain.run(0, "tree"));
            tree_differs(&seen, &expected, operations)
        });
        self.mount.end();
        self.plain.end();
        difference.or_else(|| self.closed_differs(&name))
    }

    /// The same look when all is closed.
    fn closed_differs(&mut self, name: &str) -> Option<String> {
        let sides = [&mut self.mount, &mut self.plain];
        let [seen, expected] = sides.map(|side| {
            side.begin(name);
            let tree = side.run(0, "tree");
            side.end();
            entries(&tree)
        });
        let exact = |tree: &BTreeMap<String, Entry>| -> Vec<String> {
            tree.iter()
                .map(|(name, (look, _))| format!("{name}: {look}"))
                .collect()
        };
        let (seen, expected) = (exact(&seen), exact(&expected));
        (seen != expected).then(|| format!("closed: {seen:#?}, but beside it {expected:#?}"))
    }

    /// The same, and if they differ, by as few operations as it can be shown with.
    fn must_agree(&mut self, title: &str, operations: &[Operation], meanwhile: &dyn Fn()) {
        let Some(mut why) = self.differ(operations, meanwhile) else {
            return;
        };
        let mut smallest = operations.to_vec();
        let (mut at, mut tries) = (smallest.len(), 0);
        while at > 0 && tries < SHRINKS {
            (at, tries) = (at - 1, tries + 1);
            let mut fewer = smallest.clone();
            fewer.remove(at);
            if let Some(still) = self.differ(&fewer, meanwhile) {
                (smallest, why) = (fewer, still);
                at = at.min(smallest.len());
            }
        }
        panic!("{title}: {why}\n{}\n", smallest.join("\n"));
    }
}

fn entries(tree: &str) -> BTreeMap<String, Entry> {
    let all = tree.split(';').filter(|line| *line != "-");
    all.map(|line| {
        let (rest, mtime) = line.rsplit_once('|').expect("NAME|STAT|CONTENT|MTIME");
        let (name, look) = rest.split_once('|').expect("NAME|STAT|CONTENT");
        let mtime = mtime.parse().expect("nanoseconds");
        (name.to_owned(), (look.to_owned(), mtime))
    })
    .collect()
}

/// Exactly the same, but for mtimes: those set by hand are the same, those by the clock have the
/// same order. A store to a mapping is dated when the kernel gets to it, here as there.
fn tree_differs(seen: &str, expected: &str, operations: &[Operation]) -> Option<String> {
    let (seen, expected) = (entries(seen), entries(expected));
    let mut looks = seen.iter().zip(&expected);
    if seen.len() != expected.len() || looks.any(|(a, b)| (a.0, &a.1.0) != (b.0, &b.1.0)) {
        return Some(format!("the tree: {seen:#?}, but beside it {expected:#?}"));
    }
    if operations
        .iter()
        .any(|operation| operation.contains(" store "))
    {
        return None;
    }
    let by_hand = |at: i128| at < BY_HAND;
    for (name, (_, there)) in &expected {
        let here = seen[name].1;
        if (by_hand(*there) || by_hand(here)) && here != *there {
            return Some(format!("mtime of {name}: {here}, but beside it {there}"));
        }
        for (other, (_, later)) in &expected {
            let is_before = there < later && !by_hand(*there);
            if is_before && here > seen[other].1 {
                return Some(format!(
                    "{name} was changed before {other}, but is shown behind"
                ));
            }
        }
    }
    None
}

/// What a drained bucket holds against what the plain directory does: names and bytes.
fn bucket_agrees(world: &World, mount: &Mount, plain: &Path) {
    mount.drain();
    let root = world.key("");
    let objects = world.client.tree(&root);
    let files: BTreeSet<(String, String)> = objects
        .iter()
        .filter(|object| !object.key.ends_with('/'))
        .map(|object| (object.key[root.len()..].to_owned(), object.sha256.clone()))
        .collect();
    let expected = crate::harness::tree::read_tree(plain);
    let expected: BTreeSet<_> = expected
        .into_iter()
        .filter(|(_, node)| node.kind != 'd')
        .map(|(name, node)| (name, node.sha256))
        .collect();
    let differ: Vec<_> = files.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// How many sequences a world gets.
fn count() -> u64 {
    if long() { 500 } else { 34 }
}

/// Runs the sequences from `first` on; `meanwhile` is what the world does as each begins.
fn side_by_side(name: &str, linger: &str, first: u64, meanwhile: impl Fn(&World, u64)) {
    let world = World::new(Server::Sim, name);
    let mount = world.spec().with("linger", linger).mount();
    let plain = world.local("plain");
    let mut pair = Pair::new(mount.dir(), &plain);
    for number in first..first + count() {
        let title = format!("sequence {number}");
        let operations = sequence(number, LENGTH);
        // Whether the new folder is there only the bucket can tell.
        world.relay.open();
        pair.must_agree(&title, &operations, &|| meanwhile(&world, number));
    }
    world.relay.open();
    bucket_agrees(&world, &mount, &plain);
    let (all, succeeded) = pair.operations;
    println!(
        "side by side, {name}: {} sequences, {all} operations, {succeeded} of them successful",
        count()
    );
    assert!(succeeded * 2 > all, "too few operations do anything");
}

#[test]
fn with_nothing_uploaded_yet_a_mount_behaves_like_a_local_directory() {
    side_by_side("nothing-uploaded", "1h", 0, |_, _| {});
}

#[test]
fn while_every_close_is_uploaded_at_once_a_mount_behaves_like_a_local_directory() {
    side_by_side("uploaded-at-once", "0s", 10_000, |_, _| {});
}

/// Every other sequence meets uploads that do not come on, the next ones their end.
#[test]
fn while_uploads_hang_and_go_on_a_mount_behaves_like_a_local_directory() {
    side_by_side("uploads-hang", "0s", 20_000, |world, number| {
        if number % 2 == 0 {
            world.relay.silence();
        }
    });
}

#[test]
fn what_differed_once_does_not_again() {
    let world = World::new(Server::Sim, "regressions");
    let mount = world.spec().with("linger", "0s").mount();
    let plain = world.local("plain");
    let mut pair = Pair::new(mount.dir(), &plain);
    for (name, operations) in REGRESSIONS {
        let operations: Vec<_> = operations
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        pair.must_agree(name, &operations, &|| {});
    }
    bucket_agrees(&world, &mount, &plain);
}

/// Two processes append at the same time: every line is there, whole, in its writer's order.
#[test]
fn what_two_processes_append_at_once_is_all_there_in_whole_lines() {
    const LINES: usize = 500;
    let world = World::new(Server::Sim, "append");
    let mount = world.spec().with("linger", "0s").mount();
    shell(
        mount.dir(),
        &format!(
            "writer() {{ for n in $(seq {LINES}); do echo \"$1 $n\"; done >> log; }}
             writer a & first=$!; writer b; wait $first"
        ),
    );
    let numbers_of = |text: &str, who: &str| -> Vec<usize> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(who));
        lines
            .map(|n| n.trim().parse().expect("a whole line"))
            .collect()
    };
    let all: Vec<usize> = (1..=LINES).collect();
    mount.drain();
    let sent = world.client.get(&world.key("log")).body;
    for text in [std::fs::read(mount.path("log")).unwrap(), sent] {
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 2 * LINES);
        assert_eq!(numbers_of(&text, "a "), all);
        assert_eq!(numbers_of(&text, "b "), all);
    }
}

/// fuser computes with what utimensat(2) brings; an overflow there ended the mount.
#[test]
fn a_time_beyond_all_reason_leaves_the_mount_alive() {
    let world = World::new(Server::Sim, "times");
    let mut mount = world.spec().mount();
    for secs in ["-2**63", "2**63 - 1", "-1"] {
        let script = format!("import os; open('f', 'w').close(); os.utime('f', ({secs}, {secs}))");
        // Whether the kernel takes such a time is its own; what it took is shown and stored.
        let _said = try_shell(mount.dir(), &format!("python3 -I -c \"{script}\"; stat f"));
        assert_eq!(
            shell(mount.dir(), "echo there > g; cat g"),
            "there\n",
            "{secs}"
        );
    }
    mount.drain();
    assert!(mount.is_alive());
}
