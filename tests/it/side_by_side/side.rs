//! A side: a directory and the two processes that work in it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::servers::die_with_parent;

/// What carries the operations out.
const PROGRAM: &str = include_str!("worker.py");

/// One process. Files are open in it and not in the tests' own (`harness/holder.rs` says why).
#[derive(Debug)]
struct Worker {
    child: Child,
    told: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Worker {
    fn new() -> Self {
        let mut command = Command::new("python3");
        command
            .args(["-I", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("python3 is there");
        Self {
            told: child.stdin.take().expect("its stdin"),
            said: BufReader::new(child.stdout.take().expect("its stdout")),
            child,
        }
    }

    fn run(&mut self, operation: &str) -> String {
        writeln!(self.told, "{operation}").expect("it listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it answers");
        assert!(!line.is_empty(), "the worker died of: {operation}");
        line.trim_end().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory, and two processes in it.
#[derive(Debug)]
pub(super) struct Side {
    workers: [Worker; 2],
    root: String,
}

impl Side {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            workers: [Worker::new(), Worker::new()],
            root: dir.to_str().expect("a path of ours").to_owned(),
        }
    }

    /// Both go to a new directory.
    pub(super) fn begin(&mut self, name: &str) {
        for worker in &mut self.workers {
            let began = worker.run(&format!("begin {}/{name}", self.root));
            assert_eq!(began, "ok", "begin {name}");
        }
    }

    /// Both close what they have open.
    pub(super) fn end(&mut self) {
        for worker in &mut self.workers {
            assert_eq!(worker.run("end"), "ok");
        }
    }

    /// Has a process (0 or 1) carry out one operation.
    pub(super) fn run(&mut self, process: usize, operation: &str) -> String {
        self.workers[process].run(operation)
    }
}
