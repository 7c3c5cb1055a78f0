//! What the role may do in the prefix, tried with a probe that is taken away again; and which
//! preconditions the server honours, since a write that is not guarded may replace a newer version.
//!
//! Invariant: whatever was put, or may have been (an answer was lost), is deleted at the end; what
//! cannot be is named.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Doctor;
use super::report::Row;
use crate::store::{self, CopyRequest, Download, ObjectStore, PartDone, Payload, StoreError};
use crate::types::{ETag, Headers, ObjectKey, ObjectMeta, Precondition};

/// No request of the probe takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"kryptonfs doctor puts this here and takes it away again\n";
const ROWS: [&str; 6] = ["put", "get", "copy", "multipart", "preconditions", "delete"];

impl Doctor<'_> {
    /// Rows `put`, `get`, `copy`, `multipart`, `preconditions`, `delete`.
    pub(super) async fn rights(&mut self) {
        if self.facts.read_only {
            for check in ROWS {
                self.add(Row::skip(check, "ro: nothing is written"));
            }
            return;
        }
        let mount = Arc::clone(&self.parts.mount);
        let name = format!(
            ".kryptonfs-doctor-{:08x}",
            RandomState::new().hash_one(0_u8) >> 32
        );
        let probe = Probe::new(&*mount, name).run().await;
        for row in probe.rows() {
            self.add(row);
        }
    }
}

/// One operation: not tried, or how it ended.
type Outcome = Option<store::Result<()>>;

/// What was found out.
struct Probe<'a> {
    store: &'a dyn ObjectStore,
    name: String,
    put: Outcome,
    get: Outcome,
    copy: Outcome,
    multipart: Outcome,
    delete: Outcome,
    /// Whether these were honoured: `If-None-Match: *`, `If-Match`, and that of DELETE.
    honours: [Option<bool>; 3],
    /// What may be there.
    there: Vec<ObjectKey>,
}

async fn bounded<T>(call: impl Future<Output = store::Result<T>>) -> store::Result<T> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    answer.unwrap_or(Err(StoreError::Deadline))
}

/// Whether a write that must not be carried out was refused; `None`: neither.
fn is_guarded<T>(answer: &store::Result<T>) -> Option<bool> {
    match answer {
        Ok(_) => Some(false),
        Err(StoreError::Precondition) => Some(true),
        // The header is not known there.
        Err(StoreError::NotImplemented(_)) => Some(false),
        Err(_) => None,
    }
}

impl<'a> Probe<'a> {
    fn new(store: &'a dyn ObjectStore, name: String) -> Self {
        Self {
            store,
            name,
            put: None,
            get: None,
            copy: None,
            multipart: None,
            delete: None,
            honours: [None; 3],
            there: Vec::new(),
        }
    }

    fn key(&self, ending: &str) -> ObjectKey {
        ObjectKey::new(&format!("{}-{ending}", self.name))
    }

    async fn run(mut self) -> Self {
        let key = self.key("a");
        match self.put(&key, &Precondition::IfAbsent).await {
            Ok(meta) => {
                self.put = Some(Ok(()));
                self.get = Some(self.read(&key).await);
                self.copy = Some(self.copied(&meta).await);
                self.guards(&key).await;
                self.multipart = Some(self.in_parts().await);
            }
            Err(error) => self.put = Some(Err(error)),
        }
        self.delete = self.clean().await;
        self
    }

    async fn put(&mut self, key: &ObjectKey, when: &Precondition) -> store::Result<ObjectMeta> {
        let payload = Payload::of(Bytes::from_static(BODY));
        let headers = Headers::default();
        let put = self.store.put(key, &payload, &headers, when);
        let put = bounded(put).await;
        self.note(key, &put);
        put
    }

    /// A definite no leaves nothing; all else may have been carried out.
    fn note<T>(&mut self, key: &ObjectKey, answer: &store::Result<T>) {
        let is_nothing = answer.as_ref().is_err_and(|error| {
            error.is_refusal()
                || matches!(error, StoreError::Credentials(_) | StoreError::Precondition)
        });
        if !is_nothing && !self.there.contains(key) {
            self.there.push(key.clone());
        }
    }

    async fn read(&self, key: &ObjectKey) -> store::Result<()> {
        let download = bounded(self.store.get(key, None, None)).await?;
        let bytes = bounded(whole(download)).await?;
        if bytes == BODY {
            return Ok(());
        }
        let text = "other bytes came back than were put".to_owned();
        Err(StoreError::BadAnswer(text))
    }

    async fn copied(&mut self, source: &ObjectMeta) -> store::Result<()> {
        let key = self.key("b");
        let request = CopyRequest {
            source: source.id.clone(),
            key: key.clone(),
            headers: Headers::default(),
        };
        let copied = bounded(self.store.copy(&request)).await;
        self.note(&key, &copied);
        copied.map(drop)
    }

    /// Writes that must be refused.
    async fn guards(&mut self, key: &ObjectKey) {
        let absent = self.put(key, &Precondition::IfAbsent).await;
        let other = Precondition::IfMatch(stranger());
        let matching = self.put(key, &other).await;
        let deleted = bounded(self.store.delete(key, Some(&stranger()))).await;
        self.honours = [
            is_guarded(&absent),
            is_guarded(&matching),
            is_guarded(&deleted),
        ];
    }

    /// An upload that is completed, and one that is aborted.
    async fn in_parts(&mut self) -> store::Result<()> {
        let (key, headers) = (self.key("c"), Headers::default());
        let begun = bounded(self.store.create_multipart(&key, &headers)).await?;
        let ended = self.completed(&key, &begun).await;
        if ended.is_err() {
            // Also where it is this that may not be done: then it is what is told.
            bounded(self.store.abort(&key, &begun)).await?;
            return ended;
        }
        let begun = bounded(self.store.create_multipart(&key, &headers)).await?;
        bounded(self.store.abort(&key, &begun)).await
    }

    async fn completed(&mut self, key: &ObjectKey, begun: &store::UploadId) -> store::Result<()> {
        let payload = Payload::of(Bytes::from_static(BODY));
        let part = bounded(self.store.upload_part(key, begun, 1, &payload)).await?;
        let parts: Vec<PartDone> = bounded(self.store.list_parts(key, begun)).await?;
        if parts.iter().all(|known| known.number != part.number) {
            let text = "a part that was taken is not listed".to_owned();
            return Err(StoreError::BadAnswer(text));
        }
        let when = Precondition::IfAbsent;
        let done = bounded(self.store.complete(key, begun, &[part], &when)).await;
        self.note(key, &done);
        done.map(drop)
    }

    /// Takes everything away; `None`: there was nothing.
    async fn clean(&mut self) -> Outcome {
        let mut outcome = None;
        for key in std::mem::take(&mut self.there) {
            match bounded(self.store.delete(&key, None)).await {
                Ok(()) => outcome = outcome.or(Some(Ok(()))),
                Err(error) => {
                    self.there.push(key);
                    outcome = Some(Err(error));
                }
            }
        }
        outcome
    }

    fn rows(&self) -> Vec<Row> {
        let put_failed = matches!(self.put, Some(Err(_)));
        let mut rows = vec![
            right("put", "s3:PutObject", &self.put, "an object was put"),
            right("get", "s3:GetObject", &self.get, "it came back as it was"),
            right(
                "copy",
                "s3:GetObject and s3:PutObject",
                &self.copy,
                "it was copied by reference",
            ),
            right(
                "multipart",
                "s3:PutObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts",
                &self.multipart,
                "an upload in parts was completed, another aborted",
            ),
            preconditions(self.honours, put_failed),
        ];
        let mut delete = right(
            "delete",
            "s3:DeleteObject",
            &self.delete,
            "the probe is gone again",
        );
        if !self.there.is_empty() {
            let left: Vec<_> = self.there.iter().map(ToString::to_string).collect();
            delete.seen = format!("{}; left there: {}", delete.seen, left.join(", "));
        }
        rows.push(delete);
        rows
    }
}

/// No object has it.
fn stranger() -> ETag {
    ETag::new("00000000000000000000000000000000")
}

async fn whole(mut download: Download) -> store::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.body.next().await {
        let piece = piece?;
        if bytes.len() + piece.len() > 2 * BODY.len() {
            return Err(StoreError::BadAnswer(
                "more came back than was put".to_owned(),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn right(check: &'static str, actions: &str, outcome: &Outcome, done: &str) -> Row {
    match outcome {
        None => Row::skip(
            check,
            "not tried: there was nothing to try it on (see row put)",
        ),
        Some(Ok(())) => Row::pass(check, done),
        Some(Err(StoreError::AccessDenied(why))) => {
            let (said, cure) = why.rsplit_once("; ").unwrap_or((why, ""));
            Row::fail(
                check,
                said,
                format!(
                    "allow {actions} in the prefix, by the role and by the policies of the bucket and \
                     the endpoint; {cure}"
                )
                .trim_end_matches("; "),
            )
        }
        Some(Err(error)) => Row::fail(
            check,
            error.to_string(),
            "run this again; if it stays, the server lacks it: check endpoint_url",
        ),
    }
}

fn preconditions(honours: [Option<bool>; 3], put_failed: bool) -> Row {
    let check = "preconditions";
    let names = ["If-None-Match: *", "If-Match", "If-Match of DELETE"];
    let ignored: Vec<_> = names
        .into_iter()
        .zip(honours)
        .filter_map(|(name, honoured)| (honoured == Some(false)).then_some(name))
        .collect();
    if !ignored.is_empty() {
        return Row::warn(
            check,
            format!("the server ignores {}", ignored.join(", ")),
            "nothing, if only this device writes there: such writes are guarded by a HEAD before, which \
             is counted, and a change in between would be replaced unseen",
        );
    }
    if put_failed || honours.contains(&None) {
        return Row::skip(check, "not known: a write to try it on failed");
    }
    Row::pass(
        check,
        "all three are honoured: a newer version is never replaced unseen",
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::store::Op;
    use crate::store::fault::{Fault, Kind};
    use crate::store::twin::Twin;

    fn verdicts(rows: &[Row]) -> Vec<(&'static str, Verdict)> {
        rows.iter().map(|row| (row.check, row.verdict)).collect()
    }

    fn denied() -> Kind {
        Kind::Before(StoreError::AccessDenied("AccessDenied: no".into()))
    }

    /// The rows, where these requests are refused; the bucket must be as before, but for `left`.
    async fn tried(refused: &[(Op, u64)], left: usize) -> Vec<Row> {
        let twin = Twin::new();
        twin.put_behind("theirs", "bytes", Headers::default());
        let (store, fault) = Fault::over(Arc::new(twin.clone()));
        for (op, nth) in refused {
            fault.on(*op, *nth, denied());
        }
        let rows = Probe::new(&*store, "probe".into()).run().await.rows();
        assert_eq!(twin.keys().len(), 1 + left, "{:?}", twin.keys());
        assert_eq!(twin.uploads(), 0);
        rows
    }

    #[tokio::test]
    async fn with_all_rights_each_row_passes_and_the_bucket_is_as_before() {
        let rows = tried(&[], 0).await;
        assert_eq!(rows.len(), ROWS.len());
        for (row, check) in rows.iter().zip(ROWS) {
            assert_eq!((row.check, row.verdict), (check, Verdict::Pass), "{row:?}");
        }
    }

    #[tokio::test]
    async fn each_right_that_is_missing_fails_its_own_row_and_nothing_stays() {
        for (op, nth, check) in [
            (Op::Get, 1, "get"),
            (Op::Copy, 1, "copy"),
            (Op::UploadPart, 1, "multipart"),
            (Op::ListParts, 1, "multipart"),
            (Op::Complete, 1, "multipart"),
            (Op::CreateMultipart, 1, "multipart"),
        ] {
            let rows = tried(&[(op, nth)], 0).await;
            let failed: Vec<_> = verdicts(&rows)
                .into_iter()
                .filter(|(_, verdict)| *verdict == Verdict::Fail)
                .collect();
            assert_eq!(failed, [(check, Verdict::Fail)], "{op}");
            let row = rows.iter().find(|row| row.check == check).unwrap();
            assert!(row.cure.contains("s3:"), "{row:?}");
        }
        let rows = tried(&[(Op::Put, 1)], 0).await;
        assert_eq!(rows[0].verdict, Verdict::Fail);
        assert!(
            rows[1..].iter().all(|row| row.verdict == Verdict::Skip),
            "{rows:?}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_deleted_is_named() {
        // The first deletion is the one that must be refused.
        let rows = tried(&[(Op::Delete, 2), (Op::Delete, 3), (Op::Delete, 4)], 3).await;
        let delete = rows.last().unwrap();
        assert_eq!(delete.verdict, Verdict::Fail);
        for key in ["probe-a", "probe-b", "probe-c"] {
            assert!(delete.seen.contains(key), "{delete:?}");
        }
    }

    #[tokio::test]
    async fn what_was_put_although_its_answer_was_lost_is_taken_away() {
        let twin = Twin::new();
        let (store, fault) = Fault::over(Arc::new(twin.clone()));
        fault.on(Op::Put, 1, Kind::After(StoreError::Link("lost".into())));
        let rows = Probe::new(&*store, "probe".into()).run().await.rows();
        assert_eq!(rows[0].verdict, Verdict::Fail);
        assert!(twin.keys().is_empty());
    }

    #[test]
    fn a_server_that_ignores_preconditions_is_a_warning_that_names_them() {
        let row = preconditions([Some(false), Some(true), Some(false)], false);
        assert_eq!(row.verdict, Verdict::Warn);
        assert!(
            row.seen.contains("None-Match") && row.seen.contains("DELETE"),
            "{row:?}"
        );
        assert_eq!(preconditions([Some(true); 3], false).verdict, Verdict::Pass);
        assert_eq!(preconditions([None; 3], true).verdict, Verdict::Skip);
    }
}
