//! The bytes of one PUT or part: read in frames from the spool, so that nothing is held whole.
//!
//! Invariant: a payload answers the same bytes each time it is read. What lies in the spool never
//! changes, gaps are zeros, and what lies in the bucket was fetched into memory before (so there
//! is little of it: see `pieces`).

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::fail::Fail;
use crate::log::Spool;
use crate::read::{Reader, Window};
use crate::store::{Payload, ReadFrames};
use crate::types::{Extent, Extents, FileNo, Source};

/// How much is read at once.
const FRAME: usize = 256 * 1024;

/// A stretch of the payload.
#[derive(Debug)]
struct Bit {
    end: u64,
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    Zeros,
    /// The file, and which byte of it stands at the payload's first (so it may be negative).
    Spool(FileNo, i128),
    /// The bytes, and where in the payload they begin.
    Memory(Bytes, u64),
}

/// What reads the spool.
trait ReadAt: Send + Sync + std::fmt::Debug + 'static {
    fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes>;
}

impl ReadAt for Spool {
    fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes> {
        Spool::read_at(self, file, offset, len)
    }
}

#[derive(Debug)]
struct Frames {
    spool: Arc<dyn ReadAt>,
    /// In order, without gaps from 0 on.
    bits: Vec<Bit>,
}

impl ReadFrames for Frames {
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = offset + len as u64;
        if end > self.bits.last().map_or(0, |bit| bit.end) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut all = BytesMut::new();
        let first = self.bits.partition_point(|bit| bit.end <= offset);
        for bit in &self.bits[first..] {
            if at == end {
                break;
            }
            let stop = bit.end.min(end);
            let piece = self.read_bit(bit, at, stop)?;
            if at == offset && stop == end {
                return Ok(piece);
            }
            all.extend_from_slice(&piece);
            at = stop;
        }
        Ok(all.freeze())
    }
}

impl Frames {
    fn read_bit(&self, bit: &Bit, at: u64, stop: u64) -> io::Result<Bytes> {
        let len = usize::try_from(stop - at).map_err(io::Error::other)?;
        match &bit.from {
            Origin::Zeros => Ok(BytesMut::zeroed(len).freeze()),
            Origin::Spool(file, shift) => {
                let offset = u64::try_from(i128::from(at) + shift).map_err(io::Error::other)?;
                let bytes = self.spool.read_at(*file, offset, len)?;
                if bytes.len() == len {
                    Ok(bytes)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
            }
            Origin::Memory(bytes, start) => bytes.read(at - start, len),
        }
    }
}

/// Whether `start..end` has bytes that only the bucket (or the cache) has.
pub(super) fn needs_fetch(extents: &Extents, start: u64, end: u64) -> bool {
    let covered = extents.slice(start, end);
    covered
        .iter()
        .any(|piece| matches!(piece.from, Source::Remote { .. }))
}

/// `start..end` of a file as a payload, its checksum computed in one pass.
pub(super) async fn payload(
    spool: &Arc<Spool>,
    reader: &Reader,
    extents: &Extents,
    start: u64,
    end: u64,
) -> Result<Payload, Fail> {
    let part = extents.slice(start, end);
    let mut bits = Vec::new();
    for covered in part.cover(0, end - start) {
        bits.push(match covered {
            Err(gap) => Bit {
                end: gap.end,
                from: Origin::Zeros,
            },
            Ok(piece) => Bit {
                end: piece.end(),
                from: match &piece.from {
                    Source::Local { file, offset } => {
                        Origin::Spool(*file, i128::from(*offset) - i128::from(piece.at))
                    }
                    Source::Remote { .. } => Origin::Memory(fetch(reader, &piece).await?, piece.at),
                },
            },
        });
    }
    let spool: Arc<dyn ReadAt> = Arc::<Spool>::clone(spool);
    summed(Frames { spool, bits }, end - start).await
}

async fn fetch(reader: &Reader, piece: &Extent) -> Result<Bytes, Fail> {
    let mut extents = Extents::default();
    extents.put(Extent {
        at: 0,
        ..piece.clone()
    });
    let window = Window::default();
    let mut all = BytesMut::new();
    while (all.len() as u64) < piece.len {
        let at = all.len() as u64;
        let rest = usize::try_from(piece.len - at).unwrap_or(FRAME);
        let read = reader.read_at(&extents, piece.len, at, rest, &window);
        let bytes = read.await?;
        if bytes.is_empty() {
            return Err(Fail::Disk(libc::EIO));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

async fn summed(frames: Frames, len: u64) -> Result<Payload, Fail> {
    let sum = move || {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        let mut at = 0;
        while at < len {
            let size = usize::try_from(len - at).unwrap_or(FRAME).min(FRAME);
            digest.update(&frames.read(at, size)?);
            at += size as u64;
        }
        Ok::<_, io::Error>(Payload {
            len,
            crc64: digest.finalize(),
            source: Arc::new(frames),
        })
    };
    let summed = tokio::task::spawn_blocking(sum).await;
    let summed = summed.map_err(|_| Fail::Disk(libc::EIO))?;
    summed.map_err(|error| Fail::Disk(error.raw_os_error().unwrap_or(libc::EIO)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A spool file whose every byte tells its offset.
    #[derive(Debug)]
    struct Counting;

    fn byte(offset: u64) -> u8 {
        u8::try_from(offset % 251).unwrap()
    }

    impl ReadAt for Counting {
        fn read_at(&self, _file: FileNo, offset: u64, len: usize) -> io::Result<Bytes> {
            Ok((offset..offset + len as u64).map(byte).collect())
        }
    }

    fn frames() -> (Frames, Vec<u8>) {
        let memory = Bytes::from_static(b"remote");
        let bits = vec![
            Bit {
                end: 10,
                from: Origin::Spool(FileNo(1), 100),
            },
            Bit {
                end: 20,
                from: Origin::Zeros,
            },
            Bit {
                end: 26,
                from: Origin::Memory(memory, 20),
            },
            Bit {
                end: 40,
                from: Origin::Spool(FileNo(1), -26),
            },
        ];
        let mut all: Vec<u8> = (100..110).map(byte).collect();
        all.extend([0; 10]);
        all.extend(b"remote");
        all.extend((0..14).map(byte));
        let spool = Arc::new(Counting);
        (Frames { spool, bits }, all)
    }

    #[test]
    fn reading_behind_the_end_is_an_error_and_never_short() {
        let (frames, all) = frames();
        assert_eq!(frames.read(0, 40).unwrap(), all);
        let error = frames.read(39, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(frames.read(40, 0).unwrap(), Bytes::new());
    }

    #[tokio::test]
    async fn the_checksum_is_that_of_all_the_bytes() {
        let (frames, all) = frames();
        let payload = summed(frames, 40).await.unwrap();
        assert_eq!(payload.crc64, Payload::of(all.into()).crc64);
    }

    proptest! {
        #[test]
        fn any_range_of_a_payload_is_that_range_of_its_bytes(start in 0u64..40, len in 0usize..40) {
            let (frames, all) = frames();
            let len = len.min(40 - usize::try_from(start).unwrap());
            let from = usize::try_from(start).unwrap();
            prop_assert_eq!(&frames.read(start, len).unwrap()[..], &all[from..from + len]);
        }
    }
}
