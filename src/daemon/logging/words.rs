//! An event in words: its message, and its fields by name.
//!
//! Invariants: nothing in it can begin a line of its own or speak to a terminal; with names hidden, no
//! name of an object is in it: those are in fields of their own (`NAMES`), never in a message, and what
//! a server says is cut where it may name one (`ARN`).

use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Fields that are names of files, or hold some.
const NAMES: [&str; 4] = ["key", "name", "names", "path"];
const HIDDEN: &str = "(hidden)";
/// S3 names the object that it refuses by this.
const ARN: &str = "arn:";
/// Bytes of one event.
const LONGEST: usize = 4 << 10;

/// What is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The message.
    pub(super) message: String,
    /// The rest, in order.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Words {
    /// What `event` says; `hide`: without names of objects.
    pub(super) fn of(event: &Event<'_>, hide: bool) -> Self {
        let mut reading = Reading {
            words: Self::default(),
            hide,
        };
        event.record(&mut reading);
        reading.words
    }

    /// As one line without its end.
    pub(super) fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.fields {
            let space = if line.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(line, "{space}{name}={value}");
        }
        line
    }
}

struct Reading {
    words: Words,
    hide: bool,
}

impl Visit for Reading {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.words
            .add(field.name(), &format!("{value:?}"), self.hide);
    }
}

impl Words {
    fn add(&mut self, name: &'static str, value: &str, hide: bool) {
        let value = match hide {
            true if NAMES.contains(&name) => HIDDEN.to_owned(),
            true => tame(&without_arn(value)),
            false => tame(value),
        };
        if name == "message" {
            self.message = value;
        } else {
            self.fields.push((name, value));
        }
    }
}

/// Cut at the first name of a resource; what stands behind its last quote stays.
fn without_arn(text: &str) -> String {
    let Some(at) = text.find(ARN) else {
        return text.to_owned();
    };
    let rest = text.rfind('"').filter(|quote| *quote > at);
    let rest = rest.map_or("", |quote| &text[quote..]);
    format!("{}{HIDDEN}{rest}", &text[..at])
}

fn tame(text: &str) -> String {
    let all = text.chars();
    let tame = all.map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut size = 0;
    tame.take_while(|c| {
        size += c.len_utf8();
        size <= LONGEST
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(fields: &[(&'static str, &str)], hide: bool) -> String {
        let mut words = Words::default();
        for (name, value) in fields {
            words.add(name, value, hide);
        }
        words.line()
    }

    #[test]
    fn a_line_is_the_message_and_then_each_field() {
        let fields = [
            ("error", "no route"),
            ("message", "it failed"),
            ("key", "a/b"),
        ];
        assert_eq!(words(&fields, false), "it failed error=no route key=a/b");
        assert_eq!(words(&[("key", "a")], false), "key=a");
    }

    #[test]
    fn nothing_begins_a_line_of_its_own_and_no_line_is_endless() {
        let line = words(&[("message", "a\nb"), ("key", "\u{1b}[2J")], false);
        assert_eq!(line, "a\u{fffd}b key=\u{fffd}[2J");
        let long = words(&[("message", &"日".repeat(LONGEST))], false);
        assert!(long.len() <= LONGEST && long.ends_with('日'));
    }

    #[test]
    fn hidden_names_are_in_no_field_and_not_in_what_s3_says() {
        let said = "AccessDenied: not authorized to perform: s3:PutObject on resource: \
                    \"arn:aws:s3:::bucket/my \"secret\" name\" because no policy allows it";
        let fields = [
            ("message", "refused"),
            ("key", "secret"),
            ("path", "secret"),
            ("error", said),
        ];
        let line = words(&fields, true);
        assert!(
            !line.contains("secret") && !line.contains("bucket"),
            "{line}"
        );
        assert!(
            line.contains("PutObject") && line.ends_with("because no policy allows it"),
            "{line}"
        );
        assert_eq!(
            words(&[("error", "arn:aws:s3:::b/secret")], true),
            "error=(hidden)"
        );
        assert!(words(&fields, false).contains("secret"));
    }
}
