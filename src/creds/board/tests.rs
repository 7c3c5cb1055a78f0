use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::*;
use crate::clock::ManualClock;

const HOUR: Duration = Duration::from_secs(3600);

/// Issues `ID-0`, `ID-1`…, each for an hour, as often as the gate lets it.
#[derive(Debug)]
struct Issuer {
    clock: Arc<ManualClock>,
    gate: Semaphore,
    asked: AtomicUsize,
    fails: Mutex<Option<CredsError>>,
}

#[async_trait]
impl Source for Issuer {
    async fn obtain(&self) -> Result<Lease, CredsError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if let Some(error) = self.fails.lock().clone() {
            return Err(error);
        }
        let now = crate::clock::Clock::boot(&*self.clock);
        let key = Zeroizing::new("s3cr3t-key".to_owned());
        let token = Some(Zeroizing::new("s3cr3t-token".to_owned()));
        let end = SystemTime::UNIX_EPOCH + HOUR;
        let mut lease = Lease::new(format!("ID-{number}"), key, token, now, HOUR, end);
        lease.identity = Some("region:guid".to_owned());
        Ok(lease)
    }
}

/// A device, whose processes are boards.
struct Device {
    clock: Arc<ManualClock>,
    issuer: Arc<Issuer>,
    place: Place,
    _root: tempfile::TempDir,
}

impl Device {
    /// Below a folder in memory.
    fn new() -> Self {
        Self::below(Path::new("/dev/shm"))
    }

    fn below(folder: &Path) -> Self {
        let root = tempfile::tempdir_in(folder).unwrap();
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let issuer = Issuer {
            clock: Arc::clone(&clock),
            gate: Semaphore::new(1000),
            asked: AtomicUsize::new(0),
            fails: Mutex::new(None),
        };
        Self {
            clock,
            issuer: Arc::new(issuer),
            place: Place {
                folders: vec![root.path().join("run")],
                name: "issuer".to_owned(),
            },
            _root: root,
        }
    }

    fn process(&self, wish: Wish) -> Board {
        self.process_at(wish, &self.place)
    }

    fn process_at(&self, wish: Wish, place: &Place) -> Board {
        let clock: SharedClock = Arc::<ManualClock>::clone(&self.clock);
        let source: Arc<dyn Source> = Arc::<Issuer>::clone(&self.issuer);
        Board::new(source, clock, wish, Some(place.clone()))
    }

    fn asked(&self) -> usize {
        self.issuer.asked.load(Ordering::SeqCst)
    }

    fn file(&self) -> PathBuf {
        self.place.folders[0].join("issuer.lease")
    }

    fn fails(&self, error: Option<CredsError>) {
        *self.issuer.fails.lock() = error;
    }
}

async fn id(board: &Board) -> String {
    board.obtain(None).await.unwrap().access_key_id
}

fn old(id: &str, refused: bool) -> Old {
    Old {
        access_key_id: id.to_owned(),
        refused,
    }
}

fn silence() -> CredsError {
    CredsError::Silent("no link".to_owned())
}

#[tokio::test]
async fn a_hundred_processes_at_expiry_are_one_request() {
    let device = Device::new();
    let all = |wish| {
        let boards = (0..100).map(|_| device.process(wish)).collect::<Vec<_>>();
        async move { join_all(boards.iter().map(id)).await }
    };
    assert_eq!(all(Wish::Any).await, vec!["ID-0"; 100]);
    assert_eq!(all(Wish::Fresh).await, vec!["ID-0"; 100]);
    assert_eq!(device.asked(), 1);
    device.clock.advance(HOUR);
    assert_eq!(all(Wish::Fresh).await, vec!["ID-1"; 100]);
    assert_eq!(device.asked(), 2);
}

#[tokio::test]
async fn the_file_is_private_and_holds_the_whole_lease() {
    let device = Device::new();
    id(&device.process(Wish::Any)).await;
    let meta = std::fs::metadata(device.file()).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o600);
    let above = std::fs::metadata(&device.place.folders[0]).unwrap();
    assert_eq!(above.mode() & 0o7777, 0o700);
    let lease = device.process(Wish::Fresh).obtain(None).await.unwrap();
    assert_eq!(lease.identity.as_deref(), Some("region:guid"));
    assert_eq!(
        lease.to_credential_process().as_str(),
        r#"{"Version":1,"AccessKeyId":"ID-0","SecretAccessKey":"s3cr3t-key","SessionToken":"s3cr3t-token","Expiration":"1970-01-01T01:00:00Z"}"#
    );
}

#[tokio::test]
async fn a_disk_that_is_not_memory_never_sees_it_and_the_process_keeps_its_own() {
    // Neither is memory that could be written to.
    for place in ["/proc/self", "/sys"] {
        let device = Device::new();
        let folder = Path::new(place).join("kryptonfs-lease-test");
        let place = Place {
            folders: vec![folder.clone()],
            ..device.place.clone()
        };
        let board = device.process_at(Wish::Any, &place);
        assert_eq!(id(&board).await, "ID-0");
        assert_eq!(id(&board).await, "ID-0", "it is kept in the process");
        assert_eq!(id(&device.process_at(Wish::Any, &place)).await, "ID-1");
        assert!(!folder.exists());
        let both = Place {
            folders: vec![folder, device.place.folders[0].clone()],
            ..place
        };
        assert_eq!(id(&device.process_at(Wish::Any, &both)).await, "ID-2");
        assert_eq!(id(&device.process(Wish::Any)).await, "ID-2");
    }
}

#[tokio::test]
async fn a_folder_that_others_can_write_to_is_not_used() {
    let device = Device::new();
    let folder = &device.place.folders[0];
    std::fs::create_dir(folder).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(id(&device.process(Wish::Any)).await, "ID-0");
    assert!(!device.file().exists());
    std::fs::remove_dir(folder).unwrap();
    std::os::unix::fs::symlink("/tmp", folder).unwrap();
    assert_eq!(id(&device.process(Wish::Any)).await, "ID-1");
}

#[tokio::test]
async fn who_gives_it_away_gets_a_successor_when_it_is_due_and_a_mount_does_not_wait_for_one() {
    let device = Device::new();
    id(&device.process(Wish::Any)).await;
    device.clock.advance(HOUR * 2 / 3);
    assert_eq!(id(&device.process(Wish::Any)).await, "ID-0");
    assert_eq!(device.asked(), 1);
    assert_eq!(id(&device.process(Wish::Fresh)).await, "ID-1");
    let mount = device.process(Wish::Any);
    let due = mount.obtain(Some(&old("ID-0", false))).await.unwrap();
    assert_eq!(due.access_key_id, "ID-1", "another process has asked");
    assert_eq!(device.asked(), 2);
}

#[tokio::test]
async fn in_an_outage_it_is_given_away_to_its_end_and_few_requests_are_made() {
    let device = Device::new();
    id(&device.process(Wish::Fresh)).await;
    device.fails(Some(silence()));
    device.clock.advance(HOUR * 2 / 3);
    let mut served = 0;
    while device.process(Wish::Fresh).obtain(None).await.is_ok() {
        device.clock.advance(Duration::from_secs(1));
        served += 1;
    }
    assert_eq!(served, 1190, "seconds, to the margin before the end");
    // Six doublings to the longest pause; with the least jitter one in 5 s.
    assert!((6..=240).contains(&device.asked()), "{}", device.asked());
    device.fails(None);
    device.clock.advance(BACKOFF.1);
    id(&device.process(Wish::Fresh)).await;
}

#[tokio::test]
async fn a_failure_is_everybodys_until_the_pause_is_over_or_the_link_is_back() {
    let device = Device::new();
    device.fails(Some(CredsError::Refused("no".to_owned())));
    for _ in 0..20 {
        let failure = device.process(Wish::Fresh).obtain(None).await.unwrap_err();
        assert_eq!(failure.error, CredsError::Refused("no".to_owned()));
    }
    assert_eq!(device.asked(), 1);
    device.fails(None);
    let mount = device.process(Wish::Any);
    mount.obtain(None).await.unwrap_err();
    mount.hurry();
    assert_eq!(id(&mount).await, "ID-1");
    assert_eq!(id(&device.process(Wish::Fresh)).await, "ID-1");
}

#[tokio::test]
async fn what_s3_refuses_is_given_to_nobody_any_more() {
    let device = Device::new();
    let mount = device.process(Wish::Any);
    assert_eq!(id(&mount).await, "ID-0");
    device.fails(Some(silence()));
    mount.obtain(Some(&old("ID-0", true))).await.unwrap_err();
    let told = device.process(Wish::Fresh).obtain(None).await;
    assert_eq!(told.unwrap_err().error, silence());
    device.fails(None);
    device.clock.advance(BACKOFF.1);
    let new = mount.obtain(Some(&old("ID-0", true))).await.unwrap();
    assert_eq!(new.access_key_id, "ID-2");
    // A second mount finds out late.
    let late = device.process(Wish::Any);
    let new = late.obtain(Some(&old("ID-0", true))).await.unwrap();
    assert_eq!(new.access_key_id, "ID-2");
}

#[tokio::test]
async fn what_cannot_be_read_or_is_of_another_start_counts_for_nothing() {
    let device = Device::new();
    id(&device.process(Wish::Any)).await;
    let whole = std::fs::read_to_string(device.file()).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let contents = [
        String::new(),
        whole[..whole.len() / 2].to_owned(),
        "[]".to_owned(),
        whole.replace(boot.trim(), "another"),
        whole.replace("\"version\":1", "\"version\":2"),
    ];
    for (asked, content) in (1..).zip(contents) {
        std::fs::write(device.file(), content).unwrap();
        assert_eq!(id(&device.process(Wish::Any)).await, format!("ID-{asked}"));
    }
    std::fs::write(device.file(), whole).unwrap();
    assert_eq!(id(&device.process(Wish::Any)).await, "ID-0");
}

#[tokio::test]
async fn no_setting_of_the_clock_ends_or_prolongs_it() {
    let device = Device::new();
    id(&device.process(Wish::Any)).await;
    for seconds in [0, 1_900_000_000, 1_200, 315_360_000] {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        device.clock.set_wall(wall);
        assert_eq!(id(&device.process(Wish::Fresh)).await, "ID-0");
    }
    device.clock.advance(HOUR);
    assert_eq!(id(&device.process(Wish::Fresh)).await, "ID-1");
}

#[tokio::test]
async fn while_another_process_asks_what_has_time_left_is_given_away() {
    let device = Device::new();
    id(&device.process(Wish::Any)).await;
    let dir = Dir::private(&Disk::default(), &device.place.folders[0]).unwrap();
    let lock = dir.lock("issuer.lease").unwrap().unwrap();
    device.clock.advance(HOUR * 2 / 3);
    assert_eq!(id(&device.process(Wish::Fresh)).await, "ID-0");
    assert_eq!(device.asked(), 1);
    // With less than what readers want, it waits for the other one; who dies lets go.
    device.clock.advance(Duration::from_secs(400));
    let board = device.process(Wish::Fresh);
    let waits = tokio::spawn(async move { id(&board).await });
    tokio::time::sleep(STEP * 3).await;
    assert!(!waits.is_finished());
    drop(lock);
    assert_eq!(waits.await.unwrap(), "ID-1");
}

#[tokio::test]
async fn what_other_issuers_left_is_swept_away_once_it_is_over() {
    let device = Device::new();
    let other = Place {
        name: "other".to_owned(),
        ..device.place.clone()
    };
    let left = device.place.folders[0].join("other.lease");
    id(&device.process_at(Wish::Any, &other)).await;
    id(&device.process(Wish::Any)).await;
    assert!(left.exists(), "it holds");
    std::fs::write(device.place.folders[0].join("x.sock"), "not ours").unwrap();
    device.clock.advance(HOUR);
    id(&device.process(Wish::Any)).await;
    assert!(!left.exists());
    assert!(device.place.folders[0].join("x.sock").exists());
}

#[test]
fn a_pause_is_between_5_s_and_5_min_and_grows() {
    assert_eq!(pause(1, 0.0), BACKOFF.0);
    assert_eq!(pause(1, 1.0), Duration::from_secs(10));
    assert_eq!(pause(3, 1.0), Duration::from_secs(40));
    assert_eq!(pause(u32::MAX, 0.0), BACKOFF.0);
    assert_eq!(pause(u32::MAX, 1.0), BACKOFF.1);
    let random = random();
    assert!((0.0..=1.0).contains(&random));
}
