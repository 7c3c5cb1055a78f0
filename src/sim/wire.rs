//! Sockets: every byte counted beneath TLS, silence and cuts on command, an orderly end.
//!
//! Invariants:
//! - what is counted is what `read` and `write` moved;
//! - while a listener is silent, nothing is accepted, read or written on it;
//! - a stop ends every connection: idle ones at once, busy ones after a grace.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::count::{Counter, Service};
use super::front::Front;
use super::site::Peer;

/// Connections of one listener at once.
const MAX_CONNECTIONS: usize = 1024;

/// What busy connections get to finish.
const GRACE: Duration = Duration::from_secs(2);

/// A pause after a failed accept (no file descriptors left, say).
const PAUSE: Duration = Duration::from_millis(50);

/// One listener.
pub(super) struct Listener {
    pub(super) tcp: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) front: Arc<Front>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Listener {
    /// Serves until the stop.
    pub(super) async fn serve(self) {
        let mut connections = JoinSet::new();
        let mut stop = self.stop.clone();
        let mut silence = self.front.watch_silence();
        loop {
            tokio::select! {
                () = told(&mut stop) => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&self.tcp, silence.as_mut()),
                    if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok(tcp) => drop(connections.spawn(self.connection(tcp))),
                    Err(error) => {
                        tracing::warn!(%error, "sim: accept failed");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        let all = async { while connections.join_next().await.is_some() {} };
        // Those that do not end in time are ended.
        let _ = tokio::time::timeout(GRACE, all).await;
        connections.shutdown().await;
    }

    fn connection(&self, tcp: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let front = Arc::clone(&self.front);
        let (tls, stop) = (self.tls.clone(), self.stop.clone());
        let mut cut = front.watch_cut();
        async move {
            let served = async {
                let peer = Peer(tcp.peer_addr()?.ip());
                let socket = front.count(tcp)?;
                match tls {
                    None => http(socket, peer, front, stop).await,
                    Some(tls) => http(Curt(tls.accept(socket).await?), peer, front, stop).await,
                }
            };
            let ended: io::Result<()> = tokio::select! {
                ended = served => ended,
                _ = cut.changed() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "sim: connection ended");
            }
        }
    }
}

/// Until the stop; that the cloud is gone is one.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    tcp: &TcpListener,
    silence: Option<&mut watch::Receiver<bool>>,
) -> io::Result<TcpStream> {
    if let Some(silence) = silence {
        silence.wait_for(|on| !on).await.map_err(io::Error::other)?;
    }
    let (tcp, _) = tcp.accept().await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn http<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: S,
    peer: Peer,
    front: Arc<Front>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        Arc::clone(&front).answer(request)
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = told(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(io::Error::other)
}

/// A TLS connection that is ended by TCP alone: whoever closed it does not hear a goodbye.
struct Curt(TlsStream<Counted>);

impl AsyncRead for Curt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Curt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut().0).poll_shutdown(cx)
    }
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket that is counted, and that can fall silent.
pub(super) struct Counted {
    tcp: TcpStream,
    counter: Option<(Arc<Counter>, Service)>,
    silence: Option<watch::Receiver<bool>>,
    waiting: Option<Waiting>,
}

impl Counted {
    pub(super) fn new(
        tcp: TcpStream,
        counter: Option<(Arc<Counter>, Service)>,
        silence: Option<watch::Receiver<bool>>,
    ) -> Self {
        if let Some((counter, service)) = &counter {
            counter.wire(*service).accepted();
        }
        Self {
            tcp,
            counter,
            silence,
            waiting: None,
        }
    }

    fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(silence) = &self.silence else {
            return Poll::Ready(());
        };
        if !*silence.borrow() {
            self.waiting = None;
            return Poll::Ready(());
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut silence = silence.clone();
            Box::pin(async move {
                // An error: the faults are gone, and silence with them.
                let _ = silence.wait_for(|on| !on).await;
            })
        });
        std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(())
    }

    fn send(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let tcp = Pin::new(&mut self.tcp);
        let Some((counter, service)) = &self.counter else {
            return write(tcp);
        };
        counter.wire(*service).send(
            || write(tcp),
            |written| match written {
                Poll::Ready(Ok(bytes)) => *bytes as u64,
                _ => 0,
            },
        )
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_spoken(cx));
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if let Some((counter, service)) = &self.counter {
            let bytes = buf.filled().len() - before;
            counter.wire(*service).received(bytes as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_spoken(cx));
        self.send(|tcp| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_spoken(cx));
        self.send(|tcp| tcp.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
