//! What is done at random: to files, to names, to the device.

use proptest::prelude::*;

use super::super::RenameFlags;

/// Handles that may be open at once.
pub(super) const SLOTS: usize = 3;
/// One more, for what is opened and closed at once.
pub(super) const SCRATCH: usize = SLOTS;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) append: bool,
}

impl Flags {
    const NONE: Self = Self {
        read: false,
        write: true,
        create: true,
        exclusive: false,
        truncate: false,
        append: false,
    };
    /// As `cp` opens.
    pub(super) const PUT: Self = Self {
        truncate: true,
        ..Self::NONE
    };
    /// As `>>` opens.
    pub(super) const APPEND: Self = Self {
        append: true,
        ..Self::NONE
    };
}

/// One step of a sequence.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Written anew and closed, as `cp` does.
    Put(&'static str, Bytes),
    /// Opened, appended to, closed, as `>>` does.
    Append(&'static str, Bytes),
    Open(usize, &'static str, Flags),
    Write(usize, usize, Bytes),
    Cut(usize, usize),
    Read(usize),
    Fsync(usize),
    /// A duplicate of the descriptor is closed.
    Flush(usize),
    Close(usize),
    CopyRange((usize, usize), (usize, usize), usize),
    /// `upload_open` has passed.
    Snapshot(usize),
    Truncate(&'static str, usize),
    Rename(&'static str, &'static str, RenameFlags),
    Unlink(&'static str),
    Rmdir(&'static str),
    Mkdir(&'static str),
    Symlink(&'static str, &'static str),
    Chmod(&'static str, u32),
    Utimens(&'static str, i64),
    /// All is sent that can be.
    Drain,
    /// The link breaks after so many requests of a drain; the last one's answer may be lost.
    BreakOff(u32, bool),
    /// The credentials expire after so many requests of a drain.
    Expire(u32),
    /// Somebody else writes an object.
    RemotePut(&'static str),
    /// Somebody else removes one.
    RemoteDelete(&'static str),
    /// The link goes down or is up again.
    Link {
        is_down: bool,
    },
    /// The process ends after so many requests of a drain, and starts again.
    Reboot(u32, Cut),
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// In good order.
    Stop,
    /// `kill -9`.
    Kill,
    /// The power: of what was not flushed only that is left which this seed says; and the cache, the
    /// attribute memory and the kept listings, or not.
    Power(u64, bool),
}

/// So many bytes, from this one on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) first: u8,
    pub(super) len: usize,
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes {{ first: {}, len: {} }}", self.first, self.len)
    }
}

impl Bytes {
    pub(super) fn all(self) -> Vec<u8> {
        let byte = |at: usize| self.first.wrapping_add(u8::try_from(at / 7 % 256).unwrap());
        (0..self.len).map(byte).collect()
    }
}

/// Few names, so that they meet; each may be a file, a link or a directory.
pub(super) const PATHS: [&str; 12] = [
    "a", "b", "d", "e", "d/a", "d/b", "d/f", "e/a", "e/f", "d/f/a", "d/f/b", "e/f/a",
];

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&PATHS[..])
}

/// Few of them are longer than what rides in the log (32 KiB) or is worth sharing (64 KiB).
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![24 => 0usize..60, 2 => 30_000usize..36_000, 1 => 60_000usize..90_000]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    (any::<u8>(), len()).prop_map(|(first, len)| Bytes { first, len })
}

fn flags() -> impl Strategy<Value = Flags> {
    let access =
        prop_oneof![2 => Just((true, false)), 2 => Just((false, true)), 3 => Just((true, true))];
    let odds = |of: u32| prop::bool::weighted(f64::from(of) / 8.0);
    (access, odds(5), odds(1), odds(2), odds(2)).prop_map(
        |((read, write), create, exclusive, truncate, append)| Flags {
            read,
            write,
            create,
            exclusive: exclusive && create,
            truncate,
            append,
        },
    )
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        2 => Just(Cut::Stop),
        3 => Just(Cut::Kill),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(seed, keeps)| Cut::Power(seed, keeps)),
    ]
}

fn of_files() -> impl Strategy<Value = Action> {
    let slot = || 0..SLOTS;
    prop_oneof![
        6 => (path(), bytes()).prop_map(|(path, bytes)| Action::Put(path, bytes)),
        4 => (path(), bytes()).prop_map(|(path, bytes)| Action::Append(path, bytes)),
        6 => (slot(), path(), flags()).prop_map(|(slot, path, flags)| Action::Open(slot, path, flags)),
        8 => (slot(), len(), bytes()).prop_map(|(slot, at, bytes)| Action::Write(slot, at, bytes)),
        1 => (slot(), len()).prop_map(|(slot, len)| Action::Cut(slot, len)),
        1 => slot().prop_map(Action::Read),
        2 => slot().prop_map(Action::Fsync),
        1 => slot().prop_map(Action::Flush),
        3 => slot().prop_map(Action::Close),
        3 => ((slot(), len()), (slot(), len()), len())
            .prop_map(|(from, to, len)| Action::CopyRange(from, to, len + 1)),
        1 => slot().prop_map(Action::Snapshot),
        3 => (path(), len()).prop_map(|(path, len)| Action::Truncate(path, len)),
    ]
}

fn of_names() -> impl Strategy<Value = Action> {
    let flags = prop_oneof![
        5 => Just(RenameFlags::Replace),
        1 => Just(RenameFlags::NoReplace),
        2 => Just(RenameFlags::Exchange),
    ];
    prop_oneof![
        8 => (path(), path(), flags).prop_map(|(from, to, flags)| Action::Rename(from, to, flags)),
        3 => path().prop_map(Action::Unlink),
        2 => path().prop_map(Action::Rmdir),
        4 => path().prop_map(Action::Mkdir),
        2 => (path(), path()).prop_map(|(path, target)| Action::Symlink(path, target)),
        2 => (path(), prop::sample::select(vec![0o600, 0o640, 0o755]))
            .prop_map(|(path, mode)| Action::Chmod(path, mode)),
        2 => (path(), 1_000_000i64..1_000_100).prop_map(|(path, secs)| Action::Utimens(path, secs)),
    ]
}

fn of_the_device() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Drain),
        2 => (1u32..9, any::<bool>()).prop_map(|(after, is_lost)| Action::BreakOff(after, is_lost)),
        2 => (prop_oneof![2 => Just(0u32), 1 => 1u32..9], cut())
            .prop_map(|(after, cut)| Action::Reboot(after, cut)),
    ]
}

fn of_the_world() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => path().prop_map(Action::RemotePut),
        2 => path().prop_map(Action::RemoteDelete),
        2 => any::<bool>().prop_map(|is_down| Action::Link { is_down }),
        1 => (1u32..9).prop_map(Action::Expire),
    ]
}

/// A sequence with somebody else in the bucket. The cache outlives a power cut: what somebody else
/// has removed from the bucket may be nowhere but there.
pub(super) fn in_company() -> impl Strategy<Value = Vec<Action>> {
    let device = of_the_device().prop_map(|action| match action {
        Action::Reboot(after, Cut::Power(seed, _)) => Action::Reboot(after, Cut::Power(seed, true)),
        action => action,
    });
    let action = prop_oneof![20 => of_files(), 16 => of_names(), 5 => device, 5 => of_the_world()];
    prop::collection::vec(action, 50..60)
}

/// A sequence without anybody else in the bucket.
pub(super) fn alone() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![5 => of_files(), 4 => of_names(), 1 => of_the_device()];
    prop::collection::vec(action, 50..60)
}
