//! kryptonfs.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod creds;
pub mod daemon;
pub mod disk;
pub mod drain;
pub mod fs;
pub mod fuse;
pub mod log;
pub mod net;
pub mod read;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod tree;
pub mod types;
