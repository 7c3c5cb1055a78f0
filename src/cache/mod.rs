//! Blocks of versions on disk: losing them costs time, never data.
