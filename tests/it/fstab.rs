//! mount(8), umount(8) and findmnt(8), the real ones, with a line in fstab.

use crate::harness::room::{DIR, Room};
use crate::harness::{Server, World};

/// A world and a room whose fstab has one line for it.
fn room(world: &World, more: &str) -> Room {
    let spec = world.spec();
    let line = spec.fstab("kryptonfs", &spec.source, more);
    Room::new(world.work.path(), &[line])
}

#[test]
fn mount_a_mounts_a_line_of_either_type_and_any_form_of_source_once() {
    let world = World::new(Server::Sim, "fstab");
    let spec = world.spec();
    let (bucket, prefix) = spec
        .source
        .trim_start_matches("s3://")
        .split_once('/')
        .unwrap();
    for (kind, source) in [
        ("kryptonfs", spec.source.clone()),
        ("fuse.kryptonfs", format!("{}/", spec.source)),
        ("kryptonfs", format!("{bucket}:/{prefix}")),
    ] {
        let more = "_netdev,nofail,x-systemd.automount,x-systemd.requires=modem.service,noatime";
        let room = Room::new(world.work.path(), &[spec.fstab(kind, &source, more)]);
        let name = format!("by-{}", kind.replace('.', "-"));
        let told = room.does(&format!(
            r#"mount -T "$FSTAB" -a
            test "$(findmnt -n -o FSTYPE $S3)" = fuse.kryptonfs
            echo one > $S3/{name}
            first=$(daemons)
            mount -T "$FSTAB" -a
            test "$(findmnt -n $S3 | wc -l)" = 1
            test "$(daemons)" = "$first"
            findmnt -n -o SOURCE $S3
            umount $S3
            until_true alone
            test -z "$(ls -A $S3)"
            mount -T "$FSTAB" $S3
            cat $S3/{name}
            kryptonfs() {{ "$BINARY" "$@"; }}
            kryptonfs drain $S3
            umount $S3"#
        ));
        assert_eq!(told, format!("{source}\none\n"), "{kind} {source}");
        assert_eq!(world.client.get(&world.key(&name)).body, b"one\n");
    }
}

#[test]
fn a_dry_run_and_findmnt_verify_find_no_fault_and_mount_nothing() {
    let world = World::new(Server::Sim, "verify");
    let room = room(&world, "_netdev,nofail");
    let told = room.does(
        r#"mount -T "$FSTAB" -fnv $S3
        mount -T "$FSTAB" -fnva
        mount -fnv -t kryptonfs -o network=open,region=x,ttl=5s some-bucket $S3
        ! findmnt -n $S3
        test -z "$(daemons)"
        findmnt --verify --verbose --tab-file "$FSTAB" 2>&1"#,
    );
    assert!(told.contains("0 parse errors, 0 errors"), "{told}");
}

#[test]
fn it_works_with_neither_path_nor_home() {
    let world = World::new(Server::Sim, "bare-env");
    room(&world, "").does(
        r#"env -i /usr/bin/mount -T "$FSTAB" -a
        echo x > $S3/f
        test "$(cat $S3/f)" = x
        env -i /usr/bin/umount $S3
        until_true alone"#,
    );
}

#[test]
fn what_cannot_be_is_one_line_and_an_exit_code() {
    let world = World::new(Server::Sim, "refusals");
    let spec = world.spec();
    for (line, code, word) in [
        (
            spec.fstab("kryptonfs", &spec.source, "regoin=x"),
            1,
            "did you mean region?",
        ),
        (
            spec.fstab("kryptonfs", "s3://not-there", ""),
            32,
            "there is no bucket not-there",
        ),
        (spec.fstab("kryptonfs", "s3://", ""), 1, "is not a bucket"),
        (
            spec.fstab("kryptonfs", &spec.source, "uid=who"),
            1,
            "there is no user",
        ),
    ] {
        let room = Room::new(world.work.path(), &[line]);
        let output = room.run(
            r#"code=0; mount -T "$FSTAB" $S3 || code=$?
            ! findmnt -n $S3 || exit 99
            until_true alone
            exit $code"#,
        );
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(
            stderr.contains(word) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

#[test]
fn a_mount_of_root_is_read_by_others_and_written_by_the_owner_it_names() {
    let world = World::new(Server::Sim, "others");
    world.client.put(&world.key("there"), b"seen\n");
    room(&world, "").does(
        r#"mount -T "$FSTAB" -a
        test "$(nobody cat $S3/there)" = seen
        nobody ls $S3 | grep -q there
        ! nobody touch $S3/new 2>/dev/null
        umount $S3"#,
    );
    room(&world, "uid=nobody,gid=nogroup,umask=022").does(
        r#"mount -T "$FSTAB" -a
        nobody sh -c "echo mine > $S3/new"
        test "$(stat -c '%U %G %a' $S3/new)" = "nobody nogroup 644"
        umount $S3"#,
    );
}

#[test]
fn remounting_makes_it_read_only_and_back() {
    let world = World::new(Server::Sim, "remount");
    room(&world, "").does(
        r#"mount -T "$FSTAB" -a
        echo 1 > $S3/f
        mount -T "$FSTAB" -o remount,ro $S3
        findmnt -n -o OPTIONS $S3 | grep -q '^ro,nosuid,nodev'
        ! { echo 2 > $S3/f; } 2>/dev/null
        test "$(cat $S3/f)" = 1
        mount -T "$FSTAB" -o remount,rw $S3
        echo 3 > $S3/f
        test "$(cat $S3/f)" = 3
        umount $S3
        mount -T "$FSTAB" -o ro $S3
        ! touch $S3/g 2>/dev/null
        umount $S3
        until_true alone"#,
    );
}

#[test]
fn every_way_of_unmounting_ends_the_daemon_and_keeps_what_was_closed() {
    let world = World::new(Server::Sim, "umount");
    let room = room(&world, "");
    room.does(
        r#"mount -T "$FSTAB" -a
        exec 3> $S3/open
        echo plain > $S3/plain
        ! umount $S3 2>/dev/null
        test "$(cat $S3/plain)" = plain
        exec 3>&-
        umount $S3
        until_true alone
        mount -T "$FSTAB" -a
        exec 3> $S3/open
        echo lazy > $S3/lazy
        umount -l $S3
        ! findmnt -n $S3
        exec 3>&-
        until_true alone
        mount -T "$FSTAB" -a
        exec 3> $S3/open
        echo forced > $S3/forced
        umount -f $S3 || umount -l $S3 || true
        until_true alone
        ! findmnt -n $S3
        exec 3>&- || true
        mount -T "$FSTAB" -a
        test "$(cat $S3/plain $S3/lazy $S3/forced | tr '\n' ' ')" = "plain lazy forced "
        "$BINARY" drain $S3
        umount $S3
        until_true alone"#,
    );
    for name in ["plain", "lazy", "forced"] {
        let body = world.client.get(&world.key(name)).body;
        assert_eq!(body, format!("{name}\n").as_bytes());
    }
}

#[test]
fn a_daemon_that_dies_is_started_again_and_nothing_falls_into_the_bare_directory() {
    let world = World::new(Server::Sim, "supervised");
    let told = room(&world, "").does(
        r#"bare=ls
        # Where a directory cannot be made immutable, a moment remains.
        { chattr +i $S3 && chattr -i $S3; } 2>/dev/null || bare=true
        mount -T "$FSTAB" -a
        echo kept > $S3/kept
        exec 3>> $S3/log
        echo line >&3
        # Somebody writes all the time, and minds no error.
        ( i=0; while test ! -e /run/enough; do i=$((i + 1)); { echo $i > $S3/w$((i % 7)); } 2>/dev/null || true; done ) &
        for round in 1 2 3; do
          before=$(daemons)
          kill -9 $before
          start=$(date +%s%N)
          again() { new=$(daemons); test -n "$new" && test "$new" != "$before" && stat -f $S3 >/dev/null 2>&1 && cat $S3/kept >/dev/null 2>&1; }
          until_true again
          echo "gap $(( ($(date +%s%N) - start) / 1000000 )) ms" >&2
          test "$(cat $S3/kept)" = kept
        done
        touch /run/enough; wait %1
        # The handle that was open then fails; a new one works.
        ! { echo more >&3; } 2>/dev/null
        exec 3>&- || true
        echo fresh > $S3/fresh
        "$BINARY" drain $S3
        test "$(supervisors | wc -l)" = 1
        umount $S3
        until_true alone
        echo "bare: $($bare -A $S3)"
        touch $S3/may-be-written"#,
    );
    assert_eq!(told.trim(), "bare:");
    assert_eq!(world.client.get(&world.key("kept")).body, b"kept\n");
    assert_eq!(world.client.get(&world.key("fresh")).body, b"fresh\n");
}

#[test]
fn a_protected_directory_takes_nothing_while_nothing_is_mounted_whether_the_mount_succeeds_or_not()
{
    let world = World::new(Server::Sim, "protected");
    let spec = world.spec();
    let bad = spec.fstab("kryptonfs", "s3://not-there", "protect_dir");
    let room = Room::new(world.work.path(), &[bad]);
    let script = |mount: &str| {
        format!(
            r#"{{ chattr +i $S3 && chattr -i $S3; }} 2>/dev/null || {{ echo cannot; exit 0; }}
            {mount}
            ! {{ echo lost > $S3/lost; }} 2>/dev/null
            chattr -i $S3
            echo kept > $S3/kept"#
        )
    };
    let told = room.does(&script(r#"! mount -T "$FSTAB" $S3 2>/dev/null"#));
    assert!(["", "cannot\n"].contains(&told.as_str()), "{told}");
    let good = spec.fstab("kryptonfs", &spec.source, "protect_dir");
    let room = Room::new(world.work.path(), &[good]);
    room.does(&script(
        r#"mount -T "$FSTAB" $S3
            echo sent > $S3/sent
            # The next daemon takes the place of one that died, and it stays protected.
            before=$(daemons); kill -9 $before
            again() { new=$(daemons); test -n "$new" && test "$new" != "$before" && cat $S3/sent >/dev/null 2>&1; }
            until_true again
            "$BINARY" drain $S3
            umount $S3
            until_true alone"#,
    ));
}

#[test]
fn a_mount_that_was_made_read_only_stays_so_when_its_daemon_dies() {
    let world = World::new(Server::Sim, "stays-ro");
    room(&world, "").does(
        r#"mount -T "$FSTAB" -a
        echo kept > $S3/kept
        mount -o remount,ro $S3
        before=$(daemons); kill -9 $before
        again() { new=$(daemons); test -n "$new" && test "$new" != "$before" && cat $S3/kept >/dev/null 2>&1; }
        until_true again
        ! touch $S3/new 2>/dev/null
        umount $S3
        until_true alone"#,
    );
}

#[test]
fn mounting_over_a_dead_mount_works_and_taking_a_dead_one_away_ends_its_supervisor() {
    let world = World::new(Server::Sim, "dead");
    room(&world, "").does(
        r#"mount -T "$FSTAB" -a
        echo kept > $S3/kept
        kill -9 $(supervisors) $(daemons)
        until_true alone
        ! ls $S3 2>/dev/null
        mount -T "$FSTAB" $S3
        test "$(cat $S3/kept)" = kept
        test "$(findmnt -n $S3 | wc -l)" = 1
        kill -STOP $(supervisors)
        kill -9 $(daemons)
        umount -l $S3
        kill -CONT $(supervisors)
        until_true alone
        ! findmnt -n $S3"#,
    );
}

#[test]
fn a_signal_to_the_supervisor_seals_and_unmounts() {
    let world = World::new(Server::Sim, "term");
    world.relay.silence();
    room(&world, "").does(
        r#"mount -T "$FSTAB" -a
        echo unsent > $S3/unsent
        kill -TERM $(supervisors)
        until_true alone
        ! findmnt -n $S3
        test -z "$(ls -A $S3)""#,
    );
    world.relay.open();
    room(&world, "").does(&format!(
        r#"mount -T "$FSTAB" -a; "$BINARY" drain {DIR}; umount {DIR}"#
    ));
    assert_eq!(world.client.get(&world.key("unsent")).body, b"unsent\n");
}
