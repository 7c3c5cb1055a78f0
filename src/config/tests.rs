use super::*;
use crate::creds::Mode;
use crate::net::Network;
use crate::types::Sse;
use std::path::PathBuf;
use std::time::Duration;

fn config(options: &str) -> Result<Config, ConfigError> {
    let given = split_options(options);
    Config::with_etc("s3://bucket/pre/fix", &given, Path::new("/nowhere"))
}

fn fault(options: &str) -> String {
    let line = config(options).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let all = config("region=ap-northeast-1,interface=wwan0").unwrap();
    assert_eq!(all.net.network, Network::Closed);
    assert_eq!(all.net.interface.as_deref(), Some("wwan0"));
    assert_eq!(all.net.ntp.as_deref(), Some("ntp.soracom.io"));
    assert_eq!(all.creds.mode, Mode::Auto);
    assert_eq!(all.creds.krypton_url, "https://krypton.soracom.io:8036");
    assert_eq!(all.s3.region.as_deref(), Some("ap-northeast-1"));
    assert!(!all.s3.path_style);
    assert_eq!(all.fs.ttl, Duration::from_secs(60));
    assert_eq!(all.fs.stale_after, Duration::from_secs(2));
    assert_eq!(all.fs.rename_limit, 1000);
    assert_eq!(all.fs.key_max, 1024 - "pre/fix/".len());
    assert_eq!((all.fs.file_mode, all.fs.dir_mode), (0o644, 0o755));
    assert!(!all.fs.close_uploaded);
    assert_eq!(all.drain.multipart_threshold, 8 << 20);
    assert_eq!(all.drain.linger, Duration::from_secs(2));
    assert_eq!(all.drain.part_size, None);
    assert_eq!(all.log_level, LevelFilter::INFO);
    assert!(all.read.cache_max <= 1 << 30);
}

#[test]
fn options_reach_the_modules_they_are_for() {
    let all = config(
        "endpoint_url=https://10.0.0.1:9000,network=open,spool_dir=/s,cache_dir=/c,\
         spool_max=1G,cache_max=2M,umask=027,dmask=007,close=uploaded,order=none,\
         conflict=keep-both,sse=aws:kms,sse_kms_key_id=k,storage_class=STANDARD_IA,\
         part_size=16MiB,krypton=tokens,dns=10.0.0.2,dns=10.0.0.3:5353,resolve=h=10.0.0.4,\
         statfs=spool,ro,log=off,ntp=none,allow_other=false,content_type=none,uid=5,gid=6",
    )
    .unwrap();
    assert_eq!(all.s3.region, None);
    assert!(all.s3.path_style);
    let folder = all.place.folder("https://10.0.0.1:9000");
    assert_eq!(all.log.dir, PathBuf::from("/s").join(&folder));
    assert_eq!(all.read.cache_dir, PathBuf::from("/c").join(&folder));
    assert_eq!((all.log.spool_max, all.read.cache_max), (1 << 30, 2 << 20));
    assert_eq!((all.fs.fmask, all.fs.dmask), (0o027, 0o007));
    assert_eq!((all.fs.uid, all.fs.gid), (5, 6));
    assert!(all.fs.close_uploaded && !all.fs.fsync_uploaded);
    assert!(all.fs.read_only && all.mount.read_only);
    assert!(!all.fs.content_type_auto && !all.mount.allow_other);
    assert_eq!(all.fs.statfs, crate::fs::StatfsMode::Spool);
    assert_eq!(all.drain.order, crate::drain::Order::None);
    assert_eq!(all.drain.conflict, crate::drain::ConflictPolicy::KeepBoth);
    assert_eq!(all.drain.sse, Some(Sse::Kms(Some("k".into()))));
    assert_eq!(all.drain.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(all.drain.part_size, Some(16 << 20));
    assert_eq!(all.creds.mode, Mode::Tokens);
    assert_eq!(all.net.dns.len(), 2);
    assert_eq!(all.net.ntp, None);
    assert_eq!(all.net.resolve[0].0, "h");
    assert_eq!(all.log_level, LevelFilter::OFF);
}

#[test]
fn a_closed_network_needs_to_know_to_what() {
    let line = fault("region=x");
    assert!(
        line.contains("interface=NAME") && line.contains("network=open"),
        "{line}"
    );
}

#[test]
fn who_learns_the_region_has_the_spool_of_who_says_it() {
    let spool = |line: &str| config(&format!("network=open,{line}")).unwrap().log;
    for (without, with) in [
        ("ttl=1s", "region=ap-northeast-1"),
        (
            "endpoint_url=https://minio.example",
            "endpoint_url=https://minio.example/,region=x",
        ),
    ] {
        let (without, with) = (spool(without), spool(with));
        assert_eq!(without.dir, with.dir);
        assert_eq!(without.binding, with.binding);
    }
    // Another bucket of the same name.
    assert_ne!(spool("region=cn-north-1").dir, spool("ttl=1s").dir);
    assert!(fault("network=open,region=a/b").contains("ap-northeast-1"));
}

#[test]
fn an_interface_endpoint_is_asked_by_path_and_signed_for_the_real_region() {
    let at = |host: &str| {
        let line = format!("network=open,region=eu-west-1,endpoint_url=https://{host}");
        config(&line).unwrap().s3
    };
    let endpoint = at("bucket.vpce-1a2b-5e6f.s3.eu-west-1.vpce.amazonaws.com");
    assert!(endpoint.path_style);
    assert_eq!(endpoint.region.as_deref(), Some("eu-west-1"));
    assert!(!at("s3.eu-west-1.amazonaws.com").path_style);
    assert!(at("minio.example").path_style);
}

#[test]
fn plain_http_is_for_an_open_network_or_this_machine() {
    let at = |url: &str, more: &str| format!("region=x,endpoint_url={url},{more}");
    assert!(fault(&at("http://10.0.0.1", "interface=wwan0")).contains("https://"));
    assert!(fault("region=x,interface=wwan0,krypton_url=http://10.0.0.1").contains("krypton_url"));
    assert!(config(&at("http://127.0.0.1:9", "interface=lo")).is_ok());
    assert!(config(&at("http://10.0.0.1", "network=open")).is_ok());
}

#[test]
fn what_s3_would_refuse_is_refused_before() {
    let with = |more: &str| format!("region=x,network=open,{more}");
    for (more, cure) in [
        ("part_size=4MiB", "5MiB"),
        ("part_size=6GiB", "5GiB"),
        ("multipart_threshold=1MiB", "5MiB"),
        ("upload_concurrency=0", "1 to 16"),
        ("sse_kms_key_id=k", "sse=aws:kms"),
        ("conflict_prefix=../x", "lost/conflicts"),
        ("readahead_max=1GiB", "32MiB"),
        ("read_timeout=10ms", "1s"),
        ("region=a/b", "ap-northeast-1"),
    ] {
        let line = fault(&with(more));
        assert!(line.contains(cure), "{line}");
    }
}

#[test]
fn a_folder_of_ours_inside_the_mountpoint_is_found() {
    let all = config("region=x,network=open,spool_dir=/mnt/s3/spool,cache_dir=/c").unwrap();
    assert_eq!(all.folder_within(Path::new("/mnt/s3")), Some("spool_dir"));
    assert_eq!(all.folder_within(Path::new("/c")), Some("cache_dir"));
    assert_eq!(all.folder_within(Path::new("/mnt/s4")), None);
}
