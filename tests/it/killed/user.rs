//! What a user of the mount does, as a process of its own.

use std::time::Duration;

use super::*;
use crate::harness::Holder;

/// A text, so many times.
pub(super) type Text = (&'static str, usize);

/// What a user does; it is done when the user was told so.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do {
    /// Create or rewrite, and close.
    Put(&'static str, Text),
    /// Behind the end, and close.
    Append(&'static str, Text),
    /// Create, write and keep open.
    Create(&'static str, Text),
    /// Open what is there, write at this place and keep open.
    Edit(&'static str, usize, Text),
    /// More of what is open, at this place.
    Write(usize, Text),
    Fsync,
    Close,
    Rename(&'static str, &'static str),
    MakeDir(&'static str),
    Unlink(&'static str),
    /// Waits until the bucket has what is open, as it is now.
    AwaitSnapshot,
    /// Waits until nothing is pending.
    AwaitDrained,
}

impl Do {
    fn name(&self) -> Option<&'static str> {
        match self {
            Self::Put(name, _)
            | Self::Append(name, _)
            | Self::Create(name, _)
            | Self::Edit(name, ..)
            | Self::MakeDir(name)
            | Self::Unlink(name) => Some(name),
            _ => None,
        }
    }

    fn opens(&self) -> Option<&'static str> {
        self.name()
            .filter(|_| matches!(self, Self::Create(..) | Self::Edit(..)))
    }
}

/// What is done in one run.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) options: &'static [(&'static str, &'static str)],
    pub(super) steps: Vec<Do>,
    /// So many steps are done by a mount before, which is killed with all of it pending.
    pub(super) before: usize,
}

impl Scenario {
    fn new(name: &'static str, steps: &[Do]) -> Self {
        Self {
            name,
            options: &[],
            steps: steps.to_vec(),
            before: 0,
        }
    }

    /// Whether what is open may be published.
    pub(super) fn has_snapshots(&self) -> bool {
        self.options.iter().any(|(name, _)| *name == "upload_open")
    }

    /// The names that the step after the first `done` is about.
    pub(super) fn touched(&self, done: usize) -> Vec<&'static str> {
        let opened = self.steps.iter().take(done).rev();
        match self.steps.get(done) {
            None | Some(Do::AwaitDrained) => Vec::new(),
            Some(Do::Rename(from, to)) => vec![from, to],
            Some(step) => step
                .name()
                .into_iter()
                .chain(opened.filter_map(Do::opens))
                .take(1)
                .collect(),
        }
    }
}

/// On a busy machine.
const DRAIN: Duration = Duration::from_secs(240);
/// Whoever waits looks up so often.
const A_WHILE: Duration = Duration::from_secs(5);
const SMALL: usize = 300;
/// More than rides in the log.
const LARGE: usize = 30_000;

/// Scenarios of files that are closed.
pub(super) fn of_files() -> Vec<Scenario> {
    let all = [of_contents(), of_names(), vec![of_parts()]];
    all.into_iter().flatten().collect()
}

fn of_contents() -> Vec<Scenario> {
    use Do::*;
    let (one, two, three) = (("one", SMALL), ("two", SMALL), ("3333", SMALL));
    let (large, larger) = (("large", LARGE), ("larger", LARGE));
    vec![
        Scenario::new(
            "create",
            &[
                Put("a", one),
                Put("b", ("", 0)),
                Put("c", large),
                Create("never", large),
                AwaitDrained,
            ],
        ),
        Scenario::new(
            "append",
            &[
                Put("a", one),
                Append("a", two),
                AwaitDrained,
                Append("a", large),
                Append("a", three),
                AwaitDrained,
            ],
        ),
        Scenario::new(
            "rewrite",
            &[
                Put("a", large),
                AwaitDrained,
                Put("a", larger),
                Edit("a", 1000, one),
                Fsync,
                Write(120_000, large),
                Fsync,
                Write(0, two),
                Close,
                AwaitDrained,
                Put("a", three),
                AwaitDrained,
            ],
        ),
    ]
}

fn of_names() -> Vec<Scenario> {
    use Do::*;
    let (one, two, three) = (("one", SMALL), ("two", SMALL), ("3333", SMALL));
    let (large, larger) = (("large", LARGE), ("larger", LARGE));
    vec![
        Scenario::new(
            "rename",
            &[
                Put("a", one),
                Put("b", large),
                AwaitDrained,
                Rename("a", "c"),
                Create("c.new", larger),
                Fsync,
                Close,
                Rename("c.new", "c"),
                Rename("b", "d"),
                Put("b", two),
                AwaitDrained,
            ],
        ),
        Scenario::new(
            "rename a directory",
            &[
                MakeDir("d"),
                Put("d/a", one),
                Put("d/b", large),
                AwaitDrained,
                Put("d/c", two),
                Rename("d", "e"),
                Put("e/a", three),
                Rename("e/b", "b"),
                AwaitDrained,
            ],
        ),
        Scenario::new(
            "unlink",
            &[
                Put("a", one),
                Put("b", large),
                AwaitDrained,
                Unlink("a"),
                Unlink("b"),
                Put("a", two),
                Put("c", larger),
                Unlink("c"),
                AwaitDrained,
            ],
        ),
    ]
}

fn of_parts() -> Scenario {
    use Do::*;
    let steps = [
        Put("a", ("part", 3 << 19)),
        AwaitDrained,
        Append("a", ("one", SMALL)),
        AwaitDrained,
    ];
    Scenario {
        options: &[("multipart_threshold", "5MiB"), ("part_size", "5MiB")],
        ..Scenario::new("in parts", &steps)
    }
}

/// Scenarios of starts with something pending.
pub(super) fn of_starts() -> Vec<Scenario> {
    use Do::*;
    let (one, two, large) = (("one", SMALL), ("two", SMALL), ("large", LARGE));
    let steps = [
        MakeDir("d"),
        Put("d/a", one),
        Put("b", large),
        Append("d/a", two),
        Rename("d", "e"),
        Put("c", two),
        Unlink("c"),
        Create("never", large),
        AwaitDrained,
        Append("b", one),
        AwaitDrained,
    ];
    vec![Scenario {
        before: 8,
        ..Scenario::new("start", &steps)
    }]
}

/// Scenarios of files that are not closed.
pub(super) fn of_open_files() -> Vec<Scenario> {
    use Do::*;
    let (one, two, large) = (("one", SMALL), ("two", SMALL), ("large", LARGE));
    vec![Scenario {
        options: &[("upload_open", "1s")],
        ..Scenario::new(
            "snapshot",
            &[
                Create("log", one),
                AwaitSnapshot,
                Write(900, large),
                Fsync,
                Write(150_900, two),
                Write(0, two),
                AwaitSnapshot,
                Close,
                AwaitDrained,
            ],
        )
    }]
}

/// Who does it.
pub(super) struct User<'a> {
    world: &'a World,
    prefix: &'a str,
    gate: &'a Gate,
    holder: Holder,
    /// Key and bytes of what is open.
    open: Option<(String, Vec<u8>)>,
}

impl<'a> User<'a> {
    /// One in the mount; an error if that has ended.
    pub(super) fn new(
        mount: &Mount,
        world: &'a World,
        prefix: &'a str,
        gate: &'a Gate,
    ) -> Result<Self, String> {
        let holder = Holder::try_new(mount.dir()).map_err(|error| error.to_string())?;
        Ok(Self {
            holder,
            world,
            prefix,
            gate,
            open: None,
        })
    }

    /// Does it; an error is what the system or the mount said.
    pub(super) fn carry_out(&mut self, mount: &mut Mount, step: &Do) -> Result<(), String> {
        let statement = match *step {
            Do::Put(name, text) => {
                format!("with open({name:?}, 'wb') as f: f.write({})", said(text))
            }
            Do::Append(name, text) => {
                format!("with open({name:?}, 'ab') as f: f.write({})", said(text))
            }
            Do::Create(name, text) => {
                self.open = Some((format!("{}{name}", self.prefix), Vec::new()));
                let open = format!("file = open({name:?}, 'w+b', buffering=0)");
                format!("{open}; {}", self.write(0, text))
            }
            Do::Edit(name, at, text) => {
                let open = format!("file = open({name:?}, 'r+b', buffering=0)");
                format!("{open}; {}", self.write(at, text))
            }
            Do::Write(at, text) => self.write(at, text),
            Do::Fsync => "os.fsync(file.fileno())".into(),
            Do::Close => "file.close()".into(),
            Do::Rename(from, to) => format!("os.rename({from:?}, {to:?})"),
            Do::MakeDir(name) => format!("os.mkdir({name:?})"),
            Do::Unlink(name) => format!("os.unlink({name:?})"),
            Do::AwaitSnapshot => return self.await_snapshot(mount),
            Do::AwaitDrained => return self.await_drained(mount),
        };
        self.holder.try_run(&statement)
    }

    fn write(&mut self, at: usize, text: Text) -> String {
        if let Some((_, bytes)) = &mut self.open {
            let new = text.0.repeat(text.1).into_bytes();
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        format!("os.pwrite(file.fileno(), {}, {at})", said(text))
    }

    /// A mount whose disk failed may never come so far.
    fn await_drained(&self, mount: &Mount) -> Result<(), String> {
        eventually("nothing is pending, or it was struck", DRAIN, || {
            if mount.try_drain(A_WHILE) {
                return Some(Ok(()));
            }
            self.gate.struck().map(|struck| Err(format!("{struck:?}")))
        })
    }

    fn await_snapshot(&self, mount: &mut Mount) -> Result<(), String> {
        let (key, bytes) = self.open.as_ref().expect("something is open");
        let wanted = crate::harness::tree::sha256(bytes);
        eventually("the snapshot, or an end", DRAIN, || {
            if !mount.is_alive() {
                return Some(Err(mount.log()));
            }
            let is_there = self.world.client.has(key);
            (is_there && self.world.client.get(key).sha256 == wanted).then_some(Ok(()))
        })
    }
}

/// As Python says it.
fn said((text, times): Text) -> String {
    format!("b{text:?} * {times}")
}
