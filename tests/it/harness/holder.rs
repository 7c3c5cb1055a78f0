//! A process of its own that holds files of a mount open.
//!
//! Why not the test's own process: tests run beside each other in it, and each command they start
//! forks it. The child closes what it inherited when it executes the command, and the kernel tells
//! the mount of each such close: a file that the test process holds is "closed" at any moment.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::servers::die_with_parent;

/// Carries out one statement a line and tells when it is done.
const PROGRAM: &str = "import os, sys
for line in sys.stdin:
    exec(line)
    print('done', flush=True)";

/// A Python that does as it is told.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    told: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Holder {
    /// One that works in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let mut command = Command::new("python3");
        command
            .args(["-c", PROGRAM])
            .current_dir(dir)
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

    /// Has it carry out one statement, to the end.
    pub(crate) fn run(&mut self, statement: &str) {
        writeln!(self.told, "{statement}").expect("it listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it answers");
        assert_eq!(line, "done\n", "{statement}");
    }

    /// Creates `name` and writes `text` to it; it stays open as the variable `file`.
    pub(crate) fn write(&mut self, file: &str, name: &str, text: &str) {
        self.run(&format!(
            "{file} = open({name:?}, 'wb', buffering=0); {file}.write({text:?}.encode())"
        ));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
