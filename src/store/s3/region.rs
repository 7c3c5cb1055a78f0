//! Which region requests are signed for: the one that was given, or the bucket's, as the bucket says
//! it (`x-amz-bucket-region`). Never that of Krypton or Cognito: an identity pool may be elsewhere.
//!
//! Invariants:
//! - it is asked for by HeadBucket through the same way as all else, signed as all else, once for all
//!   who wait; what was learnt is remembered, and not asked for again unless S3 names another;
//! - no data is sent before it is known: a signature for the wrong region costs a whole body;
//! - a region that was given is never replaced.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::error::SdkError;
use parking_lot::Mutex;

use super::super::region::RegionMemory;
use super::super::{Op, Result, StoreError};
use super::error::{Role, failure};
use super::wire::Seen;
use super::{Config, S3Store, attempt};

/// What the question is signed for. Servers that know no regions believe to be here too.
const FIRST: &str = "us-east-1";
/// Where the question goes if no endpoint is given. With the bucket before it, S3's DNS leads it to
/// the bucket's own region, so that it passes a gateway endpoint.
pub(super) const EVERYWHERE: &str = "https://s3.amazonaws.com";

/// The client for the region that is known.
pub(super) struct Signing {
    base: Builder,
    endpoint_url: Option<String>,
    is_given: bool,
    memory: Arc<dyn RegionMemory>,
    /// The region and the client for it, once it is known; a leaf lock.
    now: Mutex<Option<(Arc<str>, Client)>>,
    /// Whoever asks.
    turn: tokio::sync::Mutex<()>,
}

impl Signing {
    /// `base` is all but the region and the endpoint.
    pub(super) fn new(base: Builder, config: &Config, memory: Arc<dyn RegionMemory>) -> Self {
        let signing = Self {
            base,
            endpoint_url: config.endpoint_url.clone(),
            is_given: config.region.is_some(),
            memory,
            now: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
        };
        if let Some(region) = &config.region {
            signing.use_region(region.as_str().into());
        }
        signing
    }

    fn at(&self, region: &str, endpoint_url: Option<String>) -> Client {
        let mut builder = self.base.clone();
        builder.set_endpoint_url(endpoint_url);
        Client::from_conf(builder.region(Region::new(region.to_owned())).build())
    }

    fn use_region(&self, region: Arc<str>) -> Client {
        let client = self.at(&region, self.endpoint_url.clone());
        *self.now.lock() = Some((region, client.clone()));
        client
    }

    fn known(&self) -> Option<Client> {
        self.now.lock().as_ref().map(|(_, client)| client.clone())
    }

    fn region(&self) -> Option<Arc<str>> {
        let now = self.now.lock();
        now.as_ref().map(|(region, _)| Arc::clone(region))
    }
}

/// What HeadBucket told.
enum Told {
    Region(String),
    /// It answered, but named none.
    Nothing,
}

impl S3Store {
    /// The client for the bucket's region, which is asked for if nobody knows it.
    pub(super) async fn client(&self) -> Result<Client> {
        if let Some(client) = self.signing.known() {
            return Ok(client);
        }
        let _turn = self.signing.turn.lock().await;
        if let Some(client) = self.signing.known() {
            return Ok(client);
        }
        if let Some(region) = self.signing.memory.region() {
            return Ok(self.signing.use_region(region));
        }
        match self.ask_region().await? {
            Told::Region(region) => Ok(self.learn(&region).await),
            Told::Nothing => Ok(self.signing.use_region(FIRST.into())),
        }
    }

    async fn learn(&self, region: &str) -> Client {
        tracing::info!("the bucket {} is in region {region}", self.bucket);
        let client = self.signing.use_region(region.into());
        self.signing.memory.learnt(region).await;
        client
    }

    /// S3 says that the bucket is in `region`: the client for it, if that is news and may be used.
    pub(super) async fn moved_to(&self, region: &str) -> Option<Client> {
        if self.signing.is_given || self.signing.region().as_deref() == Some(region) {
            return None;
        }
        Some(self.learn(region).await)
    }

    async fn ask_region(&self) -> Result<Told> {
        let given = self.signing.endpoint_url.clone();
        let everywhere = given.is_none();
        let client = self
            .signing
            .at(FIRST, given.or_else(|| Some(EVERYWHERE.to_owned())));
        let asking = async {
            let question = client.head_bucket().bucket(&self.bucket).customize();
            let error = match question.interceptor(Seen::default()).send().await {
                Ok(answer) => {
                    let region = answer.bucket_region().map(str::to_owned);
                    return Ok(region.map_or(Told::Nothing, Told::Region));
                }
                Err(error) => error,
            };
            let answer = match &error {
                SdkError::ServiceError(refusal) => Some(refusal.raw()),
                _ => None,
            };
            if let Some(region) = answer.and_then(super::error::region) {
                return Ok(Told::Region(region));
            }
            if answer.is_some_and(is_about_us) && !everywhere {
                return Ok(Told::Nothing);
            }
            Err(failure(error, Role::Head))
        };
        let told = attempt(Op::Head, asking).await;
        match told.map_err(|failure| failure.error) {
            Ok(Told::Nothing) if everywhere => Err(StoreError::BadAnswer(format!(
                "S3 does not say in which region the bucket is; {CURE}"
            ))),
            Err(StoreError::NotFound) => Err(StoreError::NoSuchBucket),
            Err(StoreError::Link(why)) => Err(StoreError::Link(format!(
                "{why} (asked for the bucket's region; {CURE})"
            ))),
            told => told,
        }
    }
}

const CURE: &str = "say region=NAME to spare the question";

/// Whether the server answered, however: not that it cannot now.
fn is_about_us(answer: &HttpResponse) -> bool {
    let status = answer.status().as_u16();
    status < 500 && !matches!(status, 408 | 429)
}
