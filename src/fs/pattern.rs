//! Paths by pattern, such as `conf/*.json` or `models/**`, a component at a time.
//!
//! Invariant: pure; a pattern without wildcards in a component names one child of a directory, so that
//! the directory need not be listed.

use std::collections::BTreeSet;

use crate::types::Name;

/// A component.
#[derive(Clone, Debug)]
enum Piece {
    /// This name.
    One(Name),
    /// Names like this.
    Like(glob::Pattern),
    /// `**`: any directories, also none; at the end: all files below.
    Deep,
}

/// A pattern: relative to the mount.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Piece>);

/// How far a directory has come in each of several patterns: (pattern, component).
pub(super) type States = Vec<(usize, usize)>;

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix('/').unwrap_or(text);
        let piece = |part: &str| match part {
            "**" => Ok(Piece::Deep),
            _ if part.contains("**") => Err(format!(
                "{text}: `**` stands between slashes, for any directories"
            )),
            _ if part.contains(['*', '?', '[']) => {
                let glob = glob::Pattern::new(part);
                glob.map(Piece::Like)
                    .map_err(|error| format!("{text}: {}", error.msg))
            }
            _ => Name::new(part)
                .map(Piece::One)
                .map_err(|_| format!("{text}: no path below the mount, such as conf/*.json")),
        };
        path.split('/')
            .map(piece)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Where the root is.
pub(super) fn start(patterns: &[Pattern]) -> States {
    through(patterns, (0..patterns.len()).map(|pattern| (pattern, 0)))
}

/// With what `**` stands for if it stands for nothing.
fn through(patterns: &[Pattern], states: impl Iterator<Item = (usize, usize)>) -> States {
    let mut all = States::new();
    for (pattern, mut at) in states {
        let pieces = &patterns[pattern].0;
        loop {
            if !all.contains(&(pattern, at)) {
                all.push((pattern, at));
            }
            if !matches!(pieces.get(at), Some(Piece::Deep)) || at + 1 == pieces.len() {
                break;
            }
            at += 1;
        }
    }
    all
}

/// The names to look for in a directory; `None`: it has to be listed.
pub(super) fn names(patterns: &[Pattern], states: &States) -> Option<Vec<Name>> {
    let name = |(pattern, at): &(usize, usize)| match &patterns[*pattern].0[*at] {
        Piece::One(name) => Some(name.clone()),
        Piece::Like(_) | Piece::Deep => None,
    };
    let names: Option<BTreeSet<Name>> = states.iter().map(name).collect();
    names.map(|names| names.into_iter().collect())
}

/// What a child of a directory is: whether a file of that name matches, and where a directory of that
/// name is.
pub(super) fn step(patterns: &[Pattern], states: &States, name: &Name) -> (bool, States) {
    let (mut is_match, mut next) = (false, States::new());
    for &(pattern, at) in states {
        let pieces = &patterns[pattern].0;
        let is_last = at + 1 == pieces.len();
        let fits = match &pieces[at] {
            Piece::One(one) => one == name,
            Piece::Like(glob) => glob.matches(name.as_str()),
            Piece::Deep => true,
        };
        if !fits {
            continue;
        }
        is_match |= is_last;
        if matches!(pieces[at], Piece::Deep) {
            next.push((pattern, at));
        } else if !is_last {
            next.push((pattern, at + 1));
        }
    }
    (is_match, through(patterns, next.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[Pattern], path: &str) -> bool {
        let (mut states, mut found) = (start(patterns), false);
        for part in path.split('/') {
            let name = Name::new(part).unwrap();
            (found, states) = step(patterns, &states, &name);
        }
        found
    }

    fn patterns(all: &[&str]) -> Vec<Pattern> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_pattern_is_matched_component_by_component() {
        for (pattern, path, is_match) in [
            ("conf/*.json", "conf/a.json", true),
            ("conf/*.json", "conf/a.txt", false),
            ("conf/*.json", "conf/d/a.json", false),
            ("/conf/a", "conf/a", true),
            ("models/**", "models/a", true),
            ("models/**", "models/x/y/a", true),
            ("models/**", "model/a", false),
            ("**/*.bin", "a.bin", true),
            ("**/*.bin", "x/y/a.bin", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c/y", false),
            ("img[12].j?g", "img2.jpg", true),
        ] {
            assert_eq!(
                matches(&patterns(&[pattern]), path),
                is_match,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn a_directory_is_listed_only_for_wildcards() {
        let name = |text: &str| Name::new(text).unwrap();
        let all = patterns(&["conf/a", "conf/b"]);
        let root = start(&all);
        assert_eq!(names(&all, &root), Some(vec![name("conf")]));
        let (is_match, conf) = step(&all, &root, &name("conf"));
        assert!(!is_match);
        assert_eq!(names(&all, &conf), Some(vec![name("a"), name("b")]));
        let all = patterns(&["conf/a", "conf/*"]);
        let (_, conf) = step(&all, &start(&all), &name("conf"));
        assert_eq!(names(&all, &conf), None);
        let (_, other) = step(&all, &start(&all), &name("other"));
        assert!(other.is_empty(), "nobody looks there");
    }

    #[test]
    fn what_is_no_pattern_is_told_with_what_is_one() {
        for text in ["", "a//b", "../a", "a/x**/b", "a[", "."] {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
