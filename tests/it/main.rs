//! The tests that need more than one module: real mounts, real servers, exact bars.
#![allow(clippy::unwrap_used)]

mod architecture;
mod bad_credentials;
mod bad_input;
mod bars;
mod closed;
mod contract;
mod corpus;
mod credentials;
mod demo;
mod doctor;
mod early;
mod figures;
mod fstab;
mod full;
mod harness;
mod identity;
mod killed;
mod logged;
mod names;
mod packaging;
mod peers;
mod reading;
mod readme;
mod rescue;
mod restart;
mod running;
mod secrets;
mod servers;
mod service;
mod shell;
mod side_by_side;
mod status;
mod suites;
mod topology;
mod unclosed;
