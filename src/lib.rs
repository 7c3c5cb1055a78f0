//! kryptonfs.

pub mod cache;
pub mod fs;
pub mod log;
pub mod read;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod tree;
pub mod types;
