//! The text after `-o`: options in one line, parted by commas, among words that are mount(8)'s.
//!
//! Invariants: `join_options` writes what `split_options` reads; what belongs to mount(8), fstab and
//! systemd never reaches the table of options.

/// One option as it was given on the command line; the value of a bare flag is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// As typed.
    pub key: String,
    /// As typed.
    pub value: Option<String>,
}

impl Given {
    /// `key=value`.
    #[must_use]
    pub fn new(key: &str, value: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        }
    }
}

/// Words of mount(8), fstab(5) and systemd.mount(5) that ask nothing of a file system, or what this
/// one does anyhow: it is always `nosuid,nodev`, and asks for `default_permissions`.
const FOREIGN: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "comment",
    "default_permissions",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
];

/// The options in the text after `-o`: items are parted by commas; `\` takes the meaning off the next
/// character, and so do quotes off all between them. What is not for us is left out.
#[must_use]
pub fn split_options(text: &str) -> Vec<Given> {
    let words = mount_words(text).into_iter();
    words.filter_map(ours).collect()
}

/// All words in the text after `-o`, those of mount(8) among them.
#[must_use]
pub fn mount_words(text: &str) -> Vec<Given> {
    let mut items = vec![String::new()];
    let (mut escaped, mut quoted) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => {
                quoted = !quoted;
                continue;
            }
            ',' if !quoted => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = items.last_mut() {
            last.push(c);
        }
    }
    items.retain(|item| !item.is_empty());
    let word = |item: &String| match item.split_once('=') {
        Some((key, value)) => Given::new(key, value),
        None => Given {
            key: item.clone(),
            value: None,
        },
    };
    items.iter().map(word).collect()
}

/// A word as an option of ours, if it is one.
fn ours(word: Given) -> Option<Given> {
    match word.key.as_str() {
        key if key.starts_with("x-") || key.starts_with("X-") || FOREIGN.contains(&key) => None,
        "rw" => Some(Given::new("ro", "false")),
        "exec" => Some(Given::new("noexec", "false")),
        _ => Some(word),
    }
}

/// The text after `-o` that says these options.
#[must_use]
pub fn join_options(given: &[Given]) -> String {
    let item = |given: &Given| match &given.value {
        Some(value) => format!("{}={}", escaped(&given.key), escaped(value)),
        None => escaped(&given.key),
    };
    given.iter().map(item).collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | ',' | '"') {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn items_are_split_at_commas_that_mean_it() {
        let keys: Vec<_> = split_options(r#"region=a,,ca-file=/x\,y,interface="w,1",ro"#)
            .into_iter()
            .map(|given| (given.key, given.value.unwrap_or_default()))
            .collect();
        let want = [
            ("region", "a"),
            ("ca-file", "/x,y"),
            ("interface", "w,1"),
            ("ro", ""),
        ];
        let want = want.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(keys, want);
    }

    #[test]
    fn words_of_mount_fstab_and_systemd_are_accepted_and_ignored() {
        let words = "_netdev,nofail,noauto,auto,user,users,nouser,user=pi,dev,suid,defaults,noatime,\
                     relatime,x-systemd.automount,x-systemd.requires=modem.service,nodev,nosuid,\
                     default_permissions,X-mount.mkdir,comment=systemd.automount,async,lazytime";
        assert_eq!(split_options(words), []);
        assert_eq!(mount_words(words).len(), words.split(',').count());
    }

    proptest! {
        #[test]
        fn what_is_joined_is_split_the_same(
            all in prop::collection::vec(("[a-z_]{1,8}", prop::option::of("[ -~é]{0,12}")), 0..6)
        ) {
            let given: Vec<_> = all
                .into_iter()
                .map(|(key, value)| Given { key, value })
                .collect();
            prop_assert_eq!(mount_words(&join_options(&given)), given);
        }
    }
}
