//! The DNS packets of a stub resolver (RFC 1035): one question out, addresses in. Pure.
//!
//! Invariant: whatever bytes come in, `parse` ends, reads only inside of the packet, and accepts
//! only the answer to the question that was asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The largest datagram read; without EDNS a server sends at most 512.
pub(super) const DATAGRAM_MAX: usize = 1232;
/// Addresses taken from one answer.
const ADDRESSES_MAX: usize = 16;

const CLASS_IN: u16 = 1;
const HEADER: usize = 12;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn record_type(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses, perhaps none, and how long they hold.
    Addresses(Vec<IpAddr>, Duration),
    /// NXDOMAIN: there is no such name.
    NoSuchName,
    /// The server failed or refuses (its response code): ask another.
    Failed(u8),
    /// The answer did not fit: ask the same over TCP.
    Truncated,
}

/// The packet that asks for `host`; `None` if it is not a name DNS can carry.
pub(super) fn question(id: u16, host: &str, family: Family) -> Option<Vec<u8>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > 253 || !host.is_ascii() {
        return None;
    }
    let mut packet = Vec::with_capacity(HEADER + host.len() + 6);
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion, one question
    for label in host.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        packet.push(length);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&family.record_type().to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(packet)
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(packet, at)?) << 16 | u32::from(u16_at(packet, at + 2)?))
}

/// Where the name that starts at `at` ends. A pointer ends it: it is not followed.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *packet.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            0xC0..=0xFF => return packet.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Reads the answer to `asked`; `None`: this packet is not one.
pub(super) fn parse(packet: &[u8], asked: &[u8]) -> Option<Answer> {
    let (head, question) = (packet.get(..HEADER)?, asked.get(HEADER..)?);
    let repeated = packet.get(HEADER..HEADER + question.len())?;
    let is_answer = head[..2] == asked[..2] && head[2] & 0xF8 == 0x80; // id, response, QUERY
    if !is_answer || u16_at(packet, 4)? != 1 || !repeated.eq_ignore_ascii_case(question) {
        return None;
    }
    match head[3] & 0x0F {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        code => return Some(Answer::Failed(code)),
    }
    if head[2] & 0x02 != 0 {
        return Some(Answer::Truncated);
    }
    let wanted = u16_at(question, question.len() - 4)?;
    let mut addresses = Vec::new();
    let mut ttl = u32::MAX;
    let mut at = HEADER + question.len();
    for _ in 0..u16_at(packet, 6)? {
        let (record, next) = record_at(packet, at)?;
        ttl = ttl.min(record.ttl);
        if record.class == CLASS_IN && record.kind == wanted && addresses.len() < ADDRESSES_MAX {
            addresses.extend(address(record.data));
        }
        at = next;
    }
    Some(Answer::Addresses(
        addresses,
        Duration::from_secs(u64::from(ttl)),
    ))
}

struct ResourceRecord<'a> {
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

fn record_at(packet: &[u8], at: usize) -> Option<(ResourceRecord<'_>, usize)> {
    let at = skip_name(packet, at)?;
    let length = usize::from(u16_at(packet, at + 8)?);
    let next = at + 10 + length;
    let record = ResourceRecord {
        kind: u16_at(packet, at)?,
        class: u16_at(packet, at + 2)?,
        ttl: u32_at(packet, at + 4)?,
        data: packet.get(at + 10..next)?,
    };
    Some((record, next))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(data).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to `asked` as a server sends it: a CNAME first, then the addresses.
    pub(in crate::net) fn answer(
        asked: &[u8],
        code: u8,
        ttl: u32,
        addresses: &[IpAddr],
    ) -> Vec<u8> {
        let mut packet = asked.to_vec();
        packet[2] = 0x81;
        packet[3] = 0x80 | code;
        let mut count = 0;
        let mut record = |kind: u16, data: &[u8]| {
            count += 1;
            packet.extend_from_slice(&[0xC0, 12]);
            packet.extend_from_slice(&kind.to_be_bytes());
            packet.extend_from_slice(&[0, 1]);
            packet.extend_from_slice(&ttl.to_be_bytes());
            packet.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            packet.extend_from_slice(data);
        };
        record(5, &[1, b'x', 0xC0, 12]);
        for address in addresses {
            match address {
                IpAddr::V4(v4) => record(1, &v4.octets()),
                IpAddr::V6(v6) => record(28, &v6.octets()),
            }
        }
        packet[7] = count;
        packet
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_question_is_the_bytes_of_rfc_1035() {
        let packet = question(0xABCD, "a.bc", Family::V4).unwrap();
        let expected = b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_name_dns_cannot_carry_is_not_asked_for() {
        let long = format!("{}.example", "x".repeat(64));
        for host in [
            "",
            ".",
            "a..b",
            "ex\u{e4}mple.com",
            long.as_str(),
            &"a.".repeat(130),
        ] {
            assert_eq!(question(1, host, Family::V4), None, "{host}");
        }
    }

    #[test]
    fn addresses_behind_a_cname_are_found_with_the_least_ttl() {
        let asked = question(7, "s3.example", Family::V4).unwrap();
        let packet = answer(&asked, 0, 42, &[ip("10.0.0.1"), ip("10.0.0.2")]);
        let expected = Answer::Addresses(
            vec![ip("10.0.0.1"), ip("10.0.0.2")],
            Duration::from_secs(42),
        );
        assert_eq!(parse(&packet, &asked), Some(expected));
    }

    #[test]
    fn an_answer_to_another_question_or_with_another_id_is_no_answer() {
        let asked = question(7, "s3.example", Family::V4).unwrap();
        let other_id = question(8, "s3.example", Family::V4).unwrap();
        let other_name = question(7, "s4.example", Family::V4).unwrap();
        let other_type = question(7, "s3.example", Family::V6).unwrap();
        for other in [other_id, other_name, other_type] {
            assert_eq!(
                parse(&answer(&other, 0, 1, &[ip("10.0.0.1")]), &asked),
                None
            );
        }
        assert_eq!(parse(&asked, &asked), None, "a question is no answer");
    }

    #[test]
    fn a_name_in_other_case_is_the_same_name() {
        let asked = question(7, "S3.Example", Family::V4).unwrap();
        let lower = question(7, "s3.example", Family::V4).unwrap();
        assert!(parse(&answer(&lower, 0, 1, &[ip("10.0.0.1")]), &asked).is_some());
    }

    #[test]
    fn response_codes_are_told_apart() {
        let asked = question(7, "s3.example", Family::V4).unwrap();
        let code = |code| parse(&answer(&asked, code, 1, &[]), &asked).unwrap();
        assert_eq!(code(3), Answer::NoSuchName);
        assert_eq!(code(2), Answer::Failed(2));
        assert_eq!(code(5), Answer::Failed(5));
    }

    #[test]
    fn a_truncated_answer_is_told_from_one_that_is_broken() {
        let asked = question(7, "s3.example", Family::V4).unwrap();
        let mut packet = answer(&asked, 0, 1, &[ip("10.0.0.1"), ip("10.0.0.2")]);
        packet.truncate(packet.len() - 3);
        assert_eq!(parse(&packet, &asked), None);
        packet[2] |= 0x02;
        assert_eq!(parse(&packet, &asked), Some(Answer::Truncated));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn any_bytes_are_survived(mut tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..220) {
            let asked = question(7, "s3.example", Family::V6).unwrap();
            let mut packet = answer(&asked, 0, 1, &[]);
            packet[7] = 9;
            packet.append(&mut tail);
            packet.truncate(cut);
            if let Some(Answer::Addresses(found, _)) = parse(&packet, &asked) {
                prop_assert!(found.len() <= ADDRESSES_MAX);
            }
        }
    }
}
