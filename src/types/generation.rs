//! What a name is wanted to be: a sealed content, a name without content yet, or nothing.
//!
//! Invariant: a `Generation` never changes. Later writes make a new one with a higher number.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Attrs, ETag, Extents, FileNo, ObjectId};

/// A position in the log; higher is later. Never reused in a spool.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

/// A sealed content of a file, symlink (its bytes are the target) or directory (no bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Where the bytes are. Gaps read as zeros.
    pub extents: Extents,
    /// Length in bytes.
    pub len: u64,
    /// Mode, times and the rest that travels with the object.
    pub attrs: Attrs,
}

/// What one key is wanted to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// The name exists, nothing is sealed: never sent; after a crash the bytes in the data file
    /// are set aside under this name.
    Open {
        /// As created.
        attrs: Box<Attrs>,
        /// The data file its bytes go to, if they have left memory.
        file: Option<FileNo>,
    },
    /// The key holds this.
    Object(Arc<Generation>),
    /// The key holds nothing.
    Gone,
}

/// What the bucket is believed to hold at a key, hence the precondition of the next write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// No object.
    Absent,
    /// This version.
    Version(ETag),
}

impl Base {
    /// From what is known of the key.
    #[must_use]
    pub fn of(known: Option<&ObjectId>) -> Self {
        known.map_or(Self::Absent, |id| Self::Version(id.etag.clone()))
    }
}

/// A spool's random identity, bound to the machine, made when the spool is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MountId(pub u64);

/// Who wrote a version: kept in the object's metadata under `kryptonfs`, so that our own lost
/// answer is told from a stranger's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The spool that wrote.
    pub mount: MountId,
    /// The number of the generation: the `Seq` of the record that sealed it.
    pub number: Seq,
}

/// The name of the user metadata that holds the stamp.
pub const STAMP_KEY: &str = "kryptonfs";

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.mount, self.number.0)
    }
}

impl std::str::FromStr for Stamp {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (mount, number) = text.split_once('-').ok_or(())?;
        let mount = MountId(u64::from_str_radix(mount, 16).map_err(|_| ())?);
        Ok(Self {
            mount,
            number: Seq(number.parse().map_err(|_| ())?),
        })
    }
}
