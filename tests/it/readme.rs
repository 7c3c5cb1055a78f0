//! The README says what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kryptonfs::config::table::TABLE;

/// The rows of the table of options: default and text, by key.
fn told(readme: &str) -> BTreeMap<&str, (&str, &str)> {
    let section = ["\n## Options\n", "\n## オプション\n"]
        .iter()
        .find_map(|title| readme.split_once(title));
    let (_, section) = section.expect("a section of options");
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (key, rest) = row.split_once("` | ")?;
        let (default, doc) = rest.split_once(" | ")?;
        Some((key, (default.trim().trim_matches('`'), doc)))
    })
    .collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Each option with its default, and no other.
fn lists_them_all(told: &BTreeMap<&str, (&str, &str)>) {
    for option in TABLE {
        let row = told.get(option.key);
        let (default, _) = row.unwrap_or_else(|| panic!("{} is not there", option.key));
        assert_eq!(*default, option.default, "{}", option.key);
    }
    assert_eq!(told.len(), TABLE.len(), "options that are not there");
}

#[test]
fn the_readme_lists_every_option_with_its_default() {
    let readme = read("README.md");
    let told = told(&readme);
    lists_them_all(&told);
    for option in TABLE {
        let (_, doc) = told[option.key];
        assert!(doc.starts_with(option.doc), "{}: {doc}", option.key);
    }
}

#[test]
fn the_japanese_readme_lists_every_option_with_its_default() {
    lists_them_all(&told(&read("README.ja.md")));
}

/// All that the program can say, its line breaks within a text taken out.
fn source(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &source(&path);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text
                .lines()
                .map(|line| line.trim_start().trim_end_matches('\\'));
            all += &lines.collect::<String>();
        }
    }
    all
}

#[test]
fn what_to_do_when_something_is_wrong_is_found_by_what_the_program_really_says() {
    let source = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let texts = |name: &str, title: &str| -> Vec<String> {
        let readme = read(name);
        let (_, section) = readme.split_once(title).expect("the section");
        let section = section
            .split_once("\n## ")
            .map_or(section, |(section, _)| section);
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split_once("` | ").unwrap().0.to_owned())
            .collect()
    };
    let english = texts("README.md", "\n## When something is wrong\n");
    assert!(english.len() > 10);
    for text in &english {
        assert!(
            source.contains(text.as_str()),
            "the program does not say {text:?}"
        );
    }
    assert_eq!(texts("README.ja.md", "\n## うまくいかないとき\n"), english);
}
