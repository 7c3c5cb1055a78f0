//! Uploads that were begun and not ended.

use async_trait::async_trait;
use aws_sdk_s3::primitives::DateTime;

use super::super::{Begun, Op, Result, Uploads};
use super::S3Store;
use super::error::{Role, failure};

#[async_trait]
impl Uploads for S3Store {
    async fn begun(&self, prefix: &str) -> Result<Begun> {
        // As long as a listing may take.
        self.call(Op::List, |client, seen| async move {
            let request = client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix);
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Other))?;
            let begun = output.uploads().iter();
            Ok(Begun {
                at: begun
                    .map(|upload| upload.initiated().map_or(0, DateTime::secs))
                    .collect(),
                more: output.is_truncated() == Some(true),
            })
        })
        .await
    }
}
