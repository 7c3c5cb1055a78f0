//! A DNS server that knows a few names, and counts who asks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// A running server.
#[derive(Debug)]
pub(crate) struct Names {
    questions: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Answers on that socket.
    pub(crate) fn serve(socket: UdpSocket, known: &[(&str, Ipv4Addr)]) -> Self {
        let known: BTreeMap<_, _> = known
            .iter()
            .map(|(name, address)| ((*name).to_owned(), *address))
            .collect();
        let (questions, end) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (counted, ends) = (Arc::clone(&questions), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !ends.load(Ordering::SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                counted.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&packet[..len], &known) {
                    // Who asked may be unreachable by now.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            questions,
            end,
            thread: Some(thread),
        }
    }

    /// Datagrams that came.
    pub(crate) fn questions(&self) -> u64 {
        self.questions.load(Ordering::SeqCst)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a question of one name: its address, or that it has none (of that kind).
fn answer(question: &[u8], known: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = question.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += len;
    }
    let end = at + 4;
    let kind = question.get(at..at + 2)?;
    let address = known.get(&labels.join("."));
    let found = address.filter(|_| kind == [0, 1]);
    let mut packet = question.get(..end)?.to_vec();
    // An answer, recursion available; no such name if it is none.
    packet[2] |= 0x80;
    packet[3] = if address.is_some() { 0x80 } else { 0x83 };
    packet[4..12].copy_from_slice(&[0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    if let Some(address) = found {
        packet.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend_from_slice(&address.octets());
    }
    Some(packet)
}
