//! Loading.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use aya::programs::Program;
use aya::{EbpfLoader, VerifierLogLevel};
use relisten_bpf::{Descriptors, Group, GroupId, Loaded, OBJECT, Policy, Steering, abi};
use rustix::fd::OwnedFd;

/// What the kernel has to look at decides how long loading takes, and a million instructions is its limit.
#[test]
fn programs_are_quickly_verified() {
    let mut object = EbpfLoader::new().verifier_log_level(VerifierLogLevel::DISABLE).load(OBJECT).unwrap();
    for name in ["group_0", "count"] {
        let info = match object.program_mut(name).unwrap() {
            Program::SkReuseport(program) => program.load().and_then(|()| program.info()),
            Program::SockOps(program) => program.load().and_then(|()| program.info()),
            other => panic!("{other:?}"),
        };
        let looked_at = info.expect("this test needs CAP_BPF and CAP_NET_ADMIN").verified_instruction_count();
        println!("{name}: {looked_at:?} instructions verified");
        assert!(looked_at.unwrap() < 60_000, "{name}: {looked_at:?}");
    }
}

#[test]
fn all_groups_have_a_program() {
    let mut steering = Loaded::load(abi::GROUPS).unwrap().open().unwrap();
    let groups: Vec<_> = std::iter::from_fn(|| steering.group()).collect();
    assert_eq!(groups.iter().map(Group::id).collect::<Vec<_>>(), GroupId::all().collect::<Vec<_>>());
    let mut places: Vec<_> = std::iter::from_fn(|| steering.claim()).collect();
    assert_eq!(places.len(), abi::LISTENERS);
    let last = places.pop().unwrap();
    steering.release(&last, None).unwrap();
    assert_eq!(steering.claim().map(|p| p.key()), Some(last.key()));
}

#[test]
fn descriptors_of_something_else_are_refused() {
    let fds = Loaded::load(1).unwrap().into_descriptors().into_vec();
    let few: Vec<OwnedFd> = fds.iter().take(3).map(|fd| fd.try_clone().unwrap()).collect();
    assert_eq!(Descriptors::new(few).unwrap_err().found, 3);
    let mut mixed: Vec<OwnedFd> = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    mixed.swap(1, 2);
    let error = Steering::open(Descriptors::new(mixed).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the map 'listeners' is of another version of relisten");
    let mut no_map: Vec<OwnedFd> = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    no_map[1] = std::fs::File::open("/dev/null").unwrap().into();
    assert_eq!(
        Steering::open(Descriptors::new(no_map).unwrap()).unwrap_err().to_string(),
        "open the map 'listeners'"
    );
    Steering::open(Descriptors::new(fds).unwrap()).unwrap();
}

#[test]
fn maps_of_another_version_are_left_alone() {
    use relisten_sys::bpf::{Map, SharedArray};
    let fds = Loaded::load(1).unwrap().into_descriptors();
    let duplicates: Vec<OwnedFd> = fds.into_vec();
    // The instance is the fifth.
    let map = Map::new(duplicates[4].try_clone().unwrap()).unwrap();
    let instance = SharedArray::map(&map).unwrap();
    let version = instance.u32(0, std::mem::offset_of!(abi::InstanceEntry, version));
    version.store(77, std::sync::atomic::Ordering::SeqCst);
    let error = Steering::open(Descriptors::new(duplicates).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the maps have version 77, this relisten understands 4");
}

/// Who loads needs privileges, who is given the descriptors does not (Linux 5.19 where
/// `kernel.unprivileged_bpf_disabled` is set).
#[test]
fn nothing_is_needed_to_use_what_was_loaded() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let steering = common::load();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
    Loaded::load(1).expect_err("without capabilities");
    let mut scene = common::Scene::uncounted(steering, common::V4, 3, Policy::RoundRobin);
    let got = scene.connect_and_reset(30, &[]);
    assert_eq!(got, [10, 10, 10]);
    scene.members[0].place.rescue(&scene.members[0].socket, 100).unwrap();
    assert_eq!(scene.connect_and_reset(30, &[])[0], 0);
}
