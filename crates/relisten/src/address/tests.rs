use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

fn parse(text: &str) -> Result<Address, AddressError> {
    text.parse()
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.into(), port }
}

#[test]
fn what_users_write() {
    for (text, address) in [
        ("127.0.0.1:80", tcp("127.0.0.1", 80)),
        ("tcp://example.org:80", tcp("example.org", 80)),
        ("[::1]:80", tcp("::1", 80)),
        ("tcp://[fe80::1%eth0]:0", tcp("fe80::1%eth0", 0)),
        (":8080", tcp("", 8080)),
        ("*:8080", tcp("", 8080)),
        ("8080", tcp("", 8080)),
        (" 8080 ", tcp("", 8080)),
        ("udp://:53", Address::Udp { host: String::new(), port: 53 }),
        ("UDP://53", Address::Udp { host: String::new(), port: 53 }),
        ("unix:/run/a=b", Address::Unix("/run/a=b".into())),
        ("unix:///run/a", Address::Unix("/run/a".into())),
        ("unix:rel", Address::Unix("rel".into())),
        ("unix:@name", Address::Abstract("name".into())),
    ] {
        assert_eq!(parse(text), Ok(address), "{text}");
    }
}

#[test]
fn slips_and_their_cures() {
    let long = format!("unix:/{}", "x".repeat(107));
    for (text, cure) in [
        ("", "write HOST:PORT"),
        ("udp://", "write HOST:PORT"),
        ("localhost", "localhost:PORT"),
        ("localhost:", "localhost:PORT"),
        ("[::1]", "[::1]:PORT"),
        ("::1:80", "in brackets"),
        ("[::1:80", "[::1]:8080"),
        ("[localhost]:80", "only an IPv6 address"),
        (":65536", "from 0 to 65535"),
        (":+80", "from 0 to 65535"),
        ("http://x:80", "tcp://, udp:// or unix:"),
        ("a b:80", "a host name"),
        ("unix:", "unix:PATH"),
        ("unix:@", "unix:PATH"),
        (long.as_str(), "107"),
        ("unix:a\0b", "control character"),
    ] {
        let message = parse(text).expect_err(text).to_string();
        assert!(message.contains(cure), "{text:?}: {message}");
    }
    let message = "my web=:80".parse::<NamedAddress>().unwrap_err().to_string();
    assert!(message.contains("letters, digits"), "{message}");
}

#[test]
fn names() {
    let named: NamedAddress = "web=[::1]:80".parse().unwrap();
    assert_eq!((named.name.as_deref(), &named.address), (Some("web"), &tcp("::1", 80)));
    let unnamed: NamedAddress = "unix:/run/a=b".parse().unwrap();
    assert_eq!((unnamed.name, unnamed.address), (None, Address::Unix("/run/a=b".into())));
}

#[test]
fn names_resolve_to_all_their_addresses() {
    let addr = |text: &str| parse(text).unwrap().resolve().unwrap();
    let tcp = |addr: SocketAddr| Endpoint::Tcp { addr, v6only: false };
    assert_eq!(addr("127.0.0.1:80"), [tcp((Ipv4Addr::LOCALHOST, 80).into())]);
    assert_eq!(addr(":80"), [tcp((Ipv6Addr::UNSPECIFIED, 80).into())]);
    let one = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
    assert_eq!(addr("udp://[::1]:80"), [Endpoint::Udp { addr: one, v6only: true }]);
    assert_eq!(addr("unix:@x"), [Endpoint::Abstract(b"x".into())]);
    let localhost = addr("localhost:80");
    assert!(localhost.contains(&tcp((Ipv4Addr::LOCALHOST, 80).into())), "{localhost:?}");
    // .invalid never resolves (RFC 6761).
    let error = parse("relisten.invalid:80").unwrap().resolve().unwrap_err();
    assert!(error.to_string().contains("relisten.invalid"));
}

fn any_named() -> impl Strategy<Value = NamedAddress> {
    let host = prop_oneof![
        Just(String::new()),
        "[a-z0-9][a-z0-9.-]{0,20}".prop_filter("a number alone is a port", |h| !h.is_empty()),
        any::<u32>().prop_map(|a| Ipv4Addr::from(a).to_string()),
        any::<u128>().prop_map(|a| Ipv6Addr::from(a).to_string()),
    ];
    let address = prop_oneof![
        (host.clone(), any::<u16>()).prop_map(|(host, port)| Address::Tcp { host, port }),
        (host, any::<u16>()).prop_map(|(host, port)| Address::Udp { host, port }),
        "/[a-z=:/@.]{1,80}"
            .prop_filter("means /x", |p| !p.starts_with("//"))
            .prop_map(|p| Address::Unix(p.into())),
        "[a-z=:/@.]{1,80}".prop_map(Address::Abstract),
    ];
    (proptest::option::of("[a-zA-Z0-9._@-]{1,20}"), address)
        .prop_map(|(name, address)| NamedAddress { name, address })
}

proptest! {
    #[test]
    fn what_is_shown_can_be_read(named in any_named()) {
        prop_assert_eq!(named.to_string().parse(), Ok(named.clone()));
        let json = serde_json::to_string(&named).unwrap();
        prop_assert_eq!(serde_json::from_str::<NamedAddress>(&json).unwrap(), named);
    }

    #[test]
    fn never_panics(text in ".*") {
        let _ = text.parse::<NamedAddress>();
    }

    /// Near misses get deeper into the parser than noise does.
    #[test]
    fn near_misses_never_panic(text in "([a-z]{0,3}=)?((tcp|udp|x)://|unix:)?[\\[\\]:%*@a1./é\\x00-]{0,12}:?[0-9]{0,6}") {
        if let Ok(named) = text.parse::<NamedAddress>() {
            prop_assert_eq!(named.to_string().parse(), Ok(named));
        }
    }

    #[test]
    fn endpoints_survive_json(named in any_named(), v6only in any::<bool>()) {
        let endpoint = match named.address {
            Address::Unix(path) => Endpoint::Unix(path),
            Address::Abstract(name) => Endpoint::Abstract(name.into_bytes()),
            other => Endpoint::Tcp { addr: (Ipv6Addr::LOCALHOST, other.to_string().len() as u16).into(), v6only },
        };
        let json = serde_json::to_string(&endpoint).unwrap();
        prop_assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
    }
}
