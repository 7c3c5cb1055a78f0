//! What a mount writes for others to read: its log, with and without names, and its metrics.

use std::fs;
use std::time::Duration;

use crate::harness::cloud::Raw;
use crate::harness::mount::detach;
use crate::harness::{Holder, Server, World, eventually};

const SOON: Duration = Duration::from_secs(120);
/// In the names of files only.
const CANARY: &str = "kanarienvogel";

/// All that is logged by a mount, and by the next one after it was killed, while files of such names are
/// written, refused as S3 does it, changed by somebody else, renamed, and left open.
fn logged(world: &World, log_paths: &str) -> String {
    let name = |what: &str| format!("{CANARY}-{what}");
    let spec = world.spec().with("log", "trace").with("linger", "0s");
    let spec = spec.with("log_paths", log_paths);
    let mount = spec.mount();
    // In a directory of its own: nothing more is taken where S3 refused something.
    let apart = mount.path(&name("apart"));
    fs::create_dir(&apart).unwrap();
    mount.drain();
    let said = format!(
        "<Error><Code>AccessDenied</Code><Message>not authorized to perform: s3:PutObject on resource: \
         \"arn:aws:s3:::bucket/{CANARY}\" because no policy allows it</Message></Error>"
    );
    let headers = [("content-type", "application/xml")];
    let raw = Raw {
        status: 403,
        headers: &headers,
        body: &said,
    };
    world.cloud.answer("PutObject", &raw, 0, 1);
    fs::write(apart.join(name("refused")), "1").unwrap();
    eventually("S3 refuses it", SOON, || {
        mount.status().contains("AccessDenied").then_some(())
    });
    world.cloud.clear_faults();
    fs::write(mount.path(&name("f")), "1").unwrap();
    mount.try_drain(SOON);
    world.client.put(&world.key(&name("f")), b"theirs");
    fs::write(mount.path(&name("f")), "mine").unwrap();
    fs::create_dir(mount.path(&name("d"))).unwrap();
    fs::rename(mount.path(&name("d")), mount.path(&name("e"))).unwrap();
    mount.try_drain(SOON);
    let mut holder = Holder::new(mount.dir());
    holder.write("open", &name("open"), "");
    holder.run("open.write(b'l' * 100_000)");
    let mut all = mount.log();
    let spec = mount.kill();
    drop(holder);
    detach(&spec.dir);
    let mount = spec.mount();
    all += &mount.log();
    all
}

#[test]
fn no_name_is_in_the_log_where_none_is_wanted_however_much_is_logged() {
    let world = World::new(Server::Sim, "log-names");
    let shown = logged(&world, "on");
    for what in ["refused", "open"] {
        let name = format!("{CANARY}-{what}");
        assert!(shown.contains(&name), "{name} is not in {shown}");
    }
    let world = World::new(Server::Sim, "log-no-names");
    let hidden = logged(&world, "off");
    assert!(!hidden.contains(CANARY), "{hidden}");
    for part in [
        "refused for good",
        "kept aside",
        "key=(hidden)",
        "name=(hidden)",
    ] {
        assert!(hidden.contains(part), "{part} is not in {hidden}");
    }
}

#[test]
fn the_metrics_of_a_mount_are_in_a_file_until_it_ends() {
    let world = World::new(Server::Sim, "metrics");
    let file = world.work.path().join("kryptonfs.prom");
    let spec = world.spec().with("metrics", file.to_str().unwrap());
    let mount = spec.mount();
    let text = eventually("it is written", SOON, || fs::read_to_string(&file).ok());
    let spec = mount.spec().clone();
    let (source, dir) = (spec.source.trim_end_matches('/'), spec.dir.display());
    let labels = format!("{{source=\"{source}\",dir=\"{dir}\"}}");
    for figure in ["pending_changes", "stale_answers_total", "trouble"] {
        let line = format!("kryptonfs_{figure}{labels} 0\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    mount.unmount();
    assert!(!file.exists(), "what was is not what is");
}
