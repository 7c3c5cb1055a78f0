//! The DNS messages of a stub resolver (RFC 1035, by `hickory_proto`): one question out, addresses
//! in. Pure.
//!
//! Only what is needed of an answer is decoded: its head, its question and its answer section, one
//! record at a time, so that a count that lies costs no memory and what else a server adds cannot
//! spoil an answer.
//!
//! Invariant: whatever bytes come in, `parse` ends and accepts only the answer to the question that
//! was asked: the addresses of that name, or of what its aliases (CNAME) lead to.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// The largest datagram read; without EDNS a server sends at most 512.
pub(super) const DATAGRAM_MAX: usize = 1232;
/// Addresses taken from one answer.
const ADDRESSES_MAX: usize = 16;
/// Records looked at in one answer: those addresses, and as many aliases before them.
const RECORDS_MAX: usize = 2 * ADDRESSES_MAX;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
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
    Failed(u16),
    /// The answer did not fit: ask the same over TCP.
    Truncated,
}

/// What was asked, and the packet that asks it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: u16,
    query: Query,
    /// As it is sent.
    pub(super) packet: Vec<u8>,
}

impl Question {
    /// The question for `host`; `None` if it is not a name DNS can carry.
    pub(super) fn new(id: u16, host: &str, family: Family) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host);
        // A name that is not ASCII is not translated: the certificate would not be for it.
        if !host.is_ascii() {
            return None;
        }
        let name = Name::from_labels(host.split('.').map(str::as_bytes)).ok()?;
        let query = Query::query(name, family.record_type());
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let packet = message.to_vec().ok()?;
        Some(Self { id, query, packet })
    }

    /// Reads the answer to it; `None`: this packet is not one.
    pub(super) fn parse(&self, packet: &[u8]) -> Option<Answer> {
        let mut decoder = BinDecoder::new(packet);
        let header = Header::read(&mut decoder).ok()?;
        let is_answer = header.metadata.id == self.id
            && header.metadata.message_type == MessageType::Response
            && header.metadata.op_code == OpCode::Query
            && header.counts.queries == 1;
        // Names are equal in any case.
        if !is_answer || Query::read(&mut decoder).ok()? != self.query {
            return None;
        }
        match header.metadata.response_code {
            ResponseCode::NoError => {}
            ResponseCode::NXDomain => return Some(Answer::NoSuchName),
            code => return Some(Answer::Failed(code.into())),
        }
        if header.metadata.truncation {
            return Some(Answer::Truncated);
        }
        let count = usize::from(header.counts.answers).min(RECORDS_MAX);
        let records: Result<Vec<Record>, _> =
            (0..count).map(|_| Record::read(&mut decoder)).collect();
        Some(self.addresses(records.ok()?))
    }

    /// Those of the name that was asked for, wherever its aliases lead.
    fn addresses(&self, records: Vec<Record>) -> Answer {
        let mut name = self.query.name.clone();
        let mut ttl = u32::MAX;
        let mut addresses = Vec::new();
        let ours = |record: &Record| record.dns_class == DNSClass::IN;
        // Aliases come before what they lead to (RFC 1034, 4.3.2), so once through is enough, and a
        // circle of them ends.
        for record in records.into_iter().filter(ours) {
            if record.name != name {
                continue;
            }
            match (record.data, self.query.query_type) {
                (RData::CNAME(alias), _) => name = alias.0,
                (RData::A(v4), RecordType::A) => addresses.push(IpAddr::V4(v4.0)),
                (RData::AAAA(v6), RecordType::AAAA) => addresses.push(IpAddr::V6(v6.0)),
                _ => continue,
            }
            ttl = ttl.min(record.ttl);
        }
        addresses.truncate(ADDRESSES_MAX);
        Answer::Addresses(addresses, Duration::from_secs(u64::from(ttl)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hickory_proto::rr::rdata::CNAME;
    use proptest::prelude::*;

    use super::*;

    /// An answer to `asked` as a server sends it: an alias first, then the addresses.
    pub(in crate::net) fn answer(
        asked: &[u8],
        code: u16,
        ttl: u32,
        addresses: &[IpAddr],
    ) -> Vec<u8> {
        let mut message = Message::from_vec(asked).unwrap().into_response();
        message.metadata.response_code = code.into();
        let name = message.queries[0].name.clone();
        let alias = Name::from_ascii("of.").unwrap().append_name(&name).unwrap();
        let to_alias = RData::CNAME(CNAME(alias.clone()));
        message.add_answer(Record::from_rdata(name, ttl, to_alias));
        for address in addresses {
            let data = RData::from(*address);
            message.add_answer(Record::from_rdata(alias.clone(), ttl, data));
        }
        message.to_vec().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn question(id: u16, host: &str, family: Family) -> Question {
        Question::new(id, host, family).unwrap()
    }

    #[test]
    fn a_question_is_the_bytes_of_rfc_1035() {
        let packet = question(0xABCD, "a.bc", Family::V4).packet;
        let expected = b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_name_dns_cannot_carry_is_not_asked_for() {
        let long = format!("{}.example", "x".repeat(64));
        let names = [
            "",
            ".",
            "a..b",
            "ex\u{e4}mple.com",
            &long,
            &"a.".repeat(130),
        ];
        for host in names {
            assert!(Question::new(1, host, Family::V4).is_none(), "{host}");
        }
    }

    #[test]
    fn addresses_behind_a_cname_are_found_with_the_least_ttl() {
        let asked = question(7, "s3.example", Family::V4);
        let packet = answer(&asked.packet, 0, 42, &[ip("10.0.0.1"), ip("10.0.0.2")]);
        let expected = Answer::Addresses(
            vec![ip("10.0.0.1"), ip("10.0.0.2")],
            Duration::from_secs(42),
        );
        assert_eq!(asked.parse(&packet), Some(expected));
    }

    #[test]
    fn addresses_of_another_name_and_of_another_kind_are_not_taken() {
        let asked = question(7, "s3.example", Family::V4);
        let mut message = Message::from_vec(&asked.packet).unwrap().into_response();
        for (name, address) in [
            ("evil.example.", "203.0.113.66"),
            ("S3.example.", "fd00::1"),
            ("S3.example.", "10.0.0.1"),
        ] {
            let name = Name::from_ascii(name).unwrap();
            message.add_answer(Record::from_rdata(name, 9, RData::from(ip(address))));
        }
        let found = asked.parse(&message.to_vec().unwrap());
        let expected = Answer::Addresses(vec![ip("10.0.0.1")], Duration::from_secs(9));
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn aliases_that_lead_in_a_circle_lead_nowhere() {
        let asked = question(7, "a.example", Family::V4);
        let mut message = Message::from_vec(&asked.packet).unwrap().into_response();
        for (from, to) in [("a.example.", "b.example."), ("b.example.", "a.example.")] {
            let to = RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
            message.add_answer(Record::from_rdata(Name::from_ascii(from).unwrap(), 9, to));
        }
        let found = asked.parse(&message.to_vec().unwrap());
        assert_eq!(
            found,
            Some(Answer::Addresses(vec![], Duration::from_secs(9)))
        );
    }

    #[test]
    fn an_answer_to_another_question_or_with_another_id_is_no_answer() {
        let asked = question(7, "s3.example", Family::V4);
        let other_id = question(8, "s3.example", Family::V4);
        let other_name = question(7, "s4.example", Family::V4);
        let other_type = question(7, "s3.example", Family::V6);
        for other in [other_id, other_name, other_type] {
            let packet = answer(&other.packet, 0, 1, &[ip("10.0.0.1")]);
            assert_eq!(asked.parse(&packet), None);
        }
        assert_eq!(asked.parse(&asked.packet), None, "a question is no answer");
    }

    #[test]
    fn a_name_in_other_case_is_the_same_name() {
        let asked = question(7, "S3.Example", Family::V4);
        let lower = question(7, "s3.example", Family::V4);
        let packet = answer(&lower.packet, 0, 1, &[ip("10.0.0.1")]);
        let expected = Answer::Addresses(vec![ip("10.0.0.1")], Duration::from_secs(1));
        assert_eq!(asked.parse(&packet), Some(expected));
    }

    #[test]
    fn response_codes_are_told_apart() {
        let asked = question(7, "s3.example", Family::V4);
        let code = |code| asked.parse(&answer(&asked.packet, code, 1, &[])).unwrap();
        assert_eq!(code(3), Answer::NoSuchName);
        assert_eq!(code(2), Answer::Failed(2));
        assert_eq!(code(5), Answer::Failed(5));
    }

    #[test]
    fn a_truncated_answer_is_told_from_one_that_is_broken() {
        let asked = question(7, "s3.example", Family::V4);
        let mut packet = answer(&asked.packet, 0, 1, &[ip("10.0.0.1"), ip("10.0.0.2")]);
        packet.truncate(packet.len() - 3);
        assert_eq!(asked.parse(&packet), None);
        packet[2] |= 0x02;
        assert_eq!(asked.parse(&packet), Some(Answer::Truncated));
    }

    /// A name that points at itself, and at what comes behind it: neither is followed for ever.
    #[test]
    fn a_name_that_points_at_itself_is_no_answer() {
        let asked = question(7, "s3.example", Family::V4);
        let end = asked.packet.len();
        for pointer in [end, end + 2, 0x3FFF] {
            let mut packet = asked.packet.clone();
            (packet[2], packet[3], packet[7]) = (0x81, 0x80, 1);
            let [high, low] = u16::try_from(0xC000 | pointer).unwrap().to_be_bytes();
            packet.extend_from_slice(&[high, low, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
            assert_eq!(asked.parse(&packet), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn any_bytes_are_survived(mut tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..220) {
            let asked = question(7, "s3.example", Family::V6);
            let mut packet = answer(&asked.packet, 0, 1, &[]);
            packet[7] = 9;
            packet.append(&mut tail);
            packet.truncate(cut);
            if let Some(Answer::Addresses(found, _)) = asked.parse(&packet) {
                prop_assert!(found.len() <= ADDRESSES_MAX);
            }
        }
    }
}
