//! A way of IPv6: the SIM's side, a router, and a host behind it.

use std::path::Path;
use std::process::Command;

use crate::doctor::Told;
use crate::harness::{Server, Spec, World, shell};

/// Of each host: its name and the script that makes it what it is.
const BUILD: &str = r#"
for space in $dev $router $far; do
  ip netns add $space
  nsenter --net=/run/netns/$space bash -c '
    for kind in all default; do echo 0 > /proc/sys/net/ipv6/conf/$kind/disable_ipv6; done'
  ip -n $space link set lo up
done
ip -n $dev link add wwan0 type veth peer name sim netns $router
ip -n $router link add out type veth peer name in netns $far
on() { nsenter --net=/run/netns/$1 bash -c "$2"; }
on $router 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
for pair in $dev:wwan0 $router:sim $router:out $far:in; do
  ip -n ${pair%:*} link set ${pair#*:} up
done
ip -n $dev addr add fd00:1::2/64 dev wwan0 nodad
ip -n $router addr add fd00:1::1/64 dev sim nodad
ip -n $router addr add fd00:2::1/64 dev out nodad
ip -n $far addr add fd00:2::2/64 dev in nodad
ip -n $dev -6 route add default via fd00:1::1 dev wwan0
ip -n $far -6 route add default via fd00:2::1 dev in
"#;

struct Way([String; 3]);

impl Way {
    fn new() -> Self {
        let tag = format!("kfs-{}-six", std::process::id());
        let spaces = ["dev", "router", "far"];
        let way = Self(spaces.map(|space| format!("{tag}-{space}")));
        let named = spaces.iter().zip(&way.0);
        let named: String = named
            .map(|(name, space)| format!("{name}={space}\n"))
            .collect();
        shell(Path::new("/"), &format!("{named}{BUILD}"));
        way
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        for space in &self.0 {
            // It may never have come to be.
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}

#[test]
fn doctor_follows_a_way_of_ipv6_hop_by_hop() {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("this kernel has no IPv6");
        return;
    }
    let (way, world) = (Way::new(), World::new(Server::Sim, "six"));
    let spec = |host: &str| Spec {
        endpoint: format!("https://[{host}]:443"),
        krypton: format!("https://[{host}]:8036"),
        space: Some(way.0[0].clone()),
        ..world
            .spec()
            .with("network", "closed")
            .with("interface", "wwan0")
            .with("ntp", "none")
    };
    // Nobody listens there, but the host itself says so: it was reached.
    let told = Told::of(&spec("fd00:2::2"));
    told.says("interface", "pass", &["fd00:1::2"]);
    told.says("route", "pass", &["fd00:2::2 by wwan0 via fd00:1::1"]);
    told.says("tcp", "fail", &["fd00:2::2", "refused"]);
    told.says("path", "pass", &["fd00:2::2 at hop 2: fd00:1::1 (", "S3 ("]);
    // Behind the router there is no way on, and it says so.
    let told = Told::of(&spec("fd00:3::2"));
    told.says("path", "warn", &["fd00:3::2 is not reached", "fd00:1::1"]);
}
