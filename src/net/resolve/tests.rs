use std::net::UdpSocket as StdUdpSocket;
use std::time::SystemTime;

use super::*;
use crate::clock::ManualClock;
use crate::net::dns::tests::answer;

/// A DNS server on loopback: `say` makes the packets of its answer from the question.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn new(say: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let types = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                types.lock().push(packet[length - 3]); // the low byte of the type
                for answer in say(&packet[..length]) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self { address, asked }
    }

    /// The types that were asked for: 1 is A, 28 is AAAA.
    fn asked(&self) -> Vec<u8> {
        self.asked.lock().clone()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn closed(dns: Vec<SocketAddr>) -> Config {
    Config {
        interface: Some("lo".to_owned()),
        dns,
        ..Config::default()
    }
}

fn resolver(config: &Config) -> (Resolver, Arc<ManualClock>) {
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
    let rules = Arc::new(Rules {
        network: config.network,
        allow: config.allow.clone(),
    });
    let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
    let link = Arc::new(Link::new(config.interface.clone(), Arc::clone(&shared)));
    let resolver = Resolver::new(config, rules, Arc::default(), link, shared);
    (resolver, clock)
}

#[tokio::test]
async fn literals_pins_and_localhost_are_never_asked_for() {
    let server = Server::new(|_| vec![]);
    let mut config = closed(vec![server.address]);
    config.resolve = vec![
        ("s3.example".to_owned(), ip("10.0.0.1")),
        ("other.example".to_owned(), ip("10.9.9.9")),
        ("S3.EXAMPLE".to_owned(), ip("10.0.0.2")),
    ];
    let (resolver, _) = resolver(&config);
    assert_eq!(
        resolver.lookup("192.0.2.7").await.unwrap(),
        [ip("192.0.2.7")]
    );
    assert_eq!(resolver.lookup("fd00::7").await.unwrap(), [ip("fd00::7")]);
    let pinned = [ip("10.0.0.1"), ip("10.0.0.2")];
    assert_eq!(resolver.lookup("s3.example").await.unwrap(), pinned);
    assert_eq!(resolver.lookup("S3.Example.").await.unwrap(), pinned);
    let local = [ip("127.0.0.1"), ip("::1")];
    assert_eq!(resolver.lookup("localhost").await.unwrap(), local);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_name_is_asked_for_once_until_its_time_is_over() {
    let server = Server::new(|asked| vec![answer(asked, 0, 90, &[ip("10.0.0.1")])]);
    let (resolver, clock) = resolver(&closed(vec![server.address]));
    let all = futures_util::future::join_all((0..9).map(|_| resolver.lookup("s3.example"))).await;
    for found in all {
        assert_eq!(found.unwrap(), [ip("10.0.0.1")]);
    }
    assert_eq!(server.asked(), [1], "one question, and none for IPv6");
    clock.advance(Duration::from_secs(89));
    resolver.lookup("S3.example.").await.unwrap();
    assert_eq!(server.asked().len(), 1);
    clock.advance(Duration::from_secs(1));
    resolver.lookup("s3.example").await.unwrap();
    assert_eq!(server.asked().len(), 2);
    resolver.forget("S3.example");
    resolver.lookup("s3.example").await.unwrap();
    assert_eq!(server.asked().len(), 3);
    assert!(resolver.asker.meter.totals().up > 0 && resolver.asker.meter.totals().down > 0);
}

#[tokio::test]
async fn a_ttl_of_seconds_is_stretched_and_one_of_days_is_cut() {
    for (ttl, kept) in [(1, TTL.0), (1_000_000, TTL.1)] {
        let server = Server::new(move |asked| vec![answer(asked, 0, ttl, &[ip("10.0.0.1")])]);
        let (resolver, clock) = resolver(&closed(vec![server.address]));
        resolver.lookup("s3.example").await.unwrap();
        clock.advance(kept - Duration::from_millis(1));
        resolver.lookup("s3.example").await.unwrap();
        assert_eq!(server.asked().len(), 1);
        clock.advance(Duration::from_millis(1));
        resolver.lookup("s3.example").await.unwrap();
        assert_eq!(server.asked().len(), 2);
    }
}

#[tokio::test]
async fn ipv6_is_asked_for_where_there_is_no_ipv4() {
    let server = Server::new(|asked| match asked[asked.len() - 3] {
        28 => vec![answer(asked, 0, 1, &[ip("fd00::1")])],
        _ => vec![answer(asked, 0, 1, &[])],
    });
    let (resolver, _) = resolver(&closed(vec![server.address]));
    assert_eq!(
        resolver.lookup("s3.example").await.unwrap(),
        [ip("fd00::1")]
    );
    assert_eq!(server.asked(), [1, 28]);
}

#[tokio::test]
async fn a_server_that_fails_is_followed_by_the_next() {
    let broken = Server::new(|asked| vec![answer(asked, 2, 1, &[])]);
    let good = Server::new(|asked| vec![answer(asked, 0, 1, &[ip("10.0.0.1")])]);
    let (resolver, _) = resolver(&closed(vec![broken.address, good.address]));
    assert_eq!(
        resolver.lookup("s3.example").await.unwrap(),
        [ip("10.0.0.1")]
    );
    assert_eq!((broken.asked().len(), good.asked().len()), (1, 1));
}

#[tokio::test]
async fn when_all_servers_fail_each_was_asked_twice_and_the_error_names_one() {
    let broken = Server::new(|asked| vec![answer(asked, 5, 1, &[])]);
    let (resolver, _) = resolver(&closed(vec![broken.address]));
    let error = resolver.lookup("s3.example").await.unwrap_err().to_string();
    assert!(
        error.contains("s3.example") && error.contains("127.0.0.1"),
        "{error}"
    );
    assert_eq!(broken.asked().len(), 2);
}

#[tokio::test]
async fn no_such_name_is_final() {
    let server = Server::new(|asked| vec![answer(asked, 3, 1, &[])]);
    let (resolver, _) = resolver(&closed(vec![server.address]));
    let error = resolver
        .lookup("nope.example")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no such name"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn forged_and_broken_answers_are_waited_past() {
    let server = Server::new(|asked| {
        let mut forged = answer(asked, 0, 1, &[ip("203.0.113.66")]);
        forged[0] ^= 1;
        vec![
            forged,
            b"garbage".to_vec(),
            asked.to_vec(),
            answer(asked, 0, 1, &[ip("10.0.0.1")]),
        ]
    });
    let (resolver, _) = resolver(&closed(vec![server.address]));
    assert_eq!(
        resolver.lookup("s3.example").await.unwrap(),
        [ip("10.0.0.1")]
    );
}

#[tokio::test]
async fn a_server_outside_of_allow_is_not_asked() {
    let server = Server::new(|asked| vec![answer(asked, 0, 1, &[ip("10.0.0.1")])]);
    let mut config = closed(vec![server.address]);
    config.allow = vec!["10.0.0.0/8".parse().unwrap()];
    let (resolver, _) = resolver(&config);
    let error = resolver.lookup("s3.example").await.unwrap_err();
    assert!(matches!(&error, ResolveError::Forbidden(text) if text.contains("allow=")));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn questions_go_by_the_interface_or_not_at_all() {
    let server = Server::new(|asked| vec![answer(asked, 0, 1, &[ip("10.0.0.1")])]);
    let config = Config {
        interface: Some("kfs-none0".to_owned()),
        ..closed(vec![server.address])
    };
    let (resolver, _) = resolver(&config);
    let error = resolver.lookup("s3.example").await.unwrap_err().to_string();
    assert!(error.contains("No such device"), "{error}");
    assert!(server.asked().is_empty());
    assert_eq!(resolver.asker.meter.totals(), crate::net::Totals::default());
}

#[tokio::test]
async fn the_systems_resolver_is_asked_only_on_an_open_network_without_interface_and_servers() {
    let open = Config {
        network: Network::Open,
        ..Config::default()
    };
    assert!(resolver(&open).0.system);
    let bound = Config {
        interface: Some("lo".to_owned()),
        ..open.clone()
    };
    assert!(!resolver(&bound).0.system);
    let told = Config {
        dns: vec!["127.0.0.1:53".parse().unwrap()],
        ..open
    };
    assert!(!resolver(&told).0.system);
    assert!(!resolver(&closed(vec![])).0.system);
}

#[tokio::test]
async fn without_a_server_the_error_says_how_to_name_one() {
    let dir = tempfile::tempdir().unwrap();
    for content in [None, Some("# nothing\nsearch example\n")] {
        let (mut resolver, _) = resolver(&closed(vec![]));
        resolver.servers.below(dir.path());
        if let Some(content) = content {
            std::fs::create_dir_all(dir.path().join("etc")).unwrap();
            std::fs::write(dir.path().join("etc/resolv.conf"), content).unwrap();
        }
        let error = resolver.lookup("s3.example").await.unwrap_err().to_string();
        assert!(error.contains("dns=ADDRESS"), "{error}");
    }
}

/// Answers over UDP that the answer does not fit, and over TCP with what `say` makes of the question.
fn truncating(say: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    use std::io::{Read as _, Write as _};
    let (udp, tcp) = std::iter::from_fn(|| {
        let udp = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        Some(std::net::TcpListener::bind(udp.local_addr().unwrap()).map(|tcp| (udp, tcp)))
    })
    .find_map(Result::ok)
    .unwrap();
    let address = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut packet) {
            let mut answer = answer(&packet[..length], 0, 1, &[]);
            answer[2] |= 0x02;
            udp.send_to(&answer, from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for connection in tcp.incoming() {
            let mut connection = connection.unwrap();
            let mut length = [0; 2];
            connection.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            connection.read_exact(&mut question).unwrap();
            let answer = say(&question);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            // Who asked may have gone: that is its test's business.
            let _ = connection.write_all(&[&length, answer.as_slice()].concat());
        }
    });
    address
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_asked_for_over_tcp() {
    let many: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let server = truncating(move |asked| {
        let mut whole = answer(asked, 0, 90, &many);
        whole[7] = 201; // and the CNAME
        whole
    });
    let (resolver, _) = resolver(&closed(vec![server]));
    let found = resolver.lookup("s3.example").await.unwrap();
    assert_eq!(found.len(), 16);
    assert_eq!(found[0], ip("10.0.0.0"));
    assert_eq!(resolver.asker.meter.totals().connections, 1);
}

#[tokio::test]
async fn a_server_that_has_no_whole_answer_over_tcp_either_has_failed() {
    let server = truncating(|asked| {
        let mut cut = answer(asked, 0, 1, &[]);
        cut[2] |= 0x02;
        cut
    });
    let (resolver, _) = resolver(&closed(vec![server]));
    let error = resolver.lookup("s3.example").await.unwrap_err().to_string();
    assert!(error.contains("over TCP"), "{error}");
}
