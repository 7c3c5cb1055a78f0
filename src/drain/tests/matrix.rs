//! Every way to change a name here, against every way somebody else changed it meanwhile: what was
//! written here is never lost, and theirs only where `conflict=last-writer` says so.

use super::world::{World, attrs, inline, key};
use super::*;
use crate::store::Op;
use crate::types::{RelPath, Time};

const BASE: &[u8] = b"what was there before";
const THEIRS: &[u8] = b"what somebody else wrote";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Append,
    InPlace,
    Replace,
    Rename,
    Unlink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Replaced,
    Deleted,
    /// Where nothing was.
    Created,
}

const HERE: [Here; 5] = [
    Here::Append,
    Here::InPlace,
    Here::Replace,
    Here::Rename,
    Here::Unlink,
];
const THERE: [There; 3] = [There::Replaced, There::Deleted, There::Created];

#[derive(Clone, Copy, Debug)]
struct Case {
    here: Here,
    there: There,
    /// It waited without a link, and through a restart.
    offline: bool,
    conflict: ConflictPolicy,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (here, there) in HERE
        .into_iter()
        .flat_map(|here| THERE.map(|there| (here, there)))
    {
        for offline in [false, true] {
            for conflict in [ConflictPolicy::LastWriter, ConflictPolicy::KeepBoth] {
                all.push(Case {
                    here,
                    there,
                    offline,
                    conflict,
                });
            }
        }
    }
    all
}

impl World {
    fn edits(&self, at: &str) {
        let (mut extents, len) = self.visible(at);
        extents.put(inline(0, b"W"));
        let now = crate::types::Attrs {
            mtime: Some(Time { secs: 9, nanos: 0 }),
            ..attrs(0o644)
        };
        self.object(at, extents, len, now, b"W");
    }
}

impl Case {
    fn settings(self) -> Config {
        Config {
            conflict: self.conflict,
            ..World::settings()
        }
    }

    /// The key that somebody else touches.
    fn met(self) -> &'static str {
        match (self.here, self.there) {
            (Here::Rename, There::Created) => "b",
            _ => "a",
        }
    }

    /// Carries it out here; what must be found in the bucket of it.
    fn here(self, world: &World) -> Option<Vec<u8>> {
        if self.there == There::Created && self.here != Here::Rename {
            world.write("a", BASE);
        }
        match self.here {
            Here::Append => {
                world.append("a", b", and more");
                Some([BASE, b", and more"].concat())
            }
            Here::InPlace => {
                world.edits("a");
                Some([b"W", &BASE[1..]].concat())
            }
            Here::Replace => {
                world.write("a", b"all anew");
                Some(b"all anew".to_vec())
            }
            Here::Rename => {
                world.rename("a", "b");
                Some(BASE.to_vec())
            }
            Here::Unlink => {
                world.set("a", Want::Gone, &[]);
                None
            }
        }
    }

    fn there(self, world: &World) {
        match self.there {
            There::Replaced | There::Created => {
                world
                    .twin
                    .put_behind(self.met(), THEIRS, Headers::default());
            }
            There::Deleted => {
                world.twin.delete_behind("a");
            }
        }
    }

    /// Whether the policy lets a whole new content take the place of theirs.
    fn may_replace(self) -> bool {
        let is_whole = self.here == Here::Replace
            || (self.there == There::Created && self.here != Here::Unlink);
        is_whole && self.conflict == ConflictPolicy::LastWriter
    }

    async fn runs(self) {
        let mut world = World::of(Op::ListParts, self.settings());
        world.gate.lets_pass(99);
        if self.there != There::Created || self.here == Here::Rename {
            world.write("a", BASE);
            world.drained().await;
        }
        if self.offline {
            world.fault.link_down(true);
        }
        let ours = self.here(&world);
        if self.offline {
            world.drain.hurry();
            let mut failed = world.drain.answer.clone();
            // What is written and removed at once asks for nothing.
            let is_left = || world.drain.status().waiting > 0;
            while is_left() && world.drain.status().last_error.is_none() {
                failed.changed().await.unwrap();
            }
            world.log.flushed(world.tree.now()).await.unwrap();
            world = world.reboot().await;
        }
        self.there(&world);
        world.drained().await;
        self.is_right(&world, ours);
    }

    fn is_right(self, world: &World, ours: Option<Vec<u8>>) {
        assert_eq!(world.refused(), Vec::new(), "{self:?}");
        let keys = world.twin.keys();
        let has = |bytes: &[u8]| keys.iter().any(|at| world.bytes(at) == bytes);
        if let Some(ours) = ours {
            assert!(has(&ours), "{self:?}: ours is lost: {keys:?}");
        }
        if self.there != There::Deleted && !self.may_replace() {
            let met = world.twin.object(self.met()).map(|(bytes, _)| bytes);
            assert_eq!(met.as_deref(), Some(THEIRS), "{self:?}: theirs is lost");
        }
        if self.here == Here::Unlink && self.there == There::Deleted {
            assert_eq!(keys, Vec::<String>::new(), "{self:?}");
        }
        assert!(
            keys.len() <= 2 && world.twin.uploads() == 0,
            "{self:?}: {keys:?}"
        );
    }
}

#[tokio::test]
async fn whatever_others_did_meanwhile_what_was_written_here_is_kept() {
    for case in cases() {
        case.runs().await;
    }
}

#[tokio::test]
async fn a_directory_that_others_made_too_is_one() {
    for offline in [false, true] {
        let mut world = World::new();
        if offline {
            world.fault.link_down(true);
        }
        let dir = crate::types::Attrs {
            kind: crate::types::Kind::Dir,
            ..attrs(0o755)
        };
        world.object("d/", Extents::default(), 0, dir, &[]);
        if offline {
            world = world.reboot().await;
        }
        world.twin.put_behind("d/", "", Headers::default());
        world.twin.put_behind("d/f", THEIRS, Headers::default());
        world.drained().await;
        assert_eq!(world.twin.keys(), ["d/", "d/f"]);
    }
}

#[tokio::test]
async fn what_is_set_aside_goes_to_the_folder_for_it() {
    let settings = Config {
        aside: AsideRules {
            folder: Some(RelPath::new("conflicts").unwrap()),
            ..AsideRules::default()
        },
        ..World::settings()
    };
    let world = World::of(Op::ListParts, settings);
    world.gate.lets_pass(99);
    world.write("d/a.txt", BASE);
    world.drained().await;
    world.append("d/a.txt", b"!");
    world.twin.put_behind("d/a.txt", THEIRS, Headers::default());
    world.drained().await;
    let keys = world.twin.keys();
    assert_eq!((keys.len(), keys[1].as_str()), (2, "d/a.txt"), "{keys:?}");
    assert!(keys[0].starts_with("conflicts/d/a.conflict-") && keys[0].ends_with("Z.txt"));
    assert_eq!(world.bytes(&keys[0]), [BASE, b"!"].concat());
    assert!(world.tree.pending(|all| all.get(&key("d/a.txt")).is_none()));
}
