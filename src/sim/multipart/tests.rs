use super::*;
use s3s::S3ErrorCode;

use super::super::blob::{Blobs, Slice};
use super::super::checks::Summer;

/// Sparse parts of these sizes; the first byte of each tells them apart.
struct Bench {
    _dir: tempfile::TempDir,
    blobs: Arc<Blobs>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        Self { _dir: dir, blobs }
    }

    fn part(&self, sign: u8, len: u64) -> Part {
        let bytes = vec![sign; usize::try_from(len).unwrap()];
        let mut summer = Summer::new(None);
        summer.update(&bytes);
        let mut content = Content::default();
        content.push(Slice {
            blob: self.blobs.write(&bytes).unwrap(),
            offset: 0,
            len,
        });
        Part::new(content, summer.finish())
    }

    fn upload(&self, parts: &[(u16, u64)]) -> Upload {
        let mut upload = Upload::new(UploadRecord {
            key: "k".to_owned(),
            attributes: Attributes::default(),
            algorithm: None,
            composite: false,
            initiated: 0,
        });
        for (number, len) in parts {
            let sign = u8::try_from(*number).unwrap();
            let part = Arc::new(self.part(sign, *len));
            upload.parts.insert(*number, part);
        }
        upload
    }
}

fn all(upload: &Upload) -> Completion {
    let parts = upload.parts.iter().map(|(number, part)| Named {
        number: i32::from(*number),
        etag: part.etag(),
        checksum: None,
    });
    Completion {
        parts: parts.collect(),
        ..Completion::default()
    }
}

fn code(upload: &Upload, asked: &Completion) -> Option<S3ErrorCode> {
    assemble(upload, asked)
        .err()
        .map(|error| error.code().clone())
}

#[test]
fn parts_with_gaps_in_their_numbers_make_the_object_in_order() {
    let bench = Bench::new();
    let upload = bench.upload(&[(2, MIN_PART), (7, MIN_PART), (9, 3)]);
    let object = assemble(&upload, &all(&upload)).unwrap();
    assert_eq!(object.size, 2 * MIN_PART + 3);
    assert!(object.etag.ends_with("-3"));
    let sums = object.content.sum(None).unwrap();
    assert_eq!(object.crc64, sums.crc64);
    assert_eq!(object.checksum, sums.checksum);
    assert_eq!(object.md5(), None);
}

#[test]
fn only_the_last_part_may_be_small_and_a_part_may_be_left_out() {
    let bench = Bench::new();
    let upload = bench.upload(&[(1, 3), (2, MIN_PART - 1), (3, 3)]);
    assert_eq!(
        code(&upload, &all(&upload)),
        Some(S3ErrorCode::EntityTooSmall)
    );
    let mut one = all(&upload);
    one.parts.truncate(1);
    assert_eq!(assemble(&upload, &one).unwrap().size, 3);
}

#[test]
fn what_is_named_must_be_there_in_order_and_be_it() {
    let bench = Bench::new();
    let upload = bench.upload(&[(1, MIN_PART), (2, 3)]);
    let with = |change: fn(&mut Completion)| {
        let mut asked = all(&upload);
        change(&mut asked);
        code(&upload, &asked)
    };
    let none = with(|asked| asked.parts.clear());
    assert_eq!(none, Some(S3ErrorCode::MalformedXML));
    let order = with(|asked| asked.parts.reverse());
    assert_eq!(order, Some(S3ErrorCode::InvalidPartOrder));
    let twice = with(|asked| asked.parts[1].number = 1);
    assert_eq!(twice, Some(S3ErrorCode::InvalidPartOrder));
    let absent = with(|asked| asked.parts[1].number = 3);
    assert_eq!(absent, Some(S3ErrorCode::InvalidPart));
    let etag = with(|asked| asked.parts[1].etag = "00".to_owned());
    assert_eq!(etag, Some(S3ErrorCode::InvalidPart));
    let number = with(|asked| asked.parts[1].number = 10_001);
    assert_eq!(number, Some(S3ErrorCode::InvalidArgument));
    let size = with(|asked| asked.size = Some(1));
    assert_eq!(size, Some(S3ErrorCode::InvalidRequest));
    let sum =
        with(|asked| asked.checksum = Some((Algorithm::Crc64Nvme, "AAAAAAAAAAA=".to_owned())));
    assert_eq!(sum, Some(S3ErrorCode::BadDigest));
    let part = with(|asked| {
        asked.parts[1].checksum = Some((Algorithm::Crc64Nvme, "AAAAAAAAAAA=".to_owned()));
    });
    assert_eq!(part, Some(S3ErrorCode::InvalidPart));
}

#[test]
fn a_completed_upload_is_gone_and_a_refused_one_stays() {
    let bench = tempfile::tempdir().unwrap();
    let store = Store::open(bench.path()).unwrap();
    store.create_bucket("b").unwrap();
    let create = || {
        let creation = Creation {
            key: "k".to_owned(),
            attributes: Attributes::default(),
            algorithm: None,
            composite: false,
        };
        store.create_upload("b", creation).unwrap()
    };
    let (first, second) = (create(), create());
    assert_eq!(store.uploads("b", "").unwrap().len(), 2);
    assert_eq!(store.uploads("b", "x").unwrap().len(), 0);
    let parts = Bench::new();
    let mut done = Completion::default();
    for id in [&first, &second] {
        let part = store.put_part("b", id, 1, parts.part(1, 3)).unwrap();
        done.parts = vec![Named {
            number: 1,
            etag: part.etag(),
            checksum: None,
        }];
    }
    done.when.if_none_match = Some(s3s::dto::ETagCondition::Any);
    let complete = |id: &str| {
        let done = store.complete("b", "k", id, &done);
        done.err().map(|error| error.code().clone())
    };
    assert_eq!(complete(&first), None);
    assert_eq!(complete(&first), Some(S3ErrorCode::NoSuchUpload));
    assert_eq!(complete(&second), Some(S3ErrorCode::PreconditionFailed));
    store.upload("b", "k", &second, |_| ()).unwrap();
    assert!(store.upload("b", "other", &second, |_| ()).is_err());
    store.abort("b", "k", &second).unwrap();
    assert!(store.abort("b", "k", &second).is_err());
    assert!(store.put_part("b", &second, 1, parts.part(1, 3)).is_err());
}
