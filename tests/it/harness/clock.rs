//! A device whose system clock is wrong: the C library of the binary under test tells a time that is
//! so many seconds off. Everything above it is as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands before the C library. Other clocks than the time of day are told as they are.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long off(void)
{
    const char *text = getenv("CLOCK_OFF");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += off();
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    int done = clock_gettime(CLOCK_REALTIME, &exact);
    (void)zone;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return done;
}

time_t time(time_t *kept)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (kept)
        *kept = exact.tv_sec;
    return exact.tv_sec;
}
"#;

/// The environment of a process whose clock is `seconds` ahead (behind, if negative); what it needs is
/// made in `dir`.
pub(crate) fn off(dir: &Path, seconds: i64) -> Vec<(String, String)> {
    let library = made(dir).to_string_lossy().into_owned();
    let own = |name: &str, value: String| (name.to_owned(), value);
    vec![
        own("LD_PRELOAD", library),
        own("CLOCK_OFF", seconds.to_string()),
    ]
}

fn made(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let made = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .expect("cc, which links this test too");
    assert!(made.status.success(), "{made:?}");
    library
}
