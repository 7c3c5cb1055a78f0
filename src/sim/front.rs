//! What stands before the services: it names and counts each request, lets go wrong what is to go
//! wrong, and hands the rest on.
//!
//! Invariants:
//! - a request is counted once, by its head, whatever becomes of it;
//! - the body of a request is read to its end before its answer begins (unless the client waits
//!   for leave to send it), so that a refusal reaches a client that is still sending.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use s3s::service::S3Service;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::answer::{Body, BoxError, plain, request_id, s3_error};
use super::body::{Intake, Mangle, Outflow};
use super::count::{Service, Ticket};
use super::faults::Action;
use super::site::Peer;
use super::wire::Counted;
use super::{Shared, auth, cognito, control, krypton, verb};

/// The most that a request to anything but S3 may hold.
const MAX_SMALL_BODY: usize = 1 << 20;

/// What a listener is for.
pub(super) enum Role {
    S3(Box<S3Service>),
    Krypton,
    Cognito,
    Control,
}

/// One listener's way to its service.
pub(super) struct Front {
    pub(super) role: Role,
    pub(super) shared: Arc<Shared>,
}

impl Front {
    fn service(&self) -> Option<Service> {
        match self.role {
            Role::S3(_) => Some(Service::S3),
            Role::Krypton => Some(Service::Krypton),
            Role::Cognito => Some(Service::Cognito),
            Role::Control => None,
        }
    }

    pub(super) fn watch_silence(&self) -> Option<watch::Receiver<bool>> {
        let service = self.service()?;
        Some(self.shared.faults.watch_silence(service))
    }

    pub(super) fn watch_cut(&self) -> watch::Receiver<u64> {
        self.shared.faults.watch_cut()
    }

    pub(super) fn count(&self, tcp: TcpStream) -> io::Result<Counted> {
        let counter = self.service();
        let counter = counter.map(|service| (Arc::clone(&self.shared.counter), service));
        Ok(Counted::new(tcp, counter, self.watch_silence()))
    }

    /// One request.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, BoxError> {
        let (operation, target) = match self.role {
            Role::S3(_) => verb::of(request.method(), request.uri(), request.headers()),
            Role::Krypton => ("Krypton", request.uri().path().to_owned()),
            Role::Cognito => ("Cognito", request.uri().path().to_owned()),
            Role::Control => {
                let (head, body) = collected(request).await?;
                return control::answer(&self.shared, &head, &body);
            }
        };
        let action = self.shared.faults.strike(operation, &target);
        let counter = &self.shared.counter;
        let mut open = Open {
            front: &self,
            ticket: counter.begin(operation, target),
            status: None,
        };
        if let Some(action) = &action {
            counter.fault(&open.ticket, format!("{action:?}"));
        }
        let response = self.act(action, request, &open.ticket).await?;
        open.status = Some(response.status().as_u16());
        drop(open);
        Ok(response)
    }

    async fn act(
        &self,
        action: Option<Action>,
        request: Request<Incoming>,
        ticket: &Ticket,
    ) -> Result<Response<Body>, BoxError> {
        let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
        let intake = Intake::new(&self.shared.counter, ticket);
        match action {
            None => self.pass(request, intake, Mangle::Nothing, ticket).await,
            Some(Action::DropBefore) => Err("dropped on command".into()),
            Some(Action::DropAfter) => {
                self.pass(request, intake, Mangle::Nothing, ticket).await?;
                Err("answer dropped on command".into())
            }
            Some(Action::Delay(millis)) => {
                pause(millis).await;
                self.pass(request, intake, Mangle::Nothing, ticket).await
            }
            Some(Action::LateAnswer(millis)) => {
                let response = self.pass(request, intake, Mangle::Nothing, ticket).await?;
                pause(millis).await;
                Ok(response)
            }
            Some(Action::Answer {
                status,
                code,
                message,
            }) => {
                intake.swallow(request).await?;
                let status = StatusCode::from_u16(status)?;
                let refusal = self.refusal(status, &code, &message);
                Ok(self.dress(refusal, Mangle::Nothing, ticket))
            }
            Some(Action::Raw {
                status,
                headers,
                body,
            }) => {
                intake.swallow(request).await?;
                let mut response = plain(StatusCode::from_u16(status)?, body);
                for (name, value) in headers {
                    let name = HeaderName::from_bytes(name.as_bytes())?;
                    response.headers_mut().insert(name, value.parse()?);
                }
                Ok(self.dress(response, Mangle::Nothing, ticket))
            }
            Some(Action::Header { name, value }) => {
                let mut response = self.pass(request, intake, Mangle::Nothing, ticket).await?;
                let name = HeaderName::from_bytes(name.as_bytes())?;
                match value {
                    None => drop(response.headers_mut().remove(name)),
                    Some(value) => drop(response.headers_mut().insert(name, value.parse()?)),
                }
                Ok(response)
            }
            Some(action) => {
                self.pass(request, intake, Mangle::of(&action), ticket)
                    .await
            }
        }
    }

    /// Hands the request on to its service.
    async fn pass(
        &self,
        request: Request<Incoming>,
        intake: Intake,
        mangle: Mangle,
        ticket: &Ticket,
    ) -> Result<Response<Body>, BoxError> {
        if let Some(refusal) = self.wrong_way(&request) {
            intake.swallow(request).await?;
            return Ok(self.dress(refusal, mangle, ticket));
        }
        let Role::S3(service) = &self.role else {
            let (head, body) = collected(request).await?;
            self.shared.counter.payload_in(ticket, body.len() as u64);
            let response = match self.role {
                Role::Krypton => krypton::answer(&self.shared, &head, &body)?,
                _ => cognito::answer(&self.shared, &head, &body)?,
            };
            return Ok(self.dress(response, mangle, ticket));
        };
        if let Some(refusal) = self.wrong_region(request.headers()) {
            intake.swallow(request).await?;
            return Ok(self.dress(refusal, mangle, ticket));
        }
        let waits = waits(request.headers());
        let (request, rest) = intake.meter(request);
        let response = service.call(request).await?;
        if !waits {
            rest.swallow().await?;
        }
        let response = response.map(|body| body.boxed_unsync());
        Ok(self.dress(response, mangle, ticket))
    }

    /// The headers that every answer has, and the counting of its body.
    fn dress(
        &self,
        mut response: Response<Body>,
        mangle: Mangle,
        ticket: &Ticket,
    ) -> Response<Body> {
        if matches!(self.role, Role::S3(_)) {
            let headers = response.headers_mut();
            headers.insert("x-amz-request-id", HeaderValue::from_static(request_id()));
            headers.insert("x-amz-id-2", HeaderValue::from_static(ID_2));
            headers.insert(header::SERVER, HeaderValue::from_static("AmazonS3"));
        }
        if mangle.hides_length() {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let counter = Arc::clone(&self.shared.counter);
        let ticket = ticket.clone();
        response.map(|body| Outflow::new(body, mangle, counter, ticket).boxed_unsync())
    }

    fn refusal(&self, status: StatusCode, code: &str, message: &str) -> Response<Body> {
        match self.role {
            Role::S3(_) => s3_error(status, code, message, ""),
            Role::Cognito => cognito::error(status, code, message),
            Role::Krypton | Role::Control => krypton::error(status, code, message),
        }
    }

    /// The refusal of who comes from where he may not.
    fn wrong_way(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let Peer(from) = *request.extensions().get()?;
        let site = &self.shared.site;
        let (code, message) = match self.role {
            Role::S3(_) if site.denies(request.uri().path(), from) => (
                "AccessDenied",
                "User is not authorized to perform this action with an explicit deny in a \
                 resource-based policy",
            ),
            Role::Krypton if !site.knows(from) => ("KRY0403", "No such line."),
            _ => return None,
        };
        Some(self.refusal(StatusCode::FORBIDDEN, code, message))
    }

    /// The refusal of a signature for another region.
    fn wrong_region(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let signed = auth::scope_region(authorization)?;
        let region = &self.shared.region;
        if signed == region {
            return None;
        }
        let message = format!(
            "The authorization header is malformed; the region '{signed}' is wrong; expecting \
             '{region}'"
        );
        let more = format!("<Region>{region}</Region>");
        let status = StatusCode::BAD_REQUEST;
        let mut response = s3_error(status, "AuthorizationHeaderMalformed", &message, &more);
        if let Ok(value) = HeaderValue::from_str(region) {
            response.headers_mut().insert("x-amz-bucket-region", value);
        }
        Some(response)
    }
}

/// As long as that of S3.
const ID_2: &str = "c2ltdWxhdGVkIGNsb3VkLCBub3RoaW5nIHRvIHNlZSBoZXJlLCBtb3ZlIGFsb25nIHBsZWFzZQ==";

/// Whether the client sends its body only when told to.
fn waits(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

async fn collected(request: Request<Incoming>) -> Result<(http::request::Parts, Bytes), BoxError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_SMALL_BODY).collect().await?;
    Ok((head, body.to_bytes()))
}

impl Intake {
    /// Reads a body that nobody wants.
    async fn swallow(self, request: Request<Incoming>) -> Result<(), BoxError> {
        if waits(request.headers()) {
            return Ok(());
        }
        let (_, rest) = self.meter(request);
        rest.swallow().await
    }
}

/// A request whose answer is not on its way yet; if it never is, that counts as a failure.
struct Open<'a> {
    front: &'a Front,
    ticket: Ticket,
    status: Option<u16>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.front
            .shared
            .counter
            .answered(&self.ticket, self.status);
    }
}
