//! The independent S3 client beside the mount: boto3 in a process of its own (`client.py`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::field::within;
use super::servers::{USER, python};

/// Keys, as a server's issuer gave them.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: Option<String>,
}

/// Where a client connects and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) keys: Keys,
}

/// An object as the client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) content_type: String,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Empty if only asked by HEAD.
    pub(crate) sha256: String,
    /// The first 64 KiB.
    pub(crate) body: Vec<u8>,
}

/// The client.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Client {
    /// Starts it.
    pub(crate) fn start(access: &Access) -> Self {
        Self::started(Command::new(python()), access)
    }

    /// Starts it in that network namespace.
    pub(crate) fn start_in(space: &str, access: &Access) -> Self {
        let mut command = within(space);
        command.arg(python());
        Self::started(command, access)
    }

    fn started(mut command: Command, access: &Access) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client.py");
        let mut child = command
            .arg(script)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut stdin = child.stdin.take().expect("its stdin");
        let stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        let config = json!({
            "endpoint": access.endpoint,
            "region": access.region,
            "bucket": access.bucket,
            "ca_file": access.ca_file,
            "user": USER,
            "access_key": access.keys.access_key,
            "secret_key": access.keys.secret_key,
            "session_token": access.keys.session_token,
        });
        writeln!(stdin, "{config}").expect("the client reads its configuration");
        Self {
            child,
            pipes: RefCell::new((stdin, stdout)),
        }
    }

    /// Carries out one request; the S3 error code if it failed.
    fn try_ask(&self, request: &Value) -> Result<Value, String> {
        let mut pipes = self.pipes.borrow_mut();
        writeln!(pipes.0, "{request}").expect("the client takes a request");
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("the client answers");
        let mut answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("client answered {line:?} to {request}: {error}"));
        match answer.get("error") {
            None => Ok(answer["ok"].take()),
            Some(code) => Err(format!("{}: {}", text(code), text(&answer["text"]))),
        }
    }

    fn ask(&self, request: &Value) -> Value {
        self.try_ask(request)
            .unwrap_or_else(|error| panic!("the client's {request} failed: {error}"))
    }

    pub(crate) fn create_bucket(&self) {
        self.ask(&json!({"op": "create_bucket"}));
    }

    /// Puts an object; its ETag.
    pub(crate) fn put(&self, key: &str, body: &[u8]) -> String {
        self.try_put(key, body)
            .unwrap_or_else(|error| panic!("put of {key:?}: {error}"))
    }

    pub(crate) fn try_put(&self, key: &str, body: &[u8]) -> Result<String, String> {
        let body = STANDARD.encode(body);
        let answer = self.try_ask(&json!({"op": "put", "key": key, "body": body}))?;
        Ok(text(&answer["etag"]))
    }

    pub(crate) fn put_with(&self, key: &str, body: &[u8], metadata: &[(&str, &str)], kind: &str) {
        let metadata: BTreeMap<_, _> = metadata.iter().copied().collect();
        self.ask(&json!({
            "op": "put", "key": key, "body": STANDARD.encode(body),
            "metadata": metadata, "content_type": kind,
        }));
    }

    pub(crate) fn put_file(&self, key: &str, path: &Path) {
        self.ask(&json!({"op": "put", "key": key, "path": path}));
    }

    pub(crate) fn get(&self, key: &str) -> Object {
        object(&self.ask(&json!({"op": "get", "key": key})))
    }

    pub(crate) fn head(&self, key: &str) -> Object {
        object(&self.ask(&json!({"op": "head", "key": key})))
    }

    /// Whether HEAD finds the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        match self.try_ask(&json!({"op": "head", "key": key})) {
            Ok(_) => true,
            Err(error) if error.starts_with("404") || error.starts_with("NoSuchKey") => false,
            Err(error) => panic!("head of {key:?}: {error}"),
        }
    }

    /// All keys below `prefix`.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.ask(&json!({"op": "list", "prefix": prefix}));
        let list = answer.as_array().expect("a list");
        list.iter().map(|entry| text(&entry["key"])).collect()
    }

    /// Every object below `prefix`, read.
    pub(crate) fn tree(&self, prefix: &str) -> Vec<Object> {
        let answer = self.ask(&json!({"op": "tree", "prefix": prefix}));
        answer
            .as_array()
            .expect("a list")
            .iter()
            .map(object)
            .collect()
    }

    pub(crate) fn delete(&self, key: &str) {
        self.ask(&json!({"op": "delete", "key": key}));
    }

    /// Keys of multipart uploads that were neither completed nor aborted.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let answer = self.ask(&json!({"op": "uploads"}));
        answer
            .as_array()
            .expect("a list")
            .iter()
            .map(text)
            .collect()
    }

    /// Of those below `prefix`, the ones that hold parts.
    pub(crate) fn half_sent(&self, prefix: &str) -> Vec<String> {
        let answer = self.ask(&json!({"op": "half_sent", "prefix": prefix}));
        answer
            .as_array()
            .expect("a list")
            .iter()
            .map(text)
            .collect()
    }

    /// Temporary keys from the server's own STS.
    pub(crate) fn session_keys(&self) -> Keys {
        let answer = self.ask(&json!({"op": "session_keys"}));
        Keys {
            access_key: text(&answer["access_key"]),
            secret_key: text(&answer["secret_key"]),
            session_token: Some(text(&answer["session_token"])),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn object(value: &Value) -> Object {
    let metadata = value["metadata"].as_object().cloned().unwrap_or_default();
    Object {
        key: text(&value["key"]),
        size: value["size"].as_u64().expect("a size"),
        content_type: text(&value["content_type"]),
        metadata: metadata
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        sha256: text(&value["sha256"]),
        body: STANDARD.decode(text(&value["body"])).expect("base64"),
    }
}
