//! kryptonfs.

pub mod cache;
pub mod clock;
pub mod creds;
pub mod disk;
pub mod drain;
pub mod fs;
pub mod fuse;
pub mod log;
pub mod net;
pub mod read;
pub mod store;
pub mod tree;
pub mod types;
