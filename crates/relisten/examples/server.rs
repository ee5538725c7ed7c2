//! An HTTP/1.1 server on the library, a thread per connection: what a server does to run well under relisten, and
//! alone as well.
//!
//! ```text
//! cargo build -p relisten --example server
//! relisten run -w 4 --listen 127.0.0.1:8080 -- target/debug/examples/server
//! ```
//!
//! `/` says who answers, `/slow?ms=N` computes in silence, `/download?s=N` sends 10 kB a second.

use relisten::address::Address;
use relisten::listener::ListenOptions;
use relisten::worker::{Draining, Load, Worker};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. Take what the supervisor gives. Without one, or under one that adopts, open the address.
    let mut worker = Worker::from_env()?;
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080").parse()?;
    let listeners = worker.take_or_open(&address, &ListenOptions::default())?;
    // 2. From here on the stop signal is told instead of being deadly.
    let draining = worker.draining()?;
    // 3. Say so when requests can be taken.
    worker.ready()?;
    // 4. Tell how much there is to do, so that new connections go to workers with less.
    let work = Work { under_way: AtomicU64::new(0), load: worker.load()? };
    thread::scope(|threads| {
        for listener in listeners.into_iter().map(TcpListener::from) {
            let (draining, work) = (&draining, &work);
            threads.spawn(move || accept(&listener, draining, work, threads));
        }
        // 5. When told to stop, finish: the scope ends when every thread has.
        draining.wait()?;
        worker.stopping()
    })?;
    Ok(())
}

/// The requests that are being answered.
struct Work {
    under_way: AtomicU64,
    load: Load,
}

impl Work {
    fn while_answering<T>(&self, answer: impl FnOnce() -> T) -> T {
        self.load.set(self.under_way.fetch_add(1, Ordering::Relaxed) + 1);
        let answered = answer();
        self.load.set(self.under_way.fetch_sub(1, Ordering::Relaxed) - 1);
        answered
    }
}

/// Takes connections until the stop signal, and then those that had come before it.
fn accept<'scope>(
    listener: &TcpListener,
    draining: &'scope Draining,
    work: &'scope Work,
    threads: &'scope Scope<'scope, '_>,
) {
    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                // What breaks one connection is no matter of the others.
                threads.spawn(move || serve(&stream, draining, work).ok());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if draining.is_set() || readable(listener, draining).is_err() {
                    return;
                }
            }
            // Mostly no descriptor is left: some will be soon.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Answers the requests of a connection, one after the other.
fn serve(stream: &TcpStream, draining: &Draining, work: &Work) -> io::Result<()> {
    // Who is silent in the middle of a request for so long is given up: nobody may hold up the end.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    // Between two requests is where a connection may end.
    while !reader.buffer().is_empty() || readable(stream, draining)? {
        let Some(request) = Request::read(&mut reader)? else { break };
        if !work.while_answering(|| answer(stream, &request, draining))? {
            break;
        }
    }
    Ok(())
}

/// Waits until the socket can be read, or accepted from; false when the stop signal came first.
fn readable(socket: impl AsFd, draining: &Draining) -> io::Result<bool> {
    let mut both = [PollFd::new(&socket, PollFlags::IN), PollFd::new(draining, PollFlags::IN)];
    loop {
        match poll(&mut both, None) {
            Ok(_) => return Ok(!both[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As much of a request as this server needs: what is asked for, and whether more will follow.
struct Request {
    target: String,
    close: bool,
}

impl Request {
    /// `None` when the client has nothing more to ask.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(8192);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some("GET"), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let mut request = Self { target: target.to_owned(), close: version != "HTTP/1.1" };
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("connection") => {
                    request.close = !value.trim().eq_ignore_ascii_case("keep-alive");
                }
                None if line.trim_end().is_empty() => return Ok(Some(request)),
                _ => {}
            }
        }
    }
}

/// Whether another request may follow. A client that is told of the end in time asks elsewhere next time.
fn answer(mut stream: &TcpStream, request: &Request, draining: &Draining) -> io::Result<bool> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let number = query.split_once('=').and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let (part, parts) = match path {
        "/download" => ("x".repeat(1000), number * 10),
        _ => (format!("pid={}\n", std::process::id()), 1),
    };
    if path == "/slow" {
        thread::sleep(Duration::from_millis(number));
    }
    let goes_on = !request.close && !draining.is_set();
    let connection = if goes_on { "keep-alive" } else { "close" };
    let length = part.len() as u64 * parts;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n");
    if path != "/download" {
        return stream.write_all((head + &part).as_bytes()).map(|()| goes_on);
    }
    stream.write_all(head.as_bytes())?;
    for _ in 0..parts {
        stream.write_all(part.as_bytes())?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(goes_on)
}
