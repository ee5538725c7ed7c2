use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn file(directory: &Path, name: &str, mode: u32) {
    let path = directory.join(name);
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("bin")).unwrap();
    file(&place.path().join("bin"), "server", 0o755);
    file(&place.path().join("bin"), "notes", 0o644);
    file(place.path(), "app", 0o755);
    file(place.path(), "app.py", 0o644);
    place
}

#[test]
fn found_in_path_and_by_path() {
    let place = place();
    assert_eq!(
        find("server", place.path(), Some("/nonexistent:bin")).unwrap(),
        place.path().join("bin/server")
    );
    assert_eq!(find("./app", place.path(), None).unwrap(), place.path().join("./app"));
}

#[test]
fn what_is_wrong_is_said() {
    let place = place();
    let error = |command: &str| find(command, place.path(), Some("bin")).unwrap_err();
    assert!(matches!(error("./app.py"), UsageError::CommandNotExecutable(_)));
    assert!(matches!(error("notes"), UsageError::CommandNotExecutable(_)));
    assert!(matches!(error("./bin"), UsageError::CommandIsDirectory(_)));
    assert!(matches!(error("bin"), UsageError::CommandIsDirectory(_)));
    assert!(matches!(error(""), UsageError::CommandEmpty));
    assert!(matches!(error("./app/x"), UsageError::CommandMissing { .. }));
    assert!(matches!(error("x\0y"), UsageError::CommandMissing { .. }));
    assert!(matches!(error("./x\0y"), UsageError::CommandUnreadable { .. }));
}

#[test]
fn what_was_probably_meant() {
    let place = place();
    let search = place.path().join("bin");
    let similar = |command: &str| match find(command, place.path(), search.to_str()).unwrap_err() {
        UsageError::CommandMissing { similar, .. } => similar,
        other => panic!("{other:?}"),
    };
    assert_eq!(similar("sevrer").as_deref(), Some("server"));
    assert_eq!(similar("app").as_deref(), Some("./app"));
    assert_eq!(similar("elephant"), None);
    assert!(similar("./apq").unwrap().ends_with("/app"));
}

#[test]
fn set_user_id_bits_are_missed() {
    let place = place();
    let path = place.path().join("app");
    assert_eq!(voided(&path), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    let note = voided(&path).unwrap();
    assert!(note.contains("app has the set-user-ID bit") && note.contains("--sockets pass"), "{note}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2755)).unwrap();
    assert!(voided(&path).unwrap().contains("the set-group-ID bit"));
}
