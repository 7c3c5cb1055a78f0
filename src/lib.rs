//! kryptonfs.

pub mod cache;
pub mod drain;
pub mod log;
pub mod read;
pub mod store;
pub mod tree;
pub mod types;
