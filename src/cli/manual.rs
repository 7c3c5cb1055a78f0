//! The manual pages and the completion of bash, made of the command line's definition and the table of
//! options, for packages (feature `manual`).
//!
//! Invariant: nothing is told here that the definitions tell; only what belongs to no single command is
//! written out.

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command as Clap};
use clap_complete::Shell;
use roff::{Inline, Roff, bold, italic, roman};

use super::{done, helper, parse};
use crate::config::table::{Kind, TABLE};

const TYPES: &str = "fuse.kryptonfs and kryptonfs";
const DESCRIPTION: &[&str] = &[
    "kryptonfs mounts an Amazon S3 bucket as a directory on a device that reaches the world through a SORACOM SIM. \
     What is written and closed is made safe on the device at once, and is brought to S3 when the link allows, with \
     as few bytes as can be. Requests are signed with credentials that SORACOM Krypton issues for the SIM; no key \
     is stored on the device.",
    "With interface=NAME every socket, that of the name server too, goes through that interface or not at all.",
];
const FILES: &[(&str, &str)] = &[
    (
        "/etc/kryptonfs/BUCKET.toml",
        "Options of that bucket's mounts, a line each: kryptonfs.toml(5).",
    ),
    (
        "/etc/kryptonfs/PLACE.conf",
        "SOURCE=... for the unit kryptonfs@PLACE.service.",
    ),
    (
        "/var/lib/kryptonfs",
        "Spools: what is not in S3 yet. Never to be removed by hand: see export.",
    ),
    (
        "/var/cache/kryptonfs",
        "Copies of what is in S3. May be removed while nothing is mounted.",
    ),
];
const EXIT: &[(&str, &str)] = &[
    ("0", "Done."),
    (
        "1",
        "Wrong usage, or not done; status -q: something waits to be sent; doctor: a row is FAIL.",
    ),
    ("2", "status -q: trouble; somebody has to look."),
    ("32", "Not mounted."),
];

/// Writes all of it into the folder `dir`, which is made if it is absent.
#[must_use]
pub fn manual(dir: &Path) -> ExitCode {
    let failed = |error: std::io::Error| {
        format!(
            "{}: {error}: name a folder that can be written",
            dir.display()
        )
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| {
        let files = files();
        let mut all = files.iter();
        all.try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
    });
    done(written.map_err(failed))
}

/// Each file by its name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut completion = Vec::new();
    clap_complete::generate(
        Shell::Bash,
        &mut parse::root(),
        "kryptonfs",
        &mut completion,
    );
    vec![
        ("kryptonfs.1", program().render().into_bytes()),
        ("mount.kryptonfs.8", mount_helper().render().into_bytes()),
        ("kryptonfs.toml.5", options().render().into_bytes()),
        ("kryptonfs.bash", completion),
    ]
}

fn page(name: &str, section: &str, about: &str) -> Roff {
    let version = concat!("kryptonfs ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", [name, section, "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {about}"))]);
    page
}

fn entry(page: &mut Roff, head: impl Into<Vec<Inline>>, text: &str) {
    page.control("TP", []);
    page.text(head.into());
    page.text([roman(text)]);
}

fn table(page: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    page.control("SH", [title]);
    for (head, text) in rows {
        entry(page, [bold(*head)], text);
    }
}

fn program() -> Roff {
    let mut root = parse::root();
    root.build();
    let mut page = page("kryptonfs", "1", &about(&root));
    page.control("SH", ["SYNOPSIS"]);
    page.text([
        bold("kryptonfs"),
        roman(" "),
        italic("COMMAND"),
        roman(" ..."),
    ]);
    page.control("SH", ["DESCRIPTION"]);
    for text in DESCRIPTION {
        page.control("PP", []);
        page.text([roman(*text)]);
    }
    page.control("SH", ["COMMANDS"]);
    for command in root
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        page.control("SS", [command.get_name()]);
        page.text(synopsis(command));
        page.control("PP", []);
        page.text([roman(format!("{}.", about(command)))]);
        arguments(&mut page, command);
        if has_options(command) {
            page.control("PP", []);
            page.text([roman(
                "Options: any of kryptonfs.toml(5), as --key value or in -o key=value,...; --config FILE.",
            )]);
        }
    }
    table(&mut page, "EXIT STATUS", EXIT);
    table(&mut page, "FILES", FILES);
    see_also(
        &mut page,
        "kryptonfs.toml(5), mount.kryptonfs(8), mount(8), fstab(5)",
    );
    page
}

fn mount_helper() -> Roff {
    let mut helper = helper::clap();
    helper.build();
    let mut page = page("mount.kryptonfs", "8", &about(&helper));
    page.control("SH", ["SYNOPSIS"]);
    page.text(synopsis(&helper));
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(format!(
        "mount(8) runs it for the types {TYPES}. SOURCE is bucket, bucket:/prefix or s3://bucket/prefix. It \
         answers once the mount does, and leaves a supervisor behind, which starts the daemon again should it die. \
         A silent link, Krypton or S3 is no reason not to mount; a plain refusal is."
    ))]);
    page.control("SH", ["OPTIONS"]);
    arguments(&mut page, &helper);
    page.control("PP", []);
    page.text([roman(
        "After -o: those of kryptonfs.toml(5), and the words of mount(8) and systemd.mount(5).",
    )]);
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    page.text([roman(
        "s3://bucket/prefix /mnt/s3 kryptonfs region=ap-northeast-1,interface=wwan0,uid=pi,gid=pi,_netdev,nofail 0 0",
    )]);
    page.control("fi", []);
    let exit: Vec<_> = EXIT
        .iter()
        .filter(|(code, _)| *code != "2")
        .copied()
        .collect();
    table(&mut page, "EXIT STATUS", &exit);
    see_also(
        &mut page,
        "kryptonfs(1), kryptonfs.toml(5), mount(8), fstab(5)",
    );
    page
}

fn options() -> Roff {
    let mut page = page("kryptonfs.toml", "5", "options of kryptonfs mounts");
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "/etc/kryptonfs/BUCKET.toml, or the file that config=FILE names, holds options of a mount, a line each: \
         key = value. The same keys are taken in -o key=value,... (fstab(5) too) and as --key value, with - or _. \
         What the command line says goes before the file. Sizes: 8MiB. Times: 500ms, 30s, 5m, 1h, 2d.",
    )]);
    page.control("SH", ["OPTIONS"]);
    for opt in TABLE {
        let head = [bold(opt.key), roman(" = "), italic(opt.kind.shape())];
        let more = match opt.kind {
            Kind::Word(_) | Kind::Flag => String::new(),
            kind if kind.is_list() => " Several: [\"...\", \"...\"].".into(),
            _ => String::new(),
        };
        let default = match opt.default {
            "" => String::new(),
            default => format!(" Default: {default}."),
        };
        entry(&mut page, head, &format!("{}.{default}{more}", opt.doc));
    }
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    page.text([roman(
        "region = \"ap-northeast-1\"\ninterface = \"wwan0\"\nttl = \"5m\"",
    )]);
    page.control("fi", []);
    see_also(&mut page, "kryptonfs(1), mount.kryptonfs(8)");
    page
}

fn see_also(page: &mut Roff, text: &str) {
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(text)]);
}

fn about(command: &Clap) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn is_of_table(arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    ["o", "config"].contains(&id) || TABLE.iter().any(|opt| opt.key == id)
}

fn has_options(command: &Clap) -> bool {
    command.get_arguments().any(is_of_table)
}

/// Its own arguments: not those of the table, nor help.
fn own(command: &Clap) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let is_help = ["help", "version"].contains(&arg.get_id().as_str());
        !(is_of_table(arg) || is_help || arg.is_hide_set())
    })
}

fn synopsis(command: &Clap) -> Vec<Inline> {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut line = vec![bold(name)];
    if has_options(command) {
        line.extend([roman(" ["), italic("OPTIONS"), roman("]")]);
    }
    for arg in own(command) {
        line.push(roman(if arg.is_required_set() { " " } else { " [" }));
        line.extend(spelled(arg));
        if !arg.is_required_set() {
            line.push(roman("]"));
        }
    }
    line
}

/// `-q`, `--timeout TIME`, `DIR`.
fn spelled(arg: &Arg) -> Vec<Inline> {
    let mut line = Vec::new();
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => line.push(bold(format!("-{short}, --{long}"))),
        (Some(short), None) => line.push(bold(format!("-{short}"))),
        (None, Some(long)) => line.push(bold(format!("--{long}"))),
        (None, None) => return vec![italic(arg.get_id().as_str())],
    }
    let shapes = arg.get_value_names().into_iter().flatten();
    if arg.get_action().takes_values() {
        line.extend(shapes.flat_map(|shape| [roman(" "), italic(shape.as_str())]));
    }
    line
}

fn arguments(page: &mut Roff, command: &Clap) {
    for arg in own(command) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default: Vec<_> = arg
            .get_default_values()
            .iter()
            .filter_map(|value| value.to_str())
            .collect();
        let default = match arg.get_action().takes_values() && !default.is_empty() {
            true => format!(" Default: {}.", default.join(" ")),
            false => String::new(),
        };
        entry(page, spelled(arg), &format!("{help}.{default}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        let file = files().into_iter().find(|(file, _)| *file == name);
        let text = String::from_utf8(file.unwrap().1).unwrap();
        // As roff writes a hyphen and an apostrophe.
        text.replace(r"\-", "-").replace(r"\*(Aq", "'")
    }

    #[test]
    fn every_option_is_in_its_manual_page_with_its_default() {
        let page = text("kryptonfs.toml.5");
        for opt in TABLE {
            let (_, entry) = page
                .split_once(&format!(".TP\n\\fB{}\\fR", opt.key))
                .unwrap();
            let (entry, _) = entry.split_once("\n.").unwrap();
            assert!(entry.contains(opt.doc), "{}: {entry}", opt.key);
            let default = format!("Default: {}.", opt.default);
            assert_eq!(
                entry.contains(&default),
                !opt.default.is_empty(),
                "{}: {entry}",
                opt.key
            );
        }
    }

    #[test]
    fn every_command_is_in_the_manual_and_the_completion_but_hidden_ones() {
        let (page, completion) = (text("kryptonfs.1"), text("kryptonfs.bash"));
        for command in parse::root().get_subcommands() {
            let name = command.get_name();
            let is_told = page.contains(&format!(".SS {name}\n"))
                || page.contains(&format!(".SS \"{name}\"\n"));
            assert_eq!(is_told, !command.is_hide_set(), "{name}");
            assert!(command.is_hide_set() || completion.contains(command.get_name()));
        }
    }

    #[test]
    fn bash_completes_a_command_and_an_option() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kryptonfs.bash");
        std::fs::write(&file, text("kryptonfs.bash")).unwrap();
        let complete = |words: &str, at: usize| {
            let script = format!(
                "source '{}'; COMP_WORDS=({words}); COMP_CWORD={at}; _kryptonfs kryptonfs \"${{COMP_WORDS[$COMP_CWORD]}}\" x; \
                 echo \"${{COMPREPLY[*]}}\"",
                file.display()
            );
            let output = std::process::Command::new("bash")
                .args(["--norc", "-c", &script])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(complete("kryptonfs stat", 1).trim(), "status");
        let told = complete("kryptonfs mount --interf", 2);
        assert_eq!(told.trim(), "--interface");
    }
}
