//! What is agreed with the kernel when the mount is made.

use fuser::{InitFlags, KernelConfig};

/// The largest write request: what the kernel's own limit allows.
const MAX_WRITE: u32 = 1 << 20;
/// Asynchronous requests at once. The kernel's 12 would leave a slow link idle between reads.
const MAX_BACKGROUND: u16 = 64;
/// `EXPLICIT_INVAL_DATA`, not `AUTO`: when pages are still right is decided at open, by version. No
/// writeback cache: an acknowledged write is in the daemon. No `DONT_MASK`: the kernel applies umask.
/// No `ATOMIC_O_TRUNC`: with it the file is cut by the open itself, before the kernel finds out that
/// it may not be (a running program, opened `O_RDONLY|O_TRUNC`); without, a `setattr` follows.
const CAPABILITIES: InitFlags = InitFlags::FUSE_PARALLEL_DIROPS
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO);

/// Asks for all of it. A kernel that lacks something goes without.
pub(super) fn agree(config: &mut KernelConfig) {
    for flag in CAPABILITIES.iter() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel lacks it");
        }
    }
    // Each answers the nearest value it would take: what is not taken stays at its default.
    if config.set_max_write(MAX_WRITE).is_err()
        || config.set_max_background(MAX_BACKGROUND).is_err()
    {
        tracing::debug!("the kernel keeps its own limits");
    }
}
