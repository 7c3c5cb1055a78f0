use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn private(path: &Path) -> Result<Dir, NotPrivate> {
    Dir::private(&Disk::default(), path)
}

fn assert_unsafe(found: Result<Dir, NotPrivate>, why: &str) {
    match found {
        Err(NotPrivate::Unsafe(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn folders_are_made_0700_and_files_0600() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = private(&tmp.path().join("a/b")).unwrap();
    let below = dir.private_below("c").unwrap();
    below.create("f").unwrap();
    for folder in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode_of(&tmp.path().join(folder)), 0o700);
    }
    assert_eq!(mode_of(&tmp.path().join("a/b/c/f")), 0o600);
}

#[test]
fn a_folder_others_can_read_is_tightened_and_one_they_can_write_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("d");
    private(&path).unwrap();
    set_mode(&path, 0o755);
    private(&path).unwrap();
    assert_eq!(mode_of(&path), 0o700);
    for mode in [0o770, 0o702, 0o777] {
        set_mode(&path, mode);
        assert_unsafe(private(&path), "others can write");
        assert_eq!(mode_of(&path), mode, "a refused folder is left as it is");
    }
}

#[test]
fn symlinks_and_files_are_no_folders() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::create_dir(tmp.path().join("real")).unwrap();
    symlink(tmp.path().join("real"), tmp.path().join("link")).unwrap();
    std::fs::write(tmp.path().join("file"), b"").unwrap();
    for name in ["link", "file"] {
        assert_unsafe(private(&tmp.path().join(name)), "symlink");
        let above = private(tmp.path()).unwrap();
        assert_unsafe(above.private_below(name), "symlink");
    }
}

#[test]
fn a_folder_below_one_that_everybody_can_change_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let open = tmp.path().join("open");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    assert_unsafe(private(&open.join("d")), "everybody");
    set_mode(&open, 0o1777);
    private(&open.join("d")).unwrap();
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("d");
    std::fs::create_dir(&path).unwrap();
    if nix::unistd::chown(&path, Some(nix::unistd::Uid::from_raw(4711)), None).is_err() {
        return; // Only root can give a folder away.
    }
    assert_unsafe(private(&path), "4711");
}

#[test]
fn files_are_never_reached_through_a_symlink_and_new_ones_are_new() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = private(tmp.path()).unwrap();
    std::fs::write(tmp.path().join("real"), b"x").unwrap();
    symlink("real", tmp.path().join("link")).unwrap();
    assert!(dir.open("link").is_err());
    assert!(dir.open_to_write("link").is_err());
    assert!(dir.lock("link").is_err());
    let kind = dir.create("link").unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::AlreadyExists);
}

#[test]
fn a_replaced_file_is_whole_and_flushed_before_it_gets_its_name() {
    let tmp = tempfile::tempdir().unwrap();
    private(tmp.path()).unwrap();
    let (seen, shown) = std::sync::mpsc::channel();
    let disk = Disk::watched(Box::new(move |step| {
        let word = format!("{step:?}");
        seen.send(word.split([' ', '(']).next().unwrap().to_owned())
            .map_err(io::Error::other)
    }));
    let dir = Dir::private(&disk, tmp.path()).unwrap();
    dir.replace("f", b"one").unwrap();
    dir.replace("f", b"two").unwrap();
    assert_eq!(dir.read("f").unwrap(), b"two");
    assert_eq!(dir.names().unwrap(), ["f"]);
    let once = ["Remove", "Create", "Write", "Flush", "Rename", "FlushDir"];
    let steps: Vec<_> = shown.try_iter().collect();
    assert_eq!(steps, [once, once].concat());
    assert_eq!((disk.flushes(), disk.dir_flushes()), (2, 2));
}

#[test]
fn a_lock_is_held_while_its_file_is_open() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = private(tmp.path()).unwrap();
    let held = dir.lock("l").unwrap();
    assert!(held.is_some());
    assert!(dir.lock("l").unwrap().is_none());
    drop(held);
    assert!(dir.lock("l").unwrap().is_some());
}

#[test]
fn what_a_watch_forbids_is_not_done() {
    let tmp = tempfile::tempdir().unwrap();
    private(tmp.path()).unwrap().create("f").unwrap();
    let disk = Disk::watched(Box::new(|_| Err(nix::errno::Errno::EIO.into())));
    let dir = Dir::private(&disk, tmp.path()).unwrap();
    let file = dir.open_to_write("f").unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.allocate(10).is_err());
    assert!(file.truncate(10).is_err());
    assert!(file.flush().is_err());
    assert!(dir.create("g").is_err());
    assert!(dir.rename("f", &dir, "g").is_err());
    assert!(dir.link("f", &dir, "g").is_err());
    assert!(dir.remove("f").is_err());
    assert!(dir.flush().is_err());
    assert!(dir.private_below("h").is_err());
    assert_eq!(dir.names().unwrap(), ["f"]);
    assert_eq!(file.len().unwrap(), 0);
}

#[tokio::test]
async fn blocking_work_answers_and_a_panic_in_it_goes_on() {
    assert_eq!(blocking(|| 7).await, 7);
    let panics = tokio::spawn(blocking(|| panic!("here")));
    assert!(panics.await.unwrap_err().is_panic());
}
