//! kryptonfs.

pub mod creds;
pub mod log;
pub mod net;
pub mod read;
pub mod store;
pub mod tree;
pub mod types;
