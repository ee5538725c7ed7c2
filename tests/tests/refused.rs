//! A kernel or a container that refuses something: what is left works, and `status` says what is missing.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Test, cli, seconds, wait_for};
use std::process::{Child, Command, Stdio};

/// Has the kernel answer EPERM to these system calls, then becomes the command.
const REFUSE: &str = "
import ctypes, os, platform, struct, sys
calls = {'x86_64': {'bpf': 321, 'seccomp': 317, 'pidfd_getfd': 438},
         'aarch64': {'bpf': 280, 'seccomp': 277, 'pidfd_getfd': 438}}[platform.machine()]
numbers = [calls[name] for name in sys.argv[1].split(',')]
# Load the number; for each: if it is that, EPERM; else go on.
code = [struct.pack('HBBI', 0x20, 0, 0, 0)]
for number in numbers:
    code += [struct.pack('HBBI', 0x15, 0, 1, number), struct.pack('HBBI', 0x06, 0, 0, 0x00050001)]
code += [struct.pack('HBBI', 0x06, 0, 0, 0x7fff0000)]
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer(b''.join(code))
class Fprog(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
fprog = Fprog(len(code), ctypes.addressof(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
";

struct Instance(Child);

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn without(calls: &str, missing: &[&str]) {
    Test::new().server(Kind::BuiltIn).limit(seconds(90)).run(|scene| {
        let server = Kind::BuiltIn.server();
        let script = scene.write("refuse.py", REFUSE);
        let run = scene.relisten().name("web").server(&server).workers(3).build();
        let mut command = Command::new("python3");
        command.arg(script).arg(calls).arg(run.get_program()).args(run.get_args());
        let mut instance = Instance(
            command.current_dir(scene.directory()).stdin(Stdio::null()).spawn().expect("start relisten run"),
        );
        let status = || {
            let said = cli(&["status", "web", "--json"]);
            serde_json::from_str::<relisten_e2e::Status>(&said.out).ok()
        };
        let named =
            |s: &relisten_e2e::Status, feature: &str| s.steering.missing.iter().any(|m| m.feature == feature);
        let found = wait_for("it runs and has said what is missing", seconds(30), || {
            status().filter(|s| s.settled(3) && missing.iter().all(|feature| named(s, feature)))
        });
        for lack in &found.steering.missing {
            assert!(!lack.why.is_empty() && !lack.effect.is_empty(), "{lack:?}");
        }
        let load = Load::on(&server);
        cli(&["reload", "web"]).ok();
        cli(&["scale", "5", "web"]).ok();
        cli(&["scale", "2", "web"]).ok();
        load.more(300, seconds(30));
        load.finish_clean();
        cli(&["stop", "web"]).ok();
        wait_for("it has ended", seconds(20), || instance.0.try_wait().expect("wait"));
        scene.nothing_left(&[8000]);
    });
}

#[test]
fn bpf() {
    without("bpf", &["ebpf"]);
}

#[test]
fn seccomp() {
    without("seccomp", &[]);
}

#[test]
fn pidfd_getfd() {
    without("pidfd_getfd", &["adoption"]);
}

#[test]
fn all_of_them() {
    without("bpf,seccomp,pidfd_getfd", &["ebpf", "adoption"]);
}
