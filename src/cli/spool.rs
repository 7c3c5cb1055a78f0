//! A spool where there is no mount: which folder it is, who has it, and what is in it.
//!
//! Invariant: a daemon that has it is asked; only where none answers is the folder itself read.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::control;
use super::export::Removable;
use crate::daemon::{self, Ask, Partial, Refused, Say, Status};
use crate::tree::{Inspection, LogError, Tree, Unclosed, is_spool};
use crate::types::Want;

/// A daemon answers at once, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many names fit into one question.
const FEW: usize = 32;

/// The folder of the spool that is at `dir`, or the only one below it.
pub(super) fn folder(dir: &Path) -> Result<PathBuf, String> {
    if is_spool(dir) {
        return Ok(dir.to_path_buf());
    }
    let none = || {
        format!(
            "{} is neither a kryptonfs mount nor the folder of a spool: `findmnt -t fuse.kryptonfs` \
             lists mounts, spools lie in spool_dir (/var/lib/kryptonfs)",
            dir.display()
        )
    };
    let entries = std::fs::read_dir(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{}: {error}: say it as the mount's user, or as root",
                dir.display()
            )
        }
        _ => none(),
    })?;
    let below = entries.flatten().map(|entry| entry.path());
    let mut spools: Vec<_> = below.filter(|path| is_spool(path)).collect();
    spools.sort();
    match spools.len() {
        0 => Err(none()),
        1 => Ok(spools.remove(0)),
        _ => {
            let names: Vec<_> = spools.iter().map(|at| at.display().to_string()).collect();
            Err(format!(
                "{} holds several spools: name one of {}",
                dir.display(),
                names.join(", ")
            ))
        }
    }
}

/// The socket of the mount whose spool is in `folder`, and what it says.
pub(super) fn daemon_of(folder: &Path) -> Option<(PathBuf, Status)> {
    let folder = folder.canonicalize().ok()?;
    daemon::sockets().ok()?.into_iter().find_map(|socket| {
        let Ok(Say::Status(status)) = daemon::ask(&socket, &Ask::Status, PATIENCE) else {
            return None;
        };
        let is_its = Path::new(&status.spool).canonicalize().ok()? == folder;
        is_its.then_some((socket, *status))
    })
}

/// The folder of the spool that belongs to `dir`, a mount or a spool, and the socket of its daemon.
pub(super) fn of(dir: &Path) -> Result<(PathBuf, Option<PathBuf>), String> {
    if daemon::is_mount(dir)? {
        let status = control::status(dir)?;
        return Ok((status.spool.into(), Some(daemon::find(dir)?)));
    }
    let folder = folder(dir)?;
    let socket = daemon_of(&folder).map(|(socket, _)| socket);
    Ok((folder, socket))
}

/// Has what S3 refused tried again; answers how many changes.
pub(super) fn retry(dir: &Path) -> Result<usize, String> {
    let (folder, socket) = of(dir)?;
    let Some(socket) = socket else {
        return reopened(&folder, async |tree| tree.retry().await);
    };
    match control::told(&socket, &Ask::Retry)? {
        Say::Retried(count) => Ok(count),
        other => Err(control::unexpected(other)),
    }
}

/// Lets go of what was exported and never acknowledged; answers how many files.
pub(super) fn discard(
    folder: &Path,
    socket: Option<&Path>,
    gone: &Removable,
) -> Result<usize, String> {
    let partials: Vec<_> = gone.partials.iter().map(|file| file.0).collect();
    let Some(socket) = socket else {
        return reopened(folder, async |tree| {
            tree.discard_all(&partials, &gone.aside).await
        });
    };
    let mut count = 0;
    let few = partials.chunks(FEW).map(|few| (few.to_vec(), Vec::new()));
    let pieces = gone.aside.chunks(FEW);
    let pieces = pieces.map(|few| (Vec::new(), few.to_vec()));
    for (partials, aside) in few.chain(pieces) {
        match control::told(socket, &Ask::Discard { partials, aside })? {
            Say::Discarded(some) => count += some,
            other => return Err(control::unexpected(other)),
        }
    }
    Ok(count)
}

/// Does something to a spool that no daemon has.
fn reopened(
    folder: &Path,
    work: impl AsyncFnOnce(&Tree) -> Result<usize, LogError>,
) -> Result<usize, String> {
    let told = |error: LogError| format!("{}: {error}", folder.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no threads to be had: {error}"))?;
    runtime.block_on(async {
        let opened = Tree::reopen(folder).map_err(told)?;
        work(&opened.tree).await.map_err(told)
    })
}

/// What is in the spool at `dir`: told by the daemon that has it, or read.
pub(super) fn status(dir: &Path) -> Result<Status, String> {
    let folder = folder(dir)?;
    let read = inspect(&folder);
    let is_settled = read.as_ref().is_ok_and(|read| read.in_use().is_none());
    if !is_settled && let Some((_, status)) = daemon_of(&folder) {
        return Ok(status);
    }
    told(&read?).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Reads the spool in `folder`.
pub(super) fn inspect(folder: &Path) -> Result<Inspection, String> {
    Inspection::of(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn told(inspection: &Inspection) -> std::io::Result<Status> {
    let mut status = Status {
        source: source(inspection),
        dir: inspection.path().to_string_lossy().into_owned(),
        spool: inspection.path().to_string_lossy().into_owned(),
        unmounted: true,
        in_use: inspection.in_use().is_some(),
        pid: inspection.in_use().flatten().unwrap_or_default(),
        link: "not mounted".into(),
        identity: inspection.identity().map(str::to_owned),
        oldest_seconds: inspection
            .oldest(SystemTime::now())
            .map(|age| age.as_secs()),
        partials: inspection.unclosed().iter().map(partial).collect(),
        lost: inspection.lost().to_vec(),
        set_aside: inspection.reading().set_aside()?,
        spool_bytes: inspection.reading().occupied()?,
        conflicts: inspection
            .conflicts()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ..Status::default()
    };
    for (key, entry) in inspection.pending().in_order() {
        if let Some(reason) = &entry.dead {
            status.refused.push(Refused {
                name: key.to_string(),
                why: reason.to_string(),
            });
        } else if !matches!(entry.want, Want::Open { .. }) {
            status.pending += 1;
            let is_content = matches!(entry.want, Want::Object(_));
            status.pending_files += u64::from(is_content && !key.is_dir());
            status.pending_bytes += entry.local_bytes();
        }
    }
    Ok(status)
}

fn source(inspection: &Inspection) -> String {
    match inspection.binding() {
        Some(binding) => {
            let prefix = binding.prefix.trim_end_matches('/');
            let slash = if prefix.is_empty() { "" } else { "/" };
            format!("s3://{}{slash}{prefix}", binding.bucket)
        }
        None => "a spool that does not say whose it is".into(),
    }
}

fn partial(unclosed: &Unclosed) -> Partial {
    let name = unclosed.name.clone();
    Partial {
        name: name.unwrap_or_else(|| format!("data file {}", unclosed.file.0)),
        bytes: unclosed.len,
    }
}
