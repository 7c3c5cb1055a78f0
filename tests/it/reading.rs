//! Reading through real mounts: what it costs, what it survives, what it never shows.

mod bad_cache;
mod bars;
mod fetched;
mod history;
mod offline;
mod pinned;
mod refreshed;
