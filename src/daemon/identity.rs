//! Whose keys sign. What was written under one SIM's identity is not sent with another's: a lease of
//! another identity than the spool is bound to is given out only where nothing waits to be sent, or
//! where the user said so (`new_identity=send`). With `prefix=identity` it also is the root of the mount.
//!
//! Invariants:
//! - nothing is signed before its identity is in the spool, durably (unless there is no room: what is sent
//!   then makes some); so a start without a link knows it;
//! - while a lease is withheld no request is sent to the bucket, and all that is here goes on working;
//! - a lease without an identity (of a Krypton that tells none) binds nothing, and is of no use where
//!   the identity is the root;
//! - before a lease of another root is given out, nothing is known any more of the one before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::creds::{CredsError, Lease, Leases};
use crate::disk::blocking;
use crate::log::{Log, LogError};
use crate::seeded::{self, Bug};
use crate::store::rooted::Root;
use crate::store::{self, StoreError};
use crate::tree::Tree;

/// The longest identity Cognito has.
const LONGEST: usize = 55;

/// What the spool is, once it is open.
#[derive(Debug)]
struct Spool {
    log: Arc<Log>,
    tree: Arc<Tree>,
}

/// What the user said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// What waits is sent under whichever identity comes.
    pub(super) send_as_new: bool,
    /// The identity's folder is the root of the mount.
    pub(super) is_root: bool,
}

/// Gives out leases of the identity that the spool is bound to.
#[derive(Debug)]
pub(super) struct Identity {
    inner: Arc<dyn Leases>,
    rules: Rules,
    spool: OnceLock<Spool>,
    /// Whoever decides on a new identity.
    turn: tokio::sync::Mutex<()>,
    /// Why leases are withheld, if they are.
    stopped: Mutex<Option<String>>,
    /// A stranger's lease may be an old one (leases are shared, and outlive a mount and a SIM): it is
    /// asked for anew, once, before all stops.
    doubts: AtomicBool,
}

impl Identity {
    /// The leases of `inner`.
    pub(super) fn over(inner: Arc<dyn Leases>, rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            inner,
            rules,
            spool: OnceLock::new(),
            turn: tokio::sync::Mutex::new(()),
            stopped: Mutex::new(None),
            doubts: AtomicBool::new(true),
        })
    }

    /// The spool is open. No lease is given out before.
    pub(super) fn opened(&self, log: &Arc<Log>, tree: &Arc<Tree>) {
        let (log, tree) = (Arc::clone(log), Arc::clone(tree));
        // There is one spool in the life of a mount.
        let _ = self.spool.set(Spool { log, tree });
    }

    /// Why nothing is sent, if somebody has to decide.
    pub(super) fn stopped(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// Makes sure that the spool is bound to the identity of `lease`; if it may not be, says why.
    async fn settle(&self, spool: &Spool, new: &str) -> Result<Option<String>, CredsError> {
        let _turn = self.turn.lock().await;
        let bound = spool.log.identity();
        match bound.as_deref() {
            Some(bound) if bound == new => {
                self.go_on();
                return Ok(None);
            }
            Some(bound) if !self.moves(spool).await? => return Ok(Some(another(bound, new))),
            Some(bound) => tracing::warn!("the SIM is another one: {new} in place of {bound}"),
            None => tracing::info!("the credentials are those of {new}"),
        }
        let (log, identity) = (Arc::clone(&spool.log), new.to_owned());
        let written = blocking(move || log.bind_to(&identity)).await;
        written.map_err(|error| unnoted(&error))?;
        self.go_on();
        Ok(None)
    }

    /// Whether `lease` may be given out; if not, why.
    async fn judge(&self, lease: &Lease) -> Result<Option<String>, CredsError> {
        let Some(new) = identity_of(lease) else {
            if self.rules.is_root {
                return Err(CredsError::Refused(NAMELESS.into()));
            }
            return Ok(None);
        };
        let Some(spool) = self.spool.get() else {
            return Err(CredsError::Silent("the spool is not open yet".into()));
        };
        let is_bound = spool.log.identity().as_deref() == Some(new);
        if is_bound && self.stopped().is_none() || seeded::is(Bug::StrangerSigns) {
            return Ok(None);
        }
        self.settle(spool, new).await
    }

    /// Makes ready for another identity, if the spool may go to it.
    async fn moves(&self, spool: &Spool) -> Result<bool, CredsError> {
        let only_clean = !self.rules.send_as_new;
        if !self.rules.is_root {
            return Ok(!only_clean || spool.tree.pending(|all| all.count() == 0));
        }
        let tree = Arc::clone(&spool.tree);
        let rerooted = blocking(move || tree.reroot(only_clean)).await;
        rerooted.map_err(|error| unnoted(&error))
    }

    fn stop(&self, words: String) -> CredsError {
        let before = self.stopped.lock().replace(words.clone());
        if before.as_ref() != Some(&words) {
            tracing::error!("{words}");
        }
        CredsError::Silent(words)
    }

    fn go_on(&self) {
        self.doubts.store(true, Ordering::Relaxed);
        if self.stopped.lock().take().is_some() {
            tracing::info!("sending goes on");
        }
    }
}

#[async_trait]
impl Leases for Identity {
    async fn lease(&self) -> Result<Arc<Lease>, CredsError> {
        let mut lease = self.inner.lease().await?;
        let mut why = self.judge(&lease).await?;
        if why.is_some() && self.doubts.swap(false, Ordering::Relaxed) {
            self.inner.refused(&lease.access_key_id);
            lease = self.inner.lease().await?;
            why = self.judge(&lease).await?;
        }
        why.map_or(Ok(lease), |words| Err(self.stop(words)))
    }

    fn refused(&self, access_key_id: &str) {
        self.inner.refused(access_key_id);
    }

    fn link_is_back(&self) {
        self.doubts.store(true, Ordering::Relaxed);
        self.inner.link_is_back();
    }

    fn left(&self) -> Option<Duration> {
        self.inner.left()
    }
}

#[async_trait]
impl Root for Identity {
    async fn root(&self) -> store::Result<String> {
        let lease = self.lease().await;
        let lease = lease.map_err(|error| StoreError::NoCredentials(error.to_string()))?;
        let identity = identity_of(&lease);
        identity
            .map(str::to_owned)
            .ok_or_else(|| StoreError::NoCredentials(NAMELESS.into()))
    }
}

const NAMELESS: &str = "prefix=identity needs to know whose the credentials are, and Krypton does not say it \
                        (no identityId of Cognito's): check the Krypton setting of the SIM's group, \
                        or name the prefix yourself";

fn identity_of(lease: &Lease) -> Option<&str> {
    lease.identity.as_deref().filter(|it| is_identity(it))
}

fn unnoted(error: &LogError) -> CredsError {
    CredsError::Silent(format!(
        "whose the credentials are cannot be noted in the spool: {error}"
    ))
}

fn another(bound: &str, new: &str) -> String {
    format!(
        "the SIM is another one: what waits here was written as {bound}, and the credentials are \
         now those of {new}. Nothing is sent. Put the old SIM back, or mount with new_identity=send \
         to send it as the new one, or take it out with `kryptonfs export`"
    )
}

/// Whether it is of Cognito's form: `[\w-]+:[0-9a-f-]+`.
fn is_identity(text: &str) -> bool {
    let is_region = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_guid = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-');
    text.len() <= LONGEST
        && text.split_once(':').is_some_and(|(region, guid)| {
            !region.is_empty()
                && !guid.is_empty()
                && region.chars().all(is_region)
                && guid.chars().all(is_guid)
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use zeroize::Zeroizing;

    use super::*;
    use crate::log::{self, Binding, Change};
    use crate::types::{
        Base, ETag, Headers, ObjectId, ObjectKey, ObjectMeta, RelKey, RelPath, Want,
    };

    const OLD: &str = "ap-northeast-1:0000-1";
    const NEW: &str = "ap-northeast-1:0000-2";
    const REFUSE: Rules = Rules {
        send_as_new: false,
        is_root: false,
    };
    const SEND: Rules = Rules {
        send_as_new: true,
        ..REFUSE
    };
    const ROOT: Rules = Rules {
        is_root: true,
        ..REFUSE
    };

    /// A SIM that can be swapped.
    #[derive(Debug, Default)]
    struct Sim {
        identity: Mutex<Option<String>>,
        refused: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Leases for Sim {
        async fn lease(&self) -> Result<Arc<Lease>, CredsError> {
            let hour = Duration::from_secs(3600);
            let secret = Zeroizing::new("s".to_owned());
            let end = SystemTime::now() + hour;
            let mut lease = Lease::new("ASIA".into(), secret, None, Duration::ZERO, hour, end);
            lease.identity.clone_from(&self.identity.lock());
            Ok(Arc::new(lease))
        }

        fn refused(&self, access_key_id: &str) {
            self.refused.lock().push(access_key_id.to_owned());
        }
    }

    struct House {
        sim: Arc<Sim>,
        identity: Arc<Identity>,
        log: Arc<Log>,
        tree: Arc<Tree>,
    }

    impl House {
        fn at(dir: &Path, rules: Rules) -> Self {
            let config = log::Config {
                dir: dir.join("spool"),
                binding: Binding {
                    endpoint: "e".into(),
                    bucket: "b".into(),
                    prefix: String::new(),
                },
                spool_max: 64 << 20,
                disk_reserve: 0,
            };
            let memory = config.dir.join("memory");
            let opened = Tree::open(config, &memory, Duration::from_secs(60)).unwrap();
            let sim = Arc::new(Sim::default());
            let identity = Identity::over(Arc::clone(&sim) as Arc<dyn Leases>, rules);
            identity.opened(&opened.log, &opened.tree);
            let (log, tree) = (opened.log, opened.tree);
            Self {
                sim,
                identity,
                log,
                tree,
            }
        }

        fn insert(&self, identity: &str) {
            *self.sim.identity.lock() = Some(identity.to_owned());
        }

        async fn lease(&self) -> Result<Option<String>, CredsError> {
            let lease = self.identity.lease().await?;
            Ok(lease.identity.clone())
        }

        fn bound(&self) -> Option<String> {
            self.log.identity().map(|identity| identity.to_string())
        }

        async fn remove(&self, name: &str) {
            let change = Change {
                key: RelKey::file(&RelPath::new(name).unwrap()),
                want: Want::Gone,
                base: Base::Version(ETag::new("e")),
                number: None,
            };
            let written = self
                .tree
                .change(|_| Ok::<_, LogError>((vec![change], Vec::new())));
            self.log.flushed(written.unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_first_identity_is_remembered_by_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let house = House::at(dir.path(), REFUSE);
        house.remove("a").await;
        assert_eq!((house.lease().await, house.bound()), (Ok(None), None));
        house.insert(OLD);
        assert_eq!(house.lease().await, Ok(Some(OLD.into())));
        drop(house);
        let house = House::at(dir.path(), REFUSE);
        assert_eq!(house.bound().as_deref(), Some(OLD), "before any lease");
        house.insert(OLD);
        assert!(house.lease().await.is_ok());
    }

    #[tokio::test]
    async fn with_something_unsent_no_lease_of_another_sim_is_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let house = House::at(dir.path(), REFUSE);
        house.insert(OLD);
        house.lease().await.unwrap();
        house.remove("a").await;
        house.insert(NEW);
        let Err(CredsError::Silent(words)) = house.lease().await else {
            panic!("given out");
        };
        for part in [OLD, NEW, "new_identity=send", "kryptonfs export"] {
            assert!(words.contains(part), "{part} in {words}");
        }
        assert_eq!(house.identity.stopped(), Some(words));
        assert_eq!(house.bound().as_deref(), Some(OLD));
        house.lease().await.unwrap_err();
        assert_eq!(*house.sim.refused.lock(), ["ASIA"], "asked anew, once");
        house.identity.link_is_back();
        house.lease().await.unwrap_err();
        assert_eq!(
            house.sim.refused.lock().len(),
            2,
            "it may be the old SIM again"
        );
        house.insert(OLD);
        assert!(house.lease().await.is_ok());
        assert_eq!(house.identity.stopped(), None, "the old SIM is back");
    }

    #[tokio::test]
    async fn an_empty_spool_goes_with_the_sim() {
        let dir = tempfile::tempdir().unwrap();
        let house = House::at(dir.path(), REFUSE);
        for identity in [OLD, NEW] {
            house.insert(identity);
            assert_eq!(house.lease().await, Ok(Some(identity.into())));
            assert_eq!(house.bound().as_deref(), Some(identity));
        }
    }

    #[tokio::test]
    async fn what_the_user_said_is_to_be_sent_is_sent_as_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let house = House::at(dir.path(), SEND);
        house.insert(OLD);
        house.lease().await.unwrap();
        house.remove("a").await;
        house.insert(NEW);
        assert_eq!(house.lease().await, Ok(Some(NEW.into())));
        assert_eq!(house.bound().as_deref(), Some(NEW));
    }

    #[tokio::test]
    async fn the_root_is_the_identity_and_nothing_is_known_of_another_ones() {
        let dir = tempfile::tempdir().unwrap();
        let house = House::at(dir.path(), ROOT);
        let Err(CredsError::Refused(words)) = house.lease().await else {
            panic!("a lease without a root");
        };
        assert!(words.contains("prefix=identity"), "{words}");
        house.insert(OLD);
        assert_eq!(house.identity.root().await, Ok(OLD.into()));
        let key = RelKey::file(&RelPath::new("a").unwrap());
        let id = ObjectId {
            key: ObjectKey::from(&key),
            etag: ETag::new("e"),
        };
        let meta = ObjectMeta {
            id,
            size: 1,
            modified: 0,
            headers: Some(Headers::default()),
        };
        let asked = house.tree.now();
        house.tree.learn(&key, Some(&meta), asked);
        assert!(house.tree.known(&key).is_some());
        house.tree.keep_listings();
        house.insert(NEW);
        assert_eq!(house.identity.root().await, Ok(NEW.into()));
        house.tree.learn(&key, Some(&meta), asked);
        assert!(house.tree.known(&key).is_none(), "asked of the old root");
        assert!(house.tree.remembered(&meta.id).is_none());
        drop(house);
        let house = House::at(dir.path(), ROOT);
        assert!(house.tree.known(&key).is_none());
        assert!(house.tree.remembered(&meta.id).is_none());
        house.remove("b").await;
        house.insert(OLD);
        assert!(matches!(
            house.identity.root().await,
            Err(StoreError::NoCredentials(_))
        ));
        assert_eq!(house.bound().as_deref(), Some(NEW));
    }

    #[test]
    fn an_identity_is_of_cognitos_form() {
        let guid = "ap-northeast-1:01234567-89ab-cdef-0123-456789abcdef";
        for (text, is) in [
            (guid, true),
            ("r:0", true),
            ("", false),
            ("r:", false),
            (":0", false),
            ("r:../0", false),
            ("r/x:0", false),
            ("r:G", false),
            (&format!("{guid}00000"), false),
        ] {
            assert_eq!(is_identity(text), is, "{text}");
        }
    }
}
