//! What people read of a mount. Names come from the bucket: nothing in them reaches a terminal raw.

use std::fmt::Write as _;

use crate::daemon::{Sending, Status, ago, lasting};

/// Entries shown of a list.
const SHOWN: usize = 10;
/// Characters of a bar.
const BAR: usize = 20;

/// `kryptonfs status`.
pub(super) fn status(status: &Status) -> String {
    let mut lines = head(status);
    let refused = status.refused.iter();
    let refused = refused.map(|one| format!("{}: {}", plain(&one.name), plain(&one.why)));
    lines.extend(list("refused", &refused.collect::<Vec<_>>()));
    let conflicts: Vec<_> = status.conflicts.iter().map(|key| plain(key)).collect();
    lines.extend(list("conflict", &conflicts));
    let partials = status.partials.iter();
    let partials = partials.map(|one| format!("{} ({})", plain(&one.name), bytes(one.bytes)));
    lines.extend(list("partial", &partials.collect::<Vec<_>>()));
    let lost = status
        .lost
        .iter()
        .map(|name| format!("{} (never closed, nothing written yet)", plain(name)));
    lines.extend(list("lost", &lost.collect::<Vec<_>>()));
    let aside: Vec<_> = status.set_aside.iter().map(|text| plain(text)).collect();
    lines.extend(list("set aside", &aside));
    let covered = status.covered.iter();
    let covered = covered.map(|name| format!("{} (under the mount: not sent)", plain(name)));
    lines.extend(list("covered", &covered.collect::<Vec<_>>()));
    if status.unmounted {
        lines.push(row("spool", &bytes(status.spool_bytes)));
    } else {
        lines.extend(sizes(status));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
        text
    })
}

fn head(status: &Status) -> Vec<String> {
    let (source, dir) = (plain(&status.source), plain(&status.dir));
    if status.unmounted {
        let whose = match (status.in_use, status.pid) {
            (false, _) => "not mounted".into(),
            (true, 0) => "in use by a process that does not answer".into(),
            (true, pid) => format!("in use by process {pid}, which does not answer"),
        };
        let mut lines = vec![format!("{source}, its spool in {dir}: {whose}")];
        lines.extend(identity(status));
        lines.push(row("queue", &queue(status)));
        return lines;
    }
    let mut lines = vec![format!(
        "{source} at {dir} (pid {}, for {})",
        status.pid,
        lasting(status.mounted_seconds)
    )];
    let stopped = status.stopped.as_ref();
    lines.extend(stopped.map(|why| row("stopped", &plain(why))));
    lines.push(row("link", &plain(&status.link)));
    lines.extend(address(status));
    lines.push(row("lease", &lease(status)));
    if !status.closed.is_empty() {
        lines.push(row("closed", &plain(&status.closed)));
    }
    lines.extend(identity(status));
    let versioned = "each upload of a file that is there already is billed as one more version";
    lines.extend(status.versioned.then(|| row("versions", versioned)));
    lines.push(row("queue", &queue(status)));
    lines.extend(speed(status));
    lines.extend(list("sending", &flights(&status.sending)));
    lines.push(row("last error", &last_error(status)));
    lines
}

fn identity(status: &Status) -> Option<String> {
    let identity = status.identity.as_ref()?;
    Some(row("identity", &plain(identity)))
}

fn address(status: &Status) -> Option<String> {
    let interface = status.interface.as_ref()?;
    let all = match status.addresses.is_empty() {
        true => "none".into(),
        false => status.addresses.join(", "),
    };
    Some(row("address", &plain(&format!("{interface}: {all}"))))
}

fn lease(status: &Status) -> String {
    match status.lease_seconds {
        Some(left) => format!("ends in {}", lasting(left)),
        None => "none: asked for with the next request".into(),
    }
}

/// What goes on, while something does.
fn speed(status: &Status) -> Option<String> {
    if status.rate == 0 || status.pending == 0 {
        return None;
    }
    let end = status.eta_seconds.map(lasting);
    let end = end.map_or_else(String::new, |end| format!(", all is sent in about {end}"));
    Some(row("speed", &format!("{}/s up{end}", bytes(status.rate))))
}

fn flights(all: &[Sending]) -> Vec<String> {
    let told = |one: &Sending| {
        let (sent, of) = (u128::from(one.sent), u128::from(one.bytes.max(1)));
        let percent = usize::try_from((sent * 100 / of).min(100)).unwrap_or(100);
        let full = percent * BAR / 100;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        let (name, size) = (plain(&one.name), bytes(one.bytes));
        format!("[{bar}] {percent:>3} % of {size}  {name}")
    };
    all.iter().map(told).collect()
}

fn sizes(status: &Status) -> [String; 4] {
    let wire = format!(
        "{} up ({} of contents in vain), {} down, {} requests",
        bytes(status.sent_bytes),
        bytes(status.resent_bytes),
        bytes(status.received_bytes),
        status.requests
    );
    [
        row("spool", &of(status.spool_bytes, status.spool_max)),
        row("cache", &of(status.cache_bytes, status.cache_max)),
        row("wire", &wire),
        row("stale", &format!("{} answers", status.stale_answers)),
    ]
}

/// Why a drain did not end: one line.
pub(super) fn unsent(status: &Status) -> String {
    if let Some(first) = status.refused.first() {
        let more = status.refused.len() - 1;
        return format!(
            "S3 refuses {} ({}) and {more} more: allow them there, then `kryptonfs retry`",
            plain(&first.name),
            plain(&first.why)
        );
    }
    let why = match (&status.stopped, &status.last_error) {
        (Some(why), _) => plain(why),
        (None, Some(error)) => plain(&error.text),
        (None, None) => plain(&status.link),
    };
    format!("not all is sent: {}; {why}", queue(status))
}

/// How far a drain is: one line.
pub(super) fn progress(status: &Status) -> String {
    let went: u64 = status.sending.iter().map(|one| one.sent).sum();
    let left = bytes(status.pending_bytes.saturating_sub(went));
    let (changes, files) = (status.pending, status.pending_files);
    let mut line = format!("{changes} changes left, {files} of them files, {left}");
    if status.rate > 0 {
        line += &format!("; {}/s", bytes(status.rate));
    }
    if let Some(end) = status.eta_seconds {
        line += &format!(", about {}", lasting(end));
    }
    line
}

fn queue(status: &Status) -> String {
    if status.pending == 0 {
        return "empty".into();
    }
    let oldest = status.oldest_seconds.map(lasting).unwrap_or_default();
    let (changes, size) = (status.pending, bytes(status.pending_bytes));
    let size = format!("{} of them files, {size}", status.pending_files);
    if status.unmounted {
        return format!("{changes} changes, {size}, the oldest for {oldest} at least");
    }
    format!(
        "{changes} changes, {size}, the oldest for {oldest}, {} being sent",
        status.in_flight
    )
}

fn last_error(status: &Status) -> String {
    match &status.last_error {
        Some(error) => {
            let age = std::time::Duration::from_secs(error.seconds_ago);
            format!("{} ({})", plain(&error.text), ago(age))
        }
        None => "none".into(),
    }
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<11} {value}")
}

fn list(name: &str, all: &[String]) -> Vec<String> {
    let mut rows: Vec<_> = all.iter().take(SHOWN).map(|one| row(name, one)).collect();
    if all.len() > SHOWN {
        rows.push(row(name, &format!("and {} more", all.len() - SHOWN)));
    }
    rows
}

fn of(used: u64, max: u64) -> String {
    format!("{} of {}", bytes(used), bytes(max))
}

/// `5 B`, `4.2 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    for (unit, name) in units {
        if count >= unit {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// Without what a terminal would act on.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{LastError, Partial, Refused};

    fn busy() -> Status {
        Status {
            source: "s3://bucket/pre".into(),
            dir: "/mnt".into(),
            link: "up: last connected 3 s ago".into(),
            pending: 3,
            pending_files: 2,
            interface: Some("wwan0".into()),
            addresses: vec!["10.0.0.1".into()],
            lease_seconds: Some(3000),
            rate: 512 << 10,
            eta_seconds: Some(8),
            sending: vec![Sending {
                name: "d/f".into(),
                bytes: 4 << 20,
                sent: 2 << 20,
            }],
            stale_answers: 7,
            pending_bytes: 4_404_020,
            oldest_seconds: Some(600),
            in_flight: 1,
            last_error: Some(LastError {
                text: "SlowDown".into(),
                seconds_ago: 4,
            }),
            spool_max: 1 << 30,
            ..Status::default()
        }
    }

    #[test]
    fn of_a_spool_only_what_is_in_it_is_told() {
        let mut spool = Status {
            unmounted: true,
            pid: 7,
            conflicts: vec!["f.conflict-1-2".into()],
            ..busy()
        };
        let text = status(&spool);
        for part in [
            "not mounted",
            "3 changes, 2 of them files, 4.2 MiB, the oldest for 10 min at least",
            "f.conflict",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in ["wire", "cache", "link", "lease", "being sent"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
        spool.in_use = true;
        assert!(status(&spool).contains("in use by process 7"));
    }

    #[test]
    fn the_queue_its_oldest_and_the_last_error_are_told() {
        let text = status(&busy());
        for part in [
            "s3://bucket/pre at /mnt",
            "3 changes, 2 of them files, 4.2 MiB, the oldest for 10 min, 1 being sent",
            "wwan0: 10.0.0.1",
            "ends in 50 min",
            "512.0 KiB/s up, all is sent in about 8 s",
            "[##########..........]  50 % of 4.0 MiB  d/f",
            "stale       7 answers",
            "SlowDown (4 s ago)",
            "0 B of 1.0 GiB",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("refused") && !text.contains("partial"));
        assert!(status(&Status::default()).contains("queue       empty"));
    }

    #[test]
    fn that_nothing_is_sent_is_told_before_all_else() {
        let stopped = Status {
            stopped: Some("the SIM is another one".into()),
            identity: Some("ap-northeast-1:0-1".into()),
            ..busy()
        };
        let text = status(&stopped);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "  stopped     the SIM is another one");
        assert!(
            text.contains("  identity    ap-northeast-1:0-1\n"),
            "{text}"
        );
        assert!(stopped.in_trouble() && unsent(&stopped).contains("another one"));
    }

    #[test]
    fn what_is_left_is_told_in_one_line_with_its_reason() {
        let line = unsent(&busy());
        assert!(
            line.contains("3 changes") && line.contains("SlowDown"),
            "{line}"
        );
        let mut refused = busy();
        refused.refused = vec![Refused {
            name: "a\nb".into(),
            why: "AccessDenied".into(),
        }];
        let line = unsent(&refused);
        assert!(
            line.contains("AccessDenied") && !line.contains('\n'),
            "{line}"
        );
    }

    #[test]
    fn a_drain_tells_what_is_left_and_how_long_that_takes() {
        assert_eq!(
            progress(&busy()),
            "3 changes left, 2 of them files, 2.2 MiB; 512.0 KiB/s, about 8 s"
        );
    }

    #[test]
    fn names_cannot_speak_to_the_terminal_and_long_lists_end() {
        let mut many = busy();
        many.partials = (0..12u8)
            .map(|n| Partial {
                name: format!("\u{1b}[2J{n}"),
                bytes: 5,
            })
            .collect();
        let text = status(&many);
        assert!(!text.contains('\u{1b}'));
        assert!(text.contains("and 2 more"));
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_fits() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
