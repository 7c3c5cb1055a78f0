//! A server is not trusted: whatever it says is an answer or an error, in one bounded line. Ten times as
//! many inputs with `KRYPTONFS_LONG=1`.

use super::*;
use crate::net::broken::Dice;

const INPUTS: usize = 10_000;
pub(super) const SEEDS: [&str; 8] = [
    "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
     <NextContinuationToken>t</NextContinuationToken><Contents><Key>a%2Fb+c</Key><Size>5</Size>\
     <ETag>&quot;e&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
     <StorageClass>STANDARD</StorageClass></Contents><CommonPrefixes><Prefix>d%2F</Prefix>\
     </CommonPrefixes></ListBucketResult>",
    "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>User: arn:aws:sts::1:x is not \
     authorized because no session policy allows it</Message><RequestId>1</RequestId></Error>",
    "<Error><Code>PermanentRedirect</Code><Message>m</Message><Region>eu-west-1</Region></Error>",
    "<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag></CompleteMultipartUploadResult>",
    "<CopyPartResult><ETag>\"e\"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>\
     </CopyPartResult>",
    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
    "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber>\
     <ETag>\"e\"</ETag><Size>5</Size><ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME></Part>\
     </ListPartsResult>",
    "<DeleteResult><Error><Key>a b</Key><Code>AccessDenied</Code><Message>m</Message></Error>\
     </DeleteResult>",
];
/// Values of headers.
const VALUES: [&str; 6] = [
    "\"e\"",
    "bytes 0-4/5",
    "5",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "eu-west-1",
    "AAAAAAAAAAA=",
];
const NAMES: [&str; 8] = [
    "etag",
    "content-range",
    "content-length",
    "date",
    "last-modified",
    "x-amz-bucket-region",
    "x-amz-checksum-crc64nvme",
    "x-amz-meta-mtime",
];

/// The seed that answers each operation of `ask`.
const FITTING: [Option<usize>; 9] = [
    Some(0),
    Some(0),
    None,
    None,
    Some(3),
    Some(4),
    Some(5),
    Some(6),
    Some(7),
];

/// An answer to come.
fn answer(server: &Server, dice: &mut Dice, operation: usize) {
    let status = [200, 200, 200, 200, 200, 206, 301, 400, 403, 404, 412, 503][dice.below(12)];
    let body = Bytes::from(match (dice.below(4), FITTING[operation]) {
        (1.., Some(fitting)) => dice.broken(&SEEDS[fitting..=fitting]),
        _ => dice.broken(&SEEDS),
    });
    let answer = headers(http::Response::builder().status(status), dice);
    server
        .script
        .lock()
        .push_back(Ok(answer.body(body).unwrap()));
}

/// With headers that nearly fit.
pub(super) fn headers(
    mut answer: http::response::Builder,
    dice: &mut Dice,
) -> http::response::Builder {
    for (name, value) in NAMES.iter().zip(VALUES.iter().cycle()) {
        let value = match dice.below(16) {
            0 => continue,
            1 => dice.broken(&VALUES),
            _ => value.as_bytes().to_vec(),
        };
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            answer = answer.header(*name, value);
        }
    }
    answer
}

/// One of the operations; what it answered, if it failed.
async fn ask(store: &S3Store, operation: usize) -> Option<StoreError> {
    let upload = UploadId("u".into());
    let id = ObjectId {
        key: key(),
        etag: ETag::new("e"),
    };
    let list = ListRequest {
        max_keys: 10,
        ..ListRequest::default()
    };
    let part = PartDone {
        number: 1,
        etag: ETag::new("e"),
        crc64: None,
        size: None,
    };
    match operation {
        0 | 1 => store.list(&list).await.err(),
        2 => head(store).await.err(),
        3 => match get(store, Some(0..5)).await {
            Ok(mut got) => loop {
                match got.body.next().await {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(_)) => {}
                }
            },
            Err(error) => Some(error),
        },
        4 => store
            .complete(&key(), &upload, &[part], &Precondition::None)
            .await
            .err(),
        5 => store.copy_part(&key(), &upload, 1, &id, None).await.err(),
        6 => store
            .create_multipart(&key(), &Headers::default())
            .await
            .err(),
        7 => store.list_parts(&key(), &upload).await.err(),
        _ => {
            let refused = store.delete_batch(&[(key(), None)]).await;
            let first = |refused: Vec<_>| refused.into_iter().next().map(|(_, error)| error);
            refused.map_or_else(Some, first)
        }
    }
}

#[tokio::test]
async fn whatever_a_server_answers_is_an_answer_or_an_error_in_one_line() {
    let inputs = if std::env::var_os("KRYPTONFS_LONG").is_some() {
        100_000
    } else {
        INPUTS
    };
    let (mut dice, mut read) = (Dice(0x5EED_CAFE_F00D_0003), 0);
    let (server, _, store) = bench();
    for _ in 0..inputs {
        server.script.lock().clear();
        server.requests.lock().clear();
        // A request may be repeated, and followed by others (pages, a HEAD).
        let operation = dice.below(FITTING.len());
        (0..6).for_each(|_| answer(&server, &mut dice, operation));
        match ask(&store, operation).await {
            None => read += 1,
            Some(error) => {
                let text = error.to_string();
                assert!(text.chars().count() < 1000, "{text:?}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
    assert!(read > inputs / 50, "only {read} of {inputs} were read");
}
