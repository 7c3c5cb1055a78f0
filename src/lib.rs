//! kryptonfs.

<<<<<<< HEAD
pub mod cache;
pub mod fs;
pub mod log;
pub mod read;
=======
pub mod clock;
pub mod creds;
pub mod log;
pub mod net;
>>>>>>> h-net
pub mod store;
pub mod tree;
pub mod types;
