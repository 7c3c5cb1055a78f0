use std::error::Error as _;
use std::net::TcpListener;

use aws_sdk_cognitoidentity::config::{Builder, Region};
use aws_sdk_cognitoidentity::error::SdkError;
use aws_smithy_runtime_api::client::result::DispatchFailure;
use reqwest::{Method, Request, Url};

use super::stub::{Stub, reply};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn closed() -> Config {
    Config {
        interface: Some("lo".to_owned()),
        ..Config::default()
    }
}

fn closed_net() -> Net {
    Net::new(&closed()).unwrap()
}

async fn call(net: &Net, url: &str) -> Result<Answer, WebError> {
    let request = Request::new(Method::GET, Url::parse(url).unwrap());
    net.web().call(request, 1000, PATIENCE).await
}

/// How an SDK client's request to `url` fails before there is an answer, and the text of it.
async fn sdk_failure(net: &Net, url: &str) -> (DispatchFailure, String) {
    let config = Builder::from(&net.sdk_config())
        .region(Region::new("ap-northeast-1"))
        .endpoint_url(url)
        .build();
    let client = aws_sdk_cognitoidentity::Client::from_conf(config);
    let call = client
        .get_credentials_for_identity()
        .identity_id("ap-northeast-1:0-1");
    match call.send().await {
        Err(SdkError::DispatchFailure(failure)) => {
            let source = failure
                .as_connector_error()
                .and_then(|error| error.source());
            let text = source.map(ToString::to_string).unwrap();
            (failure, text)
        }
        other => panic!("{other:?}"),
    }
}

/// An address on loopback where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn closed_without_an_interface_is_refused_with_the_cure() {
    let error = Net::new(&Config::default()).unwrap_err();
    assert_eq!(error, NetError::NoInterface);
    let text = error.to_string();
    assert!(
        text.contains("interface=") && text.contains("network=open"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_an_interface_is_refused_and_one_that_is_not_there_is_not() {
    for name in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-"] {
        let config = Config {
            interface: Some(name.to_owned()),
            ..Config::default()
        };
        assert_eq!(
            Net::new(&config).unwrap_err(),
            NetError::InterfaceName(name.to_owned())
        );
    }
    let config = Config {
        interface: Some("kfs-none0".to_owned()),
        ..Config::default()
    };
    assert!(Net::new(&config).unwrap().link().is_known_down());
}

#[tokio::test]
async fn everything_goes_by_the_interface_and_its_absence_is_a_link_error() {
    let stub = Stub::new(|_, _| reply("200 OK", "", "hello"));
    let config = Config {
        interface: Some("kfs-none0".to_owned()),
        ..Config::default()
    };
    let net = Net::new(&config).unwrap();
    let error = call(&net, &stub.url()).await.unwrap_err();
    assert!(
        matches!(&error, WebError::Silent(text) if text.contains("kfs-none0")),
        "{error:?}"
    );
    let (failure, _) = sdk_failure(&net, &stub.url()).await;
    assert!(failure.is_io(), "{failure:?}");
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn the_meter_counts_what_passes_the_socket() {
    let answer = reply("200 OK", "", "hello");
    let length = answer.len() as u64;
    let stub = Stub::new(move |_, _| answer.clone());
    let net = closed_net();
    assert_eq!(net.meter().totals(), Totals::default());
    assert_eq!(net.meter().quiet_for(), None);
    for _ in 0..2 {
        let answer = call(&net, &stub.url()).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_slice()),
            (200, &b"hello"[..])
        );
    }
    let sent: usize = stub.asked().iter().map(|asked| asked.bytes).sum();
    let expected = Totals {
        up: sent as u64,
        down: 2 * length,
        connections: 2,
    };
    assert_eq!(net.meter().totals(), expected);
    assert!(net.meter().quiet_for().is_some());
    assert!(net.link().history().last_ok.is_some());
}

#[tokio::test]
async fn an_ip_literal_outside_of_allow_is_refused_for_the_web_and_the_sdk() {
    let stub = Stub::new(|_, _| reply("200 OK", "", ""));
    let net = Net::new(&Config {
        network: Network::Open,
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        ..Config::default()
    })
    .unwrap();
    let error = call(&net, &stub.url()).await.unwrap_err();
    assert!(
        matches!(&error, WebError::Forbidden(text) if text.contains("allow=")),
        "{error:?}"
    );
    let (failure, text) = sdk_failure(&net, &stub.url()).await;
    assert!(failure.is_user() && text.contains("allow="), "{failure:?}");
    assert!(stub.asked().is_empty());
    assert_eq!(net.meter().totals(), Totals::default());
    assert!(net.link().history().last_error.is_some());
}

#[tokio::test]
async fn a_name_that_leads_outside_of_allow_is_refused() {
    let stub = Stub::new(|_, _| reply("200 OK", "", ""));
    let net = Net::new(&Config {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        resolve: vec![("s3.example".to_owned(), "127.0.0.1".parse().unwrap())],
        ..closed()
    })
    .unwrap();
    let url = format!("http://s3.example:{}", stub.address.port());
    let error = call(&net, &url).await.unwrap_err();
    assert!(matches!(error, WebError::Forbidden(_)), "{error:?}");
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn plain_http_off_loopback_is_refused_for_the_web_and_the_sdk() {
    let net = closed_net();
    let error = call(&net, "http://192.0.2.1:80").await.unwrap_err();
    assert!(
        matches!(&error, WebError::Forbidden(text) if text.contains("plain http")),
        "{error:?}"
    );
    let (failure, text) = sdk_failure(&net, "http://192.0.2.1").await;
    assert!(
        failure.is_user() && text.contains("plain http"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_source_address_of_another_kind_than_the_hosts_is_refused() {
    let net = Net::new(&Config {
        source_address: Some("::1".parse().unwrap()),
        ..closed()
    })
    .unwrap();
    let error = call(&net, &nobody()).await.unwrap_err();
    assert!(
        matches!(&error, WebError::Forbidden(text) if text.contains("source_address")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_a_link_error_that_says_where_and_by_what() {
    let net = closed_net();
    let url = nobody();
    let error = call(&net, &url).await.unwrap_err();
    assert!(
        matches!(&error, WebError::Silent(text) if text.contains("127.0.0.1") && text.contains("by lo")),
        "{error:?}"
    );
    let (failure, text) = sdk_failure(&net, &url).await;
    assert!(failure.is_io() && text.contains("by lo"), "{failure:?}");
    assert!(net.link().history().last_error.is_some());
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_a_link_error() {
    let stub = Stub::new(|_, _| String::new());
    let (failure, _) = sdk_failure(&closed_net(), &stub.url()).await;
    assert!(failure.is_io(), "{failure:?}");
}

#[tokio::test]
async fn what_does_not_speak_http_is_not_taken_for_the_link() {
    let stub = Stub::new(|_, _| "SSH-2.0-OpenSSH\r\n\r\n".to_owned());
    let net = closed_net();
    let error = call(&net, &stub.url()).await.unwrap_err();
    assert!(matches!(error, WebError::Unreadable(_)), "{error:?}");
    let (failure, _) = sdk_failure(&net, &stub.url()).await;
    assert!(!failure.is_io() && !failure.is_user(), "{failure:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let stub = Stub::new(|_, _| reply("302 Found", "location: /elsewhere\r\n", ""));
    let answer = call(&closed_net(), &stub.url()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 302);
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let stub = Stub::new(|_, _| {
        loop {
            std::thread::park();
        }
    });
    let request = Request::new(Method::GET, Url::parse(&stub.url()).unwrap());
    let web = closed_net().web();
    let error = web
        .call(request, 1000, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, WebError::Silent(_)), "{error:?}");
}

#[cfg(feature = "sim")]
mod over_tls {
    use std::io::{Read, Write};
    use std::path::Path;
    use std::time::SystemTime;

    use parking_lot::Mutex;
    use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::clock::believed::Believed;
    use crate::clock::{Clock as _, ManualClock, SharedClock};

    /// An https server named `s3.test`; writes its certificate into `dir/ca.pem` and remembers
    /// how hands were shaken.
    fn server(dir: &Path) -> (SocketAddr, Arc<Mutex<Vec<Option<HandshakeKind>>>>) {
        server_of(dir, 1975..4000, "")
    }

    /// The same, with a certificate of these years, and more lines in the head of its answers.
    fn server_of(
        dir: &Path,
        years: std::ops::Range<i32>,
        head: &'static str,
    ) -> (SocketAddr, Arc<Mutex<Vec<Option<HandshakeKind>>>>) {
        let mut params = rcgen::CertificateParams::new(["s3.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("ca.pem"), made.pem()).unwrap();
        let key = key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&kinds);
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = StreamOwned::new(connection, tcp.unwrap());
                let mut asked = [0; 4096];
                if tls.read(&mut asked).is_ok() {
                    seen.lock().push(tls.conn.handshake_kind());
                    tls.write_all(reply("200 OK", head, "hello").as_bytes())
                        .unwrap();
                    tls.conn.send_close_notify();
                    tls.flush().unwrap();
                }
            }
        });
        (address, kinds)
    }

    fn config(address: SocketAddr, ca_file: Option<PathBuf>) -> (Config, String) {
        let config = Config {
            resolve: vec![("s3.test".to_owned(), address.ip())],
            ca_file,
            ..closed()
        };
        (config, format!("https://s3.test:{}", address.port()))
    }

    #[tokio::test]
    async fn the_ca_file_is_trusted_and_a_second_connection_resumes_the_session() {
        let dir = tempfile::tempdir().unwrap();
        let (address, kinds) = server(dir.path());
        let (config, url) = config(address, Some(dir.path().join("ca.pem")));
        let net = Net::new(&config).unwrap();
        for _ in 0..2 {
            let answer = call(&net, &url).await.unwrap();
            assert_eq!(answer.body.as_slice(), b"hello");
        }
        assert_eq!(
            *kinds.lock(),
            [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
        );
        assert_eq!(net.meter().totals().connections, 2);
        assert!(
            net.meter().totals().down > 2 * 100,
            "the handshake is counted"
        );
    }

    #[tokio::test]
    async fn a_certificate_nobody_vouches_for_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (address, kinds) = server(dir.path());
        let (config, url) = config(address, None);
        let error = call(&Net::new(&config).unwrap(), &url).await.unwrap_err();
        assert!(
            matches!(&error, WebError::Silent(text) if text.contains("certificate")),
            "{error:?}"
        );
        assert!(kinds.lock().is_empty());
    }

    #[tokio::test]
    async fn a_certificate_of_another_name_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (address, kinds) = server(dir.path());
        let (config, _) = config(address, Some(dir.path().join("ca.pem")));
        let url = format!("https://{address}");
        let error = call(&Net::new(&config).unwrap(), &url).await.unwrap_err();
        assert!(matches!(error, WebError::Silent(_)), "{error:?}");
        assert!(kinds.lock().is_empty());
    }

    const YEAR: Duration = Duration::from_secs(31_556_952);

    fn year(number: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + YEAR * (number - 1970)
    }

    /// The clock of a device that shows `shown`, with a program built in 2025.
    fn clock(shown: SystemTime) -> Arc<Believed> {
        let system: SharedClock = ManualClock::at(shown);
        Arc::new(Believed::over(system, year(2025)))
    }

    /// A time server on loopback that says it is `time`; and how often it was asked.
    fn time_server(time: SystemTime) -> (String, Arc<Mutex<u32>>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut packet = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                *count.lock() += 1;
                let answer = crate::net::sntp::tests::told(&packet[..length], time);
                socket.send_to(&answer, from).unwrap();
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_device_in_1970_learns_the_time_and_then_takes_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (address, _) = server_of(dir.path(), 2030..2032, "");
        let (mut config, url) = config(address, Some(dir.path().join("ca.pem")));
        let alone = Net::with_clock(&config, clock(year(1970))).unwrap();
        let error = call(&alone, &url).await.unwrap_err();
        assert!(
            matches!(&error, WebError::Silent(text) if text.contains("certificate")),
            "{error:?}"
        );
        let (ntp, asked) = time_server(year(2031));
        config.ntp = Some(ntp);
        let clock = clock(year(1970));
        let net = Net::with_clock(&config, Arc::clone(&clock)).unwrap();
        for _ in 0..2 {
            assert_eq!(call(&net, &url).await.unwrap().status.as_u16(), 200);
        }
        assert_eq!(*asked.lock(), 1);
        assert!(clock.is_believable() && clock.wall() >= year(2031));
        assert_eq!(clock.to_keep(), None, "a datagram is not kept");
    }

    #[tokio::test]
    async fn a_clock_that_is_ten_years_ahead_is_found_out_by_a_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (address, _) = server_of(dir.path(), 2030..2032, "");
        let (mut config, url) = config(address, Some(dir.path().join("ca.pem")));
        let (ntp, asked) = time_server(year(2031));
        config.ntp = Some(ntp);
        let net = Net::with_clock(&config, clock(year(2041))).unwrap();
        assert_eq!(call(&net, &url).await.unwrap().status.as_u16(), 200);
        assert_eq!(*asked.lock(), 1);
    }

    #[tokio::test]
    async fn a_clock_that_is_right_asks_nobody_and_a_verified_answer_teaches_it() {
        let dir = tempfile::tempdir().unwrap();
        let head = "date: Fri, 03 Jan 2031 04:05:06 GMT\r\n";
        let (address, _) = server_of(dir.path(), 2030..2032, head);
        let (mut config, url) = config(address, Some(dir.path().join("ca.pem")));
        let (ntp, asked) = time_server(year(2029));
        config.ntp = Some(ntp);
        let clock = clock(year(2030) + YEAR / 2);
        let net = Net::with_clock(&config, Arc::clone(&clock)).unwrap();
        call(&net, &url).await.unwrap();
        assert_eq!(*asked.lock(), 0);
        assert!(clock.to_keep().unwrap() > year(2031));
        assert!(clock.wall() > year(2031), "half a year behind");
    }

    #[tokio::test]
    async fn a_certificate_that_is_over_stays_refused_whatever_the_time_server_says() {
        let dir = tempfile::tempdir().unwrap();
        let (address, kinds) = server_of(dir.path(), 2010..2012, "");
        let (mut config, url) = config(address, Some(dir.path().join("ca.pem")));
        let (ntp, _) = time_server(year(2011));
        config.ntp = Some(ntp);
        let net = Net::with_clock(&config, clock(year(1970))).unwrap();
        let error = call(&net, &url).await.unwrap_err();
        assert!(matches!(error, WebError::Silent(_)), "{error:?}");
        assert!(
            kinds.lock().is_empty(),
            "2011 is before the program was built"
        );
    }
}
