//! What was found, row by row, and how it is told.
//!
//! Invariants: a row that fails or warns says what to do; what a row could not look at, because a
//! row before it failed, is `Skip` and says which.

use serde::Serialize;

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Fail,
    /// It was not looked at.
    Skip,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// One hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name: the same in every version.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; empty: nothing.
    #[serde(rename = "do")]
    pub cure: String,
}

impl Row {
    fn new(check: &'static str, verdict: Verdict, seen: &str, cure: &str) -> Self {
        Self {
            check,
            verdict,
            seen: one_line(seen),
            cure: one_line(cure),
        }
    }

    /// All is well.
    pub(super) fn pass(check: &'static str, seen: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Pass, seen.as_ref(), "")
    }

    /// It works, but.
    pub(super) fn warn(check: &'static str, seen: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Warn, seen.as_ref(), cure.as_ref())
    }

    /// It does not work.
    pub(super) fn fail(check: &'static str, seen: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Fail, seen.as_ref(), cure.as_ref())
    }

    /// Not looked at.
    pub(super) fn skip(check: &'static str, seen: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Skip, seen.as_ref(), "")
    }

    /// For people: one line, and a second one if there is something to do.
    #[must_use]
    pub fn text(&self) -> String {
        let word = self.verdict.word();
        let head = format!("{word}  {:<13} {}\n", self.check, self.seen);
        if self.cure.is_empty() {
            return head;
        }
        format!("{head}                    -> {}\n", self.cure)
    }
}

/// What others say must not make further rows.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of this form: further rows and fields may come, none will go.
    pub version: u32,
    /// `s3://bucket/prefix`.
    pub source: String,
    /// The worst of the rows: `pass`, `warn` or `fail`.
    pub verdict: Verdict,
    /// In the order of the path.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(source: &str) -> Self {
        Self {
            version: 1,
            source: source.to_owned(),
            verdict: Verdict::Pass,
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.verdict = match (self.verdict, row.verdict) {
            (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
            (Verdict::Warn, _) | (_, Verdict::Warn) => Verdict::Warn,
            _ => Verdict::Pass,
        };
        self.rows.push(row);
    }

    /// Whether that row failed.
    pub(super) fn has_failed(&self, check: &str) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| row.check == check && row.verdict == Verdict::Fail)
    }

    /// For programs: one line of JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn json(&self) -> Result<String, String> {
        let line = serde_json::to_string(self).map_err(|error| error.to_string())?;
        Ok(line + "\n")
    }

    /// The last line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |verdict| {
            let rows = self.rows.iter();
            rows.filter(|row| row.verdict == verdict).count()
        };
        format!(
            "{}: {} passed, {} warned, {} failed, {} not looked at\n",
            self.source,
            count(Verdict::Pass),
            count(Verdict::Warn),
            count(Verdict::Fail),
            count(Verdict::Skip)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_is_the_verdict_and_what_is_skipped_counts_nothing() {
        let mut report = Report::new("s3://b");
        report.add(Row::pass("dns", "fine"));
        report.add(Row::skip("path", "not now"));
        assert_eq!(report.verdict, Verdict::Pass);
        report.add(Row::warn("clock", "late", "set it"));
        report.add(Row::pass("tls", "fine"));
        assert_eq!(report.verdict, Verdict::Warn);
        report.add(Row::fail("lease", "none", "get one"));
        report.add(Row::warn("spool", "tmpfs", "move it"));
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(report.has_failed("lease") && !report.has_failed("clock"));
        let summary = report.summary();
        assert!(
            summary.contains("2 passed, 2 warned, 1 failed, 1 not"),
            "{summary}"
        );
    }

    #[test]
    fn the_json_has_the_fields_it_is_documented_with() {
        let mut report = Report::new("s3://b/p");
        report.add(Row::fail("dns", "a\nb", "do"));
        let want = concat!(
            r#"{"version":1,"source":"s3://b/p","verdict":"fail","#,
            r#""rows":[{"check":"dns","verdict":"fail","seen":"a b","do":"do"}]}"#,
            "\n"
        );
        assert_eq!(report.json().unwrap(), want);
    }

    #[test]
    fn a_row_is_one_line_and_its_cure_another() {
        let text = Row::warn("spool", "on tmpfs", "move it").text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "WARN  spool         on tmpfs");
        assert_eq!(lines[1].trim(), "-> move it");
    }
}
