use crate::sock_diag::{Extensions, Protocol, Query, SockDiag, State, States};
use crate::{DiagError, Endpoint};
use std::net::SocketAddr;

/// How long the oldest connection on this TCP address that nobody has accepted has waited, milliseconds. `None`: none
/// waits. Since it can't have sent anything, that is the time since data was last sent.
pub fn oldest_waiting(address: SocketAddr) -> Result<Option<u64>, DiagError> {
    let endpoints = [Endpoint { protocol: Protocol::Tcp, address }];
    let mut oldest = None;
    let states = States::from(State::Established) | States::from(State::CloseWait);
    let query = Query::tcp(states).ports([address.port()]).with(Extensions::INFO);
    SockDiag::new()?.dump(&query, |socket| {
        let waits = socket.inode.is_none() && Endpoint::any_covers(&endpoints, Protocol::Tcp, &socket);
        if let Some(info) = socket.info.filter(|_| waits) {
            oldest = oldest.max(Some(u64::from(info.last_data_sent_ms)));
        }
    })?;
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn the_longer_it_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(oldest_waiting(address).unwrap(), None);
        let begin = Instant::now();
        let _client = TcpStream::connect(address).unwrap();
        let mut waited = 0;
        while waited < 50 {
            waited = oldest_waiting(address).unwrap().unwrap();
            // A tick of the kernel's clock may be as long as 10 ms.
            assert!(Duration::from_millis(waited) <= begin.elapsed() + Duration::from_millis(10));
        }
        let _accepted = listener.accept().unwrap();
        assert_eq!(oldest_waiting(address).unwrap(), None);
    }
}
