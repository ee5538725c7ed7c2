//! Starting a worker: fork, everything that must happen in the child, exec.
//!
//! The standard library's `Command` can't give the child its own process ID in `LISTEN_PID`, nor hand back the
//! descriptor of a seccomp filter that is installed last. All memory is made ready before the fork; between
//! fork and exec only system calls are made.

use crate::seccomp::Filter;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::CpuSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// What to start and how.
pub struct Command<'a> {
    /// The program's file; not searched for.
    pub program: CString,
    /// Its arguments, the zeroth included.
    pub arguments: Vec<CString>,
    /// Its environment, `NAME=value`; complete.
    pub environment: Vec<CString>,
    /// Where it starts.
    pub directory: CString,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors 3, 4, … of the child. With any, `LISTEN_PID` is added to the environment.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// Become this user.
    pub identity: Option<Identity>,
    /// Put it under this filter.
    pub filter: Option<&'a Filter>,
    /// Set `no_new_privs`, which the filter needs without CAP_SYS_ADMIN.
    pub no_new_privs: bool,
    /// Bind it to this CPU, its threads and children too. One that this process may not use changes nothing.
    pub cpu: Option<usize>,
}

/// A user by numbers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A process that has executed its program.
#[derive(Debug)]
pub struct Child {
    /// Its process ID; it is also the leader of its session and process group.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Announces its `bind` and `listen` calls, if a filter was asked for and could be installed.
    pub notifications: Option<OwnedFd>,
    /// Why the filter could not be installed. The program runs all the same.
    pub filter_refused: Option<io::Error>,
}

/// Which step of a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Making the process.
    Fork = 1,
    /// Placing the descriptors.
    Descriptors,
    /// Changing to the start directory.
    Directory,
    /// Becoming the user.
    Identity,
    /// Setting no_new_privs or passing back the filter's descriptor.
    Filter,
    /// Executing the program.
    Exec,
}

impl Step {
    fn from_byte(b: u8) -> Self {
        match b {
            2 => Self::Descriptors,
            3 => Self::Directory,
            4 => Self::Identity,
            5 => Self::Filter,
            6 => Self::Exec,
            _ => Self::Fork,
        }
    }
}

/// A start that failed; the process is gone again.
#[derive(Debug)]
pub struct SpawnError {
    /// Where.
    pub step: Step,
    /// Why.
    pub error: io::Error,
}

impl std::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.step {
            Step::Fork => "can't make a process",
            Step::Descriptors => "can't place the worker's descriptors",
            Step::Directory => "can't change to the start directory",
            Step::Identity => "can't become the worker's user",
            Step::Filter => "can't set up adoption",
            Step::Exec => "can't execute the program",
        };
        f.write_str(what)
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Messages of the child on the report socket: kind, then an error number in native byte order.
const SAYS_FAILED: u8 = b'F';
const SAYS_FILTER: u8 = b'N';
const SAYS_NO_FILTER: u8 = b'n';

/// What the child needs, as pointers that stay valid over the fork.
struct Prepared<'a> {
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    directory: *const libc::c_char,
    /// `LISTEN_PID=` with room for the digits, part of `envp`.
    listen_pid: *mut u8,
    /// Sources of descriptors 0, 1, 2, 3, …; all above the highest target.
    sources: &'a [OwnedFd],
    identity: Option<&'a Identity>,
    filter: Option<&'a Filter>,
    no_new_privs: bool,
    cpus: Option<CpuSet>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// Starts the program. Returns when it has been executed or when that has failed.
///
/// The child leads a session and process group of its own, has no signal blocked, ignores only what this process was
/// started ignoring, and has no descriptor but those given.
pub fn spawn(command: &Command<'_>) -> Result<Child, SpawnError> {
    let failed = |step| move |error: io::Error| SpawnError { step, error };
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| failed(Step::Fork)(e.into()))?;

    let targets = 3 + command.descriptors.len();
    let sources = command
        .stdio
        .iter()
        .chain(&command.descriptors)
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, targets as RawFd))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(Step::Descriptors)(e.into()))?;
    // The report socket must not be where a target goes; the original end must be closed on our side, or its
    // hang-up would never come.
    let theirs = {
        let low = theirs;
        rustix::io::fcntl_dupfd_cloexec(&low, targets as RawFd)
            .map_err(|e| failed(Step::Descriptors)(e.into()))?
    };

    let argv: Vec<_> = command.arguments.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
    let mut listen_pid = [0u8; 32];
    listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
    let listen_pid = listen_pid.as_mut_ptr();
    let mut envp: Vec<_> = command.environment.iter().map(|a| a.as_ptr()).collect();
    if !command.descriptors.is_empty() {
        envp.push(listen_pid.cast());
    }
    envp.push(std::ptr::null());

    let prepared = Prepared {
        program: command.program.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        directory: command.directory.as_ptr(),
        listen_pid,
        sources: &sources,
        identity: command.identity.as_ref(),
        filter: command.filter,
        no_new_privs: command.no_new_privs,
        cpus: command.cpu.map(|cpu| {
            let mut cpus = CpuSet::new();
            if cpu < CpuSet::MAX_CPU {
                cpus.set(cpu);
            }
            cpus
        }),
    };
    // SAFETY: the child makes only system calls on memory prepared above (`in_child`) and never returns.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(failed(Step::Fork)(io::Error::last_os_error()));
    }
    if pid == 0 {
        // SAFETY: we are the only thread of the new process, and `prepared` was copied with it.
        unsafe { in_child(&prepared, theirs.as_raw_fd()) }
    }
    drop(theirs);
    let pid = Pid::from_raw(pid).ok_or_else(|| failed(Step::Fork)(io::ErrorKind::Other.into()))?;
    let reap = || {
        // It has reported a failure and exits at once, so this does not wait long.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    };
    let pidfd =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(Step::Fork)(e.into()));
    let mut child = match pidfd {
        Ok(pidfd) => Child { pid, pidfd, notifications: None, filter_refused: None },
        Err(e) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            reap();
            return Err(e);
        }
    };
    loop {
        match report(ours.as_fd()) {
            Ok(None) => return Ok(child),
            Ok(Some((SAYS_FILTER, _, _, fd))) => child.notifications = fd,
            Ok(Some((SAYS_NO_FILTER, _, errno, _))) => {
                child.filter_refused = Some(io::Error::from_raw_os_error(errno));
            }
            Ok(Some((_, step, errno, _))) => {
                reap();
                return Err(failed(Step::from_byte(step))(io::Error::from_raw_os_error(errno)));
            }
            Err(e) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                reap();
                return Err(failed(Step::Fork)(e));
            }
        }
    }
}

type Report = (u8, u8, i32, Option<OwnedFd>);

/// The child's next message; `None`: it has executed the program, which closed the socket.
fn report(socket: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut bytes = [0u8; 6];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [io::IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let fd = ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let errno = i32::from_ne_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    Ok(Some((bytes[0], bytes[1], errno, fd)))
}

fn message(kind: u8, step: Step, errno: i32) -> [u8; 6] {
    let e = errno.to_ne_bytes();
    [kind, step as u8, e[0], e[1], e[2], e[3]]
}

/// The child's part. Never returns.
///
/// # Safety
/// To be called right after fork, in the child. Makes only async-signal-safe calls (signal-safety(7)).
unsafe fn in_child(p: &Prepared<'_>, report: RawFd) -> ! {
    // SAFETY: the rules of this function are its caller's.
    let (step, errno) = match unsafe { set_up_and_exec(p, report) } {
        Ok(never) => match never {},
        Err(e) => e,
    };
    let bytes = message(SAYS_FAILED, step, errno);
    // SAFETY: writes six bytes of our stack.
    unsafe { libc::send(report, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// # Safety
/// As [`in_child`].
unsafe fn set_up_and_exec(p: &Prepared<'_>, report: RawFd) -> Result<std::convert::Infallible, (Step, i32)> {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let check = |step: Step, r: libc::c_long| if r < 0 { Err((step, errno())) } else { Ok(()) };
    // A session of its own: the terminal's Ctrl-C reaches only the supervisor, which then stops its workers.
    // SAFETY: no memory is involved.
    unsafe { libc::setsid() };
    if let Some(cpus) = &p.cpus {
        // Runs as well on any other.
        let _ = rustix::thread::sched_setaffinity(None, cpus);
    }
    reset_signals();
    for (target, source) in p.sources.iter().enumerate() {
        // SAFETY: both are descriptor numbers; sources lie above all targets, so none is overwritten.
        check(Step::Descriptors, i64::from(unsafe { libc::dup2(source.as_raw_fd(), target as RawFd) }))?;
    }
    // Whatever the supervisor forgot to mark is not inherited. Best effort before Linux 5.11.
    // SAFETY: no memory is involved.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            p.sources.len() as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    if p.no_new_privs {
        // SAFETY: no memory is involved.
        check(Step::Filter, i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }))?;
    }
    if let Some(filter) = p.filter {
        match filter.install() {
            Ok(fd) => {
                pass_back(report, &fd).map_err(|e| (Step::Filter, e.raw_os_error().unwrap_or(libc::EIO)))?;
            }
            Err(e) => {
                let bytes = message(SAYS_NO_FILTER, Step::Filter, e.raw_os_error().unwrap_or(libc::EIO));
                // SAFETY: writes six bytes of our stack.
                unsafe { libc::send(report, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
            }
        }
    }
    if let Some(user) = p.identity {
        become_user(user).map_err(|e| (Step::Identity, e))?;
    }
    // SAFETY: a terminated string that was made before the fork.
    check(Step::Directory, i64::from(unsafe { libc::chdir(p.directory) }))?;
    write_pid(p.listen_pid);
    // SAFETY: `argv` and `envp` are null-terminated arrays of terminated strings made before the fork.
    unsafe { libc::execve(p.program, p.argv, p.envp) };
    Err((Step::Exec, errno()))
}

/// No signal blocked; SIGPIPE, which Rust ignores, at its default. Those that we handle are put back by exec.
fn reset_signals() {
    // SAFETY: setting a default action touches no memory of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all-zero is a valid, empty set.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: reads one set from our stack.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
}

/// By raw system calls: the C library's functions would try to tell other threads.
fn become_user(user: &Identity) -> Result<(), i32> {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    // SAFETY: the kernel reads `groups.len()` numbers from the array.
    let r = unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) };
    if r < 0 {
        return Err(errno());
    }
    // SAFETY: no memory is involved.
    if unsafe { libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) } < 0 {
        return Err(errno());
    }
    // SAFETY: no memory is involved.
    if unsafe { libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) } < 0 {
        return Err(errno());
    }
    Ok(())
}

fn pass_back(report: RawFd, fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the report socket is open until exec.
    let report = unsafe { BorrowedFd::borrow_raw(report) };
    let bytes = message(SAYS_FILTER, Step::Filter, 0);
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(report, &[io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Writes our process ID behind `LISTEN_PID=`.
fn write_pid(buffer: *mut u8) {
    // SAFETY: no memory is involved.
    let mut pid = unsafe { libc::getpid() } as u32;
    let mut digits = [0u8; 10];
    let mut n = 0;
    loop {
        digits[n] = b'0' + (pid % 10) as u8;
        pid /= 10;
        n += 1;
        if pid == 0 {
            break;
        }
    }
    for i in 0..n {
        let at = buffer.wrapping_add(LISTEN_PID.len() + i);
        // SAFETY: the buffer has 32 bytes: 11 of the name, at most 10 digits, and zeros.
        unsafe { at.write(digits[n - 1 - i]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{self, Binds};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io::Read;

    fn command<'a>(script: &str, null: BorrowedFd<'a>, out: BorrowedFd<'a>) -> Command<'a> {
        Command {
            program: c"/bin/sh".to_owned(),
            arguments: vec![c"sh".to_owned(), c"-c".to_owned(), CString::new(script).unwrap()],
            environment: vec![c"PATH=/usr/bin:/bin".to_owned()],
            directory: c"/".to_owned(),
            stdio: [null, out, out],
            descriptors: vec![],
            identity: None,
            filter: None,
            no_new_privs: false,
            cpu: None,
        }
    }

    #[test]
    fn gives_descriptors_and_the_own_process_id() {
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let (reader, writer) = io::pipe().unwrap();
        let out = OwnedFd::from(writer);
        let mut c =
            command("test $LISTEN_PID = $$ && ls /proc/self/fd | tr '\n' ' '", null.as_fd(), out.as_fd());
        c.descriptors = vec![null.as_fd(), null.as_fd()];
        let child = spawn(&c).unwrap();
        drop(c);
        drop(out);
        let mut said = String::new();
        io::BufReader::new(reader).read_to_string(&mut said).unwrap();
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).unwrap();
        // 5 is the directory that ls reads.
        assert_eq!(said, "0 1 2 3 4 5 ");
    }

    #[test]
    fn says_which_step_failed() {
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let mut c = command("true", null.as_fd(), null.as_fd());
        c.program = c"/nonexistent/program".to_owned();
        let e = spawn(&c).unwrap_err();
        assert_eq!((e.step, e.error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
        c.directory = c"/nonexistent".to_owned();
        let e = spawn(&c).unwrap_err();
        assert_eq!((e.step, e.error.raw_os_error()), (Step::Directory, Some(libc::ENOENT)));
    }

    #[test]
    fn announces_listen_and_takes_the_answer() {
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let (reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let filter = Filter::new(Binds::Internet);
        let script = "exec python3 -c 'import socket\ns=socket.socket()\ns.bind((\"127.0.0.1\",0))\ntry:\n s.listen(7)\nexcept OSError as e: print(e.errno)'";
        let mut c = command(script, null.as_fd(), writer.as_fd());
        c.filter = Some(&filter);
        c.no_new_privs = true;
        let child = spawn(&c).unwrap();
        drop(c);
        drop(writer);
        let calls = child.notifications.expect("a filter can be installed with no_new_privs");
        let bind = seccomp::receive(calls.as_fd()).unwrap();
        assert_eq!((bind.call, bind.args[2]), (seccomp::Call::Bind, 16));
        let mut address = [0u8; 16];
        crate::memory::read(bind.tid, bind.args[1], &mut address).unwrap();
        assert_eq!(address[4..8], [127, 0, 0, 1]);
        assert!(seccomp::still_waits(calls.as_fd(), bind.id));
        seccomp::let_go_on(calls.as_fd(), bind.id).unwrap();
        let listen = seccomp::receive(calls.as_fd()).unwrap();
        assert_eq!((listen.call, listen.args[1]), (seccomp::Call::Listen, 7));
        seccomp::refuse(calls.as_fd(), listen.id, libc::EXDEV).unwrap();
        let mut said = String::new();
        io::BufReader::new(reader).read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{}\n", libc::EXDEV));
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).unwrap();
        // Nobody is left under the filter. `receive` would say so only on recent kernels.
        let mut fds = [PollFd::new(&calls, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap(), 1);
        assert!(fds[0].revents().contains(PollFlags::HUP));
    }
}
