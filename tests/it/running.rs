//! A program that runs from the mount.

use std::fs;
use std::io::Result;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::process::{Child, Command};

use crate::harness::{Server, World};

const PROGRAM: &str = "/usr/bin/sleep";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn done(mut command: Command) {
    assert!(command.status().unwrap().success());
}

/// The kernel refuses `O_RDONLY|O_TRUNC` of a running program only after it has asked for the open: an
/// open that truncates by itself has cut the program short by then.
#[test]
fn a_running_program_is_neither_written_nor_cut_short() {
    let world = World::new(Server::Sim, "running");
    let mount = world.spec().mount();
    let path = mount.path("program");
    // By a process of its own: a descriptor for writing that some other test's child inherits would
    // keep it from running.
    let mut copy = Command::new("cp");
    copy.arg(PROGRAM).arg(&path);
    done(copy);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut running = Running(Command::new(&path).arg("600").spawn().unwrap());
    for flags in [
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_WRONLY | libc::O_TRUNC,
        libc::O_RDONLY | libc::O_TRUNC,
    ] {
        let refused: Result<_> = fs::OpenOptions::new()
            .read(flags & libc::O_ACCMODE != libc::O_WRONLY)
            .write(flags & libc::O_ACCMODE != libc::O_RDONLY)
            .custom_flags(flags & libc::O_TRUNC)
            .open(&path);
        let errno = refused.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::ETXTBSY), "flags {flags:o}");
        assert_eq!(fs::read(&path).unwrap(), fs::read(PROGRAM).unwrap());
    }
    assert!(running.0.try_wait().unwrap().is_none(), "it runs on");
}
