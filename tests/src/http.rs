//! One HTTP/1.1 request at a time, with plain blocking sockets. Load goes through [`crate::load`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// May the connection be used again?
    pub reusable: bool,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The process ID that the servers put into their bodies (`pid=N`, and `"pid": N` from the built-in worker).
    pub fn pid(&self) -> u32 {
        let text = self.text();
        let digits = text.split("pid").nth(1).unwrap_or_default().trim_start_matches(['"', ':', '=', ' ']);
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("no process ID in the body: {text:?}"))
    }
}

/// A connection that requests follow each other on.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects. Nothing takes longer than `bound` from now on, neither connecting nor any read.
    pub fn open(address: SocketAddr, bound: Duration) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, bound)?, address, bound)
    }

    /// Takes a connection that is there.
    pub fn over(stream: TcpStream, address: SocketAddr, bound: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: address.to_string() })
    }

    /// Sends a request and does not wait.
    pub fn send(&mut self, path: &str, keep: bool) -> io::Result<()> {
        let close = if keep { "" } else { "Connection: close\r\n" };
        let text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", self.host);
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Reads the answer to what was sent.
    pub fn receive(&mut self) -> io::Result<Response> {
        let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a byte of the answer"));
        }
        let status =
            line.split(' ').nth(1).and_then(|code| code.trim().parse().ok()).ok_or_else(|| bad(&line))?;
        let mut reusable = line.starts_with("HTTP/1.1");
        let (mut length, mut chunked) = (None, false);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed inside the header"));
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<u64>().map_err(|_| bad(&line))?);
            }
            chunked |= line.strip_prefix("transfer-encoding:").is_some_and(|v| v.contains("chunked"));
            reusable &= !line.strip_prefix("connection:").is_some_and(|v| v.contains("close"));
        }
        let body = if chunked {
            self.chunks()?
        } else if let Some(length) = length {
            let mut body = Vec::new();
            (&mut self.stream).take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed inside the body"));
            }
            body
        } else {
            reusable = false;
            let mut body = Vec::new();
            self.stream.read_to_end(&mut body)?;
            body
        };
        Ok(Response { status, body, reusable })
    }

    /// Request and answer; the connection stays open if the server agrees.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(path, true)?;
        self.receive()
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed inside the chunked body");
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(short());
            }
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| short())?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).map_err(|_| short())?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let mut connection = Connection::open(address, Duration::from_secs(10))?;
    connection.send(path, false)?;
    connection.receive()
}
