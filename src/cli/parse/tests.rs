use super::*;
use std::time::Duration;

fn parsed(line: &str) -> Result<Command, Wrong> {
    parse(std::iter::once("kryptonfs").chain(line.split_whitespace()))
}

fn usage(line: &str) -> String {
    match parsed(line) {
        Err(Wrong::Usage(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn clap_finds_no_fault_with_its_own_definition() {
    root().debug_assert();
}

#[test]
fn the_three_spellings_come_in_the_order_of_the_line() {
    let line = "mount s3://b/p /mnt --ttl 1s -o ttl=2s,ro --endpoint_url https://x --ttl=3s \
                --allow-other --cache-max 1G -o nofail,config=/x.toml";
    let Ok(Command::Mount {
        source,
        dir,
        given,
        life: Life::Foreground,
    }) = parsed(line)
    else {
        panic!("not a mount");
    };
    assert_eq!((source.as_str(), dir), ("s3://b/p", PathBuf::from("/mnt")));
    let bare = |key: &str| Given {
        key: key.into(),
        value: None,
    };
    let want = [
        Given::new("ttl", "1s"),
        Given::new("ttl", "2s"),
        bare("ro"),
        Given::new("endpoint_url", "https://x"),
        Given::new("ttl", "3s"),
        Given::new("allow_other", "true"),
        Given::new("cache_max", "1G"),
        Given::new("config", "/x.toml"),
    ];
    assert_eq!(given, want);
}

#[test]
fn a_bare_flag_does_not_swallow_the_word_behind_it() {
    let Ok(Command::Mount { source, given, .. }) = parsed("mount --ro bucket /mnt") else {
        panic!("not a mount");
    };
    assert_eq!(source, "bucket");
    assert_eq!(given, [Given::new("ro", "true")]);
}

#[test]
fn every_option_of_the_table_can_be_said_the_long_way() {
    for opt in TABLE {
        let line = format!("mount b /mnt --{}={}", opt.key.replace('_', "-"), "x");
        let Ok(Command::Mount { given, .. }) = parsed(&line) else {
            panic!("{line}");
        };
        assert_eq!(given, [Given::new(opt.key, "x")]);
    }
}

#[test]
fn mistakes_are_told_in_one_line() {
    for (line, word) in [
        ("mount b /mnt --regoin x", "did you mean region?"),
        ("mount b /mnt --regoin=x", "did you mean region?"),
        ("credentials b --regoin x", "did you mean region?"),
        ("doctor b --regoin x", "did you mean region?"),
        ("mount b", "DIR"),
        ("mount", "SOURCE"),
        ("doctor", "SOURCE"),
        ("frobnicate", "frobnicate"),
        ("status", "DIR"),
        ("status /mnt --regoin", "--regoin"),
        ("drain /mnt --timeout soon", "soon"),
        ("mount b /mnt --region", "region"),
        ("mount b /mnt extra", "extra"),
        ("", "kryptonfs mount"),
    ] {
        let text = usage(line);
        assert!(text.contains(word), "{line}: {text}");
        assert!(!text.contains('\n'), "{line}: {text}");
    }
}

#[test]
fn help_is_asked_for_and_shows_every_option() {
    let Err(Wrong::Help(text)) = parsed("mount --help") else {
        panic!("no help");
    };
    for opt in TABLE {
        assert!(
            text.contains(&format!("--{}", opt.key.replace('_', "-"))),
            "{}",
            opt.key
        );
    }
    assert!(matches!(parsed("--version"), Err(Wrong::Help(text)) if text.contains("0.")));
}

#[test]
fn credentials_take_what_a_mount_takes_and_need_no_bucket() {
    let source = Some("s3://b/p".to_owned());
    let given = vec![Given::new("interface", "wwan0"), Given::new("ttl", "1s")];
    let command = Command::Credentials { source, given };
    assert_eq!(
        parsed("credentials s3://b/p -o interface=wwan0 --ttl 1s"),
        Ok(command)
    );
    let (source, given) = (None, vec![Given::new("config", "/x.toml")]);
    let command = Command::Credentials { source, given };
    assert_eq!(parsed("credentials --config /x.toml"), Ok(command));
}

#[test]
fn doctor_takes_what_a_mount_takes_but_no_directory() {
    let command = Command::Doctor {
        source: "s3://b/p".into(),
        given: vec![Given::new("interface", "wwan0")],
        how: Examining {
            json: true,
            set_up_canary: false,
            hops_max: 10,
        },
    };
    assert_eq!(
        parsed("doctor s3://b/p -o interface=wwan0 --json"),
        Ok(command)
    );
}

#[test]
fn status_and_drain_know_their_mount() {
    let dir = PathBuf::from("/mnt");
    for (flags, how) in [
        ("", Telling::Once),
        ("--json", Telling::Json),
        ("--watch", Telling::Watch),
        ("-q", Telling::Quiet),
        ("--quiet --json", Telling::Quiet),
    ] {
        let dir = dir.clone();
        let line = format!("status /mnt {flags}");
        assert_eq!(parsed(&line), Ok(Command::Status { dir, how }));
    }
    let level = "debug".to_owned();
    let command = Command::LogLevel {
        dir: dir.clone(),
        level,
    };
    assert_eq!(parsed("log-level /mnt debug"), Ok(command));
    assert_eq!(
        parsed("retry /mnt"),
        Ok(Command::Retry { dir: dir.clone() })
    );
    let export = |path: Option<&str>, remove| Command::Export {
        source: dir.clone(),
        to: PathBuf::from("to"),
        path: path.map(Into::into),
        remove,
    };
    assert_eq!(parsed("export /mnt to"), Ok(export(None, false)));
    assert_eq!(
        parsed("export /mnt to a/b --remove"),
        Ok(export(Some("a/b"), true))
    );
    let paths = vec![PathBuf::from("/mnt/a"), PathBuf::from("b")];
    assert_eq!(parsed("refresh /mnt/a b"), Ok(Command::Refresh { paths }));
    let drain = |seconds, progress| Command::Drain {
        dir: dir.clone(),
        timeout: Duration::from_secs(seconds),
        progress,
    };
    assert_eq!(parsed("drain /mnt"), Ok(drain(600, false)));
    assert_eq!(
        parsed("drain /mnt --timeout 5s --progress"),
        Ok(drain(5, true))
    );
}

#[cfg(feature = "sim")]
#[test]
fn the_demo_has_a_place_of_its_own() {
    let demo = |dir: &str, tour_only| Command::Demo {
        dir: dir.into(),
        tour_only,
    };
    assert_eq!(parsed("demo"), Ok(demo("./kryptonfs-demo", false)));
    assert_eq!(parsed("demo /x --tour-only"), Ok(demo("/x", true)));
}
