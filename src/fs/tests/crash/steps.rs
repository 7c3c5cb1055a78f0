//! Every step of the protocol between the disk, the log and the bucket, in one table.
//!
//! A run may be cut off before and after each of them (`fs/tests/crash.rs` does so); a step that is
//! not in here is a change of the protocol and fails the tests, and so does one that never happens.

use std::path::Path;

use super::device::Event;
use crate::store::Op;

/// What is done, and what holds once it is.
pub(super) const STEPS: &[(&str, &str)] = &[
    ("spool: make a folder", "the spool's own folders are there"),
    (
        "spool: flush the folder",
        "and stay; or the binding has its name",
    ),
    ("lock: empty", "nothing is known of the run that begins"),
    ("lock: write", "who runs, or that it ended clean"),
    (
        "binding: remove the old draft",
        "none is left of a start that was cut off",
    ),
    ("binding: create", "under a name that nobody reads"),
    ("binding: write", "whose spool it is"),
    ("binding: flush", "before it gets its name"),
    (
        "binding: rename",
        "the old one or the new one is there, whole",
    ),
    ("log: create", "a blank segment, made in advance"),
    ("log: allocate", "room that no append needs a flush for"),
    (
        "log: flush the folder",
        "its name stays; or the removal of one does",
    ),
    ("log: write a header", "the segment is begun"),
    (
        "log: write a record",
        "a change is made, and not yet acknowledged",
    ),
    ("log: flush", "it is acknowledged, with all before it"),
    ("log: cut", "what was allocated and not needed, or is torn"),
    (
        "log: remove",
        "a segment of which nothing is needed any more",
    ),
    (
        "log: write anew",
        "what may not have been flushed by the run before, beside the old one",
    ),
    ("log: rename", "and takes its name"),
    ("data: create", "an empty data file, made in advance"),
    (
        "data: flush the folder",
        "its name stays; before records that name files go, so do they",
    ),
    ("data: write", "bytes of a draft"),
    (
        "data: flush",
        "before the record that names them is appended",
    ),
    (
        "data: remove",
        "a file that nothing names, after the record that made it so is flushed",
    ),
    (
        "partial: write a note",
        "for which name the bytes were written; flushed before they are moved",
    ),
    ("partial: rename", "bytes that no seal named are kept aside"),
    ("partial: flush the folder", "and stay there"),
    ("send: PutObject", "an object appears whole"),
    ("send: CreateMultipartUpload", "parts may follow"),
    ("send: UploadPart", "a part is there, and nothing shows"),
    (
        "send: UploadPartCopy",
        "a part is there, without its bytes being sent",
    ),
    ("send: CompleteMultipartUpload", "an object appears whole"),
    ("send: DeleteObject", "an object goes"),
    ("send: CopyObject", "an object's metadata change"),
];

/// Requests that change nothing: a run that is cut off there is one that is cut off a moment before.
pub(super) const QUESTIONS: [&str; 4] = [
    "send: HeadObject",
    "send: ListObjectsV2",
    "send: GetObject",
    "send: ListParts",
];

/// Which step an event is; `None`: none of the protocol (a mark of the test's own).
pub(super) fn step_of(event: &Event) -> Option<String> {
    let (verb, path) = match event {
        Event::Acknowledged | Event::FlushFailed(_) => return None,
        Event::Sends(op) | Event::Sent(op, _) => return Some(format!("send: {}", name(*op))),
        Event::MakeDir(path) => ("make a folder", path),
        Event::Create(path) => ("create", path),
        Event::Write(path, 0, _) if in_folder(path, "log") => ("write a header", path),
        Event::Write(path, ..) if in_folder(path, "log") => ("write a record", path),
        Event::Write(path, ..) => ("write", path),
        Event::Flush(path) => ("flush", path),
        Event::FlushDir(path) => return Some(format!("{}: flush the folder", folder(path))),
        Event::Allocate(path, _) => ("allocate", path),
        Event::Truncate(path, _) if path.ends_with("lock") => ("empty", path),
        Event::Truncate(path, _) => ("cut", path),
        Event::Rename(_, to) => ("rename", to),
        Event::Link(_, to) => ("link", to),
        Event::Remove(path) => ("remove", path),
    };
    let file = path.file_name()?.to_str()?;
    Some(match verb {
        "make a folder" => "spool: make a folder".into(),
        "remove" if file == "binding.tmp" => "binding: remove the old draft".into(),
        _ if file.starts_with("binding") => format!("binding: {verb}"),
        _ if file == "lock" => format!("lock: {verb}"),
        _ if in_folder(path, "log") && is_draft(path) => "log: write anew".into(),
        _ if in_folder(path, "partial") && file.contains(".json") => "partial: write a note".into(),
        _ => format!("{}: {verb}", folder(path.parent()?)),
    })
}

fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "tmp")
}

fn in_folder(path: &Path, name: &str) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with(name))
}

fn folder(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default().to_owned()
}

fn name(op: Op) -> String {
    op.to_string()
}
