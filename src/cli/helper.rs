//! `mount.kryptonfs`: what mount(8) runs for an fstab line, by the rules of its "external helpers".
//!
//! Invariants: it needs neither `PATH` nor `HOME`; it answers 0 only once the mount answers; an error
//! is one line and 1 (what was asked for is wrong) or 32 (it could not be done).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};
use nix::mount::MsFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::table::{self, Kind};
use crate::config::{Config, Given, join_options, mount_words, split_options};
use crate::daemon::{self, Failure};

/// What the program is called by mount(8), with and without the mount table's name of the type.
const NAMES: [&str; 2] = ["mount.kryptonfs", "mount.fuse.kryptonfs"];

/// What mount(8) wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// As in fstab.
    source: String,
    /// The mountpoint.
    dir: PathBuf,
    /// The texts after `-o`.
    options: Vec<String>,
    /// `-f`: check, but do not mount.
    fake: bool,
    /// `-v`: tell.
    verbose: bool,
    /// `-s`: what is not known is passed over.
    sloppy: bool,
    /// `-N`: in the mount namespace of this process or file.
    namespace: Option<String>,
}

/// Whether the program was called as mount(8)'s helper.
pub(super) fn is_called(program: Option<&OsStr>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// The command line mount(8) gives.
pub(super) fn clap() -> Clap {
    let flag = |name: &'static str| Arg::new(name).short(first(name)).action(ArgAction::Count);
    Clap::new(NAMES[0])
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mounts a bucket for mount(8)")
        .arg(Arg::new("SOURCE").required(true).help("The bucket"))
        .arg(
            Arg::new("DIR")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The mountpoint"),
        )
        .arg(flag("sloppy").help("Pass over options that are not known"))
        .arg(flag("fake").help("Check, but do not mount"))
        .arg(flag("no-mtab").help("Ignored"))
        .arg(flag("verbose").help("Tell what was done"))
        .arg(
            Arg::new("namespace")
                .short('N')
                .value_name("NS")
                .help("Mount in the namespace of this process or file"),
        )
        .arg(
            Arg::new("type")
                .short('t')
                .value_name("TYPE")
                .value_parser(["kryptonfs", "fuse.kryptonfs"])
                .help("kryptonfs or fuse.kryptonfs"),
        )
        .arg(
            Arg::new("options")
                .short('o')
                .value_name("key=value,...")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .help("Options, parted by commas"),
        )
}

fn first(name: &str) -> char {
    name.chars().next().unwrap_or_default()
}

pub(super) fn from_matches(matches: &ArgMatches) -> Helper {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let is = |id: &str| matches.get_count(id) > 0;
    Helper {
        source: text("SOURCE").unwrap_or_default(),
        dir: matches
            .get_one::<PathBuf>("DIR")
            .cloned()
            .unwrap_or_default(),
        options: matches
            .get_many("options")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        fake: is("fake"),
        verbose: is("verbose"),
        sloppy: is("sloppy"),
        namespace: text("namespace"),
    }
}

/// Mounts; answers the exit code.
pub(super) fn run(helper: &Helper) -> Result<u8, Failure> {
    if let Some(namespace) = &helper.namespace {
        enter(namespace)?;
    }
    let words: Vec<Given> = helper
        .options
        .iter()
        .flat_map(|text| mount_words(text))
        .collect();
    if words.iter().any(|word| word.key == "remount") {
        return remount(helper, &words).map(|()| 0);
    }
    let given = given(helper)?;
    Config::new(&helper.source, &given).map_err(|error| Failure::Usage(error.to_string()))?;
    if helper.fake {
        return Ok(0);
    }
    let dir = absolute(&helper.dir)?;
    let args: [OsString; 4] = [
        helper.source.clone().into(),
        dir.clone().into(),
        "-o".into(),
        join_options(&given).into(),
    ];
    let code = daemon::in_background(&args, &dir)
        .map_err(|error| Failure::Mount(format!("no process to be had: {error}")))?;
    if code == 0 && helper.verbose {
        println!("kryptonfs: {} mounted on {}", helper.source, dir.display());
    }
    Ok(code)
}

/// The options of ours. mount(8) says `rw` where nobody said `ro`: that takes nothing back. Paths
/// are made absolute: the daemon leaves this folder.
fn given(helper: &Helper) -> Result<Vec<Given>, Failure> {
    let words = helper.options.iter().flat_map(|text| mount_words(text));
    let said = words.filter(|word| word.key != "rw").collect::<Vec<_>>();
    let mut given = split_options(&join_options(&said));
    if helper.sloppy {
        given.retain(|one| one.key == "config" || table::find(&one.key).is_ok());
    }
    for one in &mut given {
        let is_path = one.key == "config"
            || table::find(&one.key).is_ok_and(|option| option.kind == Kind::Path);
        if let Some(value) = one
            .value
            .as_mut()
            .filter(|value| is_path && !value.is_empty())
        {
            *value = absolute(Path::new(value))?.to_string_lossy().into_owned();
        }
    }
    Ok(given)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Changes what the kernel enforces; all else stays as it is until the next mount.
fn remount(helper: &Helper, words: &[Given]) -> Result<(), Failure> {
    // FUSE mounts of ours are always so.
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for word in words {
        match word.key.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags -= MsFlags::MS_RDONLY,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "exec" => flags -= MsFlags::MS_NOEXEC,
            "bind" => flags |= MsFlags::MS_BIND,
            _ => {}
        }
    }
    if helper.fake {
        return Ok(());
    }
    let none: Option<&str> = None;
    nix::mount::mount(none, &helper.dir, none, flags, none).map_err(|errno| {
        let dir = helper.dir.display();
        Failure::Mount(format!("{dir} cannot be remounted: {}", errno.desc()))
    })
}

/// Goes into the mount namespace of a process, by its id, or of a file.
fn enter(namespace: &str) -> Result<(), Failure> {
    let path = if namespace.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("/proc/{namespace}/ns/mnt")
    } else {
        namespace.to_owned()
    };
    File::open(&path)
        .and_then(|file| {
            let kind = Some(LinkNameSpaceType::Mount);
            move_into_link_name_space(file.as_fd(), kind).map_err(std::io::Error::from)
        })
        .map_err(|error| Failure::Mount(format!("the namespace {path} cannot be entered: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Helper {
        let words = line.split_whitespace();
        from_matches(&clap().try_get_matches_from(words).unwrap())
    }

    #[test]
    fn the_program_is_a_helper_by_its_name() {
        for (name, helper) in [
            ("/sbin/mount.kryptonfs", true),
            ("mount.fuse.kryptonfs", true),
            ("/usr/bin/kryptonfs", false),
            ("mount.kryptonfs/kryptonfs", false),
        ] {
            assert_eq!(is_called(Some(OsStr::new(name))), helper, "{name}");
        }
        assert!(!is_called(None));
    }

    #[test]
    fn what_mount_gives_is_understood_in_any_order() {
        for line in [
            "mount.kryptonfs b:/p /mnt -sfnv -N 7 -t fuse.kryptonfs -o rw,ttl=1s -o ro",
            "mount.kryptonfs -t kryptonfs -n -v -f -s -N7 -o rw,ttl=1s -oro b:/p /mnt",
        ] {
            let want = Helper {
                source: "b:/p".into(),
                dir: "/mnt".into(),
                options: vec!["rw,ttl=1s".into(), "ro".into()],
                fake: true,
                verbose: true,
                sloppy: true,
                namespace: Some("7".into()),
            };
            assert_eq!(parsed(line), want, "{line}");
        }
    }

    #[test]
    fn rw_takes_nothing_back_and_commas_stay_within_their_value() {
        let helper = parsed(r"mount.kryptonfs b /mnt -o rw,ca_file=/a\,b,nofail,ro,_netdev");
        let want = [
            Given::new("ca_file", "/a,b"),
            Given {
                key: "ro".into(),
                value: None,
            },
        ];
        assert_eq!(given(&helper).unwrap(), want);
        let helper = parsed("mount.kryptonfs b /mnt -o rw");
        assert_eq!(given(&helper).unwrap(), []);
    }

    #[test]
    fn only_a_sloppy_mount_passes_over_what_is_not_known() {
        let helper = parsed("mount.kryptonfs b /mnt -s -o nonempty,ttl=1s");
        assert_eq!(given(&helper).unwrap(), [Given::new("ttl", "1s")]);
        let helper = parsed("mount.kryptonfs b /mnt -o nonempty,network=open,region=x");
        let Err(Failure::Usage(line)) = run(&helper) else {
            panic!("mounted");
        };
        assert!(line.contains("nonempty"), "{line}");
    }

    #[test]
    fn paths_mean_the_folder_mount_was_run_in() {
        let helper = parsed("mount.kryptonfs b /mnt -o ca-file=x.pem,config=y.toml,spool_dir=");
        let here = std::env::current_dir().unwrap();
        let shown = |name: &str| here.join(name).to_string_lossy().into_owned();
        let want = [
            Given::new("ca-file", &shown("x.pem")),
            Given::new("config", &shown("y.toml")),
            Given::new("spool_dir", ""),
        ];
        assert_eq!(given(&helper).unwrap(), want);
    }
}
