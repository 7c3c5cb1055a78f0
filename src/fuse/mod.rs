//! The kernel's side of the house, and the only place that knows fuser: each method decodes, hands a
//! task the reply, and that task asks `fs` and answers. No logic, no state, no network and no disk on
//! a fuse thread.
//!
//! Invariants:
//! - a request is answered exactly once: replies are values; one that is dropped (a panic) is `EIO`;
//! - locks (flock, fcntl) are not negotiated, so the kernel keeps them among this device's processes;
//! - permissions are always checked by the kernel (`default_permissions`).

mod adapter;
mod agree;
mod answer;
mod bare;
mod convert;
mod errno;
mod mode;
pub mod mounts;
mod notify;
mod serve;
mod session;

pub use bare::Bare;
pub use notify::{Forget, Notify};
pub use serve::Deadlines;
pub use session::{Left, MountError, Options, Session, prepare, take_away};
