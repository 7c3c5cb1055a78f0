//! Where options come from: the command line, a TOML file, the defaults.
//!
//! Invariants: the command line wins over the file, the file over the default; what is not understood
//! is an error, whoever said it. Nothing is read from the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::line::Given;
use super::table::{self, Opt};

/// What all sources say together.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<&'static str, Vec<String>>);

impl Settings {
    /// Merges the command line with `config=FILE`, or with `etc/BUCKET.toml` if that is there.
    pub(super) fn merged(
        given: &[Given],
        bucket: Option<&str>,
        etc: &Path,
    ) -> Result<Self, ConfigError> {
        let mut line = Self::default();
        let mut file = None;
        for Given { key, value } in given {
            if key.replace('-', "_") == "config" {
                let path = value.as_deref().filter(|path| !path.is_empty());
                let path =
                    path.ok_or_else(|| ConfigError::new("config: say config=FILE".into()))?;
                file = Some(PathBuf::from(path));
                continue;
            }
            line.put(key, value.as_deref(), "")?;
        }
        let usual = bucket.map(|bucket| etc.join(format!("{bucket}.toml")));
        let mut all = match file.or(usual.filter(|usual| usual.exists())) {
            Some(file) => Self::from_file(&file)?,
            None => Self::default(),
        };
        all.0.extend(line.0);
        Ok(all)
    }

    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let at = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::new(format!("{at} cannot be read: {error}")))?;
        Self::from_toml(&text, &format!("{at}: "))
    }

    fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.bytes()
                    .take(span.start)
                    .filter(|b| *b == b'\n')
                    .count()
                    + 1
            });
            let why = error
                .message()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            ConfigError::new(format!("{origin}line {line}: {why}"))
        })?;
        let mut all = Self::default();
        for (key, value) in &table {
            let values = match value {
                toml::Value::Array(items) => items.iter().map(scalar).collect(),
                value => scalar(value).map(|value| vec![value]),
            };
            let values = values.ok_or_else(|| {
                ConfigError::new(format!(
                    "{origin}{key} must be a text, a number or true/false"
                ))
            })?;
            let opt = table::find(key).map_err(|error| error.within(origin))?;
            if values.len() != 1 && !opt.kind.is_list() {
                return Err(ConfigError::new(format!("{origin}{key} takes one value")));
            }
            for value in values {
                all.put(key, Some(&value), origin)?;
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &str, value: Option<&str>, origin: &str) -> Result<(), ConfigError> {
        let opt = table::find(key).map_err(|error| error.within(origin))?;
        let value = match value {
            Some(value) => value.trim(),
            None if opt.kind.is_flag() => "true",
            None => {
                let (key, shape) = (opt.key, opt.kind.shape());
                return Err(ConfigError::new(format!(
                    "{origin}{key} needs a value: say {key}={shape}"
                )));
            }
        };
        // An empty value takes back what another source said.
        if !value.is_empty() {
            opt.kind
                .check(value)
                .map_err(|why| ConfigError::new(format!("{origin}{}: {why}", opt.key)))?;
        }
        let values = self.0.entry(opt.key).or_default();
        if !opt.kind.is_list() {
            values.clear();
        }
        values.push(value.to_owned());
        Ok(())
    }

    /// All values of an option, or its default; empty ones left out.
    pub(super) fn all(&self, key: &str) -> Result<Vec<&str>, ConfigError> {
        let opt: &Opt = table::find(key)?;
        let values = match self.0.get(opt.key) {
            Some(values) => values.iter().map(String::as_str).collect(),
            None => vec![opt.default],
        };
        let mut values: Vec<&str> = values.into_iter().filter(|v| !v.is_empty()).collect();
        // An option with a default cannot be nothing.
        if values.is_empty() && !opt.default.is_empty() {
            values.push(opt.default);
        }
        Ok(values)
    }

    /// The value of an option that is not a list.
    pub(super) fn one(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        Ok(self.all(key)?.pop())
    }

    /// The value, read; an error names the option.
    pub(super) fn read<T>(
        &self,
        key: &str,
        how: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let read = |value| how(value).map_err(|why| ConfigError::new(format!("{key}: {why}")));
        self.one(key)?.map(read).transpose()
    }

    /// The value of an option that has a default.
    pub(super) fn must<T>(
        &self,
        key: &str,
        how: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.read(key, how)?
            .ok_or_else(|| ConfigError::new(format!("{key} needs a value")))
    }

    /// The same where `auto` means `None`.
    pub(super) fn unless_auto<T>(
        &self,
        key: &str,
        how: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let read = |value: &str| match value {
            "auto" => Ok(None),
            value => how(value).map(Some),
        };
        Ok(self.read(key, read)?.flatten())
    }

    /// All values of a list, read.
    pub(super) fn list<T>(
        &self,
        key: &str,
        how: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let read = |value| how(value).map_err(|why| ConfigError::new(format!("{key}: {why}")));
        self.all(key)?.into_iter().map(read).collect()
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::split_options;
    use super::*;

    fn line(text: &str) -> Result<Settings, ConfigError> {
        Settings::merged(&split_options(text), Some("bucket"), Path::new("/nowhere"))
    }

    #[test]
    fn rw_and_exec_take_back_ro_and_noexec() {
        let settings = line("ro,noexec,rw,exec").unwrap();
        assert_eq!(settings.one("ro").unwrap(), Some("false"));
        assert_eq!(settings.one("noexec").unwrap(), Some("false"));
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_nearest() {
        let error = line("cache_mxa=1G").unwrap_err().to_string();
        assert!(error.contains("cache_max"), "{error}");
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
        let etc = tempfile::tempdir().unwrap();
        let file = "ttl = \"5s\"\nlinger = 9\nread-timeout = '7s'\nallow = ['10.0.0.0/8', 'fd00::/8']\nro = true\n";
        std::fs::write(etc.path().join("bucket.toml"), file).unwrap();
        let given = [Given::new("ttl", "1s"), Given::new("ttl", "2s")];
        let settings = Settings::merged(&given, Some("bucket"), etc.path()).unwrap();
        let one = |key| settings.one(key).unwrap();
        assert_eq!(one("ttl"), Some("2s"), "the last on the line");
        assert_eq!(one("linger"), Some("9"));
        assert_eq!(one("read_timeout"), Some("7s"));
        assert_eq!(one("ro"), Some("true"));
        assert_eq!(one("stale_after"), Some("2s"), "the default");
        assert_eq!(settings.all("allow").unwrap(), ["10.0.0.0/8", "fd00::/8"]);
    }

    #[test]
    fn a_list_on_the_line_replaces_that_of_the_file_and_an_empty_value_takes_it_back() {
        let etc = tempfile::tempdir().unwrap();
        let file = "allow = ['10.0.0.0/8']\nregion = 'x'\n";
        std::fs::write(etc.path().join("bucket.toml"), file).unwrap();
        let given = [
            Given::new("allow", "192.168.0.0/16"),
            Given::new("allow", "127.0.0.1"),
            Given::new("region", ""),
        ];
        let settings = Settings::merged(&given, Some("bucket"), etc.path()).unwrap();
        assert_eq!(
            settings.all("allow").unwrap(),
            ["192.168.0.0/16", "127.0.0.1"]
        );
        assert_eq!(settings.one("region").unwrap(), None);
    }

    #[test]
    fn a_named_file_is_read_instead_of_the_usual_one() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("bucket.toml"), "ttl = '5s'").unwrap();
        let other = etc.path().join("other.toml");
        std::fs::write(&other, "ttl = '6s'").unwrap();
        let given = [Given::new("config", other.to_str().unwrap())];
        let settings = Settings::merged(&given, Some("bucket"), etc.path()).unwrap();
        assert_eq!(settings.one("ttl").unwrap(), Some("6s"));
        let absent = [Given::new("config", "/nowhere/x.toml")];
        let error = Settings::merged(&absent, Some("bucket"), etc.path()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.toml"));
    }

    #[test]
    fn mistakes_in_a_file_are_named_in_one_line() {
        for (text, part) in [
            ("ttl = 'soon'", "ttl"),
            ("regoin = 'x'", "did you mean region?"),
            ("a = 1\nb = = 2", "line 2"),
            ("ttl = ['1s', '2s']", "one value"),
            ("[section]\nttl = 1", "section"),
            ("ttl = 1.5", "ttl"),
        ] {
            let error = Settings::from_toml(text, "f.toml: ")
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("f.toml: "), "{error}");
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_value_is_needed_except_for_flags() {
        assert!(
            line("region")
                .unwrap_err()
                .to_string()
                .contains("region=TEXT")
        );
        assert_eq!(line("ro").unwrap().one("ro").unwrap(), Some("true"));
    }
}
