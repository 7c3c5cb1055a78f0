//! Outside suites, run by default options: what they find wrong is wrong.

mod fio;
mod fsx;
mod pjdfstest;

use std::process::{Command, Output};

/// Runs `command` for at most `seconds`.
fn within(seconds: u32, command: &Command) -> Output {
    let mut limited = Command::new("timeout");
    limited.args(["-k", "5", &seconds.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.output().expect("timeout is there")
}
