//! What has a name: bytes, and which of them are those of a version in the bucket.

/// The mode of what says nothing of it, by the tests' configuration.
pub(super) const FILE_MODE: u32 = 0o644;
pub(super) const DIR_MODE: u32 = 0o755;

/// What a node is, with what is read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    File(Vec<u8>),
    Link(Vec<u8>),
    Dir,
}

/// Something that has a name, or is open.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) mode: u32,
    /// As utimensat(2) set it, until the next write.
    pub(super) mtime: Option<i64>,
    /// The bytes that were acknowledged last.
    pub(super) acked: Option<Vec<u8>>,
    /// Written to since.
    pub(super) is_dirty: bool,
    /// It took a name away from another before any of its bytes were acknowledged.
    pub(super) over_another: bool,
    /// What of it is in the bucket.
    pub(super) origin: Origin,
}

impl Node {
    pub(super) fn new(body: Body) -> Self {
        let origin = Origin {
            kept: match &body {
                Body::File(bytes) | Body::Link(bytes) => vec![false; bytes.len()],
                Body::Dir => Vec::new(),
            },
            ..Origin::default()
        };
        Self {
            body,
            mode: FILE_MODE,
            mtime: None,
            acked: None,
            is_dirty: false,
            over_another: false,
            origin,
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::File(bytes) | Body::Link(bytes) => bytes.len(),
            Body::Dir => 0,
        }
    }

    /// The bytes of a file that is being changed.
    pub(super) fn edited(&mut self) -> Option<&mut Vec<u8>> {
        self.mtime = None;
        self.is_dirty = true;
        match &mut self.body {
            Body::File(bytes) => Some(bytes),
            Body::Link(_) | Body::Dir => None,
        }
    }
}

/// Which bytes of a file are those of the version that was at a key when all was in the bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    key: String,
    len: usize,
    kept: Vec<bool>,
    /// Something was sent since, or copied: that cannot be told here.
    pub(super) is_unsure: bool,
}

/// What a change is to the version it was made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A content of its own.
    Whole,
    /// An append, or an edit in place.
    BuildsOn,
    /// Mode and times, or a shorter length: theirs may stay.
    Metadata,
    /// One of these.
    Unsure,
}

impl Origin {
    pub(super) fn of(key: &str, len: usize) -> Self {
        Self {
            key: key.into(),
            len,
            kept: vec![true; len],
            ..Self::default()
        }
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.kept.resize(len, false);
    }

    pub(super) fn replace(&mut self, at: usize, len: usize) {
        self.kept[at..at + len].fill(false);
    }

    /// Whether any of its bytes are a version's.
    pub(super) fn is_any(&self) -> bool {
        self.is_unsure || self.kept.contains(&true)
    }

    /// What the change at `key` is.
    pub(super) fn change(&self, key: &str) -> Change {
        // Cut short, nothing in it was written here either.
        let is_whole = self.kept.len() <= self.len && !self.kept.contains(&false);
        match () {
            () if self.is_unsure => Change::Unsure,
            // There is nothing of ours in it.
            () if self.kept.is_empty() => Change::Metadata,
            () if self.key != key => Change::Whole,
            () if is_whole => Change::Metadata,
            () if self.kept.contains(&true) => Change::BuildsOn,
            () => Change::Whole,
        }
    }
}
