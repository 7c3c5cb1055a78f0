//! A web server for tests: it answers each request by a function, and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `POST /path HTTP/1.1`
    pub(crate) line: String,
    /// In lower case, one line each.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    /// All of it.
    pub(crate) bytes: usize,
}

/// Serves until the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A whole answer; `head` are further header lines, each with its line end.
pub(crate) fn reply(status: &str, head: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{head}\r\n{body}"
    )
}

impl Stub {
    /// One that answers with what `answer` says to the request with this number (from 0).
    pub(crate) fn new(answer: impl Fn(usize, &Asked) -> String + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    /// The same at that address.
    pub(crate) fn at(
        address: &str,
        answer: impl Fn(usize, &Asked) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let (asked, answer) = (Arc::clone(&stub.asked), Arc::new(answer));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                let mut connection = connection.unwrap();
                std::thread::spawn(move || {
                    let Some(request) = read(&mut BufReader::new(&connection)) else {
                        return;
                    };
                    let number = {
                        let mut asked = asked.lock();
                        asked.push(request.clone());
                        asked.len() - 1
                    };
                    let reply = answer(number, &request);
                    // The client may have gone away: that is its test's business.
                    let _ = connection.write_all(reply.as_bytes());
                });
            }
        });
        stub
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

fn read(connection: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    connection.read_line(&mut line).ok()?;
    if line.is_empty() {
        return None;
    }
    let (mut headers, mut length, mut bytes) = (Vec::new(), 0, line.len());
    loop {
        let mut header = String::new();
        bytes += connection.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers.push(header);
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    Some(Asked {
        line: line.trim().to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
        bytes: bytes + length,
    })
}
