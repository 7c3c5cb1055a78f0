//! One question to one DNS server: a datagram and, if the answer did not fit, the same over TCP
//! (RFC 7766).
//!
//! Invariants: every socket is bound as all are; what is not the answer is waited past; either way
//! ends by `PATIENCE`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::dns::{self, Answer, Family, Question};
use super::link::Link;
use super::meter::Meter;
use super::socket::Bound;

/// How long one server may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What asking takes.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) bound: Bound,
    pub(super) meter: Arc<Meter>,
    pub(super) link: Arc<Link>,
}

impl Asker {
    /// What `server` says of `host`; `Truncated` only if it says so over TCP too.
    pub(super) async fn ask(
        &self,
        host: &str,
        family: Family,
        server: SocketAddr,
    ) -> io::Result<Answer> {
        let question = Question::new(random_id()?, host, family)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
        match self.by_datagram(&question, server).await? {
            Answer::Truncated => {}
            answer => return Ok(answer),
        }
        let asking = self.by_connection(&question, server);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer over TCP");
        tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| late())?
    }

    async fn by_datagram(&self, question: &Question, server: SocketAddr) -> io::Result<Answer> {
        let socket = self.bound.udp(server).await?;
        self.meter.sent(socket.send(&question.packet).await?);
        let answer = async {
            let mut packet = [0; dns::DATAGRAM_MAX];
            loop {
                let length = socket.recv(&mut packet).await?;
                self.meter.received(length);
                if let Some(answer) = question.parse(&packet[..length]) {
                    return Ok(answer);
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await {
            return answer;
        }
        match socket.as_fd().try_clone_to_owned() {
            Ok(socket) => self.link.bury_question(socket),
            Err(error) => tracing::debug!("the socket of a question is closed: {error}"),
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
    }

    /// Each message has its length before it, in two bytes.
    async fn by_connection(&self, question: &Question, server: SocketAddr) -> io::Result<Answer> {
        let long = |_| io::Error::new(io::ErrorKind::InvalidInput, "the question is too long");
        let length = u16::try_from(question.packet.len()).map_err(long)?;
        let mut connection = self.bound.tcp(server)?.connect(server).await?;
        self.meter.connected();
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&question.packet);
        connection.write_all(&message).await?;
        self.meter.sent(message.len());
        let length = connection.read_u16().await?;
        let mut packet = vec![0; usize::from(length)];
        connection.read_exact(&mut packet).await?;
        self.meter.received(2 + packet.len());
        let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "no answer to the question");
        question.parse(&packet).ok_or_else(no_answer)
    }
}

/// Not to be guessed by whoever would like to answer in the server's place.
fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("no random bytes"))?;
    Ok(u16::from_be_bytes(bytes))
}
