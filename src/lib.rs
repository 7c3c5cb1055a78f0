//! kryptonfs: mounts an S3 bucket as a directory (the architecture is described here at the end).

pub mod log;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod types;
