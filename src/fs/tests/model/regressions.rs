//! What failed once, shrunk: each by what happened.

use super::look::visible;
use super::*;

#[tokio::test]
async fn regression_a_directory_that_was_renamed_away_was_back_after_two_restarts() {
    let world = World::new();
    world.mkdir("d").await.unwrap();
    world.put("b", b"file").await.unwrap();
    world.drain().await;
    world.twin.put_behind("d/a", "theirs", Headers::default());
    let world = world.reboot().await;
    visible(&world).await;
    world.rename("d", "c").await.unwrap();
    visible(&world).await;
    world.drain().await;
    visible(&world).await;
    let world = world.reboot().await;
    visible(&world).await;
    world.rename("b", "d").await.unwrap();
    visible(&world).await;
    world.drain().await;
    let world = world.reboot().await;
    assert_eq!(world.get("d").await.unwrap(), b"file");
}
