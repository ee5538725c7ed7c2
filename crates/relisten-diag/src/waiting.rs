//! Is a server waiting for connections right now?
//!
//! A thread that sits in accept(2), or in epoll_wait(2), poll(2) or select(2) with the listener among what it waits for,
//! is the proof that a server has finished starting. Read from `/proc/PID/task/TID/syscall` (the same rights as for
//! ptrace attach) and `/proc/PID/fdinfo`. What a ring (io_uring) waits for can't be seen: a thread that waits for one, in
//! a process that has the listener, is taken for one that waits for connections.

use crate::process::ProcessTable;
use crate::{DiagError, SocketInode};
use relisten_sys::calls::{Waits, waits};
use relisten_sys::memory;
use std::collections::BTreeSet;
use std::fs;

/// More descriptors than this in one poll or select are not looked at.
const MOST: usize = 4096;

/// Does any thread of the worker with the first process `pid` (its session and descendants) wait on one of these
/// listeners? `Ok(false)` also when it may not be looked at.
pub fn waits_on(pid: u32, listeners: &BTreeSet<SocketInode>) -> Result<bool, DiagError> {
    if process_waits(pid, listeners) == Some(true) {
        return Ok(true);
    }
    Ok(seen_waiting(pid, listeners)?.unwrap_or(false))
}

/// The same, but `None` when none of the processes may be looked at.
pub fn seen_waiting(pid: u32, listeners: &BTreeSet<SocketInode>) -> Result<Option<bool>, DiagError> {
    let table = ProcessTable::read()?;
    let looks = table.tree(pid, pid).into_iter().filter_map(|pid| process_waits(pid, listeners));
    Ok(looks.reduce(|one, other| one || other))
}

/// Does a thread of this process wait in poll(2) or select(2) with its descriptor `fd` among what it waits for? False
/// also when it may not be looked at.
pub(crate) fn polls_on(pid: u32, fd: u32) -> bool {
    let ways = Ways { sockets: BTreeSet::from([fd as i32]), epolls: BTreeSet::new() };
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        parse_call(&call).is_some_and(|(waits, args)| {
            matches!(waits, Waits::Poll | Waits::Select) && thread_waits(pid, waits, args, &ways)
        })
    })
}

/// The descriptors of a process through which it can get a connection.
#[derive(Debug, Default)]
struct Ways {
    sockets: BTreeSet<i32>,
    epolls: BTreeSet<i32>,
}

/// The same of one process alone; `None` when it may not be looked at.
pub fn process_waits(pid: u32, listeners: &BTreeSet<SocketInode>) -> Option<bool> {
    Some(waiting_threads(pid, listeners)?.next().is_some())
}

/// Which threads of this process wait on one of these listeners now; `None` when it may not be looked at.
pub fn waiting_threads(pid: u32, listeners: &BTreeSet<SocketInode>) -> Option<impl Iterator<Item = u32>> {
    let ways = ways(pid, listeners)?;
    let possible = !(ways.sockets.is_empty() && ways.epolls.is_empty());
    let threads = possible.then(|| fs::read_dir(format!("/proc/{pid}/task"))).transpose().ok()?;
    Some(threads.into_iter().flatten().flatten().filter_map(move |thread| {
        // One that was stopped in the midst of a call is shown as if it were in it.
        if !sleeps(&fs::read_to_string(thread.path().join("stat")).unwrap_or_default()) {
            return None;
        }
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        let (waits, args) = parse_call(&call)?;
        let waits = thread_waits(pid, waits, args, &ways);
        waits.then(|| thread.file_name().to_str()?.parse().ok()).flatten()
    }))
}

/// What each epoll instance of this process watches; `None` when it may not be looked at. Linux 4.12.
pub fn epoll_sets(pid: u32) -> Option<Vec<BTreeSet<SocketInode>>> {
    let mut sets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        if link.as_os_str() == "anon_inode:[eventpoll]" {
            let number = entry.file_name();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.display()));
            sets.push(info.unwrap_or_default().lines().filter_map(watched_inode).collect());
        }
    }
    Some(sets)
}

fn ways(pid: u32, listeners: &BTreeSet<SocketInode>) -> Option<Ways> {
    let mut ways = Ways::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let (Ok(link), Some(number)) =
            (fs::read_link(entry.path()), entry.file_name().to_str().and_then(|n| n.parse().ok()))
        else {
            continue;
        };
        let link = link.to_string_lossy();
        if link == "anon_inode:[eventpoll]" {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
            if info.lines().filter_map(watched_inode).any(|inode| listeners.contains(&inode)) {
                ways.epolls.insert(number);
            }
        } else if socket_inode(&link).is_some_and(|inode| listeners.contains(&inode)) {
            ways.sockets.insert(number);
        }
    }
    Some(ways)
}

fn socket_inode(link: &str) -> Option<SocketInode> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok().map(SocketInode)
}

/// `tfd: 5 events: 19 data: 5 pos:0 ino:a1b2 sdev:9`; the inode is hexadecimal. Linux 4.12.
fn watched_inode(line: &str) -> Option<SocketInode> {
    let inode =
        line.strip_prefix("tfd:")?.split_ascii_whitespace().find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(inode, 16).ok().map(SocketInode)
}

/// `PID (name) S …`; the name may have anything in it.
fn sleeps(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// `232 0x5 0x7ffe… … sp pc`, or `running`.
fn parse_call(text: &str) -> Option<(Waits, [u64; 2])> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut hex = || words.next().and_then(|w| u64::from_str_radix(w.strip_prefix("0x")?, 16).ok());
    Some((waits(number)?, [hex()?, hex()?]))
}

fn thread_waits(pid: u32, waits: Waits, args: [u64; 2], ways: &Ways) -> bool {
    match waits {
        Waits::Accept => ways.sockets.contains(&(args[0] as i32)),
        Waits::Epoll => ways.epolls.contains(&(args[0] as i32)),
        Waits::Poll => polls(pid, args[0], args[1] as usize, ways),
        Waits::Ring => !ways.sockets.is_empty(),
        Waits::Select => selects(pid, args[0] as usize, args[1], ways),
    }
}

/// `struct pollfd` has eight bytes, the descriptor first.
fn polls(pid: u32, at: u64, count: usize, ways: &Ways) -> bool {
    let mut bytes = vec![0u8; count.min(MOST) * 8];
    memory::read(pid, at, &mut bytes).is_ok()
        && bytes.chunks_exact(8).any(|p| {
            let fd = i32::from_ne_bytes([p[0], p[1], p[2], p[3]]);
            ways.sockets.contains(&fd) || ways.epolls.contains(&fd)
        })
}

fn selects(pid: u32, count: usize, set: u64, ways: &Ways) -> bool {
    if set == 0 {
        return false;
    }
    let mut bits = vec![0u8; count.min(MOST).div_ceil(64) * 8];
    memory::read(pid, set, &mut bits).is_ok()
        && ways.sockets.iter().chain(&ways.epolls).any(|fd| {
            let fd = *fd as usize;
            bits.get(fd / 8).is_some_and(|byte| byte & (1 << (fd % 8)) != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Runs a Python server that prints its listener's inode and then waits in its own way.
    fn waits_in_python(wait: &str) -> bool {
        let script = format!(
            "import os, select, socket, time\ns = socket.create_server(('127.0.0.1', 0))\n\
             print(os.fstat(s.fileno()).st_ino, flush=True)\n{wait}"
        );
        let mut server =
            Server(Command::new("python3").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listeners = BTreeSet::from([SocketInode(line.trim().parse().unwrap())]);
        let pid = server.0.id();
        let until = Instant::now() + Duration::from_secs(2);
        // It may not have got there yet.
        while Instant::now() < until {
            if process_waits(pid, &listeners) == Some(true) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn sees_every_way_of_waiting() {
        assert!(waits_in_python("s.accept()"), "accept");
        assert!(waits_in_python("p = select.poll(); p.register(s, select.POLLIN); p.poll()"), "poll");
        assert!(waits_in_python("select.select([s], [], [])"), "select");
        assert!(waits_in_python("e = select.epoll(); e.register(s, select.EPOLLIN); e.poll()"), "epoll");
    }

    #[test]
    fn what_an_epoll_instance_watches() {
        use rustix::event::epoll;
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [one, two] = listeners.each_ref().map(|l| SocketInode(rustix::fs::fstat(l).unwrap().st_ino));
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&set, &listeners[0], epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
        let sets = epoll_sets(std::process::id()).unwrap();
        assert!(sets.iter().any(|set| set.contains(&one)), "{sets:?}");
        assert!(!sets.iter().any(|set| set.contains(&two)), "{sets:?}");
    }

    #[test]
    fn who_is_stopped_does_not_wait() {
        let script = "import os, socket\ns = socket.create_server(('127.0.0.1', 0))\n\
                      print(os.fstat(s.fileno()).st_ino, flush=True)\ns.accept()";
        let mut server =
            Server(Command::new("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listeners = BTreeSet::from([SocketInode(line.trim().parse().unwrap())]);
        let pid = server.0.id();
        let becomes = |wanted: bool| {
            let until = Instant::now() + Duration::from_secs(10);
            while process_waits(pid, &listeners) != Some(wanted) {
                assert!(Instant::now() < until, "waits: {wanted}");
                std::thread::yield_now();
            }
        };
        let signal = |signal| {
            rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), signal).unwrap();
        };
        becomes(true);
        signal(rustix::process::Signal::STOP);
        becomes(false);
        signal(rustix::process::Signal::CONT);
        becomes(true);
    }

    #[test]
    fn is_not_taken_in_by_other_waiting() {
        assert!(!waits_in_python("time.sleep(5)"));
        assert!(!waits_in_python("a, b = socket.socketpair(); select.select([a], [], [])"));
        assert!(!waits_in_python("e = select.epoll(); e.poll()"));
    }
}
