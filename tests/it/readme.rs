//! The README says what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kryptonfs::config::table::TABLE;

#[test]
fn the_readme_lists_every_option_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let (key, rest) = row.split_once("` | ")?;
            let (default, doc) = rest.split_once(" | ")?;
            Some((key, (default.trim().trim_matches('`'), doc)))
        })
        .collect();
    for option in TABLE {
        let (default, doc) = told
            .get(option.key)
            .unwrap_or_else(|| panic!("{} is not in the README", option.key));
        assert_eq!(*default, option.default, "{}", option.key);
        assert!(doc.starts_with(option.doc), "{}: {doc}", option.key);
    }
    assert_eq!(
        told.len(),
        TABLE.len(),
        "the README lists options that are not there"
    );
}
