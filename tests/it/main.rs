//! Integration tests, in one target.

mod contract;
