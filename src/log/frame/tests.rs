use super::*;

const PLACE: Place = Place {
    salt: Salt(0x0123_4567_89ab_cdef),
    segment: FileNo(3),
};

fn header() -> Header {
    Header {
        number: FileNo(3),
        mount: MountId(0xfeed),
        salt: PLACE.salt,
        first: Seq(7),
        durable: Seq(6),
        at_open: true,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A segment of three frames, the last with inline data only, and some zeros.
fn segment() -> Vec<u8> {
    let mut bytes = header().encode().to_vec();
    let parts: [(&[u8], &[u8]); 3] = [(b"one", b""), (b"twotwotwo", b"inline"), (b"", b"xyz")];
    for (seq, (record, inline)) in (7..).zip(parts) {
        let mut frame = Unplaced::new(record, inline).unwrap();
        let at = bytes.len() as u64;
        assert_eq!(frame.inline_at(at), at + 40 + record.len() as u64);
        let frame = frame.place(PLACE, at, Seq(seq), Seq(seq - 1)).to_vec();
        bytes.extend_from_slice(&frame);
    }
    bytes.resize(bytes.len() + 100, 0);
    bytes
}

fn found(bytes: &[u8]) -> Vec<Found> {
    Frames::new(bytes, PLACE).collect()
}

fn frames(bytes: &[u8]) -> Vec<(Frame, Vec<u8>)> {
    let frames = found(bytes).into_iter().filter_map(|found| match found {
        Found::Frame(frame) => Some((frame.clone(), bytes[frame.at].to_vec())),
        Found::Bad(_) => None,
    });
    frames.collect()
}

#[test]
fn the_format_is_frozen() {
    // Computed by an independent program from the description in the module's header.
    assert_eq!(
        hex(&header().encode()),
        "4b46534c4f470d0a040000001d1acff50300000000000000edfe000000000000\
         efcdab896745230107000000000000000600000000000000010000008b50b606"
    );
    let mut frame = Unplaced::new(b"record", b"inline!").unwrap();
    assert_eq!(
        hex(frame.place(PLACE, 64, Seq(9), Seq(8))),
        "4b46723101000000060000000700000009000000000000000800000000000000\
         e3d307a9b00c71997265636f7264696e6c696e6521000000"
    );
}

#[test]
fn a_header_of_version_1_is_read() {
    let old = "4b46534c4f470d0a010000005681a8530300000000000000edfe000000000000\
               efcdab896745230107000000000000000600000000000000010000008b50b606";
    let bytes: Vec<u8> = (0..old.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&old[at..at + 2], 16).unwrap())
        .collect();
    let read = Header::decode(&bytes, header().number).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", header()));
}

#[test]
fn frames_are_read_back_in_order_up_to_the_zeros() {
    let bytes = segment();
    let all = found(&bytes);
    let seqs: Vec<_> = frames(&bytes)
        .iter()
        .map(|(frame, _)| frame.seq.0)
        .collect();
    assert_eq!((all.len(), seqs), (3, vec![7, 8, 9]));
    let Found::Frame(second) = &all[1] else {
        panic!("{all:?}")
    };
    assert_eq!(&bytes[second.record.clone()], b"twotwotwo");
    assert_eq!(&bytes[second.inline.clone()], b"inline");
    assert_eq!(second.durable, Seq(7));
}

#[test]
fn a_flipped_bit_anywhere_makes_one_frame_bad_and_no_other() {
    let good = segment();
    let before = frames(&good);
    for at in HEADER..before[2].0.at.end {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let hit = before.iter().position(|(frame, _)| frame.at.contains(&at));
            let mut expected = before.clone();
            expected.remove(hit.unwrap());
            assert_eq!(frames(&bytes), expected, "bit {bit} of byte {at}");
            let bad = found(&bytes).into_iter().filter_map(|found| match found {
                Found::Bad(range) => Some(range),
                Found::Frame(_) => None,
            });
            let bad: Vec<_> = bad.collect();
            assert_eq!(bad.len(), 1);
            assert!(bad[0].contains(&at));
        }
    }
}

#[test]
fn a_flipped_bit_in_the_header_is_seen() {
    for at in 0..HEADER {
        for bit in 0..8 {
            let mut bytes = segment();
            bytes[at] ^= 1 << bit;
            assert_eq!(Header::decode(&bytes, FileNo(3)), Err(NoHeader::Damaged));
        }
    }
    assert_eq!(Header::decode(&segment(), FileNo(3)), Ok(header()));
    assert_eq!(
        Header::decode(&segment(), FileNo(4)),
        Err(NoHeader::Damaged)
    );
}

#[test]
fn a_segment_of_the_first_version_is_read() {
    let mut bytes = segment();
    let old = [1, 0, 0, 0, 0x56, 0x81, 0xa8, 0x53];
    bytes[8..16].copy_from_slice(&old);
    assert_eq!(Header::decode(&bytes, FileNo(3)), Ok(header()));
    assert_eq!(found(&bytes), found(&segment()));
}

#[test]
fn a_newer_version_is_told_from_damage_whatever_follows_its_first_16_bytes() {
    let mut bytes = segment();
    put_u32(&mut bytes, 8, VERSION + 1);
    let sum = crc32_iscsi(&bytes[..12]);
    put_u32(&mut bytes, 12, sum);
    bytes[16..].fill(0xaa);
    assert_eq!(
        Header::decode(&bytes, FileNo(3)),
        Err(NoHeader::Newer(VERSION + 1))
    );
    let short = &bytes[..16];
    assert_eq!(
        Header::decode(short, FileNo(3)),
        Err(NoHeader::Newer(VERSION + 1))
    );
    assert_eq!(Header::decode(&[0; 99], FileNo(3)), Err(NoHeader::Blank));
    assert_eq!(Header::decode(&[], FileNo(3)), Err(NoHeader::Blank));
}

#[test]
fn a_segment_cut_anywhere_yields_the_frames_before_the_cut() {
    let good = segment();
    let before = frames(&good);
    for len in 0..good.len() {
        let whole = before.iter().filter(|(frame, _)| frame.at.end <= len);
        let expected: Vec<_> = whole.cloned().collect();
        assert_eq!(frames(&good[..len]), expected, "cut at {len}");
        let mut zeroed = good.clone();
        zeroed[len..].fill(0);
        let zeroed = frames(&zeroed);
        assert_eq!(zeroed[..expected.len()], expected, "zeros from {len}");
        assert_eq!(zeroed, before[..zeroed.len()], "zeros from {len}");
    }
}

#[test]
fn a_frame_is_valid_only_where_it_was_written() {
    let good = segment();
    let at = frames(&good)[0].0.at.clone();
    let mut moved = good.clone();
    moved.splice(HEADER..HEADER, [0; 8]);
    assert_eq!(frames(&moved), []);
    let elsewhere = |place| Frames::new(&good, place).all(|found| matches!(found, Found::Bad(_)));
    assert!(elsewhere(Place {
        salt: Salt(1),
        ..PLACE
    }));
    let segment = FileNo(4);
    assert!(elsewhere(Place { segment, ..PLACE }));
    assert_eq!(at.start, HEADER);
}

#[test]
fn a_frame_inside_the_inline_data_of_a_damaged_one_is_not_found() {
    let mut bytes = header().encode().to_vec();
    // What a user could write who knew everything: a frame for the place where it will lie.
    let mut inner = Unplaced::new(b"evil", b"").unwrap();
    let inner_at = (HEADER + FRAME) as u64;
    let inner = inner.place(PLACE, inner_at, Seq(8), Seq(0)).to_vec();
    let mut outer = Unplaced::new(b"", &inner).unwrap();
    bytes.extend_from_slice(outer.place(PLACE, HEADER as u64, Seq(7), Seq(0)));
    assert_eq!(frames(&bytes).len(), 1);
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(frames(&bytes), []);
}

#[test]
fn a_frame_that_is_too_long_is_refused() {
    assert!(Unplaced::new(&[], &vec![0; FRAME_MAX - FRAME]).is_some());
    assert!(Unplaced::new(&[1], &vec![0; FRAME_MAX - FRAME]).is_none());
}
