//! In which container a process runs.

use std::fs;

/// The container of a process, from the names in its cgroup's path. `None` for one in no container, or in one of a
/// kind that is not known here.
pub fn container(pid: u32) -> Option<String> {
    of_cgroups(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// `0::/system.slice/docker-0123….scope`; on version 1 one line per controller, all alike.
pub(super) fn of_cgroups(text: &str) -> Option<String> {
    text.lines().find_map(|line| of_path(line.splitn(3, ':').nth(2)?))
}

fn of_path(path: &str) -> Option<String> {
    let in_pods = path.contains("kubepods");
    // The innermost name that says something.
    path.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, kind) in [
            ("docker-", "docker"),
            ("libpod-", "podman"),
            ("cri-containerd-", "kubernetes"),
            ("crio-", "kubernetes"),
        ] {
            if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
                return Some(format!("{kind}:{}", short(id)));
            }
        }
        if is_id(name) {
            let kind = if in_pods { "kubernetes" } else { "docker" };
            return Some(format!("{kind}:{}", short(name)));
        }
        if let Some(name) = name.strip_prefix("lxc.payload.") {
            return Some(format!("lxc:{name}"));
        }
        let machine = part.strip_prefix("machine-").and_then(|name| name.strip_suffix(".scope"));
        machine.map(|name| format!("machine:{}", name.replace("\\x2d", "-")))
    })
}

/// Container engines name containers by 64 hexadecimal digits.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// As much as the engines' own tools show.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_engines() {
        let id = "0123456789abcdef".repeat(4);
        let of = |path: String| of_cgroups(&format!("0::{path}\n"));
        assert_eq!(of(format!("/system.slice/docker-{id}.scope")).unwrap(), "docker:0123456789ab");
        assert_eq!(of(format!("/docker/{id}")).unwrap(), "docker:0123456789ab");
        assert_eq!(of(format!("/machine.slice/libpod-{id}.scope/container")).unwrap(), "podman:0123456789ab");
        let pod = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope");
        assert_eq!(of(pod).unwrap(), "kubernetes:0123456789ab");
        assert_eq!(of("/lxc.payload.web/system.slice".into()).unwrap(), "lxc:web");
        assert_eq!(of("/machine.slice/machine-a\\x2db.scope".into()).unwrap(), "machine:a-b");
        assert_eq!(of("/user.slice/user-0.slice/session-1.scope".into()), None);
        assert_eq!(of_cgroups("garbage"), None);
        let version_1 = format!("12:memory:/docker/{id}\n11:cpu:/docker/{id}\n");
        assert_eq!(of_cgroups(&version_1).unwrap(), "docker:0123456789ab");
    }
}
