//! Reading another process's memory.

use std::io;

/// Fills `buffer` from `address` of the process or thread `pid`. process_vm_readv(2), Linux 3.2; the same rights
/// as for ptrace attach.
///
/// Errors: EPERM, no right; ESRCH, no such process; EFAULT, nothing mapped there; UnexpectedEof, only a part is.
pub fn read(pid: u32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel writes at most `iov_len` bytes to `local`, which is exactly `buffer`; `remote` is an
    // address of the other process and is only checked there.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(n) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n < buffer.len() => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_another_process() {
        let word = *b"relisten";
        let mut read_back = [0u8; 8];
        read(std::process::id(), (&raw const word).addr() as u64, &mut read_back).unwrap();
        assert_eq!(read_back, word);
        assert!(read(std::process::id(), 8, &mut read_back).is_err());
    }
}
