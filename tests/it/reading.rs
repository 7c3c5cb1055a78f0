//! Reading through real mounts: what it costs, what it survives, what it never shows.

mod bad_cache;
mod bars;
mod fetched;
mod offline;
mod refreshed;
