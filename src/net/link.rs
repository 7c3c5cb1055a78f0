//! The link as far as it can be known without sending anything: is the interface there and up,
//! how did the last dial end, and which connections have lost what they stood on.
//!
//! Invariants: `is_known_down` is true only where dialling cannot succeed, so whoever skips the
//! network because of it loses nothing; a connection ends when its interface goes, comes anew or
//! loses the connection's address.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use nix::net::if_::InterfaceFlags;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::buried::Buried;
use super::ground::{self, Ground};

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
    clock: SharedClock,
    history: Mutex<History>,
    ground: watch::Sender<Option<Ground>>,
    follower: OnceLock<AbortHandle>,
    buried: Buried,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get() {
            follower.abort();
        }
    }
}

impl Link {
    pub(super) fn new(interface: Option<String>, clock: SharedClock) -> Self {
        Self {
            interface,
            clock,
            history: Mutex::new(History::default()),
            ground: watch::Sender::new(None),
            follower: OnceLock::new(),
            buried: Buried::default(),
        }
    }

    /// Tells of every change of the interface from now on; `None`: none is named. Must be called
    /// inside of a runtime.
    #[must_use]
    pub fn changes(&self) -> Option<watch::Receiver<Option<Ground>>> {
        let interface = self.interface.clone()?;
        self.follower.get_or_init(|| {
            let following = ground::follow(interface, self.ground.clone());
            tokio::spawn(following).abort_handle()
        });
        Some(self.ground.subscribe())
    }

    /// What a connection that is about to be made will stand on. Must be called inside of a runtime.
    pub(super) fn begin(&self) -> Option<Ground> {
        self.changes()?;
        let ground = Ground::look(self.interface()?).ok()?;
        // What is told must not be older than this: it would end the connection it knows nothing of.
        ground::tell(&self.ground, &ground);
        Some(ground)
    }

    /// Looks at the interface, so that a change is told now and not when the kernel's word of it is
    /// read. Must be called inside of a runtime.
    pub fn look(&self) {
        self.begin();
    }

    /// Where a connection from `local` stands that was begun on `begun`.
    pub(super) fn stand(self: &Arc<Self>, begun: Ground, local: IpAddr) -> Option<Footing> {
        let mut changes = self.changes()?;
        let (known, link) = (begun.clone(), Arc::clone(self));
        let gone = async move {
            let holds = |now: &Option<Ground>| {
                let now = now.as_ref();
                now.is_none_or(|now| now.holds(&known, local))
            };
            let lost = changes.wait_for(|now| !holds(now)).await.is_ok();
            if lost {
                return;
            }
            // Nobody watches any more: it never is known to be gone.
            std::future::pending::<()>().await;
        };
        Some(Footing {
            link,
            begun,
            local,
            lost: false,
            gone: Box::pin(gone),
        })
    }

    /// A question that was given up: its socket stays out of use for a while.
    pub(super) fn bury_question(&self, socket: OwnedFd) {
        if self.interface.is_some() {
            self.buried.question(socket);
        }
    }

    /// The interface everything goes through, if one is named.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// The addresses the interface has now; empty: none is named, or it has none.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ground = self.interface().map(Ground::look).and_then(Result::ok);
        ground.map_or_else(Vec::new, |ground| ground.addresses.into_iter().collect())
    }

    /// What the kernel says now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        let Some(interface) = &self.interface else {
            return LinkState::Unknown;
        };
        match ground::flags(interface) {
            Ok(Some(flags)) => judged(flags),
            Ok(None) => LinkState::Absent,
            // The kernel says nothing (a sandbox may forbid to ask): that is no news of the link.
            Err(_) => LinkState::Unknown,
        }
    }

    /// Whether dialling cannot succeed now.
    #[must_use]
    pub fn is_known_down(&self) -> bool {
        matches!(self.state(), LinkState::Down | LinkState::Absent)
    }

    /// How dialling went so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    pub(super) fn dialled(&self) {
        self.history.lock().last_ok = Some(self.clock.mono());
        if let Some(interface) = &self.interface {
            self.buried.link_is_proven(interface);
        }
    }

    pub(super) fn failed(&self, why: &str) {
        self.history.lock().last_error = Some((self.clock.mono(), why.to_owned()));
    }
}

/// Tunnels, ppp and `lo` are running as soon as they are up; a modem may say that it is dormant
/// while it carries data.
fn judged(flags: InterfaceFlags) -> LinkState {
    let dormant = InterfaceFlags::IFF_LOWER_UP | InterfaceFlags::IFF_DORMANT;
    let carries = flags.contains(InterfaceFlags::IFF_RUNNING) || flags.contains(dormant);
    match flags.contains(InterfaceFlags::IFF_UP) && carries {
        true => LinkState::Up,
        false => LinkState::Down,
    }
}

/// What a live connection stands on.
pub(super) struct Footing {
    link: Arc<Link>,
    begun: Ground,
    local: IpAddr,
    lost: bool,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Footing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Footing")
            .field("begun", &self.begun)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Footing {
    /// Why the connection cannot go on; wakes its task when that becomes so.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        self.lost = self.lost || matches!(self.gone.as_mut().poll(cx), Poll::Ready(()));
        if !self.lost {
            return Ok(());
        }
        let interface = self.link.interface().unwrap_or_default();
        Err(std::io::Error::new(
            std::io::ErrorKind::ConnectionAborted,
            format!("{interface} went away or changed"),
        ))
    }

    /// Takes the socket of a connection that ends: out of use if its interface is not what it was,
    /// else it is closed as usual.
    pub(super) fn leave(&self, socket: impl FnOnce() -> std::io::Result<OwnedFd>) {
        let interface = self.link.interface().unwrap_or_default();
        let stands = Ground::look(interface)
            .is_ok_and(|now| !self.lost && now.holds(&self.begun, self.local));
        if stands {
            return;
        }
        match socket() {
            Ok(socket) => self.link.buried.connection(socket),
            Err(error) => tracing::debug!("a dropped connection is closed at once: {error}"),
        }
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
    fn the_flags_of_the_kernel_mean_up_or_down() {
        use InterfaceFlags as F;
        for (flags, state) in [
            (F::IFF_UP | F::IFF_RUNNING | F::IFF_LOWER_UP, LinkState::Up),
            (F::IFF_UP | F::IFF_RUNNING, LinkState::Up),
            (F::IFF_UP | F::IFF_LOWER_UP | F::IFF_DORMANT, LinkState::Up),
            (F::IFF_UP | F::IFF_DORMANT, LinkState::Down),
            (F::IFF_UP, LinkState::Down),
            (F::IFF_RUNNING | F::IFF_LOWER_UP, LinkState::Down),
            (F::empty(), LinkState::Down),
        ] {
            assert_eq!(judged(flags), state, "{flags:?}");
        }
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
