# The article's network in the network namespaces $dev, $air, $peer, $vpc and $net: functions for
# tests/it/harness/field.rs, which draws it.
# shellcheck shell=bash disable=SC2016,SC2154

on() { nsenter --net="/run/netns/$1" "${@:2}"; }
cable() {
  ip -n "$1" link add "$2" type veth peer name "$4" netns "$3"
  ip -n "$1" link set "$2" up
  ip -n "$3" link set "$4" up
}
mac() { ip -n "$1" -br link show dev "$2" | awk '{ print $3 }'; }
sim_up() {
  ip -n "$dev" link set wwan0 mtu 1400 up
  ip -n "$dev" route replace default via 10.128.0.1 dev wwan0 metric 700
}
sim_down() { ip -n "$dev" link set wwan0 down; }
nat() {
  on "$peer" nft -f - <<'NFT'
table ip nat {
  chain post {
    type nat hook postrouting priority srcnat;
    ip saddr 10.128.0.0/9 oifname "ens5" masquerade
  }
}
NFT
}
# The Gate Peer loses what is larger than 1000 bytes, and says nothing.
small() {
  on "$peer" nft -f - <<'NFT'
table ip small {
  chain forward {
    type filter hook forward priority filter;
    iifname "vxlan0" meta length > 1000 drop
  }
}
NFT
}

build() {
  for space in "$dev" "$air" "$peer" "$vpc" "$net"; do
    ip netns add "$space"
    on "$space" bash -c '
      if [ -d /proc/sys/net/ipv6 ]; then
        for kind in all default; do echo 1 >/proc/sys/net/ipv6/conf/$kind/disable_ipv6; done
      fi
      for kind in all default; do echo 0 >/proc/sys/net/ipv4/conf/$kind/rp_filter; done
      echo 1 >/proc/sys/net/ipv4/ip_forward'
    ip -n "$space" link set lo up
  done
  on "$dev" bash -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'

  cable "$dev" wwan0 "$air" ue
  cable "$air" canal "$vpc" pcx
  cable "$vpc" sub "$peer" ens5
  cable "$net" home "$dev" eth0
  cable "$net" igw "$vpc" igw
  cable "$net" pops "$air" pops

  # The VPC: a router, S3 behind the gateway endpoint, an interface endpoint of Cognito.
  ip -n "$vpc" addr add 172.31.0.1/16 dev sub
  ip -n "$vpc" addr add 172.31.0.20/32 dev lo
  ip -n "$vpc" addr add 52.219.68.63/32 dev lo
  ip -n "$vpc" addr add 100.64.0.1/24 dev pcx
  ip -n "$vpc" addr add 198.51.100.2/30 dev igw
  ip -n "$vpc" route add 10.128.0.0/9 via 172.31.0.10
  ip -n "$vpc" route add default via 198.51.100.1

  # SORACOM: the VPG, and the endpoints of the platform.
  ip -n "$air" addr add 10.128.0.1 peer 10.128.0.2/32 dev ue
  ip -n "$air" route add 10.128.0.3/32 dev ue
  for address in 100.127.0.53 54.250.252.67; do ip -n "$air" addr add "$address/32" dev lo; done
  ip -n "$air" addr add 100.64.0.4/24 dev canal
  ip -n "$air" addr add 198.51.100.6/30 dev pops
  ip -n "$air" route add 172.31.0.0/16 via 100.64.0.1
  ip -n "$air" route add default via 198.51.100.5

  # Gate: VXLAN over the peering, as SORACOM's gate_init_vxlan.sh makes it.
  ip -n "$peer" addr add 172.31.0.10/16 dev ens5
  ip -n "$peer" route add default via 172.31.0.1
  ip -n "$peer" link add vxlan0 type vxlan local 172.31.0.10 id 10 dstport 4789 dev ens5
  ip -n "$air" link add vxlan0 type vxlan local 100.64.0.4 id 10 dstport 4789 dev canal
  on "$peer" bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 100.64.0.4
  on "$air" bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 172.31.0.10
  ip -n "$peer" addr add 10.128.0.254/9 dev vxlan0
  ip -n "$air" addr add 10.128.0.253/9 dev vxlan0
  ip -n "$peer" link set vxlan0 up
  ip -n "$air" link set vxlan0 up
  on "$air" bash -c 'echo 1 >/proc/sys/net/ipv4/conf/vxlan0/proxy_arp'

  # Junction Redirection: what devices send goes to the Gate Peer, but for the platform's own.
  ip -n "$air" route add default via 10.128.0.254 dev vxlan0 table 100
  ip -n "$air" rule add iif ue lookup 100

  # The device: a SIM, and a better way to the Internet. Its neighbours are known, so that every frame
  # on eth0 is somebody's packet.
  ip -n "$dev" addr add 10.128.0.2 peer 10.128.0.1/32 dev wwan0
  ip -n "$dev" addr add 192.168.1.2/24 dev eth0
  ip -n "$dev" route add default via 192.168.1.1 dev eth0 metric 100
  ip -n "$net" addr add 192.168.1.1/24 dev home
  ip -n "$net" addr add 8.8.8.8/32 dev lo
  ip -n "$net" addr add 198.51.100.1/30 dev igw
  ip -n "$net" addr add 198.51.100.5/30 dev pops
  ip -n "$net" route add 52.219.0.0/16 via 198.51.100.2
  ip -n "$net" route add 54.250.252.0/24 via 198.51.100.6
  ip -n "$dev" neigh replace 192.168.1.1 lladdr "$(mac "$net" home)" dev eth0 nud permanent
  ip -n "$net" neigh replace 192.168.1.2 lladdr "$(mac "$dev" eth0)" dev home nud permanent
  sim_up

  # Krypton knows only the SIM's side.
  on "$air" nft -f - <<'NFT'
table inet krypton {
  chain in {
    type filter hook input priority filter;
    ip daddr 54.250.252.67 iifname != "ue" reject
  }
}
NFT
  # The Gate Peer's security group.
  on "$peer" nft -f - <<'NFT'
table inet group {
  chain in {
    type filter hook input priority filter;
    iifname "ens5" udp dport 4789 ip saddr != 100.64.0.0/16 drop
  }
}
NFT
  # Both ends of the link to the Internet count.
  on "$dev" nft -f - <<'NFT'
table inet leak {
  counter every { }
  counter dns { }
  chain out {
    type filter hook postrouting priority filter;
    oifname "eth0" counter name every
    oifname "eth0" udp dport 53 counter name dns
    oifname "eth0" tcp dport 53 counter name dns
  }
}
NFT
  on "$net" nft -f - <<'NFT'
table inet leak {
  counter every { }
  counter dns { }
  chain in {
    type filter hook prerouting priority filter;
    iifname "home" counter name every
    iifname "home" udp dport 53 counter name dns
    iifname "home" tcp dport 53 counter name dns
  }
}
NFT
}
