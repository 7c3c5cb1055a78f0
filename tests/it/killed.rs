//! The real mount, killed at the n-th call by which it changes something (a write, a flush, a rename,
//! a name made or removed, bytes sent, an application answered), and mounted again on what is left.
//!
//! The oracle is what the user was told: it lives in this process. For each n, also one that is never
//! reached:
//! - before the mount is back, each object in the bucket is whole and one that was once closed;
//! - in the mount is what was acknowledged, or that with the operation that was under way;
//! - once it is sent, the bucket holds that and nothing else.
//!
//! The moments inside of one process, and power cuts, are in `src/fs/tests/crash.rs`.

mod oracle;
mod user;

use std::collections::BTreeMap;

use crate::harness::{Blow, Call, Gate, Mount, Server, Spec, Strike, World, eventually, long};
use oracle::{Names, State, content, states};
use user::{Scenario, User};

/// One run after the other, each in a place of its own below one bucket.
struct Ground {
    world: World,
    runs: usize,
    /// The scenario of the last one.
    last: String,
    /// What was let through, over all runs, and what was struck.
    seen: BTreeMap<Call, usize>,
    struck: BTreeMap<Call, usize>,
}

impl Ground {
    fn new(name: &str) -> Self {
        Self {
            world: World::new(Server::Sim, name),
            runs: 0,
            last: String::new(),
            seen: BTreeMap::new(),
            struck: BTreeMap::new(),
        }
    }

    fn place(&mut self, scenario: &Scenario) -> (Spec, String) {
        self.runs += 1;
        self.last = scenario.name.into();
        let (number, spec) = (self.runs, self.world.spec());
        let prefix = format!("run{number}/");
        let own = self.world.work.path().join(format!("run{number}"));
        let spec = Spec {
            source: format!("s3://{}/{prefix}", self.world.access.bucket),
            spool: own.join("spool"),
            cache: own.join("cache"),
            ..spec
        };
        let spec = spec.with("linger", "0s");
        let options = scenario.options.iter();
        (
            options.fold(spec, |spec, (name, value)| spec.with(name, value)),
            prefix,
        )
    }

    /// One run; whether it came to the strike.
    fn run(&mut self, scenario: &Scenario, strike: Strike) -> bool {
        let (spec, prefix) = self.place(scenario);
        let gate = Gate::new(&[&spec.spool, &spec.cache]);
        let mut done = scenario.before;
        if scenario.before > 0 {
            self.leave_pending(scenario, &spec, &prefix, &gate);
            gate.arm(strike);
        }
        let started = spec.try_mount(&gate).and_then(|mount| {
            let user = User::new(&mount, &self.world, &prefix, &gate)?;
            Ok((mount, user))
        });
        let why = match started {
            Ok((mut mount, mut user)) => {
                if scenario.before == 0 {
                    gate.arm(strike);
                }
                let why = loop {
                    let Some(step) = scenario.steps.get(done) else {
                        break String::new();
                    };
                    match user.carry_out(&mut mount, step) {
                        Ok(()) => done += 1,
                        Err(refused) => break format!("{step:?}: {refused}"),
                    }
                };
                // In this order: what the user has open is never closed.
                drop((mount.kill(), user));
                why
            }
            Err(refused) => refused,
        };
        let struck = gate.struck();
        let what = format!("{}: {strike:?} {struck:?} {why}", scenario.name);
        assert!(struck.is_some() || why.is_empty(), "{what}: for no reason");
        for (call, count) in gate.counts() {
            *self.seen.entry(call).or_default() += count;
        }
        if let Some((call, _)) = struck {
            *self.struck.entry(call).or_default() += 1;
        }
        let unsure = match strike.blow {
            Blow::Kill => Vec::new(),
            // Who is told of a failure and closes all the same makes a file of what was written.
            Blow::Fail(_) => scenario.touched(done),
        };
        let may = sure(&states(scenario), done, &unsure);
        self.check(&what, &spec, &prefix, &may, &unsure);
        struck.is_some()
    }

    /// A mount that is killed with all of the first steps pending.
    fn leave_pending(&self, scenario: &Scenario, spec: &Spec, prefix: &str, gate: &Gate) {
        let mut mount = spec.mount();
        self.world.relay.silence();
        let mut user = User::new(&mount, &self.world, prefix, gate).unwrap();
        for step in &scenario.steps[..scenario.before] {
            let done = user.carry_out(&mut mount, step);
            assert_eq!(done, Ok(()), "{}: {step:?}", scenario.name);
        }
        drop((mount.kill(), user));
        self.world.relay.open();
    }

    /// Whether nothing is lost, torn, or there that should not be.
    fn check(&self, what: &str, spec: &Spec, prefix: &str, may: &May, unsure: &[&str]) {
        for (name, bytes) in without(self.bucket(prefix), unsure) {
            let mut ever = may.ever.iter();
            assert!(
                ever.any(|names| names.get(&name) == Some(&bytes)),
                "{what}: torn: {name}: {bytes}"
            );
        }
        let mount = spec.mount();
        let found = visible(&mount);
        assert!(
            may.now.contains(&without(found.clone(), unsure)),
            "{what}: found {found:#?}\nexpected one of {:#?}\n{}",
            may.now,
            mount.log()
        );
        mount.drain();
        assert_eq!(visible(&mount), found, "{what}: once it is sent");
        let files = found.into_iter().filter(|(_, bytes)| !bytes.is_empty());
        let files: Names = files.collect();
        assert_eq!(self.bucket(prefix), files, "{what}: the bucket");
        let left = self.world.client.half_sent(prefix);
        assert_eq!(left, Vec::<String>::new(), "{what}: half sent");
    }

    /// The objects below the place of a run, without the markers of directories.
    fn bucket(&self, prefix: &str) -> Names {
        let objects = self.world.client.tree(prefix);
        let files = objects.iter().filter(|object| !object.key.ends_with('/'));
        let name = |key: &str| key.strip_prefix(prefix).expect("below it").to_owned();
        files
            .map(|object| (name(&object.key), content(object.size, &object.sha256)))
            .collect()
    }

    /// Strikes at each call of a scenario.
    fn strike_all(&mut self, scenario: &Scenario, blow: Blow) {
        // How many there are is not the same in each run: threads meet as they will.
        let mut missed = 0;
        for at in 0.. {
            let is_struck = self.run(scenario, Strike { at, blow });
            missed = if is_struck { 0 } else { missed + 1 };
            if missed == 3 {
                break;
            }
        }
    }
}

/// Strikes in each scenario at `some` of about so many calls; in full length at each, in all
/// scenarios at once.
fn strike(name: &str, scenarios: &[Scenario], blows: &[Blow], (some, calls): (usize, usize)) {
    let each = || {
        scenarios
            .iter()
            .flat_map(|one| blows.iter().map(move |blow| (one, *blow)))
    };
    if long() {
        std::thread::scope(|scope| {
            for (scenario, blow) in each() {
                scope.spawn(move || Ground::new(name).strike_all(scenario, blow));
            }
        });
        return;
    }
    let mut ground = Ground::new(name);
    for (scenario, blow) in each() {
        for index in 0..some {
            // Others in each scenario; also one that is never reached is a run.
            let at = (calls * index / some + 17 * ground.runs) % calls;
            ground.run(scenario, Strike { at, blow });
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        println!(
            "{}: {} runs, struck: {:?}, let through: {:?}",
            self.last, self.runs, self.struck, self.seen
        );
    }
}

/// What may be there after so many steps were acknowledged.
struct May {
    /// With the step that was under way, or without it.
    now: State,
    /// That, and all that was there before: what is sent lags behind.
    ever: State,
}

fn sure(states: &[State], done: usize, unsure: &[&str]) -> May {
    let reached = &states[..states.len().min(done + 2)];
    let of = |states: &[State]| {
        let all = states.iter().flatten().cloned();
        all.map(|names| without(names, unsure)).collect()
    };
    May {
        now: of(&reached[done..]),
        ever: of(reached),
    }
}

/// The rest, without some names and all below them.
fn without(mut names: Names, unsure: &[&str]) -> Names {
    let is_below = |name: &str, top: &str| {
        name.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    names.retain(|name, _| !unsure.iter().any(|top| is_below(name, top)));
    names
}

/// What the mount shows.
fn visible(mount: &Mount) -> Names {
    let mut found = Names::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(mount.path(&dir)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{dir}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                todo.push(format!("{name}/"));
                found.insert(name, String::new());
            } else {
                found.insert(name.clone(), oracle::of(&read(mount, &name)));
            }
        }
    }
    found
}

fn read(mount: &Mount, name: &str) -> Vec<u8> {
    match std::fs::read(mount.path(name)) {
        // What it was made of was replaced by a request of ours whose answer the kill cut off: that
        // is found out when it is sent.
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
            mount.drain();
            std::fs::read(mount.path(name)).unwrap()
        }
        read => read.unwrap_or_else(|error| panic!("{name}: {error}\n{}", mount.log())),
    }
}

#[test]
fn a_mount_killed_at_any_call_keeps_what_it_acknowledged_and_publishes_nothing_else() {
    strike("killed", &user::of_files(), &[Blow::Kill], (4, 70));
}

#[test]
fn a_mount_killed_at_any_call_while_it_takes_up_what_is_pending_loses_nothing() {
    strike("killedagain", &user::of_starts(), &[Blow::Kill], (7, 90));
}

#[test]
fn a_mount_killed_at_any_call_shows_of_an_open_file_what_it_was_at_one_moment() {
    strike("killedopen", &user::of_open_files(), &[Blow::Kill], (3, 50));
}

#[test]
fn a_call_to_the_disk_that_fails_in_a_mount_is_told_or_makes_no_difference() {
    let scenarios: Vec<_> = user::of_files()
        .into_iter()
        .chain(user::of_starts())
        .collect();
    let blows = [libc::EIO, libc::ENOSPC].map(Blow::Fail);
    strike("faults", &scenarios, &blows, (1, 40));
}
