//! Two mounts and an S3 client read and write the same few files at once; what each saw, and when, is
//! held against close-to-open consistency.
//!
//! The rules, of a read that began after it was opened: it shows one content, whole; somebody had
//! begun to write that before the read ended; and no other write of the file lies, as a whole, between
//! the end of that one and the begin of the read. A handle that is read from later shows the rest of
//! the content it began with, or `ESTALE`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::harness::{Server, Spec, World, long};

const FILES: u64 = 8;
/// Of a content: so many bytes each, with its number.
const LINE: usize = 9;

/// When something began and ended.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: Instant,
    end: Instant,
}

/// A write or a read: of which file, which content.
#[derive(Clone, Copy, Debug)]
struct Seen {
    file: u64,
    content: u64,
    is_write: bool,
    span: Span,
}

/// All of content `number`; up to 60 KB, so that it is more than one block.
fn content(number: u64) -> Vec<u8> {
    let lines = usize::try_from(1 + number * 7919 % 6600).unwrap();
    format!("{number:08}\n").repeat(lines).into_bytes()
}

/// Which content this is.
fn number_of(bytes: &[u8]) -> u64 {
    let line = bytes.get(..LINE - 1).map(String::from_utf8_lossy);
    let number = line.and_then(|line| line.parse().ok());
    let number = number.unwrap_or_else(|| panic!("no content: {} B", bytes.len()));
    let wanted = content(number);
    let at = wanted
        .iter()
        .zip(bytes)
        .position(|(one, other)| one != other);
    let lens = (bytes.len(), wanted.len());
    assert!(
        at.is_none() && lens.0 == lens.1,
        "{number} torn at {at:?}, {lens:?} B"
    );
    number
}

/// The same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Span, T) {
    let start = Instant::now();
    let done = work();
    let end = Instant::now();
    (Span { start, end }, done)
}

/// One of the three, and what it saw.
struct Actor<'a> {
    dice: Dice,
    /// Contents are numbered, each is written once.
    next: &'a AtomicU64,
    seen: Vec<Seen>,
}

impl<'a> Actor<'a> {
    fn new(seed: u64, next: &'a AtomicU64) -> Self {
        let seen = Vec::new();
        let dice = Dice(seed);
        Self { dice, next, seen }
    }

    fn note(&mut self, file: u64, content: u64, is_write: bool, span: Span) {
        self.seen.push(Seen {
            file,
            content,
            is_write,
            span,
        });
    }

    fn write(&mut self, file: u64, write: impl FnOnce(&[u8])) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = content(number);
        let (span, ()) = timed(|| write(&bytes));
        self.note(file, number, true, span);
    }

    /// Nothing is seen where somebody replaced it meanwhile.
    fn read_on(&mut self, dir: &Path, file: u64) {
        let (span, read) = timed(|| fs::read(path(dir, file)));
        if let Some(bytes) = unless_stale(read) {
            self.note(file, number_of(&bytes), false, span);
        }
    }

    /// The rest is read after another operation.
    fn read_in_two(&mut self, dir: &Path, file: u64) {
        let mut all = vec![0; LINE];
        let (span, open) = timed(|| {
            let mut open = File::open(path(dir, file))?;
            open.read_exact(&mut all)?;
            Ok(open)
        });
        self.read_on(dir, (file + 1) % FILES);
        let rest = open.and_then(|mut open| open.read_to_end(&mut all));
        if unless_stale(rest).is_some() {
            self.note(file, number_of(&all), false, span);
        }
    }
}

fn unless_stale<T>(read: io::Result<T>) -> Option<T> {
    let is_stale = |error: &io::Error| error.raw_os_error() == Some(libc::ESTALE);
    read.inspect_err(|error| assert!(is_stale(error), "{error}"))
        .ok()
}

fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("f{file}"))
}

fn on_mount(mut actor: Actor<'_>, dir: &Path, steps: u64) -> Vec<Seen> {
    for _ in 0..steps {
        let file = actor.dice.below(FILES);
        match actor.dice.below(8) {
            0..3 => actor.write(file, |bytes| fs::write(path(dir, file), bytes).unwrap()),
            3 => actor.read_in_two(dir, file),
            _ => actor.read_on(dir, file),
        }
    }
    actor.seen
}

fn by_client(mut actor: Actor<'_>, world: &World, steps: u64) -> Vec<Seen> {
    let key = |file: u64| world.key(&format!("f{file}"));
    for _ in 0..steps {
        let file = actor.dice.below(FILES);
        match actor.dice.below(2) {
            0 => actor.write(file, |bytes| {
                world.client.put(&key(file), bytes);
            }),
            _ => {
                let (span, object) = timed(|| world.client.get(&key(file)));
                actor.note(file, number_of(&object.body), false, span);
            }
        }
    }
    actor.seen
}

/// Reads that break the rules.
fn violations(seen: &[Seen]) -> Vec<String> {
    let mut found = Vec::new();
    for file in 0..FILES {
        let of_file = || seen.iter().filter(|seen| seen.file == file);
        let writes: Vec<&Seen> = of_file().filter(|seen| seen.is_write).collect();
        for read in of_file().filter(|seen| !seen.is_write) {
            let Some(write) = writes.iter().find(|write| write.content == read.content) else {
                found.push(format!("{read:?} shows what was written elsewhere"));
                continue;
            };
            if write.span.start > read.span.end {
                found.push(format!("{read:?} shows {write:?}"));
            }
            let between = writes.iter().find(|other| {
                other.span.start > write.span.end && other.span.end < read.span.start
            });
            if let Some(newer) = between {
                found.push(format!("{read:?} shows {write:?}, and not {newer:?}"));
            }
        }
    }
    found
}

#[test]
fn a_history_with_an_old_read_is_told_from_one_without() {
    let start = Instant::now();
    let at = |ms: u64| start + std::time::Duration::from_millis(ms);
    let seen = |content, is_write, from, to| Seen {
        file: 0,
        content,
        is_write,
        span: Span {
            start: at(from),
            end: at(to),
        },
    };
    let (one, two) = (seen(1, true, 0, 10), seen(2, true, 20, 30));
    for (read, is_right) in [
        (seen(1, false, 5, 6), true),
        (seen(1, false, 25, 40), true),
        (seen(2, false, 25, 40), true),
        (seen(1, false, 31, 40), false),
        (seen(2, false, 12, 19), false),
        (seen(3, false, 31, 40), false),
    ] {
        let found = violations(&[one, two, read]);
        assert_eq!(found.is_empty(), is_right, "{read:?}: {found:?}");
    }
}

#[test]
fn two_mounts_and_a_client_see_what_was_closed_before_they_opened() {
    let world = World::new(Server::Sim, "history");
    let steps = if long() { 16_700 } else { 150 };
    let next = AtomicU64::new(1);
    let mut first = Actor::new(7, &next);
    for file in 0..FILES {
        let key = world.key(&format!("f{file}"));
        first.write(file, |bytes| {
            world.client.put(&key, bytes);
        });
    }
    let strict = |spec: Spec| {
        let spec = spec.with("close", "uploaded").with("ttl", "0s");
        spec.with("linger", "0s").mount()
    };
    let mounts = [strict(world.spec()), strict(world.second_device())];
    let mut seen = first.seen;
    std::thread::scope(|scope| {
        let on = |(mount, seed): (&crate::harness::Mount, u64)| {
            let (actor, dir) = (Actor::new(seed, &next), mount.dir().to_owned());
            scope.spawn(move || on_mount(actor, &dir, steps))
        };
        let running: Vec<_> = mounts.iter().zip([11, 13]).map(on).collect();
        seen.extend(by_client(Actor::new(17, &next), &world, steps));
        for one in running {
            seen.extend(one.join().unwrap());
        }
    });
    let found = violations(&seen);
    let on_mounts = seen.iter().filter(|seen| !seen.is_write).count();
    assert!(on_mounts as u64 > steps, "most reads see something");
    println!("{} operations, {} violations", seen.len(), found.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
