//! kryptonfs mounts an S3 bucket as a directory on a device behind a metered SIM.
//!
//! What it serves, in this order: never losing a byte, fewest bytes on the wire, then speed.
//!
//! # The picture
//!
//! ```text
//!  door      main -> cli -> config, daemon (builds all below)            sim: an annex, no room opens into it
//!  callers   kernel -> fuse -> fs            drain                       neither calls the other; both stand on
//!  core      tree -> log                     read -> cache, log          what is so, in order | bytes of any extent
//!  ports     disk                            store -> (s3: creds -> net)
//!  ground    types, clock
//! ```
//!
//! Arrows go down, or to the right where drawn; `tests/it/architecture.rs` holds the table and its
//! reasons. Five sentences carry the design:
//!
//! 1. **One value says where a file's bytes are**: [`types::Extents`], pieces of the spool or of a
//!    version in the bucket. Reading, sending, appending, copying, renaming are read off it.
//! 2. **What is sealed never changes.** A [`types::Generation`] is immutable, and what it names in
//!    the spool is never overwritten; so a file may be written while it is read and sent.
//! 3. **One log, one fold.** Every acknowledged change is a record in one append-only log
//!    ([`log`]); `tree::fold` alone gives a record its meaning, live, at boot and in tests.
//! 4. **Each key has a wanted state.** Create, write, chmod, unlink, rename of a file or of a
//!    whole directory: one kind of record, a list of (key, wanted state, what the bucket is
//!    believed to hold). What is visible is those laid over what is known of the bucket
//!    ([`tree`]); what is to be sent is those that are not so yet ([`drain`]): there is no queue.
//! 5. **The network is absent by default.** Only [`store`] and [`creds`] wait for it, and only
//!    [`net`] dials.
//!
//! # One write, going down
//!
//! `create` appends (key, open) to the log and shows the name. Writes go to the file's draft: up to
//! 32 KiB in memory, else a data file of the spool, each byte at its own offset where it can be.
//! `flush` (one per close) makes a generation: the data file is flushed, the record appended, the
//! log flushed, then close answers: two flushes, one for a small file, whose bytes ride in the
//! record. After `linger` the drain plans a request for the key: one PUT, or parts, or copies by
//! reference, with a precondition from what the bucket is believed to hold and a stamp of ours in
//! the metadata. When S3 has acknowledged, the data file becomes the cache's by a hard link, a
//! record says so, and the tree shows the version in its place.
//!
//! # Reading order
//!
//! [`types`] (`extent`, `generation`), `log/record.rs`, `tree/fold.rs`, `drain/plan.rs`,
//! `fs/seal.rs`, `read/mod.rs`; then `fs/tests/model.rs` for what it promises.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod creds;
pub mod daemon;
pub mod disk;
pub mod doctor;
pub mod drain;
pub mod fs;
pub mod fuse;
pub mod log;
pub mod net;
pub mod read;
mod seeded;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod tree;
pub mod types;
