//! The shape of the house, checked: who may import whom, and how long a file may be.
//!
//! The arrows are read off the paths that begin with `crate::` in `src/`. What a module may import
//! is `ALLOWED`; the reason is printed with a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Open to all.
const GROUND: [&str; 5] = ["types", "disk", "clock", "stats", "seeded"];
const LINES_MAX: usize = 600;

/// Module, what it may import beside the ground, and why no more.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("types", &[], "the ground knows nothing of the rest"),
    ("disk", &[], "the ground knows nothing of the rest"),
    ("clock", &[], "the ground knows nothing of the rest"),
    ("stats", &[], "the ground knows nothing of the rest"),
    ("seeded", &[], "a list of bugs, all of them absent"),
    ("fuse", &["fs"], "so that the transport can change"),
    (
        "fs",
        &["tree", "read", "log", "store"],
        "the callers stand on the core; they never call each other",
    ),
    (
        "drain",
        &["tree", "read", "log", "store"],
        "the callers stand on the core; they never call each other",
    ),
    (
        "read",
        &["cache", "log", "store"],
        "bytes of any extent: the only user of the cache",
    ),
    (
        "tree",
        &["log"],
        "it decides and records; it knows no network",
    ),
    ("cache", &[], "losing it costs time, so it knows of nothing"),
    (
        "log",
        &[],
        "what was acknowledged depends on the disk alone",
    ),
    ("net", &[], "the only dialler; it knows not for whom"),
    (
        "store",
        &[],
        "the twin and the decorators need no world (store/s3 may: see below)",
    ),
    (
        "store/s3",
        &["store", "creds", "net"],
        "the SDK adapter: the one place of the store that meets the world",
    ),
    ("creds", &["net"], "leases come over the line, nothing else"),
    (
        "doctor",
        &["store", "creds", "net"],
        "parts are handed to it",
    ),
    (
        "config",
        &[
            "fuse", "fs", "drain", "tree", "read", "cache", "log", "store", "store/s3", "creds",
            "net",
        ],
        "it makes each module's Config, from one table of options",
    ),
    (
        "daemon",
        &[
            "doctor", "config", "fuse", "fs", "drain", "tree", "read", "cache", "log", "store",
            "store/s3", "creds", "net",
        ],
        "the composition root: builds all below",
    ),
    (
        "cli",
        &["config", "doctor", "daemon", "tree"],
        "the door: what it shows it is told by the daemon",
    ),
    (
        "sim",
        &[],
        "an annex: no room opens into it, it opens into none",
    ),
    (
        "sim/demo",
        &["sim", "config", "daemon"],
        "the demo uses the product as a user would",
    ),
    (
        "main",
        &["cli", "daemon", "sim", "sim/demo"],
        "a match on the command",
    ),
    ("lib", &[], "it only lists the modules"),
];

#[test]
fn arrows_go_down() {
    let mut violations = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let Some((_, allowed, reason)) = ALLOWED.iter().find(|(name, ..)| *name == module) else {
            violations.push(format!(
                "{}: module {module} is not in the table",
                path.display()
            ));
            continue;
        };
        for target in imports(&text) {
            let same = target == module || target.starts_with(&format!("{module}/"));
            if !same && !GROUND.contains(&target.as_str()) && !allowed.contains(&target.as_str()) {
                violations.push(format!(
                    "{}: {module} imports {target}, but may not: {reason}",
                    path.display()
                ));
            }
        }
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn only_the_door_and_the_demo_know_the_simulated_cloud() {
    for (path, text) in sources() {
        let module = module_of(&path);
        if !module.starts_with("sim") && !["main", "lib"].contains(&module.as_str()) {
            let names_it = imports(&text)
                .iter()
                .any(|target| target.starts_with("sim"));
            assert!(!names_it, "{} names sim", path.display());
        }
    }
}

#[test]
fn only_net_opens_sockets_to_the_world() {
    // The control socket is a Unix one, and the simulated cloud listens on loopback.
    let dialling = ["TcpStream::connect", "TcpSocket::new", "UdpSocket::bind"];
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "net" || module.starts_with("sim") {
            continue;
        }
        let code = without_tests(&text);
        for call in dialling {
            assert!(!code.contains(call), "{} calls {call}", path.display());
        }
    }
}

#[test]
fn files_fit_in_a_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = [root.join("src"), root.join("tests")];
    let long: Vec<_> = all
        .iter()
        .flat_map(|dir| rust_files(dir))
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn no_environment_is_read_below_the_door() {
    for (path, text) in sources() {
        let mut code = without_tests(&text);
        // systemd says by these where it listens; nothing else of the environment is of any meaning.
        if path.ends_with("daemon/notify.rs") {
            let (keys, allowed) = (
                ["NOTIFY_SOCKET", "WATCHDOG_"],
                code.matches("_os(\"").count(),
            );
            assert!(allowed == 1 && keys.iter().all(|key| code.contains(key)));
            code = code.replace("std::env::var_os(\"NOTIFY_SOCKET\")", "");
            code = code.replace("std::env::var(key)", "");
        }
        let reads = ["env::var", "env::vars", "std::env::home_dir"];
        for call in reads {
            assert!(!code.contains(call), "{} reads {call}", path.display());
        }
    }
}

/// All of `src/` but files of tests, with the text.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code = rust_files(&root).into_iter().filter(|path| {
        path.iter()
            .all(|part| part != "tests" && part != "tests.rs")
    });
    let found: Vec<_> = code
        .map(|path| {
            let mut text = fs::read_to_string(&path).unwrap();
            let below = path.strip_prefix(&root).unwrap().to_owned();
            if below == Path::new("main.rs") {
                // The binary names the library by its own name.
                text = text.replace("kryptonfs::", "crate::");
            }
            (below, text)
        })
        .collect();
    assert!(found.len() > 10, "src/ was not found");
    found
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// `store/s3` and `sim/demo` are modules of their own here.
fn module_of(path: &Path) -> String {
    let parts: Vec<_> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    match parts.as_slice() {
        [first, second, ..] if is_own(first, second) => format!("{first}/{second}"),
        [first, ..] => first.clone(),
        [] => String::new(),
    }
}

fn is_own(first: &str, second: &str) -> bool {
    matches!((first, second), ("store", "s3") | ("sim", "demo"))
}

/// Modules named by `crate::` paths outside of tests, `use crate::{a, b}` groups included.
fn imports(text: &str) -> BTreeSet<String> {
    let code = without_tests(text);
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let preceded = code[..at].chars().next_back();
        if preceded.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$')
        {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            for item in split_group(group) {
                found.extend(target(&item));
            }
        } else {
            let path: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect();
            found.extend(target(&path));
        }
    }
    found
}

/// The items of a `{...}` group at its outermost level.
fn split_group(group: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            '{' | '}' => {
                depth += if c == '{' { 1 } else { -1 };
                item.push(c);
            }
            _ => item.push(c),
        }
    }
    items.push(item);
    items
}

fn target(path: &str) -> Option<String> {
    let mut parts = path.trim().split("::");
    let first = parts.next()?.trim();
    if !first.starts_with(|c: char| c.is_lowercase()) {
        return None;
    }
    let second = parts.next().unwrap_or_default();
    Some(if is_own(first, second) {
        format!("{first}/{second}")
    } else {
        first.to_owned()
    })
}

/// The text up to its inline tests, without comments.
fn without_tests(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reader_of_imports_sees_each_form() {
    let text = "use crate::log::{Log, record};\nuse crate::{store::{self, Key}, tree};\n\
                // crate::fuse::x\nfn f() { crate::net::dial(); $crate::macros::m!() }\n\
                use crate::store::s3::S3Store;\n#[cfg(test)]\nmod tests { use crate::cli; }";
    let seen: Vec<_> = imports(text).into_iter().collect();
    assert_eq!(seen, ["log", "net", "store", "store/s3", "tree"]);
}

#[test]
fn no_module_imports_itself_in_a_circle() {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let top = module.split('/').next().unwrap_or_default().to_owned();
        for target in imports(&text) {
            let target = target.split('/').next().unwrap_or_default().to_owned();
            if target != top {
                arrows.entry(top.clone()).or_default().insert(target);
            }
        }
    }
    for start in arrows.keys() {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> = arrows[start].iter().cloned().collect();
        while let Some(next) = open.pop() {
            assert_ne!(&next, start, "a circle through {start}: {arrows:?}");
            if reached.insert(next.clone()) {
                open.extend(arrows.get(&next).into_iter().flatten().cloned());
            }
        }
    }
}

/// What the clients of S3, Cognito, Krypton and the web bring with them, build dependencies
/// included. The bound is what the SDK alone brings with its defaults trimmed and its own HTTP
/// client; `idna_adapter` 1.0.0 in Cargo.lock (names of hosts are ASCII here) leaves out the
/// Unicode tables, 20 crates.
#[test]
fn the_cloud_stack_is_154_crates_at_most_with_one_http_and_one_tls() {
    let roots = [
        "aws-config",
        "aws-sdk-cognitoidentity",
        "aws-sdk-s3",
        "aws-smithy-runtime",
        "hyper-rustls",
        "hyper-util",
        "reqwest",
        "tokio",
    ];
    let mut crates = BTreeSet::new();
    for root in roots {
        let tree = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal,build"])
            .args(["--prefix", "none", "-f", "{p}", "-p", root])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo starts");
        assert!(tree.status.success(), "{root}: {tree:?}");
        let text = String::from_utf8_lossy(&tree.stdout);
        let names = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        });
        crates.extend(names);
    }
    println!("the cloud stack: {} crates", crates.len());
    assert!((100..=154).contains(&crates.len()), "{crates:#?}");
    for one in [
        "hyper ",
        "h2 ",
        "rustls ",
        "ring ",
        "aws-lc-rs ",
        "native-tls ",
    ] {
        let found = crates.iter().filter(|name| name.starts_with(one)).count();
        assert!(found <= 1, "{one}: {crates:#?}");
    }
    let stacks = ["aws-lc-rs ", "native-tls ", "openssl "];
    let other = |name: &&String| stacks.iter().any(|stack| name.starts_with(stack));
    assert_eq!(crates.iter().find(other), None, "TLS is rustls on ring");
}
