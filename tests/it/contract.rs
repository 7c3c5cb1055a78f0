//! The contract of `ObjectStore`: one list of cases for the twin, the decorators and every server.
//!
//! `run` puts all it writes under a prefix of its own, so that runs may share a bucket. What a
//! server is known not to honour is said by `Caps`; cases that need it are left out for it.
#![allow(clippy::unwrap_used)]

mod kit;
mod listings;
mod reads;
mod uploads;
mod writes;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kryptonfs::store::ObjectStore;
use kryptonfs::store::fault::Fault;
use kryptonfs::store::limit::{self, Limit};
use kryptonfs::store::prefix::Prefix;
use kryptonfs::store::retry::{self, Retry};
use kryptonfs::store::twin::Twin;

use self::kit::Kit;
use self::listings::*;
use self::reads::*;
use self::uploads::*;
use self::writes::*;

/// What a server honours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// PutObject with `If-None-Match: *`.
    pub(crate) put_if_absent: bool,
    /// PutObject with `If-Match`.
    pub(crate) put_if_match: bool,
    /// CompleteMultipartUpload with either.
    pub(crate) complete_conditions: bool,
    /// DeleteObject with `If-Match`.
    pub(crate) delete_if_match: bool,
    /// DeleteObjects with an ETag for each key.
    pub(crate) batch_if_match: bool,
    /// CopyObject and UploadPartCopy with `x-amz-copy-source-if-match`.
    pub(crate) copy_if_match: bool,
    /// CRC-64/NVME is verified.
    pub(crate) checksums: bool,
    /// The CRC-64/NVME of the object that parts make is verified.
    pub(crate) whole_checksums: bool,
    /// Parts below 5 MiB are refused.
    pub(crate) part_minimum: bool,
    /// A part sent again replaces the one before in ListParts.
    pub(crate) parts_replaced: bool,
    /// A Complete may leave out parts that were uploaded.
    pub(crate) unnamed_parts: bool,
    /// CompleteMultipartUpload of an upload that is gone says so (and is not "in progress").
    pub(crate) complete_tells_gone: bool,
    /// Keys are strings ordered by bytes, not paths of a tree.
    pub(crate) flat_keys: bool,
}

impl Caps {
    /// As S3: the twin, the simulated cloud.
    pub(crate) const fn all() -> Self {
        Self {
            put_if_absent: true,
            put_if_match: true,
            complete_conditions: true,
            delete_if_match: true,
            batch_if_match: true,
            copy_if_match: true,
            checksums: true,
            whole_checksums: true,
            part_minimum: true,
            parts_replaced: true,
            unnamed_parts: true,
            complete_tells_gone: true,
            flat_keys: true,
        }
    }

    /// SeaweedFS 4.48: keys are paths, a backslash is a slash, ListParts shows replaced parts too.
    #[allow(dead_code)]
    pub(crate) const fn seaweedfs() -> Self {
        Self {
            whole_checksums: false,
            parts_replaced: false,
            flat_keys: false,
            ..Self::all()
        }
    }

    /// Ceph RGW 16.2: it refuses every PUT with `If-Match`.
    #[allow(dead_code)]
    pub(crate) const fn radosgw() -> Self {
        Self {
            put_if_match: false,
            complete_conditions: false,
            delete_if_match: false,
            batch_if_match: false,
            copy_if_match: false,
            checksums: false,
            whole_checksums: false,
            unnamed_parts: false,
            complete_tells_gone: false,
            ..Self::all()
        }
    }

    /// Garage 2.5: it ignores the conditions of all writes.
    #[allow(dead_code)]
    pub(crate) const fn garage() -> Self {
        Self {
            put_if_absent: false,
            put_if_match: false,
            complete_conditions: false,
            delete_if_match: false,
            batch_if_match: false,
            whole_checksums: false,
            part_minimum: false,
            ..Self::all()
        }
    }
}

macro_rules! run_all {
    ($kit:ident; $($case:ident)*) => {$(
        eprintln!("contract: {}", stringify!($case).replace('_', " "));
        $case(&$kit).await;
    )*};
}

/// Runs every case on `store`, below a prefix that no other run uses.
pub(crate) async fn run(store: Arc<dyn ObjectStore>, caps: Caps) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let prefix = format!("contract-{}-{}", std::process::id(), now.as_nanos());
    let store: Arc<dyn ObjectStore> = Prefix::over(store, &prefix);
    let kit = Kit { store, caps };
    run_all!(kit;
        an_object_comes_back_whole_with_its_version
        a_range_is_cut_to_the_object
        a_read_of_another_version_is_stale
        a_head_of_the_same_version_is_not_modified
        an_absent_key_is_not_found
        an_empty_object_is_an_object
        metadata_comes_back_whatever_its_letters
        odd_keys_are_keys
        a_key_may_begin_another
        a_listing_comes_in_pages
        a_listing_folds_directories
        a_listing_starts_behind_a_key
        a_listing_is_ordered_by_bytes
        a_marker_holds_metadata
        a_conditional_put_sees_what_is_there
        of_racing_creates_one_wins
        a_payload_is_read_in_frames
        damaged_bytes_are_refused
        a_failing_disk_is_told_from_a_failing_link
        parts_become_one_object
        parts_may_be_copied_from_a_version
        a_conditional_complete_sees_what_is_there
        an_upload_that_is_gone_is_told
        a_wrong_or_small_part_is_refused
        an_object_of_another_checksum_is_refused
        a_copy_takes_new_metadata
        a_copy_onto_itself_changes_metadata
        a_copy_of_another_version_is_stale
        a_delete_may_be_repeated
        a_conditional_delete_sees_what_is_there
        a_batch_deletes_what_it_names
        a_conditional_batch_sees_what_is_there
    );
}

#[tokio::test]
async fn the_twin_keeps_the_contract() {
    run(Arc::new(Twin::new()), Caps::all()).await;
}

#[tokio::test]
async fn the_decorated_twin_keeps_the_contract() {
    let twin = Twin::new();
    let (store, fault) = Fault::over(Arc::new(twin.clone()));
    let store = Limit::over(store, &limit::Config::default());
    let soon = retry::Config {
        longest_wait: Duration::from_millis(1),
        ..retry::Config::default()
    };
    let store = Retry::over(store, soon);
    run(Prefix::over(store, "below/this"), Caps::all()).await;
    assert_eq!(fault.pending(), 0);
    assert!(twin.keys().iter().all(|key| key.starts_with("below/this/")));
    assert!(!twin.keys().is_empty());
}
