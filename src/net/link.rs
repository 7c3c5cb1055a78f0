//! The link as far as it can be known without sending anything: is the interface there and up,
//! and how did the last dial end.
//!
//! Invariant: `is_known_down` is true only where dialling cannot succeed, so whoever skips the
//! network because of it loses nothing.

use std::path::PathBuf;
use std::time::Instant;

use parking_lot::Mutex;

use crate::clock::SharedClock;

/// What the kernel says of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There, and up (or of a kind that does not say).
    Up,
    /// There, and down.
    Down,
    /// There is none of that name.
    Absent,
    /// No interface is named: routing decides, and nothing is known.
    Unknown,
}

/// How dialling went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When a connection was last made.
    pub last_ok: Option<Instant>,
    /// When making one last failed, and why.
    pub last_error: Option<(Instant, String)>,
}

/// The link of one `Net`.
#[derive(Debug)]
pub struct Link {
    interface: Option<String>,
    sysfs: PathBuf,
    clock: SharedClock,
    history: Mutex<History>,
}

impl Link {
    pub(super) fn new(interface: Option<String>, clock: SharedClock) -> Self {
        Self {
            interface,
            sysfs: PathBuf::from("/sys/class/net"),
            clock,
            history: Mutex::new(History::default()),
        }
    }

    /// The interface everything goes through, if one is named.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// What the kernel says now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        let Some(interface) = &self.interface else {
            return LinkState::Unknown;
        };
        match std::fs::read_to_string(self.sysfs.join(interface).join("operstate")) {
            // Tunnels, ppp and `lo` never say "up", a modem may say "dormant" while it carries data;
            // when they are taken down, they all say "down".
            Ok(state) => match state.trim() {
                "down" | "lowerlayerdown" | "notpresent" => LinkState::Down,
                _ => LinkState::Up,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => LinkState::Absent,
            // No sysfs here (a container may hide it): that is no news of the link.
            Err(_) => LinkState::Unknown,
        }
    }

    /// Whether dialling cannot succeed now.
    #[must_use]
    pub fn is_known_down(&self) -> bool {
        match self.state() {
            LinkState::Down => true,
            LinkState::Absent => self.sysfs.is_dir(),
            LinkState::Up | LinkState::Unknown => false,
        }
    }

    /// How dialling went so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    pub(super) fn dialled(&self) {
        self.history.lock().last_ok = Some(self.clock.mono());
    }

    pub(super) fn failed(&self, why: &str) {
        self.history.lock().last_error = Some((self.clock.mono(), why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn link(interface: Option<&str>) -> Link {
        Link::new(interface.map(str::to_owned), SystemClock::shared())
    }

    #[test]
    fn loopback_counts_as_up() {
        assert_eq!(link(Some("lo")).state(), LinkState::Up);
        assert!(!link(Some("lo")).is_known_down());
    }

    #[test]
    fn an_interface_that_is_not_there_is_known_down() {
        let link = link(Some("kfs-none0"));
        assert_eq!(link.state(), LinkState::Absent);
        assert!(link.is_known_down());
    }

    #[test]
    fn without_an_interface_nothing_is_known() {
        assert_eq!(link(None).state(), LinkState::Unknown);
        assert!(!link(None).is_known_down());
    }

    #[test]
    fn each_word_of_the_kernel_is_up_or_down() {
        let dir = tempfile::tempdir().unwrap();
        let mut link = link(Some("wg0"));
        link.sysfs = dir.path().to_owned();
        std::fs::create_dir(dir.path().join("wg0")).unwrap();
        for (word, state) in [
            ("up\n", LinkState::Up),
            ("unknown\n", LinkState::Up),
            ("down\n", LinkState::Down),
            ("dormant\n", LinkState::Up),
            ("lowerlayerdown\n", LinkState::Down),
            ("notpresent\n", LinkState::Down),
        ] {
            std::fs::write(dir.path().join("wg0/operstate"), word).unwrap();
            assert_eq!(link.state(), state, "{word}");
            assert_eq!(link.is_known_down(), state == LinkState::Down);
        }
    }

    #[test]
    fn where_there_is_no_sysfs_the_link_is_not_known_down() {
        let dir = tempfile::tempdir().unwrap();
        let mut link = link(Some("wg0"));
        link.sysfs = dir.path().join("none");
        assert!(!link.is_known_down());
    }

    #[test]
    fn the_last_success_and_the_last_failure_are_remembered() {
        let link = link(Some("lo"));
        assert_eq!(link.history(), History::default());
        link.failed("refused");
        link.dialled();
        let history = link.history();
        assert!(history.last_ok.is_some());
        assert_eq!(history.last_error.map(|(_, why)| why).unwrap(), "refused");
    }
}
