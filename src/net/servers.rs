//! Which DNS servers are asked: those of `dns=`, else those that were learnt with the link's
//! address, else those of the system.
//!
//! Where a link's own are written down: systemd-networkd (`/run/systemd/netif/links/INDEX`),
//! resolvconf and openresolv (a file for each interface, which ModemManager's, dhcpcd's and pppd's
//! hooks fill), pppd (`/etc/ppp/resolv.conf`).
//!
//! Invariant: a server on loopback (a local cache such as systemd-resolved's 127.0.0.53) is never
//! one: it cannot be reached from a socket bound to another interface, and it would ask by any link.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    told: Vec<SocketAddr>,
    interface: Option<String>,
    root: PathBuf,
}

impl Servers {
    pub(super) fn new(told: Vec<SocketAddr>, interface: Option<String>) -> Self {
        Self {
            told,
            interface,
            root: PathBuf::from("/"),
        }
    }

    /// Whether they were named by `dns=`.
    pub(super) fn are_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// The same below another root, for tests.
    #[cfg(test)]
    pub(super) fn below(&mut self, root: &Path) {
        self.root = root.to_owned();
    }

    /// Those there are now: the link may have come up since, with others. Reads files.
    pub(super) fn now(&self) -> Vec<SocketAddr> {
        if self.are_told() {
            return self.told.clone();
        }
        let of_link = self.interface.as_deref().map(|name| self.of_link(name));
        let of_link = of_link.unwrap_or_default();
        if !of_link.is_empty() {
            return of_link;
        }
        let system = [
            "etc/resolv.conf",
            "run/systemd/resolve/resolv.conf",
            "run/NetworkManager/resolv.conf",
        ];
        let mut all = system.iter().map(|path| {
            let found = nameservers(&self.text(Path::new(path)));
            self.reachable(found)
        });
        all.find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn of_link(&self, interface: &str) -> Vec<SocketAddr> {
        let networkd = if_nametoindex(interface).map(|index| {
            let path = format!("run/systemd/netif/links/{index}");
            networkd_servers(&self.text(Path::new(&path)))
        });
        let mut found = networkd.unwrap_or_default();
        for folder in ["run/resolvconf/interface", "run/resolvconf/interfaces"] {
            for file in self.files_of(Path::new(folder), interface) {
                found.extend(nameservers(&self.text(&file)));
            }
        }
        if found.is_empty() && interface.starts_with("ppp") {
            found = nameservers(&self.text(Path::new("etc/ppp/resolv.conf")));
        }
        self.reachable(found)
    }

    /// `wwan0`, `wwan0.dhclient`, `wwan0.ppp` and so on, in the order of their names.
    fn files_of(&self, folder: &Path, interface: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join(folder));
        let names = entries.into_iter().flatten().flatten();
        let mut files: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                let rest = name.strip_prefix(interface);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .map(|name| folder.join(name))
            .collect();
        files.sort();
        files
    }

    fn reachable(&self, mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let here = self.interface.as_deref() == Some("lo");
        found.retain(|server| here || !server.ip().is_loopback());
        found
    }

    /// Nothing, if it is not there or not to be read: then it names no server.
    fn text(&self, path: &Path) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

/// The `nameserver` lines of a resolv.conf.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().map(str::split_whitespace);
    lines
        .filter_map(|mut words| match words.next() {
            Some("nameserver") => words.next()?.parse::<IpAddr>().ok(),
            _ => None,
        })
        .map(|server| SocketAddr::new(server, 53))
        .collect()
}

/// The `DNS=` line of networkd's state of a link.
fn networkd_servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("DNS="));
    lines
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|server| SocketAddr::new(server, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(interface: Option<&str>, files: &[(&str, &str)]) -> Vec<String> {
        let dir = written(files);
        let mut servers = Servers::new(vec![], interface.map(str::to_owned));
        servers.below(dir.path());
        servers.now().iter().map(ToString::to_string).collect()
    }

    const SYSTEM: (&str, &str) = ("etc/resolv.conf", "nameserver 192.168.1.1\n");

    #[test]
    fn the_servers_of_resolv_conf_are_its_nameserver_lines() {
        let text = "# c\nsearch a b\nnameserver 100.127.0.53\n  nameserver\t100.127.1.53 x\n\
                    nameserver\nnameserver nonsense\noptions rotate\nnameserver fd00::53\n";
        let servers = found(Some("wwan0"), &[("etc/resolv.conf", text)]);
        assert_eq!(
            servers,
            ["100.127.0.53:53", "100.127.1.53:53", "[fd00::53]:53"]
        );
    }

    #[test]
    fn what_the_link_brought_comes_before_what_the_system_has() {
        for path in [
            "run/resolvconf/interface/wwan0",
            "run/resolvconf/interface/wwan0.dhclient",
            "run/resolvconf/interfaces/wwan0.ppp",
        ] {
            let own = (path, "nameserver 100.127.0.53\n");
            assert_eq!(
                found(Some("wwan0"), &[SYSTEM, own]),
                ["100.127.0.53:53"],
                "{path}"
            );
            assert_eq!(found(Some("wwan"), &[SYSTEM, own]), ["192.168.1.1:53"]);
            assert_eq!(found(None, &[SYSTEM, own]), ["192.168.1.1:53"]);
        }
        let ppp = ("etc/ppp/resolv.conf", "nameserver 100.127.1.53\n");
        assert_eq!(found(Some("ppp0"), &[SYSTEM, ppp]), ["100.127.1.53:53"]);
        assert_eq!(found(Some("wwan0"), &[SYSTEM, ppp]), ["192.168.1.1:53"]);
    }

    #[test]
    fn networkd_names_the_servers_of_a_link_by_its_index() {
        let lo = if_nametoindex("lo").unwrap();
        let path = format!("run/systemd/netif/links/{lo}");
        let state = "ADMIN_STATE=configured\nDNS=100.127.0.53 fd00::53\nNTP=\n";
        assert_eq!(
            found(Some("lo"), &[SYSTEM, (&path, state)]),
            ["100.127.0.53:53", "[fd00::53]:53"]
        );
    }

    #[test]
    fn a_cache_on_this_machine_is_passed_over_for_what_it_asks_itself() {
        let cache = ("etc/resolv.conf", "nameserver 127.0.0.53\n");
        let behind = ("run/systemd/resolve/resolv.conf", "nameserver 10.9.9.9\n");
        assert_eq!(found(Some("wwan0"), &[cache, behind]), ["10.9.9.9:53"]);
        assert!(found(Some("wwan0"), &[cache]).is_empty());
        assert_eq!(found(Some("lo"), &[cache]), ["127.0.0.53:53"]);
    }

    #[test]
    fn those_that_were_named_are_the_only_ones() {
        let dir = written(&[SYSTEM]);
        let named = vec!["10.0.0.2:5353".parse().unwrap()];
        let mut servers = Servers::new(named.clone(), Some("wwan0".to_owned()));
        servers.below(dir.path());
        assert_eq!(servers.now(), named);
    }
}
