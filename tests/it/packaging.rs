//! What is deployed beside the binary: the cloud's side, and all scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kryptonfs::store::Op;

use crate::harness::servers::venv;

/// The IAM actions an operation needs, by the S3 user guide's "Required permissions for Amazon S3 API
/// operations". CopyObject and UploadPartCopy read their source and write their target.
fn actions(op: Op) -> &'static [&'static str] {
    match op {
        Op::Get | Op::Head => &["s3:GetObject"],
        Op::List => &["s3:ListBucket"],
        Op::Put | Op::CreateMultipart | Op::UploadPart | Op::Complete => &["s3:PutObject"],
        Op::Copy | Op::CopyPart => &["s3:GetObject", "s3:PutObject"],
        Op::Abort => &["s3:AbortMultipartUpload"],
        Op::ListParts => &["s3:ListMultipartUploadParts"],
        Op::Delete | Op::DeleteBatch => &["s3:DeleteObject"],
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn template() -> PathBuf {
    root().join("packaging/aws/kryptonfs.yaml")
}

fn clean(mut command: Command) {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_role_of_a_sim_allows_what_the_store_uses_and_nothing_else() {
    let text = fs::read_to_string(template()).unwrap();
    let (_, role) = text.split_once("  SimRole:\n").expect("the role");
    let (role, _) = role.split_once("\n  KryptonUser:").expect("its end");
    let allowed: BTreeSet<&str> = role
        .lines()
        .filter(|line| line.trim_start().starts_with("Action:"))
        .flat_map(|line| line.split('"').filter(|word| word.starts_with("s3:")))
        .collect();
    let used: BTreeSet<&str> = Op::ALL.into_iter().flat_map(actions).copied().collect();
    assert_eq!(allowed, used);
}

#[test]
fn the_template_has_nothing_that_cfn_lint_minds() {
    let mut lint = Command::new(venv("cfn-lint"));
    lint.arg(template());
    clean(lint);
}

#[test]
fn every_shell_script_is_clean_to_shellcheck() {
    let mut todo: Vec<PathBuf> = ["tests", ".ci", "packaging"]
        .map(|dir| root().join(dir))
        .into();
    let mut scripts = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let text = fs::read(&path).unwrap();
            if text.starts_with(b"#!/usr/bin/env bash") || text.starts_with(b"#!/bin/sh") {
                scripts.push(path);
            }
        }
    }
    assert!(scripts.contains(&root().join("packaging/soracom/setup")));
    let mut check = Command::new(venv("shellcheck"));
    check.args(scripts);
    clean(check);
}

/// Without `--run` it only says what it would do, and what it lacks.
#[test]
fn the_soracom_steps_say_what_they_would_run_and_what_they_lack() {
    let script = root().join("packaging/soracom/setup");
    let step = |step: &str, known: &[(&str, &str)]| {
        let mut command = Command::new(&script);
        command.arg(step).env("PATH", "/usr/bin:/bin");
        for (name, value) in known {
            command.env(name, value);
        }
        command.output().unwrap()
    };
    let lacks = step("redirection", &[]);
    assert_eq!(lacks.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&lacks.stderr).contains("needs VPG_ID"));
    let known = [("VPG_ID", "vpg-1"), ("GATE_PEER_INNER", "10.255.255.254")];
    let told = step("redirection", &known);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.starts_with("soracom vpg set-redirection --vpg-id vpg-1"),
        "{told}"
    );
    assert!(told.contains("10.255.255.254"), "{told}");
}
