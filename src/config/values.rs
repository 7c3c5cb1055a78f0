//! Values as people write them. Pure; an error says what would be right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;

use crate::net::Cidr;

type Parsed<T> = Result<T, String>;

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

/// `8MiB` and `8M` are 8 x 1024 x 1024 bytes, `8MB` is 8 x 1000 x 1000.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let bytes = number_and_unit(text).and_then(|(number, unit)| {
        let unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    bytes.ok_or_else(|| format!("{text:?} is not a size; say 8MiB"))
}

/// A number without a unit is seconds.
pub(super) fn time(text: &str) -> Parsed<Duration> {
    let time = number_and_unit(text).and_then(|(number, unit)| {
        let seconds = match unit {
            "ms" => return Some(Duration::from_millis(number)),
            "" | "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        number.checked_mul(seconds).map(Duration::from_secs)
    });
    // A year: far more would overflow the clock it is added to.
    time.filter(|time| *time <= Duration::from_secs(366 * 86_400))
        .ok_or_else(|| format!("{text:?} is not a time; say 30s, 5m, 1h or 500ms"))
}

pub(super) fn count(text: &str) -> Parsed<u64> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

pub(super) fn flag(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn bits(text: &str) -> Parsed<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777)
        .ok_or_else(|| format!("{text:?} is not permission bits; say 0644"))
}

pub(super) fn user(text: &str) -> Parsed<u32> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) | Err(_) => Err(format!("there is no user {text:?} here; say a number")),
    }
}

pub(super) fn group(text: &str) -> Parsed<u32> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(format!("there is no group {text:?} here; say a number")),
    }
}

pub(super) fn word(text: &str, words: &'static [&'static str]) -> Parsed<&'static str> {
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(text));
    found
        .copied()
        .ok_or_else(|| format!("{text:?} is none of {}", words.join(", ")))
}

pub(super) fn address(text: &str) -> Parsed<IpAddr> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address"))
}

/// A name server: port 53 if none is named.
pub(super) fn server(text: &str) -> Parsed<SocketAddr> {
    text.parse()
        .or_else(|_| text.parse().map(|address| SocketAddr::new(address, 53)))
        .map_err(|_| format!("{text:?} is not an IP address, nor one with a port"))
}

pub(super) fn host(text: &str) -> Parsed<(String, IpAddr)> {
    let (name, at) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is not NAME=ADDRESS"))?;
    Ok((name.to_ascii_lowercase(), address(at)?))
}

pub(super) fn block(text: &str) -> Parsed<Cidr> {
    text.parse()
        .map_err(|error: crate::net::CidrError| error.to_string())
}

/// A URL of a server, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// `https`.
    pub(super) tls: bool,
    /// Its name or address.
    pub(super) host: String,
}

impl Server {
    /// Whether it can only be this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let literal = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || literal.is_ok_and(|ip| ip.is_loopback())
    }
}

pub(super) fn url(text: &str) -> Parsed<Server> {
    let wrong = || format!("{text:?} is not a URL; say https://HOST");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(format!(
            "{:?} must not hold more than scheme, host, port and path",
            authority.host()
        ));
    }
    Ok(Server {
        tls,
        host: uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?
            .to_owned(),
    })
}

/// How many letters must be put in, taken out or changed (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let mib = Ok(8 << 20);
        for text in ["8MiB", "8M", "8m", "8388608", "8 MiB", "8192k"] {
            assert_eq!(size(text), mib, "{text}");
        }
        assert_eq!(size("8MB"), Ok(8_000_000));
        for text in ["", "M", "8X", "-1", "1.5G", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(time("2d"), Ok(Duration::from_secs(172_800)));
        for text in [
            "",
            "s",
            "5 parsecs",
            "-5s",
            "100000000000000000d",
            "999999d",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_and_bits_are_read() {
        for (text, value) in [("true", true), ("YES", true), ("1", true), ("off", false)] {
            assert_eq!(flag(text), Ok(value));
        }
        assert!(flag("maybe").is_err());
        assert_eq!(bits("0644"), Ok(0o644));
        assert_eq!(bits("22"), Ok(0o22));
        assert!(bits("888").is_err());
        assert!(bits("17777").is_err());
    }

    #[test]
    fn users_are_numbers_or_names() {
        assert_eq!(user("1234"), Ok(1234));
        assert_eq!(user("root"), Ok(0));
        assert!(user("no such user").is_err());
        assert_eq!(group("root"), Ok(0));
    }

    #[test]
    fn servers_and_hosts_are_read() {
        assert_eq!(server("10.0.0.1"), Ok("10.0.0.1:53".parse().unwrap()));
        assert_eq!(
            server("[fd00::1]:5353"),
            Ok("[fd00::1]:5353".parse().unwrap())
        );
        assert!(server("dns.example").is_err());
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        assert_eq!(
            host("S3.Example=10.0.0.9"),
            Ok(("s3.example".into(), address))
        );
        assert!(host("=10.0.0.9").is_err());
        assert!(block("10.0.0.0/40").is_err());
    }

    #[test]
    fn a_url_is_a_server_and_nothing_secret() {
        assert_eq!(
            url("https://S3.example:9000/x"),
            Ok(Server {
                tls: true,
                host: "S3.example".into()
            })
        );
        for text in [
            "s3.example",
            "ftp://x",
            "https://",
            "https://user:pass@x",
            "http://x?k=v",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
        assert!(!url("https://user:pass@x").unwrap_err().contains("pass"));
    }

    #[test]
    fn loopback_is_told_from_what_only_sounds_like_it() {
        for (text, loopback) in [
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://127.0.0.1.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(url(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn distance_counts_single_letters() {
        assert_eq!(distance("region", "region"), 0);
        assert_eq!(distance("regoin", "region"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
