//! What can only be known by looking: free room, default folders, who mounts.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{User, geteuid};

use super::ConfigError;

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// All.
    pub(super) total: u64,
    /// What may still be used.
    pub(super) free: u64,
}

/// The file system `dir` is on, or will be on once it is made.
pub(super) fn room(dir: &Path) -> Result<Room, ConfigError> {
    let there = dir.ancestors().find(|dir| dir.exists());
    let there = there.unwrap_or_else(|| Path::new("/"));
    let said = statvfs(there).map_err(|errno| {
        ConfigError::new(format!("{} cannot be looked at: {errno}", there.display()))
    })?;
    Ok(Room {
        total: said.blocks() * said.fragment_size(),
        free: said.blocks_available() * said.fragment_size(),
    })
}

/// 80 % of what is free, and what is in the spool already counts as free: else a device that starts
/// with much unsent could write nothing more.
pub(super) fn spool_max(dir: &Path) -> Result<u64, ConfigError> {
    let free = room(dir)?.free.saturating_add(used(dir));
    Ok(free / 10 * 8)
}

/// 1 GiB, or a tenth of a small disk.
pub(super) fn cache_max(dir: &Path) -> Result<u64, ConfigError> {
    Ok((room(dir)?.total / 10).min(1 << 30))
}

/// Bytes of the files in a folder and the folders in it. What cannot be read counts nothing.
fn used(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => used(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Where spool or cache are if nobody says: `system` for root, else `below_home`.
pub(super) fn default_dir(
    key: &str,
    system: &str,
    below_home: &str,
) -> Result<PathBuf, ConfigError> {
    if geteuid().is_root() {
        return Ok(system.into());
    }
    match User::from_uid(geteuid()) {
        Ok(Some(user)) => Ok(user.dir.join(below_home)),
        Ok(None) | Err(_) => Err(ConfigError::new(format!(
            "this user has no home: say {key}=PATH"
        ))),
    }
}

/// Where this user's processes may share what must not be on a disk, best first. Whether they lie
/// in memory is looked at where they are used.
pub(super) fn in_memory() -> Vec<PathBuf> {
    let user = geteuid();
    let own = if user.is_root() {
        PathBuf::from("/run/kryptonfs")
    } else {
        PathBuf::from(format!("/run/user/{user}/kryptonfs"))
    };
    vec![own, PathBuf::from(format!("/dev/shm/kryptonfs-{user}"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_that_of_the_nearest_folder_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("not/yet/there");
        assert_eq!(room(&deep).unwrap().total, room(dir.path()).unwrap().total);
    }

    #[test]
    fn what_is_in_a_folder_and_below_is_added_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("in/b"), [0; 5]).unwrap();
        assert_eq!(used(dir.path()), 15);
        assert_eq!(used(&dir.path().join("absent")), 0);
    }
}
