//! skeleton
mod record;
pub use record::{Change, Record, Refusal, SentObject};
