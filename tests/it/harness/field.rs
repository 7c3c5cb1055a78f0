//! The network of the article (`tests/it/field.sh`), in network namespaces: a device with a SIM and a better way to the
//! Internet, SORACOM's side with its VPG, a Gate Peer, the VPC with S3, the Internet.
//!
//! ```text
//!  dev: wwan0 10.128.0.2 --- air: VPG, DNS, Krypton --- VXLAN 10 over the peering --- peer: Gate Peer, NAT
//!       eth0 192.168.1.2 --- net: the Internet ------ (igw) ------------------------- vpc: S3, Cognito
//! ```
//!
//! S3's address is a public one, so it can be reached from the Internet too: who leaks there gets an
//! answer, and is counted.
//!
//! Invariant: the namespaces of a process are gone with it, or are taken away by the next one.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kryptonfs::sim::{Deny, Site};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::names::Names;
use super::world::level;
use super::{Access, Client, Spec, TestCloud, WorkDir, shell, try_shell};

/// S3's regional name.
pub(crate) const S3: (&str, Ipv4Addr) = (
    "s3.ap-northeast-1.amazonaws.com",
    Ipv4Addr::new(52, 219, 68, 63),
);
const KRYPTON: (&str, Ipv4Addr) = ("krypton.soracom.io", Ipv4Addr::new(54, 250, 252, 67));
const COGNITO: (&str, Ipv4Addr) = (
    "cognito-identity.ap-northeast-1.amazonaws.com",
    Ipv4Addr::new(172, 31, 0, 20),
);
const DNS: Ipv4Addr = Ipv4Addr::new(100, 127, 0, 53);
/// One of the Internet's, which answers everybody.
const PUBLIC_DNS: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const BUCKET: &str = "field";
const SPACES: [&str; 5] = ["dev", "air", "peer", "vpc", "net"];

/// What left by the link to the Internet, as each of four counters has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaks {
    /// Packets: the device's nftables, the Internet's nftables.
    pub(crate) packets: [u64; 2],
    /// Of them: to port 53.
    pub(crate) questions: [u64; 2],
    /// Frames, by the driver.
    pub(crate) frames: u64,
    /// Questions that came to a public DNS server.
    pub(crate) asked: u64,
}

impl Leaks {
    pub(crate) const NONE: Self = Self {
        packets: [0, 0],
        questions: [0, 0],
        frames: 0,
        asked: 0,
    };
}

/// Runs a command in that network namespace, with the mounts of the tests.
pub(crate) fn within(space: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{space}")).arg("--");
    command
}

/// The namespaces.
#[derive(Debug)]
struct Spaces {
    tag: String,
}

impl Spaces {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        clear_leftovers();
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let spaces = Self {
            tag: format!("kfs-{}-{number}", std::process::id()),
        };
        spaces.run("build");
        spaces
    }

    fn name(&self, space: &str) -> String {
        format!("{}-{space}", self.tag)
    }

    fn run(&self, script: &str) -> String {
        let names = SPACES.map(|space| format!("{space}={}", self.name(space)));
        let functions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/field.sh");
        let names = names.join("\n");
        shell(
            Path::new("/"),
            &format!("{names}\nsource {functions:?}\n{script}"),
        )
    }

    /// Makes something there that stays there, such as a socket.
    fn make<T: Send + 'static>(&self, space: &str, make: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/run/netns/{}", self.name(space))).unwrap();
        let thread = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).expect("root may enter");
            make()
        });
        thread.join().expect("it is made")
    }

    fn counters(&self, space: &str) -> [u64; 2] {
        let script = format!("on ${space} nft -j list counters table inet leak");
        let said: Value = serde_json::from_str(&self.run(&script)).unwrap();
        let all = said["nftables"].as_array().unwrap();
        ["every", "dns"].map(|name| {
            let mut counters = all.iter().map(|item| &item["counter"]);
            let one = counters.find(|counter| counter["name"] == name);
            one.and_then(|one| one["packets"].as_u64()).unwrap()
        })
    }

    fn frames(&self) -> u64 {
        let said = self.run("ip -n $dev -j -s link show dev eth0");
        let said: Value = serde_json::from_str(&said).unwrap();
        said[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in SPACES {
            remove(&self.name(space));
        }
    }
}

fn remove(space: &str) {
    // It may never have come to be.
    let _ = Command::new("ip").args(["netns", "del", space]).output();
}

/// Those of processes that were killed.
fn clear_leftovers() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("kfs-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

/// What differs from the article's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Nothing,
    /// The Gate Peer forwards, but does not translate addresses.
    Nat,
    /// The VPG sends what devices send to the Internet.
    Redirection,
}

/// The whole field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) cloud: TestCloud,
    /// On a host of the VPC.
    pub(crate) client: Client,
    /// The SIM's DNS server.
    pub(crate) names: Names,
    public_names: Names,
    pub(crate) work: WorkDir,
    bucket: String,
    spaces: Spaces,
}

impl Field {
    pub(crate) fn new(name: &str, lacks: Lacks) -> Self {
        let work = WorkDir::new(name);
        let spaces = Spaces::new();
        match lacks {
            Lacks::Nothing => drop(spaces.run("nat")),
            Lacks::Nat => {}
            Lacks::Redirection => drop(spaces.run("nat; ip -n $air rule del iif ue lookup 100")),
        }
        let listen = |space: &str, address: Ipv4Addr, port: u16| {
            let bound = spaces.make(space, move || TcpListener::bind((address, port)));
            Some(Arc::new(bound.expect("the address is there")))
        };
        let names = [S3.0, KRYPTON.0, COGNITO.0].map(str::to_owned);
        let site = Site {
            s3: listen("vpc", S3.1, 443),
            krypton: listen("air", KRYPTON.1, 8036),
            cognito: listen("vpc", COGNITO.1, 443),
            names: names.into_iter().chain([S3.1.to_string()]).collect(),
            vpc: vec!["172.31.0.0/16".parse().unwrap()],
            denies: vec![
                Deny {
                    below: "/".into(),
                    inside: false,
                },
                Deny {
                    below: format!("/{BUCKET}/.kryptonfs-canary/outside"),
                    inside: true,
                },
            ],
            sims: vec!["10.128.0.2/32".parse().unwrap()],
        };
        let ask = |space: &str, address: Ipv4Addr| {
            let socket = spaces.make(space, move || UdpSocket::bind((address, 53)));
            Names::serve(
                socket.expect("the address is there"),
                &[S3, KRYPTON, COGNITO],
            )
        };
        let (names, public_names) = (ask("air", DNS), ask("net", PUBLIC_DNS));
        let bucket = BUCKET.to_owned();
        let cloud = TestCloud::at(&work.dir("cloud"), &bucket, None, site);
        Self {
            client: client(&spaces, &cloud, &bucket),
            cloud,
            names,
            public_names,
            work,
            bucket,
            spaces,
        }
    }

    /// Ends all keys, and gives the client new ones.
    pub(crate) fn expire_keys(&mut self) {
        self.cloud.expire_keys();
        self.client = client(&self.spaces, &self.cloud, &self.bucket);
    }

    /// A mount on the device.
    pub(crate) fn spec(&self) -> Spec {
        let options = [
            ("network", "closed".to_owned()),
            ("interface", "wwan0".to_owned()),
            ("dns", DNS.to_string()),
            ("path_style", "true".to_owned()),
            ("log", level()),
        ];
        Spec {
            source: format!("s3://{}/device", self.bucket),
            region: self.cloud.region(),
            endpoint: format!("https://{}", S3.0),
            krypton: format!("https://{}:8036", KRYPTON.0),
            ca_file: self.cloud.ca_file(),
            dir: self.work.dir("mnt"),
            spool: self.work.path().join("spool"),
            cache: self.work.path().join("cache"),
            options: options.map(|(key, value)| (key.into(), value)).to_vec(),
            log: self.work.path().join("mount.log"),
            space: Some(self.device()),
            env: Vec::new(),
        }
    }

    /// The device's namespace.
    pub(crate) fn device(&self) -> String {
        self.spaces.name("dev")
    }

    /// Runs a script that knows the spaces by `$dev`, `$air`, `$peer`, `$vpc`, `$net`; panics if
    /// it fails.
    pub(crate) fn run(&self, script: &str) -> String {
        self.spaces.run(script)
    }

    /// Whether a command succeeds on the device.
    pub(crate) fn device_can(&self, script: &str) -> bool {
        let space = self.device();
        let script = format!("nsenter --net=/run/netns/{space} bash -c {script:?}");
        try_shell(Path::new("/"), &script).status.success()
    }

    /// What left by `eth0` so far.
    pub(crate) fn leaks(&self) -> Leaks {
        let (device, internet) = (self.spaces.counters("dev"), self.spaces.counters("net"));
        Leaks {
            packets: [device[0], internet[0]],
            questions: [device[1], internet[1]],
            frames: self.spaces.frames(),
            asked: self.public_names.questions(),
        }
    }
}

fn client(spaces: &Spaces, cloud: &TestCloud, bucket: &str) -> Client {
    let access = Access {
        endpoint: format!("https://{}", S3.1),
        region: cloud.region(),
        bucket: bucket.to_owned(),
        ca_file: Some(cloud.ca_file()),
        keys: cloud.keys(),
    };
    Client::start_in(&spaces.name("peer"), &access)
}
