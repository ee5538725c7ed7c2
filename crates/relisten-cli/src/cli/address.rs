//! The address of `--metrics`.

use super::values::ValueError;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// `HOST:PORT` of `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetricsAt(pub(crate) SocketAddr);

impl FromStr for MetricsAt {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // As with --listen, no host means every address.
        let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
        let (_, port) = full.rsplit_once(':').ok_or(ValueError::Metrics)?;
        if port.parse::<u16>().is_err() {
            return Err(ValueError::Metrics);
        }
        let mut found = full.to_socket_addrs().map_err(|error| ValueError::MetricsHost(error.to_string()))?;
        found.next().map(Self).ok_or_else(|| ValueError::MetricsHost("the name has no address".into()))
    }
}
