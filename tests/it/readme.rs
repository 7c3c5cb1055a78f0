//! The README says what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kryptonfs::config::table::TABLE;

/// The rows of the table of options: default and text, by key.
fn told(readme: &str) -> BTreeMap<&str, (&str, &str)> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
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
