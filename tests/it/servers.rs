//! The real servers, as the harness starts them: what the other tests take for granted of them.

use crate::harness::servers::ROLE;
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
    assert_eq!(world.client.keys(""), [key.clone()]);
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
    let keys = world.client.assume_role(ROLE);
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
