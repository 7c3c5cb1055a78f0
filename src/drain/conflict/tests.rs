use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::types::{ETag, Extent, Extents, FileNo, ObjectKey, Time};

const OURS: MountId = MountId(7);

fn key(text: &str) -> RelKey {
    RelKey::parse(text).unwrap()
}

fn version(etag: &str) -> ObjectId {
    ObjectId {
        key: ObjectKey::new("k"),
        etag: ETag::new(etag),
    }
}

fn base(etag: &str) -> Base {
    Base::Version(ETag::new(etag))
}

/// Change 5 at `k`, over version `old`.
fn pending(want: Want) -> Pending {
    Pending {
        number: Seq(5),
        position: Seq(5),
        want,
        base: base("old"),
        since: Instant::now(),
        unsent_since: Instant::now(),
        was_closed: false,
        held: false,
        urgent: false,
        over_gone: false,
        seen: None,
        begun: true,
        staged: None,
        uploading: None,
        stamp: None,
        dead: None,
    }
}

fn object(extents: Extents, len: u64) -> Want {
    Want::Object(Arc::new(Generation {
        extents,
        len,
        attrs: Attrs::default(),
    }))
}

fn replaced() -> Pending {
    let mut extents = Extents::default();
    extents.put(Extent {
        at: 0,
        len: 10,
        from: Source::Local {
            file: FileNo(1),
            offset: 0,
        },
    });
    pending(object(extents, 10))
}

fn appended() -> Pending {
    let mut entry = replaced();
    let Want::Object(generation) = &entry.want else {
        panic!("a content")
    };
    let mut extents = Extents::whole(version("old"), 6);
    extents.splice(6, 10, &generation.extents);
    entry.want = object(extents, 16);
    entry
}

fn touched() -> Pending {
    pending(object(Extents::whole(version("old"), 6), 6))
}

fn met(etag: &str, stamp: Option<(MountId, u64)>) -> ObjectMeta {
    let mut headers = Headers::default();
    if let Some((mount, number)) = stamp {
        let number = Seq(number);
        let stamp = Stamp { mount, number }.to_string();
        headers.metadata.insert(STAMP_KEY.into(), stamp);
    }
    ObjectMeta {
        id: version(etag),
        size: 6,
        modified: 0,
        headers: Some(headers),
    }
}

fn judged(entry: &Pending, met: Option<ObjectMeta>) -> Verdict {
    let policy = ConflictPolicy::LastWriter;
    verdict(&key("k"), entry, met.as_ref(), OURS, policy)
}

#[test]
fn our_own_stamp_means_that_an_answer_was_lost() {
    let lost = Some(met("new", Some((OURS, 5))));
    assert_eq!(judged(&appended(), lost.clone()), Verdict::Sent);
    let removal = pending(Want::Gone);
    assert_ne!(judged(&removal, lost), Verdict::Sent);
}

#[test]
fn an_earlier_generation_of_ours_is_known_as_such_and_no_conflict() {
    let earlier = Some(met("new", Some((OURS, 4))));
    for entry in [appended(), touched(), replaced(), pending(Want::Gone)] {
        assert_eq!(judged(&entry, earlier.clone()), Verdict::Earlier(Seq(4)));
    }
}

#[test]
fn a_stamp_of_another_mount_or_of_a_later_number_is_a_strangers() {
    for stamp in [(MountId(8), 5), (MountId(8), 4), (OURS, 6)] {
        let verdict = judged(&appended(), Some(met("new", Some(stamp))));
        assert_eq!(verdict, Verdict::Aside(base("new")));
    }
}

#[test]
fn what_builds_on_the_base_never_replaces_a_strangers_version() {
    let stranger = Some(met("new", None));
    assert_eq!(judged(&appended(), stranger), Verdict::Aside(base("new")));
}

#[test]
fn a_whole_replacement_follows_the_policy() {
    let stranger = met("new", None);
    let over = Verdict::Over(base("new"));
    assert_eq!(judged(&replaced(), Some(stranger.clone())), over);
    let policy = ConflictPolicy::KeepBoth;
    let kept = verdict(&key("k"), &replaced(), Some(&stranger), OURS, policy);
    assert_eq!(kept, Verdict::Aside(base("new")));
}

#[test]
fn changed_metadata_is_put_on_the_strangers_bytes() {
    let stranger = Some(met("new", None));
    assert_eq!(judged(&touched(), stranger), Verdict::Reapply);
}

#[test]
fn a_removal_spares_what_a_stranger_wrote() {
    let removal = pending(Want::Gone);
    assert_eq!(judged(&removal, Some(met("new", None))), Verdict::Spared);
    assert_eq!(judged(&removal, None), Verdict::Removed);
}

#[test]
fn what_a_stranger_removed_is_made_anew() {
    assert_eq!(judged(&replaced(), None), Verdict::Over(Base::Absent));
}

#[test]
fn a_refused_guard_over_the_believed_version_is_the_servers_fault() {
    for entry in [appended(), touched(), replaced(), pending(Want::Gone)] {
        assert_eq!(
            judged(&entry, Some(met("old", None))),
            Verdict::GuardRefused
        );
        let ours = Some(met("old", Some((OURS, 3))));
        assert_eq!(judged(&entry, ours), Verdict::GuardRefused);
    }
}

#[test]
fn metadata_that_is_set_again_leaves_the_time_and_headers_of_the_new_content() {
    let old = Headers::default();
    let ours = Attrs {
        mode: Some(0o600),
        mtime: Some(Time { secs: 1, nanos: 0 }),
        headers: Some(old),
        ..Attrs::default()
    };
    let mut theirs = Headers {
        content_type: Some("image/png".into()),
        ..Headers::default()
    };
    theirs.metadata.insert("mtime".into(), "9".into());
    theirs.metadata.insert("uid".into(), "3".into());
    let attrs = reapplied(&ours, &theirs);
    assert_eq!((attrs.mode, attrs.uid), (Some(0o600), Some(3)));
    assert_eq!(attrs.mtime.map(|time| time.secs), Some(9));
    let headers = attrs.to_headers();
    assert_eq!(headers.content_type.as_deref(), Some("image/png"));
}

#[test]
fn a_sibling_keeps_directory_and_extension_and_says_who_and_when() {
    let time = 1_709_210_096; // 29 February 2024
    let rules = AsideRules::default();
    let named = |text: &str| {
        let sibling = sibling(&key(text), OURS, time, &rules);
        sibling.unwrap().to_string()
    };
    let mark = ".conflict-0000000000000007-20240229T123456Z";
    assert_eq!(named("d/photo.jpg"), format!("d/photo{mark}.jpg"));
    assert_eq!(named("notes"), format!("notes{mark}"));
    assert_eq!(named("d/.bashrc"), format!("d/.bashrc{mark}"));
    assert_eq!(named("x.tar.gz"), format!("x.tar{mark}.gz"));
}

#[test]
fn a_sibling_of_a_long_name_fits_and_cuts_no_character_in_two() {
    let long = format!("{}.jpg", "日".repeat(83));
    let sibling = sibling(&key(&long), OURS, 0, &AsideRules::default()).unwrap();
    let name = sibling.path().name().unwrap();
    assert!(name.as_str().len() <= NAME_MAX);
    assert!(name.as_str().ends_with("-19700101T000000Z.jpg"));
}

#[test]
fn siblings_go_to_the_folder_for_them_at_their_own_path() {
    let rules = AsideRules {
        folder: Some(RelPath::new("aside/here").unwrap()),
        ..AsideRules::default()
    };
    let named = |text: &str| {
        let sibling = sibling(&key(text), OURS, 0, &rules);
        sibling.unwrap().to_string()
    };
    let mark = ".conflict-0000000000000007-19700101T000000Z";
    assert_eq!(named("d/a.jpg"), format!("aside/here/d/a{mark}.jpg"));
    assert_eq!(named("a"), format!("aside/here/a{mark}"));
    let again = named("aside/here/d/a.jpg");
    assert_eq!(again, format!("aside/here/d/a{mark}.jpg"));
}

#[test]
fn a_sibling_fits_in_a_key_however_deep_its_file_lies() {
    for len in [900, 950, 980, 1000, 1020] {
        let dir = "d234567890/".repeat(len / 11);
        let name = "n".repeat(len - dir.len());
        let rules = AsideRules {
            folder: Some(RelPath::new("aside").unwrap()),
            key_max: 1000,
        };
        let sibling = sibling(&key(&format!("{dir}{name}.jpg")), OURS, 0, &rules).unwrap();
        assert!(sibling.as_str().len() <= 1000, "{sibling}");
        let told = sibling.path().name().unwrap();
        assert!(told.as_str().starts_with('n') && told.as_str().ends_with("Z.jpg"));
    }
}

#[test]
fn dates_are_right_around_leap_days_and_turns_of_centuries() {
    for (secs, text) in [
        (0, "19700101T000000Z"),
        (951_782_399, "20000228T235959Z"),
        (951_782_400, "20000229T000000Z"),
        (951_868_800, "20000301T000000Z"),
        (4_107_542_399, "21000228T235959Z"),
        (4_107_542_400, "21000301T000000Z"),
        (1_767_225_599, "20251231T235959Z"),
    ] {
        assert_eq!(utc(secs), text);
    }
}
