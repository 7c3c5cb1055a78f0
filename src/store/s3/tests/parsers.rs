//! The readers of answers alone, without a request around them: a hundred thousand answers that no
//! server should give.

use aws_sdk_s3::config::ConfigBag;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation as op;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};

use super::broken::{SEEDS, headers};
use super::*;
use crate::net::broken::Dice;
use crate::store::s3::error::{Role, refused};
use crate::store::s3::{list, multipart};

const INPUTS: usize = 100_000;

/// What becomes of one answer: it was read, it was refused, or it was none of that operation's.
type Reading = std::result::Result<(), Option<StoreError>>;

/// One operation: its own reader of the SDK, and ours of what that made of it.
fn read<O, E>(
    operation: &impl RuntimePlugin,
    answer: &HttpResponse,
    role: Role,
    then: impl FnOnce(&O) -> std::result::Result<(), Failure>,
) -> Reading
where
    O: fmt::Debug + Send + Sync + 'static,
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let layer = operation.config().expect("what an operation is made of");
    let reader = layer.load::<SharedResponseDeserializer>();
    let reader = reader.expect("a reader of answers");
    match reader.deserialize_nonstreaming_with_config(answer, &ConfigBag::base()) {
        Ok(output) => {
            let output = output.downcast::<O>().expect("that operation's answer");
            then(&output).map_err(|failure| Some(failure.error))
        }
        Err(error) => Err(error.as_operation_error().map(|error| {
            let error = error.downcast_ref::<E>().expect("that operation's error");
            refused(error.code(), error.message(), answer, role).error
        })),
    }
}

fn one(operation: usize, answer: &HttpResponse) -> Reading {
    match operation {
        0 => {
            use op::list_objects_v2::{ListObjectsV2, ListObjectsV2Error, ListObjectsV2Output};
            let ours = |output: &ListObjectsV2Output| list::page(output).map(drop);
            read::<_, ListObjectsV2Error>(&ListObjectsV2::new(), answer, Role::Other, ours)
        }
        1 => {
            use op::list_parts::{ListParts, ListPartsError, ListPartsOutput};
            let ours = |output: &ListPartsOutput| multipart::page(output).map(drop);
            read::<_, ListPartsError>(&ListParts::new(), answer, Role::Upload, ours)
        }
        2 => {
            use op::complete_multipart_upload as it;
            let operation = it::CompleteMultipartUpload::new();
            let ours = |output: &it::CompleteMultipartUploadOutput| {
                output
                    .e_tag()
                    .map_or(Ok(()), |tag| etag(Some(tag)).map(drop))
            };
            read::<_, it::CompleteMultipartUploadError>(&operation, answer, Role::Complete, ours)
        }
        3 => {
            use op::delete_objects::{DeleteObjects, DeleteObjectsError, DeleteObjectsOutput};
            let ours = |_: &DeleteObjectsOutput| Ok(());
            read::<_, DeleteObjectsError>(&DeleteObjects::new(), answer, Role::Other, ours)
        }
        4 => {
            use op::head_object::{HeadObject, HeadObjectError, HeadObjectOutput};
            let ours = |output: &HeadObjectOutput| etag(output.e_tag()).map(drop);
            read::<_, HeadObjectError>(&HeadObject::new(), answer, Role::Head, ours)
        }
        _ => {
            use op::upload_part_copy::{UploadPartCopy, UploadPartCopyError, UploadPartCopyOutput};
            let ours = |output: &UploadPartCopyOutput| {
                let copied = output.copy_part_result();
                etag(copied.and_then(|copied| copied.e_tag())).map(drop)
            };
            read::<_, UploadPartCopyError>(&UploadPartCopy::new(), answer, Role::UploadCopy, ours)
        }
    }
}

/// The seed that answers each operation of `one`.
const FITTING: [usize; 6] = [0, 6, 3, 7, 1, 4];

#[test]
fn a_hundred_thousand_broken_answers_of_s3_are_read_or_refused() {
    let (mut dice, mut read, mut refused) = (Dice(0x5EED_CAFE_F00D_0004), 0, 0);
    for _ in 0..INPUTS {
        let operation = dice.below(FITTING.len());
        let status = [200, 200, 200, 200, 206, 301, 400, 403, 404, 412, 503][dice.below(11)];
        let seed = match dice.below(4) {
            0 => dice.below(SEEDS.len()),
            _ => FITTING[operation],
        };
        let body = dice.broken(&SEEDS[seed..=seed]);
        let answer = headers(http::Response::builder().status(status), &mut dice);
        let answer = answer.body(SdkBody::from(body)).unwrap();
        match one(operation, &HttpResponse::try_from(answer).unwrap()) {
            Ok(()) => read += 1,
            Err(None) => {}
            Err(Some(error)) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.chars().count() < 1000, "{text:?}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
    assert!(read > INPUTS / 50, "only {read} were read");
    assert!(refused > INPUTS / 50, "only {refused} were refused");
}
