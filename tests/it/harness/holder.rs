//! A process of its own that holds files of a mount open.
//!
//! Why not the test's own process: tests run beside each other in it, and each command they start
//! forks it. The child closes what it inherited when it executes the command, and the kernel tells
//! the mount of each such close: a file that the test process holds is "closed" at any moment.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::servers::die_with_parent;

/// Carries out one statement a line and tells when it is done, or that the system refused it.
const PROGRAM: &str = "import os, sys
for line in sys.stdin:
    try:
        exec(line)
        print('done', flush=True)
    except OSError as error:
        print(error, flush=True)";

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
        Self::try_new(dir).expect("python3 and the folder are there")
    }

    /// The same where the folder may be gone.
    pub(crate) fn try_new(dir: &Path) -> io::Result<Self> {
        let mut command = Command::new("python3");
        command
            .args(["-c", PROGRAM])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        Ok(Self {
            told: child.stdin.take().expect("its stdin"),
            said: BufReader::new(child.stdout.take().expect("its stdout")),
            child,
        })
    }

    /// Has it carry out one statement, to the end.
    pub(crate) fn run(&mut self, statement: &str) {
        assert_eq!(self.try_run(statement), Ok(()), "{statement}");
    }

    /// Has it carry out one statement, as far as the system does not refuse; then why.
    pub(crate) fn try_run(&mut self, statement: &str) -> Result<(), String> {
        writeln!(self.told, "{statement}").expect("it listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it answers");
        match line.trim_end() {
            "done" => Ok(()),
            why => Err(why.to_owned()),
        }
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
