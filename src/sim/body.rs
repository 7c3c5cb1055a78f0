//! Bodies that are counted as they pass, and that go wrong on command.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::answer::{Body, BoxError};
use super::count::{Counter, Ticket};
use super::faults::Action;

/// Counts the body of a request.
pub(super) struct Intake {
    counter: Arc<Counter>,
    ticket: Ticket,
}

impl Intake {
    pub(super) fn new(counter: &Arc<Counter>, ticket: &Ticket) -> Self {
        Self {
            counter: Arc::clone(counter),
            ticket: ticket.clone(),
        }
    }

    /// The request for `s3s`, and what it will not have read of it.
    pub(super) fn meter(self, request: Request<Incoming>) -> (Request<s3s::Body>, Rest) {
        let (head, body) = request.into_parts();
        let metered = Metered {
            hint: body.size_hint(),
            body: Arc::new(Mutex::new(body)),
            counter: self.counter,
            ticket: self.ticket,
        };
        let rest = Rest(metered.clone());
        let body = s3s::Body::http_body(metered);
        (Request::from_parts(head, body), rest)
    }
}

/// What is left of a request's body when its answer is ready.
pub(super) struct Rest(Metered);

impl Rest {
    pub(super) async fn swallow(mut self) -> Result<(), BoxError> {
        while let Some(frame) = self.0.frame().await {
            frame?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Metered {
    body: Arc<Mutex<Incoming>>,
    hint: SizeHint,
    counter: Arc<Counter>,
    ticket: Ticket,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut *self.body.lock()).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.counter.payload_in(&self.ticket, data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// What is done to the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mangle {
    Nothing,
    /// The connection ends after so many bytes.
    Truncate(u64),
    /// It stops after so many bytes, for so long or for good.
    Stall(u64, Option<Duration>),
    /// The byte at this offset is another one.
    Corrupt(u64),
    /// It never ends.
    Endless,
}

impl Mangle {
    /// Of the faults that are about a body; the others leave it alone.
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Truncate(after) => Self::Truncate(*after),
            Action::Stall { after, for_ms } => {
                Self::Stall(*after, for_ms.map(Duration::from_millis))
            }
            Action::Corrupt(at) => Self::Corrupt(*at),
            Action::Endless => Self::Endless,
            _ => Self::Nothing,
        }
    }

    pub(super) fn hides_length(self) -> bool {
        self == Self::Endless
    }
}

/// The body of an answer.
pub(super) struct Outflow {
    inner: Body,
    mangle: Mangle,
    passed: u64,
    held: Option<Bytes>,
    turn: Turn,
    counter: Arc<Counter>,
    ticket: Ticket,
}

/// Where a body that stops on command stands.
enum Turn {
    /// Before the place.
    Before,
    /// What comes before it is on its way out.
    Reached,
    /// Standing still; `None`: for good.
    Standing(Option<Pin<Box<Sleep>>>),
    /// Behind it.
    Behind,
}

impl Outflow {
    pub(super) fn new(inner: Body, mangle: Mangle, counter: Arc<Counter>, ticket: Ticket) -> Self {
        Self {
            inner,
            mangle,
            passed: 0,
            held: None,
            turn: Turn::Before,
            counter,
            ticket,
        }
    }

    /// The offset at which the body stops.
    fn stop(&self) -> Option<u64> {
        match (&self.turn, self.mangle) {
            (Turn::Before, Mangle::Truncate(at) | Mangle::Stall(at, _)) => Some(at),
            _ => None,
        }
    }

    /// Lets data through, as far as it may go.
    fn through(&mut self, mut data: Bytes) -> Bytes {
        if let Some(stop) = self.stop() {
            let room = usize::try_from(stop - self.passed).unwrap_or(usize::MAX);
            if room < data.len() {
                self.held = Some(data.split_off(room));
                self.turn = Turn::Reached;
            }
        }
        if let Mangle::Corrupt(at) = self.mangle
            && let Some(at) = at.checked_sub(self.passed)
            && let Ok(at) = usize::try_from(at)
            && at < data.len()
        {
            let mut other = data.to_vec();
            other[at] ^= 0x55;
            data = other.into();
        }
        self.passed += data.len() as u64;
        self.counter.payload_out(&self.ticket, data.len() as u64);
        data
    }

    /// Whether the body may go on.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            match &mut self.turn {
                Turn::Before | Turn::Behind => return Poll::Ready(Ok(())),
                Turn::Reached => {
                    let span = match self.mangle {
                        Mangle::Stall(_, span) => span,
                        // Time for what came before to leave.
                        _ => Some(Duration::from_millis(20)),
                    };
                    let sleep = span.map(|span| Box::pin(tokio::time::sleep(span)));
                    self.turn = Turn::Standing(sleep);
                }
                Turn::Standing(None) => return Poll::Pending,
                Turn::Standing(Some(sleep)) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    self.turn = Turn::Behind;
                    if matches!(self.mangle, Mangle::Truncate(_)) {
                        return Poll::Ready(Err("truncated on command".into()));
                    }
                }
            }
        }
    }
}

impl http_body::Body for Outflow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.mangle == Mangle::Endless {
            let data = this.through(Bytes::from_static(&[b' '; 4096]));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Err(error) = std::task::ready!(this.poll_turn(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(held) = this.held.take() {
            let data = this.through(held);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let polled = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        Poll::Ready(
            polled.map(|frame| frame.map(|frame| frame.map_data(|data| this.through(data)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.mangle != Mangle::Endless && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.mangle == Mangle::Endless {
            return SizeHint::default();
        }
        let held = self.held.as_ref().map_or(0, |held| held.len() as u64);
        match self.inner.size_hint().exact() {
            Some(len) => SizeHint::with_exact(len + held),
            None => SizeHint::default(),
        }
    }
}
