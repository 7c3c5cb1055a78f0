//! The command line, made of the table of options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

#[cfg(feature = "sim")]
use super::SimArgs;
use super::{Command, Examining, Telling, helper};
use crate::config::table::{self, Opt, TABLE};
use crate::config::{Given, parse_time, split_options};
use crate::daemon::Life;

const NOTHING: &str = "say what to do, such as `kryptonfs mount s3://bucket/prefix DIR`; `kryptonfs --help` lists all";

/// Nothing to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Help or version was asked for.
    Help(String),
    /// The command line is wrong: one line.
    Usage(String),
}

/// Reads the command line.
///
/// # Errors
/// See `Wrong`.
pub fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, Wrong> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    if helper::is_called(args.first().map(OsString::as_os_str)) {
        let matches = helper::clap().try_get_matches_from(args);
        let matches = matches.map_err(|error| told(&error))?;
        return Ok(Command::Helper(helper::from_matches(&matches)));
    }
    let mut all = root()
        .try_get_matches_from(args)
        .map_err(|error| told(&error))?;
    let Some((name, matches)) = all.remove_subcommand() else {
        return Err(Wrong::Usage(NOTHING.into()));
    };
    command(&name, &matches).map_err(Wrong::Usage)
}

fn command(name: &str, matches: &ArgMatches) -> Result<Command, String> {
    if let Some(command) = of_feature(name, matches)? {
        return Ok(command);
    }
    let dir = || path(matches, "DIR").unwrap_or_default();
    Ok(match name {
        "status" => Command::Status {
            dir: dir(),
            how: telling(matches),
        },
        "log-level" => Command::LogLevel {
            dir: dir(),
            level: text(matches, "LEVEL").unwrap_or_default(),
        },
        "credentials" => Command::Credentials {
            source: text(matches, "SOURCE"),
            given: given(matches),
        },
        "doctor" => Command::Doctor {
            source: text(matches, "SOURCE").unwrap_or_default(),
            given: given(matches),
            how: Examining {
                json: matches.get_flag("json"),
                set_up_canary: matches.get_flag("setup-canary"),
                hops_max: matches.get_one("hops").copied().unwrap_or_default(),
            },
        },
        "cancel" => Command::Cancel { dir: dir() },
        "retry" => Command::Retry { dir: dir() },
        "export" => Command::Export {
            source: path(matches, "SOURCE").unwrap_or_default(),
            to: path(matches, "TO").unwrap_or_default(),
            path: text(matches, "PATH"),
            remove: matches.get_flag("remove"),
        },
        "fetch" => Command::Fetch {
            paths: paths(matches, "PATH"),
        },
        "refresh" => Command::Refresh {
            paths: paths(matches, "PATH"),
        },
        "drain" => Command::Drain {
            dir: dir(),
            timeout: time(matches, "timeout")?.unwrap_or_default(),
            progress: matches.get_flag("progress"),
        },
        "supervise" => Command::Supervise {
            program: path(matches, "PROGRAM").unwrap_or_default(),
            dir: dir(),
            args: matches
                .get_many("ARGS")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        },
        _ => Command::Mount {
            source: text(matches, "SOURCE").unwrap_or_default(),
            dir: dir(),
            given: given(matches),
            life: match (matches.get_flag("worker"), matches.get_flag("again")) {
                (false, _) => Life::Foreground,
                (true, again) => Life::Worker { again },
            },
        },
    })
}

fn telling(matches: &ArgMatches) -> Telling {
    match ["quiet", "json", "watch"].map(|id| matches.get_flag(id)) {
        [true, ..] => Telling::Quiet,
        [_, true, _] => Telling::Json,
        [_, _, true] => Telling::Watch,
        [false, false, false] => Telling::Once,
    }
}

/// Those that packages leave out.
#[cfg_attr(
    not(any(feature = "sim", feature = "manual")),
    expect(unused_variables)
)]
fn of_feature(name: &str, matches: &ArgMatches) -> Result<Option<Command>, String> {
    #[cfg(any(feature = "sim", feature = "manual"))]
    let dir = || path(matches, "DIR").unwrap_or_default();
    Ok(match name {
        #[cfg(feature = "manual")]
        "manual" => Some(Command::Manual { dir: dir() }),
        #[cfg(feature = "sim")]
        "demo" => Some(Command::Demo {
            dir: dir(),
            tour_only: matches.get_flag("tour-only"),
        }),
        #[cfg(feature = "sim")]
        "sim" => Some(Command::Sim(SimArgs {
            dir: dir(),
            buckets: texts(matches, "bucket"),
            http: matches.get_flag("http"),
            region: text(matches, "region"),
            fixed_keys: path(matches, "fixed-keys"),
            lease_life: time(matches, "lease-life")?,
            identity_policy: matches.get_flag("identity-policy"),
        })),
        _ => None,
    })
}

fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    matches.get_one::<String>(id).cloned()
}

fn texts(matches: &ArgMatches, id: &str) -> Vec<String> {
    matches
        .get_many(id)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

fn paths(matches: &ArgMatches, id: &str) -> Vec<PathBuf> {
    let all = matches.get_many(id).into_iter().flatten();
    all.cloned().collect()
}

fn path(matches: &ArgMatches, id: &str) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(id).cloned()
}

fn time(matches: &ArgMatches, id: &str) -> Result<Option<std::time::Duration>, String> {
    let read = |value| parse_time(value).map_err(|why| format!("--{id}: {why}"));
    text(matches, id).as_deref().map(read).transpose()
}

/// `-o` and `--key` in the order they stand on the line, so that the last one holds.
fn given(matches: &ArgMatches) -> Vec<Given> {
    let mut all: Vec<(usize, Vec<Given>)> = Vec::new();
    let keys = TABLE.iter().map(|opt| opt.key).chain(["config", "o"]);
    for key in keys {
        let places = matches.indices_of(key).into_iter().flatten();
        for (place, value) in places.zip(texts(matches, key)) {
            let items = match key {
                "o" => split_options(&value),
                _ => vec![Given::new(key, &value)],
            };
            all.push((place, items));
        }
    }
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().flat_map(|(_, items)| items).collect()
}

/// The definition of the command line.
pub(super) fn root() -> Clap {
    let root = Clap::new("kryptonfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mounts an S3 bucket as a directory on a device behind a SORACOM SIM")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(mount())
        .subcommand(supervise())
        .subcommand(
            Clap::new("status")
                .about("Tells how a mount is doing, or what is in a spool that is not mounted")
                .arg(dir("The mountpoint, or the folder of a spool"))
                .arg(switch("json", "As one line of JSON"))
                .arg(switch("watch", "Again and again, until it is interrupted"))
                .arg(
                    switch(
                        "quiet",
                        "Exit code only: 0 all is sent, 1 not yet, 2 trouble",
                    )
                    .short('q'),
                ),
        )
        .subcommand(
            Clap::new("log-level")
                .about("Changes what a mount logs, until its options are read again")
                .arg(dir("The mountpoint"))
                .arg(
                    Arg::new("LEVEL")
                        .required(true)
                        .help("off, error, warn, info, debug or trace"),
                ),
        )
        .subcommand(
            Clap::new("cancel")
                .about("Ends all waits for the bucket: reads fail, names show what is known")
                .arg(dir("The mountpoint")),
        )
        .subcommand(
            Clap::new("retry")
                .about("Tries again what S3 refused for good")
                .arg(dir("The mountpoint, or the folder of a spool")),
        )
        .subcommand(export())
        .subcommand(
            Clap::new("fetch")
                .about("Brings files of a mount, and all below directories, into the cache")
                .arg(several("A file or directory in a mount")),
        )
        .subcommand(
            Clap::new("refresh")
                .about("Asks the bucket for paths now, whatever is known of them and all below")
                .arg(several("A file or directory in a mount")),
        )
        .subcommand(
            Clap::new("drain")
                .about("Sends all that is pending, and waits for it")
                .arg(dir("The mountpoint"))
                .arg(value("timeout", "TIME", "Give up after so long").default_value("10m"))
                .arg(switch(
                    "progress",
                    "Tell how far it is each second, also where stderr is no terminal",
                )),
        )
        .subcommand(credentials())
        .subcommand(doctor());
    with_sim(with_manual(root))
}

#[cfg(not(feature = "manual"))]
fn with_manual(root: Clap) -> Clap {
    root
}

#[cfg(feature = "manual")]
fn with_manual(root: Clap) -> Clap {
    root.subcommand(
        Clap::new("manual")
            .about("Writes the manual pages and the completion of bash, for packages")
            .hide(true)
            .arg(dir("Where to")),
    )
}

#[cfg(not(feature = "sim"))]
fn with_sim(root: Clap) -> Clap {
    root
}

#[cfg(feature = "sim")]
fn with_sim(root: Clap) -> Clap {
    let demo = Clap::new("demo")
        .about("Shows it all: a simulated cloud, a real mount, a guided tour")
        .arg(
            dir("Where to mount")
                .required(false)
                .default_value("./kryptonfs-demo"),
        )
        .arg(switch("tour-only", "End after the tour"));
    let sim = Clap::new("sim")
        .about("The simulated cloud alone, for tests")
        .hide(true)
        .arg(dir("Where its storage is"))
        .arg(value("bucket", "NAME", "A bucket that is there").action(ArgAction::Append))
        .arg(switch("http", "Plain HTTP instead of TLS"))
        .arg(value("region", "NAME", "Its only region"))
        .arg(
            value(
                "fixed-keys",
                "FILE",
                "ID:SECRET[:TOKEN] for Krypton to hand out",
            )
            .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(value("lease-life", "TIME", "How long issued keys live"))
        .arg(switch(
            "identity-policy",
            "Keys may touch only what lies under their identity",
        ));
    root.subcommand(demo).subcommand(sim)
}

fn mount() -> Clap {
    let mount = Clap::new("mount")
        .about("Mounts a bucket; stays in the foreground until it is unmounted")
        .arg(source())
        .arg(dir("The mountpoint"))
        .arg(switch("worker", "Started by `kryptonfs supervise`").hide(true))
        .arg(switch("again", "In the place of a worker that died").hide(true));
    with_options(mount)
}

fn credentials() -> Clap {
    let credentials = Clap::new("credentials")
        .about("Prints credentials for credential_process of ~/.aws/config")
        .arg(Arg::new("SOURCE").help("The bucket: /etc/kryptonfs/BUCKET.toml is read"));
    with_options(credentials)
}

fn doctor() -> Clap {
    let doctor = Clap::new("doctor")
        .about("Looks at each hop to the bucket: PASS, WARN, FAIL or SKIP, and what to do")
        .arg(source())
        .arg(switch("json", "As one line of JSON"))
        .arg(switch(
            "setup-canary",
            "First put the two objects by which S3 can say whether the path is closed",
        ))
        .arg(
            value("hops", "N", "Follow the way to S3 so far")
                .value_parser(clap::value_parser!(u8).range(1..=30))
                .default_value("10"),
        );
    with_options(doctor)
}

fn source() -> Arg {
    Arg::new("SOURCE")
        .required(true)
        .help("bucket, bucket:/prefix or s3://bucket/prefix")
}

/// Those of the table, in their three spellings.
fn with_options(command: Clap) -> Clap {
    let command = command
        .after_help(
            "Options are said as --key value, in -o key=value,..., or as key = value in a TOML file\n\
             (config=FILE, or /etc/kryptonfs/BUCKET.toml); sizes as 8MiB, times as 30s.",
        )
        .arg(
            value("o", "key=value,...", "Options as mount(8) gives them")
                .short('o')
                .long(None)
                .action(ArgAction::Append)
                .allow_hyphen_values(true),
        )
        .arg(value("config", "FILE", "Read options from this TOML file"));
    TABLE
        .iter()
        .fold(command, |command, opt| command.arg(long(opt)))
}

fn export() -> Clap {
    let folder = |name, help| {
        Arg::new(name)
            .value_parser(clap::value_parser!(PathBuf))
            .help(help)
    };
    Clap::new("export")
        .about("Copies what is not in S3 yet into a folder; nothing there is replaced")
        .arg(folder("SOURCE", "The mountpoint, or the folder of a spool").required(true))
        .arg(folder("TO", "The folder; made if it is absent").required(true))
        .arg(Arg::new("PATH").help("Only this name of the mount, and what is below it"))
        .arg(switch(
            "remove",
            "Then remove from the spool what was never closed, or cannot be read",
        ))
}

fn supervise() -> Clap {
    Clap::new("supervise")
        .about("Keeps a mount alive, for mount.kryptonfs")
        .hide(true)
        .arg(
            Arg::new("PROGRAM")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(dir("The mountpoint"))
        .arg(
            Arg::new("ARGS")
                .last(true)
                .required(true)
                .num_args(1..)
                .value_parser(clap::value_parser!(OsString)),
        )
}

fn long(opt: &Opt) -> Arg {
    let help = if opt.default.is_empty() {
        opt.doc.to_owned()
    } else {
        format!("{} [{}]", opt.doc, opt.default)
    };
    let arg = Arg::new(opt.key)
        .long(opt.key.replace('_', "-"))
        .value_name(opt.kind.shape())
        .action(ArgAction::Append)
        .help(help);
    let arg = if opt.key.contains('_') {
        arg.alias(opt.key)
    } else {
        arg
    };
    if opt.kind.is_flag() {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        arg
    }
}

fn dir(help: &'static str) -> Arg {
    Arg::new("DIR")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help(help)
}

fn several(help: &'static str) -> Arg {
    Arg::new("PATH")
        .required(true)
        .num_args(1..)
        .value_parser(clap::value_parser!(PathBuf))
        .help(help)
}

fn value(name: &'static str, shape: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(shape).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// clap's errors have several lines; ours have one.
fn told(error: &clap::Error) -> Wrong {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Wrong::Help(text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return Wrong::Usage(NOTHING.into());
        }
        _ => {}
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg)
        && let Some(key) = arg.strip_prefix("--")
        && [
            "kryptonfs mount",
            "kryptonfs credentials",
            "kryptonfs doctor",
        ]
        .iter()
        .any(|it| text.contains(it))
    {
        let key = key.split('=').next().unwrap_or(key);
        if let Err(unknown) = table::find(key) {
            return Wrong::Usage(unknown.to_string());
        }
    }
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<_> = paragraph.map(str::trim).collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    Wrong::Usage(format!("{line}; `kryptonfs --help` tells more"))
}

#[cfg(test)]
mod tests;
