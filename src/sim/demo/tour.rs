//! The steps of the tour: a command is shown, run as a child process, and what it put on the wire
//! is counted; then it is checked that it did what was told.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tokio::sync::oneshot;

use super::{BUCKET, DRAIN, Failed, Onlooker, Places, say};
use crate::daemon::{Mounted, ago, lasting};
use crate::sim::{Cloud, Counts};

/// Seconds; a child of the tour that takes longer is stuck.
const COMMAND: &str = "60";
const PICTURE: usize = 180_000;
/// Over the size from which files travel in parts.
const VIDEO: usize = 12 << 20;

/// All that the steps need.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) mounted: &'a Mounted,
    pub(super) places: &'a Places,
    pub(super) onlooker: Onlooker,
}

impl Tour<'_> {
    /// All steps.
    pub(super) async fn run(&self) -> Result<(), Failed> {
        let samples = self.make_samples()?;
        self.clear().await?;
        say(
            "\nEach step: the command, what it printed, and what went over the wire (TLS included).",
        )?;
        self.write(&samples).await?;
        self.append().await?;
        self.read_back(&samples).await?;
        self.copy().await?;
        self.look_from_outside(&samples).await?;
        self.show_status().await
    }

    /// What a tour before this one left.
    async fn clear(&self) -> Result<(), Failed> {
        let left = "rm -f photo.jpg video.bin log.txt copy.bin";
        let output = carried_out(left, &self.places.mountpoint).await?;
        if output.status.success() && self.mounted.drain(DRAIN).await {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failed::because(format!("`{left}`: {}", said.trim())))
    }

    /// The files that are copied in.
    fn make_samples(&self) -> io::Result<Samples> {
        let dir = self.places.device.join("samples");
        std::fs::create_dir_all(&dir)?;
        let samples = Samples {
            picture: dir.join("photo.jpg"),
            video: dir.join("video.bin"),
        };
        for (path, bytes) in [
            (&samples.picture, noise(1, PICTURE)),
            (&samples.video, noise(2, VIDEO)),
        ] {
            std::fs::write(path, bytes)?;
            // As a camera would leave them, not as a daemon's umask does.
            std::fs::set_permissions(path, Permissions::from_mode(0o644))?;
        }
        Ok(samples)
    }

    async fn write(&self, samples: &Samples) -> Result<(), Failed> {
        say(
            "\n1. A file is written: safe on the device when cp ends, then one request brings it to S3.",
        )?;
        self.step(&format!("cp {} photo.jpg", shown(&samples.picture)))
            .await?;
        self.step("ls -l").await?;
        say("\n2. A large one travels in parts.")?;
        self.step(&format!("cp {} video.bin", shown(&samples.video)))
            .await?;
        Ok(())
    }

    async fn append(&self) -> Result<(), Failed> {
        say("\n3. A log grows: the loop is one file to S3, so it is one request.")?;
        self.step("for i in 1 2 3; do echo \"line $i\" >> log.txt; done")
            .await?;
        say(
            "\n4. Bytes are appended to the large one: only they travel, S3 joins them to what it has.",
        )?;
        let cost = self.step("echo 'one more line' >> video.bin").await?;
        let sent = cost.s3.received;
        if sent > VIDEO as u64 / 10 {
            return Err(Failed::because(format!(
                "an append of 14 bytes sent {sent} bytes"
            )));
        }
        Ok(())
    }

    async fn read_back(&self, samples: &Samples) -> Result<(), Failed> {
        say("\n5. What was written here is read here: nothing is asked for.")?;
        let cost = self.step("cat log.txt").await?;
        let same = format!("cmp photo.jpg {} && echo the same", shown(&samples.picture));
        let more = self.step(&same).await?;
        if cost.requests("GetObject") + more.requests("GetObject") > 0 {
            return Err(Failed::because("something was downloaded"));
        }
        Ok(())
    }

    async fn copy(&self) -> Result<(), Failed> {
        say("\n6. A copy within the mount: S3 copies, no data travels.")?;
        let cost = self.step("cp video.bin copy.bin").await?;
        let data = cost.requests("UploadPart") + cost.requests("GetObject");
        if data > 0 {
            return Err(Failed::because("a copy moved data"));
        }
        Ok(())
    }

    async fn look_from_outside(&self, samples: &Samples) -> Result<(), Failed> {
        say(
            "\n7. The bucket, as an S3 client beside the mount sees it (keys of its own, a signed GET):",
        )?;
        let picture = std::fs::read(&samples.picture)?;
        let mut video = std::fs::read(&samples.video)?;
        video.extend_from_slice(b"one more line\n");
        let wanted: [(&str, &[u8]); 4] = [
            ("photo.jpg", &picture),
            ("log.txt", b"line 1\nline 2\nline 3\n"),
            ("video.bin", &video),
            ("copy.bin", &video),
        ];
        for (key, bytes) in wanted {
            let seen = self.onlooker.look(BUCKET, key).await?;
            let metadata: Vec<_> = seen
                .metadata
                .iter()
                .filter(|(name, _)| ["mode", "uid", "gid", "mtime"].contains(&name.as_str()))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            say(&format!(
                "   s3://{BUCKET}/{key}  {} B  {}  ETag {}  {}",
                seen.body.len(),
                seen.content_type,
                seen.etag,
                metadata.join(" ")
            ))?;
            if seen.body != bytes {
                return Err(Failed::because(format!(
                    "{key} in the bucket has other bytes"
                )));
            }
        }
        Ok(())
    }

    async fn show_status(&self) -> Result<(), Failed> {
        say(&format!(
            "\n8. kryptonfs status {}",
            shown(&self.places.mountpoint)
        ))?;
        let status = self.mounted.status();
        let oldest = status.oldest_seconds.map_or("none".into(), lasting);
        let error = status.last_error.map_or("none".into(), |error| {
            let age = std::time::Duration::from_secs(error.seconds_ago);
            format!("{} ({})", error.text, ago(age))
        });
        say(&format!(
            "   pending {}, oldest {oldest}, last error {error}",
            status.pending
        ))?;
        say(&format!(
            "   {} requests, {} B sent, {} B received since the mount",
            status.requests,
            grouped(status.sent_bytes),
            grouped(status.received_bytes)
        ))?;
        if status.pending > 0 {
            return Err(Failed::because("something is still pending"));
        }
        Ok(())
    }

    /// Runs one command, waits until all is sent, tells what it cost.
    async fn step(&self, command: &str) -> Result<Counts, Failed> {
        say(&format!("   $ {command}"))?;
        self.cloud.reset_counts();
        let output = carried_out(command, &self.places.mountpoint).await?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            say(&format!("   {line}"))?;
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failed::because(format!("`{command}`: {}", said.trim())));
        }
        if !self.mounted.drain(DRAIN).await {
            return Err(Failed::because(format!("not all of `{command}` was sent")));
        }
        let counts = self.cloud.counts();
        say(&format!("   -> {}", cost(&counts)))?;
        Ok(counts)
    }
}

/// Runs a command in `dir`, on a thread of its own: all that serves the mount stays free.
async fn carried_out(command: &str, dir: &Path) -> Result<Output, Failed> {
    // The child enters the mount, not a thread of ours on its way to `exec`.
    // The demo keeps its own files from others; what the visitor makes is as usual.
    let entered = format!("umask 022; cd {} && {{ {command}\n}}", shown(dir));
    let mut child = Command::new("timeout");
    child.args(["-k", "1", COMMAND, "sh", "-c", &entered]);
    child.stdin(Stdio::null());
    let (told, heard) = oneshot::channel();
    std::thread::Builder::new()
        .name("kryptonfs-tour".into())
        .spawn(move || {
            // Nobody hears it if the demo was interrupted meanwhile.
            let _gone = told.send(child.output());
        })?;
    let output = heard
        .await
        .map_err(|_| Failed::because("the tour's thread ended"))?;
    Ok(output?)
}

/// The files beside the mount.
struct Samples {
    picture: PathBuf,
    video: PathBuf,
}

/// `2 requests (PutObject 1, ...), 1,234 B up, 567 B down`.
fn cost(counts: &Counts) -> String {
    if counts.s3_requests() == 0 {
        return "no request, 0 B".into();
    }
    let named = counts
        .operations
        .iter()
        .filter(|(_, count)| count.requests > 0);
    let named: Vec<_> = named
        .map(|(name, count)| format!("{name} {}", count.requests))
        .collect();
    format!(
        "{}; {} B up, {} B down",
        named.join(", "),
        grouped(counts.s3.received),
        grouped(counts.s3.sent)
    )
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A path as a word of a shell command.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Bytes that do not compress, the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<_> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn paths_are_one_word_to_a_shell() {
        assert_eq!(shown(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(shown(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }

    #[test]
    fn samples_are_the_same_in_every_run() {
        assert_eq!(noise(1, 9), noise(1, 9));
        assert_ne!(noise(1, 9), noise(2, 9));
        assert_eq!(noise(3, 1001).len(), 1001);
    }
}
