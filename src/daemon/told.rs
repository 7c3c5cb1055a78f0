//! What a mount tells of itself, from those who know it.
//!
//! Invariants: nobody is waited for and nothing is sent, so it is told while the bucket hangs; lists of
//! names are bounded.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::status::{self, LastError, Partial, Refused, Sending, Status};
use super::{Gate, Inner};
use crate::net::LinkState;

/// Names of a list.
pub(super) const NAMES_MAX: usize = 100;

/// How a mount is now.
pub(super) fn status(of: &Inner) -> Status {
    let mut told = Status {
        source: of.source.clone(),
        dir: of.dir.to_string_lossy().into_owned(),
        pid: std::process::id(),
        mounted_seconds: of.since.elapsed().as_secs(),
        spool: of.spool.to_string_lossy().into_owned(),
        covered: of.covered.clone(),
        lost: of.core.lost.iter().take(NAMES_MAX).cloned().collect(),
        identity: of.core.log.identity().map(|it| it.to_string()),
        stale_answers: of.core.fs.stale_answers(),
        ..Status::default()
    };
    tell_link(of, &mut told);
    tell_queue(of, &mut told);
    tell_disk(of, &mut told);
    told
}

fn tell_link(of: &Inner, told: &mut Status) {
    let net = &of.world.net;
    let (link, wire) = (net.link(), net.meter().totals());
    let closed = status::Closed(of.world.closed.as_ref().map(Gate::standing));
    told.link = status::link_in_words(
        of.interface.as_deref(),
        link.state(),
        &link.history(),
        Instant::now(),
    );
    told.interface.clone_from(&of.interface);
    told.link_up = match link.state() {
        LinkState::Up => Some(true),
        LinkState::Down | LinkState::Absent => Some(false),
        LinkState::Unknown => None,
    };
    told.addresses = link.addresses().iter().map(ToString::to_string).collect();
    told.lease_seconds = of.world.leases.left().map(|left| left.as_secs());
    told.stopped = of.world.identity.stopped().or_else(|| closed.stops());
    told.closed = closed.to_string();
    told.sent_bytes = wire.up;
    told.received_bytes = wire.down;
    told.rate = net.meter().rate_up();
    told.requests = of.world.counters.counts().total();
    told.versioned = of.world.versioned.load(Ordering::Relaxed);
}

fn tell_queue(of: &Inner, told: &mut Status) {
    let queue = of.drain.status();
    told.pending = queue.waiting as u64;
    told.pending_files = queue.waiting_files as u64;
    told.pending_bytes = queue.waiting_bytes;
    told.resent_bytes = queue.resent_bytes;
    told.oldest_seconds = queue.oldest_age.map(|age| age.as_secs());
    told.in_flight = queue.in_flight as u64;
    let sending = queue.flights.into_iter().map(|one| Sending {
        name: one.name,
        bytes: one.bytes,
        sent: one.sent,
    });
    told.sending = sending.take(NAMES_MAX).collect();
    told.eta_seconds = status::eta(told.pending_bytes, &told.sending, told.rate);
    let refused = queue.refused.into_iter().take(NAMES_MAX);
    told.refused = refused.map(|(name, why)| Refused { name, why }).collect();
    told.last_error = queue.last_error.map(|(at, text)| LastError {
        text,
        seconds_ago: at.elapsed().unwrap_or_default().as_secs(),
    });
    told.conflicts = of.core.tree.pending(|all| {
        let keys = all.conflicts(of.core.log.mount_id());
        let keys = keys.into_iter().take(NAMES_MAX);
        keys.map(ToString::to_string).collect()
    });
}

fn tell_disk(of: &Inner, told: &mut Status) {
    let spool = of.core.log.spool();
    (told.spool_bytes, told.spool_max) = spool.usage();
    (told.cache_bytes, told.cache_max) = of.core.reader.cache_usage();
    let partials = spool.partials().into_iter().take(NAMES_MAX);
    let partials = partials.map(|(name, bytes)| Partial { name, bytes });
    told.partials = partials.collect();
    told.set_aside = of.core.log.set_aside();
}
