//! The whole way, against loopback where nobody answers and a bucket in memory.

use std::net::TcpListener;

use async_trait::async_trait;

use super::*;
use crate::creds::{self, Once};
use crate::net;
use crate::store::region::Forgetful;
use crate::store::twin::Twin;
use crate::store::{self, Begun};

#[derive(Debug)]
struct NoUploads;

#[async_trait]
impl Uploads for NoUploads {
    async fn begun(&self, _: &str) -> store::Result<Begun> {
        Ok(Begun::default())
    }
}

/// An address on loopback where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("https://{}", listener.local_addr().unwrap())
}

fn parts(interface: &str) -> (Parts, Facts) {
    let config = net::Config {
        interface: Some(interface.to_owned()),
        ..net::Config::default()
    };
    let net = Net::new(&config).unwrap();
    let creds = creds::Config {
        krypton_url: nobody(),
        ..creds::Config::default()
    };
    let clock = Believed::of_process();
    let krypton = Krypton::new(&creds, &net, Arc::<Believed>::clone(&clock));
    let krypton = Arc::new(krypton.unwrap());
    let twin: Arc<dyn ObjectStore> = Arc::new(Twin::new());
    let parts = Parts {
        net,
        clock,
        leases: Arc::new(Once::new(Arc::<Krypton>::clone(&krypton))),
        krypton,
        bucket: Arc::clone(&twin),
        mount: twin,
        region: Arc::<Forgetful>::default(),
        uploads: Arc::new(NoUploads),
    };
    let facts = Facts {
        source: "s3://b/p".into(),
        bucket: "b".into(),
        prefix: "p/".into(),
        is_rooted: false,
        region: Some("ap-northeast-1".into()),
        s3_url: nobody(),
        endpoint_url: None,
        krypton_url: creds.krypton_url,
        cognito_url: None,
        interface: Some(interface.to_owned()),
        public_probe: None,
        is_checked: false,
        read_only: false,
        spool: env!("CARGO_MANIFEST_DIR").into(),
        cache: env!("CARGO_MANIFEST_DIR").into(),
        disk_reserve: 0,
        set_up_canary: false,
        hops_max: 3,
    };
    (parts, facts)
}

async fn examined(parts: &Parts, facts: &Facts) -> Report {
    let mut told = Vec::new();
    let report = examine(parts, facts, &mut |row: &Row| told.push(row.clone())).await;
    assert_eq!(told, report.rows, "each row is told once");
    for row in &report.rows {
        let needs_cure = matches!(row.verdict, Verdict::Warn | Verdict::Fail);
        assert_eq!(needs_cure, !row.cure.is_empty(), "{row:?}");
        let same = report.rows.iter().filter(|other| other.check == row.check);
        assert_eq!(same.count(), 1, "{row:?}");
    }
    report
}

fn verdict(report: &Report, check: &str) -> Verdict {
    let row = report.rows.iter().find(|row| row.check == check);
    row.unwrap_or_else(|| panic!("{check}: {report:?}")).verdict
}

#[tokio::test]
async fn what_cannot_work_after_a_failure_is_not_tried() {
    let (parts, facts) = parts("lo");
    let report = examined(&parts, &facts).await;
    for (check, want) in [
        ("interface", Verdict::Pass),
        ("dns", Verdict::Pass),
        ("route", Verdict::Pass),
        ("tcp", Verdict::Fail),
        ("path", Verdict::Pass),
        ("tls", Verdict::Skip),
        ("mtu", Verdict::Skip),
        ("krypton", Verdict::Fail),
        ("cognito", Verdict::Skip),
        ("lease", Verdict::Skip),
        ("bucket", Verdict::Skip),
        ("list", Verdict::Skip),
    ] {
        assert_eq!(verdict(&report, check), want, "{check}: {report:?}");
    }
    assert_eq!(report.verdict, Verdict::Fail);
}

#[tokio::test]
async fn without_the_interface_nothing_is_sent() {
    let (parts, facts) = parts("kfs-none0");
    let report = examined(&parts, &facts).await;
    assert_eq!(verdict(&report, "interface"), Verdict::Fail);
    assert_eq!(verdict(&report, "krypton"), Verdict::Skip);
    assert_eq!(verdict(&report, "bucket"), Verdict::Skip);
    assert_eq!(parts.net.meter().totals(), net::Totals::default());
}
