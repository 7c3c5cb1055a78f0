//! Answers as no server should give them, for tests: good ones with bits, bytes and pieces changed.
//!
//! Invariant: the same seed gives the same answers, on every machine.

/// Pieces at which readers break.
const PIECES: [&[u8]; 20] = [
    b"9223372036854775807",
    b"-9223372036854775808",
    b"1e308",
    b"-1e308",
    b"1000000000000",
    b"\"+262143-12-31T23:59:60Z\"",
    b"\"0000-00-00T00:00:00+99:99\"",
    b"\"T+\"",
    b"null",
    b"[[[[[[[[",
    b"\\ud800",
    b"\xff\xfe",
    "\u{20ac}".as_bytes(),
    b"\r\n\x1b[31m",
    b"<![CDATA[",
    b"<!DOCTYPE x [<!ENTITY e \"e\">]>",
    b"&e;&#x110000;",
    b"</",
    b"%2",
    b"%ff%00",
];

/// Random numbers, the same in each run.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Less than `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }

    /// One of them, broken in one to five places.
    pub(crate) fn broken(&mut self, good: &[&str]) -> Vec<u8> {
        let mut bytes = good[self.below(good.len())].as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = self.below(256).to_le_bytes()[0],
                3 => {
                    let end = (at + self.below(30)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let end = (at + self.below(30)).min(bytes.len());
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    // In place of what stands there, a number perhaps.
                    let end = (at + self.below(20)).min(bytes.len());
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..end, piece.iter().copied());
                }
            }
        }
        bytes
    }
}
