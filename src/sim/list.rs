//! One page of a listing, as a function of a sorted map.
//!
//! Invariants:
//! - keys come in the order of their bytes; a common prefix stands once, where its first key is;
//! - keys and common prefixes both count against the page's limit;
//! - a page costs as much as it shows: what a common prefix covers is skipped, not read.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    /// Only keys that begin with this.
    pub(super) prefix: String,
    /// Fold what holds this behind the prefix. Never empty.
    pub(super) delimiter: Option<String>,
    /// Where to begin.
    pub(super) from: Place,
    /// At most so many keys and prefixes.
    pub(super) max: usize,
}

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// At the first key.
    #[default]
    Start,
    /// Behind this key.
    Key(String),
    /// Behind all keys that begin with this.
    Prefix(String),
}

/// A key or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item<V> {
    Key(String, V),
    Prefix(String),
}

/// A page, and where the next begins if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page<V> {
    pub(super) items: Vec<Item<V>>,
    pub(super) next: Option<Place>,
}

/// One page of `map`.
pub(super) fn page<V: Clone>(map: &BTreeMap<String, V>, query: &Query) -> Page<V> {
    let mut items = Vec::new();
    let mut last = query.from.clone();
    if query.max == 0 {
        return Page { items, next: None };
    }
    loop {
        let Some(bound) = lower(&last, &query.prefix) else {
            return Page { items, next: None };
        };
        let next = map
            .range::<str, _>((as_str(&bound), Bound::Unbounded))
            .next();
        let Some((key, value)) = next.filter(|(key, _)| key.starts_with(&query.prefix)) else {
            return Page { items, next: None };
        };
        if items.len() == query.max {
            let next = Some(last);
            return Page { items, next };
        }
        match common_prefix(key, query) {
            Some(prefix) => {
                items.push(Item::Prefix(prefix.to_owned()));
                last = Place::Prefix(prefix.to_owned());
            }
            None => {
                items.push(Item::Key(key.clone(), value.clone()));
                last = Place::Key(key.clone());
            }
        }
    }
}

fn common_prefix<'a>(key: &'a str, query: &Query) -> Option<&'a str> {
    let delimiter = query.delimiter.as_deref()?;
    let behind = &key[query.prefix.len()..];
    let at = behind.find(delimiter)?;
    Some(&key[..query.prefix.len() + at + delimiter.len()])
}

/// The first key that may be shown. `None`: there cannot be one.
fn lower(from: &Place, prefix: &str) -> Option<Bound<String>> {
    let bound = match from {
        Place::Start => Bound::Included(String::new()),
        Place::Key(key) => Bound::Excluded(key.clone()),
        Place::Prefix(prefix) => Bound::Included(behind(prefix)?),
    };
    let at = match &bound {
        Bound::Included(at) | Bound::Excluded(at) => at.as_str(),
        Bound::Unbounded => "",
    };
    Some(if at < prefix {
        Bound::Included(prefix.to_owned())
    } else {
        bound
    })
}

fn as_str(bound: &Bound<String>) -> Bound<&str> {
    match bound {
        Bound::Included(at) => Bound::Included(at.as_str()),
        Bound::Excluded(at) => Bound::Excluded(at.as_str()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The smallest text behind all that begin with `prefix` (the order of UTF-8 bytes is that of the
/// characters).
fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

impl Place {
    /// As an opaque token.
    pub(super) fn token(&self) -> String {
        let text = match self {
            Self::Start => String::from("s"),
            Self::Key(key) => format!("k{key}"),
            Self::Prefix(prefix) => format!("p{prefix}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Of a token; `None`: it is none of ours.
    pub(super) fn of_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let rest = text.get(1..)?.to_owned();
        match text.as_bytes().first()? {
            b's' => Some(Self::Start),
            b'k' => Some(Self::Key(rest)),
            b'p' => Some(Self::Prefix(rest)),
            _ => None,
        }
    }
}

const KEPT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'*')
    .remove(b'/')
    .remove(b' ');

/// `encoding-type=url`, in which a space is `+`.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, &KEPT)
        .to_string()
        .replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> BTreeMap<String, ()> {
        keys.iter().map(|key| ((*key).to_owned(), ())).collect()
    }

    fn all(map: &BTreeMap<String, ()>, prefix: &str, delimiter: &str, max: usize) -> Vec<String> {
        let mut query = Query {
            prefix: prefix.to_owned(),
            delimiter: Some(delimiter.to_owned()).filter(|text| !text.is_empty()),
            from: Place::Start,
            max,
        };
        let mut seen = Vec::new();
        loop {
            let page = page(map, &query);
            assert!(page.items.len() <= max);
            seen.extend(page.items.into_iter().map(|item| match item {
                Item::Key(key, ()) => key,
                Item::Prefix(prefix) => format!("[{prefix}]"),
            }));
            let Some(next) = page.next else { return seen };
            query.from = Place::of_token(&next.token()).unwrap();
        }
    }

    #[test]
    fn keys_come_in_byte_order_whatever_the_page_size() {
        let map = map(&[
            "b",
            "a/",
            "a/x",
            "a",
            "a//",
            "a/../y",
            "\u{10ffff}",
            "é",
            "Z",
        ]);
        let whole = all(&map, "", "", 1000);
        assert_eq!(
            whole,
            [
                "Z",
                "a",
                "a/",
                "a/../y",
                "a//",
                "a/x",
                "b",
                "é",
                "\u{10ffff}"
            ]
        );
        for max in 1..10 {
            assert_eq!(all(&map, "", "", max), whole);
        }
    }

    #[test]
    fn what_a_delimiter_folds_stands_once_and_a_key_beside_its_prefix() {
        let map = map(&["f", "f/", "f/x", "f/y/z", "f-1", "f0", "g/h"]);
        let folded = ["f", "f-1", "[f/]", "f0", "[g/]"];
        for max in 1..7 {
            assert_eq!(all(&map, "", "/", max), folded);
            assert_eq!(all(&map, "f/", "/", max), ["f/", "f/x", "[f/y/]"]);
        }
    }

    #[test]
    fn start_after_is_behind_that_key_only() {
        let map = map(&["a", "b/1", "b/2", "c"]);
        let query = Query {
            prefix: String::new(),
            delimiter: Some("/".to_owned()),
            from: Place::Key("b/1".to_owned()),
            max: 10,
        };
        let items = page(&map, &query).items;
        assert_eq!(
            items,
            [Item::Prefix("b/".to_owned()), Item::Key("c".to_owned(), ())]
        );
    }

    #[test]
    fn a_page_of_nothing_is_not_truncated() {
        let query = Query::default();
        let page = page(&map(&["a"]), &query);
        assert!(page.items.is_empty() && page.next.is_none());
    }

    #[test]
    fn a_last_full_page_is_not_truncated() {
        let query = Query {
            max: 2,
            ..Query::default()
        };
        assert_eq!(page(&map(&["a", "b"]), &query).next, None);
        assert!(page(&map(&["a", "b", "c"]), &query).next.is_some());
    }

    #[test]
    fn url_encoding_turns_a_space_into_a_plus_and_a_plus_into_a_code() {
        assert_eq!(encode("a b+c/\u{1}é*.-_~"), "a+b%2Bc/%01%C3%A9*.-_%7E");
    }

    #[test]
    fn a_strange_token_is_refused() {
        for token in ["", "!!", "eA"] {
            assert_eq!(Place::of_token(token), None, "{token}");
        }
    }
}
