//! kryptonfs: mounts an S3 bucket as a directory (the architecture is described here at the end).

pub mod creds;
pub mod log;
pub mod store;
pub mod types;
