//! The adapter to S3 by the AWS SDK.
