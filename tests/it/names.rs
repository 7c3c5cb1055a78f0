//! Names: in which order they come to the bucket, and what they are without a link.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::cloud::Refusal;
use crate::harness::mount::BINARY;
use crate::harness::{Client, Server, World, eventually, long, noise, shell, try_shell};

const SOON: Duration = Duration::from_secs(120);

/// Lists the bucket again and again; answers how often it did.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Watcher {
    /// One that panics if `x.done` is there without `x`.
    fn start(world: &World) -> Self {
        let (client, prefix) = (Client::start(&world.access), world.key(""));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            let mut listings = 0;
            while !stopped.load(Ordering::SeqCst) {
                let keys = client.keys(&prefix);
                for data in keys.iter().filter_map(|key| key.strip_suffix(".done")) {
                    assert!(
                        keys.iter().any(|key| key == data),
                        "{data}.done in {keys:?}"
                    );
                }
                listings += 1;
            }
            listings
        };
        let thread = std::thread::spawn(watch);
        Self { stop, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it saw nothing wrong")
    }
}

#[test]
fn a_watcher_never_sees_the_mark_before_the_data_also_while_uploads_fail() {
    let world = World::new(Server::Sim, "order");
    let options = [
        ("linger", "0s"),
        ("multipart_threshold", "5MiB"),
        ("part_size", "5MiB"),
    ];
    let with = |spec: crate::harness::Spec, (key, value): (&str, &str)| spec.with(key, value);
    let mount = options.into_iter().fold(world.spec(), with).mount();
    let watcher = Watcher::start(&world);
    for round in 0..if long() { 20 } else { 2 } {
        for (operation, len) in [("PutObject", 1000), ("UploadPart", 12 << 20)] {
            // The data fails until the drain tries it again, later; then its answer is lost.
            world
                .cloud
                .refuse(operation, 500, "InternalError", Refusal::Times(4));
            world.cloud.lose_answer(operation);
            let name = format!("{operation}-{round}");
            fs::write(mount.path(&name), noise(round, len)).unwrap();
            fs::write(mount.path(&format!("{name}.done")), "").unwrap();
            // Renamed to its name at last, as careful programs do.
            fs::write(mount.path("part"), noise(round, len)).unwrap();
            fs::rename(mount.path("part"), mount.path(&format!("{name}-b"))).unwrap();
            fs::write(mount.path(&format!("{name}-b.done")), "").unwrap();
            let last = world.key(&format!("{name}-b.done"));
            eventually("all is there", SOON, || {
                world.client.has(&last).then_some(())
            });
            world.cloud.clear_faults();
        }
    }
    assert!(watcher.end() > 0);
    mount.drain();
}

#[test]
fn what_s3_refuses_parks_what_depends_on_it_and_nothing_else() {
    let world = World::new(Server::Sim, "parked");
    let mount = world.spec().mount();
    shell(mount.dir(), "mkdir d e; echo kept > d/old");
    mount.drain();
    for operation in ["PutObject", "CreateMultipartUpload", "CopyObject"] {
        world
            .cloud
            .refuse_key(operation, "d/new", 403, "AccessDenied");
    }
    shell(
        mount.dir(),
        "mv d/old d/new; echo x > d/other; echo y > e/f",
    );
    let has = |name: &str| world.client.has(&world.key(name));
    eventually("it is refused, and all else sent", SOON, || {
        let status = mount.status_json();
        let is_refused = status["refused"].as_array()?.len() == 1;
        (is_refused && has("d/other") && has("e/f")).then_some(())
    });
    // The removal of the old name waits for the new one.
    assert_eq!(["d/old", "d/new"].map(has), [true, false]);
    assert_eq!(shell(mount.dir(), "cat d/new; ls d"), "kept\nnew\nother\n");
    // Who writes there next learns of it.
    assert!(!try_shell(mount.dir(), "echo z > d/z").status.success());
    shell(mount.dir(), "echo z > e/z");
    world.cloud.clear_faults();
    let retried = Command::new(BINARY).arg("retry").arg(mount.dir()).output();
    let retried = retried.unwrap();
    assert!(retried.status.success(), "{retried:?}");
    mount.drain();
    assert_eq!(["d/old", "d/new", "e/z"].map(has), [false, true, true]);
}

#[test]
fn names_known_and_new_are_had_at_local_speed_while_the_bucket_is_silent() {
    let world = World::new(Server::Sim, "dark");
    for name in ["d/a", "d/b", "unknown/a"] {
        world.client.put(&world.key(name), b"text");
    }
    let spec = world.spec().with("ttl", "1s").with("read_timeout", "3s");
    let mount = spec.with("stale_after", "3s").mount();
    shell(mount.dir(), "ls -l . d; cat d/a");
    world.relay.silence();
    std::thread::sleep(Duration::from_secs(1));
    // Two hundred questions, of which one now and then waits for stale_after: would each, it took
    // ten minutes.
    let script = "timeout 60 bash -ec '
        for i in $(seq 20); do
            echo $i > d/new$i; stat d/new$i d/a > /dev/null; test ! -e d/absent$i
            mkdir d/dir$i; mv d/new$i d/dir$i/; ln -s x d/dir$i/link; chmod 600 d/dir$i/new$i
            cat d/dir$i/new$i d/a; touch e$i; rm e$i
        done
        mv d/b d/c; rm d/c; ls -l d'";
    let output = try_shell(mount.dir(), script);
    assert!(output.status.success(), "{output:?}");
    let unknown = fs::read_dir(mount.path("unknown")).unwrap().next();
    let error = unknown.unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(
        mount.log().contains("a directory is not known"),
        "{}",
        mount.log()
    );
    // Nobody asks for it: what is unsent is sent by itself.
    world.relay.open();
    let last = world.key("d/dir20/new20");
    eventually("it is sent", SOON, || world.client.has(&last).then_some(()));
    mount.drain();
    let keys = world.client.keys(&world.key("d/"));
    assert_eq!(keys.iter().filter(|key| key.contains("/new")).count(), 20);
    assert!(!keys.contains(&world.key("d/b")) && !keys.contains(&world.key("d/c")));
    eventually("it is asked for again", SOON, || {
        let mut names = fs::read_dir(mount.path("unknown")).ok()?;
        names.next()?.ok()
    });
}
