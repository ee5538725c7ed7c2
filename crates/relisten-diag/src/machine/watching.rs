//! How processes that share a listener wait for its connections.

use super::descriptors::Holdings;
use super::listener::{Group, Watch};
use crate::SocketInode;
use crate::waiting::polls_on;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

/// Fills in [`Holder::watches`](super::Holder::watches) where more than one process holds a listener. Read from
/// `/proc/PID/fdinfo` (Linux 4.12 for the inode in it) and `/proc/PID/task/TID/syscall`.
pub(super) fn fill(groups: &mut [Group], holdings: &Holdings) {
    let shared: BTreeSet<SocketInode> = groups
        .iter()
        .flat_map(|group| &group.members)
        .filter(|member| member.holders.len() > 1)
        .map(|member| member.inode)
        .collect();
    if shared.is_empty() {
        return;
    }
    for found in &holdings.found {
        let holds = |group: &&mut Group| group.members.iter().any(|m| shared.contains(&m.inode));
        if found.listeners.is_empty() || found.epolls.is_empty() {
            continue;
        }
        let mut seen = Vec::new();
        for epoll in &found.epolls {
            read(found.pid, *epoll, |inode, watch| {
                if shared.contains(&inode) {
                    seen.push((inode, watch));
                }
            });
        }
        for member in groups.iter_mut().filter(holds).flat_map(|group| &mut group.members) {
            for holder in member.holders.iter_mut().filter(|holder| holder.pid == found.pid) {
                let own = seen.iter().filter(|(inode, _)| *inode == member.inode);
                holder.watches.extend(own.map(|(_, watch)| *watch));
            }
        }
    }
    fill_polls(groups);
}

/// Those who wait by poll(2) or select(2): all of them are woken, so they watch as without EPOLLEXCLUSIVE.
fn fill_polls(groups: &mut [Group]) {
    let shared = groups.iter_mut().flat_map(|group| &mut group.members).filter(|m| m.holders.len() > 1);
    for holder in shared.flat_map(|member| &mut member.holders) {
        if holder.watches.is_empty() && polls_on(holder.pid, holder.fd) {
            holder.watches.push(Watch { events: 1 });
        }
    }
}

/// Calls `visit` for every socket that the epoll instance watches. A line at a time: an instance may watch many.
fn read(pid: u32, epoll: u32, mut visit: impl FnMut(SocketInode, Watch)) {
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/fdinfo/{epoll}")) else { return };
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if let Some((inode, watch)) = parse(&line) {
            visit(inode, watch);
        }
        line.clear();
    }
}

/// `tfd: 5 events: 10000019 data: 5 pos:0 ino:a1b2 sdev:9`; events and inode are hexadecimal.
pub(super) fn parse(line: &str) -> Option<(SocketInode, Watch)> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let events = words.by_ref().skip_while(|word| *word != "events:").nth(1)?;
    let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
    Some((
        SocketInode(u64::from_str_radix(inode, 16).ok()?),
        Watch { events: u32::from_str_radix(events, 16).ok()? },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn lines() {
        let line = "tfd:        5 events: 10000019 data:                5  pos:0 ino:a1b2 sdev:9\n";
        let (inode, watch) = parse(line).unwrap();
        assert_eq!((inode, watch.exclusive(), watch.readable()), (SocketInode(0xa1b2), true, true));
        assert_eq!(parse("pos: 0"), None);
    }

    #[test]
    fn this_kernel_tells_whether_a_watch_is_exclusive() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = SocketInode(rustix::fs::fstat(&listener).unwrap().st_ino);
        for (flags, exclusive) in
            [(epoll::EventFlags::IN, false), (epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE, true)]
        {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            epoll::add(set.as_fd(), &listener, epoll::EventData::new_u64(1), flags).unwrap();
            let mut seen = Vec::new();
            read(std::process::id(), set.as_raw_fd() as u32, |inode, watch| seen.push((inode, watch)));
            let [(found, watch)] = seen[..] else { panic!("{seen:?}") };
            assert_eq!((found, watch.exclusive(), watch.readable()), (inode, exclusive, true));
        }
    }
}
