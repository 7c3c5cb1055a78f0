//! The real servers, as the harness starts them: what the other tests take for granted of them.

use std::sync::Arc;

use kryptonfs::clock::SystemClock;
use kryptonfs::creds;
use kryptonfs::net::{self, Net, Network};
use kryptonfs::store::ObjectStore;
use kryptonfs::store::region::Forgetful;
use kryptonfs::store::retry::{self, Retry};
use kryptonfs::store::s3::{self, S3Store};

use crate::contract::{self, Caps};
use crate::harness::{Access, Client, Keys, Server, World};

fn keeps_what_it_is_given(server: Server) {
    let world = World::new(server, "server");
    let key = world.key("a b/日本.txt");
    world
        .client
        .put_with(&key, b"content", &[("mode", "33188")], "text/plain");
    let seen = world.client.get(&key);
    assert_eq!(seen.body, b"content");
    assert_eq!(seen.metadata["mode"], "33188");
    assert_eq!(seen.content_type, "text/plain");
    assert_eq!(world.client.keys(""), std::slice::from_ref(&key));
    assert!(world.client.has(&key));
    world.client.delete(&key);
    assert!(!world.client.has(&key));
}

#[test]
fn the_simulated_cloud_keeps_what_an_independent_client_puts() {
    keeps_what_it_is_given(Server::Sim);
}

#[test]
fn seaweedfs_starts_and_keeps_what_it_is_given() {
    keeps_what_it_is_given(Server::Seaweed);
}

#[test]
fn radosgw_starts_hands_out_session_keys_and_keeps_what_it_is_given() {
    let world = World::new(Server::Radosgw, "server");
    let keys = world.client.session_keys();
    assert!(keys.session_token.is_some());
    let session = Client::start(&Access {
        keys: Keys {
            session_token: Some("not-the-token".into()),
            ..keys
        },
        ..world.access.clone()
    });
    assert!(
        session.try_put("k", b"x").is_err(),
        "a false session token was taken"
    );
    keeps_what_it_is_given(Server::Radosgw);
}

/// The adapter on that world's bucket, with credentials from Krypton.
fn adapter(world: &World) -> Arc<dyn ObjectStore> {
    let spec = world.spec();
    let net = Net::new(&net::Config {
        network: Network::Open,
        ca_file: Some(spec.ca_file),
        ..net::Config::default()
    });
    let net = net.unwrap();
    let config = creds::Config {
        krypton_url: spec.krypton,
        ..creds::Config::default()
    };
    let keeper = creds::keeper(&config, &net, Arc::new(SystemClock)).unwrap();
    let config = s3::Config {
        bucket: world.access.bucket.clone(),
        region: Some(spec.region.clone()),
        endpoint_url: Some(spec.endpoint),
        path_style: true,
        is_rooted: false,
    };
    let base = net.sdk_config();
    Arc::new(S3Store::new(
        &config,
        net.http_client(),
        &base,
        Arc::new(keeper),
        Arc::<Forgetful>::default(),
    ))
}

fn keeps_the_contract(server: Server, caps: Caps) {
    let world = World::new(server, "contract");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = adapter(&world);
        // A busy SeaweedFS answers 500 now and then; repeating is the next layer's.
        let store = match server {
            Server::Seaweed => Retry::over(store, retry::Config::default()),
            Server::Sim | Server::Radosgw => return contract::run(store, caps).await,
        };
        contract::run(store, caps).await;
    });
}

#[test]
fn the_simulated_cloud_keeps_the_contract() {
    keeps_the_contract(Server::Sim, Caps::all());
}

#[test]
fn seaweedfs_keeps_the_contract() {
    keeps_the_contract(Server::Seaweed, Caps::seaweedfs());
}

#[test]
fn radosgw_keeps_the_contract() {
    keeps_the_contract(Server::Radosgw, Caps::radosgw());
}
