//! The steps of a connection, one by one, for whoever has to say at which of them it ends
//! (`kryptonfs doctor`).
//!
//! Invariant: they are the same steps by the same code as all connections take: the same resolver,
//! rules, dialler and TLS.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use http::Uri;
use hyper::client::conn::http1;
use nix::sys::socket::{getsockopt, sockopt};
use tower_service::Service as _;

use super::dial::DialError;
use super::ground::Ground;
use super::path::{self, Hop};
use super::resolve::ResolveError;
use super::route::{self, Route};
use super::tls::{Connected, Connector};

/// Who is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, or an address (without brackets).
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is said there is encrypted.
    pub tls: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// That of a URL; `None`: it is no `http://` or `https://` one.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self {
            host: bare.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
        })
    }

    fn uri(&self) -> Option<Uri> {
        let scheme = if self.tls { "https" } else { "http" };
        let host = match self.host.parse() {
            Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
            _ => self.host.clone(),
        };
        format!("{scheme}://{host}:{}/", self.port).parse().ok()
    }
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// Who named them, for people.
    pub origin: String,
}

/// Packets of full size arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The largest that the kernel knows to pass, in bytes; `None`: it does not say.
    pub mtu: Option<u32>,
    /// Until the answer.
    pub took: Duration,
}

/// Two packets, also of a link of 1500 bytes; S3 takes up to 8 KB of headers.
const PADDING: usize = 3000;
/// Long enough for some repeats of lost packets.
const ANSWER: Duration = Duration::from_secs(8);

/// A request that fills packets, and any answer to it.
async fn padded(server: &Server, connected: Connected) -> Result<(), hyper::Error> {
    let (mut sender, connection) = http1::handshake(connected).await?;
    let request = http::Request::head("/")
        .header(http::header::HOST, server.host.as_str())
        .header("x-kryptonfs-padding", "0".repeat(PADDING))
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    let Ok(request) = request else {
        // A host that is dialled is one that a header takes.
        return Ok(());
    };
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(drop),
        // The answer may be there, and what came behind it (a body of an answer to HEAD) the end.
        ended = &mut connection => answer.await.map(drop).map_err(|none| ended.err().unwrap_or(none)),
    }
}

/// The steps.
#[derive(Clone, Debug)]
pub struct Steps(pub(super) Connector);

impl Steps {
    /// What the kernel says of the interface; `None`: none is named.
    ///
    /// # Errors
    /// If it says nothing at all.
    pub fn ground(&self) -> io::Result<Option<Ground>> {
        let interface = &self.0.dialer().way().bound.interface;
        interface.as_deref().map(Ground::look).transpose()
    }

    /// The addresses of a name, as each connection asks for them.
    ///
    /// # Errors
    /// One line.
    pub async fn resolve(&self, host: &str) -> Result<Found, String> {
        let resolver = &self.0.dialer().way().resolver;
        let addresses = match resolver.lookup(host).await {
            Ok(addresses) => addresses,
            Err(ResolveError::Forbidden(why) | ResolveError::Failed(why)) => return Err(why),
        };
        let origin = resolver.origin(host).await;
        Ok(Found { addresses, origin })
    }

    /// Those of the addresses that our rules let be dialled, at least one.
    ///
    /// # Errors
    /// Why none may be.
    pub fn permitted(&self, server: &Server, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let way = self.0.dialer().way();
        let permitted = way.permitted(&server.host, addresses, !server.tls);
        permitted.map_err(|error| error.to_string())
    }

    /// The way the kernel would take without our binding.
    ///
    /// # Errors
    /// If it does not say.
    pub fn route_of_the_system(&self, address: IpAddr) -> io::Result<Option<Route>> {
        route::to(address, None)
    }

    /// The interface's own way; without one, that of the system.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn route(&self, address: IpAddr) -> io::Result<Option<Route>> {
        let interface = &self.0.dialer().way().bound.interface;
        route::to(address, interface.as_deref())
    }

    /// Makes a TCP connection and lets go of it: how long it took.
    ///
    /// # Errors
    /// One line.
    pub async fn connect(&self, server: &Server) -> Result<Duration, String> {
        let uri = server.uri().ok_or_else(|| no_name(server))?;
        let begun = Instant::now();
        let dialled = self.0.dialer().dial(&uri).await;
        dialled.map_err(|error| error.to_string())?;
        Ok(begun.elapsed())
    }

    /// Makes a connection, shakes hands, and lets go of it: how long both took.
    ///
    /// # Errors
    /// One line.
    pub async fn shake_hands(&self, server: &Server) -> Result<Duration, String> {
        let uri = server.uri().ok_or_else(|| no_name(server))?;
        let begun = Instant::now();
        let mut connector = self.0.clone();
        match connector.call(uri).await {
            Ok(_) => Ok(begun.elapsed()),
            Err(error) => Err(innermost(&*error)),
        }
    }

    /// The hops to an address of the server, at most `hops_max`.
    ///
    /// # Errors
    /// If the kernel refuses to begin.
    pub async fn trace(&self, server: &Server, to: IpAddr, hops_max: u8) -> io::Result<Vec<Hop>> {
        let way = self.0.dialer().way();
        let to = SocketAddr::new(to, server.port);
        path::trace(&way.bound, &way.link, to, hops_max).await
    }

    /// Whether anybody answers at an address of the server, if only by refusing.
    ///
    /// # Errors
    /// If the kernel refuses to begin.
    pub async fn reaches(&self, server: &Server, to: IpAddr) -> io::Result<bool> {
        let way = self.0.dialer().way();
        path::reaches(&way.bound, &way.link, SocketAddr::new(to, server.port)).await
    }

    /// Sends the server packets as large as the link takes: a request with a header that says
    /// nothing. Any answer shows that they arrived; `None`: none came in time.
    ///
    /// # Errors
    /// One line, if there was no connection, or it ended without an answer.
    pub async fn fill_packets(
        &self,
        server: &Server,
        to: IpAddr,
    ) -> Result<Option<Filled>, String> {
        let uri = server.uri().ok_or_else(|| no_name(server))?;
        let mut connector = self.0.clone();
        let connected = connector.call(uri).await;
        let connected = connected.map_err(|error| innermost(&*error))?;
        let begun = Instant::now();
        let answered = tokio::time::timeout(ANSWER, padded(server, connected)).await;
        let mtu = self.mtu(SocketAddr::new(to, server.port)).await;
        match answered {
            Ok(Ok(())) => Ok(Some(Filled {
                mtu,
                took: begun.elapsed(),
            })),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Ok(None),
        }
    }

    /// The largest packet that the kernel knows to pass to there, in bytes. Nothing is sent.
    async fn mtu(&self, to: SocketAddr) -> Option<u32> {
        let socket = self.0.dialer().way().bound.udp(to).await.ok()?;
        let mtu = getsockopt(&socket, sockopt::IpMtu).ok()?;
        u32::try_from(mtu).ok()
    }

    /// Whether the time is known well enough for what is dated.
    #[must_use]
    pub fn knows_the_time(&self) -> bool {
        self.0.dialer().knows_the_time()
    }
}

fn no_name(server: &Server) -> String {
    format!("{server} is not the name of a host")
}

/// The innermost cause: what is around it only says that something failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(dial) = error.downcast_ref::<DialError>() {
        return dial.to_string();
    }
    if let Some(io) = error.downcast_ref::<io::Error>()
        && let Some(held) = io.get_ref()
    {
        return held.to_string();
    }
    match error.source() {
        Some(cause) => innermost(cause),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net::stub::{Stub, reply};
    use crate::net::{Config, Net};

    fn server(url: &str) -> Server {
        Server::of(url).unwrap()
    }

    fn steps(config: Config) -> Steps {
        let config = Config {
            interface: Some("lo".to_owned()),
            ..config
        };
        Net::new(&config).unwrap().steps().clone()
    }

    #[test]
    fn a_server_is_read_off_its_url() {
        let shown = |url| Server::of(url).map(|server| (server.to_string(), server.tls));
        let s3 = "https://bucket.s3.ap-northeast-1.amazonaws.com";
        assert_eq!(
            shown(s3),
            Some(("bucket.s3.ap-northeast-1.amazonaws.com:443".into(), true))
        );
        assert_eq!(shown("http://a/b"), Some(("a:80".into(), false)));
        assert_eq!(
            shown("https://[fd00::1]:9"),
            Some(("fd00::1:9".into(), true))
        );
        assert_eq!(shown("ftp://a"), None);
        assert_eq!(shown("a"), None);
    }

    #[tokio::test]
    async fn addresses_come_with_who_named_them() {
        let steps = steps(Config {
            resolve: vec![("s3.test".into(), [127, 0, 0, 9].into())],
            ..Config::default()
        });
        let found = steps.resolve("s3.test").await.unwrap();
        assert_eq!(found.addresses, [IpAddr::from([127, 0, 0, 9])]);
        assert!(found.origin.contains("pinned"), "{}", found.origin);
        let found = steps.resolve("10.0.0.1").await.unwrap();
        assert!(found.origin.contains("address"), "{}", found.origin);
    }

    #[tokio::test]
    async fn a_connection_is_made_and_a_handshake_that_fails_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let steps = steps(Config::default());
        let url = format!("https://{}", listener.local_addr().unwrap());
        steps.connect(&server(&url)).await.unwrap();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                // What comes after the client hung up is nobody's business.
                let _ = connection.read(&mut [0; 512]);
                let _ = connection.write_all(b"HTTP/1.1 400 this is no TLS\r\n\r\n");
            }
        });
        let why = steps.shake_hands(&server(&url)).await.unwrap_err();
        assert!(why.contains("corrupt"), "{why}");
        let nobody = server("https://127.0.0.1:1");
        let why = steps.connect(&nobody).await.unwrap_err();
        assert!(
            why.contains("127.0.0.1:1") && why.contains("refused"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn packets_of_full_size_are_sent_and_any_answer_will_do() {
        let stub = Stub::new(|_, _| reply("405 Method Not Allowed", "", ""));
        let steps = steps(Config::default());
        let filled = steps
            .fill_packets(&server(&stub.url()), stub.address.ip())
            .await
            .unwrap()
            .expect("an answer");
        assert!(filled.mtu.is_some_and(|mtu| mtu >= 1500), "{filled:?}");
        assert!(stub.asked()[0].bytes > PADDING);
        // Says more than belongs to an answer to HEAD, as some do.
        let more = Stub::new(|_, _| {
            let body = "x".repeat(70_000);
            reply("400 Bad Request", "", &body).replace("connection: close\r\n", "")
        });
        let (talker, address) = (server(&more.url()), more.address.ip());
        for _ in 0..20 {
            let filled = steps.fill_packets(&talker, address).await;
            filled.unwrap().expect("an answer");
        }
        // Hangs up without a word.
        let mute = Stub::new(|_, _| String::new());
        let (server, address) = (server(&mute.url()), mute.address.ip());
        steps.fill_packets(&server, address).await.unwrap_err();
    }

    #[tokio::test]
    async fn packets_of_full_size_go_by_ipv6_too() {
        if TcpListener::bind("[::1]:0").is_err() {
            return;
        }
        let stub = Stub::at("[::1]:0", |_, _| reply("200 OK", "", ""));
        let (six, steps) = (server(&stub.url()), steps(Config::default()));
        let filled = steps.fill_packets(&six, stub.address.ip()).await;
        filled.unwrap().expect("an answer");
        assert!(stub.asked()[0].bytes > PADDING);
    }

    #[tokio::test]
    async fn an_address_outside_of_allow_is_named_with_the_rule() {
        let steps = steps(Config {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            ..Config::default()
        });
        let server = server("https://127.0.0.1:1");
        let why = steps.permitted(&server, &[[127, 0, 0, 1].into()]);
        assert!(why.unwrap_err().contains("allow="));
        let way = steps.route(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(way.and_then(|way| way.interface).as_deref(), Some("lo"));
        assert!(steps.ground().unwrap().unwrap().up);
    }
}
