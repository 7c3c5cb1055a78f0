//! What was met at a key instead of the believed version, and what becomes of what is wanted
//! there: pure functions.
//!
//! Invariant: bytes that build on an old version never replace a newer one, and what was written
//! here is never lost: it stays wanted at the key, or at a sibling.

use super::pieces::candidate;
use crate::seeded::{self, Bug};
use crate::tree::Pending;
use crate::types::{
    Attrs, Base, Generation, Headers, Kind, MountId, NAME_MAX, ObjectId, ObjectMeta, RelKey,
    RelPath, STAMP_KEY, Seq, Source, Stamp, Want,
};

/// Where what is set aside goes, and how long a key may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideRules {
    /// Below this folder of the mount, at its own path; `None`: beside what it would have replaced.
    pub folder: Option<RelPath>,
    /// Bytes of a key below the mount's prefix.
    pub key_max: usize,
}

impl Default for AsideRules {
    fn default() -> Self {
        Self {
            folder: None,
            key_max: KEY_MAX,
        }
    }
}

/// What happens to a whole new content when somebody else changed the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// It replaces the other version, counted.
    #[default]
    LastWriter,
    /// It becomes a sibling.
    KeepBoth,
}

/// S3: bytes of a key.
const KEY_MAX: usize = 1024;
/// Bytes of a name that a sibling's begins with at least.
const TOLD_MIN: usize = 16;
/// The longest ending that is taken for an extension.
const EXTENSION_MAX: usize = 16;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what was wanted: an answer was lost.
    Sent,
    /// Nothing is there, as wanted.
    Removed,
    /// It is an earlier generation of ours, whose answer was lost.
    Earlier(Seq),
    /// Try again over this.
    Over(Base),
    /// What is wanted goes to a sibling; this stays.
    Aside(Base),
    /// The metadata is set again, on this version's bytes.
    Reapply,
    /// A removal is dropped: somebody wrote there since.
    Spared,
    /// The believed version is there although the precondition was refused.
    GuardRefused,
}

/// The stamp in a version's metadata.
pub(super) fn stamp_of(met: &ObjectMeta) -> Option<Stamp> {
    let headers = met.headers.as_ref()?;
    headers.metadata.get(STAMP_KEY)?.parse().ok()
}

/// Decides. `met`: what HEAD told; `None`: nothing is there.
pub(super) fn verdict(
    key: &RelKey,
    pending: &Pending,
    met: Option<&ObjectMeta>,
    mount: MountId,
    policy: ConflictPolicy,
) -> Verdict {
    let is_removal = pending.want == Want::Gone;
    let Some(met) = met else {
        return match is_removal {
            true => Verdict::Removed,
            false => Verdict::Over(Base::Absent),
        };
    };
    let base = Base::Version(met.id.etag.clone());
    if let Some(number) = own_number(met, mount) {
        if number == pending.number && !is_removal {
            return Verdict::Sent;
        }
        if base != pending.base && number < pending.number {
            return Verdict::Earlier(number);
        }
    }
    if base == pending.base {
        return Verdict::GuardRefused;
    }
    match &pending.want {
        Want::Gone => Verdict::Spared,
        Want::Object(generation) => over_a_stranger(key, generation, &pending.base, met, policy),
        Want::Open { .. } => Verdict::Over(base),
    }
}

fn own_number(met: &ObjectMeta, mount: MountId) -> Option<Seq> {
    let stamp = stamp_of(met)?;
    let is_ours = stamp.mount == mount || seeded::is(Bug::StrangerIsAnEcho);
    (is_ours && !seeded::is(Bug::EchoIsAStranger)).then_some(stamp.number)
}

fn over_a_stranger(
    key: &RelKey,
    generation: &Generation,
    old: &Base,
    met: &ObjectMeta,
    policy: ConflictPolicy,
) -> Verdict {
    let base = Base::of(Some(&met.id));
    let builds_on = |piece: &crate::types::Extent| match &piece.from {
        Source::Remote { object, .. } => object.key.as_str() == key.as_str(),
        Source::Local { .. } => false,
    };
    if key.is_dir() {
        // A marker is its metadata; what somebody keeps in one is not ours to replace.
        match met.size {
            0 => Verdict::Over(base),
            _ => Verdict::Reapply,
        }
    } else if is_only_metadata(key, generation, old) || generation.len == 0 {
        // Of an empty file nothing is lost if theirs stays, which it may be older than.
        Verdict::Reapply
    } else if (generation.extents.iter().any(builds_on) && !seeded::is(Bug::AppendOverStranger))
        || policy == ConflictPolicy::KeepBoth
    {
        Verdict::Aside(base)
    } else {
        Verdict::Over(base)
    }
}

/// Whether a content is a version of its key, whole (as far as can be seen), with other metadata.
pub(super) fn is_only_metadata(key: &RelKey, generation: &Generation, base: &Base) -> bool {
    let is_base = |version: &ObjectId| {
        version.key.as_str() == key.as_str() && Base::of(Some(version)) == *base
    };
    candidate(generation).is_some_and(is_base)
}

/// Metadata set here, put on a version that somebody else wrote: what it is, its content's time and
/// its headers stay, and its mode where it is something else than it was.
pub(super) fn reapplied(ours: &Attrs, theirs: &Headers) -> Attrs {
    let theirs = Attrs::from_headers(theirs, ours.kind == Kind::Dir);
    let ours = Attrs {
        kind: theirs.kind,
        mode: ours.mode.filter(|_| ours.kind == theirs.kind),
        mtime: theirs.mtime.or(ours.mtime),
        headers: theirs.headers.clone(),
        ..ours.clone()
    };
    ours.over(&theirs)
}

/// The sibling that keeps what was written here: `NAME.conflict-MOUNTID-TIME.EXT`, beside it or in the
/// folder for such. Where the path leaves no room for that, the name is shorter, or it lies less deep.
pub(super) fn sibling(
    key: &RelKey,
    mount: MountId,
    epoch_secs: u64,
    rules: &AsideRules,
) -> Option<RelKey> {
    let path = key.path();
    let name = path.name()?;
    let name = name.as_str();
    let (stem, extension) = match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= EXTENSION_MAX => name.split_at(at),
        _ => (name, ""),
    };
    let mark = format!(".conflict-{mount}-{}{extension}", utc(epoch_secs));
    let own = path.parent()?.dir_prefix();
    let folder = rules.folder.as_ref().map(RelPath::dir_prefix);
    // Edited once more, what was set aside is there already.
    let folder = folder.filter(|folder| !own.starts_with(folder));
    let within = folder.as_ref().map(|folder| format!("{folder}{own}"));
    let dirs = within.into_iter().chain(folder).chain([own, String::new()]);
    dirs.into_iter().find_map(|dir| {
        let room = rules.key_max.checked_sub(dir.len() + mark.len())?;
        let mut fits = stem.len().min(NAME_MAX - mark.len()).min(room);
        while !stem.is_char_boundary(fits) {
            fits -= 1;
        }
        // So much of the name stays that it can be told.
        let is_told = fits >= stem.len().min(TOLD_MIN);
        let key = || RelKey::parse(&format!("{dir}{}{mark}", &stem[..fits]));
        is_told.then(key).flatten()
    })
}

/// `YYYYMMDDTHHMMSSZ`.
fn utc(epoch_secs: u64) -> String {
    let (days, secs) = (epoch_secs / 86_400, epoch_secs % 86_400);
    // Days are counted from 1 March of a year that a leap cycle of 400 years begins with.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{secs:02}Z")
}

#[cfg(test)]
mod tests;
