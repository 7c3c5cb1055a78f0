//! The control endpoint, for tests that run in another process.
//!
//! `GET /counts`, `GET /log`, `GET /faults`; `POST /reset`, `POST /faults` (a JSON list of
//! commands), `POST /keys` (`{"life_ms": 1000}`), `POST /seed`
//! (`{"bucket", "prefix", "count", "size"}`).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{self, Body, BoxError};
use super::faults::Command;
use super::{DAY, FixedKeys, Shared};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeysWanted {
    life_ms: Option<u64>,
}

/// Many objects of one size, numbered.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    bucket: String,
    #[serde(default)]
    prefix: String,
    count: u64,
    #[serde(default)]
    size: usize,
}

/// Answers a request whose body has been read.
pub(super) fn answer(
    shared: &Shared,
    head: &Parts,
    body: &Bytes,
) -> Result<Response<Body>, BoxError> {
    let answered = match (&head.method, head.uri.path()) {
        (&Method::GET, "/counts") => shown(&shared.counter.counts()),
        (&Method::GET, "/log") => shown(&shared.counter.log()),
        (&Method::GET, "/faults") => shown(&shared.faults.planned()),
        (&Method::POST, "/reset") => {
            shared.counter.reset();
            Ok(json!({}))
        }
        (&Method::POST, "/faults") => command(shared, body),
        (&Method::POST, "/keys") => keys(shared, body),
        (&Method::POST, "/seed") => seed(shared, body),
        _ => {
            let message = json!({ "error": "no such path" });
            return Ok(answer::json(StatusCode::NOT_FOUND, &message));
        }
    };
    Ok(match answered {
        Ok(value) => answer::json(StatusCode::OK, &value),
        Err(error) => {
            let message = json!({ "error": error.to_string() });
            answer::json(StatusCode::BAD_REQUEST, &message)
        }
    })
}

fn shown<T: Serialize>(value: &T) -> io::Result<serde_json::Value> {
    Ok(serde_json::to_value(value)?)
}

fn command(shared: &Shared, body: &Bytes) -> io::Result<serde_json::Value> {
    let commands: Vec<Command> = serde_json::from_slice(body)?;
    for command in commands {
        let faults = &shared.faults;
        match command {
            Command::Fault(fault) => faults.add(fault),
            Command::Clear => faults.clear(),
            Command::Silence { service, on } => faults.silence(service, on),
            Command::Cut => faults.cut(),
            Command::ExpireKeys => shared.keys.expire_all(),
            Command::LeaseLife(millis) => faults.set_lease_life(Duration::from_millis(millis)),
            Command::Expiration(form) => faults.set_expiration(form),
        }
    }
    Ok(json!({}))
}

fn keys(shared: &Shared, body: &Bytes) -> io::Result<serde_json::Value> {
    let wanted: KeysWanted = if body.is_empty() {
        KeysWanted::default()
    } else {
        serde_json::from_slice(body)?
    };
    let life = wanted.life_ms.map_or(DAY, Duration::from_millis);
    let key = shared.keys.issue(None, life)?;
    Ok(FixedKeys::of(key).json())
}

fn seed(shared: &Shared, body: &Bytes) -> io::Result<serde_json::Value> {
    let seed: Seed = serde_json::from_slice(body)?;
    let objects = (0..seed.count).map(|number| {
        let key = format!("{}{number:06}", seed.prefix);
        let sign = b"0123456789abcdef"[usize::try_from(number % 16).unwrap_or(0)];
        (key, vec![sign; seed.size])
    });
    let put = shared.store.seed(&seed.bucket, objects)?;
    Ok(json!({ "put": put }))
}
