//! Whose turn it is in a directory.
//!
//! Invariant: with `Order::Dir` nothing publishes before what has a lower number in its directory and
//! still has to; removals of one batch do not wait for each other.

use std::collections::HashMap;

use super::{Busy, Order};
use crate::drain::waits::dir_of;
use crate::seeded::{self, Bug};
use crate::types::{RelKey, Seq};

/// The lowest number of each directory that still has to publish.
pub(super) struct Turns<'a> {
    order: Order,
    /// Of changes that are not in this plan's batch of removals, and of those that are.
    first: HashMap<&'a str, (Option<Seq>, Option<Seq>)>,
}

impl<'a> Turns<'a> {
    pub(super) fn of(busy: &'a Busy, order: Order) -> Self {
        let mut turns = Self {
            order,
            first: HashMap::new(),
        };
        for (key, job) in busy.keys.iter().filter(|(_, job)| !job.staging) {
            turns.wait(key, job.number);
        }
        turns
    }

    pub(super) fn wait(&mut self, key: &'a RelKey, number: Seq) {
        let first = &mut self.first.entry(dir_of(key)).or_default().0;
        *first = Some(first.map_or(number, |old| old.min(number)));
    }

    pub(super) fn batched(&mut self, key: &'a RelKey, number: Seq) {
        let first = &mut self.first.entry(dir_of(key)).or_default().1;
        *first = Some(first.map_or(number, |old| old.min(number)));
    }

    /// Whether an earlier one of the directory goes first.
    pub(super) fn blocks(&self, key: &RelKey, number: Seq, batchable: bool) -> bool {
        let Some((other, batch)) = self.first.get(dir_of(key)) else {
            return false;
        };
        if seeded::is(Bug::OrderNotKept) {
            return false;
        }
        let is_before = |first: &Option<Seq>| first.is_some_and(|first| first < number);
        self.order == Order::Dir && (is_before(other) || (!batchable && is_before(batch)))
    }
}
