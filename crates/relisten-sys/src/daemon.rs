//! What a process needs that is to outlive the one that started it.

use std::io;

/// Ignore SIGHUP, SIGINT, SIGTERM, SIGPIPE and the job-control stops of a terminal from now on (`signal(2)`
/// with `SIG_IGN`). For a process without handlers of its own: an ignored signal stays ignored through `exec`.
pub fn ignore_ordinary_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN] {
        // SAFETY: SIG_IGN is no code of ours that could run at a bad moment, and the numbers are valid.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Mark all descriptors from `first` on as close-on-exec (`close_range(2)` with `CLOSE_RANGE_CLOEXEC`, Linux
/// 5.11), so that what this process inherited by accident is not handed to those that it starts.
///
/// Fails with ENOSYS or EINVAL on older kernels; nothing is changed then.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with this flag the call only sets a flag of open descriptors; it closes none of them here.
    let r = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::c_ulong::from(first),
            libc::c_ulong::from(u32::MAX),
            libc::c_ulong::from(libc::CLOSE_RANGE_CLOEXEC),
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Let go of the pages of code and constants that were needed to start and may never be needed again
/// (`madvise(2)` with `MADV_DONTNEED` on this process's executable mappings of files). What is needed after all is
/// mapped again from the page cache. For processes that stay for months and are meant to be small.
///
/// Returns how much address space was let go, bytes; 0 where `/proc` is not to be had.
pub fn forget_startup_code() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(code_mapping).map(|(start, length)| forget(start, length)).sum()
}

fn forget(start: usize, length: usize) -> usize {
    // SAFETY: the range is a private mapping of a file that nobody writes to (see `code_mapping`), so its pages
    // hold what the file holds, and the next access brings them back from there.
    let r = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    if r == 0 { length } else { 0 }
}

/// Start and length of a line of `/proc/PID/maps`, if it is code, or the constants at the beginning of an ELF file.
/// Other read-only mappings may have been written to by the dynamic linker, which is lost if they are let go.
fn code_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (_device, inode) = (fields.next()?, fields.next()?);
    let constants = permissions == "r--p" && offset.bytes().all(|b| b == b'0') && is_program(fields.next()?);
    if inode == "0" || !(permissions == "r-xp" || constants) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|n| usize::from_str_radix(n, 16).ok());
    Some((start?, end?.checked_sub(start?)?))
}

/// Not any file that somebody mapped, whose pages may be private copies: a library, or this program.
fn is_program(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.contains(".so") || std::env::current_exe().is_ok_and(|exe| exe.as_os_str() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_let_go() {
        let exe = std::env::current_exe().unwrap();
        let exe = exe.display();
        let line = |permissions: &str, offset: &str, inode: &str, path: &str| {
            code_mapping(&format!("1000-3000 {permissions} {offset} fe:00 {inode}    {path}"))
        };
        let whole = Some((0x1000, 0x2000));
        assert_eq!(line("r-xp", "001b9000", "7", &exe.to_string()), whole);
        assert_eq!(line("r--p", "00000000", "7", &exe.to_string()), whole);
        assert_eq!(line("r--p", "00000000", "7", "/lib/libc.so.6"), whole);
        assert_eq!(line("r--p", "00626000", "7", &exe.to_string()), None, "written to by the dynamic linker");
        assert_eq!(line("rw-p", "00000000", "7", &exe.to_string()), None);
        assert_eq!(line("r--p", "00000000", "7", "/usr/share/data"), None);
        assert_eq!(line("r-xp", "00000000", "0", "[vdso]"), None);
        assert_eq!(code_mapping("no such line"), None);
    }

    #[test]
    fn everything_still_works_afterwards() {
        assert!(forget_startup_code() > 0);
        let mut words = ["code", "comes", "back"];
        words.sort_unstable();
        assert_eq!(words.concat(), "backcodecomes");
    }
}
