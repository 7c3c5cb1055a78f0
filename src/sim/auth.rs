//! Who may do what: the keys that were issued, their session tokens and their ends, and what an
//! identity may touch.
//!
//! Invariants:
//! - a signature is checked by `s3s` before anything here is asked;
//! - a key with a session token is nothing without it, and nothing after its end;
//! - no secret is ever shown by `Debug`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3Result, s3_error};

use super::{FixedKeys, random};

/// Keys and tokens that are remembered, expired ones included.
const REMEMBERED: usize = 4096;

/// Lengths like those of AWS, so that requests weigh what they weigh there.
const SESSION_TOKEN: usize = 1200;
const OPEN_ID_TOKEN: usize = 1050;

/// Keys that were issued.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) access_key_id: String,
    pub(super) secret_key: String,
    pub(super) session_token: Option<String>,
    /// `None`: they never end.
    pub(super) expires: Option<SystemTime>,
    /// `None`: they may do everything.
    pub(super) identity: Option<String>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What was issued.
#[derive(Default)]
struct Issued {
    keys: HashMap<String, Key>,
    key_order: VecDeque<String>,
    /// OpenID token -> identity and end.
    tokens: HashMap<String, (String, SystemTime)>,
    token_order: VecDeque<String>,
}

/// The issuer, and the memory of what it issued.
pub(super) struct Keys {
    issued: Mutex<Issued>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} issued)", self.issued.lock().keys.len())
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            issued: Mutex::default(),
        }
    }

    /// Makes keys for an identity, or for one who may do everything.
    pub(super) fn issue(&self, identity: Option<&str>, life: Duration) -> io::Result<Key> {
        let key = Key {
            access_key_id: format!("ASIA{}", random::text(16)?.to_uppercase()),
            secret_key: random::text(40)?,
            session_token: Some(random::text(SESSION_TOKEN)?),
            expires: Some(SystemTime::now() + life),
            identity: identity.map(str::to_owned),
        };
        self.accept(key.clone());
        Ok(key)
    }

    /// Lets keys in that were made elsewhere.
    pub(super) fn accept_fixed(&self, fixed: &FixedKeys) {
        self.accept(Key {
            access_key_id: fixed.access_key_id.clone(),
            secret_key: fixed.secret_key.clone(),
            session_token: fixed.session_token.clone(),
            expires: None,
            identity: None,
        });
    }

    fn accept(&self, key: Key) {
        let mut issued = self.issued.lock();
        if issued.key_order.len() == REMEMBERED
            && let Some(oldest) = issued.key_order.pop_front()
        {
            issued.keys.remove(&oldest);
        }
        issued.key_order.push_back(key.access_key_id.clone());
        issued.keys.insert(key.access_key_id.clone(), key);
    }

    /// An OpenID token of that identity.
    pub(super) fn issue_token(&self, identity: &str, life: Duration) -> io::Result<String> {
        let token = random::text(OPEN_ID_TOKEN)?;
        let mut issued = self.issued.lock();
        if issued.token_order.len() == REMEMBERED
            && let Some(oldest) = issued.token_order.pop_front()
        {
            issued.tokens.remove(&oldest);
        }
        issued.token_order.push_back(token.clone());
        let end = SystemTime::now() + life;
        issued
            .tokens
            .insert(token.clone(), (identity.to_owned(), end));
        Ok(token)
    }

    /// Whether that token was issued for that identity and has not ended.
    pub(super) fn token_holds(&self, token: &str, identity: &str) -> bool {
        let issued = self.issued.lock();
        let known = issued.tokens.get(token);
        known.is_some_and(|(owner, end)| owner == identity && *end > SystemTime::now())
    }

    /// Ends all keys and tokens that have an end.
    pub(super) fn expire_all(&self) {
        self.expire(|_| true);
    }

    /// Ends the keys and tokens of identities.
    pub(super) fn expire_leases(&self) {
        self.expire(|key| key.identity.is_some());
    }

    fn expire(&self, which: impl Fn(&Key) -> bool) {
        let mut issued = self.issued.lock();
        let past = SystemTime::UNIX_EPOCH;
        for key in issued.keys.values_mut().filter(|key| which(key)) {
            key.expires = key.expires.map(|_| past);
        }
        for (_, end) in issued.tokens.values_mut() {
            *end = past;
        }
    }

    fn find(&self, access_key_id: &str) -> S3Result<Key> {
        let issued = self.issued.lock();
        let key = issued.keys.get(access_key_id);
        key.cloned().ok_or_else(|| {
            s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )
        })
    }
}

/// Judges the token that came with `key`.
fn check_token(key: &Key, token: Option<&str>) -> S3Result {
    match (&key.session_token, token) {
        (Some(_), None) => {
            return Err(s3_error!(
                AccessDenied,
                "Temporary keys need their session token."
            ));
        }
        (Some(wanted), Some(token)) if wanted != token => return Err(invalid_token()),
        (None, Some(_)) => return Err(invalid_token()),
        _ => {}
    }
    if key.expires.is_some_and(|end| end <= SystemTime::now()) {
        return Err(s3_error!(ExpiredToken, "The provided token has expired."));
    }
    Ok(())
}

fn invalid_token() -> S3Error {
    s3_error!(
        InvalidToken,
        "The provided token is malformed or otherwise invalid."
    )
}

/// Who asks, for the handlers.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// `Some`: only what lies under this prefix.
    prefix: Option<String>,
}

impl Caller {
    /// Refuses a key outside of what the caller may touch.
    pub(super) fn may_touch(&self, key: &str) -> S3Result {
        match &self.prefix {
            Some(prefix) if !key.starts_with(prefix.as_str()) => Err(denied()),
            _ => Ok(()),
        }
    }
}

fn denied() -> S3Error {
    s3_error!(
        AccessDenied,
        "Access Denied because no identity-based policy allows the action"
    )
}

/// `Keys` as `s3s` asks them.
pub(super) struct Auth(pub(super) std::sync::Arc<Keys>);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.0.find(access_key)?.secret_key))
    }
}

/// The check behind the signature.
pub(super) struct Access {
    pub(super) keys: std::sync::Arc<Keys>,
    pub(super) identity_prefix: bool,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = context.credentials() else {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        };
        let key = self.keys.find(&credentials.access_key)?;
        let header = context.headers().get("x-amz-security-token");
        let header = header.and_then(|value| value.to_str().ok());
        let query = query_value(context.uri().query(), "X-Amz-Security-Token");
        check_token(&key, header.or(query.as_deref()))?;
        let prefix = match key.identity.filter(|_| self.identity_prefix) {
            Some(identity) => format!("{identity}/"),
            None => {
                context.extensions_mut().insert(Caller::default());
                return Ok(());
            }
        };
        let caller = Caller {
            prefix: Some(prefix),
        };
        match (context.s3_path().as_object(), context.s3_op().name()) {
            (Some((_, key)), _) => caller.may_touch(key)?,
            (None, "ListObjectsV2" | "ListMultipartUploads") => {
                let prefix = query_value(context.uri().query(), "prefix");
                caller.may_touch(&prefix.unwrap_or_default())?;
            }
            // Each key is judged by itself.
            (None, "DeleteObjects") => {}
            (None, _) => return Err(denied()),
        }
        context.extensions_mut().insert(caller);
        Ok(())
    }
}

/// The value of a query parameter, decoded.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = query?.split('&');
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&value).decode_utf8();
        (key == name)
            .then(|| decoded.ok().map(std::borrow::Cow::into_owned))
            .flatten()
    })
}

/// The region of the credential scope of an `Authorization` header.
pub(super) fn scope_region(authorization: &str) -> Option<&str> {
    let (_, credential) = authorization.split_once("Credential=")?;
    let mut scope = credential.split([',', ' ']).next()?.rsplit('/');
    // Backwards: aws4_request, service, region.
    scope.nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::S3ErrorCode;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_must_be_there_be_the_one_and_not_have_ended() {
        let keys = Keys::new();
        let key = keys.issue(None, HOUR).unwrap();
        let token = key.session_token.clone();
        let code = |key: &Key, token: Option<&str>| {
            check_token(key, token).map_err(|error| error.code().clone())
        };
        assert_eq!(code(&key, token.as_deref()), Ok(()));
        assert_eq!(code(&key, None), Err(S3ErrorCode::AccessDenied));
        assert_eq!(code(&key, Some("x")), Err(S3ErrorCode::InvalidToken));
        keys.expire_all();
        let key = keys.find(&key.access_key_id).unwrap();
        assert_eq!(code(&key, token.as_deref()), Err(S3ErrorCode::ExpiredToken));
    }

    #[test]
    fn keys_without_a_token_take_none() {
        let keys = Keys::new();
        keys.accept_fixed(&"AK:SK".parse().unwrap());
        let key = keys.find("AK").unwrap();
        assert!(check_token(&key, None).is_ok());
        assert!(check_token(&key, Some("x")).is_err());
    }

    #[test]
    fn an_open_id_token_holds_for_its_identity_until_its_end() {
        let keys = Keys::new();
        let token = keys.issue_token("r:1", HOUR).unwrap();
        assert!(keys.token_holds(&token, "r:1"));
        assert!(!keys.token_holds(&token, "r:2"));
        keys.expire_all();
        assert!(!keys.token_holds(&token, "r:1"));
    }

    #[test]
    fn old_keys_are_forgotten_beyond_the_bound() {
        let keys = Keys::new();
        for at in 0..=REMEMBERED {
            keys.accept_fixed(&format!("AK{at}:SK").parse().unwrap());
        }
        assert!(keys.find("AK0").is_err());
        assert!(keys.find("AK1").is_ok());
    }

    #[test]
    fn the_region_is_read_off_the_scope_whatever_the_key_id() {
        let header = "AWS4-HMAC-SHA256 Credential=AK/IA/20260101/eu-west-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=00";
        assert_eq!(scope_region(header), Some("eu-west-1"));
        assert_eq!(scope_region("Basic abc"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = Keys::new().issue(None, HOUR).unwrap();
        let text = format!("{key:?}");
        assert!(!text.contains(&key.secret_key));
        assert!(!text.contains(&key.session_token.unwrap()));
    }
}
