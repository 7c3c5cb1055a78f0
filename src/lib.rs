//! kryptonfs.

pub mod cache;
pub mod fs;
pub mod fuse;
pub mod log;
pub mod read;
pub mod store;
pub mod tree;
pub mod types;
