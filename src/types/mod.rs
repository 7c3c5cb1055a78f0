//! The vocabulary every floor speaks. Plain values: no I/O, no locks, no clock.
//!
//! Invariant: a `RelPath` and an `ObjectKey` are always relative to the mount's prefix (only
//! `store/prefix.rs` knows the full key), so a log or a cache survives a change of spelling of the
//! prefix, and nothing above the store can name an object outside of it.

mod attrs;
mod extent;
mod generation;
mod listing;
mod name;
mod object;

pub use attrs::{Attrs, Kind, Time};
pub use extent::{Extent, Extents, FileNo, Source};
pub use generation::{Base, Generation, MountId, STAMP_KEY, Seq, Stamp, Want};
pub use listing::{ListPage, Listed};
pub use name::{NAME_MAX, Name, NameError, RelKey, RelPath};
pub use object::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition, Sse};
