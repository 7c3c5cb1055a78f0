//! What a user was told, and so may count on.

use std::collections::BTreeMap;

use super::user::{Do, Scenario};
use crate::harness::tree::sha256;

/// Names and what is there: nothing of a directory, of a file what [`content`] says.
pub(super) type Names = BTreeMap<String, String>;

/// What may be there, each as good as the other.
pub(super) type State = Vec<Names>;

/// A file's bytes, for a comparison and for the reader of a failure.
pub(super) fn content(size: u64, sha256: &str) -> String {
    format!("{size} B {sha256}")
}

/// The same, of bytes.
pub(super) fn of(bytes: &[u8]) -> String {
    content(bytes.len() as u64, &sha256(bytes))
}

/// What is there before the first step, and after each.
pub(super) fn states(scenario: &Scenario) -> Vec<State> {
    let mut model = Model::default();
    let mut all = vec![model.state(scenario)];
    for step in &scenario.steps {
        model.carry_out(step);
        all.push(model.state(scenario));
    }
    all
}

#[derive(Default)]
struct Model {
    /// `None`: a directory.
    kept: BTreeMap<String, Option<Vec<u8>>>,
    open: Option<(String, Vec<u8>)>,
    /// What the open file was at each moment since it was last kept.
    moments: Vec<Vec<u8>>,
}

impl Model {
    fn state(&self, scenario: &Scenario) -> State {
        let told = |(name, bytes): (&String, &Option<Vec<u8>>)| {
            let bytes = bytes.as_deref().map(of);
            (name.clone(), bytes.unwrap_or_default())
        };
        let kept: Names = self.kept.iter().map(told).collect();
        let mut state = vec![kept.clone()];
        if let Some((name, _)) = &self.open
            && scenario.has_snapshots()
        {
            let with = |bytes: &Vec<u8>| {
                let mut names = kept.clone();
                names.insert(name.clone(), of(bytes));
                names
            };
            state.extend(self.moments.iter().map(with));
        }
        state
    }

    fn carry_out(&mut self, step: &Do) {
        match *step {
            Do::Put(name, (text, times)) => {
                let bytes = text.repeat(times).into_bytes();
                self.kept.insert(name.into(), Some(bytes));
            }
            Do::Append(name, (text, times)) => {
                let mut bytes = self.bytes(name);
                bytes.extend(text.repeat(times).into_bytes());
                self.kept.insert(name.into(), Some(bytes));
            }
            Do::Create(name, text) => {
                self.open = Some((name.into(), Vec::new()));
                self.write(0, text);
            }
            Do::Edit(name, at, text) => {
                self.open = Some((name.into(), self.bytes(name)));
                self.write(at, text);
            }
            Do::Write(at, text) => self.write(at, text),
            Do::Fsync | Do::AwaitSnapshot => self.keep(),
            Do::Close => {
                self.keep();
                self.open = None;
            }
            Do::Rename(from, to) => {
                let below = format!("{from}/");
                let old = std::mem::take(&mut self.kept);
                for (name, bytes) in old {
                    if name == from || name.starts_with(&below) {
                        self.kept
                            .insert(format!("{to}{}", &name[from.len()..]), bytes);
                    } else if name != to {
                        self.kept.insert(name, bytes);
                    }
                }
            }
            Do::MakeDir(name) => drop(self.kept.insert(name.into(), None)),
            Do::Unlink(name) => drop(self.kept.remove(name)),
            Do::AwaitDrained => {}
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.kept[name].clone().expect("a file")
    }

    fn write(&mut self, at: usize, (text, times): (&str, usize)) {
        let new = text.repeat(times).into_bytes();
        let (_, bytes) = self.open.as_mut().expect("something is open");
        bytes.resize(bytes.len().max(at + new.len()), 0);
        bytes[at..at + new.len()].copy_from_slice(&new);
        self.moments.push(bytes.clone());
    }

    fn keep(&mut self) {
        let (name, bytes) = self.open.clone().expect("something is open");
        self.kept.insert(name, Some(bytes));
        self.moments.clear();
    }
}
