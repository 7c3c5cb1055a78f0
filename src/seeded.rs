//! Bugs that are put in on purpose, one at a time: the proof that the tests would see them.
//!
//! Invariants:
//! - only the test program of a build with `--features seeded-bugs` has them. Everywhere else `is`
//!   is a constant `false`, which the compiler proves below, and nothing of them is left;
//! - each is one that would lose, tear, mix or publish bytes, or waste requests, and names the test
//!   that has to fail with it. `tests.rs` runs each of these, with and without the bug.

/// Makes the type of the bugs, and the list that the tests go through.
macro_rules! bugs {
    ($(#[doc = $what:literal] $bug:ident => $test:literal,)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $(#[doc = $what] $bug,)*
        }

        /// Each with what it does, and the test that catches it.
        #[cfg(all(test, feature = "seeded-bugs"))]
        const ALL: &[(Bug, &str, &str)] = &[$((Bug::$bug, $what, $test),)*];
    };
}

bugs! {
    /// log: a flush of the log does nothing
    LogFlushSkipped => "log::tests::power::after_a_power_cut_at_any_step_all_acknowledged_is_there_and_no_record_without_the_ones_before",
    /// log: it says that a record is durable, and nobody has flushed it
    AcknowledgedUnflushed => "fs::tests::crash::a_power_cut_at_any_moment_loses_nothing_acknowledged_and_tears_nothing",
    /// log: a flush that failed passes for done
    FailedLogFlushIsDone => "log::tests::faults::once_a_flush_failed_nothing_is_acknowledged_any_more",
    /// log: what a failed flush left in the kernel's memory passes for durable at the next start
    FailedFlushNotMended => "log::tests::faults::what_a_failed_flush_may_not_have_written_is_written_anew_at_the_next_start",
    /// log: half of a record whose write failed stays
    HalfRecordStays => "log::tests::faults::an_append_that_failed_leaves_nothing_behind",
    /// log: what comes behind a torn record is accepted
    TornTailAccepted => "log::tests::power::a_torn_tail_is_kept_and_cut_so_that_nothing_of_it_comes_back",
    /// log: a record's checksum is not compared
    RecordChecksumIgnored => "log::frame::tests::a_flipped_bit_anywhere_makes_one_frame_bad_and_no_other",
    /// log: a newer format is taken for damage of this one
    NewerFormatTaken => "log::tests::life::a_newer_segment_is_refused_before_anything_is_replayed_or_changed",
    /// log: a position that was lost in a power cut is given out again
    PositionGivenTwice => "log::tests::life::a_position_is_never_given_out_again_even_if_its_record_was_lost",
    /// log: a spool with unsent changes is taken for another bucket's
    ForeignSpoolTaken => "log::bind::tests::unsent_changes_are_refused_for_another_binding_with_the_way_out",
    /// log: compaction drops segments before what replaces them is flushed
    DroppedBeforeReplaced => "fs::tests::crash::order::segments_stay_where_what_replaces_them_cannot_be_flushed",
    /// daemon: what is unsent is sent with another SIM's keys
    StrangerSigns => "daemon::identity::tests::with_something_unsent_no_lease_of_another_sim_is_given_out",
    /// disk: a file takes its name before its bytes are flushed
    RenamedBeforeData => "disk::tests::a_replaced_file_is_whole_and_flushed_before_it_gets_its_name",
    /// spool: a data file's folder is not flushed
    FolderNotFlushed => "log::tests::life::what_is_handed_out_was_in_its_flushed_folder_before",
    /// spool: once a flush of a data file failed, the next one says it is clean
    PoisonedFileIsClean => "log::tests::faults::a_data_file_whose_flush_failed_is_never_clean_again",
    /// fs: the bytes of a data file are flushed after the record that names them
    RecordBeforeData => "fs::tests::crash::order::a_close_flushes_the_bytes_then_the_record_and_answers_after_both",
    /// fs: a close does not flush its data file
    DataFlushSkipped => "fs::tests::crash::order::a_close_flushes_the_bytes_then_the_record_and_answers_after_both",
    /// fs: a close answers before its record is durable
    CloseAnswersEarly => "fs::tests::crash::order::a_close_flushes_the_bytes_then_the_record_and_answers_after_both",
    /// fs: bytes that a generation names are overwritten in place
    SealedBytesOverwritten => "fs::tests::unclosed::a_snapshot_of_a_file_that_is_rewritten_in_place_shows_one_moment",
    /// fs: no room is kept for the close of a file whose bytes were taken
    FullAtClose => "fs::tests::full::many_open_files_are_all_closed_well_once_their_bytes_were_taken",
    /// fs: the close of a process that inherited a file publishes it half-written
    InheritorPublishes => "fs::tests::unclosed::the_close_of_a_process_that_inherited_the_file_keeps_its_bytes_and_publishes_nothing",
    /// tree: a file that was never closed is published after a crash
    DraftPublished => "fs::tests::unclosed::bytes_of_a_file_that_was_never_closed_are_kept_under_its_name",
    /// tree: the data file of an unlinked file is removed while it is read
    OpenDataRemoved => "fs::tests::shared::a_file_that_was_looked_up_can_be_opened_though_its_name_was_replaced_meanwhile",
    /// tree: when an older generation was sent, the newer one passes for sent too
    NewerPassesForSent => "drain::tests::a_file_that_is_appended_to_while_it_is_sent_ends_with_all_bytes",
    /// tree: after an older generation was sent, the newer one still expects what was there before
    BaseNotMoved => "drain::tests::a_generation_that_was_sent_is_the_base_of_the_one_that_superseded_it",
    /// tree: a removal is of a version that was met when sending, and that nobody here has seen
    UnseenRemoved => "fs::tests::model::regressions::regression_what_was_met_when_sending_was_removed_by_an_unlink_that_had_not_seen_it",
    /// tree: an old answer undoes what was sent since it was asked for
    OldAnswerWins => "drain::tests::an_answer_from_before_a_file_was_sent_does_not_undo_it",
    /// tree: attributes of what was sent are kept in memory only
    AttributesForgotten => "tree::memory::tests::what_was_put_is_there_after_a_reopen_for_that_version_only",
    /// drain: our own write, whose answer was lost, is taken for a stranger's
    EchoIsAStranger => "drain::tests::a_lost_answer_is_recognized_and_nothing_is_sent_twice",
    /// drain: a stranger's write is taken for our own
    StrangerIsAnEcho => "drain::conflict::tests::a_stamp_of_another_mount_or_of_a_later_number_is_a_strangers",
    /// drain: a write goes without its precondition
    Unguarded => "drain::tests::conflicts::an_append_over_a_strangers_version_becomes_a_whole_sibling_from_the_cache",
    /// drain: an append replaces a stranger's version as a whole new content does
    AppendOverStranger => "drain::conflict::tests::what_builds_on_the_base_never_replaces_a_strangers_version",
    /// drain: a number goes out in a stamp before it is durable
    StampNotDurable => "drain::tests::a_number_that_a_power_cut_could_take_back_is_not_sent",
    /// drain: the parts of an older generation pass for those of the newer one
    OldPartsReused => "drain::tests::uploads::an_upload_that_broke_off_is_not_continued_with_other_bytes",
    /// drain: a part that S3 has is not compared with what would be sent
    PartNotCompared => "drain::tests::uploads::a_part_that_is_not_what_would_be_sent_is_sent",
    /// drain: an upload's id is not durable when its parts go
    UploadForgotten => "drain::tests::uploads::the_id_of_an_upload_is_durable_before_a_part_of_it_is_sent",
    /// drain: files of a directory appear in any order
    OrderNotKept => "drain::plan::tests::in_one_directory_publishes_go_by_number_and_directories_do_not_wait_for_each_other",
    /// drain: a rename removes the old name before the new one is there
    OldNameGoesFirst => "drain::plan::tests::a_rename_sends_the_new_name_before_the_old_one_goes",
    /// cache: a block's checksum is not compared
    BlockChecksumIgnored => "cache::tests::any_flipped_byte_is_a_miss_and_never_wrong_data",
    /// cache: a data file that the spool still has is written to
    SpoolWrittenThrough => "cache::tests::take::a_data_file_is_adopted_by_link_and_never_written_to",
}

/// Whether this bug was put in.
#[cfg(all(test, feature = "seeded-bugs"))]
pub(crate) fn is(bug: Bug) -> bool {
    tests::chosen() == Some(bug)
}

/// Whether this bug was put in: none is.
#[cfg(not(all(test, feature = "seeded-bugs")))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(not(all(test, feature = "seeded-bugs")))]
const _: () = assert!(!is(Bug::LogFlushSkipped));

#[cfg(all(test, feature = "seeded-bugs"))]
mod tests;
